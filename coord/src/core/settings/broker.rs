//! The settings of a broker: the table, and what one broker was given.

use super::topic::{CLEANUP, COMPRESSION, SEGMENT_BYTES_MIN, TIMESTAMPS};
use super::{ConfigSource, Kind, Setting, SettingError, Valid, Value, unknown};
use std::collections::BTreeMap;

const fn entry(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    valid: Valid,
    doc: &'static str,
) -> Setting {
    Setting::new(name, kind, Some(default), valid, doc)
}

const fn unset(name: &'static str, kind: Kind, valid: Valid, doc: &'static str) -> Setting {
    Setting::new(name, kind, None, valid, doc)
}

const INT_MAX: &str = "2147483647";
const LONG_MAX: &str = "9223372036854775807";

/// All settings of a broker, in the order of their names. Dynamic are those that
/// stand in for a topic's: a change reaches every topic with the next image.
#[rustfmt::skip]
pub static SETTINGS: &[Setting] = &[
    unset("advertised.listeners", Kind::String, Valid::Any,
        "Where clients are told to connect, as PLAINTEXT://host:port. Not set: the listeners themselves."),
    entry("auto.create.topics.enable", Kind::Boolean, "true", Valid::Any,
        "Whether a client's first mention of a topic that is not there creates it."),
    entry("broker.id", Kind::Int, "1", Valid::AtLeast(0), "This broker's number in the cluster."),
    unset("broker.rack", Kind::String, Valid::Any, "Where this broker stands, for replica placement and for clients."),
    entry("compression.gzip.level", Kind::Int, "-1", Valid::Between(-1, 9),
        "The level for compression.type=gzip. Without effect in Klamm: the broker never compresses anew.").dynamic(),
    entry("compression.lz4.level", Kind::Int, "9", Valid::Between(1, 17),
        "The level for compression.type=lz4. Without effect in Klamm: the broker never compresses anew.").dynamic(),
    entry("compression.type", Kind::String, "producer", COMPRESSION,
        "How stored batches are compressed: \"producer\" keeps what the producer chose, the only value yet.").dynamic(),
    entry("compression.zstd.level", Kind::Int, "3", Valid::Between(-131_072, 22),
        "The level for compression.type=zstd. Without effect in Klamm: the broker never compresses anew.").dynamic(),
    entry("connections.max.idle.ms", Kind::Long, "600000", Valid::AtLeast(1),
        "After how long without a request a connection is closed."),
    entry("default.replication.factor", Kind::Int, "1", Valid::Between(1, 32_767),
        "How many replicas a partition gets where the request leaves it open."),
    entry("delete.topic.enable", Kind::Boolean, "true", Valid::Any, "Whether topics may be deleted."),
    entry("fetch.max.bytes", Kind::Int, "57671680", Valid::AtLeast(1024),
        "The most that one Fetch answer holds, whatever the client asks for."),
    entry("group.initial.rebalance.delay.ms", Kind::Int, "3000", Valid::AtLeast(0),
        "How long an empty group waits for more members before its first rebalance."),
    entry("group.max.session.timeout.ms", Kind::Int, "1800000", Valid::AtLeast(1),
        "The longest session timeout that a group member may ask for."),
    entry("group.max.size", Kind::Int, INT_MAX, Valid::AtLeast(1), "How many members a group may have."),
    entry("group.min.session.timeout.ms", Kind::Int, "6000", Valid::AtLeast(1),
        "The shortest session timeout that a group member may ask for."),
    entry("listeners", Kind::String, "PLAINTEXT://127.0.0.1:9092", Valid::Any,
        "Where the broker listens. Klamm's default is this machine alone; Kafka's is every address."),
    entry("log.cleaner.delete.retention.ms", Kind::Long, "86400000", Valid::AtLeast(0),
        "The default of delete.retention.ms. Without effect until compaction is there.").dynamic(),
    entry("log.cleaner.max.compaction.lag.ms", Kind::Long, LONG_MAX, Valid::AtLeast(1),
        "The default of max.compaction.lag.ms. Without effect until compaction is there.").dynamic(),
    entry("log.cleaner.min.cleanable.ratio", Kind::Double, "0.5", Valid::Fraction,
        "The default of min.cleanable.dirty.ratio. Without effect until compaction is there.").dynamic(),
    entry("log.cleaner.min.compaction.lag.ms", Kind::Long, "0", Valid::AtLeast(0),
        "The default of min.compaction.lag.ms. Without effect until compaction is there.").dynamic(),
    entry("log.cleanup.policy", Kind::List, "delete", CLEANUP,
        "The default of cleanup.policy. \"compact\" is not there yet.").dynamic(),
    entry("log.dirs", Kind::String, "klamm-data", Valid::Any, "The folder that holds everything Klamm keeps; one."),
    entry("log.flush.interval.messages", Kind::Long, "1", Valid::AtLeast(1),
        "The default of flush.messages. Klamm's is 1: every acknowledged record is synced, many in one sync.").dynamic(),
    unset("log.flush.interval.ms", Kind::Long, Valid::AtLeast(0), "The default of flush.ms.").dynamic(),
    entry("log.flush.scheduler.interval.ms", Kind::Long, LONG_MAX, Valid::AtLeast(0),
        "The default of log.flush.interval.ms.").dynamic(),
    entry("log.index.interval.bytes", Kind::Int, "4096", Valid::AtLeast(0),
        "The default of index.interval.bytes.").dynamic(),
    entry("log.index.size.max.bytes", Kind::Int, "10485760", Valid::AtLeast(4),
        "The default of segment.index.bytes.").dynamic(),
    entry("log.local.retention.bytes", Kind::Long, "-2", Valid::AtLeast(-2),
        "The default of local.retention.bytes. Without effect: Klamm has no remote storage.").dynamic(),
    entry("log.local.retention.ms", Kind::Long, "-2", Valid::AtLeast(-2),
        "The default of local.retention.ms. Without effect: Klamm has no remote storage.").dynamic(),
    entry("log.message.timestamp.after.max.ms", Kind::Long, "3600000", Valid::AtLeast(0),
        "The default of message.timestamp.after.max.ms.").dynamic(),
    entry("log.message.timestamp.before.max.ms", Kind::Long, LONG_MAX, Valid::AtLeast(0),
        "The default of message.timestamp.before.max.ms.").dynamic(),
    entry("log.message.timestamp.type", Kind::String, "CreateTime", TIMESTAMPS,
        "The default of message.timestamp.type.").dynamic(),
    entry("log.preallocate", Kind::Boolean, "false", Valid::Any,
        "The default of preallocate. Without effect in Klamm: segment files always are.").dynamic(),
    entry("log.retention.bytes", Kind::Long, "-1", Valid::AtLeast(-1), "The default of retention.bytes.").dynamic(),
    entry("log.retention.check.interval.ms", Kind::Long, "300000", Valid::AtLeast(1),
        "How often the broker looks for segments that retention lets go."),
    entry("log.retention.hours", Kind::Int, "168", Valid::AtLeast(-1),
        "The default of retention.ms, in hours, where neither of the next two is set.").dynamic(),
    unset("log.retention.minutes", Kind::Int, Valid::AtLeast(-1),
        "The default of retention.ms, in minutes, where log.retention.ms is not set.").dynamic(),
    unset("log.retention.ms", Kind::Long, Valid::AtLeast(-1), "The default of retention.ms.").dynamic(),
    entry("log.roll.hours", Kind::Int, "168", Valid::AtLeast(1),
        "The default of segment.ms, in hours, where log.roll.ms is not set.").dynamic(),
    entry("log.roll.jitter.hours", Kind::Int, "0", Valid::AtLeast(0),
        "The default of segment.jitter.ms, in hours. Without effect in Klamm.").dynamic(),
    unset("log.roll.jitter.ms", Kind::Long, Valid::AtLeast(0),
        "The default of segment.jitter.ms. Without effect in Klamm.").dynamic(),
    unset("log.roll.ms", Kind::Long, Valid::AtLeast(1), "The default of segment.ms.").dynamic(),
    entry("log.segment.bytes", Kind::Int, "1073741824", Valid::AtLeast(SEGMENT_BYTES_MIN),
        "The default of segment.bytes.").dynamic(),
    entry("log.segment.delete.delay.ms", Kind::Long, "60000", Valid::AtLeast(0),
        "The default of file.delete.delay.ms. Without effect in Klamm.").dynamic(),
    entry("max.broker.partitions", Kind::Int, "10000", Valid::AtLeast(1),
        "How many partitions this broker takes (the name is KIP-578's). More: POLICY_VIOLATION."),
    entry("max.connections", Kind::Int, "10000", Valid::AtLeast(1),
        "How many connections the broker takes; Kafka's default is no limit."),
    entry("max.connections.per.ip", Kind::Int, INT_MAX, Valid::AtLeast(1),
        "How many connections the broker takes from one address."),
    entry("message.max.bytes", Kind::Int, "1048588", Valid::AtLeast(0), "The default of max.message.bytes.").dynamic(),
    entry("min.insync.replicas", Kind::Int, "1", Valid::AtLeast(1),
        "The default of the topic setting of the same name.").dynamic(),
    entry("num.partitions", Kind::Int, "1", Valid::AtLeast(1),
        "How many partitions a topic gets where the request leaves it open."),
    entry("offset.metadata.max.bytes", Kind::Int, "4096", Valid::AtLeast(0),
        "The longest metadata string that a committed offset may carry."),
    entry("offsets.retention.check.interval.ms", Kind::Long, "600000", Valid::AtLeast(1),
        "How often the coordinator looks for committed offsets that have expired."),
    entry("offsets.retention.minutes", Kind::Int, "10080", Valid::AtLeast(1),
        "How long committed offsets are kept once their group is empty."),
    entry("producer.id.expiration.ms", Kind::Int, "86400000", Valid::AtLeast(1),
        "How long a partition remembers an idempotent producer that is silent."),
    entry("queued.max.requests", Kind::Int, "500", Valid::AtLeast(1),
        "How many requests may be in work before the broker stops reading."),
    entry("socket.request.max.bytes", Kind::Int, "104857600", Valid::AtLeast(1),
        "The largest request that the broker reads; more closes the connection."),
    entry("unclean.leader.election.enable", Kind::Boolean, "false", Valid::Any,
        "The default of the topic setting of the same name. Without effect until there is more than one broker.").dynamic(),
];

