//! The coordinator whole: tree, cluster and groups behind one door.
//!
//! ```text
//!   new / restore --> apply, apply, ... --> start --> step, tick, step, ...
//!        (a snapshot)    (the changelog)                    |
//!                                                      take_output
//!                                                           v
//!         persist [(Zxid, Command)]   in order, without gaps
//!         send    [(Zxid, Token, Response)]   once committed up to that zxid
//!         image   the newest, where it changed; before the answers are sent
//!         fired   watches, and who is to be told: see `zookeeper`
//! ```
//!
//! A step changes the state at once; the answer to it, and to every later step that
//! may have seen the change, carries a zxid that must be committed first. So nobody
//! is told of what a crash could take back, and steps never wait for the disk.

use crate::core::cluster::controller::Agenda;
use crate::core::cluster::ids::{IdSource, ProducerIds};
use crate::core::cluster::state::Cluster;
use crate::core::cluster::topics::put;
use crate::core::cluster::{
    ClusterError, ClusterErrorKind as Kind, ConfigChange, ConfigQuery, ConfigReplacement,
    ConfigResource, CreatedTopic, DeletedTopic, Named, NewPartitions, NewProducer, NewTopic,
    TopicRef, configs, ids, topics, znodes,
};
use crate::core::codec::{DecodeError, Reader, put_bytes, put_i64, put_u32};
use crate::core::command::{Change, Command};
use crate::core::groups::{self, GroupConfig, Groups, Record};
use crate::core::image::{Broker, Image};
use crate::core::member_nodes::MemberNodes;
use crate::core::sessions::{SessionId, Sessions};
use crate::core::settings::{BrokerConfig, ConfigEntry};
use crate::core::tree::{Access, Event, MultiError, Op, OpResult, Tree};
use crate::core::watches::{ConnectionId, Fired, Watches};
use crate::core::{Now, Token, Zxid};
use klamm_engine::units::{Nanos, ProducerEpoch, TimestampMs, TopicId};
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

mod mirror;
mod office;
pub mod zookeeper;

pub use mirror::Effect;

/// What the coordinator can be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    CreateTopics {
        topics: Vec<NewTopic>,
        validate_only: bool,
    },
    DeleteTopics {
        topics: Vec<TopicRef>,
    },
    CreatePartitions {
        topics: Vec<NewPartitions>,
        validate_only: bool,
    },
    AlterConfigs {
        resources: Vec<ConfigReplacement>,
        validate_only: bool,
    },
    IncrementalAlterConfigs {
        resources: Vec<ConfigChange>,
        validate_only: bool,
    },
    /// Also answered by [`Image::describe_configs`], without the way to shard 0.
    DescribeConfigs {
        resources: Vec<ConfigQuery>,
    },
    /// A producer id for an idempotent producer, never given out before.
    InitProducerId,
    /// This broker is there; asked at each start, before clients are served.
    RegisterBroker {
        broker: Broker,
    },
    /// Operations on the tree, all or none, as ZooKeeper's multi.
    CommitTreeOps {
        ops: Vec<Op>,
    },
    Group(groups::Request),
}

/// What it answers, in the order of what was asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    CreateTopics(Named<CreatedTopic>),
    DeleteTopics(Vec<DeletedTopic>),
    CreatePartitions(Named<()>),
    AlterConfigs(Vec<(ConfigResource, Result<(), ClusterError>)>),
    IncrementalAlterConfigs(Vec<(ConfigResource, Result<(), ClusterError>)>),
    DescribeConfigs(Vec<(ConfigResource, Result<Vec<ConfigEntry>, ClusterError>)>),
    InitProducerId(Result<NewProducer, ClusterError>),
    RegisterBroker(Result<(), ClusterError>),
    CommitTreeOps {
        zxid: Zxid,
        result: Result<Vec<OpResult>, MultiError>,
    },
    Group(groups::Response),
}

