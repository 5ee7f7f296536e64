//! What a client of the coordinator's port may send that it should not, each with the
//! answer that it gets; and what those get who connect early, or want text.
//!
//! ```text
//!   before a session   lengths, bytes that are no connect request      closed
//!   in a session       bodies that lie                                 -5, and it lives
//!                      paths, flags, ACLs, versions                    refused by code
//!                      opcodes, schemes that there are not             refused, and closed
//!   as text            four-letter words
//! ```
//!
//! `KLAMM_TESTS_COORDINATOR=apache-3.8.0` runs the same against Apache's server.

use klamm_tests::broker::Setup;
use klamm_tests::coordinator::{Coordinator, apache};
use klamm_tests::zookeeper::jute::Out;
use klamm_tests::zookeeper::records::{Acl, Answer, Create, Request, code, flags};
use klamm_tests::zookeeper::{Connect, Message, Session, Wire, four_letters, is_end};
use std::time::{Duration, Instant};

/// What is to be closed is closed at once; generous for a busy machine.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// A frame that never gets whole.
const PARTIAL_CLOSED_WITHIN: Duration = Duration::from_secs(60);
const BIG: i32 = i32::MAX;

/// Asserts that the server closes and says nothing before it does.
fn assert_closed(mut wire: Wire, why: &str) {
    match wire.until_close(CLOSE_WITHIN) {
        Ok(Some(said)) => assert!(said.is_empty(), "{why}: said {said:02x?}"),
        Ok(None) => panic!("{why}: still open after {CLOSE_WITHIN:?}"),
        Err(e) => panic!("{why}: {e}"),
    }
}

/// A session goes on: it is asked, and answers.
fn assert_lives(session: &mut Session, after: &str) {
    let reply = session.call(&Request::Exists("/zookeeper".into(), false));
    let reply = reply.unwrap_or_else(|e| panic!("after {after}: {e}"));
    assert_eq!(reply.err, code::OK, "after {after}");
}

fn assert_refused(session: &mut Session, request: &Request, with: i32) {
    let reply = session.call(request);
    let reply = reply.unwrap_or_else(|e| panic!("{request:?}: {e}"));
    assert_eq!(reply.err, with, "{request:?}");
    assert_lives(session, &format!("{request:?}"));
}

#[test]
fn what_is_no_connect_request_is_closed() {
    let Some(server) = Coordinator::start("what is no connect request") else {
        return;
    };
    let ints = |ns: &[i32]| ns.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<_>>();
    let whole = Connect::new(10_000).encode();
    let frame = |body: &[u8]| [&ints(&[i32::try_from(body.len()).unwrap()]), body].concat();
    let mut password = Connect::new(10_000).encode();
    password[24..28].copy_from_slice(&BIG.to_be_bytes());
    let mut negative = Connect::new(10_000).encode();
    negative[24..28].copy_from_slice(&(-7i32).to_be_bytes());
    let cases: [(&str, Vec<u8>); 11] = [
        ("a length of -1", ints(&[-1])),
        ("a length of -1 and more", ints(&[-1, 0, 0, 0, 0])),
        ("a length of 2^31-1", ints(&[BIG])),
        ("a length above jute.maxbuffer", ints(&[(1 << 20) + 1])),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: klamm\r\n\r\n".to_vec()),
        (
            "a TLS hello",
            [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc], &[0; 512][..]].concat(),
        ),
        ("an empty connect request", frame(&[])),
        ("a connect request of 4 bytes", frame(&whole[..4])),
        ("a connect request cut in its password", frame(&whole[..35])),
        ("a password of 2^31-1 bytes", frame(&password)),
        ("a password of -7 bytes", frame(&negative)),
    ];
    for (what, bytes) in cases {
        let mut wire = server.wire();
        wire.send(&bytes).expect(what);
        assert_closed(wire, what);
    }
    assert_lives(&mut server.session(), "all of it");
}

#[test]
fn a_client_that_knows_more_than_the_coordinator_is_closed() {
    let Some(server) = Coordinator::start("a zxid from the future") else {
        return;
    };
    for ahead in [1 << 32, i64::MAX] {
        let mut connect = Connect::new(10_000);
        connect.last_zxid = ahead;
        let mut wire = server.wire();
        wire.send_frame(&connect.encode()).expect("send");
        assert_closed(wire, "a last zxid that is ahead");
    }
}

