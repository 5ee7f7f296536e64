//! Kafka's OffsetCommit, through the broker to its coordinator.
//!
//! ```text
//!   connection n:  OffsetCommit(group n, one partition, offset)  x 64 under way
//!                  OffsetCommit(group n, 100 partitions)         x 64 under way
//! ```
//!
//! Committed by hand, by no member of the group (generation -1), as tools and simple
//! consumers do. Requests are built once; the offset and the correlation id are written
//! anew, so that no commit says what the last one said. Klamm only: Apache ZooKeeper
//! has had no part in Kafka's offsets since 0.8.2.

use super::comparison::{Comparison, measure};
use super::contender::Contender;
use super::rate::{Rate, timed};
use super::{Run, failed};
use crate::lanes::{Lanes, Load};
use crate::report::Aim;
use crate::{Outcome, broker, topics, wire};
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetCommitResponse, TopicName};
use kafka_protocol::protocol::{Decodable, StrBytes};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

const TOPIC: &str = "offsets";
const PARTITIONS: i32 = 100;
const CONNECTIONS: usize = 8;
const OUTSTANDING: usize = 64;
const VERSION: i16 = 7;

const A_SECOND_AIM: f64 = 100_000.0;

/// Where a request of Kafka has its correlation id: behind length, key and version.
const CORRELATION_AT: usize = 8;

pub fn take(run: &Run, to: &mut Comparison) -> Outcome {
    let klamm = |contender: &&Contender| matches!(contender, Contender::Klamm(_));
    let Some(contender) = run.contenders.iter().find(klamm) else {
        return Ok(());
    };
    let (server, _session) = run.start(contender, "offsets", run.apart)?;
    let kafka = server.kafka.expect("Klamm speaks Kafka's protocol");
    let mut connection = broker::ask(kafka).map_err(failed("the broker"))?;
    topics::create(&mut connection, [(TOPIC, PARTITIONS)])?;
    for group in 0..CONNECTIONS {
        topics::await_group(&mut connection, &group_name(group))?;
    }
    drop(connection);

    let pid = server.server.pid();
    for partitions in [1, PARTITIONS] {
        for repeat in 0..=run.args.repeats {
            let mut lanes = Lanes::over(connect(kafka)?)?;
            let mut load = Commits::new(partitions)?;
            let rate = timed(pid, || {
                let until = Instant::now() + run.seconds();
                lanes.run(OUTSTANDING, Some(until), &mut load)
            })?;
            if repeat > 0 {
                add(to, partitions, &rate);
            }
        }
    }
    server.stop()
}

fn connect(kafka: SocketAddr) -> Outcome<Vec<(TcpStream, i32)>> {
    let connect = |_| {
        let socket = TcpStream::connect(kafka)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(crate::zookeeper::ANSWER_WITHIN))?;
        Ok((socket, 0))
    };
    let sockets: std::io::Result<Vec<_>> = (0..CONNECTIONS).map(connect).collect();
    sockets.map_err(failed("connect"))
}

fn group_name(connection: usize) -> String {
    format!("group-{connection}")
}

/// One connection's request, and where its offsets are.
struct Template {
    frame: Vec<u8>,
    offsets: Vec<usize>,
}

struct Commits {
    templates: Vec<Template>,
    partitions: usize,
    next_offset: i64,
}

impl Commits {
    fn new(partitions: i32) -> Outcome<Commits> {
        let template = |lane| Template::new(&group_name(lane), lane, partitions);
        let templates: Outcome<Vec<_>> = (0..CONNECTIONS).map(template).collect();
        Ok(Commits {
            templates: templates?,
            partitions: usize::try_from(partitions).map_err(|e| e.to_string())?,
            next_offset: 0,
        })
    }
}

impl Template {
    fn new(group: &str, first: usize, partitions: i32) -> Outcome<Template> {
        // Nothing else in a request looks like it.
        const MARK: i64 = 0x6B4C_614D_6D5F_4F66;
        let first = i32::try_from(first).map_err(|e| e.to_string())?;
        let partition = |n| {
            OffsetCommitRequestPartition::default()
                .with_partition_index((first + n) % PARTITIONS)
                .with_committed_offset(MARK)
                .with_committed_metadata(Some(StrBytes::from_static_str("")))
        };
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partitions((0..partitions).map(partition).collect());
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let frame = wire::encode(0, VERSION, &request).map_err(failed("OffsetCommit"))?;
        let frame = frame.to_vec();
        let mark = MARK.to_be_bytes();
        let offsets: Vec<usize> = (0..frame.len() - mark.len())
            .filter(|&at| frame[at..at + mark.len()] == mark)
            .collect();
        assert_eq!(Some(offsets.len()), usize::try_from(partitions).ok());
        Ok(Template { frame, offsets })
    }
}

impl Load for Commits {
    fn request(&mut self, lane: usize, number: i32, to: &mut Vec<u8>) -> bool {
        let Template { frame, offsets } = &mut self.templates[lane];
        frame[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&number.to_be_bytes());
        for &at in &*offsets {
            frame[at..at + 8].copy_from_slice(&self.next_offset.to_be_bytes());
        }
        self.next_offset += 1;
        to.extend_from_slice(frame);
        true
    }

    fn answer(&mut self, _: usize, body: &[u8]) -> Outcome {
        let mut body = bytes::Bytes::copy_from_slice(body);
        let answer = OffsetCommitResponse::decode(&mut body, VERSION)
            .map_err(|e| format!("OffsetCommit: {e}"))?;
        let partitions = || answer.topics.iter().flat_map(|topic| &topic.partitions);
        match partitions().find(|partition| partition.error_code != 0) {
            Some(partition) => Err(format!(
                "OffsetCommit: partition {} answers with error {}",
                partition.partition_index, partition.error_code
            )),
            None if partitions().count() == self.partitions => Ok(()),
            None => Err(format!(
                "OffsetCommit: {} partitions answered, of {}",
                partitions().count(),
                self.partitions
            )),
        }
    }
}

fn add(to: &mut Comparison, partitions: i32, rate: &Rate) {
    let who = super::contender::Who::Klamm;
    let (id, label) = match partitions {
        1 => ("offsets", "OffsetCommit, 8 x 64".to_owned()),
        n => (
            "offsets_many",
            format!("OffsetCommit of {n} partitions, 8 x 64"),
        ),
    };
    // What is counted is offsets: a request may have many.
    let offsets = rate.a_second() * f64::from(partitions);
    let each = |seconds| rate.us_each(seconds) / f64::from(partitions);
    let mut a_second = measure(id, label, "offsets/s");
    if partitions == 1 {
        a_second = a_second.aim(Aim::AtLeast(A_SECOND_AIM));
    }
    to.add(who, &a_second, offsets);
    for (part, label, seconds) in [
        ("cpu", "  server's CPU for each", rate.server.total_s()),
        ("user", "    user", rate.server.user_s),
        ("system", "    system", rate.server.system_s),
        ("client", "  client's CPU for each", rate.client.total_s()),
    ] {
        let part = measure(format!("{id}_{part}"), label, "us");
        to.add(who, &part, each(seconds));
    }
}
