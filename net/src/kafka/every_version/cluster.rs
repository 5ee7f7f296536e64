//! Topics, settings, coordinators and producer ids.

use super::{BROKER, Front, ORDERS, from, text, versions};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::alter_configs_request::{
    AlterConfigsResource as ReplacedResource, AlterableConfig as ReplacedConfig,
};
use kafka_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::{
    AlterConfigsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    FindCoordinatorRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, ProducerId,
    TopicName, TransactionalId,
};
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use klamm_coord::core::cluster::{
    ClusterError, ClusterErrorKind, ConfigChange, ConfigOp, ConfigReplacement, ConfigResource,
    CreatedTopic, DeletedTopic, NewPartitions, NewProducer, NewTopic, TopicRef,
};
use klamm_coord::core::coordinator::{Request, Response};
use klamm_coord::core::settings::{ConfigEntry, ConfigSource, ConfigSynonym};
use klamm_engine::config::LogConfig;
use klamm_engine::store::{Entry, PartitionSpec};
use klamm_engine::units::{LeaderEpoch, PartitionId, ProducerEpoch, ProducerId as Id, TopicId};
use uuid::Uuid;

const TOPIC: i8 = 2;
const BROKERS: i8 = 4;
const BROKER_LOGGER: i8 = 8;

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

fn refused(kind: ClusterErrorKind, message: &str) -> ClusterError {
    ClusterError {
        kind,
        message: message.to_owned(),
    }
}

fn setting(name: &'static str, value: &str) -> ConfigEntry {
    ConfigEntry {
        name,
        value: Some(value.to_owned()),
        source: ConfigSource::DynamicTopic,
        read_only: false,
        sensitive: false,
        config_type: 5,
        doc: "How long.",
        synonyms: vec![ConfigSynonym {
            name,
            value: Some(value.to_owned()),
            source: ConfigSource::DynamicTopic,
        }],
    }
}

#[test]
fn create_topics_asks_for_each_topic_once_and_tells_what_was_made() {
    for v in versions::<CreateTopicsRequest>() {
        let orders = CreatableTopic::default()
            .with_name(topic("sales"))
            .with_num_partitions(3)
            .with_replication_factor(1)
            .with_configs(vec![
                CreatableTopicConfig::default()
                    .with_name(text("retention.ms"))
                    .with_value(Some(text("1000"))),
                CreatableTopicConfig::default()
                    .with_name(text("segment.ms"))
                    .with_value(None),
            ]);
        let placed = CreatableTopic::default()
            .with_name(topic("placed"))
            .with_num_partitions(-1)
            .with_replication_factor(-1)
            .with_assignments(vec![
                CreatableReplicaAssignment::default()
                    .with_partition_index(0)
                    .with_broker_ids(vec![BrokerId(BROKER)]),
            ]);
        let twice = CreatableTopic::default().with_name(topic("twice"));
        let request = CreateTopicsRequest::default()
            .with_topics(vec![twice.clone(), orders, twice, placed])
            .with_validate_only(true);
        let made = CreatedTopic {
            id: TopicId([9; 16]),
            partitions: 3,
            replication_factor: 1,
            configs: vec![setting("retention.ms", "1000")],
        };
        let no = refused(
            ClusterErrorKind::InvalidReplicaAssignment,
            "there is no broker 3",
        );
        let answer = Response::CreateTopics(vec![
            ("sales".to_owned(), Ok(made)),
            ("placed".to_owned(), Err(no)),
        ]);
        let (asked, response) = Front::new().ask(v, &request, answer);
        let topics = vec![
            NewTopic {
                name: "sales".to_owned(),
                partitions: 3,
                replication_factor: 1,
                assignment: Vec::new(),
                configs: vec![
                    ("retention.ms".to_owned(), Some("1000".to_owned())),
                    ("segment.ms".to_owned(), None),
                ],
            },
            NewTopic {
                name: "placed".to_owned(),
                partitions: -1,
                replication_factor: -1,
                assignment: vec![(0, vec![BROKER])],
                configs: Vec::new(),
            },
        ];
        let validate_only = true;
        let expected = Request::CreateTopics {
            topics,
            validate_only,
        };
        assert_eq!(asked, expected);

        let [twice, sales, placed] = response.topics.as_slice() else {
            panic!("{response:?}")
        };
        assert_eq!((&**twice.name, twice.error_code), ("twice", 42));
        assert_eq!((&**sales.name, sales.error_code), ("sales", 0));
        assert_eq!(sales.error_message, None);
        assert_eq!(
            sales.topic_id,
            from(v, 7, Uuid::from_bytes([9; 16]), Uuid::nil())
        );
        assert_eq!(sales.num_partitions, from(v, 5, 3, -1));
        assert_eq!(sales.replication_factor, from(v, 5, 1, -1));
        let configs = sales.configs.clone().unwrap_or_default();
        let told = configs
            .iter()
            .map(|c| (&*c.name, c.value.as_deref(), c.config_source));
        let expected = from(v, 5, vec![("retention.ms", Some("1000"), 1)], Vec::new());
        assert_eq!(told.collect::<Vec<_>>(), expected);
        assert_eq!((&**placed.name, placed.error_code), ("placed", 39));
        assert_eq!(placed.error_message, Some(text("there is no broker 3")));

        let (_, response) = Front::new().ask(v, &request, None);
        let told: Vec<_> = response.topics.iter().map(|t| t.error_code).collect();
        assert_eq!(told, [42, 41, 41], "the coordinator is gone");
    }
}

