//! Topics, partitions, settings, ids: changed, restarted, killed, and still so.

use kafka_protocol::messages::alter_configs_request::{
    AlterConfigsResource as ReplacedResource, AlterableConfig as ReplacedConfig,
};
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::{
    AlterConfigsRequest, CreatePartitionsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeClusterRequest, DescribeConfigsRequest, FindCoordinatorRequest,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, MetadataRequest, TransactionalId,
};
use klamm_tests::batch::Batch;
use klamm_tests::broker::Broker;
use klamm_tests::client::{EARLIEST, LATEST};
use klamm_tests::wire::{Connection, text, topic};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use uuid::Uuid;

const TOPIC: i8 = 2;

/// What Metadata says of a topic, without leave to create it.
fn metadata(connection: &mut Connection, name: &str) -> MetadataResponseTopic {
    let asked = MetadataRequestTopic::default().with_name(Some(topic(name)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![asked]))
        .with_allow_auto_topic_creation(false);
    let response = connection.call(10, &request).expect("an answer");
    response.topics.into_iter().next().expect("one topic")
}

/// A topic setting's value and where it comes from (1 the topic, 5 the default).
fn setting(connection: &mut Connection, topic: &str, name: &str) -> (String, i8) {
    let asked = DescribeConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(topic))
        .with_configuration_keys(Some(vec![text(name)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![asked]);
    let response = connection.call(1, &request).expect("an answer");
    let config = &response.results[0].configs[0];
    (
        config.value.as_deref().unwrap_or("").to_owned(),
        config.config_source,
    )
}

fn grow(connection: &mut Connection, version: i16, topics: &[(&str, i32)]) -> Vec<(String, i16)> {
    let topics = topics.iter().map(|&(name, count)| {
        CreatePartitionsTopic::default()
            .with_name(topic(name))
            .with_count(count)
            .with_assignments(None)
    });
    let request = CreatePartitionsRequest::default()
        .with_topics(topics.collect())
        .with_timeout_ms(10_000);
    let response = connection.call(version, &request).expect("an answer");
    let results = response.results.into_iter();
    results
        .map(|r| (r.name.to_string(), r.error_code))
        .collect()
}

fn delete_records(connection: &mut Connection, name: &str, before: i64) -> (i16, i64) {
    let partition = DeleteRecordsPartition::default().with_offset(before);
    let asked = DeleteRecordsTopic::default()
        .with_name(topic(name))
        .with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default()
        .with_topics(vec![asked])
        .with_timeout_ms(10_000);
    let response = connection.call(1, &request).expect("an answer");
    let result = &response.topics[0].partitions[0];
    (result.error_code, result.low_watermark)
}

/// Retries what a partition that is being opened answers with 6.
fn produce(connection: &mut Connection, name: &str, partition: i32) -> i64 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match connection.produce(name, partition, Batch::of(&["x"]).encode()) {
            (0, offset) => return offset,
            (6, _) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            (code, _) => panic!("{name}-{partition}: {code}"),
        }
    }
}

#[test]
fn a_topic_and_what_was_changed_of_it_outlive_a_stop_and_a_kill() {
    let mut broker = Broker::start();
    let mut connection = broker.connect();
    connection.create_topic("orders", 2, &[("retention.ms", "3600000")]);
    for _ in 0..5 {
        produce(&mut connection, "orders", 0);
    }

    let results = grow(&mut connection, 0, &[("orders", 4), ("gone", 9)]);
    assert_eq!(results, [("orders".to_owned(), 0), ("gone".to_owned(), 3)]);
    for (version, count) in [(1, 4), (2, 3), (3, 0)] {
        let results = grow(&mut connection, version, &[("orders", count)]);
        assert_eq!(results, [("orders".to_owned(), 37)], "{count} is not more");
    }
    assert_eq!(
        produce(&mut connection, "orders", 3),
        0,
        "the new one takes records"
    );

    let change = |name: &str, op, value: Option<&str>| {
        AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(op)
            .with_value(value.map(text))
    };
    let orders = AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text("orders"))
        .with_configs(vec![
            change("max.message.bytes", 0, Some("2000")),
            change("retention.ms", 1, None),
        ]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![orders]);
    let response = connection.call(1, &request).expect("an answer");
    assert_eq!(response.responses[0].error_code, 0);

    assert_eq!(delete_records(&mut connection, "orders", 6).0, 1);
    assert_eq!(delete_records(&mut connection, "orders", 3), (0, 3));

    let id = metadata(&mut connection, "orders").topic_id;
    for how in ["as changed", "after a stop", "after a kill"] {
        match how {
            "after a stop" => broker.restart(),
            "after a kill" => {
                broker.kill9();
                broker.start_again();
            }
            _ => {}
        }
        let mut connection = broker.connect();
        let orders = metadata(&mut connection, "orders");
        assert_eq!((orders.topic_id, orders.partitions.len()), (id, 4), "{how}");
        let bytes = setting(&mut connection, "orders", "max.message.bytes");
        assert_eq!(bytes, ("2000".to_owned(), 1), "{how}");
        let retention = setting(&mut connection, "orders", "retention.ms");
        assert_eq!(retention, ("604800000".to_owned(), 5), "{how}");
        assert_eq!(
            connection.list_offset("orders", 0, EARLIEST),
            (0, 3),
            "{how}"
        );
        assert_eq!(connection.list_offset("orders", 0, LATEST), (0, 5), "{how}");
        assert_eq!(connection.list_offset("orders", 3, LATEST), (0, 1), "{how}");
        let large = Batch::of(&[vec![b'x'; 3_000]]).encode();
        assert_eq!(
            connection.produce("orders", 0, large),
            (10, -1),
            "{how}: it holds"
        );
    }
}

