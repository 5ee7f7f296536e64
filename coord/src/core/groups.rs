//! Consumer groups and committed offsets: the whole of a group coordinator, as
//! a state machine without I/O, clock or chance.
//!
//! ```text
//!                 Request, Now                     Now
//!                      │                            │
//!                    step                         tick  <── next_deadline
//!                      │                            │
//!   Group (live) <─────┴──────────────┬─────────────┘
//!                                     │
//!                    Output:  persist │ Record* ──> changelog ──> replay, resume
//!                             send    │ (Token, Response)*              at a start
//! ```
//!
//! The caller's part of the contract:
//!
//! - It persists `persist` in order. An answer may be sent when everything that
//!   was persisted *until then*, by this step and by earlier ones, is synced:
//!   an answer may rest on what an earlier step changed.
//! - A token belongs to one request until its answer comes out, which may be in
//!   a later `step` or `tick`. `abandon` says that nobody waits for it any more.
//! - After `new`: `replay` for each record of snapshot and changelog, then
//!   `resume` once, also when there was nothing to replay; then `step`.
//! - `tick` at `next_deadline` or soon after. Both clocks come in with each call;
//!   the monotonic one must not go back.
//!
//! A group can be named by its offsets alone (a *simple* group: its consumers
//! assign partitions themselves); such a group lives in `offsets` and has an
//! empty `Group` beside it, so that both kinds answer alike.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use klamm_engine::units::{LeaderEpoch, Nanos, Offset, TimestampMs};

pub use super::group::config::GroupConfig;
use super::group::context::{Context, Shared};
use super::group::durable::Durable;
pub use super::group::message::*;
pub use super::group::record::{BadRecord, GroupRecord, MemberRecord, Record, TopicOffsets};
use super::group::timer::{Deadline, TimerKey};
use super::group::{Group, GroupState, commit, join, sync};
use super::offsets::CommittedOffset;

/// How many groups one tick looks through for what has expired: at 10,000 groups
/// of 100 offsets, some ms each instead of one pause of some hundred.
const GROUPS_PER_RETENTION_CHECK: usize = 256;

/// The two clocks, read once by whoever calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Timeouts run on this one.
    pub mono: Nanos,
    /// Commit times and retention are told in this one; it may jump.
    pub wall: TimestampMs,
}

/// Who waits for an answer. Given by the caller, never interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What a step wants done, in this order: persist, then send.
#[derive(Debug, Default)]
pub struct Output {
    pub persist: Vec<Record>,
    pub send: Vec<(Token, Response)>,
}

#[derive(Debug)]
pub struct Groups {
    pub(super) live: BTreeMap<Arc<str>, Group>,
    pub(super) shared: Shared,
    pub(super) retention: Deadline,
    /// Where the present look through all groups has got to.
    retention_done: Option<Arc<str>>,
    has_resumed: bool,
}

impl Groups {
    pub fn new(config: GroupConfig) -> Self {
        Self {
            live: BTreeMap::new(),
            shared: Shared::new(config),
            retention: Deadline::default(),
            retention_done: None,
            has_resumed: false,
        }
    }

    /// At a start, before `resume`: one record of the snapshot or the changelog.
    pub fn replay(&mut self, record: &Record) {
        assert!(!self.has_resumed, "replay comes before resume");
        self.shared.durable.apply(record);
    }

    /// A group's offsets that were found elsewhere, at any time.
    pub fn adopt(&mut self, record: &Record, now: Now) {
        self.shared.durable.apply(record);
        if let Record::OffsetsCommitted { group, .. } = record {
            let id: Arc<str> = group.as_str().into();
            self.live
                .entry(id.clone())
                .or_insert_with(|| Group::new(id, now.wall));
        }
    }

    /// Forgets a group, and with it whoever waits for an answer of it.
    pub fn let_go(&mut self, group: &str) {
        self.shared.durable.apply(&Record::GroupRemoved {
            group: group.to_owned(),
        });
        self.live.remove(group);
        self.shared.timers.forget(group);
    }

