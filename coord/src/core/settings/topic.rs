//! The settings of a topic, and all of them resolved.

use super::{BrokerConfig, Kind, Setting, SettingError, Valid, Value, unknown};
use std::collections::BTreeMap;

/// A topic's setting, and the broker's settings that stand in where the topic has
/// none: the first that is set counts, times its factor (hours to milliseconds).
#[derive(Debug)]
pub struct TopicSetting {
    pub setting: Setting,
    pub synonyms: &'static [(&'static str, i64)],
}

const fn entry(
    synonyms: &'static [(&'static str, i64)],
    name: &'static str,
    kind: Kind,
    default: &'static str,
    valid: Valid,
    doc: &'static str,
) -> TopicSetting {
    TopicSetting {
        setting: Setting::new(name, kind, Some(default), valid, doc).dynamic(),
        synonyms,
    }
}

pub(super) const CLEANUP: Valid = Valid::OnlyYet {
    possible: &["delete"],
    kafka: &["compact"],
    missing: "compaction of a log is a later part of Klamm, and a topic that is never compacted would grow for ever",
};
pub(super) const COMPRESSION: Valid = Valid::OnlyYet {
    possible: &["producer"],
    kafka: &["uncompressed", "zstd", "lz4", "snappy", "gzip"],
    missing: "the broker keeps every batch as its producer compressed it",
};
pub(super) const TIMESTAMPS: Valid = Valid::OneOf(&["CreateTime", "LogAppendTime"]);
const FALSE_ONLY: Valid = Valid::OnlyYet {
    possible: &["false"],
    kafka: &["true"],
    missing: "Klamm has no remote storage",
};

/// 1 MiB, Kafka 4's smallest: a smaller segment is mostly index and open files.
pub(super) const SEGMENT_BYTES_MIN: i64 = 1 << 20;

