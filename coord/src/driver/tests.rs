use super::*;
use crate::core::cluster::NewTopic;
use crate::core::groups::{
    self, JoinGroup, OffsetCommit, OffsetCommitPartition, OffsetCommitTopic, Protocol,
};
use crate::core::image::{Broker, Endpoint};
use crate::core::settings::BrokerConfig;
use crate::core::tree::Op;
use crate::core::zookeeper::ZooKeeperConfig;
use klamm_engine::io::sim::{OpKind, PowerCut, Sim, SimIo, When};
use klamm_engine::units::{LeaderEpoch, Offset};

const DATA: &str = "/data";
const CHANGELOG_FILE: &str = "/data/coordinator/changelog/00000000000000000000.log";

/// Serves by every image at once, or as slowly as it is told.
#[derive(Clone)]
struct Shards {
    io: SimIo,
    served: Rc<RefCell<Vec<Arc<Image>>>>,
    slowness: Rc<Cell<Duration>>,
}

impl Host for Shards {
    async fn apply_image(&self, image: Arc<Image>) {
        if !self.slowness.get().is_zero() {
            self.io.sleep(self.slowness.get()).await;
        }
        self.served.borrow_mut().push(image);
    }
}

impl Shards {
    fn on(io: &SimIo) -> Shards {
        Shards {
            io: io.clone(),
            served: Rc::default(),
            slowness: Rc::default(),
        }
    }

    fn serves(&self, topic: &str) -> bool {
        self.served
            .borrow()
            .last()
            .is_some_and(|image| image.topic(topic).is_some())
    }
}

type Opened = Rc<Driver<SimIo, Shards>>;

fn config(seed: u128) -> DriverConfig {
    DriverConfig::new(
        CoreConfig {
            broker: BrokerConfig::default(),
            cluster_id: None,
            id_seed: seed,
            session_secret: 1,
            zookeeper: ZooKeeperConfig::default(),
        },
        false,
    )
}

async fn open_with(io: &SimIo, config: DriverConfig) -> Result<Opened, OpenError> {
    let driver = Driver::open(io.clone(), Path::new(DATA), config, Shards::on(io)).await?;
    let endpoint = Endpoint {
        listener: "PLAINTEXT".to_owned(),
        protocol: "PLAINTEXT".to_owned(),
        host: "h".to_owned(),
        port: 9092,
    };
    let broker = Broker {
        id: 1,
        rack: None,
        endpoints: vec![endpoint],
    };
    match driver.call(Request::RegisterBroker { broker }).await {
        Ok(Response::RegisterBroker(Ok(()))) => Ok(driver),
        other => Err(OpenError::Start(format!("{other:?}"))),
    }
}

