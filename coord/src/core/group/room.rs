//! Where the tests meet: groups, a clock that only they move, and a record of
//! all that was asked, answered and persisted. After every move the room checks
//! what must always hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use klamm_engine::units::{LeaderEpoch, Nanos, Offset, TimestampMs};

use super::durable::Durable;
use super::member::Member;
use super::subscription::subscription;
use super::timer::Deadline;
use super::{Group, GroupState};
use crate::core::groups::*;

pub struct Room {
    pub groups: Groups,
    pub config: GroupConfig,
    pub now: Now,
    /// Everything persisted since the beginning, over all restarts.
    pub records: Vec<Record>,
    answers: BTreeMap<Token, Response>,
    open: BTreeSet<Token>,
    /// The highest generation each group had in this run of the broker.
    generations: BTreeMap<String, i32>,
    tokens: u64,
}

impl Room {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(adjust: impl FnOnce(&mut GroupConfig)) -> Self {
        let mut config = GroupConfig::with_seed(1);
        adjust(&mut config);
        let now = Now {
            mono: Nanos(5_000_000_000),
            wall: TimestampMs(1_700_000_000_000),
        };
        let mut groups = Groups::new(config.clone());
        groups.resume(now, &mut Output::default());
        Self {
            groups,
            config,
            now,
            records: Vec::new(),
            answers: BTreeMap::new(),
            open: BTreeSet::new(),
            generations: BTreeMap::new(),
            tokens: 0,
        }
    }

