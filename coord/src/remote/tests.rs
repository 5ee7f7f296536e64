//! Brokers that share one coordinator, which is a bare state machine here: each with a
//! session of its own, and every answer a little late.

use super::reading::outermost;
use super::*;
use crate::core::Zxid;
use crate::core::cluster::{NewTopic, TopicRef};
use crate::core::group::subscription::{assignment, subscription};
use crate::core::groups::{
    self, JoinGroup, OffsetCommit, OffsetCommitPartition, OffsetCommitTopic, OffsetFetch,
    OffsetFetchGroup, Protocol, SyncGroup,
};
use crate::core::image::Endpoint;
use crate::core::settings::BrokerConfig;
use crate::core::zookeeper::{Client, Connect, Connected, ConnectionId, ZooKeeperConfig};
use klamm_engine::io::sim::{Sim, SimIo};
use klamm_engine::units::{LeaderEpoch, Offset};
use std::collections::HashSet;

/// The ensemble itself.
struct Ensembles {
    io: SimIo,
    core: RefCell<Core>,
    notices: RefCell<HashMap<ConnectionId, VecDeque<Notice>>>,
    told: Rc<Signal>,
    /// Answers of this connection are lost from now on.
    cut: RefCell<Option<ConnectionId>>,
    /// What this one asks does not even arrive.
    away: RefCell<Option<ConnectionId>>,
}

impl Ensembles {
    fn new(io: &SimIo) -> Rc<Ensembles> {
        let mut core = Core::new(config(99));
        core.start(now(io)).unwrap();
        Rc::new(Ensembles {
            io: io.clone(),
            core: RefCell::new(core),
            notices: RefCell::default(),
            told: Signal::new(),
            cut: RefCell::default(),
            away: RefCell::default(),
        })
    }

    fn join(self: &Rc<Self>, connection: u64) -> Fake {
        let connection = ConnectionId(connection);
        let fake = Fake {
            server: self.clone(),
            connection,
            session: Cell::new(SessionId(0)),
        };
        fake.open_session();
        fake
    }

    fn deliver(&self) {
        for fired in self.core.borrow_mut().take_fired() {
            let mut notices = self.notices.borrow_mut();
            for connection in fired.connections {
                let queue = notices.entry(connection).or_default();
                queue.push_back(Notice::Event(fired.event.clone()));
            }
        }
        self.told.wake();
    }

    /// Its client is dead, and after a while so is the session.
    fn end(&self, session: SessionId) {
        self.core.borrow_mut().close_session(session, now(&self.io));
        self.deliver();
    }

    fn expire(&self, fake: ConnectionId, session: SessionId) {
        self.end(session);
        self.tell(fake, Notice::NewSession);
    }

    fn tell(&self, connection: ConnectionId, notice: Notice) {
        let mut notices = self.notices.borrow_mut();
        notices.entry(connection).or_default().push_back(notice);
        drop(notices);
        self.told.wake();
    }

    /// What a tool does.
    fn by_hand(&self, op: Op) {
        let done = self.core.borrow_mut().write(
            &Client {
                connection: ConnectionId(0),
                session: SessionId(1),
                identities: &[],
            },
            op,
            now(&self.io),
        );
        done.value.unwrap();
        self.deliver();
    }

    fn data(&self, path: &str) -> Option<String> {
        let core = self.core.borrow();
        let data = core.tree().data(path)??;
        Some(String::from_utf8(data.to_vec()).unwrap())
    }
}

struct Fake {
    server: Rc<Ensembles>,
    connection: ConnectionId,
    session: Cell<SessionId>,
}

impl Fake {
    fn open_session(&self) {
        let request = Connect {
            last_zxid_seen: Zxid::ZERO,
            timeout_ms: 40_000,
            session: SessionId(0),
            password: &[],
        };
        let mut core = self.server.core.borrow_mut();
        let Connected::Session { session, .. } =
            core.connect(self.connection, &request, now(&self.server.io))
        else {
            panic!("a new session is never refused");
        };
        self.session.set(session);
    }

    fn client(&self) -> Client<'static> {
        Client {
            connection: self.connection,
            session: self.session.get(),
            identities: &[],
        }
    }

    /// The answer, a while later; the work is done at once, as the server does it in order.
    fn later<T: 'static>(&self, value: T) -> impl Future<Output = Result<T, Lost>> + use<T> {
        let io = self.server.io.clone();
        let cut = [&self.server.cut, &self.server.away]
            .iter()
            .any(|of| *of.borrow() == Some(self.connection));
        async move {
            io.sleep(Duration::from_millis(1)).await;
            match cut {
                true => Err(Lost {
                    why: "cut".to_owned(),
                }),
                false => Ok(value),
            }
        }
    }
}

