//! Who leads which partition.
//!
//! ```text
//!   no state node         leader: the first live replica     epoch 0     isr: the leader
//!                         none lives: no leader              epoch 0     isr: replicas
//!   the leader is gone    an in-sync replica that lives      epoch + 1   isr: the leader
//!                         none lives: no leader              epoch + 1   isr as it was
//!   no leader             an in-sync replica came back       epoch + 1   isr: the leader
//! ```

use super::steps::Steps;
use crate::core::cluster::ids::IdSource;
use crate::core::cluster::state::Cluster;
use crate::core::cluster::topics::{check_name, empty};
use crate::core::cluster::znodes::{self, TopicNode};
use crate::core::image::{Partition, Topic};
use crate::core::tree::{Op, Tree};
use klamm_engine::units::LeaderEpoch;
use std::collections::BTreeSet;

/// A partition that nobody led before.
pub fn fresh(cluster: &Cluster, replicas: &[i32]) -> Partition {
    let leader = first_live(cluster, replicas);
    Partition {
        leader,
        leader_epoch: LeaderEpoch(0),
        replicas: replicas.to_vec(),
        // With no leader there is nothing to be in sync with: whoever comes first may
        // lead.
        isr: leader.map_or_else(|| replicas.to_vec(), |leader| vec![leader]),
    }
}

/// The partition as it should be, where that is not as it is.
fn elected(cluster: &Cluster, partition: &Partition) -> Option<Partition> {
    if partition.leader.is_some_and(|id| is_live(cluster, id)) {
        return None;
    }
    let in_sync = |id: &&i32| partition.isr.contains(id);
    let preferred = partition.replicas.iter().filter(in_sync).copied();
    // A hand may have changed the assignment under a partition that has its data where
    // it was.
    let candidates: Vec<i32> = preferred.chain(partition.isr.iter().copied()).collect();
    let leader = first_live(cluster, &candidates);
    if leader.is_none() && partition.leader.is_none() {
        return None;
    }
    Some(Partition {
        leader,
        leader_epoch: LeaderEpoch(partition.leader_epoch.0.saturating_add(1)),
        replicas: partition.replicas.clone(),
        isr: leader.map_or_else(|| partition.isr.clone(), |leader| vec![leader]),
    })
}

fn is_live(cluster: &Cluster, id: i32) -> bool {
    cluster.brokers().contains_key(&id)
}

fn first_live(cluster: &Cluster, ids: &[i32]) -> Option<i32> {
    ids.iter().copied().find(|id| is_live(cluster, *id))
}

/// Sees to the topic of that name, if it is one.
pub fn plan_topic(
    tree: &Tree,
    cluster: &Cluster,
    name: &str,
    doomed: &BTreeSet<&str>,
    ids: &mut IdSource,
    steps: &mut Steps,
) {
    match cluster.topic(name) {
        Some(topic) => plan_states(tree, cluster, topic, doomed, steps),
        None => plan_id(tree, cluster, name, doomed, ids, steps),
    }
}

/// A topic that would be one if it had an id of its own gets one. It is then known, and
/// the next plan sees to its partitions.
fn plan_id(
    tree: &Tree,
    cluster: &Cluster,
    name: &str,
    doomed: &BTreeSet<&str>,
    ids: &mut IdSource,
    steps: &mut Steps,
) {
    let path = znodes::topic(name);
    let Some(Some(data)) = tree.data(&path) else {
        return;
    };
    if doomed.contains(name) || check_name(name).is_err() {
        return;
    }
    let Some(mut node) = TopicNode::read(data) else {
        return;
    };
    // Not known although it has one: the id is another topic's, most likely because
    // its node was copied.
    let taken = node.id.and_then(|id| cluster.topic_by_id(id));
    match (node.id, taken) {
        (Some(_), None) => return,
        (Some(id), Some(other)) => log::warn!(
            "topic {name}: its id {id} belongs to the topic {}; it gets one of its own",
            other.name
        ),
        (None, _) => {}
    }
    let mut id = ids.next_id();
    while cluster.topic_by_id(id).is_some() {
        id = ids.next_id();
    }
    node.id = Some(id);
    let version = tree.stat(&path).map_or(0, |stat| stat.version);
    log::info!("topic {name}: gets the id {id}");
    steps.close();
    steps.add([Op::Set {
        path,
        data: Some(node.json()),
        version,
    }]);
    steps.close();
}

/// Sees to one topic's state nodes.
pub fn plan_states(
    tree: &Tree,
    cluster: &Cluster,
    topic: &Topic,
    doomed: &BTreeSet<&str>,
    steps: &mut Steps,
) {
    // The nodes of a topic that is being deleted must not come back.
    if doomed.contains(&*topic.name) {
        return;
    }
    let epoch = steps.term().epoch;
    let mut missing = Vec::new();
    for (index, partition) in (0..).zip(&topic.partitions) {
        // What cannot be read has nobody in sync; only then is it worth a look.
        let state = partition
            .isr
            .is_empty()
            .then(|| tree.data(&znodes::state(&topic.name, index)));
        let wanted = match state {
            Some(None) => {
                missing.push(index);
                continue;
            }
            Some(Some(data)) if !data.is_some_and(znodes::is_state) => Some(Partition {
                // Nobody knows the epoch any more. Each one was a set of this node, so
                // that its version is not behind.
                leader_epoch: LeaderEpoch(version_of(tree, &topic.name, index)),
                ..fresh(cluster, &partition.replicas)
            }),
            Some(Some(_)) if partition.leader.is_none() => {
                let unled = Partition {
                    isr: partition.replicas.clone(),
                    ..partition.clone()
                };
                elected(cluster, &unled)
            }
            _ => elected(cluster, partition),
        };
        let Some(wanted) = wanted else { continue };
        tell(topic, index, partition, &wanted);
        steps.add([Op::Set {
            path: znodes::state(&topic.name, index),
            data: Some(znodes::state_json(&wanted, epoch)),
            version: version_of(tree, &topic.name, index),
        }]);
    }
    if !missing.is_empty() {
        plan_missing(tree, cluster, topic, &missing, steps);
    }
}

fn plan_missing(tree: &Tree, cluster: &Cluster, topic: &Topic, missing: &[i32], steps: &mut Steps) {
    steps.close();
    let parent = znodes::partitions(&topic.name);
    if !tree.exists(&parent) {
        steps.add([empty(parent)]);
    }
    for index in missing {
        let partition = &topic.partitions[index.unsigned_abs() as usize];
        let wanted = fresh(cluster, &partition.replicas);
        tell(topic, *index, partition, &wanted);
        let node = znodes::partition(&topic.name, *index);
        let node = (!tree.exists(&node)).then(|| empty(node));
        let state = Op::create(
            znodes::state(&topic.name, *index),
            znodes::state_json(&wanted, steps.term().epoch),
        );
        steps.add(node.into_iter().chain([state]));
    }
    steps.close();
}

fn version_of(tree: &Tree, topic: &str, index: i32) -> i32 {
    tree.stat(&znodes::state(topic, index))
        .map_or(0, |stat| stat.version)
}

fn tell(topic: &Topic, index: i32, before: &Partition, after: &Partition) {
    let name = &topic.name;
    match after.leader {
        Some(leader) => log::debug!(
            "partition {name}-{index}: broker {leader} leads, epoch {}",
            after.leader_epoch.0
        ),
        None => log::info!(
            "partition {name}-{index}: no leader; it was {:?}, and of {:?} none is alive",
            before.leader,
            after.isr
        ),
    }
}
