//! Cores with ports of their own (`--core-ports`): a client that goes where Metadata sends
//! it never crosses from core to core, and nobody is served worse who goes elsewhere.
//!
//! ```text
//!   Metadata --> node 1        127.0.0.1:A   core 0    orders-0, orders-2 ..
//!                node 1000001  127.0.0.1:B   core 1    orders-1, orders-3 ..
//!        |
//!   Produce, Fetch at the leader's   klamm profile: hop 0
//!                  at the other's    klamm profile: hop, each time
//! ```

use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
    FindCoordinatorRequest, IncrementalAlterConfigsRequest, ListGroupsRequest, MetadataRequest,
    MetadataResponse,
};
use klamm_tests::batch::Batch;
use klamm_tests::broker::{Broker, Setup, klamm};
use klamm_tests::cluster::{Cluster, WITHIN, eventually};
use klamm_tests::group::await_assignment;
use klamm_tests::wire::{Connection, text, topic};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CORE_1: i32 = 1_000_001;
const BROKER: i8 = 4;

fn with_ports(cores: &str) -> Setup {
    Broker::with()
        .flag("--cores", cores)
        .flag("--core-ports", "0")
        .setting("group.initial.rebalance.delay.ms", 0)
}

fn metadata(connection: &mut Connection, name: &str) -> MetadataResponse {
    let asked = MetadataRequestTopic::default().with_name(Some(topic(name)));
    let request = MetadataRequest::default()
        .with_topics(Some(vec![asked]))
        .with_allow_auto_topic_creation(false);
    connection.call(10, &request).expect("an answer")
}

/// Every node's address, by its id.
fn nodes(metadata: &MetadataResponse) -> BTreeMap<i32, SocketAddr> {
    let brokers = metadata.brokers.iter();
    brokers
        .map(|node| {
            let address = format!("{}:{}", node.host, node.port);
            (node.node_id.0, address.parse().expect("an address"))
        })
        .collect()
}

/// Each partition's leader, in their order; replicas and in-sync replicas are that node.
fn leaders(metadata: &MetadataResponse) -> Vec<i32> {
    let mut partitions = metadata.topics[0].partitions.clone();
    partitions.sort_by_key(|partition| partition.partition_index);
    let leader = |partition: &_| {
        let kafka_protocol::messages::metadata_response::MetadataResponsePartition {
            error_code,
            leader_id,
            replica_nodes,
            isr_nodes,
            offline_replicas,
            ..
        } = partition;
        assert_eq!(*error_code, 0);
        assert_eq!(
            (replica_nodes, isr_nodes),
            (&vec![*leader_id], &vec![*leader_id])
        );
        assert!(offline_replicas.is_empty());
        leader_id.0
    };
    partitions.iter().map(leader).collect()
}

fn open(address: SocketAddr) -> Connection {
    Connection::open(address).expect("connect to a node")
}

fn produce(client: &mut Connection, partition: i32, times: usize) {
    for n in 0..times {
        let batch = Batch::of(&[format!("record {n}")]).encode();
        assert_eq!(client.produce("orders", partition, batch).0, 0);
    }
}

/// How many requests of an API there were, and how often one crossed to another core.
fn requests_and_hops(broker: &Broker, api: &str) -> (u64, u64) {
    let output = Command::new(klamm())
        .arg("profile")
        .arg("--data")
        .arg(broker.data())
        .args(["--once", "--json"])
        .stdin(Stdio::null())
        .output()
        .expect("run klamm profile");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let look: Value = serde_json::from_slice(&output.stdout).expect("one object");
    let apis = look["apis"].as_array().expect("a list");
    let Some(api) = apis.iter().find(|of| of["api"] == api) else {
        return (0, 0);
    };
    let count = |of: &Value| of["count"].as_u64().unwrap_or(0);
    (count(&api["total"]), count(&api["parts"]["hop"]))
}