/// All settings of a topic, in the order of their names.
#[rustfmt::skip]
pub static SETTINGS: &[TopicSetting] = &[
    entry(&[("log.cleanup.policy", 1)], "cleanup.policy", Kind::List, "delete", CLEANUP,
        "What happens to old records: \"delete\" drops whole segments by age and size. \"compact\" is not there yet."),
    entry(&[("compression.gzip.level", 1)], "compression.gzip.level", Kind::Int, "-1", Valid::Between(-1, 9),
        "The level for compression.type=gzip. Without effect in Klamm: the broker never compresses anew."),
    entry(&[("compression.lz4.level", 1)], "compression.lz4.level", Kind::Int, "9", Valid::Between(1, 17),
        "The level for compression.type=lz4. Without effect in Klamm: the broker never compresses anew."),
    entry(&[("compression.type", 1)], "compression.type", Kind::String, "producer", COMPRESSION,
        "How stored batches are compressed: \"producer\" keeps what the producer chose, the only value yet."),
    entry(&[("compression.zstd.level", 1)], "compression.zstd.level", Kind::Int, "3", Valid::Between(-131_072, 22),
        "The level for compression.type=zstd. Without effect in Klamm: the broker never compresses anew."),
    entry(&[("log.cleaner.delete.retention.ms", 1)], "delete.retention.ms", Kind::Long, "86400000", Valid::AtLeast(0),
        "How long a compacted topic keeps its tombstones. Without effect until compaction is there."),
    entry(&[("log.segment.delete.delay.ms", 1)], "file.delete.delay.ms", Kind::Long, "60000", Valid::AtLeast(0),
        "How long a dropped segment's file stays on disk. Without effect in Klamm: it goes at once, after its readers."),
    entry(&[("log.flush.interval.messages", 1)], "flush.messages", Kind::Long, "1", Valid::AtLeast(1),
        "After how many records a sync to disk is due. Klamm's default is 1: every acknowledged record is synced, \
         many in one sync. Kafka's default, 9223372036854775807, leaves it to the operating system."),
    entry(&[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)], "flush.ms", Kind::Long,
        "9223372036854775807", Valid::AtLeast(0),
        "After how long a sync to disk is due, where flush.messages has not asked for one before."),
    entry(&[], "follower.replication.throttled.replicas", Kind::List, "", Valid::Any,
        "Which follower replicas are throttled. Without effect until there is more than one broker."),
    entry(&[("log.index.interval.bytes", 1)], "index.interval.bytes", Kind::Int, "4096", Valid::AtLeast(0),
        "How many bytes of log lie between two entries of the sparse index."),
    entry(&[], "leader.replication.throttled.replicas", Kind::List, "", Valid::Any,
        "Which leader replicas are throttled. Without effect until there is more than one broker."),
    entry(&[("log.local.retention.bytes", 1)], "local.retention.bytes", Kind::Long, "-2", Valid::AtLeast(-2),
        "What stays local of a topic in remote storage. Without effect: Klamm has no remote storage."),
    entry(&[("log.local.retention.ms", 1)], "local.retention.ms", Kind::Long, "-2", Valid::AtLeast(-2),
        "What stays local of a topic in remote storage. Without effect: Klamm has no remote storage."),
    entry(&[("log.cleaner.max.compaction.lag.ms", 1)], "max.compaction.lag.ms", Kind::Long, "9223372036854775807",
        Valid::AtLeast(1), "How long a record may stay uncompacted. Without effect until compaction is there."),
    entry(&[("message.max.bytes", 1)], "max.message.bytes", Kind::Int, "1048588", Valid::AtLeast(0),
        "The largest record batch that the topic takes, compressed as it comes, with its header."),
    entry(&[("log.message.timestamp.after.max.ms", 1)], "message.timestamp.after.max.ms", Kind::Long, "3600000",
        Valid::AtLeast(0), "How far a record's CreateTime may be ahead of the broker's clock."),
    entry(&[("log.message.timestamp.before.max.ms", 1)], "message.timestamp.before.max.ms", Kind::Long,
        "9223372036854775807", Valid::AtLeast(0), "How far a record's CreateTime may be behind the broker's clock."),
    entry(&[("log.message.timestamp.type", 1)], "message.timestamp.type", Kind::String, "CreateTime", TIMESTAMPS,
        "Whether a record's timestamp is its producer's (CreateTime) or the broker's at append (LogAppendTime)."),
    entry(&[("log.cleaner.min.cleanable.ratio", 1)], "min.cleanable.dirty.ratio", Kind::Double, "0.5", Valid::Fraction,
        "How much of a log must be uncompacted before it is compacted. Without effect until compaction is there."),
    entry(&[("log.cleaner.min.compaction.lag.ms", 1)], "min.compaction.lag.ms", Kind::Long, "0", Valid::AtLeast(0),
        "How long a record stays uncompacted at least. Without effect until compaction is there."),
    entry(&[("min.insync.replicas", 1)], "min.insync.replicas", Kind::Int, "1", Valid::AtLeast(1),
        "How many replicas must be in sync for a write with acks=all to be taken."),
    entry(&[("log.preallocate", 1)], "preallocate", Kind::Boolean, "false", Valid::Any,
        "Whether segment files are allocated ahead. Without effect in Klamm: they always are."),
    entry(&[], "remote.storage.enable", Kind::Boolean, "false", FALSE_ONLY,
        "Whether old segments move to remote storage. Klamm has none; only false is accepted."),
    entry(&[("log.retention.bytes", 1)], "retention.bytes", Kind::Long, "-1", Valid::AtLeast(-1),
        "How large a partition's log may grow before its oldest segments are dropped. -1: without limit."),
    entry(&[("log.retention.ms", 1), ("log.retention.minutes", MINUTE_MS), ("log.retention.hours", HOUR_MS)],
        "retention.ms", Kind::Long, "604800000", Valid::AtLeast(-1),
        "How old a segment's newest record may get before the segment is dropped. -1: without limit."),
    entry(&[("log.segment.bytes", 1)], "segment.bytes", Kind::Int, "1073741824", Valid::AtLeast(SEGMENT_BYTES_MIN),
        "How large a segment file grows before the next one is begun."),
    entry(&[("log.index.size.max.bytes", 1)], "segment.index.bytes", Kind::Int, "10485760", Valid::AtLeast(4),
        "How large a segment's index may grow before the next segment is begun."),
    entry(&[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", HOUR_MS)], "segment.jitter.ms", Kind::Long, "0",
        Valid::AtLeast(0), "Spreads the rolls of many segments over time. Without effect in Klamm: a roll is cheap."),
    entry(&[("log.roll.ms", 1), ("log.roll.hours", HOUR_MS)], "segment.ms", Kind::Long, "604800000", Valid::AtLeast(1),
        "How long a segment is written to before the next one is begun."),
    entry(&[("unclean.leader.election.enable", 1)], "unclean.leader.election.enable", Kind::Boolean, "false", Valid::Any,
        "Whether a replica out of sync may lead where none in sync is alive. Without effect until there is more than one broker."),
];

