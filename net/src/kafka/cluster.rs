//! What the APIs on topics and settings share: the coordinator's refusals as codes
//! and sentences, and an alteration's resources sorted into sound ones and others.
//!
//! ```text
//!   create_topics, delete_topics, create_partitions, delete_records
//!   describe_configs, alter_configs, incremental_alter_configs, describe_cluster
//! ```

use crate::kafka::errors::{Code, Failure};
use kafka_protocol::protocol::StrBytes;
use klamm_coord::core::cluster::{ClusterError, ClusterErrorKind};
use std::collections::{HashMap, HashSet};

pub fn failure(error: &ClusterError) -> Failure {
    Failure::new(code(error.kind), error.message.as_str())
}

pub fn code(kind: ClusterErrorKind) -> Code {
    match kind {
        ClusterErrorKind::UnknownTopicOrPartition => Code::UNKNOWN_TOPIC_OR_PARTITION,
        ClusterErrorKind::UnknownServerError => Code::UNKNOWN_SERVER_ERROR,
        ClusterErrorKind::InvalidTopicException => Code::INVALID_TOPIC_EXCEPTION,
        ClusterErrorKind::TopicAlreadyExists => Code::TOPIC_ALREADY_EXISTS,
        ClusterErrorKind::InvalidPartitions => Code::INVALID_PARTITIONS,
        ClusterErrorKind::InvalidReplicationFactor => Code::INVALID_REPLICATION_FACTOR,
        ClusterErrorKind::InvalidReplicaAssignment => Code::INVALID_REPLICA_ASSIGNMENT,
        ClusterErrorKind::InvalidConfig => Code::INVALID_CONFIG,
        ClusterErrorKind::InvalidRequest => Code::INVALID_REQUEST,
        ClusterErrorKind::PolicyViolation => Code::POLICY_VIOLATION,
        ClusterErrorKind::TopicDeletionDisabled => Code::TOPIC_DELETION_DISABLED,
        ClusterErrorKind::UnknownTopicId => Code::UNKNOWN_TOPIC_ID,
        ClusterErrorKind::BrokerIdNotRegistered => Code(102),
    }
}

/// A failure's sentence as the wire can carry it. It may quote what the client sent,
/// up to 32,767 bytes of it, and a string of an old version holds no more than that:
/// what is longer than a person reads is cut.
pub fn sentence(message: Option<String>) -> Option<StrBytes> {
    const CHARS_MAX: usize = 1_000;
    message.map(|mut text| {
        if let Some((at, _)) = text.char_indices().nth(CHARS_MAX) {
            text.truncate(at);
            text.push_str("...");
        }
        StrBytes::from_string(text)
    })
}

/// What became of one resource.
pub type Verdict = Result<(), Failure>;

/// The resources of an alteration: those that the coordinator is asked about, and
/// where in the request the others were, with what is wrong with them.
///
/// ```text
///   request   [ a  b  a  c ]        a is in it twice: neither is done
///   sound     [    b     c ]  --coordinator-->  [ ok, 40 ]
///   merge     [ 42 ok 42 40 ]
/// ```
pub struct Resources<T> {
    pub sound: Vec<T>,
    /// One a resource of the request: None for those in `sound`.
    refused: Vec<Option<Failure>>,
}

impl<T> Resources<T> {
    pub fn sort<R>(
        request: &[R],
        kind: impl Fn(&R) -> i8,
        name: impl Fn(&R) -> &str,
        read: impl Fn(&R) -> Result<T, Failure>,
    ) -> Resources<T> {
        let mut times: HashMap<(i8, &str), usize> = HashMap::new();
        for one in request {
            *times.entry((kind(one), name(one))).or_default() += 1;
        }
        let mut sound = Vec::new();
        let refused = request
            .iter()
            .map(|one| {
                if times[&(kind(one), name(one))] > 1 {
                    let what = "Each resource must appear at most once.";
                    return Some(Failure::new(Code::INVALID_REQUEST, what));
                }
                match read(one) {
                    Ok(one) => {
                        sound.push(one);
                        None
                    }
                    Err(failure) => Some(failure),
                }
            })
            .collect();
        Resources { sound, refused }
    }

    /// The same verdict for everything that was sound.
    pub fn all(&self, failure: Failure) -> Vec<Verdict> {
        vec![Err(failure); self.sound.len()]
    }

    /// The coordinator's verdicts in the places of the request.
    pub fn merge(self, verdicts: Vec<Verdict>) -> Vec<Verdict> {
        assert_eq!(verdicts.len(), self.sound.len(), "one verdict a resource");
        let mut verdicts = verdicts.into_iter();
        self.refused
            .into_iter()
            .map(|refused| match refused {
                Some(failure) => Err(failure),
                None => verdicts.next().expect("counted above"),
            })
            .collect()
    }
}

/// Refuses a resource that has one setting twice: which of them would hold?
pub fn given_once<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            let what = format!("The setting {name} is given more than once.");
            return Err(Failure::new(Code::INVALID_REQUEST, what));
        }
    }
    Ok(())
}
