//! The broker settings that groups obey, under Kafka's names and defaults
//! (`GroupCoordinatorConfig.java`).

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long a new group waits for more
    /// members before its first generation. 0: not at all.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`
    pub max_size: usize,
    /// How long a member that has no id yet may wait in JoinGroup. Kafka's
    /// constant, not a setting: such a member cannot heartbeat, so a client that
    /// went away would wait for ever.
    pub new_member_join_timeout_ms: i32,
    /// `offset.metadata.max.bytes`, counted as Kafka does, in UTF-16 units.
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`
    pub offsets_retention_minutes: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// Feeds the member ids. Must differ at each start, or a restarted broker
    /// hands out ids that members of before the restart still carry.
    pub member_id_seed: u128,
}

impl GroupConfig {
    /// Kafka's defaults.
    pub fn with_seed(member_id_seed: u128) -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX as usize,
            new_member_join_timeout_ms: 5 * 60 * 1_000,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_minutes: 7 * 24 * 60,
            offsets_retention_check_interval_ms: 600_000,
            member_id_seed,
        }
    }
}
