//! The life of a group at every version of its APIs: founded, joined, assigned, left,
//! described, deleted; and its offsets over a stop and a kill.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use klamm_tests::broker::Broker;
use klamm_tests::wire::{Connection, text, topic};
use std::time::{Duration, Instant};

/// The newest JoinGroup; of the others, the version is the same or their newest.
const NEWEST: i16 = 9;

fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

/// One client of a group, at one version of everything.
struct Client {
    connection: Connection,
    version: i16,
    group: String,
    member: String,
    generation: i32,
}

impl Client {
    fn new(broker: &Broker, version: i16) -> Client {
        Client {
            connection: broker.connect(),
            version,
            group: format!("readers-{version}"),
            member: String::new(),
            generation: -1,
        }
    }

    fn join_request(&self) -> JoinGroupRequest {
        let range = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(Bytes::from_static(b"orders"));
        let mut join = JoinGroupRequest::default()
            .with_group_id(group(&self.group))
            .with_session_timeout_ms(60_000)
            .with_member_id(text(&self.member))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![range]);
        if self.version >= 1 {
            join.rebalance_timeout_ms = 60_000;
        }
        join
    }

    /// Sends a JoinGroup that waits for others; [`Client::joined`] takes the answer.
    fn start_join(&mut self) -> i32 {
        if self.version >= 4 && self.member.is_empty() {
            let request = self.join_request();
            let sent_back = self
                .connection
                .call(self.version, &request)
                .expect("an answer");
            assert_eq!(sent_back.error_code, 79);
            self.member = sent_back.member_id.to_string();
        }
        let request = self.join_request();
        self.connection
            .send_request(self.version, &request)
            .expect("sent")
    }

    fn joined(&mut self, correlation: i32) -> JoinGroupResponse {
        let connection = &mut self.connection;
        let joined = connection
            .receive::<JoinGroupRequest>(self.version, correlation)
            .expect("an answer to JoinGroup");
        assert_eq!(joined.error_code, 0, "version {}", self.version);
        self.member = joined.member_id.to_string();
        self.generation = joined.generation_id;
        joined
    }

    fn sync(&mut self, assignments: &[(&str, &str)]) -> String {
        let assignments = assignments.iter().map(|(member, assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(member))
                .with_assignment(Bytes::copy_from_slice(assignment.as_bytes()))
        });
        let mut sync = SyncGroupRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.member))
            .with_assignments(assignments.collect());
        let version = self.version.min(5);
        if version >= 5 {
            sync.protocol_type = Some(text("consumer"));
            sync.protocol_name = Some(text("range"));
        }
        let synced = self.connection.call(version, &sync).expect("an answer");
        assert_eq!(synced.error_code, 0, "version {version}");
        String::from_utf8(synced.assignment.to_vec()).expect("what the leader wrote")
    }

    fn heartbeat(&mut self) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.member));
        let version = self.version.min(4);
        self.connection
            .call(version, &request)
            .expect("an answer")
            .error_code
    }

    /// Beats until it hears of a rebalance.
    fn await_rebalance(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.heartbeat() {
                27 => return,
                0 => assert!(Instant::now() < deadline, "no rebalance"),
                code => panic!("heartbeat: {code}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn leave(&mut self) {
        let version = self.version.min(5);
        let mut request = LeaveGroupRequest::default().with_group_id(group(&self.group));
        if version < 3 {
            request.member_id = text(&self.member);
        } else {
            request.members = vec![MemberIdentity::default().with_member_id(text(&self.member))];
        }
        let left = self.connection.call(version, &request).expect("an answer");
        assert_eq!(left.error_code, 0);
        assert!(left.members.iter().all(|member| member.error_code == 0));
    }

    fn commit(&mut self, offset: i64, note: &str) {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(1)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text(note)));
        let orders = OffsetCommitRequestTopic::default()
            .with_name(topic("orders"))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(&self.member))
            .with_topics(vec![orders]);
        let response = self.connection.call(self.version.max(2), &request);
        let response = response.expect("an answer");
        assert_eq!(response.topics[0].partitions[0].error_code, 0);
    }

    fn state(&mut self) -> (i16, String, usize) {
        let request = DescribeGroupsRequest::default().with_groups(vec![group(&self.group)]);
        let version = self.version.min(6);
        let response = self.connection.call(version, &request).expect("an answer");
        let told = &response.groups[0];
        (
            told.error_code,
            told.group_state.to_string(),
            told.members.len(),
        )
    }

    fn is_listed(&mut self) -> bool {
        let version = self.version.min(5);
        let response = self.connection.call(version, &ListGroupsRequest::default());
        let groups = response.expect("an answer").groups;
        groups
            .iter()
            .any(|listed| listed.group_id.as_str() == self.group)
    }
}

