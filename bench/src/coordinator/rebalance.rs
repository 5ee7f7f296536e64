//! A group with many partitions, rebalanced.
//!
//! ```text
//!   members 0 .. 9:   JoinGroup ... all joined ...  SyncGroup (waits for the leader's)
//!   the leader:                                     SyncGroup with 10 x 1,000 partitions
//!                     |<------------ rebalance ------------ ->| the last one has its own
//!                                                   |<- sync->| the leader's answer
//! ```
//!
//! Ten topics of 1,000 partitions, which are there. The first generation, which waits
//! for members to come (group.initial.rebalance.delay.ms), does not count. Klamm only:
//! with Apache ZooKeeper it is the consumers that write their own nodes.

use super::comparison::{Comparison, measure};
use super::contender::Contender;
use super::{Run, failed, ms};
use crate::process::Cpu;
use crate::wire::Connection;
use crate::zookeeper::{self, Session};
use crate::{Outcome, broker, topics};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::consumer_protocol_assignment::TopicPartition;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, GroupId, JoinGroupRequest,
    SyncGroupRequest, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

const TOPICS: usize = 10;
const PARTITIONS_EACH: i32 = 1000;
const MEMBERS: usize = 10;
const GROUP: &str = "rebalanced";

pub fn take(run: &Run, to: &mut Comparison) -> Outcome {
    let klamm = |contender: &&Contender| matches!(contender, Contender::Klamm(_));
    let Some(contender) = run.contenders.iter().find(klamm) else {
        return Ok(());
    };
    let (server, mut session) = run.start(contender, "rebalance", run.apart)?;
    let kafka = server.kafka.expect("Klamm speaks Kafka's protocol");
    let mut connection = broker::ask(kafka).map_err(failed("the broker"))?;
    let names: Vec<String> = (0..TOPICS).map(topic_name).collect();
    for name in &names {
        topics::create(&mut connection, [(name.as_str(), PARTITIONS_EACH)])?;
    }
    topics::await_group(&mut connection, GROUP)?;

    let mut members = members(kafka)?;
    generation(&mut members)?;
    let pid = server.server.pid();
    let (mut rebalance, mut sync) = (Vec::new(), Vec::new());
    let before = Cpu::of(pid)?;
    for _ in 0..run.args.repeats {
        let (whole, leader) = generation(&mut members)?;
        rebalance.push(whole);
        sync.push(leader);
    }
    let used = Cpu::of(pid)? - before;
    let owned = owned(&mut session)?;

    let who = contender.who();
    let partitions = TOPICS * usize::try_from(PARTITIONS_EACH).map_err(|e| e.to_string())?;
    let whole = measure(
        "rebalance",
        format!("rebalance, {MEMBERS} members, {partitions} partitions"),
        "ms",
    );
    rebalance
        .into_iter()
        .for_each(|time| to.add(who, &whole, ms(time)));
    let leader = measure("rebalance_sync", "  of that, the leader's SyncGroup", "ms");
    sync.into_iter()
        .for_each(|time| to.add(who, &leader, ms(time)));
    let cpu = measure("rebalance_cpu", "  server's CPU for each", "ms");
    let each = 1000.0 * used.total_s() / f64::from(run.args.repeats);
    to.add(who, &cpu, each);
    let nodes = measure("rebalance_owners", "  owners then in the tree", "");
    to.add(who, &nodes, f64::from(owned));
    server.stop()
}

fn topic_name(n: usize) -> String {
    format!("rebalanced-{n}")
}

/// How many partitions have an owner in the tree.
fn owned(session: &mut Session) -> Outcome<i32> {
    let mut owned = 0;
    for topic in 0..TOPICS {
        let path = format!("/consumers/{GROUP}/owners/{}", topic_name(topic));
        let answer = session
            .ask(zookeeper::children(&path))
            .map_err(failed("getChildren"))?;
        match (answer.error, answer.record.first_chunk()) {
            (0, Some(&count)) => owned += i32::from_be_bytes(count),
            (zookeeper::NO_NODE, _) => {}
            (error, _) => return Err(format!("getChildren of {path}: error {error}")),
        }
    }
    Ok(owned)
}