#[test]
fn a_message_that_quotes_a_long_name_is_cut_to_what_the_wire_can_carry() {
    for v in versions::<CreateTopicsRequest>() {
        let name = "ä".repeat(16_000);
        let new = CreatableTopic::default().with_name(topic(&name));
        let request = CreateTopicsRequest::default().with_topics(vec![new]);
        let error = refused(
            ClusterErrorKind::InvalidTopicException,
            &format!("{name} {name}"),
        );
        let answer = Response::CreateTopics(vec![(name, Err(error))]);
        let (_, response) = Front::new().ask(v, &request, answer);
        assert_eq!(response.topics[0].error_code, 17);
        let message = response.topics[0].error_message.clone().unwrap();
        assert_eq!(message.chars().count(), 1_003);
    }
}

#[test]
fn delete_topics_names_them_before_version_6_and_takes_ids_from_there() {
    for v in versions::<DeleteTopicsRequest>() {
        let mut request = DeleteTopicsRequest::default();
        let orders_id = Uuid::from_bytes(ORDERS.0);
        let state = |name: Option<&str>, id: Uuid| {
            DeleteTopicState::default()
                .with_name(name.map(topic))
                .with_topic_id(id)
        };
        if v < 6 {
            request.topic_names = ["twice", "orders", "twice", "gone"].map(topic).to_vec();
        } else {
            request.topics = vec![
                state(Some("both"), orders_id),
                state(None, Uuid::nil()),
                state(Some("orders"), Uuid::nil()),
                state(None, Uuid::from_bytes([1; 16])),
                state(Some("twice"), Uuid::nil()),
                state(Some("twice"), Uuid::nil()),
            ];
        }
        let orders = DeletedTopic {
            name: Some("orders".to_owned()),
            id: ORDERS,
            result: Ok(()),
        };
        let gone = DeletedTopic {
            name: from(v, 6, None, Some("gone".to_owned())),
            id: from(v, 6, TopicId([1; 16]), TopicId::ZERO),
            result: Err(refused(
                from(
                    v,
                    6,
                    ClusterErrorKind::UnknownTopicId,
                    ClusterErrorKind::UnknownTopicOrPartition,
                ),
                "there is none",
            )),
        };
        let answer = Response::DeleteTopics(vec![orders, gone]);
        let (asked, response) = Front::new().ask(v, &request, answer);
        let missing = from(
            v,
            6,
            TopicRef::Id(TopicId([1; 16])),
            TopicRef::Name("gone".to_owned()),
        );
        let topics = vec![TopicRef::Name("orders".to_owned()), missing];
        assert_eq!(asked, Request::DeleteTopics { topics });

        let told: Vec<_> = response
            .responses
            .iter()
            .map(|r| (r.name.as_ref().map(|n| n.to_string()), r.error_code))
            .collect();
        let name = |n: &str| Some(n.to_owned());
        if v < 6 {
            assert_eq!(
                told,
                [(name("twice"), 42), (name("orders"), 0), (name("gone"), 3)]
            );
        } else {
            let expected = [
                (name("both"), 42),
                (None, 42),
                (name("twice"), 42),
                (name("orders"), 0),
                (None, 100),
            ];
            assert_eq!(told, expected);
            assert_eq!(response.responses[3].topic_id, orders_id);
        }
        let message = response.responses.last().unwrap().error_message.clone();
        assert_eq!(message, from(v, 5, Some(text("there is none")), None));
    }
}