/// What steps and ticks want done, in this order.
#[derive(Debug, Default)]
pub struct Output {
    /// In the order of the zxids, without gaps.
    pub persist: Vec<(Zxid, Command)>,
    /// To be sent once the changelog is committed up to that zxid and, where there is
    /// an image, every shard has it.
    pub send: Vec<(Zxid, Token, Response)>,
    /// The cluster as it is now, where it changed since the last output.
    pub image: Option<Arc<Image>>,
    /// Whom to tell of what, in order: before the answers of later calls.
    pub fired: Vec<Fired>,
    /// Where the tree is a mirror: what is to be done to the original.
    pub effects: Vec<Effect>,
    /// Connections to be closed: their session has ended, or is on another one.
    pub hang_up: Vec<ConnectionId>,
}

impl Output {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.persist.is_empty()
            && self.send.is_empty()
            && self.image.is_none()
            && self.effects.is_empty()
            && self.fired.is_empty()
            && self.hang_up.is_empty()
    }
}

#[derive(Clone, Debug)]
pub struct CoreConfig {
    pub broker: BrokerConfig,
    pub zookeeper: zookeeper::ZooKeeperConfig,
    /// What the cluster is called where it has no name yet: the one in the data
    /// folder's `meta.properties`. None: a new one from the seed.
    pub cluster_id: Option<String>,
    /// Feeds topic ids, the cluster's id and member ids. 128 random bits, new at each
    /// start: the same seed twice gives the same ids twice.
    pub id_seed: u128,
    /// Makes session passwords: 128 random bits of their own, since from ids that are
    /// public the seed above can be told.
    pub session_secret: u128,
}

impl CoreConfig {
    fn groups(&self) -> GroupConfig {
        let broker = &self.broker;
        GroupConfig {
            min_session_timeout_ms: broker.group_min_session_timeout_ms,
            max_session_timeout_ms: broker.group_max_session_timeout_ms,
            initial_rebalance_delay_ms: broker.group_initial_rebalance_delay_ms,
            max_size: usize::try_from(broker.group_max_size).unwrap_or(usize::MAX),
            offset_metadata_max_bytes: usize::try_from(broker.offset_metadata_max_bytes)
                .unwrap_or(0),
            offsets_retention_minutes: i64::from(broker.offsets_retention_minutes),
            offsets_retention_check_interval_ms: broker.offsets_retention_check_interval_ms,
            // Another stream than the topic ids': both count up from the seed.
            ..GroupConfig::with_seed(!self.id_seed)
        }
    }
}

#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    /// The last change.
    zxid: Zxid,
    tree: Tree,
    groups: Groups,
    sessions: Sessions,
    watches: Watches,
    /// The broker's own session, from the start to the stop.
    own_session: Option<SessionId>,
    /// This broker, once it is registered.
    own_broker: Option<i32>,
    /// What the controller has not looked at yet; empty where that is another broker.
    agenda: Agenda,
    /// Where the tree is a mirror: the change that made this broker the controller, until
    /// it is known that the original took it.
    elected_at: Option<Zxid>,
    member_nodes: MemberNodes,
    /// The broker's own session, as the changelog tells: the members' nodes are its.
    member_owner: Option<SessionId>,
    /// The last change of an ACL: nodes do not tell it.
    acl_zxid: Zxid,
    /// When containers and nodes with a time to live are looked through next.
    reap_at: Option<Nanos>,
    /// The tree follows one that is elsewhere.
    is_mirror: bool,
    /// None until `start`: a replay need not read back what later commands change.
    cluster: Option<Cluster>,
    image: Option<Arc<Image>>,
    image_is_news: bool,
    ids: IdSource,
    producer_ids: ProducerIds,
    output: Output,
    group_output: groups::Output,
    events: Vec<Event>,
}

