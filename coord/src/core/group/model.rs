//! Random clients against the groups.
//!
//! Some clients, static and dynamic, old and new, join, sync, commit, leave,
//! crash and come back in any order; the broker restarts; time passes in jumps.
//! The room checks its invariants after every move, and the clients check what
//! they are told:
//!
//! ```text
//!  an assignment that a member gets in generation g is the one that the leader
//!  of g made for it in g                        (each carries both, as text)
//!  nobody who is in the present generation is told UNKNOWN_MEMBER_ID
//!  in the end, when all behave, every group becomes stable with all of them in
//! ```

use bytes::Bytes;
use proptest::prelude::*;

use super::room::*;
use crate::core::groups::*;

const CLIENTS: usize = 6;

/// One process that wants to be a member of `group`, and what it knows.
struct Client {
    group: String,
    instance: Option<String>,
    api_version: i16,
    member_id: String,
    joined: Option<JoinGroupResponse>,
    is_synced: bool,
    waits: Option<(Token, Waits)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Waits {
    Join,
    Sync,
}

#[derive(Clone, Debug)]
enum Op {
    /// A client does what a client does next.
    Proceed(usize),
    /// A client joins although nothing asks for it, perhaps with new metadata.
    Rejoin(usize, bool),
    Heartbeat(usize),
    Commit(usize, i64),
    Leave(usize),
    /// The process dies without a word; a new one takes its place.
    Crash(usize),
    /// A request of a generation, or of a member, that is not.
    Stale(usize, i32),
    Wait(u64),
    Restart(bool),
    Delete(usize),
    DeleteOffsets(usize),
    ForgetTopic,
}

fn op() -> impl Strategy<Value = Op> {
    let who = || 0..CLIENTS;
    prop_oneof![
        12 => who().prop_map(Op::Proceed),
        2 => (who(), any::<bool>()).prop_map(|(c, changed)| Op::Rejoin(c, changed)),
        3 => who().prop_map(Op::Heartbeat),
        3 => (who(), 0..1_000i64).prop_map(|(c, offset)| Op::Commit(c, offset)),
        1 => who().prop_map(Op::Leave),
        2 => who().prop_map(Op::Crash),
        1 => (who(), -1..4i32).prop_map(|(c, generation)| Op::Stale(c, generation)),
        4 => prop_oneof![0..4_000u64, 0..70_000u64].prop_map(Op::Wait),
        1 => any::<bool>().prop_map(Op::Restart),
        1 => who().prop_map(Op::Delete),
        1 => who().prop_map(Op::DeleteOffsets),
        1 => Just(Op::ForgetTopic),
    ]
}

struct World {
    room: Room,
    clients: Vec<Client>,
}

impl World {
    fn new(statics: u8, versions: &[i16], initial_delay_ms: i32) -> Self {
        let client = |n: usize| Client {
            group: if n < CLIENTS - 2 {
                "bill".into()
            } else {
                "ship".into()
            },
            instance: (statics >> n & 1 == 1).then(|| format!("i{n}")),
            api_version: versions[n],
            member_id: String::new(),
            joined: None,
            is_synced: false,
            waits: None,
        };
        Self {
            room: Room::with(|c| c.initial_rebalance_delay_ms = initial_delay_ms),
            clients: (0..CLIENTS).map(client).collect(),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Proceed(c) => self.proceed(c),
            Op::Rejoin(c, changed) => self.rejoin(c, changed),
            Op::Heartbeat(c) => self.heartbeat(c),
            Op::Commit(c, offset) => self.commit(c, offset),
            Op::Leave(c) => self.leave(c),
            Op::Crash(c) => self.crash(c),
            Op::Stale(c, generation) => self.stale(c, generation),
            Op::Wait(ms) => self.room.wait_ms(ms),
            Op::Restart(from_snapshot) => {
                for c in 0..CLIENTS {
                    self.hear(c);
                    self.clients[c].waits = None;
                }
                if from_snapshot {
                    self.room.restart_from_snapshot()
                } else {
                    self.room.restart()
                }
            }
            Op::Delete(c) => {
                let groups = vec![self.clients[c].group.clone()];
                self.room
                    .say(Request::DeleteGroups(DeleteGroups { groups }));
            }
            Op::DeleteOffsets(c) => {
                let group = self.clients[c].group.clone();
                let topics = vec![("orders".into(), vec![0, 1]), ("trucks".into(), vec![0])];
                self.room
                    .say(Request::OffsetDelete(OffsetDelete { group, topics }));
            }
            Op::ForgetTopic => self.room.forget_topic("trucks"),
        }
        for c in 0..CLIENTS {
            self.hear(c);
        }
    }

