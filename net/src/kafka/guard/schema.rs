//! The shape of every request that is decoded behind the guard: which fields, in
//! which order, in which versions. The facts are those of
//! `clients/src/main/resources/common/message/*Request.json` in the Kafka tree; the
//! guard's tests hold each line against an encoder that we did not write.
//!
//! Whether a field may be null is left to the decoder, which refuses it where it
//! never may be; what may be null only from some version on is `Present` before.

use super::Kind::{Array, Fixed, Present, Raw, Str, Struct};
use super::{Field, Kind};

const NEVER: i16 = i16::MAX;

/// A field of every version that is served.
const fn all(name: &'static str, kind: Kind) -> Field {
    Field {
        name,
        kind,
        from: 0,
        to: NEVER,
        tag: None,
    }
}

/// A field of the versions `from` to `to`.
const fn some(name: &'static str, kind: Kind, from: i16, to: i16) -> Field {
    Field {
        name,
        kind,
        from,
        to,
        tag: None,
    }
}

/// A field among the tagged ones.
const fn tag(tag: u32, name: &'static str, kind: Kind, from: i16, to: i16) -> Field {
    Field {
        name,
        kind,
        from,
        to,
        tag: Some(tag),
    }
}

/// The fields of an API's request.
pub(super) fn request(api_key: i16) -> Option<&'static [Field]> {
    Some(match api_key {
        1 => FETCH,
        2 => LIST_OFFSETS,
        3 => METADATA,
        8 => OFFSET_COMMIT,
        9 => OFFSET_FETCH,
        10 => FIND_COORDINATOR,
        11 => JOIN_GROUP,
        12 => HEARTBEAT,
        13 => LEAVE_GROUP,
        14 => SYNC_GROUP,
        15 => DESCRIBE_GROUPS,
        16 => LIST_GROUPS,
        18 => API_VERSIONS,
        19 => CREATE_TOPICS,
        20 => DELETE_TOPICS,
        21 => DELETE_RECORDS,
        22 => INIT_PRODUCER_ID,
        23 => OFFSET_FOR_LEADER_EPOCH,
        32 => DESCRIBE_CONFIGS,
        33 => ALTER_CONFIGS,
        37 => CREATE_PARTITIONS,
        42 => DELETE_GROUPS,
        44 => INCREMENTAL_ALTER_CONFIGS,
        47 => OFFSET_DELETE,
        60 => DESCRIBE_CLUSTER,
        _ => return None,
    })
}

const FETCH: &[Field] = &[
    tag(0, "cluster_id", Str, 12, NEVER),
    some("replica_id", Fixed(4), 0, 14),
    all("max_wait_ms", Fixed(4)),
    all("min_bytes", Fixed(4)),
    all("max_bytes", Fixed(4)),
    all("isolation_level", Fixed(1)),
    some("session_id", Fixed(4), 7, NEVER),
    some("session_epoch", Fixed(4), 7, NEVER),
    all(
        "topics",
        Array(&Struct(&[
            some("topic", Str, 0, 12),
            all(
                "partitions",
                Array(&Struct(&[
                    all("partition", Fixed(4)),
                    some("current_leader_epoch", Fixed(4), 9, NEVER),
                    all("fetch_offset", Fixed(8)),
                    some("last_fetched_epoch", Fixed(4), 12, NEVER),
                    some("log_start_offset", Fixed(8), 5, NEVER),
                    all("partition_max_bytes", Fixed(4)),
                ])),
            ),
        ])),
    ),
    some(
        "forgotten_topics_data",
        Array(&Struct(&[
            some("topic", Str, 7, 12),
            some("partitions", Array(&Fixed(4)), 7, NEVER),
        ])),
        7,
        NEVER,
    ),
    some("rack_id", Str, 11, NEVER),
];

const LIST_OFFSETS: &[Field] = &[
    all("replica_id", Fixed(4)),
    some("isolation_level", Fixed(1), 2, NEVER),
    all(
        "topics",
        Array(&Struct(&[
            all("name", Str),
            all(
                "partitions",
                Array(&Struct(&[
                    all("partition_index", Fixed(4)),
                    some("current_leader_epoch", Fixed(4), 4, NEVER),
                    all("timestamp", Fixed(8)),
                ])),
            ),
        ])),
    ),
];