/// A snapshot that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    NotOne,
    Version(u32),
    Crc,
    Decode(DecodeError),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::NotOne => f.write_str("this is no snapshot, or not a whole one"),
            SnapshotError::Version(v) => {
                write!(f, "version {v} of the format is not known to this Klamm")
            }
            SnapshotError::Crc => f.write_str("its checksum does not fit: bytes were damaged"),
            SnapshotError::Decode(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// A snapshot under way, or whole.
#[derive(Debug)]
pub struct Snapshot {
    pub zxid: Zxid,
    pub bytes: Vec<u8>,
    /// What comes behind the tree: as it was at the beginning.
    rest: Vec<u8>,
    crc: crc32fast::Hasher,
    summed: usize,
}

const SNAPSHOT_MAGIC: &[u8; 8] = b"KLAMMSNP";
const SNAPSHOT_VERSION: u32 = 1;

impl Core {
    /// The empty state, zxid 0.
    #[must_use]
    pub fn new(config: CoreConfig) -> Core {
        Core {
            zxid: Zxid::ZERO,
            tree: Tree::new(),
            groups: Groups::new(config.groups()),
            sessions: Sessions::default(),
            watches: Watches::default(),
            own_session: None,
            own_broker: None,
            agenda: Agenda::default(),
            elected_at: None,
            member_nodes: MemberNodes::default(),
            member_owner: None,
            acl_zxid: Zxid::ZERO,
            reap_at: None,
            is_mirror: false,
            cluster: None,
            image: None,
            image_is_news: false,
            ids: IdSource::new(config.id_seed),
            producer_ids: ProducerIds::default(),
            output: Output::default(),
            group_output: groups::Output::default(),
            events: Vec::new(),
            config,
        }
    }

    /// The state that a snapshot holds.
    pub fn restore(config: CoreConfig, snapshot: &[u8]) -> Result<Core, SnapshotError> {
        let (body, crc) = snapshot
            .split_last_chunk::<4>()
            .ok_or(SnapshotError::NotOne)?;
        if !body.starts_with(SNAPSHOT_MAGIC) {
            return Err(SnapshotError::NotOne);
        }
        if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
            return Err(SnapshotError::Crc);
        }
        let mut core = Core::new(config);
        let mut reader = Reader::new(body);
        core.read_snapshot(&mut reader)?;
        Ok(core)
    }

    fn read_snapshot(&mut self, reader: &mut Reader<'_>) -> Result<(), SnapshotError> {
        let decode = SnapshotError::Decode;
        reader.take(SNAPSHOT_MAGIC.len()).map_err(decode)?;
        match reader.u32().map_err(decode)? {
            SNAPSHOT_VERSION => {}
            other => return Err(SnapshotError::Version(other)),
        }
        self.zxid = Zxid(reader.i64().map_err(decode)?);
        self.tree = Tree::decode(reader).map_err(decode)?;
        self.sessions = Sessions::decode(reader).map_err(decode)?;
        self.member_owner = self
            .sessions
            .iter()
            .find(|session| session.record.internal)
            .map(|session| session.record.id);
        while !reader.is_at_end() {
            let at = reader.at();
            let bytes = reader.bytes().map_err(decode)?;
            let record =
                Record::decode(bytes).map_err(|bad| decode(DecodeError { at, what: bad.0 }))?;
            self.member_nodes.restore(&record);
            self.groups.replay(&record);
        }
        Ok(())
    }

    /// The whole state.
    ///
    /// ```text
    ///   "KLAMMSNP" | version u32 = 1 | zxid i64 | tree | sessions
    ///   | (length u32 | group record)*
    ///   | CRC-32 (crc32fast) of all before, u32
    /// ```
    pub fn snapshot(&mut self) -> Vec<u8> {
        let mut snapshot = self.begin_snapshot();
        while !self.go_on_with_snapshot(&mut snapshot, usize::MAX) {}
        snapshot.bytes
    }

    /// The state as it is now, to be written while it changes: `go_on_with_snapshot` until
    /// that says true. One at a time.
    pub fn begin_snapshot(&mut self) -> Snapshot {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(SNAPSHOT_MAGIC);
        put_u32(&mut bytes, SNAPSHOT_VERSION);
        put_i64(&mut bytes, self.zxid.0);
        self.tree.freeze();
        let mut rest = Vec::new();
        self.sessions.encode(&mut rest);
        let mut record_bytes = Vec::new();
        for record in self.groups.snapshot() {
            record_bytes.clear();
            record.encode(&mut record_bytes);
            put_bytes(&mut rest, &record_bytes);
        }
        Snapshot {
            zxid: self.zxid,
            bytes,
            rest,
            crc: crc32fast::Hasher::new(),
            summed: 0,
        }
    }

    /// Writes so many nodes more; true once the snapshot is whole.
    pub fn go_on_with_snapshot(&mut self, snapshot: &mut Snapshot, nodes: usize) -> bool {
        let is_whole = self.tree.encode_some(&mut snapshot.bytes, nodes);
        if is_whole {
            snapshot.bytes.append(&mut snapshot.rest);
        }
        snapshot.crc.update(&snapshot.bytes[snapshot.summed..]);
        snapshot.summed = snapshot.bytes.len();
        if is_whole {
            let crc = snapshot.crc.clone().finalize();
            put_u32(&mut snapshot.bytes, crc);
        }
        is_whole
    }

    /// Does what a command of the changelog says; before `start` only.
    ///
    /// # Panics
    /// Where it is not the next one: the caller checks the changelog for gaps.
    pub fn apply(&mut self, zxid: Zxid, command: &Command) {
        assert!(
            self.cluster.is_none(),
            "commands are applied before the start, requests after it"
        );
        assert_eq!(
            zxid,
            self.zxid.next(),
            "commands come in order, without gaps"
        );
        self.zxid = zxid;
        match &command.change {
            // What failed then fails now.
            Change::Tree(ops) => drop(self.tree.multi(zxid, command.time, ops, &mut self.events)),
            Change::Group(record) => {
                self.groups.replay(record);
                self.show(record, zxid, command.time);
            }
            Change::Refused => {}
            Change::SessionOpened(record) => {
                self.sessions.open(record.clone(), Nanos(0));
                self.session_opened(record, zxid, command.time);
            }
            Change::SessionClosed(id) => {
                self.sessions.close(*id);
                self.session_closed(*id, zxid, command.time);
            }
        }
        self.events.clear();
    }

    /// Goes to work: members get their session's time to show up, and the nodes that
    /// must be there are made. Fails only where a ZooKeeper client has put something
    /// in their place that cannot hold them.
    pub fn start(&mut self, now: Now) -> Result<(), ClusterError> {
        assert!(self.cluster.is_none(), "a start comes once");
        self.cluster = Some(Cluster::read(&self.tree, self.config.broker.clone()));
        self.image_is_news = true;
        self.tree
            .set_enforce_quota(self.config.zookeeper.enforce_quota);
        if !self.is_mirror {
            self.start_sessions(now);
        }
        self.groups.resume(now, &mut self.group_output);
        self.drain_groups(now);
        let mut missing: Vec<Op> = znodes::PERSISTENT
            .iter()
            .filter(|path| !self.tree.exists(path))
            .map(|path| topics::empty((*path).to_owned()))
            .collect();
        if self.cluster().cluster_id().is_empty() {
            let json = znodes::cluster_id_json(&match self.config.cluster_id.clone() {
                Some(id) => id,
                None => self.ids.next_id().to_string(),
            });
            missing.push(put(&self.tree, znodes::CLUSTER_ID, json));
        }
        if missing.is_empty() {
            return Ok(());
        }
        self.carry_out(missing, now)
    }

    /// Takes in a request. Its answer comes out of this step or of a later one.
    pub fn step(&mut self, token: Token, request: Request, now: Now) {
        let response = match request {
            Request::CreateTopics {
                topics,
                validate_only,
            } => Response::CreateTopics(self.create_topics(&topics, validate_only, now)),
            Request::DeleteTopics { topics } => {
                Response::DeleteTopics(self.delete_topics(&topics, now))
            }
            Request::CreatePartitions {
                topics,
                validate_only,
            } => Response::CreatePartitions(self.create_partitions(&topics, validate_only, now)),
            Request::AlterConfigs {
                resources,
                validate_only,
            } => Response::AlterConfigs(self.alter(
                resources,
                |r| &r.resource,
                configs::plan_replace,
                validate_only,
                now,
            )),
            Request::IncrementalAlterConfigs {
                resources,
                validate_only,
            } => Response::IncrementalAlterConfigs(self.alter(
                resources,
                |r| &r.resource,
                configs::plan_change,
                validate_only,
                now,
            )),
            Request::DescribeConfigs { resources } => {
                let image = self.image();
                Response::DescribeConfigs(
                    resources
                        .into_iter()
                        .map(|q| (q.resource.clone(), image.describe_configs(&q)))
                        .collect(),
                )
            }
            Request::InitProducerId => Response::InitProducerId(self.init_producer_id(now)),
            Request::RegisterBroker { broker } => {
                Response::RegisterBroker(self.register(&broker, now))
            }
            Request::CommitTreeOps { ops } => {
                let result = self.commit_tree_ops(ops, now);
                Response::CommitTreeOps {
                    zxid: self.zxid,
                    result,
                }
            }
            Request::Group(request) => {
                self.groups
                    .step(token, request, now, &mut self.group_output);
                return self.drain_groups(now);
            }
        };
        self.govern(now);
        self.output.send.push((self.zxid, token, response));
    }

    /// Nobody waits for this answer any more.
    pub fn abandon(&mut self, token: Token) {
        self.groups.abandon(token);
    }

    /// Does what is due; at `next_deadline` or soon after.
    pub fn tick(&mut self, now: Now) {
        self.groups.tick(now, &mut self.group_output);
        self.drain_groups(now);
        self.tick_sessions(now);
        self.govern(now);
    }

    /// No later than the first moment at which a tick has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Nanos> {
        [
            self.groups.next_deadline(),
            self.sessions.next_deadline(),
            self.reap_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What is to be done since the last call.
    pub fn take_output(&mut self) -> Output {
        let mut output = std::mem::take(&mut self.output);
        if std::mem::take(&mut self.image_is_news) {
            output.image = Some(self.image());
        }
        output
    }

    /// The last change; not yet committed, maybe.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    #[must_use]
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The cluster as it is now; not yet committed, maybe.
    pub fn image(&mut self) -> Arc<Image> {
        let zxid = self.zxid;
        let cluster = self
            .cluster
            .as_ref()
            .expect("requests come after the start");
        self.image
            .get_or_insert_with(|| Arc::new(cluster.image(zxid)))
            .clone()
    }

    // -- cluster

    fn create_topics(
        &mut self,
        wanted: &[NewTopic],
        validate_only: bool,
        now: Now,
    ) -> Named<CreatedTopic> {
        let count = occurrences(wanted.iter().map(|t| t.name.as_str()));
        wanted
            .iter()
            .map(|topic| {
                let result = once(&count, topic.name.as_str(), "the topic")
                    .and_then(|()| self.create_topic(topic, validate_only, now));
                (topic.name.clone(), result)
            })
            .collect()
    }

    fn create_topic(
        &mut self,
        topic: &NewTopic,
        validate_only: bool,
        now: Now,
    ) -> Result<CreatedTopic, ClusterError> {
        let mut id = self.ids.next_id();
        while self.cluster().topic_by_id(id).is_some() {
            id = self.ids.next_id();
        }
        let (mut created, ops) = topics::plan_create(self.cluster(), &self.tree, topic, id)?;
        if validate_only {
            created.id = TopicId::ZERO;
        } else {
            self.carry_out(ops, now)?;
        }
        Ok(created)
    }

    fn create_partitions(
        &mut self,
        wanted: &[NewPartitions],
        validate_only: bool,
        now: Now,
    ) -> Named<()> {
        let count = occurrences(wanted.iter().map(|t| t.topic.as_str()));
        wanted
            .iter()
            .map(|request| {
                let result = once(&count, request.topic.as_str(), "the topic")
                    .and_then(|()| topics::plan_grow(self.cluster(), &self.tree, request))
                    .and_then(|ops| {
                        if validate_only {
                            Ok(())
                        } else {
                            self.carry_out(ops, now)
                        }
                    });
                (request.topic.clone(), result)
            })
            .collect()
    }

    fn delete_topics(&mut self, wanted: &[TopicRef], now: Now) -> Vec<DeletedTopic> {
        // A topic may be named once by its name and once by its id.
        let id_of = |topic: &TopicRef| match topic {
            TopicRef::Id(id) => Some(*id),
            TopicRef::Name(name) => self.cluster().topic(name).map(|t| t.id),
        };
        let count = occurrences(wanted.iter().filter_map(id_of));
        let names = occurrences(wanted);
        let twice: Vec<bool> = wanted
            .iter()
            .map(|t| names[t] > 1 || id_of(t).is_some_and(|id| count[&id] > 1))
            .collect();
        wanted
            .iter()
            .zip(twice)
            .map(|(topic, twice)| {
                let known = match topic {
                    TopicRef::Name(name) => self.cluster().topic(name).cloned(),
                    TopicRef::Id(id) => self.cluster().topic_by_id(*id).cloned(),
                };
                let (name, id) = match (topic, &known) {
                    (_, Some(topic)) => (Some(topic.name.to_string()), topic.id),
                    (TopicRef::Name(name), None) => (Some(name.clone()), TopicId::ZERO),
                    (TopicRef::Id(id), None) => (None, *id),
                };
                let result = if twice {
                    Err(Kind::InvalidRequest.because("the topic is named twice in one request"))
                } else {
                    self.delete_topic(topic, now)
                };
                DeletedTopic { name, id, result }
            })
            .collect()
    }

    fn delete_topic(&mut self, topic: &TopicRef, now: Now) -> Result<(), ClusterError> {
        let (_, ops) = topics::plan_delete(self.cluster(), &self.tree, topic)?;
        self.carry_out(ops, now)
    }

    fn alter<R>(
        &mut self,
        requests: Vec<R>,
        resource: impl Fn(&R) -> &ConfigResource,
        plan: impl Fn(&Cluster, &Tree, &R) -> Result<Vec<Op>, ClusterError>,
        validate_only: bool,
        now: Now,
    ) -> Vec<(ConfigResource, Result<(), ClusterError>)> {
        let count = occurrences(requests.iter().map(|r| resource(r).clone()));
        requests
            .iter()
            .map(|request| {
                let result = once(&count, resource(request), "the resource")
                    .and_then(|()| plan(self.cluster(), &self.tree, request))
                    .and_then(|ops| {
                        if validate_only {
                            Ok(())
                        } else {
                            self.carry_out(ops, now)
                        }
                    });
                (resource(request).clone(), result)
            })
            .collect()
    }

    fn init_producer_id(&mut self, now: Now) -> Result<NewProducer, ClusterError> {
        let epoch = ProducerEpoch(0);
        if let Some(id) = self.producer_ids.take() {
            return Ok(NewProducer { id, epoch });
        }
        let start = match self.tree.data(znodes::PRODUCER_IDS) {
            None | Some(None | Some([])) => 0,
            // A node that a hand has spoilt must not make ids come twice.
            Some(Some(data)) => znodes::read_producer_block(data)
                .and_then(|end| end.checked_add(1))
                .filter(|start| start.checked_add(ids::BLOCK).is_some())
                .ok_or_else(|| {
                    Kind::UnknownServerError.because(format!(
                        "{} does not hold a block of producer ids that another can follow; restore it to the highest block given out",
                        znodes::PRODUCER_IDS
                    ))
                })?,
        };
        let json = znodes::producer_block_json(self.config.broker.broker_id, start);
        let op = put(&self.tree, znodes::PRODUCER_IDS, json);
        self.carry_out(vec![op], now)?;
        self.producer_ids.refill(start);
        let id = self.producer_ids.take().expect("the block is new");
        Ok(NewProducer { id, epoch })
    }

    fn commit_tree_ops(&mut self, ops: Vec<Op>, now: Now) -> Result<Vec<OpResult>, MultiError> {
        let result = self.change(now.wall, ops).map_err(|(error, _)| error);
        if result.is_err() {
            self.refuse_write(now);
        }
        result
    }

    // -- inside

    fn cluster(&self) -> &Cluster {
        self.cluster
            .as_ref()
            .expect("requests come after the start")
    }

    /// A plan of the cluster's own. It can fail only where the tree is not as the
    /// cluster left it: a ZooKeeper client may have taken a node away.
    fn carry_out(&mut self, ops: Vec<Op>, now: Now) -> Result<(), ClusterError> {
        match self.change(now.wall, ops) {
            Ok(_) => Ok(()),
            Err((failed, ops)) => Err(Kind::UnknownServerError.because(format!(
                "the znode {} is not as Klamm left it: {}",
                ops[failed.index].path(),
                failed.error
            ))),
        }
    }

    /// Changes the tree and gives the command out, or changes nothing and gives the
    /// operations back.
    fn change(
        &mut self,
        time: TimestampMs,
        ops: Vec<Op>,
    ) -> Result<Vec<OpResult>, (MultiError, Vec<Op>)> {
        self.change_as(Access::All, time, ops)
    }

    /// The same, as far as the nodes' ACLs allow it.
    fn change_as(
        &mut self,
        access: Access<'_>,
        time: TimestampMs,
        ops: Vec<Op>,
    ) -> Result<Vec<OpResult>, (MultiError, Vec<Op>)> {
        let zxid = self.zxid.next();
        let done = self
            .tree
            .multi_as(access, zxid, time, &ops, &mut self.events);
        match done {
            Ok(results) => {
                self.persist(time, Change::Tree(ops));
                self.follow();
                Ok(results)
            }
            Err(error) => Err((error, ops)),
        }
    }

    /// Gives a command out that was done; the next zxid is its.
    fn persist(&mut self, time: TimestampMs, change: Change) {
        self.zxid = self.zxid.next();
        if self.is_mirror {
            return self.send_away(change);
        }
        self.output
            .persist
            .push((self.zxid, Command { time, change }));
    }

    /// Tells everyone of what the last change did to the tree.
    fn follow(&mut self) {
        self.watches
            .fire(self.zxid, &self.events, &mut self.output.fired);
        let cluster = self.cluster.as_mut().expect("changes come after the start");
        if cluster.follow(&self.tree, &self.events) {
            self.image = None;
            self.image_is_news = true;
        }
        self.agenda.note(&self.events);
        self.events.clear();
    }

    /// Takes over what the groups want persisted and sent.
    fn drain_groups(&mut self, now: Now) {
        let mut drained = std::mem::take(&mut self.group_output);
        for record in drained.persist.drain(..) {
            self.show(&record, self.zxid.next(), now.wall);
            self.persist(now.wall, Change::Group(record));
            self.follow();
        }
        for (token, response) in drained.send.drain(..) {
            self.output
                .send
                .push((self.zxid, token, Response::Group(response)));
        }
        self.group_output = drained;
    }
}

fn occurrences<K: Hash + Eq>(keys: impl IntoIterator<Item = K>) -> HashMap<K, usize> {
    let mut count = HashMap::new();
    for key in keys {
        *count.entry(key).or_default() += 1;
    }
    count
}

/// That a name comes once in its request: which of two would count?
fn once<K, Q>(count: &HashMap<K, usize>, key: &Q, what: &str) -> Result<(), ClusterError>
where
    K: Hash + Eq + std::borrow::Borrow<Q>,
    Q: Hash + Eq + ?Sized,
{
    if count[key] > 1 {
        return Err(Kind::InvalidRequest.because(format!("{what} is named twice in one request")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