    /// At a start, after the last `replay`: groups come to life, and every member
    /// has a whole session timeout to show up.
    pub fn resume(&mut self, now: Now, out: &mut Output) {
        assert!(!self.has_resumed, "resume comes once");
        self.has_resumed = true;
        let groups: Vec<_> = self
            .durable()
            .groups
            .iter()
            .map(|(id, state)| (id.clone(), Arc::clone(state)))
            .collect();
        let max_size = self.shared.config.max_size;
        for (id, state) in groups {
            let id: Arc<str> = id.into();
            let mut ctx = self.shared.at(now, out);
            let mut group = Group::load(id.clone(), &state, &mut ctx);
            group.shrink_if_over(max_size, &mut ctx);
            self.live.insert(id, group);
        }
        let simple: Vec<Arc<str>> = self
            .durable()
            .offsets
            .iter()
            .map(|(id, _)| id.as_str().into())
            .collect();
        for id in simple {
            self.live
                .entry(id.clone())
                .or_insert_with(|| Group::new(id, now.wall));
        }
        self.arm_retention(now, self.retention_interval());
    }

    pub fn step(&mut self, token: Token, request: Request, now: Now, out: &mut Output) {
        assert!(self.has_resumed, "resume comes before the first step");
        let response = match request {
            Request::JoinGroup(request) => return self.join_group(token, request, now, out),
            Request::SyncGroup(request) => return self.sync_group(token, request, now, out),
            Request::Heartbeat(request) => Response::Heartbeat(self.heartbeat(&request, now, out)),
            Request::LeaveGroup(request) => {
                Response::LeaveGroup(self.leave_group(request, now, out))
            }
            Request::OffsetCommit(request) => {
                Response::OffsetCommit(self.offset_commit(request, now, out))
            }
            Request::OffsetFetch(request) => Response::OffsetFetch(self.offset_fetch(request)),
            Request::ListGroups(request) => Response::ListGroups(self.list_groups(&request)),
            Request::DescribeGroups(request) => {
                Response::DescribeGroups(self.describe_groups(request))
            }
            Request::DeleteGroups(request) => {
                Response::DeleteGroups(self.delete_groups(request, now, out))
            }
            Request::OffsetDelete(request) => {
                Response::OffsetDelete(self.offset_delete(request, now, out))
            }
        };
        out.send.push((token, response));
    }

    /// Fires what is due.
    pub fn tick(&mut self, now: Now, out: &mut Output) {
        let mut retention_came = false;
        while let Some(key) = self.shared.timers.pop(now.mono) {
            match key {
                TimerKey::Retention => {
                    let timers = &mut self.shared.timers;
                    // Not here: a check that has more to do is due again at once.
                    retention_came |= self
                        .retention
                        .came_up(TimerKey::Retention, now.mono, timers);
                }
                TimerKey::Join(id) => self.fire(&id, now, out, |group, ctx| {
                    group.join_deadline_came(now.mono, ctx)
                }),
                TimerKey::Sync(id) => self.fire(&id, now, out, |group, ctx| {
                    group.sync_deadline_came(now.mono, ctx)
                }),
                TimerKey::Session(id, member) => {
                    self.fire(&id, now, out, |group, ctx| {
                        group.session_came(&member, now.mono, ctx)
                    });
                }
            }
        }
        if retention_came {
            self.check_retention(now, out);
        }
    }

    /// No later than the first moment at which a `tick` has something to do; it
    /// may find nothing there, and know better then.
    pub fn next_deadline(&self) -> Option<Nanos> {
        self.shared.timers.next()
    }

    /// What a restart would find.
    pub fn durable(&self) -> &Durable {
        &self.shared.durable
    }