    /// Sends a request; the answer may take its time.
    pub fn ask(&mut self, request: Request) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.open.insert(token);
        let mut out = Output::default();
        self.groups.step(token, request, self.now, &mut out);
        self.take(out);
        token
    }

    /// Sends a request that is answered at once.
    pub fn say(&mut self, request: Request) -> Response {
        let token = self.ask(request);
        self.answer(token).expect("an answer at once")
    }

    pub fn answer(&mut self, token: Token) -> Option<Response> {
        self.answers.remove(&token)
    }

    pub fn abandon(&mut self, token: Token) {
        self.groups.abandon(token);
        self.open.remove(&token);
        self.answers.remove(&token);
        self.check();
    }

    /// Lets time pass, and ticks whenever the groups want it.
    pub fn wait_ms(&mut self, ms: u64) {
        let end = self.now.mono.0 + ms * 1_000_000;
        while let Some(next) = self.groups.next_deadline().filter(|next| next.0 <= end) {
            self.move_clock(next.0.max(self.now.mono.0));
            self.tick();
        }
        self.move_clock(end);
    }

    pub fn tick(&mut self) {
        let mut out = Output::default();
        self.groups.tick(self.now, &mut out);
        self.take(out);
    }

    pub fn forget_topic(&mut self, topic: &str) {
        let mut out = Output::default();
        self.groups.forget_topic(topic, self.now, &mut out);
        self.take(out);
    }

    /// The broker stops and starts: connections are gone, and the groups are what
    /// the encoded records say.
    pub fn restart(&mut self) {
        self.restart_from(self.records.clone());
    }

    /// The same from a snapshot.
    pub fn restart_from_snapshot(&mut self) {
        let snapshot = self.groups.snapshot().collect();
        self.restart_from(snapshot);
    }

    fn restart_from(&mut self, records: Vec<Record>) {
        self.config.member_id_seed += 1;
        let mut groups = Groups::new(self.config.clone());
        for record in records {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            groups.replay(&Record::decode(&bytes).expect("what was encoded"));
        }
        assert_eq!(groups.durable(), self.groups.durable());
        self.groups = groups;
        self.open.clear();
        self.answers.clear();
        self.generations.clear();
        let mut out = Output::default();
        self.groups.resume(self.now, &mut out);
        self.take(out);
    }

    fn move_clock(&mut self, mono: u64) {
        let ms = (mono / 1_000_000) as i64 - (self.now.mono.0 / 1_000_000) as i64;
        self.now = Now {
            mono: Nanos(mono),
            wall: TimestampMs(self.now.wall.0 + ms),
        };
    }

    fn take(&mut self, out: Output) {
        for (token, response) in out.send {
            assert!(
                self.open.remove(&token),
                "{token:?} is answered though it does not wait: {response:?}"
            );
            self.answers.insert(token, response);
        }
        for record in &out.persist {
            if let Record::GroupRemoved { group } = record {
                self.generations.remove(group);
            }
        }
        self.records.extend(out.persist);
        self.check();
    }

    /// What holds between any two moves.
    pub fn check(&mut self) {
        let shared = &self.groups.shared;
        assert_eq!(
            shared.parked, self.open,
            "who waits is parked, and nobody else"
        );
        let mut waiting = BTreeSet::new();
        let mut queued = usize::from(self.groups.retention.is_queued());
        for (id, group) in &self.groups.live {
            queued += group.assert_consistent(&mut waiting);
            let durable = shared.durable.groups.get(&**id);
            group.assert_is_as_persisted(durable);
            let highest = self.generations.entry(id.to_string()).or_default();
            assert!(
                group.generation >= *highest,
                "generation {} after {highest}",
                group.generation
            );
            *highest = group.generation;
        }
        self.generations
            .retain(|id, _| self.groups.live.contains_key(id.as_str()));
        assert!(
            self.open.is_subset(&waiting),
            "an open request is one that some member waits for"
        );
        assert_eq!(
            queued,
            shared.timers.entries(),
            "no timer without its owner"
        );
        assert!(
            shared
                .durable
                .groups
                .keys()
                .all(|id| self.groups.live.contains_key(id.as_str()))
        );
    }

    /// Replaying everything from the beginning gives the durable state.
    pub fn check_replay(&self) {
        let mut replayed = Durable::default();
        self.records
            .iter()
            .for_each(|record| replayed.apply(record));
        assert_eq!(&replayed, self.groups.durable());
    }

    // Shorthands

    pub fn join(&mut self, request: JoinGroup) -> JoinGroupResponse {
        let token = self.ask(Request::JoinGroup(request));
        self.joined(token)
    }

    pub fn start_join(&mut self, request: JoinGroup) -> Token {
        self.ask(Request::JoinGroup(request))
    }

    /// Both steps of KIP-394: asks for an id, joins with it, and waits.
    pub fn start_join_fresh(&mut self, request: JoinGroup) -> (Token, String) {
        let first = self.join(request.clone());
        assert_eq!(first.error, Some(GroupError::MemberIdRequired));
        let token = self.start_join(JoinGroup {
            member_id: first.member_id.clone(),
            ..request
        });
        (token, first.member_id)
    }

    pub fn joined(&mut self, token: Token) -> JoinGroupResponse {
        match self.answer(token) {
            Some(Response::JoinGroup(response)) => response,
            other => panic!("no answer to a join: {other:?}"),
        }
    }

    pub fn is_waiting(&self, token: Token) -> bool {
        self.open.contains(&token)
    }

    pub fn start_sync(
        &mut self,
        joined: &JoinGroupResponse,
        assignments: &[(&str, &'static str)],
    ) -> Token {
        self.ask(Request::SyncGroup(sync("bill", joined, assignments)))
    }

    pub fn synced(&mut self, token: Token) -> Result<Bytes, GroupError> {
        match self.answer(token) {
            Some(Response::SyncGroup(SyncGroupResponse {
                error: None,
                assignment,
                ..
            })) => Ok(assignment),
            Some(Response::SyncGroup(SyncGroupResponse {
                error: Some(error), ..
            })) => Err(error),
            other => panic!("no answer to a sync: {other:?}"),
        }
    }

    pub fn heartbeat(&mut self, joined: &JoinGroupResponse) -> Option<GroupError> {
        self.beat(&joined.member_id, joined.generation, None)
    }

    pub fn beat(
        &mut self,
        member: &str,
        generation: i32,
        instance: Option<&str>,
    ) -> Option<GroupError> {
        let request = Heartbeat {
            group: "bill".into(),
            generation,
            member_id: member.into(),
            instance_id: instance.map(str::to_owned),
        };
        match self.say(Request::Heartbeat(request)) {
            Response::Heartbeat(response) => response.error,
            other => panic!("not a heartbeat's answer: {other:?}"),
        }
    }

    pub fn leave(&mut self, members: &[(&str, Option<&str>)]) -> Vec<Option<GroupError>> {
        let members = members.iter().map(|(id, instance)| LeavingMember {
            member_id: id.to_string(),
            instance_id: instance.map(str::to_owned),
            reason: Some("the story says so".into()),
        });
        match self.say(Request::LeaveGroup(LeaveGroup {
            group: "bill".into(),
            members: members.collect(),
        })) {
            Response::LeaveGroup(LeaveGroupResponse {
                error: None,
                members,
            }) => members.into_iter().map(|m| m.error).collect(),
            other => panic!("not a leave's answer: {other:?}"),
        }
    }

    /// Of partition 0 of `topic`.
    pub fn commit(
        &mut self,
        generation: i32,
        member: &str,
        topic: &str,
        offset: i64,
    ) -> Option<GroupError> {
        let request = commit("bill", generation, member, topic, &[(0, offset)]);
        match self.say(Request::OffsetCommit(request)) {
            Response::OffsetCommit(OffsetCommitResponse { topics }) => topics[0].partitions[0].1,
            other => panic!("not a commit's answer: {other:?}"),
        }
    }

    /// -1: nothing committed.
    pub fn committed(&mut self, topic: &str, partition: i32) -> i64 {
        let topics = Some(vec![(topic.to_owned(), vec![partition])]);
        let request = OffsetFetch {
            groups: vec![OffsetFetchGroup {
                group: "bill".into(),
                topics,
            }],
        };
        match self.say(Request::OffsetFetch(request)) {
            Response::OffsetFetch(OffsetFetchResponse { groups }) => {
                groups[0].topics[0].partitions[0].offset.0
            }
            other => panic!("not a fetch's answer: {other:?}"),
        }
    }

    pub fn describe(&mut self, group: &str) -> DescribedGroup {
        let request = DescribeGroups {
            api_version: 5,
            groups: vec![group.into()],
        };
        match self.say(Request::DescribeGroups(request)) {
            Response::DescribeGroups(mut response) => response.groups.remove(0),
            other => panic!("not a description: {other:?}"),
        }
    }

    pub fn state(&mut self) -> &'static str {
        self.describe("bill").state
    }

    /// A stable group "bill" of as many members; the leader comes first.
    pub fn stable(&mut self, count: usize) -> Vec<JoinGroupResponse> {
        let tokens: Vec<Token> = (0..count)
            .map(|_| self.start_join_fresh(joining()).0)
            .collect();
        self.wait_ms(self.config.initial_rebalance_delay_ms as u64 * 4);
        let mut joined: Vec<_> = tokens.into_iter().map(|t| self.joined(t)).collect();
        joined.sort_by_key(|j| j.member_id != j.leader);
        self.settle(&joined);
        joined
    }

    /// Everyone syncs, the leader first; each is assigned its own id.
    pub fn settle(&mut self, joined: &[JoinGroupResponse]) {
        let leader = joined
            .iter()
            .find(|j| j.member_id == j.leader)
            .expect("a leader");
        let assignments = leader
            .members
            .iter()
            .map(|m| (m.member_id.clone(), Bytes::from(m.member_id.clone())))
            .collect();
        let request = SyncGroup {
            assignments,
            ..sync("bill", leader, &[])
        };
        let token = self.ask(Request::SyncGroup(request));
        assert_eq!(
            self.synced(token),
            Ok(Bytes::from(leader.member_id.clone()))
        );
        for follower in joined.iter().filter(|j| j.member_id != j.leader) {
            let token = self.start_sync(follower, &[]);
            assert_eq!(
                self.synced(token),
                Ok(Bytes::from(follower.member_id.clone()))
            );
        }
    }
}

