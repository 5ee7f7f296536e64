//! One consumer group, as Kafka's classic protocol has it.
//!
//! ```text
//!               first member joins            every member joined, or their time is up
//!   Empty ───────────────────────> Preparing ────────────────────> Completing
//!     ^                            Rebalance <──────────────────── Rebalance
//!     │    nobody is left           │  ^  ^    join, leave, expiry     │
//!     └─────────────────────────────┘  │  │                            │ the leader
//!                                      │  └────────── Stable <─────────┘ synced
//!                                      │   join, leave, expiry
//!   any ──> Dead: deleted or expired, and out of the map
//! ```
//!
//! A member joins with the protocols it can follow; when all have joined, the
//! group enters its next generation, the most voted protocol is selected, and
//! the leader is told of everyone. The leader's SyncGroup brings everyone's
//! assignment. Heartbeats keep sessions; a session that ends, or a member that
//! leaves or changes, starts over. Only Empty and Stable are ever persisted: a
//! rebalance that a restart interrupts is done again by the clients.
//!
//! ```text
//!  join.rs       JoinGroup: the way in            (KIP-345, KIP-394, KIP-814)
//!  rebalance.rs  from one generation to the next
//!  sync.rs       SyncGroup, Heartbeat
//!  leave.rs      LeaveGroup, and sessions that end
//!  commit.rs     who may commit, fetch and delete offsets
//! ```
//!
//! Semantics as in `ClassicGroup.java` and `GroupMetadataManager.java`; where
//! Kafka leaves a request without an answer, we give one. A `Group` moves by
//! whole requests and timers; between them, `assert_consistent` holds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_engine::units::TimestampMs;

pub mod commit;
pub mod config;
pub mod context;
pub mod durable;
pub mod join;
pub mod leave;
pub mod member;
pub mod member_id;
pub mod message;
pub mod rebalance;
pub mod record;
pub mod subscription;
pub mod sync;
pub mod timer;

#[cfg(test)]
mod model;
#[cfg(test)]
mod room;
#[cfg(test)]
mod stories;

use context::Context;
use member::Member;
use message::{DescribedGroup, DescribedMember, GroupError, ListedGroup, Protocol};
use rebalance::InitialDelay;
use record::{GroupRecord, MemberRecord, Record};
use subscription::{CONSUMER_PROTOCOL_TYPE, read_topics};
use timer::{Deadline, TimerKey};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl GroupState {
    /// As the wire has it.
    pub fn name(self) -> &'static str {
        match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        }
    }

    fn may_follow(self, before: GroupState) -> bool {
        use GroupState::*;
        match self {
            Empty | CompletingRebalance => before == PreparingRebalance,
            PreparingRebalance => matches!(before, Empty | CompletingRebalance | Stable),
            Stable => before == CompletingRebalance,
            Dead => true,
        }
    }
}

#[derive(Debug)]
pub struct Group {
    id: Arc<str>,
    state: GroupState,
    /// Wall clock, when the group came into `state`.
    since: TimestampMs,
    /// Counts rebalances; never falls.
    generation: i32,
    /// None: a simple group, which only has offsets.
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<Arc<str>>,
    members: BTreeMap<Arc<str>, Member>,
    /// Instance id to member id (KIP-345).
    static_members: BTreeMap<String, Arc<str>>,
    /// Were told MEMBER_ID_REQUIRED and have not come back yet (KIP-394).
    pending_join: BTreeMap<Arc<str>, Deadline>,
    /// Of this generation, who has not sent SyncGroup yet.
    pending_sync: BTreeSet<Arc<str>>,
    /// How many members wait in JoinGroup.
    awaiting_join: usize,
    /// By how many members each protocol is supported.
    supported: BTreeMap<String, usize>,
    /// None: not known, because these are no consumers or their bytes are strange.
    subscribed: Option<BTreeSet<String>>,
    /// While a new group gathers its first members.
    initial: Option<InitialDelay>,
    join_deadline: Deadline,
    sync_deadline: Deadline,
}

