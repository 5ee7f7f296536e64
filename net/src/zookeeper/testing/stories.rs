//! What clients go through, from their first frame to their last.

use super::*;
use crate::zookeeper::jute::{Buf, List, Str};
use klamm_coord::core::stat::{Perms, Stat};

fn data_and_stat(answer: &Answer) -> (Option<Vec<u8>>, Stat) {
    assert_eq!(answer.err, 0, "{answer:?}");
    let mut from = Reader::new(&answer.body);
    let data: Buf<'_> = from.take().unwrap();
    (data.map(<[u8]>::to_vec), from.take().unwrap())
}

fn names(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.err, 0, "{answer:?}");
    let names: List<Str<'_>> = Reader::new(&answer.body).take().unwrap();
    let names = names.unwrap().into_iter();
    names.map(|name| name.unwrap().into_owned()).collect()
}

#[test]
fn a_client_connects_creates_gets_sets_watches_and_closes() {
    story(Limits::default(), async |server| {
        let (a, b) = (server.client().await, server.client().await);
        let created = a.create("/x", b"one").await;
        let path: Str<'_> = Reader::new(&created.body).take().unwrap();
        assert_eq!(path.unwrap(), "/x");
        let (data, stat) = data_and_stat(&b.get("/x", true).await);
        assert_eq!(data.unwrap(), b"one");
        assert_eq!((stat.version, stat.czxid), (0, created.zxid));
        let set = a.set("/x", b"two").await;
        assert!(set.zxid > created.zxid);
        assert_eq!(b.event().await, (3, "/x".to_owned()));
        let (data, stat) = data_and_stat(&b.get("/x", false).await);
        assert_eq!((data.unwrap(), stat.version), (b"two".to_vec(), 1));
        let ping = a.ask(op::PING, &Nothing);
        assert!(ping > 0);
        assert_eq!(a.answer().await.xid, xid::PING);
        let closed = a.call(op::CLOSE_SESSION, &Nothing).await;
        assert_eq!((closed.err, closed.zxid > set.zxid), (0, true));
        assert_eq!(a.frame().await, None, "and then the connection");
        assert_eq!(server.front.connections(), 2, "it waits for its client");
        a.hang_up();
        a.sleep(1).await;
        assert_eq!(server.front.connections(), 1);
    });
}

#[test]
fn answers_wait_for_the_changelog_and_pipelined_ones_come_in_order() {
    story(Limits::default(), async |server| {
        let client = server.client().await;
        let mut xids = Vec::new();
        for n in 0..100 {
            let path = format!("/n{n}");
            xids.push(client.ask(op::CREATE, &create(&path, b"x", 0)));
            xids.push(client.ask(op::GET_DATA, &read(&path, false)));
        }
        let committed_before = server.front.keeper.committed();
        let mut zxid = Zxid::ZERO;
        for want in xids {
            let answer = client.answer().await;
            assert_eq!((answer.xid, answer.err), (want, 0));
            assert!(answer.zxid >= zxid, "the client's view never goes back");
            assert!(answer.zxid <= server.front.keeper.committed());
            zxid = answer.zxid;
        }
        assert!(zxid > committed_before);
    });
}

#[test]
fn an_event_comes_before_every_answer_that_shows_the_change() {
    story(Limits::default(), async |server| {
        let (writer, watcher) = (server.client().await, server.client().await);
        writer.create("/x", b"0").await;
        for round in 1..50u8 {
            assert_eq!(watcher.get("/x", true).await.err, 0);
            let request = SetDataRequest {
                path: Some("/x".into()),
                data: Some(&[round]),
                version: -1,
            };
            writer.ask(op::SET_DATA, &request);
            // The read is made after the set, and waits for its commit: so does the event,
            // which is in front of it.
            server.io.sleep(Duration::from_micros(1)).await;
            let asked = watcher.ask(op::GET_DATA, &read("/x", false));
            let first = watcher.answer().await;
            if first.xid == asked {
                let (data, _) = data_and_stat(&first);
                assert_ne!(data.unwrap(), [round], "seen before it was told");
                watcher.event().await;
            } else {
                assert_eq!(first.xid, xid::NOTIFICATION);
                watcher.answer().await;
            }
            writer.answer().await;
        }
    });
}

#[test]
fn a_session_moves_to_another_connection_and_the_old_one_is_closed() {
    story(Limits::default(), async |server| {
        let first = server.connect();
        let session = first.greet(0, &[0; 16]).await;
        assert_eq!(session.timeout_ms, 10_000);
        first.call(op::CREATE, &create("/e", b"", 1)).await;
        let second = server.connect();
        assert_eq!(second.greet(session.id, &session.password).await, session);
        assert_eq!(first.frame().await, None);
        let own = second.call(op::GET_EPHEMERALS, &at("/")).await;
        assert_eq!(names(&own), ["/e"]);

        let stranger = server.connect();
        let refused = stranger.greet(session.id, &[7; 16]).await;
        assert_eq!((refused.id, refused.timeout_ms), (0, 0));
        assert_eq!(refused.password, [0; 16]);
        assert_eq!(stranger.frame().await, None);
        assert_eq!(
            second.get("/e", false).await.err,
            0,
            "which changes nothing here"
        );
    });
}