impl Ensemble for Rc<Fake> {
    fn session(&self) -> SessionId {
        self.session.get()
    }

    fn multi(
        &self,
        ops: &[Op],
    ) -> impl Future<Output = Result<Result<Vec<OpResult>, MultiError>, Lost>> + 'static {
        let is_away = *self.server.away.borrow() == Some(self.connection);
        let done = if is_away {
            Ok(Vec::new())
        } else {
            let mut core = self.server.core.borrow_mut();
            let done = core.multi(&self.client(), ops.to_vec(), now(&self.server.io));
            drop(core);
            self.server.deliver();
            done.value
        };
        self.later(done)
    }

    fn read(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<Result<Seen, TreeError>, Lost>> + 'static {
        let mut core = self.server.core.borrow_mut();
        let read = core.get_data(&self.client(), path, false).value;
        let read = read.map(|(data, stat)| Seen {
            data: data.map(<[u8]>::to_vec),
            stat,
        });
        drop(core);
        self.later(read)
    }

    fn children(
        &self,
        path: &str,
    ) -> impl Future<Output = Result<Result<Vec<String>, TreeError>, Lost>> + 'static {
        let mut core = self.server.core.borrow_mut();
        let read = core.get_children(&self.client(), path, false).value;
        let read = read.map(|(names, _)| names.map(str::to_owned).collect());
        drop(core);
        self.later(read)
    }

    fn watch(&self, path: &str) -> impl Future<Output = Result<(), Lost>> + 'static {
        let mut core = self.server.core.borrow_mut();
        core.add_watch(&self.client(), path, true);
        drop(core);
        self.later(())
    }

    async fn notice(&self) -> Notice {
        let this = self.clone();
        let notice = self.server.told.until(move || {
            let mut notices = this.server.notices.borrow_mut();
            notices.get_mut(&this.connection)?.pop_front()
        });
        let notice = notice.await;
        if notice == Notice::NewSession {
            self.open_session();
            for path in MIRRORED {
                let mut core = self.server.core.borrow_mut();
                core.add_watch(&self.client(), path, true);
            }
        }
        notice
    }

    async fn close(&self) {
        let mut core = self.server.core.borrow_mut();
        core.close_session(self.session.get(), now(&self.server.io));
        drop(core);
        self.server.deliver();
    }
}

#[derive(Clone, Default)]
struct Shards(Rc<RefCell<Vec<Arc<Image>>>>);

impl Host for Shards {
    async fn apply_image(&self, image: Arc<Image>) {
        self.0.borrow_mut().push(image);
    }
}

type Opened = Rc<Remote<SimIo, Shards, Rc<Fake>>>;

fn config(broker: i32) -> CoreConfig {
    let given = [
        ("broker.id".to_owned(), broker.to_string()),
        (
            "group.initial.rebalance.delay.ms".to_owned(),
            "0".to_owned(),
        ),
    ];
    CoreConfig {
        broker: BrokerConfig::new(given).unwrap(),
        cluster_id: None,
        id_seed: broker as u128,
        session_secret: 1,
        zookeeper: ZooKeeperConfig::default(),
    }
}

async fn open(server: &Rc<Ensembles>, id: i32) -> (Opened, Rc<Fake>) {
    open_at(server, id, id as u64).await
}

async fn open_at(server: &Rc<Ensembles>, id: i32, connection: u64) -> (Opened, Rc<Fake>) {
    let fake = Rc::new(server.join(connection));
    let remote = Remote::open(
        server.io.clone(),
        fake.clone(),
        config(id),
        Shards::default(),
    );
    let remote = remote.await.unwrap_or_else(|error| panic!("{error}"));
    register(&remote, id).await;
    (remote, fake)
}

async fn register(remote: &Opened, id: i32) {
    let broker = Broker {
        id,
        rack: None,
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".to_owned(),
            protocol: "PLAINTEXT".to_owned(),
            host: format!("host{id}"),
            port: 9092,
        }],
        hosts_coordinator: false,
    };
    let answer = remote.call(Request::RegisterBroker { broker }).await;
    assert_eq!(answer, Ok(Response::RegisterBroker(Ok(()))));
}

