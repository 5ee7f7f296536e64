use crate::kafka::limits::Limits;
use crate::kafka::testing::{Front, batch, frame};
use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, BrokerId, FetchRequest, MetadataRequest, ProduceRequest,
};
use kafka_protocol::protocol::StrBytes;
use klamm_engine::io::Io;
use std::time::Duration;

fn front(limits: Limits) -> &'static Front {
    Box::leak(Box::new(Front::with(limits)))
}

fn orders() -> StrBytes {
    StrBytes::from_static_str("orders")
}

fn fetch(wait_ms: i32) -> FetchRequest {
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(orders().into())
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_topics(vec![topic])
}

fn produce(batch: Bytes) -> ProduceRequest {
    let partition = PartitionProduceData::default().with_records(Some(batch));
    let topic = TopicProduceData::default()
        .with_name(orders().into())
        .with_partition_data(vec![partition]);
    ProduceRequest::default()
        .with_acks(1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic])
}

#[test]
fn frames_that_no_client_sends_close_the_connection() {
    let front = front(Limits::default());
    front.sim.run(async {
        for (bytes, why) in [
            (&b"\xff\xff\xff\xff"[..], "socket.request.max.bytes"),
            (&[0, 0, 0, 0], "socket.request.max.bytes"),
            (&[0x7f, 0xff, 0xff, 0xff], "socket.request.max.bytes"),
            (b"GET / HTTP/1.1\r\n", "socket.request.max.bytes"),
            (b"\x16\x03\x01\x02\x00\x01", "socket.request.max.bytes"),
            (&[0, 0, 0, 1, 0], "cut short"),
            (&[0, 0, 0, 8, 0, 99, 0, 0, 0, 0, 0, 0], "unknown API 99"),
            (
                &[0, 0, 0, 8, 0, 3, 0, 77, 0, 0, 0, 0],
                "version 77 of API 3",
            ),
            (
                &[0, 0, 0, 8, 0, 3, 0xff, 0xff, 0, 0, 0, 0],
                "version -1 of API 3",
            ),
            (&[0, 0, 0, 10, 0, 3, 0, 1, 0, 0, 0, 0, 0, 9], "cut short"),
            (&[0, 0, 0, 11, 0, 3, 0, 1, 0, 0, 0, 0, 0, 1, 0xff], "UTF-8"),
            (
                &[
                    0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff,
                ],
                "2147483647",
            ),
        ] {
            let client = front.connect();
            client.send(bytes);
            let end = client.end().await;
            assert!(end.contains(why), "{bytes:?}: {end}");
        }
    });
}

#[test]
fn requests_before_a_malformed_one_are_answered() {
    let front = front(Limits::default());
    front.sim.run(async {
        let client = front.connect();
        let id = client.ask(0, &ApiVersionsRequest::default());
        client.send(&[0, 0, 0, 8, 0, 99, 0, 0, 0, 0, 0, 0]);
        client.ask(0, &ApiVersionsRequest::default());
        client.answer::<ApiVersionsRequest>(0, id).await;
        assert!(client.end().await.contains("unknown API"));
    });
}

#[test]
fn a_frame_that_is_never_finished_closes_after_30_seconds() {
    let front = front(Limits::default());
    front.sim.run(async {
        for begun in [&[0, 0][..], &[0, 0, 1, 0, 0, 3, 0, 0]] {
            let client = front.connect();
            let before = client.io.now();
            client.send(begun);
            let end = client.end().await;
            let took = Duration::from_nanos(client.io.now().0 - before.0);
            assert!(end.contains("did not come whole"), "{end}");
            assert!((30..32).contains(&took.as_secs()), "{took:?}");
        }
        // Drop by drop is no better.
        let client = front.connect();
        let before = client.io.now();
        client.send(&[0, 0, 1, 0]);
        while client.is_open() {
            client.send(&[0]);
            client.io.sleep(Duration::from_secs(1)).await;
        }
        let took = Duration::from_nanos(client.io.now().0 - before.0);
        assert!((30..33).contains(&took.as_secs()), "{took:?}");
    });
}

#[test]
fn an_idle_connection_is_closed_and_a_waiting_one_is_not() {
    let front = front(Limits::default());
    front.sim.run(async {
        front.topics(&[("orders", 1)]).await;
        let (idle, waiting) = (front.connect(), front.connect());
        idle.call(0, &ApiVersionsRequest::default()).await;
        let id = waiting.ask(11, &fetch(20 * 60 * 1000));
        let before = idle.io.now();
        assert!(idle.end().await.contains("connections.max.idle.ms"));
        let took = Duration::from_nanos(idle.io.now().0 - before.0);
        assert!((599..602).contains(&took.as_secs()), "{took:?}");
        waiting.answer::<FetchRequest>(11, id).await;
        assert!(waiting.is_open());
    });
}