#[test]
fn timeouts_are_negotiated_and_old_clients_get_no_flag() {
    let Some(server) = Coordinator::start("session timeouts") else {
        return;
    };
    let asked = [
        0,
        -5,
        i32::MIN,
        1,
        3_999,
        4_000,
        12_345,
        40_000,
        40_001,
        BIG,
    ];
    for timeout_ms in asked {
        let given = server.wire().connect(&Connect::new(timeout_ms));
        let given = given.expect("a session");
        assert_eq!(
            given.timeout_ms,
            timeout_ms.clamp(4_000, 40_000),
            "{timeout_ms}"
        );
        assert_ne!(given.session, 0);
        assert_eq!((given.password.len(), given.version), (16, 0));
        assert_eq!(given.read_only, Some(false));
    }
    let old = Connect {
        read_only: None,
        ..Connect::new(10_000)
    };
    let given = server
        .wire()
        .connect(&old)
        .expect("an old client's session");
    assert_eq!(given.read_only, None, "what was not sent is not answered");
    assert_ne!(given.session, 0);
}

#[test]
fn a_session_that_is_not_there_is_refused_in_words() {
    let Some(server) = Coordinator::start("unknown sessions") else {
        return;
    };
    let mut there = server.session();
    let refused = |session: i64, password: Option<Vec<u8>>, why: &str| {
        let mut connect = Connect::new(10_000);
        (connect.session, connect.password) = (session, password);
        let mut wire = server.wire();
        let answer = wire.connect(&connect).expect(why);
        assert_eq!((answer.timeout_ms, answer.session), (0, 0), "{why}");
        assert_closed(wire, why);
    };
    refused(0x0bad_0bad, Some(vec![7; 16]), "no such session");
    refused(-1, Some(vec![7; 16]), "no such session, negative");
    let mut wrong = there.password.clone();
    wrong[15] ^= 1;
    // Apache ZooKeeper cuts the session's own connection before it looks at the password.
    if server.is_klamm() {
        refused(there.id, Some(wrong), "the wrong password");
        refused(
            there.id,
            Some(there.password[..15].to_vec()),
            "a part of the password",
        );
        refused(there.id, Some(vec![]), "an empty password");
        assert_lives(&mut there, "others tried its password");
    }
    there
        .call(&Request::CloseSession)
        .expect("an answer to the close");
    refused(there.id, Some(there.password.clone()), "a closed session");
}

#[test]
fn a_session_moves_and_the_old_connection_is_closed() {
    let Some(server) = Coordinator::start("a session that moves") else {
        return;
    };
    let old = server.session();
    let mut new = Session::open(server.address(), &Connect::again(&old)).expect("the session");
    assert_eq!((new.id, &new.password), (old.id, &old.password));
    assert_closed(old.wire, "the session has moved");
    assert_lives(&mut new, "the move");
}

#[test]
fn a_frame_that_is_none_ends_the_connection_and_not_the_session() {
    let Some(server) = Coordinator::start("bad frames in a session") else {
        return;
    };
    let lengths = [-1, i32::MIN, BIG, (1 << 20) + 1, 0];
    let mut cases: Vec<(String, Vec<u8>)> = lengths
        .iter()
        .map(|n| (format!("a length of {n}"), n.to_be_bytes().to_vec()))
        .collect();
    let four = [4i32.to_be_bytes(), 1i32.to_be_bytes()].concat();
    cases.push(("a frame of 4 bytes".into(), four));
    for (what, bytes) in cases {
        let mut session = server.session();
        session.wire.send(&bytes).expect(&what);
        let again = Connect::again(&session);
        assert_closed(session.wire, &what);
        let mut again = Session::open(server.address(), &again).expect(&what);
        assert_lives(&mut again, &what);
    }
}