async fn create(remote: &Opened, name: &str, partitions: i32) -> Answer {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor: 1,
        ..NewTopic::default()
    };
    let request = Request::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    };
    remote.call(request).await
}

async fn commit(remote: &Opened, group: &str, offset: i64) -> Answer {
    let request = groups::Request::OffsetCommit(OffsetCommit {
        api_version: 8,
        group: group.to_owned(),
        generation: -1,
        member_id: String::new(),
        instance_id: None,
        retention_time_ms: -1,
        topics: vec![OffsetCommitTopic {
            topic: "orders".to_owned(),
            partitions: vec![OffsetCommitPartition {
                partition: 0,
                offset: Offset(offset),
                leader_epoch: LeaderEpoch(-1),
                metadata: None,
            }],
        }],
    });
    remote.call(Request::Group(request)).await
}

async fn fetch(remote: &Opened, group: &str) -> Result<i64, Stopped> {
    let request = groups::Request::OffsetFetch(OffsetFetch {
        groups: vec![OffsetFetchGroup {
            group: group.to_owned(),
            topics: Some(vec![("orders".to_owned(), vec![0])]),
        }],
    });
    match remote.call(Request::Group(request)).await? {
        Response::Group(groups::Response::OffsetFetch(answer)) => {
            Ok(answer.groups[0].topics[0].partitions[0].offset.0)
        }
        other => panic!("{other:?}"),
    }
}

/// Waits until it is so, or the test is stuck.
async fn until(io: &SimIo, what: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if what() {
            return;
        }
        io.sleep(Duration::from_millis(1)).await;
    }
    panic!("it never came to be");
}

fn run(test: impl AsyncFnOnce(SimIo)) {
    let sim = Sim::from_seed(1);
    let io = sim.io();
    sim.run(test(io));
}

#[test]
fn a_topic_made_at_one_broker_is_known_to_the_others() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let (one, _) = open(&server, 1).await;
        let (two, _) = open(&server, 2).await;
        until(&io, || one.image().brokers.len() == 2).await;
        let answer = create(&one, "orders", 4).await.unwrap();
        assert!(matches!(answer, Response::CreateTopics(topics) if topics[0].1.is_ok()));
        // Node by node.
        until(&io, || {
            two.image().topic("orders") == one.image().topic("orders")
        })
        .await;
        let (image, other) = (one.image(), two.image());
        let there = other.topic("orders").unwrap();
        assert_eq!(image.cluster_id, other.cluster_id);
        let mut leaders: Vec<i32> = there.partitions.iter().filter_map(|p| p.leader).collect();
        leaders.sort_unstable();
        assert_eq!(leaders, [1, 1, 2, 2], "spread over the live brokers");
    });
}

#[test]
fn what_a_tool_writes_is_seen() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let (one, _) = open(&server, 1).await;
        create(&one, "orders", 1).await.unwrap();
        let config = r#"{"version":1,"config":{"retention.ms":"1234"}}"#;
        server.by_hand(Op::set("/config/topics/orders", config));
        until(&io, || {
            one.image().topic("orders").unwrap().config.retention_ms == 1234
        })
        .await;
    });
}

#[test]
fn of_two_brokers_that_make_the_same_topic_one_is_refused_and_both_agree() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let (one, _) = open(&server, 1).await;
        let (two, _) = open(&server, 2).await;
        until(&io, || one.image().brokers.len() == 2).await;
        let (a, b) = future::join(create(&one, "orders", 3), create(&two, "orders", 3)).await;
        let made = |answer: &Answer| matches!(answer, Ok(Response::CreateTopics(topics)) if topics[0].1.is_ok());
        assert!(made(&a) != made(&b), "{a:?} {b:?}");
        until(&io, || {
            let (one, two) = (one.image(), two.image());
            one.topic("orders").is_some() && one.topic("orders") == two.topic("orders")
        })
        .await;
        // Both work on.
        assert!(made(&create(&one, "a", 1).await));
        assert!(made(&create(&two, "b", 1).await));
        until(&io, || {
            one.image().topics().len() == 3 && two.image().topics().len() == 3
        })
        .await;
    });
}

