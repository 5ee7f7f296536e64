//! What can go wrong between this command and a broker, said so that a person
//! can act: which broker, which API, Kafka's own name of the error, what to do.

use std::fmt;
use std::io;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;

/// Where a call went: enough to find the right broker's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// `broker 1 (127.0.0.1:9092)`, or only the address of a bootstrap broker.
    pub broker: String,
    /// Kafka's name of the API, as in its documentation.
    pub api: String,
}

#[derive(Debug)]
pub enum ClientError {
    /// No TCP connection came about.
    Unreachable { broker: String, source: io::Error },
    /// The connection broke while an answer was due.
    Lost { place: Place, source: io::Error },
    /// No answer in time.
    TimedOut { place: Place, after: Duration },
    /// Broker and client share no version of the API.
    Unsupported {
        place: Place,
        ours: (i16, i16),
        theirs: Option<(i16, i16)>,
    },
    /// The bytes are not the answer that the protocol promises.
    Malformed { place: Place, what: String },
    /// The request does not fit the protocol (a name of 40,000 characters).
    Unsendable { place: Place, what: String },
    /// The broker answered with an error code.
    Kafka {
        place: Place,
        code: i16,
        /// What it was about: a topic, a partition, a group.
        subject: String,
        message: Option<String>,
    },
    /// What Metadata says leaves nothing to talk to.
    Missing(String),
    /// Ctrl-C or SIGTERM while waiting.
    Interrupted,
}

pub type Result<T> = std::result::Result<T, ClientError>;

impl ClientError {
    /// Kafka's error code, where the broker gave one.
    pub fn code(&self) -> Option<i16> {
        match self {
            ClientError::Kafka { code, .. } => Some(*code),
            _ => None,
        }
    }

    pub fn is(&self, error: ResponseError) -> bool {
        self.code() == Some(error.code())
    }

    /// The stable name that `--json` prints.
    pub fn name(&self) -> String {
        match self {
            ClientError::Unreachable { .. } => "BROKER_UNREACHABLE".into(),
            ClientError::Lost { .. } => "CONNECTION_LOST".into(),
            ClientError::TimedOut { .. } => "TIMED_OUT".into(),
            ClientError::Unsupported { .. } => "UNSUPPORTED_VERSION".into(),
            ClientError::Malformed { .. } => "MALFORMED_ANSWER".into(),
            ClientError::Unsendable { .. } => "UNSENDABLE_REQUEST".into(),
            ClientError::Kafka { code, .. } => kafka_name(*code),
            ClientError::Missing(_) => "NOT_AVAILABLE".into(),
            ClientError::Interrupted => "INTERRUPTED".into(),
        }
    }

    /// True where the same call may succeed a moment later, at this broker or at
    /// the one that fresh metadata names.
    ///
    /// UNKNOWN_TOPIC_OR_PARTITION is left out: a person who mistypes a topic wants
    /// to hear so at once. Where a topic is known to exist (a leader just moved),
    /// the caller adds it.
    pub fn passes(&self) -> bool {
        use ResponseError as R;
        match self {
            ClientError::Unreachable { .. } | ClientError::Lost { .. } => true,
            ClientError::Kafka { code, .. } => matches!(
                R::try_from_code(*code),
                Some(
                    R::LeaderNotAvailable
                        | R::NotLeaderOrFollower
                        | R::ReplicaNotAvailable
                        | R::NetworkException
                        | R::CoordinatorLoadInProgress
                        | R::CoordinatorNotAvailable
                        | R::NotCoordinator
                        | R::NotController
                        | R::NotEnoughReplicas
                        | R::NotEnoughReplicasAfterAppend
                        | R::FencedLeaderEpoch
                        | R::UnknownLeaderEpoch
                        | R::OffsetNotAvailable
                        | R::UnstableOffsetCommit
                        | R::ThrottlingQuotaExceeded
                        | R::ListenerNotFound
                )
            ),
            _ => false,
        }
    }

    /// Nothing reached the broker, or it said that it did nothing: a call that
    /// changes something may be sent again without doing it twice.
    pub fn left_no_trace(&self) -> bool {
        matches!(self, ClientError::Unreachable { .. })
            || self.is(ResponseError::NotController)
            || self.is(ResponseError::NotCoordinator)
            || self.is(ResponseError::CoordinatorLoadInProgress)
            || self.is(ResponseError::CoordinatorNotAvailable)
    }
}

/// `UnknownTopicOrPartition` -> `UNKNOWN_TOPIC_OR_PARTITION`, as Kafka writes it.
pub fn kafka_name(code: i16) -> String {
    let Some(error) = ResponseError::try_from_code(code) else {
        return "NONE".into();
    };
    if let ResponseError::Unknown(code) = error {
        return format!("UNKNOWN_ERROR_{code}");
    }
    // KafkaStorageError's constant keeps its suffix; the crate's own names differ
    // from Kafka's nowhere else in a way that matters to a reader.
    screaming(&error.to_string())
}

/// `DescribeConfigs` stays as it is: Kafka's documentation writes API names so.
pub fn api_name(key: i16) -> String {
    match ApiKey::try_from(key) {
        Ok(key) => format!("{key:?}"),
        Err(()) => format!("API {key}"),
    }
}

