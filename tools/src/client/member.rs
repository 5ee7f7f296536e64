//! A member of a classic consumer group.
//!
//! ```text
//!          JoinGroup            SyncGroup
//!  (out) ──────────> (joined) ──────────> (stable) ── heartbeats, own connection
//!    ^   member id,    the leader          |  ^
//!    |   generation    shares out          |  └─ the coordinator moved: found again
//!    |                                     |
//!    └── LeaveGroup, or sent away <────────┴──> REBALANCE_IN_PROGRESS: join again
//! ```
//!
//! Eager: before joining again the member gives up what it has, so its owner commits
//! first. Heartbeats go on while the owner prints or sleeps; they end with the owner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError as R;
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition as AssignedTopic;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ApiKey, ConsumerProtocolAssignment, ConsumerProtocolSubscription, GroupId, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::assign::Assignor;
use super::error::{ClientError, Result};
use super::groups::{Committer, decode_assignment};
use super::offsets::TopicPartition;
use super::{Client, Connection, Retry, pause};

const PROTOCOL_TYPE: StrBytes = StrBytes::from_static_str("consumer");
/// Three chances before a session of 45 s (Kafka's default) ends.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(3);
/// How long the others wait for a member that prints slowly.
const REBALANCE_TIMEOUT: Duration = Duration::from_secs(60);
const BACKOFF: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct Settings {
    pub group: String,
    pub topics: Vec<String>,
    pub instance_id: Option<String>,
    pub session_timeout: Duration,
    /// In order of preference.
    pub assignors: Vec<Assignor>,
}

/// What the heartbeats found out.
#[derive(Debug)]
pub enum Pulse {
    Steady,
    /// Commit, then join again.
    Rebalance,
    /// Another owner has the partitions already; a commit would be refused.
    SentAway(ClientError),
    Failed(ClientError),
}

enum Beat {
    Rebalance,
    SentAway(ClientError),
    /// The connection broke or the coordinator moved.
    Moved(ClientError),
    Failed(ClientError),
}

struct Heart {
    beats: Receiver<Beat>,
    /// Dropping it ends the thread.
    _stop: Sender<()>,
}

pub struct Member {
    settings: Settings,
    member_id: String,
    generation: i32,
    heart: Option<Heart>,
    /// Of the topics that all members subscribed to, if this member leads.
    counts: Option<BTreeMap<String, i32>>,
    counts_checked: Instant,
    moved_since: Option<Instant>,
}

fn text(s: &str) -> StrBytes {
    StrBytes::from_string(s.to_string())
}

fn ms(d: Duration) -> i32 {
    i32::try_from(d.as_millis()).unwrap_or(i32::MAX)
}

impl Member {
    pub fn new(settings: Settings) -> Member {
        Member {
            settings,
            member_id: String::new(),
            generation: -1,
            heart: None,
            counts: None,
            counts_checked: Instant::now(),
            moved_since: None,
        }
    }

    pub fn committer(&self) -> Committer {
        Committer {
            member_id: self.member_id.clone(),
            generation: self.generation,
            instance_id: self.settings.instance_id.clone(),
        }
    }

