//! Brokers that share one coordinator, which is a bare state machine here: each with a
//! session of its own, and every answer a little late.

use super::*;
use crate::core::Zxid;
use crate::core::cluster::NewTopic;
use crate::core::groups::{
    OffsetCommit, OffsetCommitPartition, OffsetCommitTopic, OffsetFetch, OffsetFetchGroup,
};
use crate::core::image::Endpoint;
use crate::core::settings::BrokerConfig;
use crate::core::zookeeper::{Client, Connect, Connected, ConnectionId, ZooKeeperConfig};
use klamm_engine::io::sim::{Sim, SimIo};

/// The ensemble itself.
struct Ensembles {
    io: SimIo,
    core: RefCell<Core>,
    notices: RefCell<HashMap<ConnectionId, VecDeque<Notice>>>,
    told: Rc<Signal>,
    /// Answers of this connection are lost from now on.
    cut: RefCell<Option<ConnectionId>>,
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

    fn expire(&self, fake: ConnectionId, session: SessionId) {
        self.core.borrow_mut().close_session(session, now(&self.io));
        self.deliver();
        let mut notices = self.notices.borrow_mut();
        notices
            .entry(fake)
            .or_default()
            .push_back(Notice::NewSession);
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
        let cut = *self.server.cut.borrow() == Some(self.connection);
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
        let mut core = self.server.core.borrow_mut();
        let done = core.multi(&self.client(), ops.to_vec(), now(&self.server.io));
        drop(core);
        self.server.deliver();
        self.later(done.value)
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
    let given = [("broker.id".to_owned(), broker.to_string())];
    CoreConfig {
        broker: BrokerConfig::new(given).unwrap(),
        cluster_id: None,
        id_seed: broker as u128,
        session_secret: 1,
        zookeeper: ZooKeeperConfig::default(),
    }
}

async fn open(server: &Rc<Ensembles>, id: i32) -> (Opened, Rc<Fake>) {
    let fake = Rc::new(server.join(id as u64));
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
        until(&io, || two.image().topic("orders").is_some()).await;
        let (image, other) = (one.image(), two.image());
        let (here, there) = (
            image.topic("orders").unwrap(),
            other.topic("orders").unwrap(),
        );
        assert_eq!(here, there);
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
        let mut notices = server.notices.borrow_mut();
        notices
            .entry(fake.connection)
            .or_default()
            .push_back(Notice::Reconnected);
        drop(notices);
        server.told.wake();
        // It had been done.
        until(&io, || one.image().topic("orders").is_some()).await;
    });
}