#[test]
fn a_broker_that_does_not_delete_says_so_in_the_words_of_the_version() {
    for v in versions::<DeleteTopicsRequest>() {
        let mut request = DeleteTopicsRequest::default();
        if v < 6 {
            request.topic_names = vec![topic("orders")];
        } else {
            request.topics = vec![DeleteTopicState::default().with_name(Some(topic("orders")))];
        }
        let kept = DeletedTopic {
            name: Some("orders".to_owned()),
            id: ORDERS,
            result: Err(refused(
                ClusterErrorKind::TopicDeletionDisabled,
                "it is off",
            )),
        };
        let (_, response) = Front::new().ask(v, &request, Response::DeleteTopics(vec![kept]));
        assert_eq!(response.responses[0].error_code, from(v, 3, 73, 42));
    }
}

#[test]
fn create_partitions_has_one_result_for_each_topic() {
    for v in versions::<CreatePartitionsRequest>() {
        let more = |name, count| {
            CreatePartitionsTopic::default()
                .with_name(topic(name))
                .with_count(count)
        };
        let orders = more("orders", 4).with_assignments(Some(vec![
            CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(BROKER)]),
            CreatePartitionsAssignment::default().with_broker_ids(vec![BrokerId(BROKER)]),
        ]));
        let sales = more("sales", 1).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![
            orders,
            more("twice", 2),
            sales,
            more("twice", 3),
        ]);
        let answer = Response::CreatePartitions(vec![
            ("orders".to_owned(), Ok(())),
            (
                "sales".to_owned(),
                Err(refused(ClusterErrorKind::InvalidPartitions, "it has 2")),
            ),
        ]);
        let (asked, response) = Front::new().ask(v, &request, answer);
        let topics = vec![
            NewPartitions {
                topic: "orders".to_owned(),
                count: 4,
                assignments: Some(vec![vec![BROKER], vec![BROKER]]),
            },
            NewPartitions {
                topic: "sales".to_owned(),
                count: 1,
                assignments: None,
            },
        ];
        let validate_only = false;
        assert_eq!(
            asked,
            Request::CreatePartitions {
                topics,
                validate_only
            }
        );
        let told: Vec<_> = response
            .results
            .iter()
            .map(|r| (&**r.name, r.error_code, r.error_message.as_deref()))
            .collect();
        let expected = [
            ("twice", 42, Some("Duplicate topic name.")),
            ("orders", 0, None),
            ("sales", 37, Some("it has 2")),
        ];
        assert_eq!(told, expected);
    }
}

