//! ZooKeeper's port of a real broker: sockets, restarts, kills.
//!
//! ```text
//!   Raw --bytes written by hand--> klamm serve --coordinator-listen 127.0.0.1:0
//! ```

use klamm_tests::broker::Broker;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(20);

const CREATE: i32 = 1;
const EXISTS: i32 = 3;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const PING: i32 = 11;
const CLOSE: i32 = -11;

/// Where the broker said it listens for ZooKeeper's clients, at its n-th start.
fn coordinator(broker: &Broker, start: usize) -> SocketAddr {
    let deadline = Instant::now() + WITHIN;
    loop {
        let log = broker.log();
        let mut lines = log
            .lines()
            .filter_map(|line| line.trim().strip_suffix(" for ZooKeeper clients"));
        if let Some(line) = lines.nth(start) {
            return line.parse().expect("an address");
        }
        // It answers Kafka's clients a moment before it says so.
        assert!(Instant::now() < deadline, "no line about it: {log}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Raw {
    stream: TcpStream,
    session: i64,
    password: Vec<u8>,
    timeout_ms: i32,
}

impl Raw {
    fn connect(address: SocketAddr, timeout_ms: i32) -> Raw {
        Raw::resume(address, 0, &[0; 16], timeout_ms)
    }

    fn resume(address: SocketAddr, session: i64, password: &[u8], timeout_ms: i32) -> Raw {
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.set_read_timeout(Some(WITHIN)).expect("a timeout");
        let mut payload = vec![0; 12];
        payload.extend(timeout_ms.to_be_bytes());
        payload.extend(session.to_be_bytes());
        payload.extend(text(password));
        payload.push(0);
        send(&mut stream, &payload);
        let answer = receive(&mut stream).expect("an answer to the connect");
        Raw {
            stream,
            timeout_ms: i32::from_be_bytes(answer[4..8].try_into().unwrap()),
            session: i64::from_be_bytes(answer[8..16].try_into().unwrap()),
            password: answer[20..36].to_vec(),
        }
    }

    fn ask(&mut self, xid: i32, op: i32, request: &[u8]) {
        let payload = [&xid.to_be_bytes()[..], &op.to_be_bytes(), request].concat();
        send(&mut self.stream, &payload);
    }

    /// (xid, err, record)
    fn answer(&mut self) -> (i32, i32, Vec<u8>) {
        let answer = receive(&mut self.stream).expect("an answer");
        let int = |at: usize| i32::from_be_bytes(answer[at..at + 4].try_into().unwrap());
        (int(0), int(12), answer[16..].to_vec())
    }

    fn call(&mut self, op: i32, request: &[u8]) -> (i32, Vec<u8>) {
        self.ask(7, op, request);
        let (xid, err, record) = self.answer();
        assert_eq!(xid, 7, "{record:?}");
        (err, record)
    }
}

fn send(stream: &mut TcpStream, payload: &[u8]) {
    let length = i32::try_from(payload.len()).unwrap().to_be_bytes();
    stream
        .write_all(&[&length[..], payload].concat())
        .expect("send");
}

/// None: closed.
fn receive(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut payload = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    stream.read_exact(&mut payload).expect("a whole frame");
    Some(payload)
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let length = i32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&length[..], bytes].concat()
}

fn create(path: &str, data: &[u8], flags: i32) -> Vec<u8> {
    let acl = [
        &[0, 0, 0, 1, 0, 0, 0, 31][..],
        &text(b"world"),
        &text(b"anyone"),
    ]
    .concat();
    let flags = flags.to_be_bytes().to_vec();
    [text(path.as_bytes()), text(data), acl, flags].concat()
}

fn read(path: &str, watch: bool) -> Vec<u8> {
    [text(path.as_bytes()), vec![u8::from(watch)]].concat()
}

fn word(address: SocketAddr, word: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(WITHIN)).expect("a timeout");
    stream.write_all(word.as_bytes()).expect("send");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("text and the end");
    answer
}

fn event(answer: (i32, i32, Vec<u8>)) -> (i32, String) {
    let (xid, _, record) = answer;
    assert_eq!(xid, -1, "an event");
    let kind = i32::from_be_bytes(record[..4].try_into().unwrap());
    (kind, String::from_utf8(record[12..].to_vec()).unwrap())
}