    /// Records that build the durable state from nothing.
    pub fn snapshot(&self) -> impl Iterator<Item = Record> + '_ {
        self.shared.durable.snapshot()
    }

    /// The topic was deleted, and what was read of it no longer means anything.
    pub fn forget_topic(&mut self, topic: &str, now: Now, out: &mut Output) {
        if self.durable().offsets.has_topic(topic) {
            self.shared.at(now, out).persist(Record::TopicForgotten {
                topic: topic.to_owned(),
            });
        }
    }

    /// Nobody waits for this answer any more. A member stays one until its
    /// session ends, as in Kafka: its client may be back in time.
    pub fn abandon(&mut self, token: Token) {
        self.shared.parked.remove(&token);
    }

    fn fire(
        &mut self,
        id: &str,
        now: Now,
        out: &mut Output,
        event: impl FnOnce(&mut Group, &mut Context),
    ) {
        let group = self
            .live
            .get_mut(id)
            .expect("a group that dies takes its timers along");
        event(group, &mut self.shared.at(now, out));
        self.drop_if_void(id, now, out);
    }

    /// A group of which nothing is durable exists only for those who are in it.
    fn drop_if_void(&mut self, id: &str, now: Now, out: &mut Output) {
        if self.live.get(id).is_some_and(Group::is_deserted) && !self.shared.durable.knows(id) {
            self.drop_group(id, now, out);
        }
    }

    fn drop_group(&mut self, id: &str, now: Now, out: &mut Output) {
        if let Some(group) = self.live.remove(id) {
            group.die(&mut self.shared.at(now, out));
        }
    }

    // Membership

    fn join_group(&mut self, token: Token, request: JoinGroup, now: Now, out: &mut Output) {
        let config = &self.shared.config;
        if let Err(error) = join::check(
            &request,
            config.min_session_timeout_ms,
            config.max_session_timeout_ms,
        ) {
            out.send
                .push((token, join::refused(&request.member_id, error)));
            return;
        }
        if !request.member_id.is_empty() && !self.live.contains_key(request.group.as_str()) {
            out.send.push((
                token,
                join::refused(&request.member_id, GroupError::UnknownMemberId),
            ));
            return;
        }
        let id: Arc<str> = request.group.as_str().into();
        let group = self
            .live
            .entry(id.clone())
            .or_insert_with(|| Group::new(id.clone(), now.wall));
        group.join(
            token,
            join::normalized(request),
            &mut self.shared.at(now, out),
        );
        self.drop_if_void(&id, now, out);
    }

    fn sync_group(&mut self, token: Token, request: SyncGroup, now: Now, out: &mut Output) {
        let error = match sync::check(&request) {
            Err(error) => error,
            Ok(()) => match self.live.get_mut(request.group.as_str()) {
                Some(group) => return group.sync(token, request, &mut self.shared.at(now, out)),
                None => GroupError::UnknownMemberId,
            },
        };
        out.send.push((token, sync::refused(error)));
    }

    fn heartbeat(&mut self, request: &Heartbeat, now: Now, out: &mut Output) -> HeartbeatResponse {
        let verdict = if request.group.is_empty() {
            Err(GroupError::InvalidGroupId)
        } else {
            match self.live.get_mut(request.group.as_str()) {
                Some(group) => group.heartbeat(request, &mut self.shared.at(now, out)),
                None => Err(GroupError::UnknownMemberId),
            }
        };
        HeartbeatResponse {
            error: verdict.err(),
        }
    }

    fn leave_group(
        &mut self,
        request: LeaveGroup,
        now: Now,
        out: &mut Output,
    ) -> LeaveGroupResponse {
        if request.group.is_empty() {
            return LeaveGroupResponse {
                error: Some(GroupError::InvalidGroupId),
                members: Vec::new(),
            };
        }
        let members = match self.live.get_mut(request.group.as_str()) {
            Some(group) => group.leave(request.members, &mut self.shared.at(now, out)),
            None => {
                let unknown = |m: LeavingMember| LeftMember {
                    member_id: m.member_id,
                    instance_id: m.instance_id,
                    error: Some(GroupError::UnknownMemberId),
                };
                request.members.into_iter().map(unknown).collect()
            }
        };
        self.drop_if_void(&request.group, now, out);
        LeaveGroupResponse {
            error: None,
            members,
        }
    }

    // Offsets

    /// An empty group id is allowed here, as in Kafka: simple consumers of old use it.
    fn offset_commit(
        &mut self,
        request: OffsetCommit,
        now: Now,
        out: &mut Output,
    ) -> OffsetCommitResponse {
        let refusal = match self.live.get_mut(request.group.as_str()) {
            Some(group) => group
                .admit_commit(&request, &mut self.shared.at(now, out))
                .err(),
            None => commit::check_unfounded(&request),
        };
        if let Some(error) = refusal {
            let refused = |t: OffsetCommitTopic| TopicErrors {
                topic: t.topic,
                partitions: t
                    .partitions
                    .iter()
                    .map(|p| (p.partition, Some(error)))
                    .collect(),
            };
            return OffsetCommitResponse {
                topics: request.topics.into_iter().map(refused).collect(),
            };
        }
        let expires_at = (request.retention_time_ms >= 0)
            .then(|| TimestampMs(now.wall.0.saturating_add(request.retention_time_ms)));
        let max = self.shared.config.offset_metadata_max_bytes;
        let mut answered = Vec::with_capacity(request.topics.len());
        let mut topics = Vec::with_capacity(request.topics.len());
        for OffsetCommitTopic { topic, partitions } in request.topics {
            let mut verdicts = Vec::with_capacity(partitions.len());
            let mut committed = Vec::with_capacity(partitions.len());
            for p in partitions {
                let metadata = p.metadata.unwrap_or_default();
                if is_longer(&metadata, max) {
                    verdicts.push((p.partition, Some(GroupError::OffsetMetadataTooLarge)));
                    continue;
                }
                verdicts.push((p.partition, None));
                let offset = CommittedOffset {
                    offset: p.offset,
                    leader_epoch: p.leader_epoch,
                    metadata,
                    at: now.wall,
                    expires_at,
                };
                committed.push((p.partition, offset));
            }
            answered.push(TopicErrors {
                topic: topic.clone(),
                partitions: verdicts,
            });
            if !committed.is_empty() {
                topics.push(TopicOffsets {
                    topic,
                    partitions: committed,
                });
            }
        }
        if !topics.is_empty() {
            if !self.live.contains_key(request.group.as_str()) {
                let id: Arc<str> = request.group.as_str().into();
                self.live.insert(id.clone(), Group::new(id, now.wall));
            }
            self.shared.at(now, out).persist(Record::OffsetsCommitted {
                group: request.group,
                topics,
            });
        }
        OffsetCommitResponse { topics: answered }
    }

    /// What was never committed, or of a group that is not there, is no error.
    fn offset_fetch(&self, request: OffsetFetch) -> OffsetFetchResponse {
        let offsets = &self.shared.durable.offsets;
        let groups = request
            .groups
            .into_iter()
            .map(|OffsetFetchGroup { group, topics }| {
                let topics = match topics {
                    Some(topics) => topics
                        .into_iter()
                        .map(|(topic, partitions)| {
                            let known = offsets.group(&group).and_then(|g| g.get(&topic));
                            let partitions = partitions
                                .into_iter()
                                .map(|p| fetched(p, known.and_then(|k| k.get(&p))));
                            FetchedTopic {
                                partitions: partitions.collect(),
                                topic,
                            }
                        })
                        .collect(),
                    None => offsets
                        .group(&group)
                        .into_iter()
                        .flatten()
                        .map(|(topic, partitions)| FetchedTopic {
                            topic: topic.clone(),
                            partitions: partitions
                                .iter()
                                .map(|(p, c)| fetched(*p, Some(c)))
                                .collect(),
                        })
                        .collect(),
                };
                FetchedGroup { group, topics }
            });
        OffsetFetchResponse {
            groups: groups.collect(),
        }
    }

    fn offset_delete(
        &mut self,
        request: OffsetDelete,
        now: Now,
        out: &mut Output,
    ) -> OffsetDeleteResponse {
        let refused = |error| OffsetDeleteResponse {
            error: Some(error),
            topics: Vec::new(),
        };
        if request.group.is_empty() {
            return refused(GroupError::InvalidGroupId);
        }
        let Some(group) = self.live.get(request.group.as_str()) else {
            return refused(GroupError::GroupIdNotFound);
        };
        if let Err(error) = group.admit_offset_delete() {
            return refused(error);
        }
        let mut removed = Vec::new();
        let mut answered = Vec::with_capacity(request.topics.len());
        for (topic, partitions) in request.topics {
            let error = group.admit_topic_delete(&topic).err();
            if error.is_none() {
                let offsets = &self.shared.durable.offsets;
                let is_there = |p: &&i32| offsets.get(&request.group, &topic, **p).is_some();
                let there: Vec<i32> = partitions.iter().filter(is_there).copied().collect();
                if !there.is_empty() {
                    removed.push((topic.clone(), there));
                }
            }
            let partitions = partitions.into_iter().map(|p| (p, error)).collect();
            answered.push(TopicErrors { topic, partitions });
        }
        if !removed.is_empty() {
            self.shared.at(now, out).persist(Record::OffsetsRemoved {
                group: request.group,
                topics: removed,
            });
        }
        OffsetDeleteResponse {
            error: None,
            topics: answered,
        }
    }

    // Administration

    fn list_groups(&self, request: &ListGroups) -> ListGroupsResponse {
        let matches = |filters: &[String], name: &str| {
            filters.is_empty()
                || filters
                    .iter()
                    .any(|filter| filter.trim().eq_ignore_ascii_case(name))
        };
        let groups =
            self.live.values().map(Group::listed).filter(|g| {
                matches(&request.states, g.state) && matches(&request.types, g.group_type)
            });
        ListGroupsResponse {
            groups: groups.collect(),
        }
    }

    fn describe_groups(&self, request: DescribeGroups) -> DescribeGroupsResponse {
        let missing = (request.api_version >= 6).then_some(GroupError::GroupIdNotFound);
        let groups = request
            .groups
            .into_iter()
            .map(|id| match self.live.get(id.as_str()) {
                Some(group) => group.described(),
                None => DescribedGroup {
                    error: missing,
                    group: id,
                    state: GroupState::Dead.name(),
                    protocol_type: String::new(),
                    protocol: String::new(),
                    members: Vec::new(),
                },
            });
        DescribeGroupsResponse {
            groups: groups.collect(),
        }
    }

    fn delete_groups(
        &mut self,
        request: DeleteGroups,
        now: Now,
        out: &mut Output,
    ) -> DeleteGroupsResponse {
        let mut answered = Vec::with_capacity(request.groups.len());
        for id in request.groups {
            let verdict = match self.live.get(id.as_str()) {
                Some(group) => group.admit_delete(),
                None => Err(GroupError::GroupIdNotFound),
            };
            if verdict.is_ok() {
                self.remove_group(&id, now, out);
            }
            answered.push((id, verdict.err()));
        }
        DeleteGroupsResponse { groups: answered }
    }

    fn remove_group(&mut self, id: &str, now: Now, out: &mut Output) {
        if self.shared.durable.knows(id) {
            self.shared.at(now, out).persist(Record::GroupRemoved {
                group: id.to_owned(),
            });
        }
        self.drop_group(id, now, out);
    }

    // Retention

    fn retention_interval(&self) -> u64 {
        u64::try_from(self.shared.config.offsets_retention_check_interval_ms)
            .unwrap_or(0)
            .max(1)
    }

    fn arm_retention(&mut self, now: Now, in_ms: u64) {
        let due = Nanos(now.mono.0.saturating_add(in_ms.saturating_mul(1_000_000)));
        self.shared
            .timers
            .arm(&mut self.retention, TimerKey::Retention, due);
    }

    /// Looks through some groups; goes on at the next tick, or starts over after
    /// the interval.
    fn check_retention(&mut self, now: Now, out: &mut Output) {
        let from = self
            .retention_done
            .take()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let some: Vec<Arc<str>> = self
            .live
            .range((from, Bound::Unbounded))
            .map(|(id, _)| id.clone())
            .take(GROUPS_PER_RETENTION_CHECK)
            .collect();
        for id in &some {
            self.expire(id, now, out);
        }
        if some.len() == GROUPS_PER_RETENTION_CHECK {
            self.retention_done = some.last().cloned();
            self.arm_retention(now, 0);
        } else {
            self.arm_retention(now, self.retention_interval());
        }
    }

    fn expire(&mut self, id: &str, now: Now, out: &mut Output) {
        let group = &self.live[id];
        if let Some(base) = group.retention_base() {
            let retention_ms = self
                .shared
                .config
                .offsets_retention_minutes
                .saturating_mul(60_000);
            let kept = |topic: &str| group.keeps_offsets_of(topic);
            let topics = self
                .durable()
                .offsets
                .expired(id, base, retention_ms, now.wall, kept);
            if !topics.is_empty() {
                self.shared.at(now, out).persist(Record::OffsetsRemoved {
                    group: id.to_owned(),
                    topics,
                });
            }
        }
        // Without members and offsets nothing is left to remember.
        if self.live[id].is_deserted() && self.durable().offsets.group(id).is_none() {
            self.remove_group(id, now, out);
        }
    }
}

/// Kafka counts UTF-16 units, which are never more than the bytes.
fn is_longer(metadata: &str, max: usize) -> bool {
    metadata.len() > max && metadata.encode_utf16().count() > max
}

fn fetched(partition: i32, committed: Option<&CommittedOffset>) -> FetchedOffset {
    match committed {
        Some(c) => FetchedOffset {
            partition,
            offset: c.offset,
            leader_epoch: c.leader_epoch,
            metadata: c.metadata.clone(),
        },
        None => FetchedOffset {
            partition,
            offset: Offset(-1),
            leader_epoch: LeaderEpoch(-1),
            metadata: String::new(),
        },
    }
}