impl Group {
    pub fn new(id: Arc<str>, since: TimestampMs) -> Self {
        Self {
            id,
            state: GroupState::Empty,
            since,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeMap::new(),
            pending_sync: BTreeSet::new(),
            awaiting_join: 0,
            supported: BTreeMap::new(),
            subscribed: None,
            initial: None,
            join_deadline: Deadline::default(),
            sync_deadline: Deadline::default(),
        }
    }

    /// As a restart finds it; the members' sessions start anew.
    pub fn load(id: Arc<str>, record: &GroupRecord, ctx: &mut Context) -> Self {
        let mut group = Group::new(id, record.since);
        group.generation = record.generation;
        group.protocol_type = record.protocol_type.clone();
        group.protocol = record.protocol.clone();
        for member in &record.members {
            group.add_member(Member::load(member));
            group.restart_session(&member.member_id, ctx);
        }
        group.leader = match &record.leader {
            Some(leader) => group
                .members
                .get_key_value(leader.as_str())
                .map(|(id, _)| id.clone()),
            None => None,
        };
        if !group.members.is_empty() {
            group.state = GroupState::Stable;
            group.leader = group
                .leader
                .or_else(|| group.members.keys().next().cloned());
        }
        group.subscribed = group.read_subscriptions();
        group
    }