/// The broker setting of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS
        .binary_search_by(|s| s.name.cmp(name))
        .ok()
        .map(|at| &SETTINGS[at])
}

/// What this broker was given, and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerConfig {
    /// From the file and the flags.
    given: Layer,
    /// From `/config/brokers/<default>`, then from `/config/brokers/<id>`.
    cluster: Layer,
    own: Layer,

    pub broker_id: i32,
    pub rack: Option<String>,
    pub num_partitions: i32,
    pub default_replication_factor: i16,
    pub auto_create_topics_enable: bool,
    pub delete_topic_enable: bool,
    pub max_broker_partitions: i32,
    pub log_retention_check_interval_ms: i64,
    pub producer_id_expiration_ms: i64,
    pub offsets_retention_minutes: i32,
    pub offsets_retention_check_interval_ms: i64,
    pub offset_metadata_max_bytes: i32,
    pub group_min_session_timeout_ms: i32,
    pub group_max_session_timeout_ms: i32,
    pub group_max_size: i32,
    pub group_initial_rebalance_delay_ms: i32,
    pub socket_request_max_bytes: i32,
    pub fetch_max_bytes: i32,
    pub queued_max_requests: i32,
    pub max_connections: i32,
    pub max_connections_per_ip: i32,
    pub connections_max_idle_ms: i64,
}

