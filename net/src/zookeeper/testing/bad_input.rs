//! What must not do harm, and the answer to each.

use super::*;
use klamm_coord::core::stat::Perms;

/// What comes back for bytes before there is a session: nothing, and the end.
#[test]
fn what_is_no_first_frame_is_closed_without_an_answer() {
    let connect = &every_request()[0].1;
    let framed = |len: i32, payload: &[u8]| [&len.to_be_bytes()[..], payload].concat();
    let mut lying = connect.clone();
    lying[24..28].copy_from_slice(&i32::MAX.to_be_bytes());
    for (what, bytes) in [
        ("length -1", framed(-1, &[])),
        ("length 2^31-1", framed(i32::MAX, &[])),
        ("above jute.maxbuffer", framed(1_048_576, connect)),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a TLS hello", vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01]),
        ("a truncated connect", framed(20, &connect[..20])),
        ("a huge password length", framed(45, &lying)),
        ("an empty frame", framed(0, &[])),
        ("a word that there is not", b"wat?".to_vec()),
    ] {
        story(Limits::default(), async move |server| {
            let client = server.connect();
            client.send(&bytes);
            assert_eq!(client.frame().await, None, "{what}");
            assert_eq!(server.front.connections(), 0, "{what}");
        });
    }
}

#[test]
fn an_old_client_is_answered_without_what_it_does_not_know() {
    story(Limits::default(), async |server| {
        let client = server.connect();
        let connect = &every_request()[0].1;
        let mut payload = connect[..44].to_vec();
        payload[4..12].fill(0);
        payload[16..24].fill(0);
        client.send_frame(&payload);
        assert_eq!(client.frame().await.unwrap().len(), 36);
        assert_eq!(client.get("/", false).await.err, 0);
    });
}

#[test]
fn frames_that_are_none_within_a_session_close_it() {
    for (what, bytes) in [
        ("an empty frame", vec![0, 0, 0, 0]),
        ("four bytes", vec![0, 0, 0, 4, 0, 0, 0, 1]),
        ("length -1", vec![0xff; 4]),
        ("length 2^31-1 and nothing", i32::MAX.to_be_bytes().to_vec()),
        ("above jute.maxbuffer and nothing", vec![0, 16, 0, 1]),
    ] {
        story(Limits::default(), async move |server| {
            let client = server.client().await;
            client.send(&bytes);
            let began = server.io.now();
            assert_eq!(client.frame().await, None, "{what}");
            let took = server.io.now().0 - began.0;
            assert!(
                took < 5_000_000_000,
                "{what}: at once, not in time: {took} ns"
            );
        });
    }
}

#[test]
fn a_request_above_jute_maxbuffer_is_told_so_and_passed_over() {
    story(Limits::default(), async |server| {
        let client = server.client().await;
        let data = vec![7; 2 << 20];
        let asked = client.ask(op::CREATE, &create("/big", &data, 0));
        let answer = client.answer().await;
        assert_eq!((answer.xid, answer.err), (asked, err::MARSHALLING));
        assert_eq!(client.get("/", false).await.err, err::OK);
        // In pieces, another request right behind it.
        let mut bytes = Vec::new();
        frame::put(&mut bytes, |to| {
            to.extend_from_slice(&payload(70, op::CREATE, &create("/big", &data, 0)));
        });
        frame::put(&mut bytes, |to| {
            to.extend_from_slice(&payload(71, op::DELETE, &versioned("/none", -1)));
        });
        for piece in bytes.chunks(700_000) {
            client.send(piece);
            client.sleep(1).await;
        }
        let told = [client.answer().await, client.answer().await];
        assert_eq!(
            told.map(|a| (a.xid, a.err)),
            [(70, err::MARSHALLING), (71, -101)]
        );
        // The largest that is allowed, in pieces as they come from a network.
        let client = server.client().await;
        let path = "/big";
        let data = vec![7; 1_048_575 - 8 - 4 - path.len() - 4 - 27 - 4];
        let request = payload(1, op::CREATE, &create(path, &data, 0));
        assert_eq!(request.len(), 1_048_575);
        let mut bytes = Vec::new();
        frame::put(&mut bytes, |to| to.extend_from_slice(&request));
        for piece in bytes.chunks(100_000) {
            client.send(piece);
            client.sleep(1).await;
        }
        assert_eq!(client.answer().await.err, 0);
        assert_eq!(
            client.get(path, false).await.body.len(),
            4 + data.len() + 68
        );
    });
}

