//! A small blocking Kafka client, as much as the command line needs.
//!
//! ```text
//!  admin.rs   topics and configs ─┐
//!  groups.rs  offsets, members   ─┤
//!  fetch.rs   consume            ─┼─ Client: who leads what, which broker answers
//!  produce.rs accumulate, retry  ─┤        |
//!  member.rs  a group's member   ─┘   connection.rs: frames, versions, one socket
//! ```
//!
//! It promises: every call ends, within the timeout and its retries; an error says
//! which broker and which API; a call that changes something is not sent a second
//! time unless the first certainly changed nothing. It speaks to Kafka 2.1 and
//! newer and to whatever else speaks its protocol, in plain text.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{ApiKey, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

pub mod admin;
pub mod assign;
pub mod connection;
pub mod error;
pub mod fetch;
pub mod groups;
pub mod member;
pub mod offsets;
pub mod partitioner;
pub mod produce;

use crate::{base64, interrupt};
pub use connection::{Connection, Options};
pub use error::{ClientError, Result};

/// Metadata 13 adds an error for the whole answer that we have no use for; 12 is
/// the last that Klamm answers.
const METADATA_CAP: i16 = 12;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
pub struct Partition {
    pub index: i32,
    /// None while an election is under way.
    pub leader: Option<i32>,
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    pub offline: Vec<i32>,
}

#[derive(Clone, Debug)]
pub struct Topic {
    pub name: String,
    /// As Kafka prints it; None where the broker is older than topic ids (2.8).
    pub id: Option<String>,
    pub internal: bool,
    pub partitions: Vec<Partition>,
}

pub struct Client {
    options: Options,
    bootstrap: Vec<String>,
    brokers: BTreeMap<i32, String>,
    controller: Option<i32>,
    connections: HashMap<i32, Connection>,
    /// The connection to a bootstrap address, whose broker's id is not known.
    first: Option<Connection>,
}

/// May a call be sent again after an error?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It only reads, or doing it twice is doing it once.
    Freely,
    /// Only where the broker certainly did nothing.
    WithCare,
}