/// The committed offset and note of orders-1.
fn committed(connection: &mut Connection, version: i16, id: &str) -> (i64, String) {
    let version = version.max(1);
    let mut request = OffsetFetchRequest::default();
    if version < 8 {
        let orders = OffsetFetchRequestTopic::default()
            .with_name(topic("orders"))
            .with_partition_indexes(vec![1]);
        request.group_id = group(id);
        request.topics = Some(vec![orders]);
    } else {
        let orders = OffsetFetchRequestTopics::default()
            .with_name(topic("orders"))
            .with_partition_indexes(vec![1]);
        request.topics = Some(Vec::new());
        request.groups = vec![
            OffsetFetchRequestGroup::default()
                .with_group_id(group(id))
                .with_topics(Some(vec![orders])),
        ];
    }
    let response = connection.call(version, &request).expect("an answer");
    if version < 8 {
        let partition = &response.topics[0].partitions[0];
        assert_eq!((response.error_code, partition.error_code), (0, 0));
        let note = partition.metadata.as_deref().unwrap_or("");
        (partition.committed_offset, note.to_owned())
    } else {
        let partition = &response.groups[0].topics[0].partitions[0];
        assert_eq!(
            (response.groups[0].error_code, partition.error_code),
            (0, 0)
        );
        let note = partition.metadata.as_deref().unwrap_or("");
        (partition.committed_offset, note.to_owned())
    }
}

fn live(broker: &Broker, version: i16) {
    let mut first = Client::new(broker, version);
    let find = FindCoordinatorRequest::default();
    let found = match version.min(4) {
        4 => find.with_coordinator_keys(vec![text(&first.group)]),
        _ => find.with_key(text(&first.group)),
    };
    let found = first
        .connection
        .call(version.min(4), &found)
        .expect("an answer");
    let port = found.coordinators.first().map_or(found.port, |c| c.port);
    assert_eq!(port, i32::from(broker.address().port()));

    // One member founds the group and leads it.
    let waiting = first.start_join();
    let joined = first.joined(waiting);
    assert_eq!((joined.generation_id, joined.members.len()), (1, 1));
    assert_eq!(joined.protocol_name, Some(text("range")));
    let me = first.member.clone();
    assert_eq!(first.sync(&[(&me, "all of it")]), "all of it");
    assert_eq!(first.heartbeat(), 0);
    first.commit(41, "alone");

    // A second one comes: both wait for the next generation.
    let mut second = Client::new(broker, version);
    let second_waits = second.start_join();
    first.await_rebalance();
    let first_waits = first.start_join();
    let leader = first.joined(first_waits);
    let follower = second.joined(second_waits);
    assert_eq!((leader.generation_id, follower.generation_id), (2, 2));
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    assert_eq!(leader.leader, leader.member_id);
    let (me, other) = (first.member.clone(), second.member.clone());
    assert_eq!(
        first.sync(&[(&me, "one half"), (&other, "the other")]),
        "one half"
    );
    assert_eq!(second.sync(&[]), "the other");
    assert_eq!(first.state(), (0, "Stable".to_owned(), 2));
    assert!(second.is_listed());
    second.commit(42, "a note");
    let id = first.group.clone();
    let told = committed(&mut first.connection, version, &id);
    assert_eq!(told, (42, "a note".to_owned()));

    // The second one leaves, then the first.
    second.leave();
    assert_eq!(second.heartbeat(), 25);
    first.await_rebalance();
    let waiting = first.start_join();
    assert_eq!(first.joined(waiting).generation_id, 3);
    first.sync(&[(&me, "all of it")]);
    first.leave();
    assert_eq!(first.state(), (0, "Empty".to_owned(), 0));
}

#[test]
fn a_group_lives_the_same_life_at_every_version() {
    let mut broker = Broker::with()
        .setting("group.initial.rebalance.delay.ms", 0)
        .start();
    broker.connect().create_topic("orders", 2, &[]);
    for version in 0..=NEWEST {
        live(&broker, version);
    }
    // What was committed is there after a stop and after a kill.
    for stopped in [true, false] {
        if stopped {
            broker.restart();
        } else {
            broker.kill9();
            broker.start_again();
        }
        let mut connection = broker.connect();
        for version in 0..=NEWEST {
            let id = format!("readers-{version}");
            let told = committed(&mut connection, version, &id);
            assert_eq!(told, (42, "a note".to_owned()), "{id}");
        }
    }
    let mut connection = broker.connect();
    for version in 0..=2 {
        let id = format!("readers-{version}");
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group(&id)]);
        let mut delete = || {
            let response = connection.call(version, &request).expect("an answer");
            response.results[0].error_code
        };
        assert_eq!((delete(), delete()), (0, 69));
        assert_eq!(
            committed(&mut connection, version, &id),
            (-1, String::new())
        );
    }
}

#[test]
fn members_go_on_in_their_generation_after_a_restart() {
    let mut broker = Broker::with()
        .setting("group.initial.rebalance.delay.ms", 0)
        .start();
    broker.connect().create_topic("orders", 2, &[]);
    let mut client = Client::new(&broker, 5);
    let waiting = client.start_join();
    client.joined(waiting);
    let me = client.member.clone();
    client.sync(&[(&me, "all of it")]);
    client.commit(7, "before");
    for stopped in [true, false] {
        if stopped {
            broker.restart();
        } else {
            broker.kill9();
            broker.start_again();
        }
        client.connection = broker.connect();
        assert_eq!(client.heartbeat(), 0, "it need not join again");
        assert_eq!(client.sync(&[]), "all of it");
        client.commit(8, "after");
    }
}
