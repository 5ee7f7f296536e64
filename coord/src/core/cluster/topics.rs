//! Topics: which names, partitions and replicas are allowed, and the operations on the
//! tree that make, grow and delete a topic.
//!
//! ```text
//!   plan_create(topic)  -->  Err(why)  |  (what it will be, [Op])
//! ```
//!
//! A plan changes nothing. Its operations are one multi: a topic is there whole or
//! not at all.

use super::controller::leaders;
use super::state::Cluster;
use super::{
    ClusterError, ClusterErrorKind as Kind, CreatedTopic, NewPartitions, NewTopic, Overrides,
    TopicRef, znodes,
};
use crate::core::image::Topic;
use crate::core::settings::{self, describe};
use crate::core::tree::{Op, Tree};
use klamm_engine::units::TopicId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Kafka's `Topic.MAX_NAME_LENGTH`: 255, a file name, less a dash and the digits of a
/// partition.
pub const NAME_BYTES_MAX: usize = 249;

/// Whether a text may name a topic, and with it a folder.
pub fn check_name(name: &str) -> Result<(), ClusterError> {
    let wrong = match name {
        "" => "a topic's name must not be empty".to_owned(),
        "." | ".." => format!("a topic must not be called {name:?}"),
        _ if name.len() > NAME_BYTES_MAX => {
            format!(
                "a topic's name has at most {NAME_BYTES_MAX} characters, this one has {}",
                name.chars().count()
            )
        }
        _ if !name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) =>
        {
            format!(
                "the topic name {name:?} has characters other than ASCII letters and digits, '.', '_' and '-'"
            )
        }
        _ => return Ok(()),
    };
    Err(Kind::InvalidTopicException.because(wrong))
}

/// What CreateTopics would do. `id` is the id that the topic gets.
pub fn plan_create(
    cluster: &Cluster,
    tree: &Tree,
    topic: &NewTopic,
    id: TopicId,
) -> Result<(CreatedTopic, Vec<Op>), ClusterError> {
    check_name(&topic.name)?;
    if cluster.topic(&topic.name).is_some() || tree.exists(&znodes::topic(&topic.name)) {
        return Err(Kind::TopicAlreadyExists
            .because(format!("the topic {:?} is there already", topic.name)));
    }
    if let Some(other) = cluster.colliding(&topic.name) {
        return Err(Kind::InvalidTopicException.because(format!(
            "{:?} and the topic {other:?} that is there differ only in '.' and '_', which are one and the same in metrics",
            topic.name
        )));
    }
    let replicas = if topic.assignment.is_empty() {
        choose(cluster, topic, id)?
    } else {
        manual(cluster, topic)?
    };
    let overrides = check_configs(&topic.configs)?;

    let name = &topic.name;
    let mut ops = Vec::with_capacity(3 + 2 * replicas.len());
    let config = znodes::topic_config(name);
    ops.push(put(tree, &config, znodes::config_json(&overrides)));
    ops.push(Op::create(
        znodes::topic(name),
        znodes::topic_json(id, &replicas),
    ));
    ops.push(empty(znodes::partitions(name)));
    for (index, replicas) in (0..).zip(&replicas) {
        push_partition(cluster, &mut ops, name, index, replicas);
    }
    let count = |n: usize| i32::try_from(n).expect("below max.broker.partitions");
    let created = CreatedTopic {
        id,
        partitions: count(replicas.len()),
        replication_factor: i16::try_from(replicas[0].len()).expect("not more than brokers"),
        configs: describe::topic(&overrides, cluster.settings(), None),
    };
    Ok((created, ops))
}

/// What CreatePartitions would do.
pub fn plan_grow(
    cluster: &Cluster,
    tree: &Tree,
    request: &NewPartitions,
) -> Result<Vec<Op>, ClusterError> {
    let name = &request.topic;
    let topic = known(cluster, name)?;
    let now = topic.partitions.len();
    let wanted = match usize::try_from(request.count) {
        Ok(count) if count > now => count,
        Ok(count) if count == now => {
            return Err(Kind::InvalidPartitions
                .because(format!("the topic {name:?} has {now} partitions already")));
        }
        _ => {
            return Err(Kind::InvalidPartitions.because(format!(
                "the topic {name:?} has {now} partitions, and a topic cannot shrink to {}",
                request.count
            )));
        }
    };
    let factor = usize::try_from(topic.replication_factor())
        .unwrap_or(1)
        .max(1);
    check_limit(cluster, (wanted - now) as u64 * factor as u64)?;
    let added = match &request.assignments {
        None => place(cluster, next_to(cluster, topic), now..wanted, factor)?,
        Some(lists) if lists.len() == wanted - now => {
            for list in lists {
                check_replicas(cluster, list)?;
                if list.len() != factor {
                    return Err(Kind::InvalidReplicaAssignment.because(format!(
                        "the topic {name:?} has {factor} replicas a partition, and an assignment names {}",
                        list.len()
                    )));
                }
            }
            lists.clone()
        }
        Some(lists) => {
            return Err(Kind::InvalidReplicaAssignment.because(format!(
                "{} partitions are to be added, and assignments are given for {}",
                wanted - now,
                lists.len()
            )));
        }
    };
    let mut all: Vec<Vec<i32>> = topic
        .partitions
        .iter()
        .map(|p| p.replicas.clone())
        .collect();
    all.extend(added.iter().cloned());
    let json = znodes::topic_json(topic.id, &all);
    let mut ops = vec![put(tree, &znodes::topic(name), json)];
    if !tree.exists(&znodes::partitions(name)) {
        ops.push(empty(znodes::partitions(name)));
    }
    let first = i32::try_from(now).expect("below max.broker.partitions");
    for (index, replicas) in (first..).zip(&added) {
        // A leftover of a topic that a hand deleted in part must not stop this.
        ops.extend(delete_all(tree, &znodes::partition(name, index)));
        push_partition(cluster, &mut ops, name, index, replicas);
    }
    Ok(ops)
}

