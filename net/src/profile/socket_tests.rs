//! The socket against clients of all manners, and what a killed broker leaves.

use super::super::Entry;
use super::*;
use futures_util::StreamExt;
use klamm_engine::profile::{Series, Unit};
use klamm_engine::units::Nanos;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

const DEADLINE: Duration = Duration::from_secs(20);

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        Folder::named("")
    }

    fn named(more: &str) -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("klamm-socket-{}-{number}{more}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn shard(taken: u64, nanos: u64) -> Snapshot {
    let mut series = Series::new(Unit::Nanos);
    series.record(nanos);
    Snapshot {
        began: Nanos(5),
        taken: Nanos(taken),
        shards: 1,
        entries: vec![Entry {
            group: "Produce".into(),
            name: "total".into(),
            series,
        }],
    }
}

/// Answers all that is asked, as two shards would.
fn answering(mut asks: Asks) {
    thread::spawn(move || {
        let mut taken = 100;
        while let Some(ask) = block_on(asks.next()) {
            taken += 1;
            ask.answer(Ok(vec![shard(taken, 1_000), shard(taken, 3_000)]));
        }
    });
}

/// Waits on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut cx) {
            std::task::Poll::Ready(done) => return done,
            std::task::Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn who_asks_is_given_all_shards_as_one() {
    let folder = Folder::new();
    let (door, asks) = open(&folder.0).expect("opened");
    answering(asks);
    let mut line = Line::open(&folder.0).expect("connected");
    let first = line.snapshot().expect("answered");
    assert_eq!(first.shards, 2);
    let total = first.get("Produce", "total").expect("there");
    assert_eq!((total.count(), total.sum()), (2, 4_000));
    let second = line.snapshot().expect("the line stays open");
    assert!(second.taken > first.taken);
    let mode = fs::metadata(folder.0.join(NAME)).expect("there").mode();
    assert_eq!(mode & 0o777, 0o600, "the owner's alone");
    drop(door);
    assert!(!folder.0.join(NAME).exists());
    let refused = Line::open(&folder.0).expect_err("gone");
    assert!(refused.contains("no broker serves"), "{refused}");
}

#[test]
fn a_folder_with_a_long_name_is_reached_all_the_same() {
    let folder = Folder::named(&"-long".repeat(40));
    assert!(folder.0.as_os_str().len() > PATH_BYTES_MAX);
    let (_door, asks) = open(&folder.0).expect("opened");
    answering(asks);
    let mut line = Line::open(&folder.0).expect("connected");
    assert_eq!(line.snapshot().expect("answered").shards, 2);
}

#[test]
fn what_a_killed_broker_left_is_replaced() {
    let folder = Folder::new();
    let (door, asks) = open(&folder.0).expect("opened");
    // Killed: the name stays, and nobody listens. So may a half-made one.
    std::mem::forget(door);
    drop(asks);
    drop(UnixListener::bind(folder.0.join(MAKING)).expect("bound"));
    let stale = folder.0.join("stale.sock");
    drop(UnixListener::bind(&stale).expect("bound"));
    fs::rename(&stale, folder.0.join(NAME)).expect("in its place");
    let refused = Line::open(&folder.0).expect_err("stale");
    assert!(refused.contains("is gone"), "{refused}");
    let (_door, asks) = open(&folder.0).expect("opened again");
    answering(asks);
    let mut line = Line::open(&folder.0).expect("connected");
    assert!(line.snapshot().is_ok());
}

#[test]
fn nonsense_ends_the_connection_and_nothing_else() {
    let folder = Folder::new();
    let (_door, asks) = open(&folder.0).expect("opened");
    answering(asks);
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 8],
        &[0xff; 4096],
        b"KLPROF\x02\x01",
    ] {
        let mut client = UnixStream::connect(folder.0.join(NAME)).expect("connected");
        client.set_read_timeout(Some(DEADLINE)).expect("set");
        client.write_all(bytes).expect("sent");
        let mut answer = Vec::new();
        // What was sent beyond the question makes the close a reset.
        match client.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), ErrorKind::ConnectionReset, "{e}"),
        }
        if answer.len() > 4 {
            let refused = wire::decode(&answer[4..]).expect("well-formed");
            assert!(refused.is_err(), "nothing is given for nonsense");
        }
    }
    // One that says nothing, and one that goes in the middle of its question.
    let _silent = UnixStream::connect(folder.0.join(NAME)).expect("connected");
    let mut half = UnixStream::connect(folder.0.join(NAME)).expect("connected");
    half.write_all(&wire::QUESTION[..5]).expect("sent");
    drop(half);
    let mut line = Line::open(&folder.0).expect("connected");
    assert_eq!(line.snapshot().expect("answered").shards, 2);
}

#[test]
fn a_crowd_is_told_to_wait_and_its_places_come_back() {
    let folder = Folder::new();
    let (_door, asks) = open(&folder.0).expect("opened");
    answering(asks);
    let until = Instant::now() + DEADLINE;
    let crowd: Vec<Line> = (0..CLIENTS_MAX)
        .map(|_| {
            let mut line = Line::open(&folder.0).expect("connected");
            line.snapshot().expect("answered");
            line
        })
        .collect();
    let mut late = Line::open(&folder.0).expect("connected");
    let refused = late.snapshot().expect_err("full");
    assert!(refused.contains("connected already"), "{refused}");
    drop(crowd);
    // A place is given back by a thread that ends when it pleases.
    while Line::open(&folder.0)
        .and_then(|mut line| line.snapshot())
        .is_err()
    {
        assert!(Instant::now() < until, "the places came back");
        thread::yield_now();
    }
}

#[test]
fn a_broker_that_stops_or_refuses_says_so() {
    let folder = Folder::new();
    let (_door, mut asks) = open(&folder.0).expect("opened");
    let mut line = Line::open(&folder.0).expect("connected");
    let refusing = thread::spawn(move || {
        let ask = block_on(asks.next()).expect("asked");
        ask.answer(Err("it is off".to_owned()));
        // Dropped unanswered: the shard ended meanwhile.
        drop(block_on(asks.next()).expect("asked"));
    });
    assert_eq!(line.snapshot(), Err("it is off".to_owned()));
    assert_eq!(line.snapshot(), Err("the broker is stopping".to_owned()));
    refusing.join().expect("ended");
    assert_eq!(line.snapshot(), Err("the broker is stopping".to_owned()));
}