#[test]
fn a_groups_offsets_go_with_it_from_broker_to_broker() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let (one, _) = open(&server, 1).await;
        let (two, fake) = open(&server, 2).await;
        create(&one, "orders", 1).await.unwrap();
        until(&io, || {
            one.image().brokers.len() == 2 && two.image().topic("orders").is_some()
        })
        .await;
        let group = (0..).map(|n| format!("group{n}"));
        let group = group
            .into_iter()
            .find(|g| one.image().group_coordinator(g) == Some(2))
            .unwrap();
        assert!(commit(&one, &group, 1).await.is_err(), "not its own");
        commit(&two, &group, 41).await.unwrap();
        commit(&two, &group, 42).await.unwrap();
        assert_eq!(
            server
                .data(&format!("/consumers/{group}/offsets/orders/0"))
                .unwrap(),
            "42"
        );
        assert_eq!(fetch(&two, &group).await, Ok(42));
        two.close().await;
        drop(fake);
        until(&io, || one.image().brokers.len() == 1).await;
        assert_eq!(fetch(&one, &group).await, Ok(42));
        commit(&one, &group, 43).await.unwrap();
        assert_eq!(fetch(&one, &group).await, Ok(43));
    });
}

#[test]
fn a_broker_that_lost_its_claim_commits_nothing() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let (one, _) = open(&server, 1).await;
        create(&one, "orders", 1).await.unwrap();
        commit(&one, "g", 5).await.unwrap();
        server.by_hand(Op::set("/consumers/g", "2"));
        server.by_hand(Op::set("/consumers/g/offsets/orders/0", "7"));
        assert!(commit(&one, "g", 6).await.is_err());
        assert_eq!(server.data("/consumers/g/offsets/orders/0").unwrap(), "7");
        assert_eq!(
            fetch(&one, "g").await,
            Ok(7),
            "claimed again, and read anew"
        );
    });
}

#[test]
fn a_broker_whose_session_expired_registers_again() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let (one, fake) = open(&server, 1).await;
        let (two, _) = open(&server, 2).await;
        until(&io, || two.image().brokers.len() == 2).await;
        server.expire(fake.connection, fake.session.get());
        until(&io, || two.image().brokers.len() == 1).await;
        until(&io, || two.image().brokers.len() == 2).await;
        until(&io, || one.image().brokers.len() == 2).await;
        assert!(create(&one, "after", 1).await.is_ok());
    });
}

#[test]
fn an_answer_that_was_lost_is_refused_and_the_truth_is_read() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let (one, fake) = open(&server, 1).await;
        *server.cut.borrow_mut() = Some(fake.connection);
        assert!(create(&one, "orders", 1).await.is_err());
        *server.cut.borrow_mut() = None;
        server.tell(fake.connection, Notice::Reconnected);
        // It had been done.
        until(&io, || one.image().topic("orders").is_some()).await;
    });
}

#[test]
fn what_is_read_whole_is_read_once() {
    let dirty = ["/b/c/d", "/a", "/b/c", "/a-b", "/a", "/a/x"].map(|path| Dirty {
        path: path.to_owned(),
        whole: true,
    });
    let mut paths = outermost(dirty.into());
    paths.sort_unstable();
    assert_eq!(paths, ["/a", "/a-b", "/b/c"]);
}

/// A fake's connection is there again.
fn reconnect(server: &Rc<Ensembles>, fake: &Rc<Fake>) {
    *server.away.borrow_mut() = None;
    let mut notices = server.notices.borrow_mut();
    let queue = notices.entry(fake.connection).or_default();
    queue.push_back(Notice::Reconnected);
    drop(notices);
    server.told.wake();
}

#[test]
fn what_was_not_done_is_neither_shown_nor_taken_for_done() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let (one, fake) = open(&server, 1).await;
        create(&one, "kept", 1).await.unwrap();
        let shown = one.desk.host.0.clone();
        let before = shown.borrow().len();
        *server.away.borrow_mut() = Some(fake.connection);
        let delete = Request::DeleteTopics {
            topics: vec![TopicRef::Name("kept".to_owned())],
        };
        // Sent together: the second is answered by what the first has left.
        let (made, deleted) = future::join(create(&one, "new", 1), one.call(delete)).await;
        assert!(made.is_err() && deleted.is_err());
        // Nobody has it, so it can't be said to be there already.
        assert!(create(&one, "new", 1).await.is_err());
        for image in &shown.borrow()[before..] {
            assert!(image.topic("new").is_none(), "a topic that never was");
            assert!(
                image.topic("kept").is_some(),
                "its records would be deleted"
            );
        }
        reconnect(&server, &fake);
        until(&io, || !one.in_doubt.get()).await;
        let made = create(&one, "new", 1).await.unwrap();
        assert!(matches!(made, Response::CreateTopics(topics) if topics[0].1.is_ok()));
        let last = shown.borrow().last().cloned().unwrap();
        assert!(last.topic("new").is_some() && last.topic("kept").is_some());
    });
}