    pub fn id(&self) -> &str {
        &self.member_id
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Joins, again and again while others come and go, until there is an assignment.
    pub fn join(&mut self, client: &mut Client) -> Result<Vec<TopicPartition>> {
        self.heart = None;
        let mut trouble_since = None;
        let mut ids_given = 0;
        loop {
            let error = match self.join_once(client) {
                Ok(assignment) => return Ok(assignment),
                Err(e) => e,
            };
            match error.code().and_then(R::try_from_code) {
                // The broker has given the id to use (KIP-394); join_once took it.
                Some(R::MemberIdRequired) if ids_given < 5 => {
                    ids_given += 1;
                    continue;
                }
                Some(R::RebalanceInProgress) => {
                    trouble_since = None;
                }
                Some(R::UnknownMemberId | R::IllegalGeneration) => self.forget_identity(),
                _ if error.passes() => {
                    let since = *trouble_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > client.timeout() {
                        return Err(error);
                    }
                    client.refresh();
                }
                _ => return Err(error),
            }
            pause(BACKOFF)?;
        }
    }

    fn forget_identity(&mut self) {
        self.member_id.clear();
        self.generation = -1;
    }

    fn join_once(&mut self, client: &mut Client) -> Result<Vec<TopicPartition>> {
        let coordinator = client.coordinator(&self.settings.group)?;
        // Of its own: it may be held until the others have come.
        let mut connection = client.open(coordinator)?;
        let joined = self.join_group(&mut connection)?;
        let assignments = if joined.leader == *self.member_id && !joined.skip_assignment {
            self.lead(client, &joined)?
        } else {
            self.counts = None;
            Vec::new()
        };
        let assignment = self.sync_group(&mut connection, &joined, assignments)?;
        self.start_heart(client, coordinator)?;
        Ok(assignment)
    }

    fn join_group(&mut self, connection: &mut Connection) -> Result<JoinGroupResponse> {
        let s = &self.settings;
        let subscription = subscription(&s.topics);
        let hold = REBALANCE_TIMEOUT.max(s.session_timeout);
        let answer = connection.call_held::<JoinGroupRequest>(9, hold, |version| {
            let mut request = JoinGroupRequest::default()
                .with_group_id(GroupId(text(&s.group)))
                .with_session_timeout_ms(ms(s.session_timeout))
                .with_member_id(text(&self.member_id))
                .with_protocol_type(PROTOCOL_TYPE)
                .with_protocols(
                    s.assignors
                        .iter()
                        .map(|a| {
                            JoinGroupRequestProtocol::default()
                                .with_name(StrBytes::from_static_str(a.name()))
                                .with_metadata(subscription.clone())
                        })
                        .collect(),
                );
            if version >= 1 {
                request = request.with_rebalance_timeout_ms(ms(REBALANCE_TIMEOUT));
            }
            if version >= 5 {
                request = request.with_group_instance_id(s.instance_id.as_deref().map(text));
            }
            request
        })?;
        if answer.error_code == R::MemberIdRequired.code() {
            self.member_id = answer.member_id.to_string();
        }
        if answer.error_code != 0 {
            return Err(connection.refused(
                ApiKey::JoinGroup,
                answer.error_code,
                format!("group {}", self.settings.group),
                None,
            ));
        }
        self.member_id = answer.member_id.to_string();
        self.generation = answer.generation_id;
        Ok(answer)
    }

    /// The leader's part: who gets what.
    fn lead(
        &mut self,
        client: &mut Client,
        joined: &JoinGroupResponse,
    ) -> Result<Vec<SyncGroupRequestAssignment>> {
        let chosen = joined.protocol_name.as_deref().unwrap_or_default();
        let assignor = Assignor::named(chosen).ok_or_else(|| {
            ClientError::Missing(format!(
                "group {} chose the assignor `{chosen}`, which this member never offered",
                self.settings.group
            ))
        })?;
        let mut members = BTreeMap::new();
        for m in &joined.members {
            let topics = decode_subscription(m.metadata.clone()).ok_or_else(|| {
                ClientError::Missing(format!(
                    "group {}: member {} sent a subscription that cannot be read; is it a \
                     consumer?",
                    self.settings.group, m.member_id
                ))
            })?;
            members.insert(m.member_id.to_string(), topics);
        }
        let counts = partition_counts(client, members.values())?;
        let shares = assignor.assign(&members, &counts);
        self.counts = Some(counts);
        self.counts_checked = Instant::now();
        Ok(shares
            .into_iter()
            .map(|(member, share)| {
                SyncGroupRequestAssignment::default()
                    .with_member_id(text(&member))
                    .with_assignment(encode_assignment(&share))
            })
            .collect())
    }

    fn sync_group(
        &mut self,
        connection: &mut Connection,
        joined: &JoinGroupResponse,
        assignments: Vec<SyncGroupRequestAssignment>,
    ) -> Result<Vec<TopicPartition>> {
        let s = &self.settings;
        let answer = connection.call_held::<SyncGroupRequest>(5, REBALANCE_TIMEOUT, |version| {
            let mut request = SyncGroupRequest::default()
                .with_group_id(GroupId(text(&s.group)))
                .with_generation_id(self.generation)
                .with_member_id(text(&self.member_id))
                .with_assignments(assignments);
            if version >= 3 {
                request = request.with_group_instance_id(s.instance_id.as_deref().map(text));
            }
            if version >= 5 {
                request = request
                    .with_protocol_type(Some(PROTOCOL_TYPE))
                    .with_protocol_name(joined.protocol_name.clone());
            }
            request
        })?;
        let subject = format!("group {}", s.group);
        if answer.error_code != 0 {
            return Err(connection.refused(ApiKey::SyncGroup, answer.error_code, subject, None));
        }
        // A member may get nothing, and an old broker says so with no bytes at all.
        if answer.assignment.is_empty() {
            return Ok(Vec::new());
        }
        decode_assignment(answer.assignment).ok_or_else(|| {
            ClientError::Missing(format!(
                "{subject}: the leader's assignment cannot be read; is it a consumer group?"
            ))
        })
    }

    fn start_heart(&mut self, client: &Client, coordinator: i32) -> Result<()> {
        let mut connection = client.open(coordinator)?;
        let (stop, stopped) = mpsc::channel::<()>();
        let (tell, beats) = mpsc::channel();
        let (group, who) = (self.settings.group.clone(), self.committer());
        let every = HEARTBEAT_EVERY.min(self.settings.session_timeout / 3);
        thread::spawn(move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(every) {
                if let Err(beat) = heartbeat(&mut connection, &group, &who) {
                    // Where the owner is gone there is nobody to tell.
                    let _ = tell.send(beat);
                    return;
                }
            }
        });
        self.heart = Some(Heart { beats, _stop: stop });
        Ok(())
    }

