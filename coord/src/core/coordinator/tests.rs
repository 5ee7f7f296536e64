use super::*;
use crate::core::cluster::ConfigOp;
use crate::core::groups::{OffsetCommit, OffsetCommitPartition, OffsetCommitTopic};
use crate::core::image::Endpoint;
use crate::core::settings::ConfigSource;
use crate::core::stat::Lifetime;
use crate::core::zookeeper::ZooKeeperConfig;
use klamm_engine::units::{LeaderEpoch, Offset};

mod replay;

fn at(ms: i64) -> Now {
    Now {
        mono: Nanos(ms.unsigned_abs() * 1_000_000),
        wall: TimestampMs(1_700_000_000_000 + ms),
    }
}

fn config(given: &[(&str, &str)]) -> CoreConfig {
    let given = given
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    CoreConfig {
        broker: BrokerConfig::new(given).unwrap(),
        cluster_id: None,
        id_seed: 7,
        session_secret: 1,
        zookeeper: ZooKeeperConfig::default(),
    }
}

/// A coordinator that persists at once, and keeps what it persisted.
struct Room {
    core: Core,
    log: Vec<(Zxid, Command)>,
    now: i64,
}

impl Room {
    fn new(given: &[(&str, &str)]) -> Room {
        let mut room = Room {
            core: Core::new(config(given)),
            log: Vec::new(),
            now: 0,
        };
        room.core.start(at(0)).unwrap();
        room.collect();
        room.register(1).unwrap();
        room
    }

    /// The same history in a new process.
    fn restarted(&self, given: &[(&str, &str)], seed: u128) -> Room {
        let mut core = Core::new(CoreConfig {
            id_seed: seed,
            ..config(given)
        });
        for (zxid, command) in &self.log {
            core.apply(*zxid, command);
        }
        core.start(at(self.now)).unwrap();
        let mut room = Room {
            core,
            log: self.log.clone(),
            now: self.now,
        };
        room.collect();
        room
    }

    fn collect(&mut self) -> Vec<(Zxid, Token, Response)> {
        let output = self.core.take_output();
        for (zxid, command) in output.persist {
            assert_eq!(zxid.0, self.log.len() as i64 + 1, "without gaps");
            // What is stored is what comes back.
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            assert_eq!(Command::decode(&bytes).as_ref(), Ok(&command));
            self.log.push((zxid, command));
        }
        output.send
    }

    fn ask(&mut self, request: Request) -> Response {
        self.now += 1;
        self.core.step(Token(9), request, at(self.now));
        let mut sent = self.collect();
        assert_eq!(sent.len(), 1);
        let (zxid, token, response) = sent.remove(0);
        assert_eq!((zxid, token), (self.core.zxid(), Token(9)));
        response
    }

