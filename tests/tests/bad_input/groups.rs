//! Members that are none, and notes that are too long.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, OffsetCommitRequest,
    SyncGroupRequest,
};
use klamm_tests::broker::{Broker, Setup};
use klamm_tests::wire::{Connection, text, topic};

/// A first generation does not wait for members that will not come.
fn prompt() -> Setup {
    Broker::with().setting("group.initial.rebalance.delay.ms", 0)
}

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

fn join(id: &str, member: &str) -> JoinGroupRequest {
    let range = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::from_static(b"\0"));
    JoinGroupRequest::default()
        .with_group_id(group(id))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![range])
}

fn ask(connection: &mut Connection, version: i16, request: &JoinGroupRequest) -> JoinGroupResponse {
    connection
        .call(version, request)
        .expect("an answer to JoinGroup")
}

/// The only member of a stable group: its id and generation.
fn member(connection: &mut Connection, id: &str) -> (String, i32) {
    let first = ask(connection, 5, &join(id, ""));
    assert_eq!(first.error_code, 79, "come again with the id given here");
    let joined = ask(connection, 5, &join(id, &first.member_id));
    assert_eq!((joined.error_code, &joined.leader), (0, &joined.member_id));
    let all = SyncGroupRequestAssignment::default()
        .with_member_id(joined.member_id.clone())
        .with_assignment(Bytes::from_static(b"\0"));
    let sync = SyncGroupRequest::default()
        .with_group_id(group(id))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(vec![all]);
    let synced = connection.call(3, &sync).expect("an answer to SyncGroup");
    assert_eq!(synced.error_code, 0);
    (joined.member_id.to_string(), joined.generation_id)
}

fn commit(connection: &mut Connection, id: &str, member: &str, generation: i32, note: &str) -> i16 {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(1)
        .with_committed_metadata(Some(text(note)));
    let orders = OffsetCommitRequestTopic::default()
        .with_name(topic("orders"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group(id))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(vec![orders]);
    let response = connection
        .call(7, &request)
        .expect("an answer to OffsetCommit");
    response.topics[0].partitions[0].error_code
}

#[test]
fn a_commit_is_refused_for_a_long_note_a_stale_generation_an_unknown_member() {
    let broker = prompt().start();
    let mut connection = broker.connect();
    assert_eq!(
        commit(&mut connection, "readers", "", -1, ""),
        3,
        "there is no such topic"
    );
    connection.create_topic("orders", 1, &[]);
    let (member, generation) = member(&mut connection, "readers");
    let mut commit = |member: &str, generation, note: &str| {
        commit(&mut connection, "readers", member, generation, note)
    };
    assert_eq!(commit(&member, generation, &"x".repeat(4_096)), 0);
    assert_eq!(commit(&member, generation, &"x".repeat(4_097)), 12);
    assert_eq!(commit(&member, generation - 1, ""), 22);
    assert_eq!(commit(&member, generation + 1, ""), 22);
    assert_eq!(commit("nobody", generation, ""), 25);
}

#[test]
fn a_heartbeat_is_refused_for_a_stale_generation_and_an_unknown_member() {
    let broker = prompt().start();
    let mut connection = broker.connect();
    let (member, generation) = member(&mut connection, "readers");
    let mut beat = |id: &str, member: &str, generation| {
        let request = HeartbeatRequest::default()
            .with_group_id(group(id))
            .with_member_id(text(member))
            .with_generation_id(generation);
        let response = connection
            .call(3, &request)
            .expect("an answer to Heartbeat");
        response.error_code
    };
    assert_eq!(beat("readers", &member, generation), 0);
    assert_eq!(beat("readers", &member, generation - 1), 22);
    assert_eq!(beat("readers", "nobody", generation), 25);
    assert_eq!(beat("strangers", &member, generation), 25);
    assert_eq!(beat("", &member, generation), 24);
}

#[test]
fn a_join_is_refused_without_a_group_a_sane_timeout_or_a_member_id() {
    let broker = prompt().start();
    let mut connection = broker.connect();
    let refused = ask(&mut connection, 5, &join("", ""));
    assert_eq!(refused.error_code, 24);
    for timeout in [0, -1, 1, 5_999, 1_800_001, i32::MAX, i32::MIN] {
        let request = join("readers", "").with_session_timeout_ms(timeout);
        let refused = ask(&mut connection, 5, &request);
        assert_eq!(refused.error_code, 26, "{timeout} ms");
    }
    let refused = ask(&mut connection, 5, &join("readers", ""));
    assert_eq!(refused.error_code, 79);
    assert!(!refused.member_id.is_empty(), "the id to come again with");
    let refused = ask(&mut connection, 5, &join("readers", "made-up"));
    assert_eq!(refused.error_code, 25);
    // Before version 4 a member without an id is taken at once.
    let taken = ask(&mut connection, 3, &join("others", ""));
    assert_eq!(taken.error_code, 0);
    let mut strange = join("readers", "");
    strange.protocols.clear();
    assert_eq!(ask(&mut connection, 5, &strange).error_code, 23);
}

#[test]
fn a_group_that_is_full_takes_no_more() {
    let broker = prompt().setting("group.max.size", 1).start();
    let mut connection = broker.connect();
    member(&mut connection, "readers");
    let refused = ask(&mut connection, 5, &join("readers", ""));
    assert_eq!(refused.error_code, 81);
}