    /// To be asked often.
    pub fn pulse(&mut self, client: &mut Client) -> Pulse {
        if self.leader_sees_other_counts(client) {
            return Pulse::Rebalance;
        }
        let beat = match &self.heart {
            Some(heart) => match heart.beats.try_recv() {
                Ok(beat) => beat,
                Err(_) => return Pulse::Steady,
            },
            None => return Pulse::Rebalance,
        };
        match beat {
            Beat::Rebalance => Pulse::Rebalance,
            Beat::SentAway(e) => {
                self.forget_identity();
                Pulse::SentAway(e)
            }
            Beat::Failed(e) => Pulse::Failed(e),
            Beat::Moved(e) => self.find_coordinator_again(client, e),
        }
    }

    /// The session goes on at the coordinator's new place, if it is found in time.
    fn find_coordinator_again(&mut self, client: &mut Client, error: ClientError) -> Pulse {
        let since = *self.moved_since.get_or_insert_with(Instant::now);
        if since.elapsed() > self.settings.session_timeout {
            return Pulse::Failed(error);
        }
        client.refresh();
        let found = client.coordinator(&self.settings.group);
        match found.and_then(|id| self.start_heart(client, id)) {
            Ok(()) => {
                self.moved_since = None;
                Pulse::Steady
            }
            Err(ClientError::Interrupted) => Pulse::Steady,
            Err(e) if e.passes() => {
                // Asked again at the next pulse.
                let (tell, beats) = mpsc::channel();
                let (stop, _) = mpsc::channel();
                let _ = tell.send(Beat::Moved(e));
                self.heart = Some(Heart { beats, _stop: stop });
                let _ = pause(BACKOFF);
                Pulse::Steady
            }
            Err(e) => Pulse::Failed(e),
        }
    }

    /// Topics grow; it is the leader who has to notice.
    fn leader_sees_other_counts(&mut self, client: &mut Client) -> bool {
        const EVERY: Duration = Duration::from_secs(30);
        let Some(before) = &self.counts else {
            return false;
        };
        if self.counts_checked.elapsed() < EVERY {
            return false;
        }
        self.counts_checked = Instant::now();
        let topics: BTreeSet<String> = before.keys().cloned().collect();
        // A cluster that does not answer now will be asked again.
        partition_counts(client, [&topics].into_iter()).is_ok_and(|now| now != *before)
    }

    /// Tells the coordinator, so that the others need not wait for the session's end.
    /// A static member stays known and is left alone.
    pub fn leave(&mut self, client: &mut Client) -> Result<()> {
        self.heart = None;
        if self.member_id.is_empty() || self.settings.instance_id.is_some() {
            return Ok(());
        }
        let left = client.retrying(Retry::Freely, |client| self.leave_once(client));
        self.forget_identity();
        left
    }

    fn leave_once(&self, client: &mut Client) -> Result<()> {
        let coordinator = client.coordinator(&self.settings.group)?;
        let connection = client.broker(coordinator)?;
        let (group, member) = (text(&self.settings.group), text(&self.member_id));
        let answer = connection.call::<LeaveGroupRequest>(5, |version| {
            let request = LeaveGroupRequest::default().with_group_id(GroupId(group));
            if version >= 3 {
                request.with_members(vec![MemberIdentity::default().with_member_id(member)])
            } else {
                request.with_member_id(member)
            }
        })?;
        let code = answer
            .members
            .first()
            .map_or(answer.error_code, |m| m.error_code.max(answer.error_code));
        // Sent away in the meantime is as good as gone.
        if code == 0 || code == R::UnknownMemberId.code() {
            return Ok(());
        }
        Err(connection.refused(
            ApiKey::LeaveGroup,
            code,
            format!("group {}", self.settings.group),
            None,
        ))
    }
}