#[test]
fn what_is_asked_of_the_leader_crosses_to_no_other_core() {
    const EACH: usize = 10;
    let broker = with_ports("2").start();
    let mut client = broker.connect();
    client.create_topic("orders", 4, &[]);
    let told = metadata(&mut client, "orders");
    let (nodes, leaders) = (nodes(&told), leaders(&told));
    assert_eq!(nodes.keys().copied().collect::<Vec<_>>(), [1, CORE_1]);
    assert_eq!(told.controller_id.0, 1);
    assert!(nodes[&1] != nodes[&CORE_1], "two cores, two ports");
    assert!(nodes.values().all(|node| *node != broker.address()));
    assert_eq!(leaders[..2], leaders[2..], "they go round the cores");
    assert_ne!(leaders[0], leaders[1]);

    for (partition, leader) in (0..).zip(&leaders) {
        let mut there = open(nodes[leader]);
        produce(&mut there, partition, EACH);
        assert_eq!(there.read_all("orders", partition).len(), EACH);
    }
    let (produced, hops) = requests_and_hops(&broker, "Produce");
    assert_eq!((produced, hops), (4 * EACH as u64, 0));
    let (fetched, hops) = requests_and_hops(&broker, "Fetch");
    assert!(fetched >= 4, "{fetched}");
    assert_eq!(hops, 0);

    for (partition, leader) in (0..).zip(&leaders) {
        let other = if *leader == 1 { CORE_1 } else { 1 };
        let mut elsewhere = open(nodes[&other]);
        produce(&mut elsewhere, partition, EACH);
        assert_eq!(elsewhere.read_all("orders", partition).len(), 2 * EACH);
    }
    let (all, hops) = requests_and_hops(&broker, "Produce");
    assert_eq!(all, 2 * produced);
    assert!(hops >= produced, "{hops} of {produced} crossed");
    let (all, hops) = requests_and_hops(&broker, "Fetch");
    assert_eq!(all, 2 * fetched);
    assert!(hops >= fetched, "{hops} of {fetched} crossed");
}

/// One resource of a broker's kind: the code, and the values by their names.
fn broker_settings(client: &mut Connection, node: &str) -> (i16, BTreeMap<String, Option<String>>) {
    let asked = DescribeConfigsResource::default()
        .with_resource_type(BROKER)
        .with_resource_name(text(node));
    let request = DescribeConfigsRequest::default().with_resources(vec![asked]);
    let answer = client.call(1, &request).expect("an answer");
    let result = &answer.results[0];
    assert_eq!(result.resource_name, text(node));
    let configs = result.configs.iter();
    let value = |text: &kafka_protocol::protocol::StrBytes| text.to_string();
    let values = configs.map(|c| (c.name.to_string(), c.value.as_ref().map(value)));
    (result.error_code, values.collect())
}