#[test]
fn delete_records_moves_the_log_start_and_refuses_what_it_cannot() {
    for v in versions::<DeleteRecordsRequest>() {
        let front = Front::new();
        let id = |index| PartitionId {
            topic: ORDERS,
            index,
        };
        let store = front.local.store.clone();
        front.sim.run(async {
            let specs = [0, 1].map(|index| PartitionSpec {
                id: id(index),
                topic: "orders".to_owned(),
                leader_epoch: LeaderEpoch(0),
                config: LogConfig::default(),
            });
            store.open_partitions(specs.to_vec()).await;
            let Some(Entry::Online(partition)) = store.get(&id(0)) else {
                panic!("opened")
            };
            for _ in 0..5 {
                let appended = partition.append(&a_batch()).unwrap();
                partition.acknowledged(appended.next_offset).await.unwrap();
            }
        });
        let ask = |partitions: &[(i32, i64)]| {
            let partitions = partitions.iter().map(|&(index, offset)| {
                DeleteRecordsPartition::default()
                    .with_partition_index(index)
                    .with_offset(offset)
            });
            let orders = DeleteRecordsTopic::default()
                .with_name(topic("orders"))
                .with_partitions(partitions.collect());
            let request = DeleteRecordsRequest::default().with_topics(vec![orders]);
            let response = front.call(v, &request);
            let results = response.topics[0].partitions.iter();
            let told = results.map(|r| (r.partition_index, r.error_code, r.low_watermark));
            told.collect::<Vec<_>>()
        };
        let told = ask(&[(0, 3), (9, 0), (1, 1), (1, -2)]);
        assert_eq!(told, [(0, 0, 3), (9, 3, -1), (1, 1, -1), (1, 1, -1)]);
        assert_eq!(
            ask(&[(0, -1), (1, -1)]),
            [(0, 0, 5), (1, 0, 0)],
            "the high watermark"
        );
        assert_eq!(ask(&[(0, 2)]), [(0, 0, 5)], "what is gone stays gone");
    }
}

/// One record of one byte, as a producer sends it.
fn a_batch() -> Vec<u8> {
    let records = [Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: TimestampType::Creation,
        offset: 0,
        sequence: -1,
        timestamp: 1_767_225_600_000,
        key: None,
        value: Some(Bytes::from_static(b"x")),
        headers: Default::default(),
    }];
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    let mut batch = BytesMut::new();
    RecordBatchEncoder::encode(&mut batch, &records, &options).unwrap();
    batch.to_vec()
}

#[test]
fn describe_configs_tells_as_much_as_it_was_asked_for() {
    for v in versions::<DescribeConfigsRequest>() {
        let asked_for = |kind, name: &str, keys: Option<Vec<&str>>| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
                .with_configuration_keys(keys.map(|k| k.into_iter().map(text).collect()))
        };
        for plain in [true, false] {
            let front = Front::new();
            let mut request = DescribeConfigsRequest::default()
                .with_resources(vec![
                    asked_for(BROKERS, "three", None),
                    asked_for(TOPIC, "orders", Some(vec!["retention.ms", "no.such"])),
                    asked_for(BROKERS, "9", Some(Vec::new())),
                    asked_for(TOPIC, "gone", None),
                    asked_for(TOPIC, "../x", None),
                    asked_for(TOPIC, "orders", Some(Vec::new())),
                ])
                .with_include_synonyms(!plain);
            request.include_documentation = v >= 3 && !plain;
            let response = front.call(v, &request);

            let codes: Vec<_> = response.results.iter().map(|r| r.error_code).collect();
            assert_eq!(codes, [42, 0, 42, 3, 17, 0]);
            assert!(response.results[2].error_message.is_some());
            let orders = &response.results[1];
            assert_eq!(
                (orders.resource_type, &*orders.resource_name),
                (TOPIC, "orders")
            );
            assert_eq!((orders.configs.len(), &orders.error_message), (1, &None));
            let config = &orders.configs[0];
            assert_eq!(
                (&*config.name, config.value.as_deref()),
                ("retention.ms", Some("604800000"))
            );
            assert_eq!(
                (config.config_source, config.config_type),
                (5, from(v, 3, 5, 0))
            );
            assert_eq!(config.synonyms.is_empty(), plain);
            let doc = config.documentation.clone().filter(|doc| !doc.is_empty());
            assert_eq!(doc.is_some(), v >= 3 && !plain);
            let all = &response.results[5].configs;
            assert!(all.len() > 20 && all.iter().any(|c| &*c.name == "max.message.bytes"));
        }
    }
}

