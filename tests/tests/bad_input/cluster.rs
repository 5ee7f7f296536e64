//! Topics and settings.

use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, MetadataRequest};
use klamm_tests::broker::Broker;
use klamm_tests::wire::{text, topic};

#[test]
fn a_name_that_is_none_is_invalid_and_makes_no_folder() {
    let broker = Broker::start();
    let mut connection = broker.connect();
    let long = "x".repeat(250);
    let names = [
        "", ".", "..", "../x", "a/b", &long, "a\0b", "a\nb", "a b", "ä", "a:b",
    ];
    for name in names {
        let (code, message) = connection.try_create_topic(name, 1, 1, &[]);
        assert_eq!(code, 17, "{name:?}: {message}");
        assert!(!message.is_empty());
    }
    // Asked for with leave to create it.
    for name in names {
        let asked = MetadataRequestTopic::default().with_name(Some(topic(name)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![asked]))
            .with_allow_auto_topic_creation(true);
        let response = connection.call(5, &request).expect("an answer");
        assert_eq!(response.topics[0].error_code, 17, "{name:?}");
    }
    assert!(!broker.data().join("../x-0").exists());
    let longest = "x".repeat(249);
    let (code, message) = connection.try_create_topic(&longest, 1, 1, &[]);
    assert_eq!(code, 0, "{message}");
}

#[test]
fn impossible_numbers_are_refused() {
    let broker = Broker::start();
    let mut connection = broker.connect();
    for (partitions, replicas, expected) in [
        (0, 1, 37),
        (-5, 1, 37),
        (i32::MIN, 1, 37),
        (1_000_000_000, 1, 44),
        (i32::MAX, 1, 44),
        (1, 2, 38),
        (1, 0, 38),
        (1, -2, 38),
        (1, i16::MAX, 38),
    ] {
        let (code, message) = connection.try_create_topic("orders", partitions, replicas, &[]);
        assert_eq!(code, expected, "{partitions} x {replicas}: {message}");
        assert!(!message.is_empty());
    }
    connection.create_topic("orders", 1, &[]);
    assert_eq!(connection.try_create_topic("orders", 1, 1, &[]).0, 36);
}

#[test]
fn a_bad_setting_is_refused_on_create_and_on_change() {
    let broker = Broker::start();
    let mut connection = broker.connect();
    let bad = [
        ("retention.ms", "soon"),
        ("retention.ms", "-2"),
        ("max.message.bytes", "99999999999"),
        ("cleanup.policy", "shred"),
        ("no.such.setting", "1"),
    ];
    for setting in bad {
        let (code, message) = connection.try_create_topic("orders", 1, 1, &[setting]);
        assert_eq!(code, 40, "{setting:?}: {message}");
        assert!(message.contains(setting.0), "{message}");
    }
    connection.create_topic("orders", 1, &[]);
    for (name, value) in bad {
        let change = AlterableConfig::default()
            .with_name(text(name))
            .with_config_operation(0)
            .with_value(Some(text(value)));
        let orders = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text("orders"))
            .with_configs(vec![change]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![orders]);
        let response = connection.call(0, &request).expect("an answer");
        assert_eq!(response.responses[0].error_code, 40, "{name}={value}");
    }
}