/// Values by name, as text and parsed.
type Layer = BTreeMap<&'static str, (Value, String)>;

impl BrokerConfig {
    /// From the file and the flags, by Kafka's names. Fails on the first one that is
    /// unknown or not valid.
    pub fn new(
        given: impl IntoIterator<Item = (String, String)>,
    ) -> Result<BrokerConfig, SettingError> {
        let mut layer = Layer::new();
        for (name, text) in given {
            let setting = find(&name).ok_or_else(|| unknown(&name, "broker"))?;
            layer.insert(setting.name, (setting.parse(&text)?, text));
        }
        Ok(BrokerConfig::resolve(layer, Layer::new(), Layer::new()))
    }

    /// The same broker with other dynamic settings: the cluster's and its own. What
    /// is not valid or not dynamic in them does not count: they were checked when
    /// they came in, and a node written by hand must not stop a broker.
    #[must_use]
    pub fn with_dynamic(
        &self,
        cluster: &BTreeMap<String, String>,
        own: &BTreeMap<String, String>,
    ) -> BrokerConfig {
        let layer = |texts: &BTreeMap<String, String>| -> Layer {
            texts
                .iter()
                .filter_map(|(name, text)| {
                    let setting = find(name).filter(|s| s.dynamic)?;
                    Some((setting.name, (setting.parse(text).ok()?, text.clone())))
                })
                .collect()
        };
        BrokerConfig::resolve(self.given.clone(), layer(cluster), layer(own))
    }