/// What DeleteTopics would do.
pub fn plan_delete(
    cluster: &Cluster,
    tree: &Tree,
    topic: &TopicRef,
) -> Result<(Arc<Topic>, Vec<Op>), ClusterError> {
    let topic = match topic {
        TopicRef::Name(name) => known(cluster, name)?,
        TopicRef::Id(id) => cluster
            .topic_by_id(*id)
            .ok_or_else(|| Kind::UnknownTopicId.because("there is no topic of this id"))?,
    };
    if !cluster.settings().delete_topic_enable {
        return Err(
            Kind::TopicDeletionDisabled.because("delete.topic.enable is false on this broker")
        );
    }
    let mut ops = delete_all(tree, &znodes::topic(&topic.name));
    ops.extend(delete_all(tree, &znodes::topic_config(&topic.name)));
    Ok((topic.clone(), ops))
}

pub(super) fn known<'a>(cluster: &'a Cluster, name: &str) -> Result<&'a Arc<Topic>, ClusterError> {
    cluster
        .topic(name)
        .ok_or_else(|| Kind::UnknownTopicOrPartition.because(format!("there is no topic {name:?}")))
}

/// A topic's settings as they came in, each one checked.
pub(super) fn check_configs(
    configs: &[(String, Option<String>)],
) -> Result<Overrides, ClusterError> {
    let mut overrides = Overrides::new();
    for (name, value) in configs {
        let Some(value) = value else {
            return Err(Kind::InvalidConfig.because(format!("{name}: null is not a value")));
        };
        settings::parse_topic(name, value)?;
        if overrides.insert(name.clone(), value.clone()).is_some() {
            return Err(Kind::InvalidRequest.because(format!("{name} is given twice")));
        }
    }
    Ok(overrides)
}

// -- replicas

/// The assignment where the request leaves it to the broker.
fn choose(cluster: &Cluster, topic: &NewTopic, id: TopicId) -> Result<Vec<Vec<i32>>, ClusterError> {
    let partitions = match topic.partitions {
        -1 => cluster.settings().num_partitions,
        n if n >= 1 => n,
        n => {
            return Err(Kind::InvalidPartitions
                .because(format!("a topic has 1 partition or more, not {n}")));
        }
    };
    let factor = match topic.replication_factor {
        -1 => cluster.settings().default_replication_factor,
        n if n >= 1 => n,
        n => {
            return Err(Kind::InvalidReplicationFactor
                .because(format!("a partition has 1 replica or more, not {n}")));
        }
    };
    let (partitions, factor) = (
        partitions.unsigned_abs() as usize,
        usize::from(factor.unsigned_abs()),
    );
    check_factor(cluster, factor)?;
    if factor > 1 {
        return Err(Kind::InvalidReplicationFactor.because(unreplicated(factor)));
    }
    check_limit(cluster, partitions as u64 * factor as u64)?;
    // Differs from topic to topic, so that many topics of one partition do not all lead
    // on one broker.
    place(cluster, usize::from(id.0[15]), 0..partitions, factor)
}

fn unreplicated(factor: usize) -> String {
    format!(
        "Klamm keeps one replica of each partition and cannot keep {factor} yet; ask for a replication factor of 1, or of -1 where default.replication.factor is 1"
    )
}

/// Where a topic that grows goes on: as if all its partitions had been placed at once,
/// from the broker of the first, or from the next one if that is gone.
fn next_to(cluster: &Cluster, topic: &Topic) -> usize {
    let first = topic.partitions.first().and_then(|p| p.replicas.first());
    cluster
        .brokers()
        .keys()
        .position(|id| Some(id) >= first)
        .unwrap_or(0)
}

/// Spreads partitions over the live brokers, round robin.
fn place(
    cluster: &Cluster,
    start: usize,
    partitions: std::ops::Range<usize>,
    factor: usize,
) -> Result<Vec<Vec<i32>>, ClusterError> {
    check_factor(cluster, factor)?;
    let brokers: Vec<i32> = cluster.brokers().keys().copied().collect();
    Ok(partitions
        .map(|index| {
            (0..factor)
                .map(|replica| brokers[(start + index + replica) % brokers.len()])
                .collect()
        })
        .collect())
}

