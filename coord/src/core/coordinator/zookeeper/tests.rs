use super::*;
use crate::core::coordinator::CoreConfig;
use crate::core::settings::BrokerConfig;

const A: ConnectionId = ConnectionId(1);
const B: ConnectionId = ConnectionId(2);

fn config() -> CoreConfig {
    CoreConfig {
        broker: BrokerConfig::default(),
        zookeeper: ZooKeeperConfig::default(),
        cluster_id: None,
        id_seed: 1,
        session_secret: 2,
    }
}

/// A core with its commands kept, so that it can be built anew from them.
struct Server {
    core: Core,
    log: Vec<(Zxid, Command)>,
    now: Now,
}

impl Server {
    fn new() -> Server {
        let mut server = Server {
            core: Core::new(config()),
            log: Vec::new(),
            now: at(1_000),
        };
        server.core.start(server.now).unwrap();
        server.settle();
        server
    }

    fn settle(&mut self) -> (Vec<Fired>, Vec<ConnectionId>) {
        let output = self.core.take_output();
        self.log.extend(output.persist);
        (output.fired, output.hang_up)
    }

    fn restarted(mut self, from_snapshot: bool) -> Server {
        self.settle();
        let mut core = if from_snapshot {
            Core::restore(config(), &self.core.snapshot()).unwrap()
        } else {
            let mut core = Core::new(config());
            for (zxid, command) in &self.log {
                core.apply(*zxid, command);
            }
            core
        };
        self.now = at(self.now.wall.0 + 60_000);
        core.start(self.now).unwrap();
        self.core = core;
        self.settle();
        self
    }

    fn wait(&mut self, ms: i64) -> (Vec<Fired>, Vec<ConnectionId>) {
        self.now = at(self.now.wall.0 + ms);
        self.core.tick(self.now);
        self.settle()
    }

    fn connect(&mut self, connection: ConnectionId) -> (SessionId, Password) {
        self.connect_as(connection, SessionId(0), &[0; 16])
            .expect("a new one")
    }

    fn connect_as(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        password: &[u8],
    ) -> Option<(SessionId, Password)> {
        let request = Connect {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 10_000,
            session,
            password,
        };
        match self.core.connect(connection, &request, self.now) {
            Connected::Session {
                session, password, ..
            } => Some((session, password)),
            Connected::Expired => None,
            Connected::ZxidAhead => panic!("0 is never ahead"),
        }
    }

    fn write(&mut self, client: Client<'_>, op: Op) -> Result<OpResult, TreeError> {
        self.core.write(&client, op, self.now).value
    }
}

fn at(ms: i64) -> Now {
    Now {
        mono: Nanos(ms as u64 * 1_000_000),
        wall: TimestampMs(ms),
    }
}

fn client(connection: ConnectionId, session: SessionId) -> Client<'static> {
    Client {
        connection,
        session,
        identities: &[],
    }
}

fn ephemeral(path: &str, session: SessionId) -> Op {
    living(path, Lifetime::Ephemeral(session.0))
}

fn living(path: &str, lifetime: Lifetime) -> Op {
    Op::Create {
        path: path.to_owned(),
        data: None,
        acl: Acl::open(),
        lifetime,
        sequential: false,
    }
}

#[test]
fn a_session_ends_at_its_deadline_and_its_nodes_with_it() {
    let mut server = Server::new();
    let (session, _) = server.connect(A);
    let me = client(A, session);
    server.write(me, ephemeral("/e", session)).unwrap();
    server.core.exists(&client(B, session), "/e", true);
    server.wait(9_999);
    assert!(server.core.heard(session, server.now));
    server.wait(9_999);
    assert!(server.core.tree().exists("/e"));
    let (fired, hang_up) = server.wait(1);
    assert!(!server.core.tree().exists("/e"));
    assert_eq!(fired.len(), 1);
    assert_eq!(
        (fired[0].event.kind, &fired[0].connections[..]),
        (EventKind::Deleted, &[B][..])
    );
    assert_eq!(hang_up, [A]);
    assert!(!server.core.heard(session, server.now));
}

#[test]
fn timeouts_are_kept_within_bounds() {
    let mut server = Server::new();
    for (asked, given) in [(0, 4_000), (-5, 4_000), (i32::MAX, 40_000), (7_000, 7_000)] {
        let request = Connect {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: asked,
            session: SessionId(0),
            password: &[],
        };
        match server.core.connect(A, &request, server.now) {
            Connected::Session { timeout_ms, .. } => assert_eq!(timeout_ms, given),
            other => panic!("{other:?}"),
        }
    }
    let ahead = Connect {
        last_zxid_seen: Zxid(1_000_000),
        timeout_ms: 0,
        session: SessionId(0),
        password: &[],
    };
    let answer = server.core.connect(A, &ahead, server.now);
    assert_eq!(answer, Connected::ZxidAhead);
}

