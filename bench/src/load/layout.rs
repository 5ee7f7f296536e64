//! Where the load goes: topics, their partitions, and each partition's leader.
//!
//! ```text
//!   bootstrap --ApiVersions, CreateTopics, Metadata--> | partition | leader's address |
//!   leaders   --ListOffsets, until all answer-->       | start | end |
//! ```
//!
//! A leader is where Metadata says: with several brokers, or with one that advertises a
//! port for each core, the load goes straight there, unless it is to go elsewhere. Topics that nobody named are made
//! for the run, and deleted behind it.

use super::produce::{self, named};
use super::{Route, Spec, Target, fetch};
use crate::wire::Connection;
use crate::{Outcome, broker, topics};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, DeleteTopicsRequest, ListOffsetsRequest, MetadataRequest,
    TopicName,
};
use kafka_protocol::protocol::StrBytes;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const READY_WITHIN: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(2);

const METADATA: i16 = 8;
const LIST_OFFSETS: i16 = 4;
const DELETE_TOPICS: i16 = 3;
/// ListOffsets: the first offset there is, and the one that comes next.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

pub struct Layout {
    /// Topic by topic.
    pub places: Vec<Place>,
    pub leaders: Vec<SocketAddr>,
    /// The newest that the broker and we both have.
    pub produce_version: i16,
    /// Made for this run.
    made: Vec<String>,
    bootstrap: Connection,
}

/// A partition.
#[derive(Clone, Debug)]
pub struct Place {
    pub topic: Arc<str>,
    pub index: i32,
    /// An index into the layout's leaders.
    pub leader: usize,
    pub start: i64,
    pub end: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

impl Layout {
    /// Finds the topics, or makes them, and returns when every partition's leader answers.
    pub fn make(spec: &Spec, target: &Target) -> Outcome<Layout> {
        let mut bootstrap = connect(&target.bootstrap)?;
        let produce_version = versions(&mut bootstrap)?;
        let (names, made) = if spec.named_topics.is_empty() {
            let names = fresh_names(spec.topics);
            let partitions = i32::try_from(spec.partitions).map_err(|e| e.to_string())?;
            topics::create(
                &mut bootstrap,
                names.iter().map(|name| (&name[..], partitions)),
            )?;
            (names.clone(), names)
        } else {
            (spec.named_topics.clone(), Vec::new())
        };
        let expected = spec
            .named_topics
            .is_empty()
            .then_some(spec.partitions as usize);
        let (places, leaders) = await_leaders(&mut bootstrap, &names, expected, spec.route)?;
        let mut layout = Layout {
            places,
            leaders,
            produce_version,
            made,
            bootstrap,
        };
        layout.refresh_offsets()?;
        Ok(layout)
    }

    /// Asks the leaders anew where their partitions begin and end.
    pub fn refresh_offsets(&mut self) -> Outcome {
        for leader in 0..self.leaders.len() {
            let address = self.leaders[leader];
            let mut connection =
                broker::ask(address).map_err(|e| format!("the leader at {address}: {e}"))?;
            let start = self.offsets(&mut connection, leader, EARLIEST)?;
            let end = self.offsets(&mut connection, leader, LATEST)?;
            for (place, offset) in start {
                self.places[place].start = offset;
            }
            for (place, offset) in end {
                self.places[place].end = offset;
            }
        }
        Ok(())
    }

    fn offsets(
        &self,
        connection: &mut Connection,
        leader: usize,
        which: i64,
    ) -> Outcome<Vec<(usize, i64)>> {
        let mut left: BTreeMap<(String, i32), usize> = (self.places.iter().enumerate())
            .filter(|(_, place)| place.leader == leader)
            .map(|(at, place)| ((place.topic.to_string(), place.index), at))
            .collect();
        let mut found = Vec::with_capacity(left.len());
        let deadline = Instant::now() + READY_WITHIN;
        while !left.is_empty() {
            let mut by_topic: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
            for (topic, index) in left.keys() {
                by_topic.entry(topic).or_default().push(
                    ListOffsetsPartition::default()
                        .with_partition_index(*index)
                        .with_current_leader_epoch(-1)
                        .with_timestamp(which),
                );
            }
            let asked = by_topic.into_iter().map(|(topic, partitions)| {
                ListOffsetsTopic::default()
                    .with_name(topic_name(topic))
                    .with_partitions(partitions)
            });
            let request = ListOffsetsRequest::default()
                .with_replica_id(BrokerId(-1))
                .with_topics(asked.collect());
            let answer = connection
                .call(LIST_OFFSETS, &request)
                .map_err(|e| format!("ListOffsets: {e}"))?;
            let mut refused = None;
            for topic in &answer.topics {
                for partition in &topic.partitions {
                    let key = (topic.name.to_string(), partition.partition_index);
                    match partition.error_code {
                        0 => {
                            let place = left.remove(&key).ok_or_else(|| {
                                format!("ListOffsets: {}-{} was not asked for", key.0, key.1)
                            })?;
                            found.push((place, partition.offset));
                        }
                        code => refused = Some(format!("{}-{}: {}", key.0, key.1, named(code))),
                    }
                }
            }
            if !left.is_empty() {
                if Instant::now() > deadline {
                    let why = refused.unwrap_or_else(|| "it says nothing of them".to_owned());
                    return Err(format!(
                        "ListOffsets: {} partitions are not ready after {READY_WITHIN:?}: {why}",
                        left.len()
                    ));
                }
                thread::sleep(ASK_EVERY);
            }
        }
        Ok(found)
    }

