//! A group with many partitions, rebalanced.
//!
//! ```text
//!   members 0 .. 9:   JoinGroup ... all joined ...  SyncGroup (waits for the leader's)
//!   the leader:                                     SyncGroup with 10 x 1,000 partitions
//!                     |<------------ rebalance ------------ ->| the last one has its own
//!                                                   |<- sync->| the leader's answer
//! ```
//!
//! Ten topics of 1,000 partitions, which are there: a broker has two files open for each,
//! so where a process may have fewer than 20,000 there are fewer topics, and the report
//! says so. In every rebalance all partitions change their owner. The first generation, which waits for members to come
//! (group.initial.rebalance.delay.ms), does not count. Klamm only:
//! with Apache ZooKeeper it is the consumers that write their own nodes.

use super::comparison::{Comparison, measure};
use super::contender::Contender;
use super::{Run, failed, ms};
use crate::process::Cpu;
use crate::wire::Connection;
use crate::zookeeper::{self, Session, TIMEOUT_MAX};
use crate::{Outcome, broker, cores, topics};
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
const FILES_A_PARTITION: u64 = 2;
const OTHER_FILES: u64 = 500;
const PARTITIONS_EACH: i32 = 1000;
const MEMBERS: usize = 10;
const REBALANCE_IN_PROGRESS: i16 = 27;
const GROUP: &str = "rebalanced";

pub fn take(run: &Run, to: &mut Comparison) -> Outcome {
    let klamm = |contender: &&Contender| matches!(contender, Contender::Klamm(_));
    let Some(contender) = run.contenders.iter().find(klamm) else {
        return Ok(());
    };
    let (server, _) = run.start(contender, "rebalance", run.apart)?;
    let kafka = server.kafka.expect("Klamm speaks Kafka's protocol");
    let mut connection = broker::ask(kafka).map_err(failed("the broker"))?;
    let topics = topics_that_can_be_open(to)?;
    for topic in 0..topics {
        let name = topic_name(topic);
        topics::create(&mut connection, [(name.as_str(), PARTITIONS_EACH)])?;
    }
    topics::await_group(&mut connection, GROUP)?;

    let mut members = members(kafka, topics)?;
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
    // A new session: that of the start has not pinged while the topics were made.
    let mut session = Session::open(server.address, TIMEOUT_MAX).map_err(failed("connect"))?;
    let owned = owned(&mut session, topics)?;

    let who = contender.who();
    let partitions = topics * usize::try_from(PARTITIONS_EACH).map_err(|e| e.to_string())?;
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

fn topics_that_can_be_open(to: &mut Comparison) -> Outcome<usize> {
    let files = cores::raise_open_files()?;
    let a_topic = FILES_A_PARTITION * u64::from(PARTITIONS_EACH.unsigned_abs());
    let room = files.saturating_sub(OTHER_FILES) / a_topic;
    let topics = usize::try_from(room).unwrap_or(TOPICS).min(TOPICS);
    if topics == 0 {
        return Err(format!(
            "a topic of {PARTITIONS_EACH} partitions needs {a_topic} open files, and a process may \
             have {files} here: raise the hard limit (ulimit -Hn)"
        ));
    }
    if topics < TOPICS {
        to.warn(format!(
            "rebalance with {topics} topics instead of {TOPICS}: a broker may have {files} open \
             files here, and needs {FILES_A_PARTITION} a partition"
        ));
    }
    Ok(topics)
}

fn topic_name(n: usize) -> String {
    format!("rebalanced-{n}")
}

/// How many partitions have an owner in the tree.
fn owned(session: &mut Session, topics: usize) -> Outcome<i32> {
    let mut owned = 0;
    for topic in 0..topics {
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
    generation: i32,
    topics: usize,
}

fn members(kafka: SocketAddr, topics: usize) -> Outcome<Vec<Member>> {
    let member = |_| {
        Ok(Member {
            connection: broker::ask(kafka).map_err(failed("the broker"))?,
            id: StrBytes::default(),
            generation: -1,
            topics,
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
                    member.next_generation()
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
    /// Until it has an assignment of a generation that it has not seen. A follower that
    /// joins again before the leader does is given what it has, and then told to rejoin.
    fn next_generation(&mut self) -> Outcome<Option<Duration>> {
        loop {
            if let Some((generation, leader)) = self.join_and_sync()?
                && generation > self.generation
            {
                self.generation = generation;
                return Ok(leader);
            }
        }
    }

    /// The generation, and how long SyncGroup took, of the leader; None where the group
    /// has begun to rebalance anew.
    fn join_and_sync(&mut self) -> Outcome<Option<(i32, Option<Duration>)>> {
        let topics = (0..self.topics).map(|n| StrBytes::from_string(topic_name(n)));
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
            // Another range for each in every generation: all partitions move.
            let turn = usize::try_from(joined.generation_id).map_err(|e| e.to_string())?;
            for (n, member) in joined.members.iter().enumerate() {
                let n = (n + turn) % joined.members.len();
                let assignment = SyncGroupRequestAssignment::default()
                    .with_member_id(member.member_id.clone())
                    .with_assignment(share(n, joined.members.len(), self.topics)?);
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
            REBALANCE_IN_PROGRESS => Ok(None),
            0 if synced.assignment.is_empty() => {
                Err("SyncGroup: a member was assigned nothing".to_owned())
            }
            0 => Ok(Some((joined.generation_id, leads.then_some(took)))),
            code => Err(format!("SyncGroup answers with error {code}")),
        }
    }
}

/// Of each topic a range, as the range assignor has it.
fn share(n: usize, members: usize, topics: usize) -> Outcome<Bytes> {
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
    let assigned = (0..topics).map(topic).collect();
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
