//! From the engine's errors to Kafka's codes.
//!
//! ```text
//!   AppendError | ReadError | Offline | ...  ->  one match each, no default arm  ->  Code
//! ```
//!
//! A variant that is added below does not compile here until somebody has decided
//! what a client shall see. The codes are `org.apache.kafka.common.protocol.Errors`.

use klamm_engine::batch::{BatchError, Refusal};
use klamm_engine::error::{Offline, OfflineReason, ReadError};
use klamm_engine::partition::AppendError;
use klamm_engine::producer::SequenceError;

/// A Kafka error code, as the wire has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Code(pub i16);

macro_rules! codes {
    ($($name:ident = $value:literal),+ $(,)?) => {
        impl Code {
            $(pub const $name: Code = Code($value);)+

            /// Kafka's name of the code.
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($value => stringify!($name),)+
                    _ => "UNKNOWN",
                }
            }
        }
    };
}

codes! {
    UNKNOWN_SERVER_ERROR = -1,
    NONE = 0,
    OFFSET_OUT_OF_RANGE = 1,
    CORRUPT_MESSAGE = 2,
    UNKNOWN_TOPIC_OR_PARTITION = 3,
    INVALID_FETCH_SIZE = 4,
    LEADER_NOT_AVAILABLE = 5,
    NOT_LEADER_OR_FOLLOWER = 6,
    REQUEST_TIMED_OUT = 7,
    BROKER_NOT_AVAILABLE = 8,
    REPLICA_NOT_AVAILABLE = 9,
    MESSAGE_TOO_LARGE = 10,
    STALE_CONTROLLER_EPOCH = 11,
    OFFSET_METADATA_TOO_LARGE = 12,
    NETWORK_EXCEPTION = 13,
    COORDINATOR_LOAD_IN_PROGRESS = 14,
    COORDINATOR_NOT_AVAILABLE = 15,
    NOT_COORDINATOR = 16,
    INVALID_TOPIC_EXCEPTION = 17,
    RECORD_LIST_TOO_LARGE = 18,
    NOT_ENOUGH_REPLICAS = 19,
    NOT_ENOUGH_REPLICAS_AFTER_APPEND = 20,
    INVALID_REQUIRED_ACKS = 21,
    ILLEGAL_GENERATION = 22,
    INCONSISTENT_GROUP_PROTOCOL = 23,
    INVALID_GROUP_ID = 24,
    UNKNOWN_MEMBER_ID = 25,
    INVALID_SESSION_TIMEOUT = 26,
    REBALANCE_IN_PROGRESS = 27,
    INVALID_COMMIT_OFFSET_SIZE = 28,
    TOPIC_AUTHORIZATION_FAILED = 29,
    GROUP_AUTHORIZATION_FAILED = 30,
    CLUSTER_AUTHORIZATION_FAILED = 31,
    INVALID_TIMESTAMP = 32,
    UNSUPPORTED_SASL_MECHANISM = 33,
    ILLEGAL_SASL_STATE = 34,
    UNSUPPORTED_VERSION = 35,
    TOPIC_ALREADY_EXISTS = 36,
    INVALID_PARTITIONS = 37,
    INVALID_REPLICATION_FACTOR = 38,
    INVALID_REPLICA_ASSIGNMENT = 39,
    INVALID_CONFIG = 40,
    NOT_CONTROLLER = 41,
    INVALID_REQUEST = 42,
    UNSUPPORTED_FOR_MESSAGE_FORMAT = 43,
    POLICY_VIOLATION = 44,
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45,
    DUPLICATE_SEQUENCE_NUMBER = 46,
    INVALID_PRODUCER_EPOCH = 47,
    INVALID_TXN_STATE = 48,
    INVALID_PRODUCER_ID_MAPPING = 49,
    INVALID_TRANSACTION_TIMEOUT = 50,
    CONCURRENT_TRANSACTIONS = 51,
    TRANSACTION_COORDINATOR_FENCED = 52,
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53,
    SECURITY_DISABLED = 54,
    OPERATION_NOT_ATTEMPTED = 55,
    KAFKA_STORAGE_ERROR = 56,
    LOG_DIR_NOT_FOUND = 57,
    SASL_AUTHENTICATION_FAILED = 58,
    UNKNOWN_PRODUCER_ID = 59,
    REASSIGNMENT_IN_PROGRESS = 60,
    NON_EMPTY_GROUP = 68,
    GROUP_ID_NOT_FOUND = 69,
    FETCH_SESSION_ID_NOT_FOUND = 70,
    INVALID_FETCH_SESSION_EPOCH = 71,
    LISTENER_NOT_FOUND = 72,
    TOPIC_DELETION_DISABLED = 73,
    FENCED_LEADER_EPOCH = 74,
    UNKNOWN_LEADER_EPOCH = 75,
    UNSUPPORTED_COMPRESSION_TYPE = 76,
    STALE_BROKER_EPOCH = 77,
    OFFSET_NOT_AVAILABLE = 78,
    MEMBER_ID_REQUIRED = 79,
    PREFERRED_LEADER_NOT_AVAILABLE = 80,
    GROUP_MAX_SIZE_REACHED = 81,
    FENCED_INSTANCE_ID = 82,
    ELIGIBLE_LEADERS_NOT_AVAILABLE = 83,
    ELECTION_NOT_NEEDED = 84,
    NO_REASSIGNMENT_IN_PROGRESS = 85,
    GROUP_SUBSCRIBED_TO_TOPIC = 86,
    INVALID_RECORD = 87,
    UNSTABLE_OFFSET_COMMIT = 88,
    THROTTLING_QUOTA_EXCEEDED = 89,
    PRODUCER_FENCED = 90,
    UNKNOWN_TOPIC_ID = 100,
    INCONSISTENT_TOPIC_ID = 103,
}

