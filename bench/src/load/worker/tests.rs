//! A worker against brokers that are slow, wrong, or gone: a thread with a listener.

use super::*;
use crate::load::consumer::Until;
use crate::load::fetch::Limits;
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

const VERSION: i16 = 7;

fn places() -> Arc<[Place]> {
    Arc::from([Place {
        topic: "t".into(),
        index: 0,
        leader: 0,
        start: 0,
        end: 0,
    }])
}

/// Serves one connection with `serve`, and a socket to it.
fn broker<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (TcpStream, thread::JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = thread::spawn(move || serve(listener.accept().unwrap().0));
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    (socket, served)
}

/// The next request, from behind its length; None at the end.
fn request(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    socket.read_exact(&mut length).ok()?;
    let mut request = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut request).ok()?;
    Some(request)
}

/// The answer to a Produce, version 7, of partition t-0.
fn acknowledge(socket: &mut TcpStream, request: &[u8], error: i16, offset: i64) {
    let mut answer = vec![0, 0, 0, 0];
    answer.extend_from_slice(&request[4..8]);
    answer.extend_from_slice(&[0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
    answer.extend_from_slice(&error.to_be_bytes());
    answer.extend_from_slice(&offset.to_be_bytes());
    answer.extend_from_slice(&[0; 16 + 4]);
    let length = u32::try_from(answer.len() - 4).unwrap();
    answer[..4].copy_from_slice(&length.to_be_bytes());
    // Who is gone need not be answered.
    let _ = socket.write_all(&answer);
}

fn frame(batch: &'static [u8], acks: i16) -> Frame {
    frame_of(&Bytes::from_static(batch), acks)
}

fn frame_of(batch: &Bytes, acks: i16) -> Frame {
    Frame::build(VERSION, acks, &places(), &[(0, batch)], 2).unwrap()
}

fn worker(socket: TcpStream, frame: Frame, in_flight: usize, acks: i16) -> Worker {
    let producer = Producer::new(socket, vec![frame], in_flight, acks == 0);
    Worker::new(vec![producer], Vec::new(), places(), false).unwrap()
}

fn run(worker: &mut Worker, time: Duration, rate: Option<f64>, bytes_max: u64) -> Outcome<Seen> {
    let shared = Shared::default();
    worker.run(&mut Round {
        origin: Instant::now(),
        time,
        schedule: rate.map(|rate| Schedule::new(rate, 0, 1)),
        bytes_max,
        shared: &shared,
    })
}

#[test]
fn a_stall_counts_for_all_that_was_due_meanwhile() {
    const STALL: Duration = Duration::from_millis(300);
    let (socket, served) = broker(|mut socket| {
        let mut offset = 0;
        while let Some(asked) = request(&mut socket) {
            if offset == 0 {
                thread::sleep(STALL);
            }
            acknowledge(&mut socket, &asked, 0, offset);
            offset += 2;
        }
    });
    let mut worker = worker(socket, frame(b"batch", -1), 1, -1);
    let seen = run(
        &mut worker,
        Duration::from_millis(400),
        Some(100.0),
        u64::MAX,
    )
    .unwrap();
    drop(worker);
    served.join().unwrap();
    // All 40 that were due, though one at a time could be under way.
    assert_eq!((seen.produced.requests, seen.given_up), (40, 0));
    assert_eq!((seen.produced.records, seen.produced.bytes), (80, 200));
    // Of a request that was due 10 n ms after the first, the stall's rest: counted from
    // when it was sent, all but one would have been answered at once.
    for n in 0..20 {
        let rest = nanos(STALL) - n * 10_000_000;
        let so_long = seen
            .produced
            .latency
            .count_between(rest - rest / 500, u64::MAX);
        assert!(
            so_long > n,
            "{so_long} of them took {rest} ns, {n} before this one"
        );
    }
}

#[test]
fn large_requests_go_out_whole_through_a_narrow_socket() {
    let batch: Bytes = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let sent = batch.clone();
    let (socket, served) = broker(move |mut socket| {
        let mut requests = 0;
        while let Some(asked) = request(&mut socket) {
            assert!(asked.ends_with(&sent));
            assert_eq!(asked[4..8], u32::to_be_bytes(requests));
            acknowledge(&mut socket, &asked, 0, 0);
            requests += 1;
        }
        requests
    });
    let mut worker = worker(socket, frame_of(&batch, -1), 3, -1);
    let seen = run(&mut worker, Duration::from_secs(60), None, 10 * 3_000_000).unwrap();
    drop(worker);
    assert_eq!(served.join().unwrap(), 10);
    assert_eq!(
        (seen.produced.requests, seen.produced.bytes),
        (10, 30_000_000)
    );
}

#[test]
fn without_acks_a_request_counts_when_it_is_written() {
    let (socket, served) = broker(|mut socket| {
        let mut requests = 0;
        while request(&mut socket).is_some() {
            requests += 1;
        }
        requests
    });
    let mut worker = worker(socket, frame(b"0123456789", 0), 2, 0);
    let fast = run(&mut worker, Duration::from_secs(60), None, 50_000).unwrap();
    let paced = run(
        &mut worker,
        Duration::from_millis(50),
        Some(1000.0),
        u64::MAX,
    )
    .unwrap();
    drop(worker);
    assert_eq!(
        (fast.produced.requests, paced.produced.requests),
        (5000, 50)
    );
    assert_eq!(served.join().unwrap(), 5050);
}

#[test]
fn an_error_ends_the_run() {
    let (socket, served) = broker(|mut socket| {
        let asked = request(&mut socket).unwrap();
        acknowledge(&mut socket, &asked, 3, -1);
        while request(&mut socket).is_some() {}
    });
    let mut worker = worker(socket, frame(b"batch", -1), 1, -1);
    let ended = run(&mut worker, Duration::from_secs(60), None, u64::MAX);
    let message = ended.err().expect("an error is none that counts");
    assert!(message.contains("t-0 answers with error 3"), "{message}");
    drop(worker);
    served.join().unwrap();
}

#[test]
fn a_broker_that_goes_away_is_noticed() {
    let (socket, served) = broker(|mut socket| {
        let asked = request(&mut socket).unwrap();
        acknowledge(&mut socket, &asked, 0, 0);
    });
    let mut worker = worker(socket, frame(b"batch", -1), 2, -1);
    let message = run(&mut worker, Duration::from_secs(60), None, u64::MAX).err();
    let message = message.expect("it is gone");
    assert!(
        message.contains("closed") || message.contains("can't be"),
        "{message}"
    );
    served.join().unwrap();
}

#[test]
fn somebody_elses_records_spoil_a_latency_from_end_to_end() {
    let (socket, served) = broker(|mut socket| {
        let asked = request(&mut socket).unwrap();
        acknowledge(&mut socket, &asked, 0, 17);
        while request(&mut socket).is_some() {}
    });
    let (reading, waits) = broker(|mut socket| while request(&mut socket).is_some() {});
    let limits = Limits {
        max_bytes: 1000,
        max_partition_bytes: 1000,
        min_bytes: 1,
        max_wait_ms: 500,
    };
    let consumer = Consumer::new(reading, [0], &places(), Until::Stopped, limits, false);
    let producer = Producer::new(socket, vec![frame(b"batch", -1)], 1, false);
    let mut worker = Worker::new(vec![producer], vec![consumer], places(), true).unwrap();
    let ended = run(&mut worker, Duration::from_secs(60), Some(100.0), u64::MAX);
    let message = ended.err().expect("no latency can be told");
    assert!(message.contains("somebody else writes"), "{message}");
    drop(worker);
    served.join().unwrap();
    waits.join().unwrap();
}