    fn register(&mut self, id: i32) -> Result<(), ClusterError> {
        let endpoint = Endpoint {
            listener: "PLAINTEXT".to_owned(),
            protocol: "PLAINTEXT".to_owned(),
            host: "h".to_owned(),
            port: 9092,
        };
        match self.ask(Request::RegisterBroker {
            broker: Broker {
                id,
                rack: None,
                endpoints: vec![endpoint],
            },
        }) {
            Response::RegisterBroker(result) => result,
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, topic: NewTopic) -> Result<CreatedTopic, ClusterError> {
        match self.ask(Request::CreateTopics {
            topics: vec![topic],
            validate_only: false,
        }) {
            Response::CreateTopics(mut results) => results.remove(0).1,
            other => panic!("{other:?}"),
        }
    }

    fn delete(&mut self, topics: Vec<TopicRef>) -> Vec<DeletedTopic> {
        match self.ask(Request::DeleteTopics { topics }) {
            Response::DeleteTopics(results) => results,
            other => panic!("{other:?}"),
        }
    }

    fn grow(
        &mut self,
        topic: &str,
        count: i32,
        assignments: Option<Vec<Vec<i32>>>,
    ) -> Result<(), ClusterError> {
        let topics = vec![NewPartitions {
            topic: topic.to_owned(),
            count,
            assignments,
        }];
        match self.ask(Request::CreatePartitions {
            topics,
            validate_only: false,
        }) {
            Response::CreatePartitions(mut results) => results.remove(0).1,
            other => panic!("{other:?}"),
        }
    }

    fn change(
        &mut self,
        resource: ConfigResource,
        ops: &[(&str, i8, Option<&str>)],
    ) -> Result<(), ClusterError> {
        let ops = ops
            .iter()
            .map(|(name, op, value)| ConfigOp {
                name: (*name).to_owned(),
                op: *op,
                value: value.map(str::to_owned),
            })
            .collect();
        let resources = vec![ConfigChange { resource, ops }];
        match self.ask(Request::IncrementalAlterConfigs {
            resources,
            validate_only: false,
        }) {
            Response::IncrementalAlterConfigs(mut results) => results.remove(0).1,
            other => panic!("{other:?}"),
        }
    }

    fn producer(&mut self) -> i64 {
        match self.ask(Request::InitProducerId) {
            Response::InitProducerId(Ok(producer)) => producer.id.0,
            other => panic!("{other:?}"),
        }
    }

    fn commit_offset(&mut self, group: &str, topic: &str, offset: i64) {
        self.ask(commit_request(group, topic, 0, offset));
    }

    fn tree_ops(&mut self, ops: Vec<Op>) -> (Zxid, Result<Vec<OpResult>, MultiError>) {
        match self.ask(Request::CommitTreeOps { ops }) {
            Response::CommitTreeOps { zxid, result } => (zxid, result),
            other => panic!("{other:?}"),
        }
    }

    fn data(&self, path: &str) -> Option<&str> {
        self.core
            .tree()
            .data(path)?
            .map(|data| std::str::from_utf8(data).unwrap())
    }
}

fn commit_request(group: &str, topic: &str, partition: i32, offset: i64) -> Request {
    let partition = OffsetCommitPartition {
        partition,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(-1),
        metadata: None,
    };
    Request::Group(groups::Request::OffsetCommit(OffsetCommit {
        api_version: 9,
        group: group.to_owned(),
        generation: -1,
        member_id: String::new(),
        instance_id: None,
        retention_time_ms: -1,
        topics: vec![OffsetCommitTopic {
            topic: topic.to_owned(),
            partitions: vec![partition],
        }],
    }))
}

fn topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor: -1,
        ..NewTopic::default()
    }
}

fn topic_resource(name: &str) -> ConfigResource {
    ConfigResource::Topic(name.to_owned())
}

fn name(name: &str) -> TopicRef {
    TopicRef::Name(name.to_owned())
}

#[test]
fn the_first_start_lays_kafkas_tree() {
    let room = Room::new(&[]);
    for path in znodes::PERSISTENT {
        assert!(room.core.tree().exists(path), "{path}");
    }
    assert_eq!(room.data("/controller_epoch"), Some("1"));
    let id = znodes::read_cluster_id(room.data("/cluster/id").unwrap().as_bytes()).unwrap();
    assert_eq!(id.len(), 22);
    assert!(
        room.data("/brokers/ids/1")
            .unwrap()
            .contains("PLAINTEXT://h:9092")
    );
}

#[test]
fn a_topic_is_there_whole_in_the_tree_and_in_the_image() {
    let mut room = Room::new(&[("num.partitions", "3")]);
    let created = room.create(topic("orders", -1)).unwrap();
    assert_eq!((created.partitions, created.replication_factor), (3, 1));
    assert!(
        created
            .configs
            .iter()
            .any(|c| c.name == "retention.ms" && c.is_default())
    );

    let image = room.core.image();
    let orders = image.topic("orders").unwrap();
    assert_eq!(image.topic_by_id(created.id).unwrap(), orders);
    assert_eq!(orders.partitions.len(), 3);
    assert_eq!(orders.partition(2).unwrap().leader, Some(1));
    assert_eq!(orders.partition(3), None);
    assert_eq!(image.controller, Some(1));
    assert_eq!(
        room.data("/brokers/topics/orders/partitions/2/state"),
        Some(r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1]}"#)
    );
    assert_eq!(
        room.data("/config/topics/orders"),
        Some(r#"{"version":1,"config":{}}"#)
    );

    let again = room.restarted(&[], 8);
    let mut core = again.core;
    assert_eq!(core.image().topic("orders"), Some(orders));
    assert_eq!(core.image().cluster_id, image.cluster_id);
}