#[test]
fn a_reader_that_never_drains_is_read_no_more_and_then_closed() {
    let front = front(Limits::default());
    front.sim.run(async {
        front.topics(&[("orders", 1)]).await;
        let writer = front.connect();
        let bytes = batch(&writer.io, &[&"x".repeat(500_000)]);
        for _ in 0..2 {
            writer.call(9, &produce(bytes.clone())).await;
        }
        let reader = front.connect_with_window(1000);
        let ask = frame(11, 0, &fetch(0));
        for _ in 0..1000 {
            reader.send(&ask);
        }
        reader.settle().await;
        let unread = reader.unread();
        assert!(unread > 700 * ask.len(), "{unread} bytes are left unread");
        reader.io.sleep(Duration::from_secs(60)).await;
        assert_eq!(reader.unread(), unread, "nothing more is taken");
        let held = front.local.answer_bytes.taken();
        assert!(held <= 3_000_000, "{held} bytes are held for it");
        // Others are served as before.
        writer.call(9, &produce(bytes)).await;
        assert!(reader.end().await.contains("did not read its answers"));
        assert_eq!(front.local.answer_bytes.taken(), 0);
    });
}

#[test]
fn a_flood_of_small_requests_is_taken_no_faster_than_it_is_answered() {
    let front = front(Limits::default());
    front.sim.run(async {
        let client = front.connect_with_window(1000);
        let ask = frame(0, 0, &ApiVersionsRequest::default());
        let flood: Vec<u8> = ask.repeat(1_000_000);
        client.send(&flood);
        client.settle().await;
        client.io.sleep(Duration::from_secs(1)).await;
        // An outbox full of answers (1 MiB, each above 100 bytes), those in flight, and
        // one buffer of requests that wait.
        let taken = flood.len() - client.unread();
        let answered_max = (1 << 20) / 100 * ask.len();
        assert!(
            taken < answered_max + (128 << 10),
            "{taken} bytes were taken"
        );
    });
}

#[test]
fn a_slow_reader_gets_everything_in_the_end() {
    let front = front(Limits::default());
    front.sim.run(async {
        let client = front.connect_with_window(100);
        let mut asked = Vec::new();
        for _ in 0..2000 {
            asked.push(client.ask(0, &MetadataRequest::default().with_topics(Some(vec![]))));
        }
        for id in asked {
            client.answer::<MetadataRequest>(0, id).await;
        }
    });
}

#[test]
fn requests_in_flight_are_bounded() {
    let limits = Limits {
        in_flight_max: 10,
        ..Limits::default()
    };
    let front = front(limits);
    front.sim.run(async {
        front.topics(&[("orders", 1)]).await;
        let (reader, writer) = (front.connect(), front.connect());
        let ask = frame(11, 0, &fetch(60_000));
        for _ in 0..100 {
            reader.send(&ask);
        }
        reader.settle().await;
        // Ten are under way; of the rest, no more than a buffer was received.
        assert!(front.local.request_bytes.taken() <= 10 * ask.len());
        writer.call(9, &produce(batch(&writer.io, &["x"]))).await;
        for _ in 0..100 {
            reader.answer::<FetchRequest>(11, 0).await;
        }
        reader.settle().await;
        assert_eq!(front.local.request_bytes.taken(), 0);
    });
}

#[test]
fn the_shards_budget_holds_back_the_one_that_would_pass_it() {
    let limits = Limits {
        request_bytes_max: 150_000,
        ..Limits::default()
    };
    let front = front(limits);
    front.sim.run(async {
        front.topics(&[("orders", 1)]).await;
        let (first, second) = (front.connect(), front.connect());
        let large = frame(9, 0, &produce(batch(&first.io, &[&"x".repeat(100_000)])));
        // The first has sent most of its frame, and so it has its place.
        first.send(&large[..90_000]);
        first.settle().await;
        second.send(&large);
        second.settle().await;
        assert!(front.local.request_bytes.taken() < 150_000);
        first.send(&large[90_000..]);
        first.answer::<ProduceRequest>(9, 0).await;
        second.answer::<ProduceRequest>(9, 0).await;
        assert_eq!(front.local.request_bytes.taken(), 0);
    });
}

#[test]
fn a_stopping_broker_answers_what_is_in_flight_and_takes_no_more() {
    let front = front(Limits::default());
    front.sim.run(async {
        front.topics(&[("orders", 1)]).await;
        let (fetching, idle, writing) = (front.connect(), front.connect(), front.connect());
        let fetched = fetching.ask(11, &fetch(600_000));
        let written = writing.ask(9, &produce(batch(&writing.io, &["x"])));
        fetching.settle().await;
        front.local.closing.say();
        writing.answer::<ProduceRequest>(9, written).await;
        // The fetch does not wait for its time.
        let before = fetching.io.now();
        fetching.answer::<FetchRequest>(11, fetched).await;
        assert!(fetching.io.now().0 - before.0 < 1_000_000_000);
        for client in [fetching, idle, writing] {
            assert_eq!(client.end().await, "the broker is stopping");
        }
    });
}

#[test]
fn a_connection_that_does_not_drain_is_cut_at_the_deadline() {
    let front = front(Limits::default());
    front.sim.run(async {
        let client = front.connect_with_window(10);
        client.ask(0, &ApiVersionsRequest::default());
        client.settle().await;
        front.local.closing.say();
        let before = client.io.now();
        client.end().await;
        let took = Duration::from_nanos(client.io.now().0 - before.0);
        assert!((9..12).contains(&took.as_secs()), "{took:?}");
    });
}