async fn open(io: &SimIo, seed: u128) -> Opened {
    open_with(io, config(seed))
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

fn create(name: &str) -> Request {
    let topic = NewTopic {
        name: name.to_owned(),
        partitions: 1,
        replication_factor: 1,
        ..NewTopic::default()
    };
    Request::CreateTopics {
        topics: vec![topic],
        validate_only: false,
    }
}

fn commit(group: &str, offset: i64) -> Request {
    let partition = OffsetCommitPartition {
        partition: 0,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(-1),
        metadata: None,
    };
    Request::Group(groups::Request::OffsetCommit(OffsetCommit {
        api_version: 8,
        group: group.to_owned(),
        generation: -1,
        member_id: String::new(),
        instance_id: None,
        retention_time_ms: -1,
        topics: vec![OffsetCommitTopic {
            topic: "t".to_owned(),
            partitions: vec![partition],
        }],
    }))
}

fn join(group: &str) -> Request {
    Request::Group(groups::Request::JoinGroup(JoinGroup {
        api_version: 3,
        group: group.to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: String::new(),
        instance_id: None,
        client_id: "c".to_owned(),
        client_host: "/h".to_owned(),
        protocol_type: "consumer".to_owned(),
        protocols: vec![Protocol {
            name: "range".to_owned(),
            metadata: Vec::new().into(),
        }],
        reason: None,
    }))
}

async fn create_ok(driver: &Opened, name: &str) {
    match driver.call(create(name)).await {
        Ok(Response::CreateTopics(results)) => drop(
            results[0]
                .1
                .as_ref()
                .unwrap_or_else(|e| panic!("{name}: {e}")),
        ),
        other => panic!("{other:?}"),
    }
}

fn offset_of(driver: &Opened, group: &str) -> Option<i64> {
    let core = driver.core.borrow();
    let data = core
        .tree()
        .data(&format!("/consumers/{group}/offsets/t/0"))??;
    Some(std::str::from_utf8(data).unwrap().parse().unwrap())
}

#[test]
fn what_was_answered_is_there_after_a_power_cut() {
    let sim = Sim::from_seed(1);
    let io = sim.io();
    let cluster_id = sim.run(async {
        let driver = open(&io, 1).await;
        create_ok(&driver, "orders").await;
        driver.call(commit("g", 42)).await.unwrap();
        driver.image().cluster_id.clone()
    });
    sim.power_cut_how(PowerCut::LoseAll);
    let io = sim.restart();
    sim.run(async {
        let driver = open(&io, 2).await;
        assert!(driver.host.serves("orders"));
        assert_eq!(offset_of(&driver, "g"), Some(42));
        assert_eq!(driver.image().cluster_id, cluster_id);
    });
}

#[test]
fn an_answer_about_topics_waits_for_the_shards_and_one_to_a_group_does_not() {
    let sim = Sim::from_seed(2);
    let io = sim.io();
    sim.run(async {
        let driver = open(&io, 1).await;
        driver.host.slowness.set(Duration::from_secs(5));
        let started = io.now();
        let created = driver.call(create("orders"));
        driver.call(commit("g", 1)).await.unwrap();
        assert!(
            io.now() < started.plus(Duration::from_secs(1)),
            "groups go on"
        );
        assert!(!driver.host.serves("orders"));
        created.await.unwrap();
        assert!(driver.host.serves("orders"));
        assert!(io.now() >= started.plus(Duration::from_secs(5)));
    });
}

#[test]
fn many_commands_share_a_sync() {
    let sim = Sim::from_seed(3);
    let io = sim.io();
    sim.run(async {
        let driver = open(&io, 1).await;
        let before = sim.sync_points();
        let calls: Vec<_> = (0..1000)
            .map(|n| driver.call(commit(&format!("g{}", n % 50), n)))
            .collect();
        for answer in future::join_all(calls).await {
            answer.unwrap();
        }
        let syncs = sim.sync_points() - before;
        assert!(syncs <= 10, "{syncs} syncs for 1000 commands");
    });
}

/// Everything that is asked one after the other; what was answered is noted outside of
/// the machine.
async fn history(io: &SimIo, seed: u128, noted: &RefCell<Vec<Noted>>) -> Result<(), Stopped> {
    let mut config = config(seed);
    config.snapshot_bytes = 2000;
    let driver = open_with(io, config).await.map_err(|e| Stopped {
        why: e.to_string().into(),
    })?;
    let base = noted.borrow().len();
    for n in base..base + 12 {
        let note = match n % 3 {
            0 => {
                let name = format!("t{n}");
                driver.call(create(&name)).await?;
                Noted::Topic(name)
            }
            1 => {
                driver.call(commit("g", n as i64)).await?;
                Noted::Offset(n as i64)
            }
            _ => match driver.call(Request::InitProducerId).await? {
                Response::InitProducerId(Ok(producer)) => Noted::Producer(producer.id.0),
                other => panic!("{other:?}"),
            },
        };
        noted.borrow_mut().push(note);
    }
    driver.close().await.map_err(|e| Stopped {
        why: e.to_string().into(),
    })
}

#[derive(Clone, Debug, PartialEq)]
enum Noted {
    Topic(String),
    Offset(i64),
    Producer(i64),
}

fn check(driver: &Opened, noted: &[Noted], seed: u64) {
    let image = driver.image();
    let mut producers = Vec::new();
    let mut offset = None;
    for note in noted {
        match note {
            Noted::Topic(name) => assert!(image.topic(name).is_some(), "seed {seed}: {name}"),
            Noted::Offset(value) => offset = Some(*value),
            Noted::Producer(id) => {
                assert!(
                    !producers.contains(id),
                    "seed {seed}: producer id {id} twice"
                );
                producers.push(*id);
            }
        }
    }
    // An offset that was committed without an answer may be there too.
    assert!(offset_of(driver, "g") >= offset, "seed {seed}: {offset:?}");
}

#[test]
fn a_crash_at_any_sync_takes_nothing_back_that_was_answered() {
    let syncs = {
        let sim = Sim::from_seed(0);
        let io = sim.io();
        sim.run(history(&io, 1, &RefCell::default())).unwrap();
        sim.sync_points()
    };
    assert!(syncs > 20, "{syncs}");
    for n in 1..=syncs + 2 {
        for (how, seed) in [(PowerCut::Random, 2 * n), (PowerCut::LoseAll, 2 * n + 1)] {
            let sim = Sim::from_seed(seed);
            let when = if seed % 3 == 0 {
                When::Before
            } else {
                When::After
            };
            let noted = RefCell::default();
            let mut io = sim.io();
            sim.crash_at_sync_how(n, when, how);
            let first = sim.try_run(history(&io, u128::from(seed), &noted));
            assert!(first.is_err() || n > 20, "seed {seed}");
            // Twice more: recovery's own writes meet a crash too.
            for life in 0..2u64 {
                io = sim.restart();
                if life == 0 {
                    sim.crash_at_sync_how(sim.sync_points() + 1 + n % 7, When::Before, how);
                    drop(sim.try_run(history(&io, u128::from(seed) << 32 | 1, &noted)));
                } else {
                    sim.run(async {
                        let driver = open(&io, u128::from(seed) << 32 | 2).await;
                        check(&driver, &noted.borrow(), seed);
                    });
                }
            }
        }
    }
}

#[test]
fn a_failed_sync_latches_and_everyone_is_told() {
    let sim = Sim::from_seed(5);
    let io = sim.io();
    sim.run(async {
        let driver = open(&io, 1).await;
        create_ok(&driver, "before").await;
        sim.fail(OpKind::Sync, CHANGELOG_FILE, 0);
        let (a, b) = future::join(driver.call(create("a")), driver.call(commit("g", 1))).await;
        let why = a.unwrap_err();
        assert!(why.to_string().contains("coordinator"), "{why}");
        assert_eq!(b.unwrap_err(), why);
        assert_eq!(driver.call(create("c")).await.unwrap_err(), why);
        assert!(
            !driver.host.serves("a"),
            "nobody serves by what is not committed"
        );
        assert_eq!(driver.stopped(), Some(why));
    });
    let io = sim.restart();
    sim.run(async {
        let driver = open(&io, 2).await;
        assert!(driver.host.serves("before"));
        create_ok(&driver, "c").await;
    });
}

#[test]
fn a_group_waits_for_its_time_and_no_longer() {
    let sim = Sim::from_seed(6);
    let io = sim.io();
    sim.run(async {
        let driver = open(&io, 1).await;
        let started = io.now();
        let Ok(Response::Group(groups::Response::JoinGroup(joined))) = driver.call(join("g")).await
        else {
            panic!()
        };
        assert_eq!((joined.error, joined.generation), (None, 1));
        let waited = Duration::from_nanos(io.now().0 - started.0);
        // group.initial.rebalance.delay.ms
        assert!((2_999..3_100).contains(&waited.as_millis()), "{waited:?}");
    });
}

#[test]
fn who_goes_away_is_forgotten() {
    let sim = Sim::from_seed(7);
    let io = sim.io();
    sim.run(async {
        let driver = open(&io, 1).await;
        drop(driver.call(join("g")));
        assert!(driver.waiting.borrow().is_empty());
        let kept = driver.call(join("g"));
        assert_eq!(driver.waiting.borrow().len(), 1);
        kept.await.unwrap();
        assert!(driver.waiting.borrow().is_empty());
    });
}

#[test]
fn closing_answers_what_is_under_way_and_refuses_the_rest() {
    let sim = Sim::from_seed(8);
    let io = sim.io();
    sim.run(async {
        let driver = open(&io, 1).await;
        let (created, parked) = (driver.call(create("orders")), driver.call(join("g")));
        let (created, parked, closed) = future::join3(created, parked, driver.close()).await;
        created.unwrap();
        assert!(parked.unwrap_err().to_string().contains("closed"));
        closed.unwrap();
        driver.call(create("late")).await.unwrap_err();
    });
    let io = sim.restart();
    sim.run(async {
        let clean = DriverConfig {
            clean: true,
            ..config(2)
        };
        let driver = open_with(&io, clean).await.unwrap();
        assert!(driver.host.serves("orders"));
    });
}

/// A history that leaves some snapshots; returns the last offset committed.
async fn long_history(io: &SimIo) -> i64 {
    let mut config = config(1);
    config.snapshot_bytes = 1 << 20;
    let driver = open_with(io, config).await.unwrap();
    let padding = vec![b'x'; 100_000];
    let mut path = "/filler".to_owned();
    driver
        .call(Request::CommitTreeOps {
            ops: vec![Op::create(&path, "")],
        })
        .await
        .unwrap();
    for n in 0..800i64 {
        driver.call(commit("g", n)).await.unwrap();
        path.replace_range(.., "/filler");
        driver
            .call(Request::CommitTreeOps {
                ops: vec![Op::set(&path, padding.clone())],
            })
            .await
            .unwrap();
    }
    driver.close().await.unwrap();
    799
}

fn snapshots(sim: &Sim) -> Vec<String> {
    sim.list("/data/coordinator")
        .into_iter()
        .filter(|name| name.starts_with("snapshot."))
        .collect()
}

#[test]
fn snapshots_cut_the_changelog_and_the_state_is_whole() {
    let sim = Sim::from_seed(9);
    let io = sim.io();
    let last = sim.run(long_history(&io));
    assert_eq!(snapshots(&sim).len(), 2);
    let logs: Vec<String> = sim
        .list("/data/coordinator/changelog")
        .into_iter()
        .filter(|name| name.ends_with(".log"))
        .collect();
    assert!(
        !logs.contains(&"00000000000000000000.log".to_owned()),
        "80 MB were written: {logs:?}"
    );

    // The newest spoilt: the one before it and the changelog give the same.
    let newest = snapshots(&sim).pop().unwrap();
    sim.flip_bit(format!("/data/coordinator/{newest}"), 30);
    let io = sim.restart();
    sim.run(async {
        let driver = open(&io, 2).await;
        assert_eq!(offset_of(&driver, "g"), Some(last));
    });

    // Both spoilt: the changelog alone does not reach back, and that is said.
    for name in snapshots(&sim) {
        sim.flip_bit(format!("/data/coordinator/{name}"), 31);
    }
    let io = sim.restart();
    let refused = sim.run(open_with(&io, config(3)));
    let error = refused.err().expect("it must not open").to_string();
    assert!(
        error.contains("/data/coordinator/changelog") && error.contains("0x1"),
        "{error}"
    );
}

#[test]
fn damage_in_the_middle_is_named_and_a_torn_tail_is_cut() {
    let sim = Sim::from_seed(10);
    let io = sim.io();
    sim.run(async {
        let driver = open(&io, 1).await;
        for n in 0..50 {
            driver.call(commit("g", n)).await.unwrap();
        }
    });
    sim.kill();
    sim.flip_bit(CHANGELOG_FILE, 200);
    let io = sim.restart();
    let error = sim
        .run(open_with(&io, config(2)))
        .err()
        .expect("it must not open")
        .to_string();
    assert!(
        error.contains(CHANGELOG_FILE) && error.contains("byte"),
        "{error}"
    );
    sim.flip_bit(CHANGELOG_FILE, 200);

    // Healed, and with the next write torn: what was answered stays.
    let io = sim.restart();
    let torn = sim.try_run(async {
        let driver = open(&io, 3).await;
        assert_eq!(offset_of(&driver, "g"), Some(49));
        sim.crash_at_sync_how(sim.sync_points() + 1, When::Before, PowerCut::TearLast);
        driver.call(commit("g", 50)).await
    });
    torn.unwrap_err();
    let io = sim.restart();
    sim.run(async {
        let driver = open(&io, 4).await;
        assert!(offset_of(&driver, "g") >= Some(49));
        driver.call(commit("g", 51)).await.unwrap();
    });
}

#[test]
fn damage_behind_a_clean_stop_is_found_by_the_replay() {
    let sim = Sim::from_seed(12);
    let io = sim.io();
    sim.run(async {
        let driver = open(&io, 1).await;
        for n in 0..5 {
            driver.call(commit("g", n)).await.unwrap();
        }
        driver.close().await.unwrap();
    });
    sim.flip_bit(CHANGELOG_FILE, 200);
    let io = sim.restart();
    let clean = DriverConfig {
        clean: true,
        ..config(2)
    };
    let error = sim
        .run(open_with(&io, clean))
        .err()
        .expect("it must not open")
        .to_string();
    assert!(
        error.contains(CHANGELOG_FILE) && error.contains("byte 0"),
        "{error}"
    );
}

#[test]
fn a_log_of_something_else_is_refused() {
    let sim = Sim::from_seed(11);
    let batch = klamm_engine::batch::BatchBuilder::new(klamm_engine::codec::Codec::None)
        .record(TimestampMs(5), None, Some(b"not a command"))
        .finish();
    sim.plant(CHANGELOG_FILE, &batch);
    let io = sim.io();
    let error = sim
        .run(open_with(&io, config(1)))
        .err()
        .expect("it must not open")
        .to_string();
    assert!(
        error.contains(CHANGELOG_FILE) && error.contains("byte 0"),
        "{error}"
    );
}