impl Client {
    /// Finds the cluster: the first bootstrap address that answers Metadata.
    pub fn connect(bootstrap: &str, options: Options) -> Result<Client> {
        let bootstrap: Vec<String> = bootstrap
            .split(',')
            .map(str::trim)
            .filter(|a| !a.is_empty())
            .map(with_port)
            .collect();
        if bootstrap.is_empty() {
            return Err(ClientError::Missing(
                "--bootstrap names no broker; give HOST:PORT".into(),
            ));
        }
        let mut client = Client {
            options,
            bootstrap,
            brokers: BTreeMap::new(),
            controller: None,
            connections: HashMap::new(),
            first: None,
        };
        client.metadata_raw(Some(&[]), false)?;
        Ok(client)
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    pub fn timeout(&self) -> Duration {
        self.options.timeout
    }

    pub fn broker_ids(&self) -> Vec<i32> {
        self.brokers.keys().copied().collect()
    }

    /// `broker 1 (127.0.0.1:9092)`
    pub fn broker_label(&self, id: i32) -> String {
        match self.brokers.get(&id) {
            Some(address) => format!("broker {id} ({address})"),
            None => format!("broker {id}"),
        }
    }

    /// A new connection of the caller's own, for what must not wait behind others.
    pub fn open(&self, id: i32) -> Result<Connection> {
        let Some(address) = self.brokers.get(&id) else {
            return Err(ClientError::Missing(format!(
                "broker {id} is not part of the cluster that {} describes",
                self.bootstrap.join(",")
            )));
        };
        Connection::open(address, self.broker_label(id), &self.options)
    }

    pub fn broker(&mut self, id: i32) -> Result<&mut Connection> {
        if self.connections.get(&id).is_none_or(Connection::in_doubt) {
            let connection = self.open(id)?;
            self.connections.insert(id, connection);
        }
        Ok(self.connections.get_mut(&id).expect("just put there"))
    }

    /// Any broker that answers: for questions that all of them answer alike.
    pub fn any(&mut self) -> Result<&mut Connection> {
        let mut last = None;
        for id in self.broker_ids() {
            match self.broker(id) {
                Ok(_) => return self.broker(id),
                Err(e) => last = Some(e),
            }
        }
        match self.first() {
            Ok(_) => self.first(),
            Err(e) => Err(last.unwrap_or(e)),
        }
    }

    fn first(&mut self) -> Result<&mut Connection> {
        if self.first.as_ref().is_none_or(Connection::in_doubt) {
            self.first = None;
            let mut last = None;
            for address in &self.bootstrap {
                match Connection::open(address, address.clone(), &self.options) {
                    Ok(connection) => {
                        self.first = Some(connection);
                        break;
                    }
                    Err(ClientError::Interrupted) => return Err(ClientError::Interrupted),
                    Err(e) => last = Some(e),
                }
            }
            if let (None, Some(e)) = (&self.first, last) {
                return Err(e);
            }
        }
        Ok(self.first.as_mut().expect("found or returned"))
    }

    /// The broker for CreateTopics and its like. In KRaft mode brokers name one that
    /// forwards; ZooKeeper-era clusters need the controller itself.
    pub fn controller(&mut self) -> Result<&mut Connection> {
        match self.controller {
            Some(id) if self.brokers.contains_key(&id) => self.broker(id),
            _ => self.any(),
        }
    }

    /// Drops the connections, after an error that leaves them in doubt, and asks for
    /// the cluster's shape again where that is possible.
    pub fn refresh(&mut self) {
        self.connections.clear();
        self.first = None;
        // A failure here comes back from the retried call itself, with its own words.
        let _ = self.metadata_raw(Some(&[]), false);
    }

    pub fn forget(&mut self, id: i32) {
        self.connections.remove(&id);
    }

    /// Runs `call` until it succeeds, fails for good, or the timeout is over. Between
    /// tries the cluster's shape is read again: leaders, coordinators and controllers
    /// move.
    pub fn retrying<T>(
        &mut self,
        retry: Retry,
        mut call: impl FnMut(&mut Client) -> Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + self.options.timeout;
        let mut backoff = BACKOFF_FIRST;
        loop {
            let error = match call(self) {
                Ok(answer) => return Ok(answer),
                Err(e) => e,
            };
            let again = match retry {
                Retry::Freely => error.passes(),
                Retry::WithCare => error.left_no_trace(),
            };
            if !again || Instant::now() + backoff >= deadline {
                return Err(error);
            }
            pause(backoff)?;
            backoff = (backoff * 2).min(BACKOFF_MAX);
            self.refresh();
        }
    }

    fn metadata_raw(
        &mut self,
        topics: Option<&[String]>,
        auto_create: bool,
    ) -> Result<MetadataResponse> {
        let build = |version: i16| {
            let names = topics.map(|topics| {
                topics
                    .iter()
                    .map(|t| {
                        MetadataRequestTopic::default()
                            .with_name(Some(TopicName(StrBytes::from_string(t.clone()))))
                    })
                    .collect()
            });
            // Version 0 has no null: an empty list means all topics there.
            let names = if version == 0 {
                Some(names.unwrap_or_default())
            } else {
                names
            };
            MetadataRequest::default()
                .with_topics(names)
                .with_allow_auto_topic_creation(auto_create || version < 4)
        };
        let known = !self.brokers.is_empty();
        let connection = if known { self.any() } else { self.first() }?;
        let answer = connection.call::<MetadataRequest>(METADATA_CAP, build)?;
        if answer.brokers.is_empty() {
            return Err(ClientError::Missing(format!(
                "{} names no broker in its metadata; is it still starting?",
                self.bootstrap.join(",")
            )));
        }
        let brokers: BTreeMap<i32, String> = answer
            .brokers
            .iter()
            .map(|b| (b.node_id.0, host_port(&b.host, b.port)))
            .collect();
        // A broker that moved to another address needs a new connection.
        let before = std::mem::replace(&mut self.brokers, brokers);
        let now = &self.brokers;
        self.connections
            .retain(|id, _| before.get(id) == now.get(id));
        self.controller = Some(answer.controller_id.0).filter(|id| *id >= 0);
        Ok(answer)
    }

    /// The topics named, or all of them: each as it is, or the error it has.
    pub fn topics(
        &mut self,
        names: Option<&[String]>,
        auto_create: bool,
    ) -> Result<Vec<(String, Result<Topic>)>> {
        let answer = self.retrying(Retry::Freely, |c| c.metadata_raw(names, auto_create))?;
        let mut found = Vec::with_capacity(answer.topics.len());
        for t in answer.topics {
            let name = t.name.map(|n| n.0.to_string()).unwrap_or_default();
            let topic = if t.error_code == 0 {
                let mut partitions: Vec<Partition> =
                    t.partitions.into_iter().map(partition).collect();
                partitions.sort_by_key(|p| p.index);
                Ok(Topic {
                    name: name.clone(),
                    id: topic_id(t.topic_id),
                    internal: t.is_internal,
                    partitions,
                })
            } else {
                Err(self.any()?.refused(
                    ApiKey::Metadata,
                    t.error_code,
                    format!("topic {name}"),
                    None,
                ))
            };
            found.push((name, topic));
        }
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    /// One topic that should have leaders; waits for an election, and, where the
    /// topic may be created by being asked for, for that.
    pub fn topic(&mut self, name: &str, auto_create: bool) -> Result<Topic> {
        let names = [name.to_string()];
        let deadline = Instant::now() + self.options.timeout;
        let mut backoff = BACKOFF_FIRST;
        let mut asked = 0;
        loop {
            asked += 1;
            let found = self.topics(Some(&names), auto_create)?;
            let result = match found.into_iter().next() {
                Some((_, result)) => result,
                None => {
                    return Err(ClientError::Missing(format!(
                        "the broker's metadata leaves topic {name} out"
                    )));
                }
            };
            let waiting = match &result {
                Ok(topic) => topic.partitions.iter().any(|p| p.leader.is_none()),
                Err(e) if e.is(ResponseError::LeaderNotAvailable) => true,
                // A creation that was just asked for may not have happened yet.
                Err(e) => auto_create && asked < 8 && e.is(ResponseError::UnknownTopicOrPartition),
            };
            if !waiting || Instant::now() + backoff >= deadline {
                return result;
            }
            pause(backoff)?;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }
}

/// Waits, unless Ctrl-C comes.
pub fn pause(length: Duration) -> Result<()> {
    let until = Instant::now() + length;
    loop {
        if interrupt::now() {
            return Err(ClientError::Interrupted);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

fn partition(
    p: kafka_protocol::messages::metadata_response::MetadataResponsePartition,
) -> Partition {
    let ids = |ids: Vec<kafka_protocol::messages::BrokerId>| ids.into_iter().map(|b| b.0).collect();
    Partition {
        index: p.partition_index,
        leader: Some(p.leader_id.0).filter(|id| *id >= 0),
        leader_epoch: p.leader_epoch,
        replicas: ids(p.replica_nodes),
        isr: ids(p.isr_nodes),
        offline: ids(p.offline_replicas),
    }
}

fn topic_id(id: uuid::Uuid) -> Option<String> {
    (!id.is_nil()).then(|| base64::encode_url(id.as_bytes()))
}

/// `localhost` -> `localhost:9092`; `[::1]:9092` and `host:1` stay.
fn with_port(address: &str) -> String {
    let has_port = match address.rfind(']') {
        Some(end) => address[end..].contains(':'),
        None => address.matches(':').count() == 1,
    };
    if has_port {
        address.to_string()
    } else if address.matches(':').count() > 1 && !address.starts_with('[') {
        format!("[{address}]:9092")
    } else {
        format!("{address}:9092")
    }
}

fn host_port(host: &str, port: i32) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_gets_kafkas() {
        for (given, meant) in [
            ("localhost", "localhost:9092"),
            ("localhost:19092", "localhost:19092"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("[::1]:9", "[::1]:9"),
            ("[::1]", "[::1]:9092"),
            ("::1", "[::1]:9092"),
        ] {
            assert_eq!(with_port(given), meant);
        }
        assert_eq!(host_port("::1", 5), "[::1]:5");
    }
}
