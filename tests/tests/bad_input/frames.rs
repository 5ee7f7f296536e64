//! Frames and headers.

use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, MetadataRequest};
use kafka_protocol::protocol::{Decodable, StrBytes};
use klamm_tests::broker::Broker;
use klamm_tests::wire::{Connection, Next, encode};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// What a connection may cost a broker that takes nothing from it: its buffers, and
/// what the allocator keeps. A count that was believed would be gigabytes.
const ALLOWANCE: u64 = 64 * MIB;

const METADATA: i16 = 3;
const API_VERSIONS: i16 = 18;

/// The header of a request, version 1 (before flexible versions).
fn header(key: i16, version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(key.to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend(7i32.to_be_bytes());
    bytes.extend(2i16.to_be_bytes());
    bytes.extend(b"me");
    bytes
}

/// The header of a flexible version, without tags.
fn flexible_header(key: i16, version: i16) -> Vec<u8> {
    let mut bytes = header(key, version);
    bytes.push(0);
    bytes
}

fn still_serves(broker: &Broker) {
    let answer = broker.connect().api_versions().expect("an answer");
    assert_eq!(answer.error_code, 0);
}

#[test]
fn a_frame_size_that_cannot_be_closes() {
    let broker = Broker::start();
    let too_large = (100 << 20) + 1;
    for size in [-1, 0, i32::MIN, i32::MAX, too_large] {
        let mut connection = broker.connect();
        connection.send(&size.to_be_bytes()).unwrap();
        connection.expect_close();
    }
    still_serves(&broker);
}

#[test]
fn other_protocols_close() {
    let broker = Broker::start();
    let tls_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for bytes in [&tls_hello[..], http] {
        let mut connection = broker.connect();
        connection.send(bytes).unwrap();
        connection.expect_close();
    }
    still_serves(&broker);
}

#[test]
fn a_frame_that_never_completes_closes_after_a_time() {
    let broker = Broker::start();
    let mut connection = broker.connect();
    let begun = Instant::now();
    connection.send(&100i32.to_be_bytes()).unwrap();
    connection.send(&header(METADATA, 1)).unwrap();
    // The frame has 30 seconds: not at once, and not never.
    assert_eq!(connection.next(Duration::from_secs(120)), Next::Closed);
    assert!(
        begun.elapsed() > Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
    still_serves(&broker);
}

#[test]
fn an_unknown_api_or_version_closes() {
    let broker = Broker::start();
    for (key, version) in [
        (999, 0),
        (-1, 0),
        (i16::MAX, 0),
        (4, 0), // LeaderAndIsr, which is between brokers
        (METADATA, 99),
        (METADATA, -1),
    ] {
        let mut connection = broker.connect();
        connection.send_frame(&header(key, version)).unwrap();
        connection.expect_close();
    }
    still_serves(&broker);
}

#[test]
fn an_unknown_version_of_api_versions_is_told_which_there_are() {
    let broker = Broker::start();
    for version in [5, 99, i16::MAX, -1] {
        let mut connection = broker.connect();
        // What a later version's header and body look like nobody knows yet.
        let mut frame = header(API_VERSIONS, version);
        frame.extend([0xff; 40]);
        connection.send_frame(&frame).unwrap();
        let mut answer = connection.receive_frame().unwrap();
        let correlation = answer.split_to(4);
        assert_eq!(&correlation[..], 7i32.to_be_bytes());
        let answer = ApiVersionsResponse::decode(&mut answer, 0).expect("version 0's form");
        assert_eq!(answer.error_code, 35);
        let keys: Vec<_> = answer.api_keys.iter().map(|api| api.api_key).collect();
        assert_eq!(keys, [API_VERSIONS]);
        let again = connection.api_versions().expect("the connection lives");
        assert_eq!(again.error_code, 0);
    }
}

#[test]
fn a_header_that_is_cut_short_closes() {
    let broker = Broker::start();
    let whole = header(METADATA, 1);
    for length in 1..whole.len() {
        let mut connection = broker.connect();
        connection.send_frame(&whole[..length]).unwrap();
        connection.expect_close();
    }
    let mut no_utf8 = header(METADATA, 1);
    no_utf8[10..12].copy_from_slice(&[0xff, 0xfe]);
    let mut negative = header(METADATA, 1);
    negative[8..10].copy_from_slice(&(-2i16).to_be_bytes());
    for frame in [no_utf8, negative] {
        let mut connection = broker.connect();
        connection.send_frame(&frame).unwrap();
        connection.expect_close();
    }
    still_serves(&broker);
}

/// Bodies of Metadata that claim what is not there, and how each lies.
fn lies() -> Vec<(&'static str, Vec<u8>)> {
    let old = |body: &[u8]| [&header(METADATA, 1), body].concat();
    let flexible = |body: &[u8]| [&flexible_header(METADATA, 9), body].concat();
    vec![
        ("2^31-1 topics", old(&i32::MAX.to_be_bytes())),
        ("-2 topics", old(&(-2i32).to_be_bytes())),
        ("one topic more than there are", old(b"\0\0\0\x02\0\x01a")),
        ("a name that is null", old(b"\0\0\0\x01\xff\xff")),
        ("a name of -2 bytes", old(b"\0\0\0\x01\xff\xfe")),
        ("a name longer than the frame", old(b"\0\0\0\x01\x7f\xffa")),
        ("a name that is not UTF-8", old(b"\0\0\0\x01\0\x01\xff")),
        ("nothing at all", old(b"")),
        ("2^32-2 topics", flexible(b"\xff\xff\xff\xff\x0f\0\0\0\0")),
        (
            "a varint without an end",
            flexible(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        ),
        (
            "a compact name longer than the frame",
            flexible(b"\x02\xff\xff\xff\xff\x07a\0\0\0\0\0"),
        ),
        (
            "a tag longer than the frame",
            flexible(b"\x01\0\0\0\x01\0\xff\xff\xff\xff\x07"),
        ),
        ("2^32-1 tags", flexible(b"\x01\0\0\0\xff\xff\xff\xff\x0f")),
        (
            "tags in the header beyond the frame",
            [&header(METADATA, 9)[..], b"\xff\xff\xff\xff\x0f"].concat(),
        ),
    ]
}

#[test]
fn a_count_or_length_that_lies_closes_and_nothing_is_allocated() {
    let broker = Broker::start();
    still_serves(&broker);
    let before = broker.memory_peak();
    for (lie, frame) in lies() {
        let mut connection = broker.connect();
        connection.send_frame(&frame).unwrap();
        let next = connection.next(klamm_tests::wire::ANSWER_WITHIN);
        assert_eq!(next, Next::Closed, "{lie}");
    }
    let grown = broker.memory_peak() - before;
    assert!(grown < ALLOWANCE, "{} MiB for a few bytes", grown / MIB);
    still_serves(&broker);
}

#[test]
fn no_api_believes_a_count() {
    let mut broker = Broker::start();
    let served = broker.connect().api_versions().expect("an answer").api_keys;
    let before = broker.memory_peak();
    let patterns: [&[u8]; 4] = [
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0x00, 0x02, b'x', b'y', 0x7f, 0xff, 0xff, 0xff],
        &[0x03, b'x', b'y', 0xff, 0xff, 0xff, 0xff, 0x07],
    ];
    for api in served {
        for version in api.min_version..=api.max_version {
            for pattern in patterns {
                let body = pattern.repeat(16);
                for header in [
                    header(api.api_key, version),
                    flexible_header(api.api_key, version),
                ] {
                    let mut connection = broker.connect();
                    connection
                        .send_frame(&[header, body.clone()].concat())
                        .unwrap();
                    // Some of it is a request by accident, and then there is an answer
                    // (or none, for a produce that asked for none): what counts is that
                    // the broker is there afterwards, and as small as it was.
                    connection.next(Duration::from_millis(20));
                }
            }
        }
        assert!(broker.is_running(), "API {}", api.api_key);
    }
    let grown = broker.memory_peak() - before;
    assert!(grown < 2 * ALLOWANCE, "{} MiB", grown / MIB);
    still_serves(&broker);
}

#[test]
fn a_client_id_with_control_characters_is_taken_and_escaped_in_the_log() {
    let broker = Broker::with().flag("--log", "debug").start();
    let mut connection = broker.connect();
    let id = "nice\r\n1970-01-01 FORGED everything is fine\x1b[2J";
    connection.client_id = Some(id.to_owned());
    let answer = connection.call(3, &api_versions_3()).expect("taken");
    assert_eq!(answer.error_code, 0);
    let metadata = MetadataRequest::default().with_topics(Some(Vec::new()));
    connection.call(9, &metadata).expect("taken");
    // One more reason to say something of it: a body that is cut short.
    let mut frame = encode(1, Some(id), 9, &metadata);
    frame.truncate(frame.len() - 1);
    connection.send_frame(&frame).unwrap();
    connection.expect_close();
    let log = broker.log();
    assert!(log.contains("FORGED"), "else this shows nothing: {log}");
    assert!(!log.contains('\x1b'), "{log:?}");
    assert!(
        !log.lines()
            .any(|line| line.starts_with("1970-01-01 FORGED")),
        "{log}"
    );
}

fn api_versions_3() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("klamm-tests"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

#[test]
fn too_many_connections_from_one_address_are_closed() {
    let broker = Broker::with().setting("max.connections.per.ip", 3).start();
    // The one that awaited the start may not have been taken off the count yet.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut held: Vec<Connection> = Vec::new();
    while held.len() < 3 {
        let mut connection = broker.connect();
        if connection.api_versions().is_ok() {
            held.push(connection);
        }
        assert!(Instant::now() < deadline, "only {} connections", held.len());
    }
    let mut refused = broker.connect();
    refused.expect_close();
    for connection in &mut held {
        connection
            .api_versions()
            .expect("those that were there stay");
    }
    drop(held);
    while broker.connect().api_versions().is_err() {
        assert!(Instant::now() < deadline, "places come free again");
    }
}
