//! `klamm profile` against a broker that serves, and the log of slow requests.
//!
//! ```text
//!   klamm serve  <--- Produce, Fetch ---  this test
//!        |
//!   DATA/klamm.sock <--- klamm profile --once --json: counts, and parts that add up
//! ```

use klamm_tests::batch::Batch;
use klamm_tests::broker::{Broker, klamm};
use klamm_tests::fetch::{Fetch, Patience, request};
use klamm_tests::wire::Connection;
use serde_json::Value;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(20);

const PARTS: [&str; 8] = [
    "queue", "hop", "append", "write", "sync", "wait", "handle", "send",
];

fn profile(broker: &Broker, flags: &[&str]) -> Output {
    Command::new(klamm())
        .arg("profile")
        .arg("--data")
        .arg(broker.data())
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .expect("run klamm profile")
}

/// All since the broker's start.
fn once(broker: &Broker) -> Value {
    let output = profile(broker, &["--once", "--json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).expect("one object")
}

fn api<'a>(look: &'a Value, name: &str) -> Option<&'a Value> {
    let apis = look["apis"].as_array().expect("a list");
    apis.iter().find(|api| api["api"] == name)
}

fn count(look: &Value, name: &str) -> u64 {
    api(look, name).map_or(0, |api| api["total"]["count"].as_u64().expect("a count"))
}

/// The parts are exact, and so is the total: what is rounded is a thousandth of a µs.
fn assert_explained(api: &Value) {
    let total = api["total"]["sum_us"].as_f64().expect("a sum");
    let parts = PARTS
        .iter()
        .map(|part| api["parts"][part]["sum_us"].as_f64());
    let parts: f64 = parts.flatten().sum();
    assert!(total > 0.0, "{api:#}");
    assert!((parts - total).abs() <= 0.01, "{parts} of {total}: {api:#}");
}

fn produce(client: &mut Connection, partition: i32, times: usize) {
    for n in 0..times {
        let batch = Batch::of(&[format!("record {n}")]).encode();
        assert_eq!(client.produce("orders", partition, batch).0, 0);
    }
}

#[test]
fn what_was_served_is_counted_and_explained() {
    let broker = Broker::with().flag("--cores", "2").start();
    let mut client = broker.connect();
    client.create_topic("orders", 2, &[]);
    for partition in 0..2 {
        produce(&mut client, partition, 25);
        assert_eq!(client.read_all("orders", partition).len(), 25);
    }
    let look = once(&broker);
    assert_eq!(look["covers"], "start");
    assert_eq!(look["shards"], 2);
    assert_eq!(count(&look, "Produce"), 50);
    let produced = api(&look, "Produce").expect("recorded");
    let fetched = api(&look, "Fetch").expect("recorded");
    assert!(fetched["total"]["count"].as_u64() >= Some(2), "{fetched:#}");
    for api in look["apis"].as_array().expect("a list") {
        assert_explained(api);
    }
    // The connection is on one shard. Whether a partition is on the other is its id's
    // doing, so of the hop there is nothing to be said; nor of the queue, where nothing was
    // before any of them.
    for part in ["append", "write", "sync", "handle", "send"] {
        let count = produced["parts"][part]["count"].as_u64();
        assert!(count >= Some(1), "{part}: {produced:#}");
    }
    let engine = &look["engine"];
    assert_eq!(engine["batch_records"]["sum"], 50, "{engine:#}");
    assert_eq!(engine["sync_batches"]["sum"], 50, "each in one sync");
    // The watch of the shard looks ten times a second, which this broker may not yet be old.
    let until = Instant::now() + WITHIN;
    let mut look = look;
    while look["shard"]["timer"]["count"].as_u64() < Some(1) {
        assert!(Instant::now() < until, "{:#}", look["shard"]);
        look = once(&broker);
    }
}