struct Member {
    connection: Connection,
    id: StrBytes,
}

fn members(kafka: SocketAddr) -> Outcome<Vec<Member>> {
    let member = |_| {
        Ok(Member {
            connection: broker::ask(kafka).map_err(failed("the broker"))?,
            id: StrBytes::default(),
        })
    };
    (0..MEMBERS).map(member).collect()
}

/// All members join and sync, at once: until the last has its assignment, and the
/// leader's own SyncGroup.
fn generation(members: &mut [Member]) -> Outcome<(Duration, Duration)> {
    let together = Barrier::new(members.len() + 1);
    thread::scope(|scope| {
        let joining: Vec<_> = members
            .iter_mut()
            .map(|member| {
                scope.spawn(|| {
                    together.wait();
                    member.join_and_sync()
                })
            })
            .collect();
        together.wait();
        let began = Instant::now();
        let mut leader = None;
        for member in joining {
            let sync = member
                .join()
                .map_err(|_| "a member panicked".to_owned())??;
            leader = leader.or(sync);
        }
        let leader = leader.ok_or("no member was made the leader")?;
        Ok((began.elapsed(), leader))
    })
}

impl Member {
    /// How long SyncGroup took, of the leader.
    fn join_and_sync(&mut self) -> Outcome<Option<Duration>> {
        let topics = (0..TOPICS).map(|n| StrBytes::from_string(topic_name(n)));
        let subscription = ConsumerProtocolSubscription::default().with_topics(topics.collect());
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_static_str("range"))
            .with_metadata(versioned(&subscription)?);
        let join = JoinGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str(GROUP)))
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_member_id(self.id.clone())
            .with_protocol_type(StrBytes::from_static_str("consumer"))
            .with_protocols(vec![protocol]);
        // The last version that gives a newcomer its id and takes it in at once.
        let joined = self
            .connection
            .call(3, &join)
            .map_err(failed("JoinGroup"))?;
        if joined.error_code != 0 {
            return Err(format!(
                "JoinGroup answers with error {}",
                joined.error_code
            ));
        }
        self.id = joined.member_id.clone();
        let leads = joined.leader == joined.member_id;
        let mut assignments = Vec::new();
        if leads {
            for (n, member) in joined.members.iter().enumerate() {
                let assignment = SyncGroupRequestAssignment::default()
                    .with_member_id(member.member_id.clone())
                    .with_assignment(share(n, joined.members.len())?);
                assignments.push(assignment);
            }
        }
        let sync = SyncGroupRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str(GROUP)))
            .with_generation_id(joined.generation_id)
            .with_member_id(self.id.clone())
            .with_assignments(assignments);
        let began = Instant::now();
        let synced = self
            .connection
            .call(2, &sync)
            .map_err(failed("SyncGroup"))?;
        let took = began.elapsed();
        match synced.error_code {
            0 if synced.assignment.is_empty() => {
                Err("SyncGroup: a member was assigned nothing".to_owned())
            }
            0 => Ok(leads.then_some(took)),
            code => Err(format!("SyncGroup answers with error {code}")),
        }
    }
}

/// Of each topic a range, as the range assignor has it.
fn share(n: usize, members: usize) -> Outcome<Bytes> {
    let bound = |n: usize| -> Outcome<i32> {
        let n = i32::try_from(n).map_err(|e| e.to_string())?;
        let members = i32::try_from(members).map_err(|e| e.to_string())?;
        Ok(PARTITIONS_EACH * n / members)
    };
    let (from, to) = (bound(n)?, bound(n + 1)?);
    let topic = |topic| {
        TopicPartition::default()
            .with_topic(TopicName(StrBytes::from_string(topic_name(topic))))
            .with_partitions((from..to).collect())
    };
    let assigned = (0..TOPICS).map(topic).collect();
    versioned(&ConsumerProtocolAssignment::default().with_assigned_partitions(assigned))
}

/// The consumers' own messages carry their version in front.
fn versioned(message: &impl Encodable) -> Outcome<Bytes> {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    message
        .encode(&mut bytes, 0)
        .map_err(|e| format!("the consumers' protocol: {e}"))?;
    Ok(bytes.freeze())
}
