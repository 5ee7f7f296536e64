//! What tools and brokers ask of the controller by making a node, and what it takes
//! note of: each node is removed once that is done.

use super::steps::Steps;
use crate::core::cluster::state::Cluster;
use crate::core::cluster::topics::delete_all;
use crate::core::cluster::znodes;
use crate::core::image::Partition;
use crate::core::tree::{Op, Tree};
use klamm_engine::units::{LeaderEpoch, TimestampMs};
use std::collections::BTreeSet;

/// How long a notice of changed settings stays (`ZkNodeChangeNotificationListener`).
const CONFIG_CHANGE_AGE_MAX_MS: i64 = 15 * 60 * 1000;

/// The topics that are being deleted.
pub fn doomed<'a>(tree: &'a Tree, cluster: &Cluster) -> BTreeSet<&'a str> {
    if !cluster.settings().delete_topic_enable {
        return BTreeSet::new();
    }
    tree.children(znodes::DELETIONS)
        .into_iter()
        .flatten()
        .collect()
}

pub fn plan_deletions(tree: &Tree, cluster: &Cluster, steps: &mut Steps) {
    for name in tree.children(znodes::DELETIONS).into_iter().flatten() {
        let request = format!("{}/{name}", znodes::DELETIONS);
        let topic = znodes::topic(name);
        steps.close();
        let mut last = Vec::new();
        if !tree.exists(&topic) {
            log::warn!("{request}: there is no such topic; the request is removed");
        } else if !cluster.settings().delete_topic_enable {
            log::warn!("{request}: delete.topic.enable is false; the request is removed");
        } else {
            // In more than one step where there is much of it. Until the last of them
            // the topic and the request are there, so that a controller that takes
            // over in between knows to go on.
            log::info!("topic {name}: deleted, as {request} asks");
            let mut below = delete_all(tree, &topic);
            last.extend(below.pop());
            for op in below {
                steps.add([op]);
            }
            last.extend(delete_all(tree, &znodes::topic_config(name)));
        }
        last.extend(delete_all(tree, &request));
        steps.add(last);
        steps.close();
    }
}

/// Gives partitions back to the replica that their assignment names first.
pub fn plan_elections(tree: &Tree, cluster: &Cluster, steps: &mut Steps) {
    let Some(request) = Request::read(tree, znodes::PREFERRED_ELECTION) else {
        return;
    };
    let mut seen = BTreeSet::new();
    for (topic, index, _) in &request.partitions {
        let Some(known) = cluster.topic(topic) else {
            continue;
        };
        let Some(partition) = known.partition(*index) else {
            continue;
        };
        // One without a living leader is seen to anyway.
        let live = |id: &i32| cluster.brokers().contains_key(id);
        let Some(preferred) = partition
            .replicas
            .first()
            .filter(|id| live(id) && partition.isr.contains(id))
        else {
            continue;
        };
        if partition.leader == Some(*preferred)
            || !partition.leader.as_ref().is_some_and(live)
            || !seen.insert((topic, index))
        {
            continue;
        }
        let wanted = Partition {
            leader: Some(*preferred),
            leader_epoch: LeaderEpoch(partition.leader_epoch.0.saturating_add(1)),
            replicas: partition.replicas.clone(),
            isr: vec![*preferred],
        };
        let path = znodes::state(topic, *index);
        let version = tree.stat(&path).map_or(0, |stat| stat.version);
        steps.add([Op::Set {
            path,
            data: Some(znodes::state_json(&wanted, steps.term().epoch)),
            version,
        }]);
    }
    steps.add([request.removal]);
}

/// A partition that is not replicated can only be moved by carrying its log over,
/// which comes with replication: what asks for it is told no in the log.
pub fn plan_reassignment(tree: &Tree, cluster: &Cluster, steps: &mut Steps) {
    let Some(request) = Request::read(tree, znodes::REASSIGNMENT) else {
        return;
    };
    for (topic, index, replicas) in &request.partitions {
        let now = cluster
            .topic(topic)
            .and_then(|topic| topic.partition(*index))
            .map(|partition| &partition.replicas);
        match now {
            None => log::warn!(
                "{}: there is no partition {topic}-{index}",
                znodes::REASSIGNMENT
            ),
            Some(now) if now == replicas => {}
            Some(now) => log::warn!(
                "{}: the partition {topic}-{index} stays on {now:?} and is not moved to {replicas:?}: Klamm cannot move partitions yet",
                znodes::REASSIGNMENT
            ),
        }
    }
    steps.add([request.removal]);
}

struct Request {
    partitions: Vec<(String, i32, Vec<i32>)>,
    removal: Op,
}

impl Request {
    fn read(tree: &Tree, path: &str) -> Option<Request> {
        let stat = tree.stat(path)?;
        // Not a request but a folder of somebody's: it could not be removed.
        if stat.num_children > 0 {
            return None;
        }
        let data = tree.data(path).flatten();
        let partitions = data.and_then(znodes::read_partitions);
        if partitions.is_none() {
            log::warn!("{path}: what it holds cannot be read; it is removed");
        }
        Some(Request {
            partitions: partitions.unwrap_or_default(),
            removal: Op::Delete {
                path: path.to_owned(),
                version: stat.version,
            },
        })
    }
}

/// A broker tells of partitions or disks that it changed. The state nodes themselves
/// are followed, so there is no more to do than to take the notice away.
pub fn plan_notices(tree: &Tree, steps: &mut Steps) {
    for parent in [znodes::ISR_CHANGES, znodes::LOG_DIR_EVENTS] {
        for name in tree.children(parent).into_iter().flatten() {
            steps.add(delete_all(tree, &format!("{parent}/{name}")));
        }
    }
}

/// Notices of changed settings have no reader here; they are kept for others'.
pub fn plan_purge(tree: &Tree, now: TimestampMs, steps: &mut Steps) {
    let parent = znodes::CONFIG_CHANGES;
    let is_old = |path: &String| {
        tree.stat(path)
            .is_some_and(|stat| now.0.saturating_sub(stat.ctime.0) > CONFIG_CHANGE_AGE_MAX_MS)
    };
    // In the order of their numbers, and so of their age: the first that is young ends
    // the search, however many there are.
    tree.children(parent)
        .into_iter()
        .flatten()
        .map(|name| format!("{parent}/{name}"))
        .filter(|path| path.starts_with(znodes::CONFIG_CHANGE))
        .take_while(is_old)
        .for_each(|path| steps.add(delete_all(tree, &path)));
}