    /// Takes in the answer that a client waits for, if it is there.
    fn hear(&mut self, c: usize) {
        let Some((token, waits)) = self.clients[c].waits else {
            return;
        };
        let Some(response) = self.room.answer(token) else {
            return;
        };
        let client = &mut self.clients[c];
        client.waits = None;
        match (waits, response) {
            (Waits::Join, Response::JoinGroup(joined)) => client.hear_join(joined),
            (Waits::Sync, Response::SyncGroup(synced)) => client.hear_sync(&synced),
            (_, response) => panic!("not what was asked: {response:?}"),
        }
    }

    fn proceed(&mut self, c: usize) {
        if self.clients[c].waits.is_some() {
            return;
        }
        match (&self.clients[c].joined, self.clients[c].is_synced) {
            (None, _) => self.rejoin(c, false),
            (Some(_), false) => {
                let request = self.clients[c].sync();
                let token = self.room.ask(Request::SyncGroup(request));
                self.clients[c].waits = Some((token, Waits::Sync));
            }
            (Some(_), true) => self.heartbeat(c),
        }
        self.hear(c);
    }

    fn rejoin(&mut self, c: usize, changed: bool) {
        // One request at a time on a connection: an earlier one is given up.
        if let Some((token, _)) = self.clients[c].waits.take() {
            self.room.abandon(token);
        }
        let request = self.clients[c].join(changed);
        self.clients[c].joined = None;
        self.clients[c].is_synced = false;
        let token = self.room.start_join(request);
        self.clients[c].waits = Some((token, Waits::Join));
    }

    fn heartbeat(&mut self, c: usize) {
        let Some(joined) = &self.clients[c].joined else {
            return;
        };
        let request = Heartbeat {
            group: self.clients[c].group.clone(),
            generation: joined.generation,
            member_id: self.clients[c].member_id.clone(),
            instance_id: self.clients[c].instance.clone(),
        };
        let was_in = self.is_in_present_generation(c);
        let Response::Heartbeat(response) = self.room.say(Request::Heartbeat(request)) else {
            panic!()
        };
        if was_in {
            assert!(
                matches!(response.error, None | Some(GroupError::RebalanceInProgress)),
                "{response:?}"
            );
        }
        self.clients[c].hear_error(response.error);
    }

    fn commit(&mut self, c: usize, offset: i64) {
        let client = &self.clients[c];
        let generation = client.joined.as_ref().map_or(-1, |j| j.generation);
        let topic = if offset % 3 == 0 { "trucks" } else { "orders" };
        let request = OffsetCommit {
            instance_id: client.instance.clone(),
            ..commit(
                &client.group,
                generation,
                &client.member_id,
                topic,
                &[(0, offset)],
            )
        };
        let was_in = self.is_in_present_generation(c);
        let Response::OffsetCommit(response) = self.room.say(Request::OffsetCommit(request)) else {
            panic!()
        };
        let error = response.topics[0].partitions[0].1;
        if was_in {
            assert!(
                matches!(error, None | Some(GroupError::RebalanceInProgress)),
                "{error:?}"
            );
        }
        if error.is_none() {
            let kept = self
                .room
                .groups
                .durable()
                .offsets
                .get(&self.clients[c].group, topic, 0);
            assert_eq!(kept.map(|k| k.offset.0), Some(offset));
        }
    }

    fn is_in_present_generation(&self, c: usize) -> bool {
        let client = &self.clients[c];
        let live = self.room.groups.live.get(client.group.as_str());
        live.zip(client.joined.as_ref())
            .is_some_and(|(group, joined)| {
                group.generation() == joined.generation
                    && group.members.contains_key(client.member_id.as_str())
            })
    }

    fn leave(&mut self, c: usize) {
        let client = &mut self.clients[c];
        let member = LeavingMember {
            member_id: client.member_id.clone(),
            instance_id: client.instance.clone(),
            reason: None,
        };
        client.joined = None;
        self.room.say(Request::LeaveGroup(LeaveGroup {
            group: client.group.clone(),
            members: vec![member],
        }));
    }

    fn crash(&mut self, c: usize) {
        if let Some((token, _)) = self.clients[c].waits.take() {
            self.room.abandon(token);
        }
        self.clients[c].forget();
    }

    fn stale(&mut self, c: usize, generation: i32) {
        let client = &self.clients[c];
        let (group, member_id) = (client.group.clone(), format!("{}x", client.member_id));
        let joined = JoinGroupResponse {
            error: None,
            generation,
            protocol_type: None,
            protocol: None,
            leader: member_id.clone(),
            skip_assignment: false,
            member_id,
            members: vec![],
        };
        let request = SyncGroup {
            api_version: 4,
            ..sync(&group, &joined, &[("x", "nonsense")])
        };
        let Response::SyncGroup(response) = self.room.say(Request::SyncGroup(request)) else {
            panic!()
        };
        assert_eq!(response.error, Some(GroupError::UnknownMemberId));
    }