#[test]
fn sessions_outlive_connections_restarts_and_kills() {
    let setup = Broker::with().flag("--coordinator-listen", "127.0.0.1:0");
    let mut broker = setup.start();
    let address = coordinator(&broker, 0);
    assert_eq!(word(address, "ruok"), "imok");
    assert!(word(address, "srvr").starts_with("Zookeeper version: 3.9.3-klamm-"));
    let mut owner = Raw::connect(address, 30_000);
    assert_eq!(owner.timeout_ms, 30_000);
    assert_eq!(owner.call(CREATE, &create("/mine", b"1", 1)).0, 0);
    assert_eq!(owner.call(CREATE, &create("/kept", b"x", 0)).0, 0);
    let (session, password) = (owner.session, owner.password.clone());

    for (start, kill) in [(1, false), (2, true)] {
        if kill {
            broker.kill9();
        } else {
            broker.stop();
        }
        assert!(
            receive(&mut owner.stream).is_none(),
            "closed with the broker"
        );
        broker.start_again();
        let address = coordinator(&broker, start);
        owner = Raw::resume(address, session, &password, 30_000);
        assert_eq!(owner.session, session);
        let (err, record) = owner.call(GET_DATA, &read("/mine", false));
        assert_eq!((err, &record[4..5]), (0, &b"1"[..]));
    }

    let address = coordinator(&broker, 2);
    let mut watcher = Raw::connect(address, 10_000);
    assert_eq!(watcher.call(EXISTS, &read("/mine", true)).0, 0);
    assert_eq!(watcher.call(GET_DATA, &read("/kept", true)).0, 0);
    let set = [text(b"/kept"), text(b"y"), (-1i32).to_be_bytes().to_vec()].concat();
    assert_eq!(owner.call(SET_DATA, &set).0, 0);
    assert_eq!(event(watcher.answer()), (3, "/kept".to_owned()));
    assert_eq!(owner.call(CLOSE, &[]).0, 0);
    assert!(receive(&mut owner.stream).is_none());
    assert_eq!(event(watcher.answer()), (2, "/mine".to_owned()));
    watcher.ask(-2, PING, &[]);
    assert_eq!(watcher.answer().0, -2);
    let gone = Raw::resume(address, session, &password, 30_000);
    assert_eq!((gone.session, gone.timeout_ms), (0, 0));
    broker.stop();
}

#[test]
fn a_dead_clients_ephemerals_go_at_its_deadline() {
    let setup = Broker::with().flag("--coordinator-listen", "127.0.0.1:0");
    let broker = setup.start();
    let address = coordinator(&broker, 0);
    let mut watcher = Raw::connect(address, 40_000);
    let mut dying = Raw::connect(address, 4_000);
    assert_eq!(dying.call(CREATE, &create("/d", b"", 1)).0, 0);
    assert_eq!(watcher.call(EXISTS, &read("/d", true)).0, 0);
    let died = Instant::now();
    drop(dying);
    assert_eq!(event(watcher.answer()), (2, "/d".to_owned()));
    let took = died.elapsed();
    // That it is not much later is measured, not asserted: machines stall.
    assert!(took >= Duration::from_millis(3_900), "{took:?}");
}

#[test]
fn connections_of_one_address_are_limited_and_the_listener_can_be_none() {
    let setup = Broker::with()
        .flag("--coordinator-listen", "127.0.0.1:0")
        .flag("--set", "maxClientCnxns=3");
    let broker = setup.start();
    let address = coordinator(&broker, 0);
    let mut held: Vec<Raw> = (0..3).map(|_| Raw::connect(address, 10_000)).collect();
    let mut fourth = TcpStream::connect(address).expect("connect");
    fourth.set_read_timeout(Some(WITHIN)).expect("a timeout");
    assert_eq!(fourth.read(&mut [0]).unwrap_or(0), 0, "closed at once");
    for client in &mut held {
        client.ask(-2, PING, &[]);
        assert_eq!(client.answer().0, -2);
    }
    let quiet = Broker::with().flag("--coordinator-listen", "none").start();
    assert!(!quiet.log().contains("for ZooKeeper clients"));
}