#[test]
fn alter_configs_sets_what_it_names_and_resets_the_rest() {
    let broker = Broker::start();
    let mut connection = broker.connect();
    connection.create_topic(
        "orders",
        1,
        &[("retention.ms", "5000"), ("segment.ms", "6000")],
    );
    for (version, value) in [(0, "7000"), (1, "8000"), (2, "9000")] {
        let config = ReplacedConfig::default()
            .with_name(text("segment.ms"))
            .with_value(Some(text(value)));
        let orders = ReplacedResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text("orders"))
            .with_configs(vec![config]);
        let mut request = AlterConfigsRequest::default().with_resources(vec![orders]);
        request.validate_only = true;
        let response = connection.call(version, &request).expect("an answer");
        assert_eq!(response.responses[0].error_code, 0);
        assert_ne!(
            setting(&mut connection, "orders", "segment.ms").0,
            value,
            "only looked at"
        );

        request.validate_only = false;
        let response = connection.call(version, &request).expect("an answer");
        assert_eq!(response.responses[0].error_code, 0);
        assert_eq!(
            setting(&mut connection, "orders", "segment.ms"),
            (value.to_owned(), 1)
        );
        assert_eq!(setting(&mut connection, "orders", "retention.ms").1, 5);
    }
}

#[test]
fn a_deleted_topic_is_gone_and_its_namesake_is_another() {
    let mut broker = Broker::start();
    let mut connection = broker.connect();
    let mut ids = HashSet::new();
    for version in 1..=6 {
        connection.create_topic("orders", 2, &[]);
        let id = metadata(&mut connection, "orders").topic_id;
        assert!(ids.insert(id) && !id.is_nil());
        assert_eq!(produce(&mut connection, "orders", 1), 0, "it begins empty");
        let mut request = DeleteTopicsRequest::default().with_timeout_ms(10_000);
        if version < 6 {
            request.topic_names = vec![topic("orders"), topic("gone")];
        } else {
            let by_id = |id: Uuid| {
                DeleteTopicState::default()
                    .with_name(None)
                    .with_topic_id(id)
            };
            request.topics = vec![by_id(id), by_id(Uuid::from_u128(1))];
        }
        let response = connection.call(version, &request).expect("an answer");
        let codes: Vec<_> = response.responses.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, if version < 6 { [0, 3] } else { [0, 100] });
        assert_eq!(metadata(&mut connection, "orders").error_code, 3);
        let again = connection.produce("orders", 1, Batch::of(&["x"]).encode());
        assert_eq!(again, (3, -1));
    }
    broker.restart();
    let mut connection = broker.connect();
    assert_eq!(metadata(&mut connection, "orders").error_code, 3);
    let left = std::fs::read_dir(broker.data())
        .expect("the data folder")
        .flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    let orders = left
        .iter()
        .filter(|n| n.to_string_lossy().starts_with("orders-"));
    assert_eq!(orders.count(), 0, "{left:?}");
}

#[test]
fn ids_stay_and_producer_ids_are_never_given_twice() {
    let mut broker = Broker::start();
    let mut connection = broker.connect();
    let cluster = |connection: &mut Connection| {
        let request = DescribeClusterRequest::default();
        let response = connection.call(0, &request).expect("an answer");
        assert_eq!(response.brokers.len(), 1);
        assert_eq!(response.controller_id, response.brokers[0].broker_id);
        response.cluster_id.to_string()
    };
    let id = cluster(&mut connection);
    assert_eq!(id.len(), 22, "{id}");
    let mut given = HashSet::new();
    for round in 0..3 {
        for version in 0..=4 {
            let request = InitProducerIdRequest::default().with_transactional_id(None);
            let response = connection.call(version, &request).expect("an answer");
            assert_eq!((response.error_code, response.producer_epoch), (0, 0));
            assert!(given.insert(response.producer_id.0), "twice: {given:?}");
        }
        match round {
            0 => broker.restart(),
            _ => {
                broker.kill9();
                broker.start_again();
            }
        }
        connection = broker.connect();
        assert_eq!(cluster(&mut connection), id);
    }
}

#[test]
fn a_transactional_producer_hears_at_once_that_there_are_no_transactions() {
    let broker = Broker::start();
    let mut connection = broker.connect();
    let request = FindCoordinatorRequest::default()
        .with_key(text("tx"))
        .with_key_type(1);
    let response = connection.call(2, &request).expect("an answer");
    assert_eq!(response.error_code, 53);
    let why = response.error_message.expect("why");
    assert!(why.contains("transaction"), "{why}");
    let id = Some(TransactionalId(text("tx")));
    let request = InitProducerIdRequest::default().with_transactional_id(id);
    let response = connection.call(4, &request).expect("an answer");
    assert_eq!((response.error_code, response.producer_id.0), (53, -1));
}