#[test]
fn alter_configs_answers_in_the_order_of_the_request() {
    for v in versions::<AlterConfigsRequest>() {
        let resource = |kind, name: &str, settings: &[(&str, &str)]| {
            let configs = settings.iter().map(|(name, value)| {
                ReplacedConfig::default()
                    .with_name(text(name))
                    .with_value(Some(text(value)))
            });
            ReplacedResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
                .with_configs(configs.collect())
        };
        let request = AlterConfigsRequest::default().with_resources(vec![
            resource(TOPIC, "twice", &[]),
            resource(TOPIC, "orders", &[("retention.ms", "soon")]),
            resource(TOPIC, "twice", &[]),
            resource(
                TOPIC,
                "both",
                &[("retention.ms", "1"), ("retention.ms", "2")],
            ),
            resource(BROKER_LOGGER, "3", &[]),
            resource(BROKERS, "", &[("log.retention.ms", "5")]),
        ]);
        let sound = [
            ConfigResource::Topic("orders".to_owned()),
            ConfigResource::Other(BROKER_LOGGER, "3".to_owned()),
            ConfigResource::Broker(None),
        ];
        let verdicts = [
            Err(refused(ClusterErrorKind::InvalidConfig, "not a number")),
            Err(refused(ClusterErrorKind::InvalidRequest, "no loggers")),
            Ok(()),
        ];
        let answer = sound.clone().into_iter().zip(verdicts).collect();
        let (asked, response) = Front::new().ask(v, &request, Response::AlterConfigs(answer));
        let configs = [
            vec![("retention.ms".to_owned(), Some("soon".to_owned()))],
            Vec::new(),
            vec![("log.retention.ms".to_owned(), Some("5".to_owned()))],
        ];
        let pairs = sound.into_iter().zip(configs);
        let resources = pairs.map(|(resource, configs)| ConfigReplacement { resource, configs });
        let expected = Request::AlterConfigs {
            resources: resources.collect(),
            validate_only: false,
        };
        assert_eq!(asked, expected);
        let told: Vec<_> = response.responses.iter().map(|r| r.error_code).collect();
        assert_eq!(told, [42, 40, 42, 42, 42, 0]);
        assert_eq!(response.responses[5].error_message, None);
        assert_eq!(&*response.responses[1].resource_name, "orders");
    }
}

#[test]
fn incremental_alter_configs_passes_each_operation_on() {
    for v in versions::<IncrementalAlterConfigsRequest>() {
        let op = |name: &str, op, value: Option<&str>| {
            AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(op)
                .with_value(value.map(text))
        };
        let orders = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text("orders"))
            .with_configs(vec![
                op("retention.ms", 0, Some("5")),
                op("segment.ms", 1, None),
                op("cleanup.policy", 2, Some("compact")),
            ]);
        let request = IncrementalAlterConfigsRequest::default()
            .with_resources(vec![orders])
            .with_validate_only(true);
        let resource = ConfigResource::Topic("orders".to_owned());
        let answer = Response::IncrementalAlterConfigs(vec![(resource.clone(), Ok(()))]);
        let (asked, response) = Front::new().ask(v, &request, answer);
        let op = |name: &str, op, value: Option<&str>| ConfigOp {
            name: name.to_owned(),
            op,
            value: value.map(str::to_owned),
        };
        let ops = vec![
            op("retention.ms", 0, Some("5")),
            op("segment.ms", 1, None),
            op("cleanup.policy", 2, Some("compact")),
        ];
        let expected = Request::IncrementalAlterConfigs {
            resources: vec![ConfigChange { resource, ops }],
            validate_only: true,
        };
        assert_eq!(asked, expected);
        assert_eq!(response.responses[0].error_code, 0);

        let (_, response) = Front::new().ask(v, &request, None);
        assert_eq!(response.responses[0].error_code, 41);
    }
}