#[test]
fn a_silent_session_ends_at_its_deadline_and_its_ephemerals_with_it() {
    story(Limits::default(), async |server| {
        let (silent, other) = (server.connect(), server.connect());
        silent.send_greeting(0, &[0; 16], 4000);
        let session = silent.greeted().await;
        other.send_greeting(0, &[0; 16], 40_000);
        other.greeted().await;
        silent.call(op::CREATE, &create("/e", b"", 1)).await;
        other.call(op::EXISTS, &read("/e", true)).await;
        let before = server.io.now();
        assert_eq!(other.event().await, (2, "/e".to_owned()));
        let took = server.io.now().0 - before.0;
        assert!((3_900_000_000..4_100_000_000).contains(&took), "{took} ns");
        assert_eq!(silent.frame().await, None);
        let late = server.connect();
        assert_eq!(late.greet(session.id, &session.password).await.id, 0);
    });
}

#[test]
fn a_session_lives_on_without_a_connection_until_its_deadline() {
    story(Limits::default(), async |server| {
        let first = server.connect();
        let session = first.greet(0, &[0; 16]).await;
        first.call(op::CREATE, &create("/e", b"", 1)).await;
        first.hang_up();
        first.sleep(9_000).await;
        let again = server.connect();
        assert_eq!(
            again.greet(session.id, &session.password).await.id,
            session.id
        );
        assert_eq!(again.get("/e", false).await.err, 0);
    });
}