#[test]
fn what_createtopics_refuses() {
    let mut room = Room::new(&[]);
    room.create(topic("a.b", 1)).unwrap();
    let long = "x".repeat(250);
    let with = |replication_factor, configs: &[(&str, Option<&str>)]| NewTopic {
        replication_factor,
        configs: configs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), v.map(str::to_owned)))
            .collect(),
        ..topic("new", 1)
    };
    let assigned = |partitions, assignment: &[(i32, &[i32])]| NewTopic {
        assignment: assignment.iter().map(|(p, r)| (*p, r.to_vec())).collect(),
        ..topic("new", partitions)
    };
    let table: Vec<(NewTopic, i16)> = vec![
        (topic("", 1), 17),
        (topic(".", 1), 17),
        (topic("..", 1), 17),
        (topic("../x", 1), 17),
        (topic("a/b", 1), 17),
        (topic(&long, 1), 17),
        (topic("nul\0", 1), 17),
        (topic("line\n", 1), 17),
        (topic("\u{fc}", 1), 17),
        (topic("a_b", 1), 17),
        (topic("a.b", 1), 36),
        (topic("new", 0), 37),
        (topic("new", -5), 37),
        (topic("new", 1_000_000_000), 44),
        (topic("new", 10_000), 44),
        (with(2, &[]), 38),
        (with(0, &[]), 38),
        (with(-3, &[]), 38),
        (with(i16::MAX, &[]), 38),
        (with(1, &[("retention.ms", Some("soon"))]), 40),
        (with(1, &[("retention.ms", None)]), 40),
        (with(1, &[("retention.weeks", Some("1"))]), 40),
        (with(1, &[("cleanup.policy", Some("compact"))]), 40),
        (with(1, &[("cleanup.policy", Some(""))]), 40),
        (
            with(1, &[("segment.ms", Some("1")), ("segment.ms", Some("2"))]),
            42,
        ),
        (assigned(1, &[(0, &[1])]), 42),
        (
            NewTopic {
                replication_factor: 1,
                ..assigned(-1, &[(0, &[1])])
            },
            42,
        ),
        (assigned(-1, &[(1, &[1])]), 39),
        (assigned(-1, &[(0, &[1]), (0, &[1])]), 39),
        (assigned(-1, &[(-1, &[1]), (0, &[1])]), 39),
        (assigned(-1, &[(0, &[])]), 39),
        (assigned(-1, &[(0, &[2])]), 39),
        (assigned(-1, &[(0, &[1, 1])]), 39),
    ];
    let before = room.core.zxid();
    for (topic, code) in table {
        let error = room.create(topic.clone()).unwrap_err();
        assert_eq!(error.kind.code(), code, "{topic:?}: {error}");
    }
    assert_eq!(room.core.zxid(), before, "what is refused is not stored");
    assert_eq!(room.core.image().topics().len(), 1);
    room.create(topic(&"x".repeat(249), 1)).unwrap();
    room.create(assigned(-1, &[(1, &[1]), (0, &[1])])).unwrap();
}

#[test]
fn validate_only_tells_and_changes_nothing() {
    let mut room = Room::new(&[]);
    let before = room.core.zxid();
    let request = Request::CreateTopics {
        topics: vec![topic("a", 2), topic("..", 1)],
        validate_only: true,
    };
    let Response::CreateTopics(results) = room.ask(request) else {
        panic!()
    };
    let created = results[0].1.as_ref().unwrap();
    assert_eq!((created.id, created.partitions), (TopicId::ZERO, 2));
    assert_eq!(
        results[1].1.as_ref().unwrap_err().kind,
        Kind::InvalidTopicException
    );
    assert_eq!(room.core.zxid(), before);
    assert!(room.core.image().topic("a").is_none());
}

#[test]
fn a_name_twice_in_a_request_is_refused_both_times_and_the_others_are_done() {
    let mut room = Room::new(&[]);
    let topics = vec![topic("a", 1), topic("b", 1), topic("a", 2)];
    let Response::CreateTopics(results) = room.ask(Request::CreateTopics {
        topics,
        validate_only: false,
    }) else {
        panic!()
    };
    let codes: Vec<_> = results
        .iter()
        .map(|(_, r)| r.as_ref().err().map(|e| e.kind.code()))
        .collect();
    assert_eq!(codes, [Some(42), None, Some(42)]);

    let id = room.core.image().topic("b").unwrap().id;
    let deleted = room.delete(vec![name("b"), TopicRef::Id(id), name("a")]);
    let codes: Vec<_> = deleted
        .iter()
        .map(|d| d.result.as_ref().err().map(|e| e.kind.code()))
        .collect();
    assert_eq!(codes, [Some(42), Some(42), Some(3)]);
}