/// The assignment that the request gives.
fn manual(cluster: &Cluster, topic: &NewTopic) -> Result<Vec<Vec<i32>>, ClusterError> {
    if topic.partitions != -1 || topic.replication_factor != -1 {
        return Err(Kind::InvalidRequest.because(
            "with an assignment given, the number of partitions and the replication factor must both be -1",
        ));
    }
    check_limit(
        cluster,
        topic
            .assignment
            .iter()
            .map(|(_, replicas)| replicas.len() as u64)
            .sum(),
    )?;
    let wrong = |what: String| Err(Kind::InvalidReplicaAssignment.because(what));
    let mut sorted: Vec<&(i32, Vec<i32>)> = topic.assignment.iter().collect();
    sorted.sort_by_key(|(index, _)| *index);
    for (want, (index, replicas)) in (0..).zip(&sorted) {
        if *index < want {
            return wrong(format!(
                "partition {index} is assigned twice, or its index is below 0"
            ));
        }
        if *index > want {
            return wrong(format!("partition {want} is missing from the assignment"));
        }
        check_replicas(cluster, replicas)?;
        if replicas.len() > 1 {
            return wrong(unreplicated(replicas.len()));
        }
    }
    Ok(sorted
        .into_iter()
        .map(|(_, replicas)| replicas.clone())
        .collect())
}

fn check_replicas(cluster: &Cluster, replicas: &[i32]) -> Result<(), ClusterError> {
    let wrong = |what: String| Err(Kind::InvalidReplicaAssignment.because(what));
    if replicas.is_empty() {
        return wrong("a partition needs a replica".to_owned());
    }
    if let Some(id) = replicas
        .iter()
        .find(|id| !cluster.brokers().contains_key(id))
    {
        return wrong(format!("there is no broker {id}"));
    }
    if replicas.iter().collect::<BTreeSet<_>>().len() != replicas.len() {
        return wrong(format!("a broker is named twice in {replicas:?}"));
    }
    Ok(())
}

/// Each partition costs memory, files and a place in every image, so their number has
/// an end. Held against the sum over all brokers.
fn check_limit(cluster: &Cluster, more: u64) -> Result<(), ClusterError> {
    let each = u64::from(cluster.settings().max_broker_partitions.unsigned_abs());
    let max = each.saturating_mul(cluster.brokers().len().max(1) as u64);
    let now = cluster.replicas() as u64;
    if now.saturating_add(more) > max {
        return Err(Kind::PolicyViolation.because(format!(
            "{more} partitions more would make {}, and max.broker.partitions allows {max}",
            now.saturating_add(more)
        )));
    }
    Ok(())
}

/// Comes before the limit: a factor that cannot be is wrong in any number.
fn check_factor(cluster: &Cluster, factor: usize) -> Result<(), ClusterError> {
    let brokers = cluster.brokers().len();
    if factor > brokers {
        return Err(Kind::InvalidReplicationFactor.because(format!(
            "{factor} replicas need {factor} brokers, and there are {brokers}"
        )));
    }
    Ok(())
}

// -- operations

fn push_partition(cluster: &Cluster, ops: &mut Vec<Op>, topic: &str, index: i32, replicas: &[i32]) {
    let partition = leaders::fresh(cluster, replicas);
    ops.push(empty(znodes::partition(topic, index)));
    ops.push(Op::create(
        znodes::state(topic, index),
        znodes::state_json(&partition, cluster.controller_epoch()),
    ));
}

/// Makes a node hold this, if by then nobody has made or changed it: a plan may have to
/// travel to the tree.
pub(in crate::core) fn put(tree: &Tree, path: &str, data: Vec<u8>) -> Op {
    match tree.stat(path) {
        Some(stat) => Op::Set {
            path: path.to_owned(),
            data: Some(data),
            version: stat.version,
        },
        None => Op::create(path, data),
    }
}

/// A node that only carries others; ZooKeeper's null, as Kafka writes it.
pub(in crate::core) fn empty(path: String) -> Op {
    match Op::create(path, "") {
        Op::Create {
            path,
            acl,
            lifetime,
            sequential,
            ..
        } => Op::Create {
            path,
            data: None,
            acl,
            lifetime,
            sequential,
        },
        _ => unreachable!("create makes a Create"),
    }
}

/// Operations that delete a node and all below it, the deepest first.
pub(super) fn delete_all(tree: &Tree, path: &str) -> Vec<Op> {
    if !tree.exists(path) {
        return Vec::new();
    }
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let here = &found[next];
        let below: Vec<String> = tree
            .children(here)
            .into_iter()
            .flatten()
            .map(|name| format!("{here}/{name}"))
            .collect();
        found.extend(below);
        next += 1;
    }
    found.into_iter().rev().map(Op::delete).collect()
}