#[test]
fn what_does_not_come_whole_is_closed_after_a_time() {
    story(Limits::default(), async |server| {
        let (silent, begun, alive) = (server.connect(), server.connect(), server.connect());
        begun.send_greeting(0, &[0; 16], 40_000);
        begun.greeted().await;
        alive.send_greeting(0, &[0; 16], 40_000);
        alive.greeted().await;
        begun.send(&[0, 0, 0, 20, 1, 2, 3]);
        // Always in the middle of a frame, but never of the same one.
        let ping = payload(xid::PING, op::PING, &Nothing);
        alive.send(&[0, 0, 0, 8]);
        for _ in 0..9 {
            alive.send(&ping);
            alive.send(&[0, 0, 0, 8]);
            alive.answer().await;
            alive.sleep(5_000).await;
            begun.send(&[4]);
            server.front.sweep();
        }
        for gone in [&silent, &begun] {
            assert_eq!(gone.frame().await, None);
        }
        assert_eq!(server.front.connections(), 1);
    });
}

#[test]
fn words_that_are_not_allowed_are_told_so() {
    story(Limits::default(), async |server| {
        for (word, says) in [
            ("ruok", "imok"),
            ("isro", "rw"),
            ("srvr", "Zookeeper version: 3.9.3-klamm-0.0.0, built on"),
            (
                "stat",
                "Clients:\n /127.0.0.1:50000[1](queued=0,recved=0,sent=0)\n",
            ),
            ("mntr", "zk_server_state\tstandalone\n"),
            ("conf", "maxClientCnxns=60\nminSessionTimeout=4000\n"),
            (
                "wchc",
                "wchc is not executed because it is not in the whitelist.\n",
            ),
            (
                "stmk",
                "stmk is not executed because it is not in the whitelist.\n",
            ),
        ] {
            let client = server.connect();
            client.send(word.as_bytes());
            let text = client.text().await;
            assert!(text.contains(says), "{word}: {text}");
            client.hang_up();
            client.sleep(1).await;
        }
    });
}

#[test]
fn words_that_list_what_there_is() {
    let limits = Limits {
        words: "*".parse().unwrap(),
        ..Limits::default()
    };
    story(limits, async |server| {
        let client = server.client().await;
        client.call(op::CREATE, &create("/e", b"", 1)).await;
        client.get("/e", true).await;
        let session = client_session(&server);
        for (word, says) in [
            ("cons", format!("sid=0x{session:x},lop=GETD,est=")),
            ("dump", format!("0x{session:x}:\n\t/e\n")),
            (
                "wchs",
                "1 connections watching 1 paths\nTotal watches:1\n".to_owned(),
            ),
            ("wchc", format!("0x{session:x}\n\t/e\n")),
            ("wchp", format!("/e\n\t0x{session:x}\n")),
            ("crst", "Connection stats reset.\n".to_owned()),
            ("srst", "Server stats reset.\n".to_owned()),
        ] {
            let asking = server.connect();
            asking.send(word.as_bytes());
            let text = asking.text().await;
            assert!(text.contains(&says), "{word}: {text}");
        }
    });
}

fn client_session(server: &Server) -> i64 {
    server.front.all()[0].session.get().unwrap().0
}

#[test]
fn who_has_seen_more_than_there_is_must_try_another_server() {
    story(Limits::default(), async |server| {
        let client = server.connect();
        let mut connect = every_request()[0].1.clone();
        connect[4..12].copy_from_slice(&i64::MAX.to_be_bytes());
        client.send_frame(&connect);
        assert_eq!(client.frame().await, None);
    });
}