#[test]
fn a_frame_that_never_gets_whole_is_given_up() {
    let Some(server) = Coordinator::start("partial frames") else {
        return;
    };
    if !server.is_klamm() {
        return; // It waits for ever.
    }
    let parts: [&[u8]; 3] = [&[], &[0, 0], &[0, 0, 0, 45, 0, 0, 0, 0]];
    let mut wires = parts.map(|part| {
        let mut wire = server.wire();
        wire.send(part).expect("send");
        wire
    });
    let deadline = Instant::now() + PARTIAL_CLOSED_WITHIN;
    for (wire, part) in wires.iter_mut().zip(parts) {
        let left = deadline.saturating_duration_since(Instant::now());
        let said = wire.until_close(left).expect("a close");
        assert_eq!(said.as_deref(), Some(&[][..]), "after {part:?}");
    }
    // In a session it ends with the session at the latest, which nothing keeps alive.
    let mut session = Session::new(server.address(), 4_000).expect("a session");
    session.wire.send(&[0, 0, 1]).expect("send");
    let said = session.wire.until_close(PARTIAL_CLOSED_WITHIN);
    assert_eq!(said.expect("a close").as_deref(), Some(&[][..]));
}

#[test]
fn an_opcode_that_is_none_is_said_to_be_and_closed() {
    let Some(server) = Coordinator::start("unknown opcodes") else {
        return;
    };
    for opcode in [9999, 0, -5, 10, 99, 108, i32::MIN] {
        let mut session = server.session();
        let reply = session.call(&Request::Raw(opcode, vec![0; 8]));
        let reply = reply.unwrap_or_else(|e| panic!("opcode {opcode}: {e}"));
        assert_eq!(reply.err, code::UNIMPLEMENTED, "opcode {opcode}");
        assert_closed(session.wire, &format!("opcode {opcode}"));
    }
}

#[test]
fn an_unknown_scheme_is_refused_and_closed() {
    let Some(server) = Coordinator::start("unknown schemes") else {
        return;
    };
    for scheme in ["nothing", "", "world"] {
        let mut session = server.session();
        let reply = session.call(&Request::Auth(scheme.into(), b"x:y".into()));
        let reply = reply.unwrap_or_else(|e| panic!("{scheme:?}: {e}"));
        assert_eq!(reply.err, code::AUTH_FAILED, "{scheme:?}");
        assert_closed(session.wire, scheme);
    }
}

#[test]
fn paths_flags_acls_and_versions_are_refused_by_code() {
    let Some(server) = Coordinator::start("bad arguments") else {
        return;
    };
    let mut session = server.session();
    let made = session.call(&Request::create("/bad", b"", flags::PERSISTENT));
    assert_eq!(made.expect("an answer").err, code::OK);
    let long = format!("/bad/{}", "x".repeat(300));
    let ok = session
        .call(&Request::create(&long, b"", 0))
        .expect("an answer");
    assert_eq!(
        ok.err,
        code::OK,
        "ZooKeeper has no limit of a name's length"
    );

    let wrong = [
        "",
        "a",
        "//x",
        "/bad/a\0",
        "/bad/\u{1}",
        "/bad/\u{1f}",
        "/bad/\u{7f}",
        "/bad/\u{85}",
        "/bad/\u{f8ff}",
        "/bad/\u{fff1}",
        "/bad/.",
        "/bad/..",
    ];
    for path in wrong {
        let create = Request::create(path, b"", flags::PERSISTENT);
        assert_refused(&mut session, &create, code::BAD_ARGUMENTS);
    }
    for path in ["/bad/../b", "/x/", "/missing/parent", "/bad/./b"] {
        let create = Request::create(path, b"", flags::PERSISTENT);
        assert_refused(&mut session, &create, code::NO_NODE);
    }
    let mut utf8 = Out::default();
    utf8.buffer(Some(b"/bad/\xff\xfe"))
        .buffer(Some(b""))
        .acl(Some(&Acl::open()))
        .int(0);
    let reply = session.call(&Request::Raw(1, utf8.0)).expect("an answer");
    // Java's decoder makes U+FFFD of it, which is in a range that no path may have.
    assert_eq!(reply.err, code::BAD_ARGUMENTS, "bad UTF-8");
    assert_lives(&mut session, "bad UTF-8");

    for bad in [99, 7, -1, i32::MIN] {
        let create = Request::create("/bad/flags", b"", bad);
        assert_refused(&mut session, &create, code::BAD_ARGUMENTS);
    }
    let acls = [
        None,
        Some(vec![]),
        Some(vec![Acl::new(31, "nothing", "x")]),
        Some(vec![Acl::new(31, "world", "someone")]),
        Some(vec![Acl::new(31, "digest", "no-colon")]),
        Some(vec![Acl::new(31, "ip", "300.1.1.1")]),
        Some(vec![Acl::new(31, "auth", "")]),
    ];
    for acl in acls {
        let create = Request::Create(Create {
            acl: acl.clone(),
            ..Create::at("/bad/acl", b"", 0)
        });
        assert_refused(&mut session, &create, code::INVALID_ACL);
        let set = Request::SetAcl("/bad".into(), acl, -1);
        assert_refused(&mut session, &set, code::INVALID_ACL);
    }
    for path in ["/", "/zookeeper"] {
        let delete = Request::Delete(path.into(), -1);
        assert_refused(&mut session, &delete, code::BAD_ARGUMENTS);
    }
    for version in [1, 7, i32::MAX, -2] {
        let set = Request::set("/bad", b"x", version);
        assert_refused(&mut session, &set, code::BAD_VERSION);
        let delete = Request::Delete(long.clone(), version);
        assert_refused(&mut session, &delete, code::BAD_VERSION);
    }
    assert_refused(
        &mut session,
        &Request::Delete("/bad".into(), -1),
        code::NOT_EMPTY,
    );
    let twice = Request::create("/bad", b"", 0);
    assert_refused(&mut session, &twice, code::NODE_EXISTS);
    for ttl_ms in [0, -1, i64::MAX] {
        let create = Create::at("/bad/ttl", b"", flags::TTL);
        let create = Request::CreateTtl(create, ttl_ms);
        assert_refused(&mut session, &create, code::BAD_ARGUMENTS);
    }
    let none = Request::RemoveWatches("/bad".into(), 3);
    assert_refused(&mut session, &none, code::NO_WATCHER);
}

