//! What a log needs to know, resolved: a topic's own setting, else the broker's,
//! else the default. Kafka's names for these are in coord's settings registry.

use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment rolls before a batch that would make it longer.
    pub segment_bytes: u64,
    /// `segment.ms`: a segment rolls once its first batch is this old.
    pub segment_age_max: Duration,
    /// `index.interval.bytes`: one index entry for so many bytes of log.
    pub index_interval_bytes: u64,
    /// `retention.ms`; None: for ever.
    pub retention_age_max: Option<Duration>,
    /// `retention.bytes`; None: no bound.
    pub retention_bytes_max: Option<u64>,
    /// `max.message.bytes`: the largest record batch.
    pub batch_bytes_max: usize,
    /// `flush.messages`: 1 syncs before every answer (grouped). None: never by count,
    /// and then the high watermark is the stable offset.
    pub flush_messages: Option<u64>,
    /// `flush.ms`: sync what is this old. None: never by time.
    pub flush_age_max: Option<Duration>,
    /// `message.timestamp.type` is LogAppendTime.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`; None: no bound.
    pub timestamp_before_max: Option<Duration>,
    /// `message.timestamp.after.max.ms`; None: no bound.
    pub timestamp_after_max: Option<Duration>,
    /// `producer.id.expiration.ms`
    pub producer_id_expiration: Duration,
}

impl Default for LogConfig {
    /// Kafka's defaults, but for `flush_messages`: an acknowledgement means a sync.
    fn default() -> LogConfig {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        LogConfig {
            segment_bytes: 1 << 30,
            segment_age_max: 7 * DAY,
            index_interval_bytes: 4096,
            retention_age_max: Some(7 * DAY),
            retention_bytes_max: None,
            batch_bytes_max: 1_048_588,
            flush_messages: Some(1),
            flush_age_max: None,
            log_append_time: false,
            timestamp_before_max: None,
            timestamp_after_max: Some(Duration::from_secs(60 * 60)),
            producer_id_expiration: DAY,
        }
    }
}

impl LogConfig {
    /// Whether an acknowledgement waits for the sync. Kafka's default for
    /// `flush.messages` (2^63-1) gives Kafka's promise: none.
    pub fn acks_committed(&self) -> bool {
        self.flush_messages == Some(1)
    }
}