#[test]
fn timeouts_are_what_ticks_allow_and_unknown_sessions_get_zeros() {
    story(Limits::default(), async |server| {
        for (asked, given) in [(0, 4000), (-5, 4000), (i32::MAX, 40_000), (12_345, 12_345)] {
            let client = server.connect();
            client.send_greeting(0, &[0; 16], asked);
            assert_eq!(client.greeted().await.timeout_ms, given);
        }
        let client = server.connect();
        let refused = client.greet(0x7777, &[0; 16]).await;
        assert_eq!((refused.id, refused.timeout_ms), (0, 0));
        assert_eq!(client.frame().await, None);
    });
}

#[test]
fn an_operation_that_there_is_not_is_answered_and_closed() {
    for unknown in [9999, 13, 0, -10, 10] {
        story(Limits::default(), async move |server| {
            let client = server.client().await;
            let answer = client.call(unknown, &Nothing).await;
            assert_eq!(answer.err, err::UNIMPLEMENTED);
            assert_eq!(client.frame().await, None);
        });
    }
}

#[test]
fn who_shows_what_nobody_knows_is_answered_and_closed() {
    story(Limits::default(), async |server| {
        let client = server.client().await;
        let auth = AuthRequest {
            kind: 0,
            scheme: Some("kerberos".into()),
            auth: Some(b"x"),
        };
        client.send_frame(&payload(xid::AUTH, op::AUTH, &auth));
        let answer = client.answer().await;
        assert_eq!((answer.xid, answer.err), (xid::AUTH, err::AUTH_FAILED));
        assert_eq!(client.frame().await, None);
    });
}

fn create_with(path: &[u8], acl: Option<Vec<Acl>>, flags: i32) -> Raw {
    // By hand: the path need not be text.
    let mut body = Vec::new();
    Some(path).put(&mut body);
    Some(&b"x"[..]).put(&mut body);
    acl.put(&mut body);
    flags.put(&mut body);
    Raw(body)
}

/// Bytes as they are.
struct Raw(Vec<u8>);

impl Field<'_> for Raw {
    const BYTES_MIN: usize = 0;

    fn get(_: &mut Reader<'_>) -> Result<Raw, crate::zookeeper::jute::Malformed> {
        unreachable!("only sent")
    }

    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.0);
    }
}