/// A mode of no TTL with a TTL below 0: Apache ZooKeeper's process ends over this one.
#[test]
fn a_negative_ttl_of_a_plain_node_harms_nobody() {
    let Some(server) = Coordinator::start("a negative TTL") else {
        return;
    };
    if !server.is_klamm() {
        return;
    }
    let mut session = server.session();
    for flags in [flags::PERSISTENT, flags::EPHEMERAL, flags::CONTAINER] {
        let create = Request::CreateTtl(Create::at("/ttl", b"", flags), -1);
        let reply = session.call(&create).expect("an answer");
        assert!(
            [code::OK, code::BAD_ARGUMENTS].contains(&reply.err),
            "{create:?}: {}",
            reply.err
        );
        assert_lives(&mut session, "a negative TTL");
        session
            .call(&Request::Delete("/ttl".into(), -1))
            .expect("an answer");
    }
    assert_lives(&mut server.session(), "it");
}

#[test]
fn bodies_that_lie_are_refused_and_the_session_lives() {
    let Some(server) = Coordinator::start("bodies that lie") else {
        return;
    };
    let mut session = server.session();
    let made = session.call(&Request::create("/lies", b"", flags::PERSISTENT));
    assert_eq!(made.expect("an answer").err, code::OK);
    let mut acl = Out::default();
    acl.text("/lies/a").buffer(Some(b"")).int(BIG);
    let mut negative_acl = Out::default();
    negative_acl
        .text("/lies/a")
        .buffer(Some(b""))
        .int(-7)
        .int(0);
    let mut data = Out::default();
    data.text("/lies").int(1000).int(0);
    let mut huge_data = Out::default();
    huge_data.text("/lies").int(BIG).int(0);
    let mut watches = Out::default();
    watches.long(0).int(BIG);
    let mut watches2 = Out::default();
    watches2.long(0).int(0).int(0).int(0).int(BIG);
    let mut path = Out::default();
    path.int(BIG).int(0);
    let mut cases = vec![
        ("an ACL of 2^31-1 entries", Request::Raw(1, acl.0)),
        ("data shorter than it says", Request::Raw(5, data.0)),
        ("data of 2^31-1 bytes", Request::Raw(5, huge_data.0)),
        ("2^31-1 watches", Request::Raw(101, watches.0)),
        ("2^31-1 persistent watches", Request::Raw(105, watches2.0)),
        ("a path of 2^31-1 bytes", Request::Raw(3, path.0)),
        ("addWatch of mode 9", Request::AddWatch("/lies".into(), 9)),
    ];
    for opcode in [
        1, 2, 3, 4, 5, 6, 7, 8, 12, 15, 17, 18, 19, 21, 103, 104, 106,
    ] {
        cases.push(("an empty body", Request::Raw(opcode, vec![])));
    }
    for (what, request) in cases {
        let reply = session.call(&request);
        let reply = reply.unwrap_or_else(|e| panic!("{what}: {request:?}: {e}"));
        assert_eq!(reply.err, code::MARSHALLING, "{what}: {request:?}");
        assert_lives(&mut session, what);
    }
    let reply = session
        .call(&Request::Raw(1, negative_acl.0))
        .expect("an answer");
    assert!(
        [code::MARSHALLING, code::INVALID_ACL].contains(&reply.err),
        "an ACL of -7 entries: {}",
        reply.err
    );
    assert_lives(&mut session, "an ACL of -7 entries");
}