#[test]
fn the_limit_counts_what_is_there() {
    let mut room = Room::new(&[("max.broker.partitions", "5")]);
    room.create(topic("a", 3)).unwrap();
    assert_eq!(
        room.create(topic("b", 3)).unwrap_err().kind,
        Kind::PolicyViolation
    );
    room.create(topic("b", 2)).unwrap();
    assert_eq!(
        room.grow("b", 3, None).unwrap_err().kind,
        Kind::PolicyViolation
    );
    room.delete(vec![name("a")]);
    room.grow("b", 5, None).unwrap();
}

#[test]
fn a_deleted_topic_takes_its_nodes_and_its_offsets_along() {
    let mut room = Room::new(&[]);
    let first = room.create(topic("a", 2)).unwrap();
    room.create(topic("b", 1)).unwrap();
    room.commit_offset("g", "a", 42);
    room.commit_offset("g", "b", 7);
    assert_eq!(room.data("/consumers/g/offsets/a/0"), Some("42"));

    let deleted = room.delete(vec![TopicRef::Id(first.id)]);
    assert_eq!(
        deleted,
        [DeletedTopic {
            name: Some("a".to_owned()),
            id: first.id,
            result: Ok(())
        }]
    );
    for path in [
        "/brokers/topics/a",
        "/config/topics/a",
        "/consumers/g/offsets/a",
    ] {
        assert!(!room.core.tree().exists(path), "{path}");
    }
    assert_eq!(room.data("/consumers/g/offsets/b/0"), Some("7"));
    let gone = room.delete(vec![TopicRef::Id(first.id), name("a")]);
    assert_eq!(gone[0].result.as_ref().unwrap_err().kind.code(), 100);
    assert_eq!(gone[1].result.as_ref().unwrap_err().kind.code(), 3);

    let second = room.create(topic("a", 1)).unwrap();
    assert_ne!(
        first.id, second.id,
        "a topic of the same name is another topic"
    );
    assert!(room.core.image().topic_by_id(first.id).is_none());
}

#[test]
fn deletion_can_be_forbidden() {
    let mut room = Room::new(&[("delete.topic.enable", "false")]);
    room.create(topic("a", 1)).unwrap();
    let kind = room
        .delete(vec![name("a")])
        .remove(0)
        .result
        .unwrap_err()
        .kind;
    assert_eq!(kind.code(), 73);
}

#[test]
fn partitions_grow_and_never_shrink() {
    let mut room = Room::new(&[]);
    room.create(topic("a", 2)).unwrap();
    for (count, assignments, code) in [
        (2, None, 37),
        (1, None, 37),
        (0, None, 37),
        (-1, None, 37),
        (i32::MAX, None, 44),
        (4, Some(vec![vec![1]]), 39),
        (3, Some(vec![vec![2]]), 39),
        (3, Some(vec![vec![]]), 39),
    ] {
        let error = room.grow("a", count, assignments.clone()).unwrap_err();
        assert_eq!(error.kind.code(), code, "{count} {assignments:?}: {error}");
    }
    assert_eq!(room.grow("b", 2, None).unwrap_err().kind.code(), 3);
    room.grow("a", 3, None).unwrap();
    room.grow("a", 4, Some(vec![vec![1]])).unwrap();
    let image = room.core.image();
    let a = image.topic("a").unwrap();
    assert_eq!(a.partitions.len(), 4);
    assert!(a.partitions.iter().all(|p| p.leader == Some(1)));
    assert_eq!(room.restarted(&[], 8).core.image().topic("a"), Some(a));
}