#[test]
fn sessions_outlive_the_process_but_the_brokers_own_does_not() {
    for from_snapshot in [false, true] {
        let mut server = Server::new();
        let own = server.core.own_session();
        let (session, password) = server.connect(A);
        let me = client(A, session);
        server.write(me, ephemeral("/e", session)).unwrap();
        server
            .write(client(A, own), ephemeral("/own", own))
            .unwrap();
        let mut server = server.restarted(from_snapshot);
        assert!(server.core.tree().exists("/e"));
        assert!(!server.core.tree().exists("/own"));
        assert_ne!(server.core.own_session(), own);
        server.wait(9_999);
        assert_eq!(
            server.connect_as(B, session, &[9; 16]),
            None,
            "a wrong password"
        );
        assert_eq!(
            server.connect_as(B, session, &password),
            Some((session, password))
        );
        server.wait(9_999);
        assert!(server.core.tree().exists("/e"));
        server.wait(1);
        assert!(!server.core.tree().exists("/e"));
        assert_eq!(
            server.connect_as(B, session, &password),
            None,
            "it has expired"
        );
    }
}

#[test]
fn nobody_takes_up_the_brokers_own_session() {
    let mut server = Server::new();
    let own = server.core.own_session();
    let password = Sessions::password(2, own);
    assert_eq!(server.connect_as(A, own, &password), None);
}

#[test]
fn a_session_that_moves_leaves_its_connection_and_its_watches() {
    let mut server = Server::new();
    let (session, password) = server.connect(A);
    server
        .core
        .get_data(&client(A, session), "/", true)
        .value
        .unwrap();
    server.connect_as(B, session, &password).unwrap();
    assert_eq!(server.settle().1, [A]);
    assert_eq!(server.core.watches().summary().watches, 0);
    // What the front says of the old connection later does not concern the new one.
    server.core.disconnect(A, Some(session));
    let held = server.core.sessions().get(session).unwrap();
    assert_eq!(held.connection, Some(B));
}

#[test]
fn a_read_waits_for_what_it_shows_and_for_nothing_else() {
    let mut server = Server::new();
    let (session, _) = server.connect(A);
    let me = client(A, session);
    let first = server
        .core
        .write(&me, Op::create("/a", ""), server.now)
        .zxid;
    let second = server
        .core
        .write(&me, Op::create("/b", ""), server.now)
        .zxid;
    assert!(second > first);
    assert_eq!(server.core.get_data(&me, "/a", false).zxid, first);
    let child = server
        .core
        .write(&me, Op::create("/a/c", ""), server.now)
        .zxid;
    assert_eq!(server.core.exists(&me, "/a", false).zxid, child);
    assert_eq!(server.core.exists(&me, "/b", false).zxid, second);
    let gone = server.core.write(&me, Op::delete("/a/c"), server.now).zxid;
    assert_eq!(server.core.exists(&me, "/a/c", false).zxid, gone);
    assert_eq!(server.core.exists(&me, "/a/c/d", false).zxid, gone);
    let open = Op::SetAcl {
        path: "/b".to_owned(),
        acl: Acl::open(),
        version: -1,
    };
    let opened = server.core.write(&me, open, server.now).zxid;
    assert_eq!(server.core.get_acl(&me, "/b").zxid, opened);
}

#[test]
fn a_failed_write_has_a_zxid_and_comes_back_as_none() {
    let mut server = Server::new();
    let (session, _) = server.connect(A);
    let before = server.core.zxid();
    let failed = server
        .core
        .write(&client(A, session), Op::delete("/none"), server.now);
    assert_eq!(failed.value, Err(TreeError::NoNode));
    assert_eq!(failed.zxid, before.next());
    let zxid = server.core.zxid();
    let server = server.restarted(false);
    assert!(server.core.zxid() > zxid);
}