    /// A setting's value where somebody set it, and from where it comes.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<(&Value, ConfigSource)> {
        [
            (&self.own, ConfigSource::DynamicBroker),
            (&self.cluster, ConfigSource::DynamicDefaultBroker),
            (&self.given, ConfigSource::StaticBroker),
        ]
        .into_iter()
        .find_map(|(layer, source)| layer.get(name).map(|(value, _)| (value, source)))
    }

    /// Where a setting has values, the strongest first, the default last.
    pub(super) fn layers(&self, name: &str) -> Vec<(String, ConfigSource)> {
        let mut found: Vec<_> = [
            (&self.own, ConfigSource::DynamicBroker),
            (&self.cluster, ConfigSource::DynamicDefaultBroker),
            (&self.given, ConfigSource::StaticBroker),
        ]
        .into_iter()
        .filter_map(|(layer, source)| layer.get(name).map(|(_, text)| (text.clone(), source)))
        .collect();
        if let Some(default) = find(name).and_then(|s| s.default) {
            found.push((default.to_owned(), ConfigSource::Default));
        }
        found
    }

    /// A setting's value; None where it is not set and has no default.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value> {
        match self.set(name) {
            Some((value, _)) => Some(value.clone()),
            None => find(name)?.default_value(),
        }
    }

    fn resolve(given: Layer, cluster: Layer, own: Layer) -> BrokerConfig {
        let mut config = BrokerConfig {
            given,
            cluster,
            own,
            broker_id: 0,
            rack: None,
            num_partitions: 0,
            default_replication_factor: 0,
            auto_create_topics_enable: false,
            delete_topic_enable: false,
            max_broker_partitions: 0,
            log_retention_check_interval_ms: 0,
            producer_id_expiration_ms: 0,
            offsets_retention_minutes: 0,
            offsets_retention_check_interval_ms: 0,
            offset_metadata_max_bytes: 0,
            group_min_session_timeout_ms: 0,
            group_max_session_timeout_ms: 0,
            group_max_size: 0,
            group_initial_rebalance_delay_ms: 0,
            socket_request_max_bytes: 0,
            fetch_max_bytes: 0,
            queued_max_requests: 0,
            max_connections: 0,
            max_connections_per_ip: 0,
            connections_max_idle_ms: 0,
        };
        let long = |name: &str| config.get(name).expect("it has a default").as_i64();
        let int = |name: &str| i32::try_from(long(name)).expect("the registry says Int");
        let flag = |name: &str| config.get(name) == Some(Value::Boolean(true));
        config = BrokerConfig {
            broker_id: int("broker.id"),
            rack: config.get("broker.rack").map(|rack| rack.to_string()),
            num_partitions: int("num.partitions"),
            default_replication_factor: i16::try_from(int("default.replication.factor"))
                .expect("its range"),
            auto_create_topics_enable: flag("auto.create.topics.enable"),
            delete_topic_enable: flag("delete.topic.enable"),
            max_broker_partitions: int("max.broker.partitions"),
            log_retention_check_interval_ms: long("log.retention.check.interval.ms"),
            producer_id_expiration_ms: long("producer.id.expiration.ms"),
            offsets_retention_minutes: int("offsets.retention.minutes"),
            offsets_retention_check_interval_ms: long("offsets.retention.check.interval.ms"),
            offset_metadata_max_bytes: int("offset.metadata.max.bytes"),
            group_min_session_timeout_ms: int("group.min.session.timeout.ms"),
            group_max_session_timeout_ms: int("group.max.session.timeout.ms"),
            group_max_size: int("group.max.size"),
            group_initial_rebalance_delay_ms: int("group.initial.rebalance.delay.ms"),
            socket_request_max_bytes: int("socket.request.max.bytes"),
            fetch_max_bytes: int("fetch.max.bytes"),
            queued_max_requests: int("queued.max.requests"),
            max_connections: int("max.connections"),
            max_connections_per_ip: int("max.connections.per.ip"),
            connections_max_idle_ms: long("connections.max.idle.ms"),
            ..config
        };
        config
    }
}