    pub fn state(&self) -> GroupState {
        self.state
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Nobody is in it and nobody is about to be.
    pub fn is_deserted(&self) -> bool {
        self.state == GroupState::Empty && self.pending_join.is_empty()
    }

    fn move_to(&mut self, state: GroupState, ctx: &Context) {
        assert!(
            state.may_follow(self.state),
            "group {}: {:?} after {:?}",
            self.id,
            state,
            self.state
        );
        self.state = state;
        self.since = ctx.now.wall;
    }

    // Members

    fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    fn all_have_joined(&self) -> bool {
        self.members.len() == self.awaiting_join && self.pending_join.is_empty()
    }

    /// The longest that any member asked for.
    fn rebalance_timeout_ms(&self) -> i32 {
        self.members
            .values()
            .map(|m| m.rebalance_timeout_ms)
            .max()
            .unwrap_or(0)
    }

    fn add_member(&mut self, member: Member) {
        let id = member.id.clone();
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        count_up(&mut self.supported, &member.protocols);
        let before = self.members.insert(id, member);
        assert!(before.is_none(), "group {} has a member twice", self.id);
    }

    /// Takes the member out, and tells it if it waits for something.
    fn remove_member(&mut self, id: &str, why: GroupError, ctx: &mut Context) {
        let Some(mut member) = self.members.remove(id) else {
            return;
        };
        self.answer_join_with_error(&mut member, "", why, ctx);
        member.answer_sync_with_error(why, ctx);
        ctx.timers().cancel(
            &mut member.session,
            TimerKey::Session(self.id.clone(), id.into()),
        );
        count_down(&mut self.supported, &member.protocols);
        if let Some(instance) = &member.instance_id {
            self.static_members.remove(instance);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_sync.remove(id);
    }

    fn answer_join_with_error(
        &mut self,
        member: &mut Member,
        id: &str,
        why: GroupError,
        ctx: &mut Context,
    ) {
        if let Some(token) = member.awaiting_join.take() {
            self.awaiting_join -= 1;
            ctx.answer_parked(token, join::refused(id, why));
        }
    }

    fn remove_pending(&mut self, id: &str, ctx: &mut Context) -> bool {
        let Some(mut deadline) = self.pending_join.remove(id) else {
            return false;
        };
        ctx.timers()
            .cancel(&mut deadline, TimerKey::Session(self.id.clone(), id.into()));
        true
    }

    /// A sign of life: the member's session starts anew.
    fn restart_session(&mut self, id: &str, ctx: &mut Context) {
        let Some(member) = self.members.get_mut(id) else {
            return;
        };
        let due = ctx.after_ms(member.session_timeout_ms);
        let key = TimerKey::Session(self.id.clone(), member.id.clone());
        ctx.timers().arm(&mut member.session, key, due);
    }

    /// Whether the request is of this member, in its present incarnation.
    fn check_member(&self, id: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if &**current != id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) {
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }

    // Protocols

    fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols
                .iter()
                .any(|p| self.supported.get(&p.name) == Some(&self.members.len()))
    }

    /// Every member votes for the protocol it likes best of those that all
    /// support. A draw goes to what the leader likes best, else to the first name.
    fn select_protocol(&self) -> Option<String> {
        let all = self.members.len();
        let vote = |member: &Member| {
            member
                .protocols
                .iter()
                .find(|p| self.supported.get(&p.name) == Some(&all))
                .map(|p| p.name.clone())
        };
        let mut votes: BTreeMap<String, usize> = BTreeMap::new();
        for name in self.members.values().filter_map(vote) {
            *votes.entry(name).or_default() += 1;
        }
        let most = *votes.values().max()?;
        let liked = self
            .leader
            .as_ref()
            .and_then(|leader| self.members.get(leader))
            .and_then(vote);
        match liked {
            Some(name) if votes.get(&name) == Some(&most) => Some(name),
            _ => votes
                .into_iter()
                .find(|(_, n)| *n == most)
                .map(|(name, _)| name),
        }
    }

    fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    fn read_subscriptions(&self) -> Option<BTreeSet<String>> {
        if !self.is_of_consumers() {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            read_topics(member.metadata(self.protocol.as_deref()?), &mut topics)?;
        }
        Some(topics)
    }

    /// When it is not known, a group of consumers might be subscribed to anything.
    fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_of_consumers(),
        }
    }

    // Seen from outside

    fn persist(&self, ctx: &mut Context) {
        let members = self.members.values().map(Member::to_record);
        let state = GroupRecord {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().map(str::to_owned),
            since: self.since,
            members: members.collect::<Vec<MemberRecord>>(),
        };
        ctx.persist(Record::GroupState {
            group: self.id.as_ref().to_owned(),
            state: Arc::new(state),
        });
    }

    pub fn listed(&self) -> ListedGroup {
        ListedGroup {
            group: self.id.as_ref().to_owned(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state.name(),
            group_type: "classic",
        }
    }

    pub fn described(&self) -> DescribedGroup {
        let is_stable = self.state == GroupState::Stable;
        let protocol = self.protocol.as_deref().filter(|_| is_stable);
        let members = self.members.values().map(|member| DescribedMember {
            member_id: member.id.as_ref().to_owned(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol
                .map(|p| member.metadata_bytes(p))
                .unwrap_or_default(),
            assignment: member.assignment.clone(),
        });
        DescribedGroup {
            error: None,
            group: self.id.as_ref().to_owned(),
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default().to_owned(),
            members: members.collect(),
        }
    }

    /// The group is deleted or has expired: nothing of it may fire any more.
    pub fn die(mut self, ctx: &mut Context) {
        assert!(
            self.members.is_empty(),
            "group {} dies with members in it",
            self.id
        );
        let pending: Vec<Arc<str>> = self.pending_join.keys().cloned().collect();
        for id in pending {
            self.remove_pending(&id, ctx);
        }
        self.cancel_join_deadline(ctx);
        self.cancel_sync_deadline(ctx);
        self.move_to(GroupState::Dead, ctx);
    }
}

fn count_up(supported: &mut BTreeMap<String, usize>, protocols: &[Protocol]) {
    for protocol in protocols {
        *supported.entry(protocol.name.clone()).or_default() += 1;
    }
}

fn count_down(supported: &mut BTreeMap<String, usize>, protocols: &[Protocol]) {
    for protocol in protocols {
        if let Some(count) = supported.get_mut(&protocol.name) {
            *count -= 1;
            if *count == 0 {
                supported.remove(&protocol.name);
            }
        }
    }
}
