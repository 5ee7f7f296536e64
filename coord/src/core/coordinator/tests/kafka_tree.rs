//! Kafka's tree, written through Kafka's protocol and through ZooKeeper's, by this broker
//! and by others.

use super::*;
use crate::core::group::subscription::{assignment, subscription};
use crate::core::groups::{
    JoinGroup, JoinedMember, LeaveGroup, LeavingMember, Protocol, SyncGroup,
};
use crate::core::stat::Acl;
use crate::core::tree::EventKind;
use crate::core::zookeeper::{Client, Connect, Connected};

/// A client of ZooKeeper's protocol: a tool, or another broker.
#[derive(Clone, Copy)]
struct Guest {
    connection: ConnectionId,
    session: SessionId,
}

impl Guest {
    fn client(self) -> Client<'static> {
        Client {
            connection: self.connection,
            session: self.session,
            identities: &[],
        }
    }
}

impl Room {
    fn guest(&mut self, connection: u64) -> Guest {
        let connection = ConnectionId(connection);
        let request = Connect {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 10_000,
            session: SessionId(0),
            password: &[0; 16],
        };
        match self.core.connect(connection, &request, at(self.now)) {
            Connected::Session { session, .. } => {
                self.collect();
                Guest {
                    connection,
                    session,
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn writes(&mut self, guest: Guest, ops: Vec<Op>) {
        self.now += 1;
        let done = self.core.multi(&guest.client(), ops, at(self.now));
        done.value.unwrap();
        self.collect();
    }

    /// Another broker, in a process of its own.
    fn joined_by(&mut self, id: i32) -> Guest {
        let guest = self.guest(u64::from(id.unsigned_abs()));
        let json = znodes::broker_json(&broker(id), at(self.now).wall);
        self.writes(
            guest,
            vec![ephemeral(znodes::broker(id), json, guest.session)],
        );
        guest
    }

    fn leaves(&mut self, guest: Guest) {
        self.core.close_session(guest.session, at(self.now));
        self.collect();
    }

    fn leaders(&mut self, topic: &str) -> Vec<Option<i32>> {
        let image = self.core.image();
        let partitions = &image.topic(topic).unwrap().partitions;
        partitions.iter().map(|p| p.leader).collect()
    }

    fn group(&mut self, request: groups::Request) -> groups::Response {
        match self.ask(Request::Group(request)) {
            Response::Group(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn joins(
        &mut self,
        group: &str,
        id: &str,
        topics: &[&str],
    ) -> (String, i32, Vec<JoinedMember>) {
        let response = self.group(groups::Request::JoinGroup(JoinGroup {
            api_version: 3,
            group: group.to_owned(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 10_000,
            member_id: id.to_owned(),
            instance_id: None,
            client_id: "c".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
            protocol_type: "consumer".to_owned(),
            protocols: vec![Protocol {
                name: "range".to_owned(),
                metadata: subscription(topics),
            }],
            reason: None,
        }));
        match response {
            groups::Response::JoinGroup(joined) => {
                assert_eq!(joined.error, None);
                (joined.member_id, joined.generation, joined.members)
            }
            other => panic!("{other:?}"),
        }
    }

    fn syncs(&mut self, group: &str, id: &str, generation: i32, partitions: &[i32]) {
        let bytes = assignment(&[("t", partitions)]);
        let response = self.group(groups::Request::SyncGroup(SyncGroup {
            api_version: 3,
            group: group.to_owned(),
            generation,
            member_id: id.to_owned(),
            instance_id: None,
            protocol_type: None,
            protocol: None,
            assignments: vec![(id.to_owned(), bytes)],
        }));
        match response {
            groups::Response::SyncGroup(synced) => assert_eq!(synced.error, None),
            other => panic!("{other:?}"),
        }
    }

    fn owner_of(&self, path: &str) -> Option<i64> {
        self.core.tree().stat(path).map(|s| s.ephemeral_owner)
    }
}

fn ephemeral(path: String, data: Vec<u8>, session: SessionId) -> Op {
    Op::Create {
        path,
        data: Some(data),
        acl: Acl::open(),
        lifetime: Lifetime::Ephemeral(session.0),
        sequential: false,
    }
}

#[test]
fn a_topic_made_and_deleted_by_a_tool_is_made_and_deleted() {
    let mut room = Room::new(&[]);
    let tool = room.guest(1);
    let json = r#"{"version":1,"partitions":{"0":[1],"1":[1]}}"#;
    room.writes(tool, vec![Op::create("/brokers/topics/t", json)]);
    assert_eq!(room.leaders("t"), [Some(1), Some(1)]);
    assert_eq!(
        room.data("/brokers/topics/t/partitions/1/state"),
        Some(r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1]}"#)
    );
    room.commit_offset("g", "t", 42);

    let watched = "/brokers/topics/t/partitions/0/state";
    room.core
        .exists(&tool.client(), watched, true)
        .value
        .unwrap();
    room.core
        .write(
            &tool.client(),
            Op::create("/admin/delete_topics/t", ""),
            at(room.now),
        )
        .value
        .unwrap();
    let fired = room.core.take_fired();
    assert!(
        fired
            .iter()
            .any(|f| f.event.kind == EventKind::Deleted && f.event.path == watched)
    );
    room.collect();
    assert!(room.core.image().topic("t").is_none());
    for path in [
        "/brokers/topics/t",
        "/admin/delete_topics/t",
        "/consumers/g/offsets/t",
    ] {
        assert!(!room.core.tree().exists(path), "{path}");
    }
    let again = room.restarted(&[], 8);
    assert!(!again.core.tree().exists("/consumers/g/offsets/t"));
}

#[test]
fn topics_spread_over_the_brokers_that_are_there_and_wait_for_those_that_went() {
    let mut room = Room::new(&[]);
    let (two, three) = (room.joined_by(2), room.joined_by(3));
    room.create(topic("t", 6)).unwrap();
    let leaders = room.leaders("t");
    for id in 1..4 {
        assert_eq!(
            leaders.iter().filter(|l| **l == Some(id)).count(),
            2,
            "{leaders:?}"
        );
    }
    let error = room
        .create(NewTopic {
            replication_factor: 3,
            ..topic("u", 1)
        })
        .unwrap_err();
    assert_eq!(error.kind, Kind::InvalidReplicationFactor);
    assert!(error.message.contains("one replica"), "{error}");
    room.create(NewTopic {
        assignment: vec![(0, vec![3]), (1, vec![2])],
        partitions: -1,
        ..topic("u", -1)
    })
    .unwrap();
    assert_eq!(room.leaders("u"), [Some(3), Some(2)]);
    room.grow("u", 4, None).unwrap();
    assert_eq!(
        room.leaders("u")[2..],
        [Some(2), Some(3)],
        "as if placed from broker 3 on"
    );

    room.leaves(two);
    assert_eq!(room.leaders("u"), [Some(3), None, None, Some(3)]);
    let gone: Vec<_> = leaders.iter().map(|l| l.filter(|id| *id != 2)).collect();
    assert_eq!(room.leaders("t"), gone);
    room.create(topic("v", 4)).unwrap();
    assert!(room.leaders("v").iter().all(|l| matches!(l, Some(1 | 3))));

    room.joined_by(2);
    assert_eq!(room.leaders("t"), leaders);
    let image = room.core.image();
    let epochs: Vec<i32> = image
        .topic("u")
        .unwrap()
        .partitions
        .iter()
        .map(|p| p.leader_epoch.0)
        .collect();
    assert_eq!(epochs, [0, 2, 2, 0]);
    room.leaves(three);
    assert_eq!(room.leaders("u"), [None, Some(2), Some(2), None]);
}

#[test]
fn another_broker_may_be_the_controller_and_this_one_takes_over() {
    let mut room = Room::new(&[]);
    let other = room.joined_by(2);
    assert_eq!(room.core.image().controller, Some(1));
    // As an operator moves the office: the other is quicker.
    let json = znodes::controller_json(2, at(room.now).wall);
    room.writes(
        other,
        vec![
            Op::delete("/controller"),
            ephemeral("/controller".to_owned(), json, other.session),
            Op::set("/controller_epoch", "2"),
        ],
    );
    assert_eq!(room.core.image().controller, Some(2));
    let json = r#"{"version":1,"partitions":{"0":[1]}}"#;
    room.writes(other, vec![Op::create("/brokers/topics/t", json)]);
    assert!(
        !room.core.tree().exists("/brokers/topics/t/partitions"),
        "not ours to do"
    );

    room.leaves(other);
    assert_eq!(room.core.image().controller, Some(1));
    assert_eq!(room.data("/controller_epoch"), Some("3"));
    assert_eq!(room.leaders("t"), [Some(1)], "what was left undone");
    assert!(
        room.data("/brokers/topics/t/partitions/0/state")
            .unwrap()
            .contains(r#""controller_epoch":3"#)
    );

    // The node taken away by hand, as one does to have another elected.
    let tool = room.guest(9);
    room.writes(tool, vec![Op::delete("/controller")]);
    assert_eq!(room.data("/controller_epoch"), Some("4"));
    assert_eq!(room.core.image().controller, Some(1));
}

#[test]
fn a_brokers_nodes_go_with_its_session_and_come_with_the_next() {
    let mut room = Room::new(&[]);
    room.create(topic("t", 1)).unwrap();
    let own = room.core.own_session().0;
    for path in ["/brokers/ids/1", "/controller"] {
        assert_eq!(room.owner_of(path), Some(own), "{path}");
    }
    room.core.end_own_session(at(room.now));
    room.collect();
    for path in ["/brokers/ids/1", "/controller"] {
        assert_eq!(room.owner_of(path), None, "{path}");
    }
    let mut again = room.restarted(&[], 8);
    assert_eq!(again.core.image().controller, None);
    again.register(1).unwrap();
    assert_eq!(again.core.image().controller, Some(1));
    assert_eq!(again.data("/controller_epoch"), Some("2"));
    let image = again.core.image();
    let partition = image.topic("t").unwrap().partition(0).unwrap();
    assert_eq!(
        (partition.leader, partition.leader_epoch),
        (Some(1), LeaderEpoch(0))
    );

    // After a kill the old session is still there at the start.
    let mut killed = again.restarted(&[], 9);
    killed.register(1).unwrap();
    assert_eq!(
        killed.owner_of("/brokers/ids/1"),
        Some(killed.core.own_session().0)
    );
    // Another process with this one's id and another address.
    let json = znodes::broker_json(
        &Broker {
            endpoints: vec![],
            ..broker(5)
        },
        at(0).wall,
    );
    let guest = killed.guest(5);
    killed.writes(
        guest,
        vec![ephemeral(znodes::broker(5), json, guest.session)],
    );
    let error = killed.register(5).unwrap_err();
    assert!(
        error.message.contains("is taken") || error.message.contains("broker.id=1"),
        "{error}"
    );
}

#[test]
fn every_change_of_settings_leaves_a_notice() {
    let mut room = Room::new(&[]);
    room.create(topic("t", 1)).unwrap();
    assert_eq!(room.data("/config/changes/config_change_0000000000"), None);
    room.change(topic_resource("t"), &[("retention.ms", 0, Some("5"))])
        .unwrap();
    let zxid = room.core.zxid();
    assert_eq!(
        room.core.tree().stat("/config/topics/t").unwrap().mzxid,
        zxid
    );
    for (path, text) in [
        (
            "/config/changes/config_change_0000000000",
            r#"{"version":2,"entity_path":"topics/t"}"#,
        ),
        (
            "/config/changes/config_change_0000000001",
            r#"{"version":2,"entity_path":"brokers/1"}"#,
        ),
        (
            "/config/changes/config_change_0000000002",
            r#"{"version":2,"entity_path":"brokers/<default>"}"#,
        ),
    ] {
        assert_eq!(room.data(path), Some(text));
        let next = match path.as_bytes().last() {
            Some(b'0') => Some(1),
            _ => None,
        };
        room.change(
            ConfigResource::Broker(next),
            &[("log.retention.ms", 0, Some("7"))],
        )
        .unwrap();
    }
    // A quarter of an hour later the next change takes the old notices away.
    room.now += 15 * 60 * 1000 + 1;
    room.change(topic_resource("t"), &[("retention.ms", 1, None)])
        .unwrap();
    assert_eq!(
        room.core
            .tree()
            .stat("/config/changes")
            .unwrap()
            .num_children,
        1
    );
}

const QUICK: &[(&str, &str)] = &[("group.initial.rebalance.delay.ms", "0")];

#[test]
fn a_rebalance_of_10_000_partitions_is_one_command() {
    let mut room = Room::new(&[QUICK[0], ("max.broker.partitions", "10000")]);
    room.create(topic("t", 10_000)).unwrap();
    let (id, generation, _) = room.joins("g", "", &["t"]);
    let before = room.log.len();
    room.syncs("g", &id, generation, &(0..10_000).collect::<Vec<i32>>());
    assert_eq!(room.log.len(), before + 1);
    let zxid = room.core.zxid();
    let own = room.core.own_session().0;
    for path in [
        format!("/consumers/g/ids/{id}"),
        "/consumers/g/owners/t/9999".to_owned(),
    ] {
        let stat = room.core.tree().stat(&path).unwrap();
        assert_eq!((stat.czxid, stat.ephemeral_owner), (zxid, own), "{path}");
    }
    assert_eq!(
        room.core
            .tree()
            .stat("/consumers/g/owners/t")
            .unwrap()
            .num_children,
        10_000
    );

    // The same again: a command, and no node.
    let (_, generation, _) = room.joins("g", &id, &["t"]);
    room.syncs("g", &id, generation, &(0..10_000).collect::<Vec<i32>>());
    assert_eq!(room.log.len(), before + 2);
    let touched = |room: &Room| {
        let tree = room.core.tree();
        let zxid = room.core.zxid();
        tree.ephemerals(own)
            .filter(|path| tree.stat(path).unwrap().mzxid == zxid)
            .count()
    };
    assert_eq!(touched(&room), 0);

    let mut bytes = Vec::new();
    room.log.last().unwrap().1.encode(&mut bytes);
    assert!(bytes.len() < 41_000, "4 bytes a partition: {}", bytes.len());
}

#[test]
fn consumers_are_seen_until_they_leave_and_after_every_restart() {
    let mut room = Room::new(QUICK);
    room.create(topic("t", 3)).unwrap();
    let (id, generation, _) = room.joins("g", "", &["t"]);
    room.syncs("g", &id, generation, &[0, 2]);
    room.commit_offset("g2", "t", 1);
    let shown = |room: &Room| -> Vec<(String, String)> {
        let tree = room.core.tree();
        let owner = room.core.own_session().0;
        let paths = tree
            .ephemerals(owner)
            .filter(|p| p.starts_with("/consumers"));
        paths
            .map(|path| {
                let data = tree.data(path).unwrap().unwrap_or_default();
                let text = String::from_utf8(data.to_vec()).unwrap();
                let cut = text.split(",\"timestamp").next().unwrap();
                (path.to_owned(), cut.to_owned())
            })
            .collect()
    };
    let before = shown(&room);
    assert_eq!(before.len(), 3);
    assert_eq!(
        before[1],
        ("/consumers/g/owners/t/0".to_owned(), id.clone())
    );

    let killed = room.restarted(QUICK, 8);
    assert_eq!(shown(&killed), before);

    // Between the end of one session and the start of the next the group goes on.
    room.core.end_own_session(at(room.now));
    room.collect();
    assert_eq!(
        room.core
            .tree()
            .stat("/consumers/g/owners/t")
            .unwrap()
            .num_children,
        0
    );
    let (_, generation, _) = room.joins("g", &id, &["t"]);
    room.syncs("g", &id, generation, &[1]);
    assert_eq!(room.owner_of("/consumers/g/owners/t/1"), None);
    let mut stopped = room.restarted(QUICK, 9);
    let after = shown(&stopped);
    assert_eq!(after.len(), 2);
    assert_eq!(after[1].0, "/consumers/g/owners/t/1");

    // From a snapshot the same.
    let mut from = Core::restore(config(QUICK), &stopped.core.snapshot()).unwrap();
    assert_eq!(from.snapshot(), stopped.core.snapshot());
    let mut log = stopped.log.clone();
    stopped.group(groups::Request::LeaveGroup(LeaveGroup {
        group: "g".to_owned(),
        members: vec![LeavingMember {
            member_id: id,
            instance_id: None,
            reason: None,
        }],
    }));
    assert!(shown(&stopped).is_empty());
    assert!(!stopped.core.tree().exists("/consumers/g"));
    let mut from = from;
    for (zxid, command) in stopped.log.drain(log.len()..) {
        from.apply(zxid, &command);
        log.push((zxid, command));
    }
    assert_eq!(from.snapshot(), stopped.core.snapshot());
}