const METADATA: &[Field] = &[
    some("topics", Present(&METADATA_TOPICS), 0, 0),
    some("topics", METADATA_TOPICS, 1, NEVER),
    some("allow_auto_topic_creation", Fixed(1), 4, NEVER),
    some("include_cluster_authorized_operations", Fixed(1), 8, 10),
    some("include_topic_authorized_operations", Fixed(1), 8, NEVER),
];

const METADATA_TOPICS: Kind = Array(&Struct(&[
    some("topic_id", Fixed(16), 10, NEVER),
    some("name", Present(&Str), 0, 9),
    some("name", Str, 10, NEVER),
]));

const OFFSET_COMMIT: &[Field] = &[
    all("group_id", Str),
    all("generation_id_or_member_epoch", Fixed(4)),
    all("member_id", Str),
    some("group_instance_id", Str, 7, NEVER),
    some("retention_time_ms", Fixed(8), 2, 4),
    all(
        "topics",
        Array(&Struct(&[
            all("name", Str),
            all(
                "partitions",
                Array(&Struct(&[
                    all("partition_index", Fixed(4)),
                    all("committed_offset", Fixed(8)),
                    some("committed_leader_epoch", Fixed(4), 6, NEVER),
                    all("committed_metadata", Str),
                ])),
            ),
        ])),
    ),
];

const OFFSET_FETCH_TOPICS: Kind = Array(&Struct(&[
    some("name", Str, 0, 7),
    some("partition_indexes", Array(&Fixed(4)), 0, 7),
]));

const OFFSET_FETCH: &[Field] = &[
    some("group_id", Str, 0, 7),
    some("topics", Present(&OFFSET_FETCH_TOPICS), 0, 1),
    some("topics", OFFSET_FETCH_TOPICS, 2, 7),
    some(
        "groups",
        Array(&Struct(&[
            some("group_id", Str, 8, NEVER),
            some("member_id", Str, 9, NEVER),
            some("member_epoch", Fixed(4), 9, NEVER),
            some(
                "topics",
                Array(&Struct(&[
                    some("name", Str, 8, NEVER),
                    some("partition_indexes", Array(&Fixed(4)), 8, NEVER),
                ])),
                8,
                NEVER,
            ),
        ])),
        8,
        NEVER,
    ),
    some("require_stable", Fixed(1), 7, NEVER),
];

const FIND_COORDINATOR: &[Field] = &[
    some("key", Str, 0, 3),
    some("key_type", Fixed(1), 1, NEVER),
    some("coordinator_keys", Array(&Str), 4, NEVER),
];

const JOIN_GROUP: &[Field] = &[
    all("group_id", Str),
    all("session_timeout_ms", Fixed(4)),
    some("rebalance_timeout_ms", Fixed(4), 1, NEVER),
    all("member_id", Str),
    some("group_instance_id", Str, 5, NEVER),
    all("protocol_type", Str),
    all(
        "protocols",
        Array(&Struct(&[all("name", Str), all("metadata", Raw)])),
    ),
    some("reason", Str, 8, NEVER),
];

const HEARTBEAT: &[Field] = &[
    all("group_id", Str),
    all("generation_id", Fixed(4)),
    all("member_id", Str),
    some("group_instance_id", Str, 3, NEVER),
];

const LEAVE_GROUP: &[Field] = &[
    all("group_id", Str),
    some("member_id", Str, 0, 2),
    some(
        "members",
        Array(&Struct(&[
            some("member_id", Str, 3, NEVER),
            some("group_instance_id", Str, 3, NEVER),
            some("reason", Str, 5, NEVER),
        ])),
        3,
        NEVER,
    ),
];

const SYNC_GROUP: &[Field] = &[
    all("group_id", Str),
    all("generation_id", Fixed(4)),
    all("member_id", Str),
    some("group_instance_id", Str, 3, NEVER),
    some("protocol_type", Str, 5, NEVER),
    some("protocol_name", Str, 5, NEVER),
    all(
        "assignments",
        Array(&Struct(&[all("member_id", Str), all("assignment", Raw)])),
    ),
];

const DESCRIBE_GROUPS: &[Field] = &[
    all("groups", Array(&Str)),
    some("include_authorized_operations", Fixed(1), 3, NEVER),
];

const LIST_GROUPS: &[Field] = &[
    some("states_filter", Array(&Str), 4, NEVER),
    some("types_filter", Array(&Str), 5, NEVER),
];