#[test]
fn of_a_topic_that_two_made_only_the_one_that_is_there_is_shown() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let (one, _) = open(&server, 1).await;
        let (two, _) = open(&server, 2).await;
        until(&io, || one.image().brokers.len() == 2).await;
        let (a, b) = future::join(create(&one, "t", 2), create(&two, "t", 2)).await;
        assert!(a.is_ok() || b.is_ok(), "{a:?} {b:?}");
        let shown = |of: &Opened| -> HashSet<_> {
            let images = of.desk.host.0.borrow();
            let ids = images.iter().filter_map(|i| Some(i.topic("t")?.id));
            ids.collect()
        };
        until(&io, || !shown(&one).is_empty() && !shown(&two).is_empty()).await;
        assert_eq!(shown(&one).len(), 1);
        assert_eq!(shown(&one), shown(&two));
    });
}

/// Each partition's leader and leader epoch, as a broker knows them.
fn leaders(remote: &Opened, topic: &str) -> Vec<(Option<i32>, i32)> {
    let image = remote.image();
    let partitions = image.topic(topic).map(|t| t.partitions.clone());
    let partitions = partitions.unwrap_or_default();
    let led = partitions.iter().map(|p| (p.leader, p.leader_epoch.0));
    led.collect()
}

#[test]
fn the_first_is_the_controller_and_the_next_one_takes_over() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let (one, fake) = open(&server, 1).await;
        let (two, _) = open(&server, 2).await;
        let (three, _) = open(&server, 3).await;
        until(&io, || {
            [&one, &two, &three]
                .iter()
                .all(|b| b.image().controller == Some(1))
        })
        .await;
        assert_eq!(server.data("/controller_epoch").unwrap(), "1");

        // Written by a tool without an id: the controller sees to it, wherever it is.
        let json = r#"{"version":1,"partitions":{"0":[1],"1":[2],"2":[3]}}"#;
        server.by_hand(Op::create("/brokers/topics/t", json));
        let all = [(Some(1), 0), (Some(2), 0), (Some(3), 0)];
        until(&io, || {
            leaders(&one, "t") == all && leaders(&three, "t") == all
        })
        .await;

        // The controller dies: another one is elected, and tells what it led.
        one.stop("as if killed");
        server.end(fake.session.get());
        let without = [(None, 1), (Some(2), 0), (Some(3), 0)];
        until(&io, || {
            leaders(&two, "t") == without && leaders(&three, "t") == without
        })
        .await;
        let controller = two.image().controller.unwrap();
        assert!([2, 3].contains(&controller));
        assert_eq!(server.data("/controller_epoch").unwrap(), "2");

        let (again, _) = open_at(&server, 1, 11).await;
        let back = [(Some(1), 2), (Some(2), 0), (Some(3), 0)];
        until(&io, || {
            leaders(&two, "t") == back && leaders(&again, "t") == back
        })
        .await;
        assert_eq!(again.image().controller, Some(controller));

        server.by_hand(Op::create("/admin/delete_topics/t", ""));
        until(&io, || again.image().topic("t").is_none()).await;
        until(&io, || server.data("/admin/delete_topics/t").is_none()).await;
        assert_eq!(server.data("/brokers/topics/t"), None);
    });
}

#[test]
fn of_many_that_try_for_the_office_one_has_it_and_its_epoch() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let mut brokers = Vec::new();
        for id in 1..5 {
            brokers.push(open(&server, id).await);
        }
        for round in 2..8 {
            server.by_hand(Op::delete("/controller"));
            until(&io, || {
                let named: Vec<_> = brokers.iter().map(|(b, _)| b.image().controller).collect();
                let elected = server.data("/controller_epoch").unwrap() != (round - 1).to_string();
                elected && named[0].is_some() && named.iter().all(|id| *id == named[0])
            })
            .await;
            // Every attempt but one left no trace.
            let epoch = server.data("/controller_epoch").unwrap();
            assert_eq!(epoch, round.to_string());
        }
        create(&brokers[3].0, "t", 4).await.unwrap();
        until(&io, || {
            brokers.iter().all(|(b, _)| leaders(b, "t").len() == 4)
        })
        .await;
    });
}