    /// Deletes what was made for the run.
    pub fn remove(mut self) -> Outcome {
        if self.made.is_empty() {
            return Ok(());
        }
        let names = self.made.iter().map(|name| topic_name(name));
        let request = DeleteTopicsRequest::default()
            .with_topic_names(names.collect())
            .with_timeout_ms(30_000);
        let answer = self
            .bootstrap
            .call(DELETE_TOPICS, &request)
            .map_err(|e| format!("DeleteTopics: {e}"))?;
        match answer.responses.iter().find(|topic| topic.error_code != 0) {
            Some(topic) => Err(format!(
                "DeleteTopics answers with {}",
                named(topic.error_code)
            )),
            None => Ok(()),
        }
    }
}

/// The first of the addresses that answers.
fn connect(bootstrap: &str) -> Outcome<Connection> {
    let mut failure = "no address".to_owned();
    for address in bootstrap.split(',') {
        match resolve(address).and_then(|at| broker::ask(at).map_err(|e| format!("{at}: {e}"))) {
            Ok(connection) => return Ok(connection),
            Err(message) => failure = message,
        }
    }
    Err(format!(
        "no broker answers at {bootstrap} ({failure}); name one with --brokers HOST:PORT"
    ))
}

fn resolve(address: &str) -> Outcome<SocketAddr> {
    let mut found = address
        .to_socket_addrs()
        .map_err(|e| format!("{address}: {e}"))?;
    found
        .next()
        .ok_or_else(|| format!("{address} has no address"))
}

/// The version for Produce; an error where Fetch's is missing.
fn versions(connection: &mut Connection) -> Outcome<i16> {
    let answer = connection
        .call(0, &ApiVersionsRequest::default())
        .map_err(|e| format!("ApiVersions: {e}"))?;
    let range = |key: i16| {
        let api = answer.api_keys.iter().find(|api| api.api_key == key);
        api.map_or((0, -1), |api| (api.min_version, api.max_version))
    };
    let (min, max) = range(produce::KEY);
    let version = max.min(*produce::VERSIONS.end());
    if version < min || version < *produce::VERSIONS.start() {
        return Err(format!(
            "the broker has Produce {min} to {max}, and {:?} are known here",
            produce::VERSIONS
        ));
    }
    let (min, max) = range(fetch::KEY);
    if !(min..=max).contains(&fetch::VERSION) {
        return Err(format!(
            "the broker has Fetch {min} to {max}, and {} is needed",
            fetch::VERSION
        ));
    }
    Ok(version)
}

/// Never the same twice, in this process or one that ran before.
fn fresh_names(count: u32) -> Vec<String> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let run = MADE.fetch_add(1, Ordering::Relaxed);
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    (0..count)
        .map(|n| format!("klamm-bench-{since}-{}-{run}-{n}", process::id()))
        .collect()
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

type Found = (Vec<Place>, Vec<SocketAddr>);

/// Returns when Metadata names a leader for every partition, and how to reach it.
fn await_leaders(
    connection: &mut Connection,
    names: &[String],
    expected: Option<usize>,
    route: Route,
) -> Outcome<Found> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        match leaders(connection, names, expected, route)? {
            Ok(found) => return Ok(found),
            Err(not_yet) if Instant::now() > deadline => {
                return Err(format!("Metadata: {not_yet} after {READY_WITHIN:?}"));
            }
            Err(_) => thread::sleep(ASK_EVERY),
        }
    }
}

fn leaders(
    connection: &mut Connection,
    names: &[String],
    expected: Option<usize>,
    route: Route,
) -> Outcome<Result<Found, String>> {
    let asked = names
        .iter()
        .map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))));
    let request = MetadataRequest::default()
        .with_topics(Some(asked.collect()))
        .with_allow_auto_topic_creation(false);
    let answer = connection
        .call(METADATA, &request)
        .map_err(|e| format!("Metadata: {e}"))?;
    let (mut places, mut leaders) = (Vec::new(), Vec::new());
    let mut known: HashMap<BrokerId, usize> = HashMap::new();
    for name in names {
        let topic = (answer.topics.iter())
            .find(|topic| topic.name.as_ref().is_some_and(|is| is.as_str() == name));
        let Some(topic) = topic.filter(|topic| topic.error_code == 0) else {
            let code = topic.map_or(0, |topic| topic.error_code);
            let message = format!("topic {name}: {}", named(code));
            // One that was named and is not there will not come by itself.
            return match expected {
                None => Err(format!("{message}; create it first, or leave --topic out")),
                Some(_) => Ok(Err(message)),
            };
        };
        if expected.is_some_and(|expected| topic.partitions.len() != expected) {
            return Ok(Err(format!(
                "topic {name}: {} partitions",
                topic.partitions.len()
            )));
        }
        let mut partitions: Vec<_> = topic.partitions.iter().collect();
        partitions.sort_by_key(|partition| partition.partition_index);
        let topic: Arc<str> = Arc::from(&name[..]);
        for partition in partitions {
            let node = (answer.brokers.iter()).find(|node| node.node_id == partition.leader_id);
            let Some(node) = node.filter(|_| partition.error_code == 0) else {
                let index = partition.partition_index;
                return Ok(Err(format!("{name}-{index} has no leader")));
            };
            let node = match route {
                Route::Leader => node,
                Route::Elsewhere => (answer.brokers.iter())
                    .find(|other| other.node_id != node.node_id)
                    .ok_or("the broker is one node: there is no other to send requests to")?,
            };
            let leader = match known.get(&node.node_id) {
                Some(&leader) => leader,
                None => {
                    leaders.push(resolve(&format!("{}:{}", node.host.as_str(), node.port))?);
                    known.insert(node.node_id, leaders.len() - 1);
                    leaders.len() - 1
                }
            };
            places.push(Place {
                topic: topic.clone(),
                index: partition.partition_index,
                leader,
                start: 0,
                end: 0,
            });
        }
    }
    Ok(Ok((places, leaders)))
}