#[test]
fn settings_change_one_by_one_or_all_at_once() {
    let mut room = Room::new(&[]);
    room.create(topic("a", 1)).unwrap();
    let a = || topic_resource("a");
    room.change(
        a(),
        &[
            ("retention.ms", 0, Some("1000")),
            ("segment.ms", 0, Some("60000")),
        ],
    )
    .unwrap();
    let retention = |room: &mut Room| room.core.image().topic("a").unwrap().config.retention_ms;
    assert_eq!(retention(&mut room), 1000);
    assert_eq!(
        room.data("/config/topics/a"),
        Some(r#"{"version":1,"config":{"retention.ms":"1000","segment.ms":"60000"}}"#)
    );
    room.change(a(), &[("retention.ms", 1, None)]).unwrap();
    assert_eq!(retention(&mut room), 604_800_000);
    room.change(a(), &[("cleanup.policy", 2, Some("delete"))])
        .unwrap();

    for (ops, code) in [
        (&[("retention.ms", 0, Some("x"))][..], 40),
        (&[("no.such", 0, Some("1"))], 40),
        (&[("no.such", 1, None)], 40),
        (&[("retention.ms", 0, None)], 42),
        (&[("retention.ms", 9, Some("1"))], 42),
        (
            &[
                ("retention.ms", 0, Some("1")),
                ("retention.ms", 0, Some("2")),
            ],
            42,
        ),
        (&[("retention.ms", 2, Some("1"))], 40),
        (&[("cleanup.policy", 2, Some("compact"))], 40),
        (&[("cleanup.policy", 3, Some("delete"))], 40),
        (
            &[("segment.ms", 0, Some("5")), ("retention.ms", 0, Some("x"))],
            40,
        ),
    ] {
        let error = room.change(a(), ops).unwrap_err();
        assert_eq!(error.kind.code(), code, "{ops:?}: {error}");
    }
    assert_eq!(
        room.core.image().topic("a").unwrap().config.segment_ms,
        60_000,
        "all or none of a resource"
    );
    assert_eq!(
        room.change(topic_resource("b"), &[])
            .unwrap_err()
            .kind
            .code(),
        3
    );
    assert_eq!(
        room.change(ConfigResource::from_wire(8, "1"), &[])
            .unwrap_err()
            .kind
            .code(),
        42
    );

    let replace = ConfigReplacement {
        resource: a(),
        configs: vec![("max.message.bytes".to_owned(), Some("5000".to_owned()))],
    };
    let request = Request::AlterConfigs {
        resources: vec![replace],
        validate_only: false,
    };
    assert_eq!(
        room.ask(request),
        Response::AlterConfigs(vec![(a(), Ok(()))])
    );
    let image = room.core.image();
    let topic = image.topic("a").unwrap();
    assert_eq!(
        (topic.config.max_message_bytes, topic.config.segment_ms),
        (5000, 604_800_000)
    );
    assert_eq!(topic.overrides.len(), 1);
}

#[test]
fn a_brokers_dynamic_setting_reaches_every_topic_that_inherits() {
    let mut room = Room::new(&[("log.retention.ms", "5000")]);
    room.create(topic("plain", 1)).unwrap();
    room.create(topic("own", 1)).unwrap();
    room.change(topic_resource("own"), &[("retention.ms", 0, Some("1"))])
        .unwrap();
    let all = ConfigResource::from_wire(4, "");
    let this = ConfigResource::from_wire(4, "1");
    room.change(all.clone(), &[("log.retention.ms", 0, Some("7000"))])
        .unwrap();
    let of =
        |room: &mut Room, name: &str| room.core.image().topic(name).unwrap().config.retention_ms;
    assert_eq!((of(&mut room, "plain"), of(&mut room, "own")), (7000, 1));
    room.change(this.clone(), &[("log.retention.ms", 0, Some("9000"))])
        .unwrap();
    assert_eq!(of(&mut room, "plain"), 9000);

    let query = |resource| ConfigQuery {
        resource,
        names: Some(vec!["log.retention.ms".to_owned()]),
    };
    let image = room.core.image();
    let entry = &image.describe_configs(&query(this.clone())).unwrap()[0];
    let sources: Vec<_> = entry.synonyms.iter().map(|s| s.source).collect();
    assert_eq!(
        sources,
        [
            ConfigSource::DynamicBroker,
            ConfigSource::DynamicDefaultBroker,
            ConfigSource::StaticBroker
        ]
    );
    let entry = &image.describe_configs(&query(all)).unwrap()[0];
    assert_eq!(
        (entry.value.as_deref(), entry.source),
        (Some("7000"), ConfigSource::DynamicDefaultBroker)
    );

    assert_eq!(
        room.change(this.clone(), &[("num.partitions", 0, Some("3"))])
            .unwrap_err()
            .kind
            .code(),
        42
    );
    assert_eq!(
        room.change(this.clone(), &[("retention.ms", 0, Some("3"))])
            .unwrap_err()
            .kind
            .code(),
        40
    );
    assert_eq!(
        room.change(ConfigResource::from_wire(4, "2"), &[])
            .unwrap_err()
            .kind
            .code(),
        42
    );
    assert_eq!(
        room.change(ConfigResource::from_wire(4, "x"), &[])
            .unwrap_err()
            .kind
            .code(),
        42
    );
    room.change(this, &[("log.retention.ms", 1, None)]).unwrap();
    assert_eq!(of(&mut room, "plain"), 7000);
    assert_eq!(of(&mut room.restarted(&[], 9), "plain"), 7000);
}

#[test]
fn describing_what_is_not_there_says_so() {
    let mut room = Room::new(&[]);
    let resources =
        [(2, "none"), (2, ".."), (4, "5"), (4, "x"), (8, "1")].map(|(kind, name)| ConfigQuery {
            resource: ConfigResource::from_wire(kind, name),
            names: None,
        });
    let Response::DescribeConfigs(results) = room.ask(Request::DescribeConfigs {
        resources: resources.into(),
    }) else {
        panic!()
    };
    let codes: Vec<_> = results
        .iter()
        .map(|(_, r)| r.as_ref().unwrap_err().kind.code())
        .collect();
    assert_eq!(codes, [3, 17, 42, 42, 42]);
    assert_eq!(results[3].0.to_wire(), (4, "x".to_owned()));
}

#[test]
fn producer_ids_never_come_twice() {
    let mut room = Room::new(&[]);
    let zxid = room.core.zxid();
    let first: Vec<i64> = (0..1001).map(|_| room.producer()).collect();
    assert_eq!(first, (0..1001).collect::<Vec<_>>());
    assert_eq!(
        room.core.zxid().0,
        zxid.0 + 2,
        "one write for a thousand ids"
    );
    assert!(
        room.data("/latest_producer_id_block")
            .unwrap()
            .contains(r#""block_end":"1999""#)
    );
    let mut again = room.restarted(&[], 8);
    assert_eq!(
        again.producer(),
        2000,
        "a restart forgets what was left of its block"
    );

    again
        .tree_ops(vec![Op::set(znodes::PRODUCER_IDS, "spoilt")])
        .1
        .unwrap();
    let mut spoilt = again.restarted(&[], 9);
    let Response::InitProducerId(Err(error)) = spoilt.ask(Request::InitProducerId) else {
        panic!()
    };
    assert_eq!(error.kind.code(), -1);
}

#[test]
fn data_belongs_to_the_broker_that_made_its_topics() {
    let mut room = Room::new(&[]);
    room.register(2).unwrap();
    assert_eq!(
        room.core
            .image()
            .brokers
            .keys()
            .copied()
            .collect::<Vec<_>>(),
        [2]
    );
    room.create(topic("a", 1)).unwrap();
    let error = room.register(1).unwrap_err();
    assert!(error.message.contains("broker.id=2"), "{error}");
    room.register(2).unwrap();
}

#[test]
fn what_a_zookeeper_client_writes_is_served_and_its_nonsense_is_not() {
    let mut room = Room::new(&[]);
    room.create(topic("a", 1)).unwrap();
    let json = znodes::topic_json(TopicId(77u128.to_be_bytes()), &[vec![1], vec![1]]);
    let (zxid, result) = room.tree_ops(vec![Op::create(
        "/brokers/topics/made-by-hand",
        json.clone(),
    )]);
    assert_eq!(zxid, room.core.zxid());
    result.unwrap();
    assert_eq!(
        room.core
            .image()
            .topic("made-by-hand")
            .unwrap()
            .partitions
            .len(),
        2
    );

    // A name that would leave the data folder, an id that is taken, a spoilt node.
    let other = znodes::topic_json(TopicId(78u128.to_be_bytes()), &[vec![1]]);
    room.tree_ops(vec![Op::create("/brokers/topics/a b", other)])
        .1
        .unwrap();
    room.tree_ops(vec![Op::create("/brokers/topics/second", json)])
        .1
        .unwrap();
    room.tree_ops(vec![Op::set("/brokers/topics/a", "oops")])
        .1
        .unwrap();
    let names: Vec<String> = room
        .core
        .image()
        .topics()
        .map(|t| t.name.to_string())
        .collect();
    assert_eq!(names, ["a", "made-by-hand"]);

    // The cluster's own nodes gone: an error, not a panic.
    let ops = ["/config/topics/a", "/config/topics"].map(Op::delete);
    room.tree_ops(ops.into()).1.unwrap();
    let error = room.create(topic("b", 1)).unwrap_err();
    assert_eq!(error.kind, Kind::UnknownServerError);
    let mut again = room.restarted(&[], 3);
    again.create(topic("b", 1)).unwrap();
}

#[test]
fn a_failed_write_has_a_zxid_too() {
    let mut room = Room::new(&[]);
    let before = room.core.zxid();
    let (zxid, result) = room.tree_ops(vec![Op::create("/x", ""), Op::delete("/nowhere")]);
    assert_eq!(result.unwrap_err().index, 1);
    assert_eq!((zxid, room.core.zxid()), (before.next(), before.next()));
    assert!(!room.core.tree().exists("/x"));
}

#[test]
fn an_answer_waits_for_every_change_that_it_may_have_seen() {
    let mut room = Room::new(&[]);
    room.core.step(
        Token(1),
        Request::CreateTopics {
            topics: vec![topic("a", 1)],
            validate_only: false,
        },
        at(5),
    );
    room.core.step(
        Token(2),
        Request::DescribeConfigs { resources: vec![] },
        at(5),
    );
    let output = room.core.take_output();
    let change = output.persist.last().unwrap().0;
    assert_eq!(
        output
            .send
            .iter()
            .map(|(z, t, _)| (*z, *t))
            .collect::<Vec<_>>(),
        [(change, Token(1)), (change, Token(2)),]
    );
    assert!(output.image.unwrap().topic("a").is_some());
    assert!(
        room.core.take_output().image.is_none(),
        "an image is told once"
    );
}

#[test]
fn an_image_shares_what_did_not_change() {
    let mut room = Room::new(&[]);
    room.create(topic("a", 1)).unwrap();
    let before = room.core.image();
    room.create(topic("b", 1)).unwrap();
    let after = room.core.image();
    assert!(Arc::ptr_eq(
        before.topic("a").unwrap(),
        after.topic("a").unwrap()
    ));
    assert!(
        before.topic("b").is_none(),
        "an image that was given out stays as it was"
    );
    assert!(Arc::ptr_eq(
        &after.topic("a").unwrap().config,
        &after.topic("b").unwrap().config
    ));
}

#[test]
fn a_snapshot_that_was_cut_or_damaged_is_refused() {
    let mut room = Room::new(&[]);
    room.create(topic("a", 1)).unwrap();
    room.commit_offset("g", "a", 3);
    let whole = room.core.snapshot();
    Core::restore(config(&[]), &whole).unwrap();
    for len in [0, 3, 4, 11, 12, whole.len() / 2, whole.len() - 1] {
        assert!(
            Core::restore(config(&[]), &whole[..len]).is_err(),
            "cut to {len}"
        );
    }
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        assert!(Core::restore(config(&[]), &damaged).is_err(), "byte {at}");
    }
}

#[test]
fn an_ephemeral_node_in_the_way_stops_the_start_with_its_name() {
    let mut room = Room::new(&[]);
    let Op::Create {
        path,
        data,
        acl,
        sequential,
        ..
    } = Op::create("/admin", "")
    else {
        unreachable!()
    };
    let lifetime = Lifetime::Ephemeral(5);
    let squatter = Op::Create {
        path,
        data,
        acl,
        lifetime,
        sequential,
    };
    let ops = vec![
        Op::delete("/admin/delete_topics"),
        Op::delete("/admin"),
        squatter,
    ];
    room.tree_ops(ops).1.unwrap();
    let mut core = Core::new(config(&[]));
    for (zxid, command) in &room.log {
        core.apply(*zxid, command);
    }
    let error = core.start(at(9)).unwrap_err();
    assert!(error.message.contains("/admin/delete_topics"), "{error}");
}