/// An error and, where the answer has room for one, the sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub code: Code,
    pub message: Option<String>,
}

impl From<Code> for Failure {
    fn from(code: Code) -> Failure {
        Failure {
            code,
            message: None,
        }
    }
}

impl Failure {
    pub fn new(code: Code, message: impl Into<String>) -> Failure {
        Failure {
            code,
            message: Some(message.into()),
        }
    }
}

pub fn offline(error: &Offline) -> Failure {
    match &*error.0 {
        // The file and the byte are for the log on this machine, not for the wire.
        OfflineReason::Corrupt { .. } => Failure::new(
            Code::KAFKA_STORAGE_ERROR,
            "the partition is offline: its files are damaged (the broker's log says where)",
        ),
        OfflineReason::Failed { .. } => Failure::new(
            Code::KAFKA_STORAGE_ERROR,
            "the partition is offline: its disk failed (the broker's log says how)",
        ),
        // Deleted or moved while the request was under way: the client's metadata is
        // stale, and this code makes it ask again.
        OfflineReason::Closed => Code::NOT_LEADER_OR_FOLLOWER.into(),
    }
}

pub fn read(error: &ReadError) -> Failure {
    match error {
        ReadError::OutOfRange { .. } => Failure::new(Code::OFFSET_OUT_OF_RANGE, error.to_string()),
        // The bytes are as the producer sent them: the next fetch of them would fail in
        // the client in the same way.
        ReadError::Undecodable { .. } => Failure::new(Code::CORRUPT_MESSAGE, error.to_string()),
        ReadError::UnpacksTooLarge { .. } => {
            Failure::new(Code::MESSAGE_TOO_LARGE, error.to_string())
        }
        ReadError::Offline(o) => offline(o),
    }
}

pub fn append(error: &AppendError) -> Failure {
    let code = match error {
        AppendError::Batch(e) => return batch(e),
        AppendError::Sequence(SequenceError::OutOfOrderSequence { .. }) => {
            Code::OUT_OF_ORDER_SEQUENCE_NUMBER
        }
        AppendError::Sequence(SequenceError::InvalidProducerEpoch { .. }) => {
            Code::INVALID_PRODUCER_EPOCH
        }
        AppendError::InvalidTimestamp { .. } => Code::INVALID_TIMESTAMP,
        AppendError::Transactional => Code::INVALID_TXN_STATE,
        AppendError::Offline(o) => return offline(o),
    };
    Failure::new(code, error.to_string())
}

pub fn batch(error: &BatchError) -> Failure {
    let code = match error.fault.refusal() {
        Refusal::CorruptMessage => Code::CORRUPT_MESSAGE,
        Refusal::MessageTooLarge => Code::MESSAGE_TOO_LARGE,
        Refusal::UnsupportedCompressionType => Code::UNSUPPORTED_COMPRESSION_TYPE,
        Refusal::InvalidRecord => Code::INVALID_RECORD,
    };
    Failure::new(code, error.to_string())
}