#[test]
fn acls_are_held_to_also_inside_of_a_multi() {
    let mut server = Server::new();
    let (session, _) = server.connect(A);
    let bob = [Identity {
        scheme: "digest".into(),
        id: acl::digest("bob:secret"),
    }];
    let bob = Client {
        identities: &bob,
        ..client(A, session)
    };
    let nobody = client(B, session);
    let mine = |path: &str| Op::Create {
        path: path.to_owned(),
        data: None,
        acl: vec![Acl {
            perms: Perms::ALL,
            scheme: "auth".into(),
            id: "".into(),
        }],
        lifetime: Lifetime::Persistent,
        sequential: false,
    };
    assert_eq!(server.write(nobody, mine("/x")), Err(TreeError::InvalidAcl));
    server.write(bob, mine("/x")).unwrap();
    assert_eq!(
        server.core.get_data(&nobody, "/x", true).value,
        Err(TreeError::NoAuth)
    );
    assert!(server.core.get_data(&bob, "/x", false).value.is_ok());
    let failed = server
        .core
        .multi(
            &nobody,
            vec![Op::create("/y", ""), Op::create("/x/z", "")],
            server.now,
        )
        .value
        .unwrap_err();
    assert_eq!((failed.index, failed.error), (1, TreeError::NoAuth));
    assert!(!server.core.tree().exists("/y"));
    let hidden = Op::SetAcl {
        path: "/x".to_owned(),
        acl: vec![
            Acl {
                perms: Perms::READ,
                scheme: "world".into(),
                id: "anyone".into(),
            },
            Acl {
                perms: Perms::ADMIN,
                scheme: "digest".into(),
                id: "bob:hash".into(),
            },
        ],
        version: -1,
    };
    server.write(bob, hidden).unwrap();
    let (shown, _) = server.core.get_acl(&nobody, "/x").value.unwrap();
    assert_eq!(shown[1].id, "bob:x");
    let restarted = server.restarted(false);
    assert_eq!(restarted.core.tree().acl("/x").unwrap()[1].id, "bob:hash");
}

#[test]
fn watches_that_are_set_again_fire_for_what_was_missed() {
    let mut server = Server::new();
    let (session, _) = server.connect(A);
    let me = client(A, session);
    for path in ["/same", "/set", "/gone", "/parent"] {
        server.write(me, Op::create(path, "")).unwrap();
    }
    let seen = server.core.zxid();
    server.write(me, Op::set("/set", "x")).unwrap();
    server.write(me, Op::delete("/gone")).unwrap();
    server.write(me, Op::create("/parent/child", "")).unwrap();
    server.write(me, Op::create("/came", "")).unwrap();
    server.settle();
    let set = SetWatches {
        relative_zxid: seen,
        data: vec!["/same", "/set", "/gone"],
        exist: vec!["/came", "/none"],
        child: vec!["/parent", "/same"],
        persistent: vec!["/p"],
        recursive: vec!["/r"],
    };
    server.core.set_watches(&client(B, session), &set);
    let fired: Vec<(EventKind, String)> = server
        .core
        .take_fired()
        .into_iter()
        .map(|f| (f.event.kind, f.event.path))
        .collect();
    let expected = [
        (EventKind::DataChanged, "/set"),
        (EventKind::Deleted, "/gone"),
        (EventKind::Created, "/came"),
        (EventKind::ChildrenChanged, "/parent"),
    ];
    assert_eq!(fired, expected.map(|(kind, path)| (kind, path.to_owned())));
    for path in ["/same", "/none", "/p", "/r"] {
        let who = client(B, session);
        assert!(
            server.core.has_watches(&who, path, WatcherType::Any),
            "{path}"
        );
    }
    assert!(
        !server
            .core
            .has_watches(&client(B, session), "/set", WatcherType::Any)
    );
}

#[test]
fn what_has_outlived_its_time_goes() {
    let mut server = Server::new();
    let (session, _) = server.connect(A);
    let me = client(A, session);
    server
        .write(me, living("/unused", Lifetime::Container))
        .unwrap();
    server
        .write(me, living("/used", Lifetime::Container))
        .unwrap();
    server.write(me, Op::create("/used/child", "")).unwrap();
    server.write(me, Op::delete("/used/child")).unwrap();
    server
        .write(me, living("/short", Lifetime::Ttl(1_000)))
        .unwrap();
    server
        .write(me, living("/long", Lifetime::Ttl(100_000)))
        .unwrap();
    assert!(server.core.next_deadline().is_some());
    server.wait(60_000);
    let there = ["/unused", "/used", "/short", "/long"].map(|path| server.core.tree().exists(path));
    assert_eq!(there, [true, false, false, true]);
    server.wait(60_000);
    assert!(!server.core.tree().exists("/long"));
}

#[test]
fn a_container_is_deleted_by_hand_whatever_it_is_but_an_ephemeral() {
    let mut server = Server::new();
    let (session, _) = server.connect(A);
    server
        .write(client(A, session), ephemeral("/e", session))
        .unwrap();
    let now = server.now;
    assert_eq!(
        server.core.delete_container("/e", now).value,
        Err(TreeError::BadVersion)
    );
    assert_eq!(
        server.core.delete_container("/none", now).value,
        Err(TreeError::NoNode)
    );
    server
        .write(client(A, session), Op::create("/p", ""))
        .unwrap();
    assert_eq!(server.core.delete_container("/p", now).value, Ok(()));
}