#[test]
fn a_multi_is_all_or_nothing_and_says_which_entry() {
    let Some(server) = Coordinator::start("a multi that fails") else {
        return;
    };
    let mut session = server.session();
    let multi = Request::Multi(vec![
        Request::create("/multi", b"", 0),
        Request::Check("/multi".into(), 5),
        Request::create("/multi/a", b"", 0),
    ]);
    let reply = session.call(&multi).expect("an answer");
    let entry = |err| (-1, err, Answer::Error(err));
    let expected = [
        entry(0),
        entry(code::BAD_VERSION),
        entry(code::RUNTIME_INCONSISTENCY),
    ];
    assert_eq!(reply.answer, Answer::Multi(expected.to_vec()));
    let gone = Request::Exists("/multi".into(), false);
    assert_refused(&mut session, &gone, code::NO_NODE);
}

#[test]
fn a_request_above_jute_maxbuffer_ends_the_connection() {
    let Some(server) = Coordinator::start("large requests") else {
        return;
    };
    let mut session = server.session();
    let fits = Request::create("/large", &vec![b'x'; 1_000_000], 0);
    assert_eq!(session.call(&fits).expect("an answer").err, code::OK);
    let read = session.call(&Request::GetData("/large".into(), false));
    match read.expect("an answer").answer {
        Answer::Data(Some(data), _) => assert_eq!(data.len(), 1_000_000),
        other => panic!("{other:?}"),
    }
    let mut again = Connect::again(&session);
    let large = Request::set("/large", &vec![b'y'; 1 << 20], -1);
    // The server may close while it is still being written to; Apache ZooKeeper says
    // nothing before it does, and its clients try for ever.
    match session.call(&large) {
        Ok(reply) => {
            assert!(server.is_klamm());
            assert_eq!(reply.err, code::MARSHALLING);
            assert_closed(session.wire, "a request above jute.maxbuffer");
        }
        Err(ended) => assert!(is_end(&ended), "{ended}"),
    }
    again.timeout_ms = 10_000;
    let mut session = Session::open(server.address(), &again).expect("the session");
    let read = session.call(&Request::GetData("/large".into(), false));
    match read.expect("an answer").answer {
        Answer::Data(Some(data), _) => assert!(data.iter().all(|&b| b == b'x')),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_sixty_first_connection_of_an_address_is_closed() {
    let Some(server) = Coordinator::start("many connections") else {
        return;
    };
    let sessions: Vec<_> = (0..60).map(|_| server.session()).collect();
    let mut wire = server.wire();
    // It may be closed before it is written to.
    wire.send_frame(&Connect::new(10_000).encode()).ok();
    assert_closed(wire, "60 are there already");
    // One that goes makes room for another.
    drop(sessions);
    let deadline = Instant::now() + CLOSE_WITHIN;
    while Session::new(server.address(), 10_000).is_err() {
        assert!(Instant::now() < deadline, "no room after 60 have gone");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn many_requests_at_once_are_answered_in_order() {
    let Some(server) = Coordinator::start("100,000 requests at once") else {
        return;
    };
    let mut session = server.session();
    let requests = vec![Request::Exists("/zookeeper".into(), false); 100_000];
    // Sent by another thread: a server that stops reading while it is not read from
    // must not be waited for by the one who would read.
    let mut socket = session.wire.socket().try_clone().expect("another end");
    let mut bytes = Vec::new();
    for (xid, request) in (1i32..).zip(&requests) {
        let mut out = Out::default();
        out.int(xid).int(request.opcode());
        request.encode(&mut out);
        bytes.extend(i32::try_from(out.0.len()).unwrap().to_be_bytes());
        bytes.extend(out.0);
    }
    let sender = std::thread::spawn(move || std::io::Write::write_all(&mut socket, &bytes));
    for xid in 1..=100_000 {
        let frame = session.wire.receive_frame(CLOSE_WITHIN).expect("an answer");
        let frame = frame.unwrap_or_else(|| panic!("no answer {xid}"));
        assert_eq!(frame[..4], i32::to_be_bytes(xid), "in order");
        assert_eq!(frame[12..16], [0; 4], "without an error");
    }
    sender.join().expect("the sender").expect("all sent");
}

#[test]
fn a_reader_that_never_reads_takes_no_memory() {
    let Some(Coordinator::Klamm(broker)) = Coordinator::start("a reader that never reads") else {
        return;
    };
    let mut session = Session::new(broker.coordinator(), 40_000).expect("a session");
    let create = Request::create("/large", &vec![b'x'; 1_000_000], 0);
    assert_eq!(session.call(&create).expect("an answer").err, code::OK);
    let before = broker.memory_peak();
    // 2,000 answers of 1 MB each: 2 GB, if somebody kept them.
    let requests = vec![Request::GetData("/large".into(), false); 2_000];
    session
        .wire
        .socket()
        .set_nonblocking(true)
        .expect("a socket");
    session.send_all(&requests).ok();
    session
        .wire
        .socket()
        .set_nonblocking(false)
        .expect("a socket");
    let mut other = Session::new(broker.coordinator(), 40_000).expect("a session");
    for _ in 0..100 {
        assert_lives(&mut other, "a reader that does not read");
    }
    let grown = broker.memory_peak().saturating_sub(before);
    assert!(
        grown < 64 << 20,
        "{} MiB for what nobody reads",
        grown >> 20
    );
}

/// Each connection that is taken is answered, however early it came.
#[test]
fn who_comes_early_is_answered() {
    if apache().is_some() {
        return; // It takes connections before it is ready, and leaves them so.
    }
    for _ in 0..5 {
        let mut broker = Setup::default().prepare();
        broker.launch();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut wire = loop {
            if let Ok(wire) = Wire::open(broker.coordinator()) {
                break wire;
            }
            assert!(Instant::now() < deadline, "no port\n{}", broker.log());
        };
        let answer = wire.connect(&Connect::new(10_000)).expect("an answer");
        assert_ne!(answer.session, 0);
    }
}

#[test]
fn four_letter_words_answer_in_text() {
    let Some(server) = Coordinator::start("four-letter words") else {
        return;
    };
    let mut session = server.session();
    session
        .call(&Request::create("/words", b"", flags::EPHEMERAL))
        .expect("an answer");
    session
        .call(&Request::GetData("/words".into(), true))
        .expect("an answer");
    let ask = |word: &str| four_letters(server.address(), word).expect(word);
    assert_eq!(ask("ruok"), "imok");
    assert_eq!(ask("isro"), "rw");
    let srvr = ask("srvr");
    // kazoo's pattern for the version.
    let version = srvr
        .strip_prefix("Zookeeper version: ")
        .unwrap_or_else(|| panic!("{srvr}"));
    let version = version.split(['-', ',']).next().expect("a first part");
    let parts: Vec<_> = version.split('.').map(str::parse::<u32>).collect();
    assert!(
        parts.len() == 3 && parts.iter().all(Result::is_ok),
        "{srvr}"
    );
    for line in [
        "Latency min/avg/max: ",
        "Received: ",
        "Sent: ",
        "Connections: ",
        "Outstanding: ",
        "Zxid: 0x",
        "Mode: ",
        "Node count: ",
    ] {
        assert!(
            srvr.lines().any(|l| l.starts_with(line)),
            "no {line:?} in\n{srvr}"
        );
    }
    let stat = ask("stat");
    for line in ["Zookeeper version: ", "Clients:", " /127.0.0.1:", "Mode: "] {
        assert!(
            stat.lines().any(|l| l.starts_with(line)),
            "no {line:?} in\n{stat}"
        );
    }
    let mntr = ask("mntr");
    for name in [
        "zk_version",
        "zk_server_state",
        "zk_znode_count",
        "zk_watch_count",
        "zk_ephemerals_count",
        "zk_num_alive_connections",
        "zk_outstanding_requests",
        "zk_packets_received",
        "zk_packets_sent",
        "zk_avg_latency",
        "zk_approximate_data_size",
    ] {
        let found = mntr.lines().any(|l| l.split('\t').next() == Some(name));
        assert!(found, "no {name} in\n{mntr}");
    }
    let port = format!("clientPort={}", server.address().port());
    let conf = ask("conf");
    for line in [
        port.as_str(),
        "tickTime=",
        "minSessionTimeout=4000",
        "maxSessionTimeout=40000",
    ] {
        assert!(
            conf.lines().any(|l| l.starts_with(line)),
            "no {line:?} in\n{conf}"
        );
    }
    let cons = ask("cons");
    assert!(cons.contains(&format!("sid=0x{:x}", session.id)), "{cons}");
    assert!(ask("envi").starts_with("Environment:"));
    assert!(
        ask("wchs").contains("1 connections watching 1 paths"),
        "{}",
        ask("wchs")
    );
    // None of the default list.
    for word in ["kill", "crst"] {
        let text = ask(word);
        assert!(
            text.contains(word) && text.contains("not in the whitelist") || text.is_empty(),
            "{word}: {text}"
        );
    }
    assert_lives(&mut session, "the words");
}

/// Words that arrive a byte at a time, or with a line's end, are words.
#[test]
fn a_word_may_come_in_pieces() {
    let Some(server) = Coordinator::start("a word in pieces") else {
        return;
    };
    let mut wire = server.wire();
    for byte in b"ruok" {
        wire.send(&[*byte]).expect("send");
    }
    let said = wire.until_close(CLOSE_WITHIN).expect("a close");
    assert_eq!(said.as_deref(), Some(&b"imok"[..]));
    let mut wire = server.wire();
    wire.send(b"ruok\n").expect("send");
    let said = wire.until_close(CLOSE_WITHIN).expect("a close");
    assert_eq!(said.as_deref(), Some(&b"imok"[..]));
}

/// A watch's event is not held up by an answer that comes later.
#[test]
fn an_event_comes_before_what_it_announces() {
    let Some(server) = Coordinator::start("the order of events") else {
        return;
    };
    let mut watcher = server.session();
    let mut writer = server.session();
    let create = Request::create("/order", b"0", 0);
    assert_eq!(writer.call(&create).expect("an answer").err, code::OK);
    for round in 1..200 {
        let text = round.to_string();
        let watch = watcher.call(&Request::GetData("/order".into(), true));
        assert_eq!(watch.expect("an answer").err, code::OK);
        writer
            .send(&Request::set("/order", text.as_bytes(), -1))
            .expect("send");
        // Asked over and over: the answer with the new data is behind the event.
        let mut told = false;
        loop {
            watcher
                .send(&Request::GetData("/order".into(), false))
                .expect("send");
            let reply = loop {
                match watcher.receive().expect("a message") {
                    Message::Event(event) => {
                        assert_eq!((event.kind, event.path.as_str()), (3, "/order"));
                        told = true;
                    }
                    Message::Reply(reply) => break reply,
                }
            };
            let Answer::Data(Some(data), _) = reply.answer else {
                panic!("{reply:?}");
            };
            if data == text.as_bytes() {
                assert!(told, "round {round}: the data came before the event");
                break;
            }
        }
        while writer.outstanding() > 0 {
            writer.receive().expect("the set's answer");
        }
    }
}
