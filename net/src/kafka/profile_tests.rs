//! Requests over a connection, on simulated shards and a simulated clock: what is
//! recorded of them, and that the parts explain the total.

use super::*;
use crate::kafka::limits::Limits;
use crate::kafka::testing::{Client, Front, batch};
use crate::profile::Snapshot;
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ApiVersionsRequest, BrokerId, FetchRequest, ProduceRequest};
use kafka_protocol::protocol::StrBytes;
use klamm_engine::io::sim::{Sim, SimIo};

fn orders() -> kafka_protocol::messages::TopicName {
    StrBytes::from_static_str("orders").into()
}

fn produce(acks: i16, batches: Vec<Bytes>) -> ProduceRequest {
    let data = batches.into_iter().enumerate().map(|(at, bytes)| {
        PartitionProduceData::default()
            .with_index(at as i32)
            .with_records(Some(bytes))
    });
    let topic = TopicProduceData::default()
        .with_name(orders())
        .with_partition_data(data.collect());
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic])
}

fn fetch(from: i64, wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(from)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(orders())
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

async fn snapshot(local: &Rc<Local<SimIo>>) -> Snapshot {
    let shards = collect(local).await.expect("it is on");
    assert_eq!(shards.len(), local.cores.count());
    Snapshot::merged(shards).expect("one at least")
}

/// A series' count and sum; nothing where it is not there.
fn of(snapshot: &Snapshot, group: &str, name: &str) -> (u64, u64) {
    let series = snapshot.get(group, name);
    series.map_or((0, 0), |s| (s.count(), s.sum()))
}

fn assert_explained(snapshot: &Snapshot, api: &str) {
    let parts: u64 = PARTS
        .iter()
        .map(|(_, name)| of(snapshot, api, name).1)
        .sum();
    assert_eq!(parts, of(snapshot, api, "total").1, "{api}: the parts' sum");
}

/// A story on one shard, and on three.
fn run<F: Future<Output = ()>>(story: impl Fn(&'static Front, Client) -> F) {
    for shards in [1, 3] {
        // For the whole test process: the story borrows it.
        let front: &'static Front =
            Box::leak(Box::new(Front::of_shards(shards, Limits::default())));
        front.sim.run(async {
            front.topics(&[("orders", 2)]).await;
            story(front, front.connect()).await;
        });
    }
}

#[test]
fn a_produce_is_explained_by_its_parts() {
    run(|front, client| async move {
        for _ in 0..5 {
            let batches = vec![batch(&client.io, &["a", "b"]), batch(&client.io, &["c"])];
            client.call(9, &produce(-1, batches)).await;
        }
        let snapshot = snapshot(&front.local).await;
        assert_eq!(of(&snapshot, "Produce", "total").0, 5);
        assert_eq!(of(&snapshot, "Produce", "request_bytes").0, 5);
        assert_explained(&snapshot, "Produce");
        let waited = of(&snapshot, "Produce", "write").1 + of(&snapshot, "Produce", "sync").1;
        assert!(waited > 0, "it waited for the disk");
        assert_eq!(of(&snapshot, "engine", "batch_records"), (10, 15));
        assert_eq!(of(&snapshot, "engine", "sync_batches").1, 10);
        let crossed = of(&snapshot, "Produce", "hop").0 > 0;
        assert_eq!(crossed, front.local.cores.count() > 1);
    });
}

#[test]
fn produces_that_share_rounds_are_explained_too() {
    run(|front, _| async move {
        let clients: Vec<Client> = (0..8).map(|_| front.connect()).collect();
        for round in 0..10 {
            let asked: Vec<i32> = clients
                .iter()
                .map(|c| c.ask(9, &produce(-1, vec![batch(&c.io, &["x"])])))
                .collect();
            if round % 2 == 0 {
                clients[0].settle().await;
            }
            for (client, id) in clients.iter().zip(asked) {
                client.answer::<ProduceRequest>(9, id).await;
            }
        }
        let snapshot = snapshot(&front.local).await;
        assert_eq!(of(&snapshot, "Produce", "total").0, 80);
        assert_explained(&snapshot, "Produce");
        let (syncs, batches) = of(&snapshot, "engine", "sync_batches");
        assert_eq!(batches, 80, "each batch was in one sync");
        assert!(syncs < 80, "and syncs were shared");
    });
}

#[test]
fn those_that_are_counted_together_are_all_counted() {
    let front = Front::of_shards(1, Limits::default());
    front.sim.run(async {
        let client = front.connect();
        let wanted = COUNTED_TOGETHER + 7;
        for _ in 0..wanted {
            client.call(0, &ApiVersionsRequest::default()).await;
        }
        assert_eq!(front.local.profile.ended.borrow().len(), 7);
        let snapshot = snapshot(&front.local).await;
        assert_eq!(of(&snapshot, "ApiVersions", "total").0, wanted as u64);
    });
}

#[test]
fn a_fetch_that_waits_says_so() {
    run(|front, client| async move {
        client.call(11, &fetch(0, 250)).await;
        let writer = front.connect();
        let waiting = client.ask(11, &fetch(0, 60_000));
        client.settle().await;
        let records = vec![batch(&writer.io, &["news"])];
        writer.call(9, &produce(-1, records)).await;
        client.answer::<FetchRequest>(11, waiting).await;
        let snapshot = snapshot(&front.local).await;
        let (count, waited) = of(&snapshot, "Fetch", "wait");
        assert_eq!(count, 2);
        assert!(waited >= 250_000_000, "{waited}");
        let crossed = of(&snapshot, "Fetch", "hop").0 > 0;
        assert_eq!(crossed, front.local.cores.count() > 1);
        assert_explained(&snapshot, "Fetch");
    });
}

#[test]
fn what_is_never_answered_is_recorded_all_the_same() {
    run(|front, client| async move {
        client.ask(9, &produce(0, vec![batch(&client.io, &["a"])]));
        client.call(0, &ApiVersionsRequest::default()).await;
        let snapshot = snapshot(&front.local).await;
        assert_eq!(of(&snapshot, "Produce", "total").0, 1);
        assert_eq!(of(&snapshot, "Produce", "answer_bytes").1, 0);
        assert_eq!(of(&snapshot, "ApiVersions", "total").0, 1);
        assert_explained(&snapshot, "Produce");
    });
}

#[test]
fn an_answer_counts_when_its_last_byte_is_gone() {
    let front = Front::of_shards(1, Limits::default());
    front.sim.run(async {
        front.topics(&[("orders", 1)]).await;
        // A socket that takes ten bytes until somebody reads.
        let client = front.connect_with_window(10);
        let id = client.ask(0, &ApiVersionsRequest::default());
        client.io.sleep(Duration::from_secs(3)).await;
        let before = snapshot(&front.local).await;
        assert_eq!(of(&before, "ApiVersions", "total").0, 0, "still being sent");
        client.answer::<ApiVersionsRequest>(0, id).await;
        client.settle().await;
        let after = snapshot(&front.local).await;
        let (count, nanos) = of(&after, "ApiVersions", "send");
        assert_eq!(count, 1);
        assert!(nanos >= 3_000_000_000, "{nanos}");
        assert_explained(&after, "ApiVersions");
    });
}

#[test]
fn a_recorder_that_is_off_says_so_and_keeps_nothing() {
    let sim = Sim::from_seed(1);
    let settings = Settings {
        histograms: false,
        slow: None,
    };
    assert!(settings.store_profile().is_none());
    let recorder = Recorder::new(sim.io(), settings);
    let peer = Rc::new(Peer::at(([127, 0, 0, 1], 1).into()));
    let watch = recorder.watch(&peer, Nanos(0), None, 10);
    watch.known(crate::kafka::route::lookup(0).expect("Produce"), None);
    watch.answered();
    watch.sent(None, 0);
    assert!(recorder.apis.borrow().is_empty() && recorder.ended.borrow().is_empty());
}

#[test]
fn a_late_shard_is_seen() {
    let front = Front::of_shards(1, Limits::default());
    front.sim.run(async {
        let io = &front.local.io;
        io.spawn(watch_stalls(front.local.profile.clone()));
        io.sleep(Duration::from_secs(5)).await;
        let snapshot = snapshot(&front.local).await;
        let (timers, turns) = (
            of(&snapshot, "shard", "timer").0,
            of(&snapshot, "shard", "turn").0,
        );
        assert!((40..=50).contains(&timers), "{timers}");
        assert!(turns.abs_diff(timers) <= 1, "{turns} of {timers}");
    });
}