const API_VERSIONS: &[Field] = &[
    some("client_software_name", Str, 3, NEVER),
    some("client_software_version", Str, 3, NEVER),
];

const CREATE_TOPICS: &[Field] = &[
    all(
        "topics",
        Array(&Struct(&[
            all("name", Str),
            all("num_partitions", Fixed(4)),
            all("replication_factor", Fixed(2)),
            all(
                "assignments",
                Array(&Struct(&[
                    all("partition_index", Fixed(4)),
                    all("broker_ids", Array(&Fixed(4))),
                ])),
            ),
            all(
                "configs",
                Array(&Struct(&[all("name", Str), all("value", Str)])),
            ),
        ])),
    ),
    all("timeout_ms", Fixed(4)),
    all("validate_only", Fixed(1)),
];

const DELETE_TOPICS: &[Field] = &[
    some(
        "topics",
        Array(&Struct(&[
            some("name", Str, 6, NEVER),
            some("topic_id", Fixed(16), 6, NEVER),
        ])),
        6,
        NEVER,
    ),
    some("topic_names", Array(&Str), 0, 5),
    all("timeout_ms", Fixed(4)),
];

const DELETE_RECORDS: &[Field] = &[
    all(
        "topics",
        Array(&Struct(&[
            all("name", Str),
            all(
                "partitions",
                Array(&Struct(&[
                    all("partition_index", Fixed(4)),
                    all("offset", Fixed(8)),
                ])),
            ),
        ])),
    ),
    all("timeout_ms", Fixed(4)),
];

const INIT_PRODUCER_ID: &[Field] = &[
    all("transactional_id", Str),
    all("transaction_timeout_ms", Fixed(4)),
    some("producer_id", Fixed(8), 3, NEVER),
    some("producer_epoch", Fixed(2), 3, NEVER),
];

const OFFSET_FOR_LEADER_EPOCH: &[Field] = &[
    some("replica_id", Fixed(4), 3, NEVER),
    all(
        "topics",
        Array(&Struct(&[
            all("topic", Str),
            all(
                "partitions",
                Array(&Struct(&[
                    all("partition", Fixed(4)),
                    all("current_leader_epoch", Fixed(4)),
                    all("leader_epoch", Fixed(4)),
                ])),
            ),
        ])),
    ),
];

const DESCRIBE_CONFIGS: &[Field] = &[
    all(
        "resources",
        Array(&Struct(&[
            all("resource_type", Fixed(1)),
            all("resource_name", Str),
            all("configuration_keys", Array(&Str)),
        ])),
    ),
    all("include_synonyms", Fixed(1)),
    some("include_documentation", Fixed(1), 3, NEVER),
];

const ALTER_CONFIGS: &[Field] = &[
    all(
        "resources",
        Array(&Struct(&[
            all("resource_type", Fixed(1)),
            all("resource_name", Str),
            all(
                "configs",
                Array(&Struct(&[all("name", Str), all("value", Str)])),
            ),
        ])),
    ),
    all("validate_only", Fixed(1)),
];

const CREATE_PARTITIONS: &[Field] = &[
    all(
        "topics",
        Array(&Struct(&[
            all("name", Str),
            all("count", Fixed(4)),
            all(
                "assignments",
                Array(&Struct(&[all("broker_ids", Array(&Fixed(4)))])),
            ),
        ])),
    ),
    all("timeout_ms", Fixed(4)),
    all("validate_only", Fixed(1)),
];

const DELETE_GROUPS: &[Field] = &[all("groups_names", Array(&Str))];

const INCREMENTAL_ALTER_CONFIGS: &[Field] = &[
    all(
        "resources",
        Array(&Struct(&[
            all("resource_type", Fixed(1)),
            all("resource_name", Str),
            all(
                "configs",
                Array(&Struct(&[
                    all("name", Str),
                    all("config_operation", Fixed(1)),
                    all("value", Str),
                ])),
            ),
        ])),
    ),
    all("validate_only", Fixed(1)),
];

const OFFSET_DELETE: &[Field] = &[
    all("group_id", Str),
    all(
        "topics",
        Array(&Struct(&[
            all("name", Str),
            all(
                "partitions",
                Array(&Struct(&[all("partition_index", Fixed(4))])),
            ),
        ])),
    ),
];

const DESCRIBE_CLUSTER: &[Field] = &[
    all("include_cluster_authorized_operations", Fixed(1)),
    some("endpoint_type", Fixed(1), 1, NEVER),
];