#[test]
fn describe_cluster_names_brokers_and_controller() {
    for v in versions::<DescribeClusterRequest>() {
        let request = DescribeClusterRequest::default();
        let response = Front::new().call(v, &request);
        assert_eq!(
            (response.error_code, &*response.cluster_id),
            (0, "klamm-klamm-klamm-klam")
        );
        assert_eq!(response.controller_id.0, BROKER);
        assert_eq!(response.cluster_authorized_operations, i32::MIN);
        let [broker] = response.brokers.as_slice() else {
            panic!("{response:?}")
        };
        assert_eq!((broker.broker_id.0, broker.port), (BROKER, 9092));
        assert_eq!(
            (&*broker.host, broker.rack.as_deref()),
            ("gorge.example", Some("left"))
        );

        let request = request.with_include_cluster_authorized_operations(true);
        let response = Front::new().call(v, &request);
        assert_eq!(response.cluster_authorized_operations, 0b1_1111_1010_0000);
        if v >= 1 {
            for (endpoints, code) in [(2, 114), (0, 115)] {
                let response = Front::new().call(v, &request.clone().with_endpoint_type(endpoints));
                assert_eq!(response.error_code, code);
            }
        }
    }
}

#[test]
fn find_coordinator_names_this_broker_for_groups_and_ends_transactional_producers() {
    for v in versions::<FindCoordinatorRequest>() {
        let keys = ["readers", "others"];
        let mut request = FindCoordinatorRequest::default();
        if v < 4 {
            request.key = text("readers");
        } else {
            request.coordinator_keys = keys.map(text).to_vec();
        }
        let response = Front::new().call(v, &request);
        if v < 4 {
            assert_eq!((response.error_code, response.node_id.0), (0, BROKER));
            assert_eq!((&*response.host, response.port), ("gorge.example", 9092));
        } else {
            let told = response
                .coordinators
                .iter()
                .map(|c| (&*c.key, c.error_code, c.node_id.0, c.port));
            assert_eq!(
                told.collect::<Vec<_>>(),
                keys.map(|key| (key, 0, BROKER, 9092))
            );
        }
        if v >= 1 {
            for (kind, code) in [(1, 53), (2, 42)] {
                let response = Front::new().call(v, &request.clone().with_key_type(kind));
                let (told, node, message) = match response.coordinators.first() {
                    None => (
                        response.error_code,
                        response.node_id.0,
                        response.error_message,
                    ),
                    Some(c) => (c.error_code, c.node_id.0, c.error_message.clone()),
                };
                assert_eq!((told, node), (code, -1));
                assert!(message.is_some_and(|message| !message.is_empty()));
            }
        }
    }
}

#[test]
fn init_producer_id_gives_a_new_number_and_refuses_transactional_ids() {
    for v in versions::<InitProducerIdRequest>() {
        let new = NewProducer {
            id: Id(1_000),
            epoch: ProducerEpoch(0),
        };
        let mut request = InitProducerIdRequest::default().with_transactional_id(None);
        if v >= 3 {
            request.producer_id = ProducerId(900);
            request.producer_epoch = 4;
        }
        let (asked, response) = Front::new().ask(v, &request, Response::InitProducerId(Ok(new)));
        assert_eq!(asked, Request::InitProducerId);
        let told = (
            response.error_code,
            response.producer_id.0,
            response.producer_epoch,
        );
        assert_eq!(told, (0, 1_000, 0));

        let (_, response) = Front::new().ask(v, &request, None);
        assert_eq!((response.error_code, response.producer_id.0), (15, -1));

        for (id, code) in [("tx", 53), ("", 42)] {
            let id = Some(TransactionalId(text(id)));
            let response = Front::new().call(v, &request.clone().with_transactional_id(id));
            assert_eq!((response.error_code, response.producer_id.0), (code, -1));
        }
        if v >= 3 {
            request.producer_epoch = -1;
            assert_eq!(
                Front::new().call(v, &request).error_code,
                42,
                "half of what it had"
            );
        }
    }
}