fn heartbeat(
    connection: &mut Connection,
    group: &str,
    who: &Committer,
) -> std::result::Result<(), Beat> {
    let answer = connection.call::<HeartbeatRequest>(4, |version| {
        HeartbeatRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id(who.generation)
            .with_member_id(text(&who.member_id))
            .with_group_instance_id(
                who.instance_id
                    .as_deref()
                    .filter(|_| version >= 3)
                    .map(text),
            )
    });
    let code = match answer {
        Ok(answer) => answer.error_code,
        // At Ctrl-C the owner ends in order, and needs no more heartbeats.
        Err(e @ (ClientError::Interrupted | ClientError::TimedOut { .. })) => {
            return Err(Beat::Moved(e));
        }
        Err(e) if e.passes() => return Err(Beat::Moved(e)),
        Err(e) => return Err(Beat::Failed(e)),
    };
    let refused = || connection.refused(ApiKey::Heartbeat, code, format!("group {group}"), None);
    match R::try_from_code(code) {
        None => Ok(()),
        Some(R::RebalanceInProgress) => Err(Beat::Rebalance),
        Some(R::UnknownMemberId | R::IllegalGeneration) => Err(Beat::SentAway(refused())),
        Some(R::CoordinatorNotAvailable | R::NotCoordinator | R::CoordinatorLoadInProgress) => {
            Err(Beat::Moved(refused()))
        }
        Some(_) => Err(Beat::Failed(refused())),
    }
}

/// Topics that are not there count as none.
fn partition_counts<'a>(
    client: &mut Client,
    subscriptions: impl Iterator<Item = &'a BTreeSet<String>>,
) -> Result<BTreeMap<String, i32>> {
    let topics: BTreeSet<String> = subscriptions.flatten().cloned().collect();
    let topics: Vec<String> = topics.into_iter().collect();
    if topics.is_empty() {
        return Ok(BTreeMap::new());
    }
    Ok(client
        .topics(Some(&topics), false)?
        .into_iter()
        .filter_map(|(name, topic)| Some((name, topic.ok()?.partitions.len() as i32)))
        .collect())
}

/// The consumer protocol's version stands in front of its structs. 0 says all that
/// an eager member has to say.
fn versioned(message: &impl Encodable) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    message
        .encode(&mut bytes, 0)
        .expect("topic names came through the protocol before");
    bytes.freeze()
}

fn subscription(topics: &[String]) -> Bytes {
    versioned(
        &ConsumerProtocolSubscription::default()
            .with_topics(topics.iter().map(|t| text(t)).collect()),
    )
}

fn decode_subscription(mut bytes: Bytes) -> Option<BTreeSet<String>> {
    let version = i16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
    let mut body = bytes.split_off(2);
    // A newer version keeps the older fields in front.
    let s = ConsumerProtocolSubscription::decode(&mut body, version.clamp(0, 3)).ok()?;
    Some(s.topics.iter().map(ToString::to_string).collect())
}

fn encode_assignment(share: &[TopicPartition]) -> Bytes {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in share {
        topics.entry(topic).or_default().push(*index);
    }
    versioned(
        &ConsumerProtocolAssignment::default().with_assigned_partitions(
            topics
                .into_iter()
                .map(|(topic, partitions)| {
                    AssignedTopic::default()
                        .with_topic(TopicName(text(topic)))
                        .with_partitions(partitions)
                })
                .collect(),
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_leader_writes_members_can_read() {
        let share = vec![
            ("a".to_string(), 0),
            ("a".to_string(), 2),
            ("b".to_string(), 1),
        ];
        assert_eq!(decode_assignment(encode_assignment(&share)).unwrap(), share);
        assert_eq!(
            decode_assignment(encode_assignment(&[])).unwrap(),
            Vec::new()
        );
        assert!(decode_assignment(Bytes::from_static(&[0])).is_none());
    }

    #[test]
    fn subscriptions_read_back_and_garbage_does_not() {
        let topics = ["x".to_string(), "y".to_string()];
        let read = decode_subscription(subscription(&topics)).unwrap();
        assert_eq!(read.into_iter().collect::<Vec<_>>(), topics);
        assert!(decode_subscription(Bytes::new()).is_none());
        assert!(decode_subscription(Bytes::from_static(&[0, 0, 0, 0, 0, 9])).is_none());
    }
}