pub(super) const MINUTE_MS: i64 = 60 * 1000;
pub(super) const HOUR_MS: i64 = 60 * MINUTE_MS;

/// The topic setting of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static TopicSetting> {
    SETTINGS
        .binary_search_by(|s| s.setting.name.cmp(name))
        .ok()
        .map(|at| &SETTINGS[at])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// What holds for one topic, all settings that do something, resolved.
/// `-1` in a retention means without limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    pub retention_ms: i64,
    pub retention_bytes: i64,
    pub segment_bytes: u32,
    pub segment_ms: i64,
    pub segment_index_bytes: u32,
    pub index_interval_bytes: u32,
    pub max_message_bytes: u32,
    /// 1: every acknowledged record is synced.
    pub flush_messages: i64,
    /// i64::MAX: never because of time.
    pub flush_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_after_max_ms: i64,
    pub min_insync_replicas: u16,
}

impl TopicConfig {
    /// Resolves a topic's settings. Fails on the first override that is not valid:
    /// they were checked when they came in, so a failure here means that someone
    /// wrote the node by hand.
    pub fn resolve(
        overrides: &BTreeMap<String, String>,
        broker: &BrokerConfig,
    ) -> Result<TopicConfig, SettingError> {
        for (name, text) in overrides {
            find(name)
                .ok_or_else(|| unknown(name, "topic"))?
                .setting
                .parse(text)?;
        }
        Ok(TopicConfig::resolve_valid(overrides, broker))
    }