#[test]
fn a_broker_that_is_killed_and_back_at_once_takes_its_own_place() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let (one, fake) = open(&server, 1).await;
        create(&one, "t", 1).await.unwrap();
        one.stop("as if killed");
        // The old session lives on for a while.
        let (again, new) = open_at(&server, 1, 11).await;
        let owner = |path: &str| {
            let core = server.core.borrow();
            core.tree()
                .stat(path)
                .map_or(0, |stat| stat.ephemeral_owner)
        };
        assert_eq!(owner("/brokers/ids/1"), new.session.get().0);
        until(&io, || {
            leaders(&again, "t").first().is_some_and(|l| l.0 == Some(1))
        })
        .await;
        server.end(fake.session.get());
        until(&io, || owner("/controller") == new.session.get().0).await;
        assert_eq!(
            owner("/brokers/ids/1"),
            new.session.get().0,
            "not taken along"
        );
    });
}

/// A member that comes alone and takes these partitions of "orders"; its id.
async fn consume(remote: &Opened, group: &str, partitions: &[i32]) -> String {
    let join = groups::Request::JoinGroup(JoinGroup {
        api_version: 3,
        group: group.to_owned(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        member_id: String::new(),
        instance_id: None,
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol {
            name: "range".to_owned(),
            metadata: subscription(&["orders"]),
        }],
        reason: None,
    });
    let joined = match remote.call(Request::Group(join)).await.unwrap() {
        Response::Group(groups::Response::JoinGroup(joined)) => joined,
        other => panic!("{other:?}"),
    };
    let sync = groups::Request::SyncGroup(SyncGroup {
        api_version: 3,
        group: group.to_owned(),
        generation: joined.generation,
        member_id: joined.member_id.clone(),
        instance_id: None,
        protocol_type: None,
        protocol: None,
        assignments: vec![(
            joined.member_id.clone(),
            assignment(&[("orders", partitions)]),
        )],
    });
    match remote.call(Request::Group(sync)).await.unwrap() {
        Response::Group(groups::Response::SyncGroup(synced)) => assert_eq!(synced.error, None),
        other => panic!("{other:?}"),
    }
    joined.member_id
}

#[test]
fn a_groups_members_are_shown_by_the_broker_that_looks_after_it() {
    run(async |io| {
        let server = Ensembles::new(&io);
        let (one, _) = open(&server, 1).await;
        let (two, second) = open(&server, 2).await;
        let (three, third) = open(&server, 3).await;
        create(&one, "orders", 3).await.unwrap();
        until(&io, || one.image().brokers.len() == 3).await;
        let of_three: Vec<String> = (0..200)
            .map(|n| format!("group{n}"))
            .filter(|g| one.image().group_coordinator(g) == Some(3))
            .collect();
        three.close().await;
        until(&io, || {
            one.image().brokers.len() == 2 && two.image().brokers.len() == 2
        })
        .await;
        // A group that goes from the second to the third broker once that is back.
        let mut moving = of_three.into_iter();
        let group = moving
            .find(|g| one.image().group_coordinator(g) == Some(2))
            .unwrap();
        let owners = |owner: &Rc<Fake>| -> Vec<String> {
            let core = server.core.borrow();
            let paths = core.tree().ephemerals(owner.session.get().0);
            paths
                .filter(|p| p.starts_with("/consumers"))
                .map(str::to_owned)
                .collect()
        };
        until(&io, || !leaders(&two, "orders").is_empty()).await;
        let member = consume(&two, &group, &[0, 2]).await;
        let expected = |member: &str, partitions: &[i32]| -> Vec<String> {
            let owned = partitions
                .iter()
                .map(|p| format!("/consumers/{group}/owners/orders/{p}"));
            [format!("/consumers/{group}/ids/{member}")]
                .into_iter()
                .chain(owned)
                .collect()
        };
        assert_eq!(owners(&second), expected(&member, &[0, 2]));
        let node = format!("/consumers/{group}/owners/orders/2");
        assert_eq!(server.data(&node), Some(member));

        let (three, new) = open_at(&server, 3, 13).await;
        until(&io, || two.image().brokers.len() == 3).await;
        until(&io, || !leaders(&three, "orders").is_empty()).await;
        let member = consume(&three, &group, &[1]).await;
        assert!(owners(&second).is_empty(), "what the one before had shown");
        assert_eq!(owners(&new), expected(&member, &[1]));
        drop(third);
        server.end(new.session.get());
        assert!(owners(&new).is_empty());
    });
}