#[test]
fn tools_see_a_node_for_each_core_and_everything_once() {
    let broker = with_ports("2").start();
    let mut client = broker.connect();
    client.create_topic("orders", 2, &[]);
    let told = nodes(&metadata(&mut client, "orders"));

    let cluster = client.call(0, &DescribeClusterRequest::default());
    let cluster = cluster.expect("an answer");
    let described = cluster.brokers.iter().map(|node| {
        let address = format!("{}:{}", node.host, node.port);
        (node.broker_id.0, address.parse().expect("an address"))
    });
    assert_eq!(described.collect::<BTreeMap<_, _>>(), told);
    assert_eq!(cluster.controller_id.0, 1);

    let request = FindCoordinatorRequest::default().with_key(text("readers"));
    let found = client.call(2, &request).expect("an answer");
    assert_eq!((found.error_code, found.node_id.0), (0, 1));
    assert_eq!(found.port, i32::from(told[&1].port()));

    // A member that is alone, so that there is a group.
    let member = consumer(&broker.bootstrap(), "readers");
    await_assignment(&[&member], 2);
    let groups = |address| {
        let listed = open(address).call(3, &ListGroupsRequest::default());
        let listed = listed.expect("an answer");
        assert_eq!(listed.error_code, 0);
        let groups = listed.groups.iter();
        groups.map(|g| g.group_id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(groups(told[&1]), ["readers"]);
    assert!(groups(told[&CORE_1]).is_empty());
    assert_eq!(groups(broker.address()), ["readers"]);
    // librdkafka asks all nodes, and puts what they say side by side.
    let all = member.fetch_group_list(None, WITHIN).expect("groups");
    assert_eq!(all.groups().len(), 1);

    // A replica is a broker's: which of its cores has it is not for a client to choose.
    let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![BrokerId(CORE_1)]);
    let by_hand = CreatableTopic::default()
        .with_name(topic("by-hand"))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_assignments(vec![assignment]);
    let request = CreateTopicsRequest::default().with_topics(vec![by_hand]);
    let created = client.call(5, &request).expect("an answer");
    let message = created.topics[0].error_message.as_deref().unwrap_or("");
    assert_eq!(created.topics[0].error_code, 39, "{message}");
    assert!(message.contains("1000001"), "{message}");

    for address in told.values() {
        let mut node = open(*address);
        let (code, of_core) = broker_settings(&mut node, &CORE_1.to_string());
        let (_, of_broker) = broker_settings(&mut node, "1");
        assert_eq!((code, &of_core), (0, &of_broker));
        assert_eq!(of_core["broker.id"].as_deref(), Some("1"));
        assert_ne!(broker_settings(&mut node, "2000001").0, 0, "there is none");

        let change = AlterableConfig::default()
            .with_name(text("log.retention.ms"))
            .with_value(Some(text("1000")));
        let resource = AlterConfigsResource::default()
            .with_resource_type(BROKER)
            .with_resource_name(text(&CORE_1.to_string()))
            .with_configs(vec![change]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = node.call(0, &request).expect("an answer");
        let refused = &answer.responses[0];
        let message = refused.error_message.as_deref().unwrap_or("");
        assert_eq!(refused.error_code, 42);
        assert!(message.contains("is a core of broker 1"), "{message}");
    }
}

#[test]
fn the_number_of_cores_may_change_and_the_ports_may_go() {
    let mut broker = with_ports("2").start();
    broker.connect().create_topic("orders", 6, &[]);
    let mut there = 0;
    for (cores, ids) in [
        (Some("2"), &[1, CORE_1][..]),
        (Some("3"), &[1, CORE_1, 2_000_001]),
        (Some("1"), &[1]),
        (None, &[1]),
        (Some("2"), &[1, CORE_1]),
    ] {
        broker.change(match cores {
            Some(cores) => with_ports(cores),
            None => Broker::with().flag("--cores", "2"),
        });
        broker.restart();
        let told = metadata(&mut broker.connect(), "orders");
        let nodes = nodes(&told);
        assert_eq!(nodes.keys().copied().collect::<Vec<_>>(), ids);
        let is_shared = |node: &SocketAddr| *node == broker.address();
        assert!(
            nodes
                .values()
                .all(|node| is_shared(node) == cores.is_none())
        );
        let leaders = leaders(&told);
        assert_eq!(leaders.iter().collect::<BTreeSet<_>>().len(), ids.len());
        there += 1;
        for (partition, leader) in (0..).zip(&leaders) {
            let mut client = open(nodes[leader]);
            produce(&mut client, partition, 1);
            assert_eq!(client.read_all("orders", partition).len(), there);
        }
        let (_, hops) = requests_and_hops(&broker, "Produce");
        assert!(cores.is_none() || hops == 0, "{cores:?}: {hops}");
    }
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("log_level", "2");
    config
}

fn consumer(bootstrap: &str, group: &str) -> BaseConsumer {
    let consumer: BaseConsumer = client(bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .expect("a member");
    consumer.subscribe(&["orders"]).expect("a subscription");
    consumer
}

#[test]
fn librdkafka_goes_to_the_cores_by_itself() {
    const RECORDS: i32 = 600;
    const PARTITIONS: i32 = 6;
    let broker = with_ports("2").start();
    let mut by_hand = broker.connect();
    by_hand.create_topic("orders", PARTITIONS, &[]);
    let members = [(); 2].map(|()| consumer(&broker.bootstrap(), "readers"));
    await_assignment(&[&members[0], &members[1]], PARTITIONS as usize);

    let producer: BaseProducer = client(&broker.bootstrap())
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .create()
        .expect("a producer");
    for n in 0..RECORDS {
        let payload = n.to_string();
        let record = BaseRecord::<(), str>::to("orders").partition(n % PARTITIONS);
        producer.send(record.payload(&payload)).expect("room");
    }
    producer.flush(WITHIN).expect("acknowledged");
    assert_eq!(producer.in_flight_count(), 0);

    let deadline = Instant::now() + WITHIN;
    let mut seen = BTreeSet::new();
    while seen.len() < RECORDS as usize {
        assert!(Instant::now() < deadline, "{} of {RECORDS}", seen.len());
        for member in &members {
            if let Some(message) = member.poll(Duration::from_millis(5)) {
                let message = message.expect("a record");
                let value = message.payload().expect("a value").to_vec();
                assert!(seen.insert(value), "each once");
            }
        }
    }
    for member in &members {
        member
            .commit_consumer_state(CommitMode::Sync)
            .expect("committed");
    }
    for api in ["Produce", "Fetch"] {
        let (requests, hops) = requests_and_hops(&broker, api);
        assert!(requests >= 2, "{api}: {requests}");
        assert_eq!(hops, 0, "{api}: of {requests}");
    }
}

#[test]
fn brokers_of_one_cluster_tell_of_each_others_cores() {
    let mut cluster = Cluster::hosted(2, &with_ports("2"));
    let all = [1, 2, CORE_1, 1_000_002];
    for id in [1, 2] {
        eventually("the cores of both are known", || {
            let told = metadata(&mut cluster.broker(id).connect(), "none");
            let ids: Vec<i32> = nodes(&told).into_keys().collect();
            if ids == all {
                Ok(())
            } else {
                Err(format!("{ids:?}"))
            }
        });
    }
    // Which core of a broker a topic begins at is its id's doing: until each had its turn.
    let mut led = BTreeSet::new();
    for n in 0..64 {
        let name = format!("orders-{n}");
        let mut client = cluster.broker(1).connect();
        let (code, why) = client.try_create_topic(&name, 2, 1, &[]);
        assert_eq!(code, 0, "{why}");
        let told = eventually("both know the topic", || {
            let [one, two] = [1, 2].map(|id| metadata(&mut cluster.broker(id).connect(), &name));
            match one.topics[0].error_code == 0 && one == two {
                true => Ok(one),
                false => Err(format!("{one:?} and {two:?}")),
            }
        });
        let nodes = nodes(&told);
        for (partition, leader) in (0..).zip(leaders(&told)) {
            let mut there = open(nodes[&leader]);
            eventually("the leader has opened it", || {
                match there.produce(&name, partition, Batch::of(&["x"]).encode()) {
                    (0, _) => Ok(()),
                    (code, _) => Err(code.to_string()),
                }
            });
            led.insert(leader);
        }
        if led == all.into() {
            break;
        }
    }
    assert_eq!(led, all.into());
    for id in [1, 2] {
        let (requests, hops) = requests_and_hops(cluster.broker(id), "Produce");
        assert!(requests >= 2 && hops == 0, "{hops} of {requests}");
    }
}

#[test]
fn ports_that_cannot_be_had_are_refused_by_name() {
    let broker = Broker::with().prepare();
    let listen = broker.address();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("its address").port();
    for (first, says) in [
        (taken.to_string(), format!("127.0.0.1:{taken} is taken")),
        (listen.port().to_string(), "that of --listen".to_owned()),
        (
            (listen.port() - 1).to_string(),
            "that of --listen".to_owned(),
        ),
        ("65535".to_owned(), "65536".to_owned()),
        ("many".to_owned(), "the first port".to_owned()),
    ] {
        let output = Command::new(klamm())
            .args(["serve", "--cores", "2", "--coordinator-listen", "none"])
            .args(["--listen", &listen.to_string(), "--core-ports", &first])
            .arg("--data")
            .arg(broker.data())
            .stdin(Stdio::null())
            .output()
            .expect("run klamm serve");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{first}: {said}");
        assert!(said.contains(&says), "{first}: {said}");
        assert!(
            said.contains("core-ports") || said.contains("core.ports"),
            "{said}"
        );
    }
}