/// Each is answered with its error, and the connection goes on.
#[test]
fn requests_that_make_no_sense_get_their_errors() {
    let acl = |scheme: &str, id: &str| {
        Some(vec![Acl {
            perms: Perms::ALL,
            scheme: scheme.to_owned().into(),
            id: id.to_owned().into(),
        }])
    };
    let open = || Some(Acl::open());
    let delete = |path: &[u8], version: i32| {
        let mut body = Vec::new();
        Some(path).put(&mut body);
        version.put(&mut body);
        Raw(body)
    };
    let lying_acl = {
        let mut body = create_with(b"/l", open(), 0).0;
        body[11..15].copy_from_slice(&i32::MAX.to_be_bytes());
        Raw(body)
    };
    let lying_data = {
        let mut body = create_with(b"/l", open(), 0).0;
        body[6..10].copy_from_slice(&1000i32.to_be_bytes());
        Raw(body)
    };
    let lying_watches = {
        let mut body = 1i64.to_be_bytes().to_vec();
        body.extend_from_slice(&i32::MAX.to_be_bytes());
        Raw(body)
    };
    let null_path = || Raw([&[0xff; 4][..], &[0; 8]].concat());
    let multi_of = |op: i32, request: Raw| {
        Raw({
            let mut body = Vec::new();
            Ops::default().with(op, &request).put(&mut body);
            body
        })
    };
    let table: Vec<(&str, i32, Raw, i32)> = vec![
        ("path empty", op::CREATE, create_with(b"", open(), 0), -8),
        ("path a", op::CREATE, create_with(b"a", open(), 0), -8),
        ("path //x", op::CREATE, create_with(b"//x", open(), 0), -8),
        ("NUL", op::CREATE, create_with(b"/a\0b", open(), 0), -8),
        ("control", op::CREATE, create_with(b"/a\x01", open(), 0), -8),
        (
            "no UTF-8",
            op::CREATE,
            create_with(b"/\xc3\x28", open(), 0),
            -8,
        ),
        ("flags 99", op::CREATE, create_with(b"/f", open(), 99), -8),
        ("flags -1", op::CREATE2, create_with(b"/f", open(), -1), -8),
        (
            "a TTL without one",
            op::CREATE,
            create_with(b"/f", open(), 5),
            -8,
        ),
        (
            "/a/../b",
            op::CREATE,
            create_with(b"/a/../b", open(), 0),
            -101,
        ),
        ("/x/", op::CREATE, create_with(b"/x/", open(), 0), -101),
        (
            "missing parent",
            op::CREATE,
            create_with(b"/no/x", open(), 0),
            -101,
        ),
        (
            "ACL empty",
            op::CREATE,
            create_with(b"/f", Some(vec![]), 0),
            -114,
        ),
        ("ACL null", op::CREATE, create_with(b"/f", None, 0), -114),
        (
            "ACL unknown",
            op::CREATE,
            create_with(b"/f", acl("wat", "x"), 0),
            -114,
        ),
        (
            "ACL world:me",
            op::CREATE,
            create_with(b"/f", acl("world", "me"), 0),
            -114,
        ),
        (
            "ACL auth of nobody",
            op::CREATE,
            create_with(b"/f", acl("auth", ""), 0),
            -114,
        ),
        ("ACL count", op::CREATE, lying_acl, -5),
        ("data length", op::CREATE, lying_data, -5),
        ("empty body", op::CREATE, Raw(vec![]), -5),
        ("empty body", op::GET_DATA, Raw(vec![]), -5),
        ("null path", op::CREATE, null_path(), -5),
        ("null path", op::GET_DATA, null_path(), -5),
        ("null path", op::DELETE, null_path(), -5),
        ("null path", op::SYNC, null_path(), 0),
        ("setWatches count", op::SET_WATCHES, lying_watches, -5),
        ("watch kind", op::CHECK_WATCHES, delete(b"/", 9), -5),
        ("watch mode", op::ADD_WATCH, delete(b"/", 2), -5),
        ("delete /", op::DELETE, delete(b"/", -1), -8),
        (
            "delete /zookeeper",
            op::DELETE,
            delete(b"/zookeeper", -1),
            -8,
        ),
        ("delete a", op::DELETE, delete(b"a", -1), -8),
        ("wrong version", op::DELETE, delete(b"/there", 7), -103),
        (
            "exists NUL",
            op::EXISTS,
            Raw([&[0, 0, 0, 1, 0, 0][..]].concat()),
            -8,
        ),
        (
            "get a",
            op::GET_DATA,
            Raw([&[0, 0, 0, 1, b'a', 0][..]].concat()),
            -101,
        ),
        (
            "multi of flags 99",
            op::MULTI,
            multi_of(op::CREATE, create_with(b"/f", open(), 99)),
            -5,
        ),
        (
            "multi of a read",
            op::MULTI,
            multi_of(op::GET_DATA, Raw(vec![0, 0, 0, 1, b'/', 0])),
            -5,
        ),
        (
            "multi of nothing known",
            op::MULTI,
            multi_of(77, Raw(vec![])),
            -5,
        ),
        (
            "multiRead of a write",
            op::MULTI_READ,
            multi_of(op::DELETE, delete(b"/f", 0)),
            -5,
        ),
        ("multi without end", op::MULTI, Raw(vec![0, 0, 0, 1]), -5),
    ];
    story(Limits::default(), async move |server| {
        let client = server.client().await;
        assert_eq!(client.create("/there", b"").await.err, 0);
        let mut zxid = Zxid::ZERO;
        for (what, op, request, err) in &table {
            let answer = client.call(*op, request).await;
            assert_eq!(answer.err, *err, "{what}, operation {op}");
            assert!(answer.body.is_empty() || *err == 0, "{what}");
            assert!(answer.zxid >= zxid, "{what}");
            zxid = answer.zxid;
        }
        assert_eq!(client.get("/there", false).await.err, 0, "it lives");
    });
}