#[test]
fn every_kind_of_create_delete_and_acl() {
    story(Limits::default(), async |server| {
        let client = server.client().await;
        client.create("/p", b"").await;
        let sequential = client.call(op::CREATE2, &create("/p/s-", b"", 2)).await;
        let mut from = Reader::new(&sequential.body);
        assert_eq!(from.take::<Str<'_>>().unwrap().unwrap(), "/p/s-0000000000");
        assert_eq!(from.take::<Stat>().unwrap().czxid, sequential.zxid);
        let container = client
            .call(op::CREATE_CONTAINER, &create("/c", b"", 4))
            .await;
        assert_eq!(container.err, 0);
        let ttl = |ttl_ms, flags| CreateTtlRequest {
            path: Some("/t".into()),
            data: None,
            acl: Some(Acl::open()),
            flags,
            ttl_ms,
        };
        for (ttl_ms, flags, err) in [(0, 5, -8), (1 << 40, 5, -8), (5, 0, -8), (1000, 5, 0)] {
            let made = client.call(op::CREATE_TTL, &ttl(ttl_ms, flags)).await;
            assert_eq!(made.err, err, "{ttl_ms} {flags}");
        }
        assert_eq!(
            client.call(op::DELETE, &versioned("/p", -1)).await.err,
            -111
        );
        assert_eq!(client.call(op::DELETE, &versioned("/t", 9)).await.err, -103);
        assert_eq!(client.call(op::DELETE, &versioned("/t", 0)).await.err, 0);
        assert_eq!(client.call(op::DELETE_CONTAINER, &at("/c")).await.err, 0);
        let (number, count) = (op::GET_ALL_CHILDREN_NUMBER, 1i32);
        assert_eq!(
            client.call(number, &at("/p")).await.body,
            count.to_be_bytes()
        );
        let children = client.call(op::GET_CHILDREN2, &read("/p", false)).await;
        assert_eq!(names(&children), ["s-0000000000"]);

        let auth = AuthRequest {
            kind: 0,
            scheme: Some("digest".into()),
            auth: Some(b"me:secret"),
        };
        client.send_frame(&payload(xid::AUTH, op::AUTH, &auth));
        assert_eq!(client.answer().await.err, 0);
        let mine = Acl {
            perms: Perms::ALL,
            scheme: "auth".into(),
            id: "".into(),
        };
        let request = SetAclRequest {
            path: Some("/p".into()),
            acl: Some(vec![mine]),
            version: 0,
        };
        assert_eq!(client.call(op::SET_ACL, &request).await.err, 0);
        assert_eq!(client.get("/p", false).await.err, 0);
        let got = client.call(op::GET_ACL, &at("/p")).await;
        let acl: GetAclResponse = Reader::new(&got.body).take().unwrap();
        assert!(acl.acl.unwrap()[0].id.starts_with("me:"));
        let who = client.call(op::WHO_AM_I, &Nothing).await;
        let who: WhoAmIResponse<'_> = Reader::new(&who.body).take().unwrap();
        let users: Vec<_> = who.clients.unwrap().into_iter().collect();
        assert_eq!(users[1].user.as_deref(), Some("me"));
        let other = server.client().await;
        assert_eq!(other.get("/p", false).await.err, -102);
        assert_eq!(
            other
                .call(
                    op::RECONFIG,
                    &ReconfigRequest {
                        joining: None,
                        leaving: None,
                        new_members: None,
                        config: -1,
                    }
                )
                .await
                .err,
            -123
        );
        let sasl = other.call(op::SASL, &SaslToken { token: Some(b"") }).await;
        assert_eq!((sasl.err, sasl.body), (0, vec![0xff; 4]));
        let synced = other.call(op::SYNC, &at("/p")).await;
        let path: Str<'_> = Reader::new(&synced.body).take().unwrap();
        assert_eq!((synced.err, path.as_deref()), (0, Some("/p")));
    });
}

#[test]
fn a_multi_is_done_whole_or_not_at_all() {
    story(Limits::default(), async |server| {
        let client = server.client().await;
        let ops = Ops::default()
            .with(op::CREATE, &create("/m", b"1", 0))
            .with(op::CREATE2, &create("/m/c", b"", 0))
            .with(op::CHECK, &versioned("/m", 0))
            .with(op::DELETE, &versioned("/m/c", -1));
        let done = client.call(op::MULTI, &ops).await;
        let mut from = Reader::new(&done.body);
        let header = |from: &mut Reader<'_>| from.take::<MultiHeader>().unwrap();
        assert_eq!(header(&mut from).op, op::CREATE);
        assert_eq!(from.take::<Str<'_>>().unwrap().unwrap(), "/m");
        assert_eq!(header(&mut from).op, op::CREATE2);
        assert_eq!(from.take::<Str<'_>>().unwrap().unwrap(), "/m/c");
        assert_eq!(from.take::<Stat>().unwrap().czxid, done.zxid);
        assert_eq!(header(&mut from).op, op::CHECK);
        assert_eq!(header(&mut from).op, op::DELETE);
        assert!(header(&mut from).done && from.is_empty());

        let ops = Ops::default()
            .with(op::CREATE, &create("/n", b"1", 0))
            .with(op::CHECK, &versioned("/m", 7))
            .with(op::DELETE, &versioned("/m", -1));
        let failed = client.call(op::MULTI, &ops).await;
        assert_eq!(failed.err, 0, "it is said of each");
        assert!(failed.zxid > done.zxid);
        let mut from = Reader::new(&failed.body);
        for want in [0, -103, -2] {
            let header = header(&mut from);
            assert_eq!((header.op, header.err, header.done), (-1, want, false));
            assert_eq!(from.take::<ErrorResponse>().unwrap().err, want);
        }
        assert!(header(&mut from).done && from.is_empty());

        let ops = Ops::default()
            .with(op::GET_DATA, &read("/m", true))
            .with(op::GET_DATA, &read("/n", false))
            .with(op::GET_CHILDREN, &read("/m", false));
        let reads = client.call(op::MULTI_READ, &ops).await;
        let mut from = Reader::new(&reads.body);
        assert_eq!(header(&mut from).op, op::GET_DATA);
        assert_eq!(from.take::<Buf<'_>>().unwrap().unwrap(), b"1");
        from.take::<Stat>().unwrap();
        assert_eq!(header(&mut from).err, -101);
        assert_eq!(from.take::<ErrorResponse>().unwrap().err, -101);
        assert_eq!(header(&mut from).op, op::GET_CHILDREN);
        assert_eq!(from.take::<List<Str<'_>>>().unwrap().unwrap().len(), 0);
        assert!(header(&mut from).done && from.is_empty());
    });
}

#[test]
fn watches_are_kept_set_again_checked_and_removed() {
    story(Limits::default(), async |server| {
        let (writer, client) = (server.client().await, server.client().await);
        writer.create("/w", b"").await;
        let added = client.call(op::ADD_WATCH, &watching("/w", 1)).await;
        assert_eq!((added.err, added.body), (0, vec![0; 4]));
        writer.create("/w/a", b"").await;
        writer.set("/w/a", b"1").await;
        assert_eq!(client.event().await, (1, "/w/a".to_owned()));
        assert_eq!(client.event().await, (3, "/w/a".to_owned()));
        assert_eq!(
            client.call(op::CHECK_WATCHES, &watching("/w", 3)).await.err,
            0
        );
        assert_eq!(
            client
                .call(op::REMOVE_WATCHES, &watching("/w", 3))
                .await
                .err,
            0
        );
        assert_eq!(
            client.call(op::CHECK_WATCHES, &watching("/w", 3)).await.err,
            -121
        );
        assert_eq!(
            client
                .call(op::REMOVE_WATCHES, &watching("/w", 3))
                .await
                .err,
            -121
        );

        let seen = client.get("/w", false).await.zxid;
        writer.set("/w", b"2").await;
        let again = SetWatches2Request {
            relative_zxid: seen,
            data: Some(vec![
                Some("/w".into()),
                Some("/w/a".into()),
                Some("/gone".into()),
            ]),
            exist: Some(vec![Some("/later".into()), Some("/w".into())]),
            child: Some(vec![Some("/w".into())]),
            persistent: Some(vec![Some("/w".into())]),
            recursive: Some(vec![]),
        };
        client.send_frame(&payload(xid::SET_WATCHES, op::SET_WATCHES2, &again));
        assert_eq!(client.event().await, (3, "/w".to_owned()));
        assert_eq!(client.event().await, (2, "/gone".to_owned()));
        assert_eq!(client.event().await, (1, "/w".to_owned()));
        assert_eq!(client.answer().await.xid, xid::SET_WATCHES);
        writer.create("/later", b"").await;
        assert_eq!(client.event().await, (1, "/later".to_owned()));
        writer.create("/w/b", b"").await;
        assert_eq!(client.event().await, (4, "/w".to_owned()));
    });
}

#[test]
fn a_client_that_does_not_read_costs_only_itself() {
    let limits = Limits {
        outbox_bytes_max: 10_000,
        ..Limits::default()
    };
    story(limits, async |server| {
        let slow = server.connect_with_window(1000);
        slow.greet(0, &[0; 16]).await;
        let other = server.client().await;
        other.create("/big", &[7; 900]).await;
        let asked: Vec<i32> = (0..5_000)
            .map(|_| slow.ask(op::GET_DATA, &read("/big", false)))
            .collect();
        slow.sleep(1000).await;
        assert!(
            !slow.pipe.to_server.borrow().is_empty(),
            "it is not read on"
        );
        for client in server.front.all() {
            assert!(client.outbox.borrow().bytes() <= 11_100);
        }
        assert_eq!(other.get("/big", false).await.err, 0);
        for xid in asked {
            assert_eq!(slow.answer().await.xid, xid, "nothing is lost");
        }
    });
}

#[test]
fn events_that_nobody_reads_end_the_connection_and_not_the_broker() {
    let limits = Limits {
        outbox_bytes_limit: 20_000,
        ..Limits::default()
    };
    story(limits, async |server| {
        let slow = server.connect_with_window(1000);
        slow.greet(0, &[0; 16]).await;
        slow.call(op::ADD_WATCH, &watching("/", 1)).await;
        let writer = server.client().await;
        let path = format!("/{}", "x".repeat(200));
        for _ in 0..200 {
            writer.create(&path, b"").await;
            writer.call(op::DELETE, &versioned(&path, -1)).await;
        }
        assert_eq!(server.front.connections(), 1);
        assert!(slow.pipe.server_done.get());
    });
}

#[test]
fn a_stopping_server_answers_what_was_asked_and_sessions_live_on() {
    let sim = klamm_engine::io::sim::Sim::from_seed(7);
    sim.run(async {
        let server = Server::open(sim.io(), Limits::default()).await;
        let client = server.connect();
        let session = client.greet(0, &[0; 16]).await;
        let asked = client.ask(op::CREATE, &create("/e", b"", 1));
        client.sleep(0).await;
        server.io.sleep(Duration::from_nanos(1)).await;
        server.front.close();
        let answer = client.answer().await;
        assert_eq!((answer.xid, answer.err), (asked, 0));
        assert_eq!(client.frame().await, None);
        client.hang_up();
        client.sleep(1).await;
        assert_eq!(server.front.connections(), 0);
        server.driver.close().await.unwrap();
        drop(server);
        let server = Server::open(sim.io(), Limits::default()).await;
        let client = server.connect();
        let mut limits = client.greet(session.id, &session.password).await;
        assert_eq!(limits.id, session.id);
        limits.timeout_ms = 0;
        assert_eq!(client.get("/e", false).await.err, 0);
    });
}

#[test]
fn a_coordinator_that_stops_lets_its_clients_go_and_says_so() {
    story(Limits::default(), async |server| {
        let client = server.client().await;
        server.driver.close().await.unwrap();
        assert_eq!(client.frame().await, None);
        let late = server.connect();
        late.send_greeting(0, &[0; 16], 10_000);
        assert_eq!(late.frame().await, None);
        let probe = server.connect();
        probe.send(b"ruok");
        assert!(probe.text().await.contains("not currently serving"));
    });
}