impl Default for BrokerConfig {
    /// Nothing given.
    fn default() -> BrokerConfig {
        BrokerConfig::resolve(Layer::new(), Layer::new(), Layer::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_sorted_and_its_defaults_are_valid() {
        for pair in SETTINGS.windows(2) {
            assert!(
                pair[0].name < pair[1].name,
                "{} {}",
                pair[0].name,
                pair[1].name
            );
        }
        for setting in SETTINGS {
            let _ = setting.default_value();
        }
        let config = BrokerConfig::default();
        assert!(config.auto_create_topics_enable);
        assert_eq!(config.socket_request_max_bytes, 100 << 20);
    }

    #[test]
    fn dynamic_settings_lie_over_the_given_ones() {
        let given = [("log.retention.ms".to_owned(), "1000".to_owned())];
        let config = BrokerConfig::new(given).unwrap();
        let map = |v: &str| BTreeMap::from([("log.retention.ms".to_owned(), v.to_owned())]);
        let none = BTreeMap::new();
        assert_eq!(
            config
                .with_dynamic(&map("2000"), &none)
                .get("log.retention.ms"),
            Some(Value::Long(2000))
        );
        assert_eq!(
            config
                .with_dynamic(&map("2000"), &map("3000"))
                .get("log.retention.ms"),
            Some(Value::Long(3000))
        );
        assert_eq!(
            config
                .with_dynamic(&map("x"), &none)
                .get("log.retention.ms"),
            Some(Value::Long(1000))
        );
        // Read-only settings cannot be changed from the tree.
        let sneaky = BTreeMap::from([("num.partitions".to_owned(), "9".to_owned())]);
        assert_eq!(config.with_dynamic(&sneaky, &none).num_partitions, 1);
    }

    #[test]
    fn an_unknown_or_bad_setting_stops_the_start_with_its_name() {
        let pair = |k: &str, v: &str| [(k.to_owned(), v.to_owned())];
        let error = BrokerConfig::new(pair("num.partitons", "3")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"num.partitons\" is not a broker setting that Klamm knows"
        );
        let error = BrokerConfig::new(pair("num.partitions", "0")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "num.partitions: \"0\" is below the smallest value, 1"
        );
    }
}