    /// As [`TopicConfig::resolve`], but an override that is not valid counts as not
    /// there: a topic must not vanish because someone wrote nonsense into its node.
    #[must_use]
    pub fn resolve_valid(
        overrides: &BTreeMap<String, String>,
        broker: &BrokerConfig,
    ) -> TopicConfig {
        let value = |name: &str| -> Value {
            let topic = find(name).expect("a name from the registry");
            overrides
                .get(name)
                .and_then(|text| topic.setting.parse(text).ok())
                .unwrap_or_else(|| inherited(topic, broker))
        };
        let long = |name: &str| value(name).as_i64();
        // The registry's ranges make these conversions whole; saturate all the same.
        let size = |name: &str| u32::try_from(long(name).max(0)).unwrap_or(u32::MAX);
        TopicConfig {
            retention_ms: long("retention.ms").max(-1),
            retention_bytes: long("retention.bytes"),
            segment_bytes: size("segment.bytes"),
            segment_ms: long("segment.ms"),
            segment_index_bytes: size("segment.index.bytes"),
            index_interval_bytes: size("index.interval.bytes"),
            max_message_bytes: size("max.message.bytes"),
            flush_messages: long("flush.messages"),
            flush_ms: long("flush.ms"),
            message_timestamp_type: match value("message.timestamp.type") {
                Value::String(t) if t == "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            message_timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            min_insync_replicas: u16::try_from(long("min.insync.replicas")).unwrap_or(u16::MAX),
        }
    }
}

/// The value of a topic that has no override.
pub(super) fn inherited(topic: &TopicSetting, broker: &BrokerConfig) -> Value {
    for (synonym, factor) in topic.synonyms {
        if let Some((value, _)) = broker.set(synonym) {
            return scaled(topic, value, *factor);
        }
    }
    topic
        .setting
        .default_value()
        .expect("every topic setting has a default")
}

/// A synonym's value in the topic setting's unit: 168 hours are 604,800,000 ms.
/// Negative stays "without limit".
pub(super) fn scaled(topic: &TopicSetting, value: &Value, factor: i64) -> Value {
    match (topic.setting.kind, value) {
        (Kind::Long, Value::Int(_) | Value::Long(_)) => {
            let v = value.as_i64();
            // -1 hours is "without limit", not -3,600,000 ms.
            Value::Long(if v < 0 { v } else { v.saturating_mul(factor) })
        }
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::settings::{Reason, parse_topic};

    fn broker(given: &[(&str, &str)]) -> BrokerConfig {
        BrokerConfig::new(
            given
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        )
        .unwrap()
    }

    #[test]
    fn the_registry_is_sorted_and_its_defaults_are_valid() {
        assert!(
            SETTINGS
                .windows(2)
                .all(|w| w[0].setting.name < w[1].setting.name)
        );
        for topic in SETTINGS {
            assert!(
                topic.setting.default_value().is_some(),
                "{}",
                topic.setting.name
            );
            for (synonym, _) in topic.synonyms {
                let broker =
                    super::super::broker::find(synonym).unwrap_or_else(|| panic!("{synonym}"));
                assert!(
                    broker.dynamic,
                    "{synonym} stands in for a topic setting, so it must be dynamic"
                );
            }
        }
    }

    #[test]
    fn override_beats_broker_beats_default() {
        let none = BTreeMap::new();
        let plain = TopicConfig::resolve(&none, &broker(&[])).unwrap();
        assert_eq!(plain.retention_ms, 7 * 24 * HOUR_MS);
        assert_eq!(plain.flush_messages, 1);
        assert_eq!(plain.max_message_bytes, 1_048_588);

        let set = broker(&[("log.retention.hours", "2"), ("message.max.bytes", "2000")]);
        let inherited = TopicConfig::resolve(&none, &set).unwrap();
        assert_eq!(
            (inherited.retention_ms, inherited.max_message_bytes),
            (2 * HOUR_MS, 2000)
        );

        let both = broker(&[("log.retention.hours", "2"), ("log.retention.ms", "5")]);
        assert_eq!(TopicConfig::resolve(&none, &both).unwrap().retention_ms, 5);

        let over = BTreeMap::from([("retention.ms".to_owned(), "-1".to_owned())]);
        assert_eq!(TopicConfig::resolve(&over, &both).unwrap().retention_ms, -1);

        let forever = broker(&[("log.retention.hours", "-1")]);
        assert_eq!(
            TopicConfig::resolve(&none, &forever).unwrap().retention_ms,
            -1
        );
    }

    #[test]
    fn values_that_do_not_fit_are_refused_with_a_reason() {
        for (name, text, says) in [
            ("retention.ms", "-2", "-1"),
            ("retention.ms", "soon", "64 bits"),
            ("retention.ms", "9223372036854775808", "64 bits"),
            ("segment.bytes", "1024", "1048576"),
            ("max.message.bytes", "3000000000", "32 bits"),
            ("cleanup.policy", "compact", "not there yet"),
            ("cleanup.policy", "delete,compact", "not there yet"),
            ("cleanup.policy", "shred", "possible: delete"),
            ("compression.type", "zstd", "not there yet"),
            ("message.timestamp.type", "createtime", "LogAppendTime"),
            ("min.cleanable.dirty.ratio", "1.5", "from 0 to 1"),
            ("min.cleanable.dirty.ratio", "NaN", "not a number"),
            ("preallocate", "yes", "neither true nor false"),
            ("remote.storage.enable", "true", "no remote storage"),
        ] {
            let error = parse_topic(name, text).unwrap_err();
            let message = error.to_string();
            assert!(
                message.starts_with(name) && message.contains(says),
                "{message}"
            );
        }
        let error = parse_topic("retention.weeks", "1").unwrap_err();
        assert_eq!(error.reason, Reason::Unknown { scope: "topic" });
        assert!(parse_topic("retention.ms", " 1000 ").is_ok());
        assert!(parse_topic("preallocate", "TRUE").is_ok());
    }
}