    fn is_settled(&self) -> bool {
        ["bill", "ship"].iter().all(|name| {
            let Some(group) = self.room.groups.live.get(*name) else {
                return false;
            };
            let mut clients = self.clients.iter().filter(|c| c.group == *name);
            let are_in = clients.clone().all(|c| {
                c.is_synced
                    && c.joined
                        .as_ref()
                        .is_some_and(|j| j.generation == group.generation())
                    && group.members.contains_key(c.member_id.as_str())
            });
            clients.next().is_some()
                && are_in
                && group.state() == super::GroupState::Stable
                && group.member_count() == self.clients.iter().filter(|c| c.group == *name).count()
        })
    }
}

impl Client {
    /// What its partitions are tied to: the instance outlives the member id.
    fn key<'a>(instance: &'a Option<String>, member_id: &'a str) -> &'a str {
        instance.as_deref().unwrap_or(member_id)
    }

    fn forget(&mut self) {
        self.member_id.clear();
        self.joined = None;
        self.is_synced = false;
    }

    fn join(&self, changed: bool) -> JoinGroup {
        let topics: &[&str] = if changed {
            &["orders", "trucks"]
        } else {
            &["orders"]
        };
        let mut protocols = vec![protocol("range", topics)];
        // Not all of them know it, so the vote may move with who is there.
        if self.api_version % 2 == 1 {
            protocols.insert(0, protocol("robin", topics));
        }
        JoinGroup {
            api_version: self.api_version,
            group: self.group.clone(),
            member_id: self.member_id.clone(),
            instance_id: self.instance.clone(),
            protocols,
            ..joining()
        }
    }

    fn sync(&self) -> SyncGroup {
        let joined = self.joined.as_ref().expect("joined first");
        let leads = joined.leader == joined.member_id && !joined.skip_assignment;
        let assignments = joined.members.iter().filter(|_| leads).map(|m| {
            let text = format!(
                "{}:{}",
                joined.generation,
                Self::key(&m.instance_id, &m.member_id)
            );
            (m.member_id.clone(), Bytes::from(text))
        });
        SyncGroup {
            instance_id: self.instance.clone(),
            assignments: assignments.collect(),
            ..sync(&self.group, joined, &[])
        }
    }

    fn hear_join(&mut self, joined: JoinGroupResponse) {
        match joined.error {
            None => {
                assert!(self.member_id.is_empty() || self.member_id == joined.member_id);
                self.member_id = joined.member_id.clone();
                self.joined = Some(joined);
            }
            Some(GroupError::MemberIdRequired) => {
                assert!(
                    self.member_id.is_empty() && self.instance.is_none() && self.api_version >= 4
                );
                self.member_id = joined.member_id;
            }
            error => self.hear_error(error),
        }
    }

    fn hear_sync(&mut self, synced: &SyncGroupResponse) {
        if synced.error.is_some() {
            return self.hear_error(synced.error);
        }
        let Some(joined) = &self.joined else { return };
        let due = format!(
            "{}:{}",
            joined.generation,
            Self::key(&self.instance, &self.member_id)
        );
        assert_eq!(synced.assignment, Bytes::from(due));
        self.is_synced = true;
    }

    fn hear_error(&mut self, error: Option<GroupError>) {
        match error {
            None => {}
            Some(GroupError::UnknownMemberId | GroupError::FencedInstanceId) => self.forget(),
            Some(GroupError::RebalanceInProgress | GroupError::IllegalGeneration) => {
                self.joined = None;
                self.is_synced = false;
            }
            // "range" suits all, but a group of robins alone has to hear of it first.
            Some(GroupError::InconsistentGroupProtocol) => self.forget(),
            Some(error) => panic!("no reason for {error:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn groups_keep_their_promises_and_settle_in_the_end(
        statics in any::<u8>(),
        versions in proptest::collection::vec(0..10i16, CLIENTS),
        delay in prop_oneof![Just(0), Just(3_000)],
        ops in proptest::collection::vec(op(), 0..120),
    ) {
        let mut world = World::new(statics, &versions, delay);
        for op in ops {
            world.run(op);
        }
        world.room.check_replay();
        // Everyone behaves from here on. The last to give up on somebody who died
        // in a first join takes 5 minutes, a rebalance 1.
        let mut seconds = 0;
        while !world.is_settled() {
            for c in 0..CLIENTS {
                world.run(Op::Proceed(c));
            }
            world.run(Op::Wait(1_000));
            seconds += 1;
            prop_assert!(seconds < 900, "not settled: {:#?}", world.room.groups.live);
        }
        world.room.check_replay();
    }
}