/// As in Apache ZooKeeper 3.9.5, which says MARSHALLINGERROR to each: a multi has a zxid
/// before it is read, but for what is found while its operations are built.
#[test]
fn a_multi_that_cannot_be_read_counts_as_a_write() {
    let open = || Some(Acl::open());
    let multi_of = |op: i32, request: Raw| {
        let mut body = Vec::new();
        Ops::default().with(op, &request).put(&mut body);
        Raw(body)
    };
    let read = || Raw(vec![0, 0, 0, 1, b'/', 0]);
    let after_a_read = |request: Raw| {
        let mut body = Vec::new();
        let ops = Ops::default().with(op::GET_DATA, &read());
        ops.with(op::CREATE, &request).put(&mut body);
        Raw(body)
    };
    let create_of = |acl, flags| multi_of(op::CREATE2, create_with(b"/f", acl, flags));
    let table = [
        ("flags 99", create_of(open(), 99), true),
        ("a TTL's flags", create_of(open(), 6), true),
        ("a read", multi_of(op::GET_DATA, read()), true),
        (
            "a read, then no ACL",
            after_a_read(create_with(b"/f", None, 0)),
            false,
        ),
        (
            "a read, then a create",
            after_a_read(create_with(b"/f", open(), 0)),
            true,
        ),
        ("nothing known", multi_of(77, Raw(vec![])), true),
        ("an end that is missing", Raw(vec![0, 0, 0, 1]), true),
        ("no ACL, flags 99", create_of(None, 99), true),
        ("no ACL", create_of(None, 0), false),
        ("no ACL, a TTL's flags", create_of(None, 6), false),
    ];
    story(Limits::default(), async move |server| {
        let client = server.client().await;
        let mut zxid = client.create("/there", b"").await.zxid;
        for (what, request, is_write) in &table {
            let answer = client.call(op::MULTI, request).await;
            assert_eq!(answer.err, -5, "{what}");
            assert_eq!(answer.zxid > zxid, *is_write, "{what}");
            zxid = answer.zxid;
        }
    });
}

/// Any bytes within a session: an answer or the end, and nobody else is disturbed.
#[test]
fn random_frames_disturb_nobody_else() {
    story(Limits::default(), async |server| {
        let steady = server.client().await;
        steady.create("/steady", b"1").await;
        let mut seed = 0x2545_f491_4f6c_dd1du64;
        let mut next = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..300 {
            let client = server.client().await;
            for (_, mut payload) in every_request().into_iter().skip(1) {
                for _ in 0..next() % 3 {
                    let at = next() as usize % payload.len();
                    payload[at] = next() as u8;
                }
                client.send_frame(&payload);
            }
            client.sleep(1).await;
            client.hang_up();
        }
        steady.sleep(1).await;
        assert_eq!(steady.get("/steady", false).await.err, 0);
        assert_eq!(server.front.connections(), 1);
        assert_eq!(server.front.partial_bytes.get(), 0);
    });
}

#[test]
fn an_idle_connection_is_small() {
    story(Limits::default(), async |server| {
        let pipe = Pipe::with_window(1);
        let address = "127.0.0.1:1".parse().unwrap();
        let connection = Connection::new(server.front.clone(), address, PipeSocket(pipe));
        let task = connection.run();
        let client = size_of::<crate::zookeeper::front::Client>();
        let sizes = (size_of_val(&task), client);
        // Without the socket's own; 19,600 of both are 10 MiB.
        assert!(sizes.0 <= 256 && sizes.1 <= 320, "{sizes:?}");
    });
}
