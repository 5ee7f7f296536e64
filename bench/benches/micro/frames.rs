//! From the bytes of a socket to a request: cutting frames, then header, guard, decode.
//!
//! ```text
//!   frames   reads -> Frames -> whole frames          what Klamm does with each byte
//!   decode   a frame -> header -> guard -> request    what it does with each request
//! ```
//!
//! `frames` puts the bytes where a socket would, so it has one copy in it that the kernel
//! makes in truth; what it must show is that there is no second one, however large the
//! frame. `decode` is what a small request costs before anything is done for it: records
//! stay slices of the frame, so a Produce of 1 MiB must not cost more than one of 100
//! bytes.

use crate::content::{full_batch, lone_record};
use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{FetchRequest, ProduceRequest, RequestHeader};
use kafka_protocol::protocol::{Encodable, Request, StrBytes};
use klamm_engine::codec::Codec;
use klamm_net::kafka::frame::{Frames, Front};
use klamm_net::kafka::{produce, route};
use std::hint::black_box;

/// The newest version of both that is served, and a flexible one.
const VERSION: i16 = 12;

/// `socket.request.max.bytes`
const FRAME_BYTES_MAX: usize = 100 << 20;

/// What one read of a socket takes at most.
const READ_BYTES: usize = 64 << 10;

/// Small requests that a pipelining client has under way.
const PIPELINED: usize = 64;

pub fn benchmarks(c: &mut Criterion) {
    let small = produce_request(1, lone_record(Codec::None, 100));
    let large = produce_request(1, full_batch(Codec::None, 1 << 10));

    let mut group = c.benchmark_group("frames");
    let pipelined = small.repeat(PIPELINED);
    group.throughput(Throughput::Elements(PIPELINED as u64));
    group.bench_function("64_small_in_one_read", |b| {
        b.iter_batched_ref(
            || Frames::new(FRAME_BYTES_MAX),
            |frames| assert_eq!(receive(frames, &pipelined), PIPELINED),
            BatchSize::SmallInput,
        );
    });
    group.throughput(Throughput::BytesDecimal(large.len() as u64));
    group.bench_function("1MiB_in_reads_of_64KiB", |b| {
        let mut frames = Frames::new(FRAME_BYTES_MAX);
        b.iter(|| assert_eq!(receive(&mut frames, &large), 1));
    });
    group.finish();

    let mut group = c.benchmark_group("decode");
    let requests = [
        ("produce_100B", small),
        ("produce_1MiB", large),
        (
            "produce_100_partitions",
            produce_request(100, lone_record(Codec::None, 100)),
        ),
        ("fetch_1_partition", fetch_request(1)),
        ("fetch_100_partitions", fetch_request(100)),
    ];
    group.throughput(Throughput::Elements(1));
    for (name, request) in requests {
        let frame = request.slice(4..);
        group.bench_function(name, |b| b.iter(|| decode(black_box(frame.clone()))));
    }
    group.finish();
}

/// Gives `bytes` to `frames` as a socket would, and drops what comes out whole.
fn receive(frames: &mut Frames, bytes: &[u8]) -> usize {
    let mut whole = 0;
    let mut rest = bytes;
    while !rest.is_empty() {
        let room = frames.room();
        let read = rest.len().min(room.capacity() - room.len()).min(READ_BYTES);
        room.extend_from_slice(&rest[..read]);
        frames.received(read);
        rest = &rest[read..];
        loop {
            match frames.front().expect("a length that is allowed") {
                Front::Whole { len } => {
                    black_box(frames.take(len));
                    whole += 1;
                }
                Front::Partial { .. } => {
                    frames.grant();
                    break;
                }
                Front::Nothing => break,
            }
        }
    }
    whole
}

/// The way of route.rs up to the handler; gives the number of topics.
fn decode(mut frame: Bytes) -> usize {
    let (header, api) = route::header(&mut frame).expect("a header");
    match api.key {
        ProduceRequest::KEY => {
            let flexible = header.version >= api.flexible_from;
            let request = produce::decode(frame, flexible).expect("a Produce");
            black_box(request).topics.len()
        }
        FetchRequest::KEY => {
            let request: FetchRequest = route::decode(api, frame, header.version).expect("a Fetch");
            black_box(request).topics.len()
        }
        key => unreachable!("API {key} is not asked for here"),
    }
}

fn produce_request(partitions: i32, batch: Vec<u8>) -> Bytes {
    let batch = Bytes::from(batch);
    let partitions = (0..partitions).map(|index| {
        PartitionProduceData::default()
            .with_index(index)
            .with_records(Some(batch.clone()))
    });
    let topic = TopicProduceData::default()
        .with_name(StrBytes::from_static_str("orders").into())
        .with_partition_data(partitions.collect());
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![topic]);
    on_the_wire(&request)
}

fn fetch_request(partitions: i32) -> Bytes {
    let partitions = (0..partitions).map(|index| {
        FetchPartition::default()
            .with_partition(index)
            .with_fetch_offset(1_000_000)
            .with_partition_max_bytes(1 << 20)
    });
    let topic = FetchTopic::default()
        .with_topic(StrBytes::from_static_str("orders").into())
        .with_partitions(partitions.collect());
    let request = FetchRequest::default()
        .with_max_wait_ms(500)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_topics(vec![topic]);
    on_the_wire(&request)
}

fn on_the_wire<R: Request>(request: &R) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(VERSION)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("klamm-bench")));
    let mut frame = BytesMut::from(&[0; 4][..]);
    header
        .encode(&mut frame, R::header_version(VERSION))
        .expect("a header of this version");
    request
        .encode(&mut frame, VERSION)
        .expect("a request of this version");
    let len = i32::try_from(frame.len() - 4).expect("it fits into a frame");
    frame[..4].copy_from_slice(&len.to_be_bytes());
    frame.freeze()
}