/// A consumer "app" of the group "bill" that reads "orders".
pub fn joining() -> JoinGroup {
    JoinGroup {
        api_version: 9,
        group: "bill".into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        member_id: String::new(),
        instance_id: None,
        client_id: "app".into(),
        client_host: "/127.0.0.1".into(),
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", &["orders"])],
        reason: None,
    }
}

pub fn rejoining(joined: &JoinGroupResponse) -> JoinGroup {
    JoinGroup {
        member_id: joined.member_id.clone(),
        ..joining()
    }
}

pub fn protocol(name: &str, topics: &[&str]) -> Protocol {
    Protocol {
        name: name.into(),
        metadata: subscription(topics),
    }
}

pub fn sync(
    group: &str,
    joined: &JoinGroupResponse,
    assignments: &[(&str, &'static str)],
) -> SyncGroup {
    SyncGroup {
        api_version: 5,
        group: group.into(),
        generation: joined.generation,
        member_id: joined.member_id.clone(),
        instance_id: None,
        protocol_type: joined.protocol_type.clone(),
        protocol: joined.protocol.clone(),
        assignments: assignments
            .iter()
            .map(|(id, a)| (id.to_string(), Bytes::from_static(a.as_bytes())))
            .collect(),
    }
}

pub fn commit(
    group: &str,
    generation: i32,
    member: &str,
    topic: &str,
    offsets: &[(i32, i64)],
) -> OffsetCommit {
    let partitions = offsets
        .iter()
        .map(|(partition, offset)| OffsetCommitPartition {
            partition: *partition,
            offset: Offset(*offset),
            leader_epoch: LeaderEpoch(-1),
            metadata: None,
        });
    OffsetCommit {
        api_version: 9,
        group: group.into(),
        generation,
        member_id: member.into(),
        instance_id: None,
        retention_time_ms: -1,
        topics: vec![OffsetCommitTopic {
            topic: topic.into(),
            partitions: partitions.collect(),
        }],
    }
}

impl Group {
    /// Adds who waits to `waiting`; returns how many timers are queued.
    fn assert_consistent(&self, waiting: &mut BTreeSet<Token>) -> usize {
        let members = || self.members.values();
        let joining = members().filter(|m| m.awaiting_join.is_some()).count();
        let syncing = members().filter(|m| m.awaiting_sync.is_some()).count();
        assert_eq!(joining, self.awaiting_join);
        for token in members()
            .flat_map(|m| [m.awaiting_join, m.awaiting_sync])
            .flatten()
        {
            assert!(waiting.insert(token), "{token:?} waits twice");
        }

        let is_static = |m: &&Member| m.instance_id.is_some();
        assert_eq!(
            members().filter(is_static).count(),
            self.static_members.len()
        );
        for (instance, id) in &self.static_members {
            assert_eq!(self.members[id].instance_id.as_ref(), Some(instance));
        }
        assert_eq!(self.leader.is_some(), !self.members.is_empty());
        assert!(
            self.leader.iter().all(|id| self.members.contains_key(id)),
            "the leader is a member"
        );
        let mut supported: BTreeMap<String, usize> = BTreeMap::new();
        for protocol in members().flat_map(|m| &m.protocols) {
            *supported.entry(protocol.name.clone()).or_default() += 1;
        }
        assert_eq!(supported, self.supported);
        if !self.members.is_empty() {
            assert!(
                supported.values().any(|n| *n == self.members.len()),
                "some protocol suits all"
            );
        }

        for (id, member) in &self.members {
            assert_eq!(*id, member.id);
            assert!(!self.pending_join.contains_key(id), "pending, or a member");
            assert!(
                member.is_excused() || member.session.is_armed(),
                "member {id} would never expire"
            );
        }
        assert!(self.pending_join.values().all(Deadline::is_armed));
        assert!(
            self.pending_sync
                .iter()
                .all(|id| self.members.contains_key(id))
        );
        assert_eq!(self.sync_deadline.is_armed(), !self.pending_sync.is_empty());
        assert_eq!(
            self.join_deadline.is_armed(),
            self.state == GroupState::PreparingRebalance
        );
        match self.state {
            GroupState::Empty => assert!(self.members.is_empty()),
            GroupState::PreparingRebalance => {
                assert_eq!((syncing, self.pending_sync.len()), (0, 0));
                assert!(
                    self.initial.is_some() || !self.all_have_joined(),
                    "nothing left to wait for"
                );
            }
            GroupState::CompletingRebalance => {
                assert_eq!(joining, 0);
                assert_eq!(syncing + self.pending_sync.len(), self.members.len());
                let leader = &self.members[self.leader.as_ref().expect("checked")];
                assert!(
                    leader.awaiting_sync.is_none(),
                    "the leader's sync ends this state"
                );
            }
            GroupState::Stable => assert_eq!((joining, syncing), (0, 0)),
            GroupState::Dead => panic!("a dead group is alive"),
        }
        let timers = [&self.join_deadline, &self.sync_deadline].into_iter();
        let timers = timers
            .chain(members().map(|m| &m.session))
            .chain(self.pending_join.values());
        timers.filter(|d| d.is_queued()).count()
    }

    /// Between two rebalances, a restart would find exactly this group.
    fn assert_is_as_persisted(&self, durable: Option<&Arc<GroupRecord>>) {
        match (self.state, durable) {
            (GroupState::Stable, Some(record)) => {
                assert_eq!(record.generation, self.generation);
                assert_eq!(record.leader.as_deref(), self.leader.as_deref());
                assert_eq!(record.protocol, self.protocol);
                assert_eq!(
                    record.members,
                    self.members
                        .values()
                        .map(Member::to_record)
                        .collect::<Vec<_>>()
                );
            }
            (GroupState::Stable, None) => panic!("stable, but nowhere written"),
            (GroupState::Empty, Some(record)) => {
                assert_eq!(
                    (record.generation, record.members.len()),
                    (self.generation, 0)
                );
            }
            (GroupState::Empty, None) => assert_eq!(self.generation, 0),
            (_, record) => assert!(record.is_none_or(|r| r.generation <= self.generation)),
        }
    }
}