fn screaming(camel: &str) -> String {
    let mut out = String::with_capacity(camel.len() + 8);
    for (at, c) in camel.char_indices() {
        if at > 0 && c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

/// What a person can do about the codes that are met often.
fn hint(code: i16) -> Option<&'static str> {
    use ResponseError as R;
    Some(match R::try_from_code(code)? {
        R::UnknownTopicOrPartition => "`klamm topic list` shows what there is",
        R::TopicAlreadyExists => "--if-not-exists makes this no error",
        R::InvalidTopicException => "names have 1 to 249 of a-z A-Z 0-9 . _ - and are not . or ..",
        R::InvalidReplicationFactor => "the replication factor cannot exceed the number of brokers",
        R::InvalidPartitions => "partitions can only be added; the count must grow",
        R::MessageTooLarge => "raise the topic's max.message.bytes, or lower --batch-bytes",
        R::OffsetOutOfRange => "`klamm topic describe` shows the offsets that exist",
        R::NonEmptyGroup => "stop the group's members first; `klamm group describe` names them",
        R::UnknownMemberId | R::IllegalGeneration | R::RebalanceInProgress => {
            "the group has active members; stop them first"
        }
        R::GroupIdNotFound => "`klamm group list` shows what there is",
        R::UnsupportedCompressionType => "zstd needs Kafka 2.1 or newer; choose another codec",
        R::NotEnoughReplicas | R::NotEnoughReplicasAfterAppend => {
            "fewer replicas are in sync than min.insync.replicas asks for"
        }
        R::KafkaStorageError => "the broker's log has the file and the byte",
        R::TopicAuthorizationFailed
        | R::GroupAuthorizationFailed
        | R::ClusterAuthorizationFailed => "this listener's user lacks the right (ACL)",
        _ => return None,
    })
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Unreachable { broker, source } => write!(
                f,
                "cannot connect to {broker}: {source}. Is the broker running there, and is \
                 --bootstrap (or KLAMM_BOOTSTRAP) right? An address other than the one given \
                 comes from the broker's advertised listeners"
            ),
            ClientError::Lost { place, source } => write!(
                f,
                "the connection to {} broke during {}: {source}",
                place.broker, place.api
            ),
            ClientError::TimedOut { place, after } => write!(
                f,
                "{} did not answer {} within {after:?}; --timeout allows more",
                place.broker, place.api
            ),
            ClientError::Unsupported {
                place,
                ours,
                theirs: Some(theirs),
            } => write!(
                f,
                "{} speaks {} versions {} to {}, this command {} to {}: they share none",
                place.broker, place.api, theirs.0, theirs.1, ours.0, ours.1
            ),
            ClientError::Unsupported {
                place,
                theirs: None,
                ..
            } => write!(f, "{} does not offer {}", place.broker, place.api),
            ClientError::Malformed { place, what } => write!(
                f,
                "{} answered {} with bytes that make no sense: {what}. Is it a Kafka listener \
                 without TLS or SASL?",
                place.broker, place.api
            ),
            ClientError::Unsendable { place, what } => {
                write!(f, "this {} cannot be sent: {what}", place.api)
            }
            ClientError::Kafka {
                place,
                code,
                subject,
                message,
            } => {
                write!(f, "{subject}: {} ({code})", kafka_name(*code))?;
                if let Some(message) = message.as_deref().filter(|m| !m.is_empty()) {
                    write!(f, ": {}", message.trim_end_matches('.'))?;
                }
                write!(f, " [{} at {}]", place.api, place.broker)?;
                match hint(*code) {
                    Some(hint) => write!(f, "; {hint}"),
                    None => Ok(()),
                }
            }
            ClientError::Missing(what) => f.write_str(what),
            ClientError::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ClientError::Unreachable { source, .. } | ClientError::Lost { source, .. } => {
                Some(source)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kafkas() {
        assert_eq!(kafka_name(0), "NONE");
        assert_eq!(kafka_name(3), "UNKNOWN_TOPIC_OR_PARTITION");
        assert_eq!(kafka_name(17), "INVALID_TOPIC_EXCEPTION");
        assert_eq!(kafka_name(36), "TOPIC_ALREADY_EXISTS");
        assert_eq!(kafka_name(6), "NOT_LEADER_OR_FOLLOWER");
        assert_eq!(kafka_name(30000), "UNKNOWN_ERROR_30000");
        assert_eq!(api_name(19), "CreateTopics");
        assert_eq!(api_name(9999), "API 9999");
    }

    #[test]
    fn an_error_says_who_what_and_what_to_do() {
        let e = ClientError::Kafka {
            place: Place {
                broker: "broker 1 (127.0.0.1:9092)".into(),
                api: "CreateTopics".into(),
            },
            code: 36,
            subject: "topic orders".into(),
            message: Some("Topic 'orders' already exists.".into()),
        };
        assert_eq!(
            e.to_string(),
            "topic orders: TOPIC_ALREADY_EXISTS (36): Topic 'orders' already exists \
             [CreateTopics at broker 1 (127.0.0.1:9092)]; --if-not-exists makes this no error"
        );
        assert!(!e.passes());
    }

    #[test]
    fn only_what_left_no_trace_is_sent_again_blindly() {
        let refused = ClientError::Unreachable {
            broker: "x".into(),
            source: io::ErrorKind::ConnectionRefused.into(),
        };
        let lost = ClientError::Lost {
            place: Place {
                broker: "x".into(),
                api: "CreateTopics".into(),
            },
            source: io::ErrorKind::ConnectionReset.into(),
        };
        assert!(refused.passes() && refused.left_no_trace());
        assert!(lost.passes() && !lost.left_no_trace());
    }
}