#[test]
fn an_interval_shows_what_came_in_it_and_is_written_as_hgrm() {
    let broker = Broker::start();
    let mut client = broker.connect();
    client.create_topic("orders", 1, &[]);
    produce(&mut client, 0, 10);
    let folder = broker.data().with_file_name("hgrm");
    let mut watching = Command::new(klamm())
        .arg("profile")
        .arg("--data")
        .arg(broker.data())
        .args(["--json", "--interval", "100ms", "--hgrm"])
        .arg(&folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("run klamm profile");
    let stdout = watching.stdout.take().expect("piped");
    let mut looks = serde_json::Deserializer::from_reader(stdout).into_iter::<Value>();
    // Once the first look is there, what is produced comes after its beginning.
    let mut next = || looks.next().expect("it goes on").expect("an object");
    let first = next();
    assert_eq!(
        (first["covers"].as_str(), count(&first, "Produce")),
        (Some("interval"), 0)
    );
    produce(&mut client, 0, 7);
    let until = Instant::now() + WITHIN;
    let mut seen = 0;
    while seen < 7 {
        assert!(Instant::now() < until, "{seen} of 7 were shown");
        seen += count(&next(), "Produce");
    }
    assert_eq!(seen, 7);
    // Ctrl-C ends it in order, with the files.
    let sent = Command::new("kill")
        .args(["-INT", &watching.id().to_string()])
        .status();
    assert!(sent.expect("the kill command").success());
    assert!(watching.wait().expect("ended").success());
    let total = std::fs::read_to_string(folder.join("produce-total.us.hgrm")).expect("written");
    assert!(total.contains("Total count    =            7]"), "{total}");
}

#[test]
fn a_broker_without_histograms_says_so() {
    let mut broker = Broker::with().flag("--profile", "off").start();
    let output = profile(&broker, &["--once"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("--profile on"), "{said}");
    broker.stop();
    let output = profile(&broker, &["--once"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no broker serves"), "{said}");
}

#[test]
fn the_socket_survives_a_kill_and_takes_no_nonsense() {
    let mut broker = Broker::start();
    let socket = broker.data().join("klamm.sock");
    let about = std::fs::metadata(&socket).expect("a socket");
    assert!(about.file_type().is_socket());
    assert_eq!(about.mode() & 0o777, 0o600);
    broker.kill9();
    assert!(socket.exists(), "nobody could take it away");
    let output = profile(&broker, &["--once"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is gone"), "{said}");
    broker.start_again();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 100_000],
        b"KLPROF\x01\xff",
    ] {
        let mut client = UnixStream::connect(&socket).expect("connected");
        // It may be closed before it is all sent.
        let _ = client.write_all(bytes);
    }
    let mut client = broker.connect();
    client.create_topic("orders", 1, &[]);
    produce(&mut client, 0, 3);
    assert_eq!(count(&once(&broker), "Produce"), 3);
    assert!(broker.is_running());
    broker.stop();
    assert!(!socket.exists(), "taken away at the end");
}

#[test]
fn slow_requests_are_logged_with_their_parts() {
    let broker = Broker::with()
        .flag("--log-slow-requests", "0")
        .flag("--profile", "off")
        .start();
    let mut client = broker.connect();
    client.create_topic("orders", 1, &[]);
    // A second in which nothing else is logged: there is a bound on lines a second.
    let until = Instant::now() + WITHIN;
    let line = loop {
        client.client_id = Some("slow\none".into());
        produce(&mut client, 0, 1);
        let log = broker.log();
        let line = log
            .lines()
            .find(|line| line.contains("slow request: Produce"));
        if let Some(line) = line {
            break line.to_owned();
        }
        assert!(Instant::now() < until, "{log}");
    };
    assert!(line.contains(r#"client="slow\none""#), "{line}");
    assert!(line.contains("peer=127.0.0.1:"), "{line}");
    for part in PARTS {
        assert!(line.contains(&format!(" {part}_ms=")), "{line}");
    }
    let number = |name: &str| -> f64 {
        let (_, rest) = line.split_once(name).expect("in the line");
        let digits = rest.split(' ').next().expect("a number");
        digits.parse().expect("a number")
    };
    let parts: f64 = PARTS
        .iter()
        .map(|part| number(&format!(" {part}_ms=")))
        .sum();
    let total = number(" took ");
    // Each is cut to a microsecond.
    assert!(parts <= total + 0.001 && parts >= total - 0.01, "{line}");
}

#[test]
fn quick_requests_are_not_logged() {
    let broker = Broker::with().flag("--log-slow-requests", "60000").start();
    let mut client = broker.connect();
    client.create_topic("orders", 1, &[]);
    produce(&mut client, 0, 5);
    // A reader that waits for records is not slow, however long it waits.
    let of = Fetch {
        topic: "orders",
        partition: 0,
        offset: 5,
        partition_bytes_max: 1 << 20,
    };
    let patience = Patience {
        bytes_min: 1,
        wait_max: Duration::from_millis(50),
    };
    client
        .call(11, &request(&[of], patience))
        .expect("answered");
    assert_eq!(count(&once(&broker), "Produce"), 5);
    assert!(!broker.log().contains("slow request"), "{}", broker.log());
}
