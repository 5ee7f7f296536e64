//! The coordinator's promise, held against the real binary: what it acknowledged
//! survives SIGKILL, and so do its sessions.
//!
//! ```text
//!   writers    (each one session for the whole test)   k = 0 1 2 ...
//!                create n<k>  set last = k  multi[create m<k>, set multi = k]
//!                now and then a sequential node
//!   committer  (Kafka's protocol)   offsets k of a group
//!   each round a session dies with its connection, and one is closed
//!       |
//!   killer     wait a random time -> SIGKILL -> start -> check, 20 times
//! ```
//!
//! A session's requests take effect in their order: after a crash a writer's state is
//! that of the first X of them, with X no less than what was acknowledged and no more
//! than what was sent. `KLAMM_TESTS_COORDINATOR=apache-3.8.0` tests the test.

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{GroupId, OffsetCommitRequest, OffsetFetchRequest};
use klamm_tests::coordinator::Coordinator;
use klamm_tests::random::Random;
use klamm_tests::wire::{Connection, text, topic};
use klamm_tests::zookeeper::records::{Answer, Create, Request, code, flags};
use klamm_tests::zookeeper::{Connect, Message, Reply, Session, is_end};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Result;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const KILLS: usize = 20;
const WRITERS: usize = 3;
/// The longest that there is: a restart on a busy machine is far below.
const TIMEOUT_MS: i32 = 40_000;
const DEAD_TIMEOUT_MS: i32 = 4_000;
/// Of one writer, sent and not acknowledged.
const WINDOW: usize = 48;
const PARTITIONS: i32 = 4;
const GROUP: &str = "billing";
const TOPIC: &str = "orders";
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);
/// Beyond its timeout, of a session whose ephemerals are to go.
const LATE: Duration = Duration::from_secs(8);

#[test]
fn what_was_acknowledged_survives_sigkill() {
    let Some(mut server) = Coordinator::start("the coordinator's crash test") else {
        return;
    };
    let mut random = Random::new();
    let mut writers: Vec<Writer> = {
        let mut session = server.session();
        must(&mut session, &Request::create("/crash", b"", 0));
        must(&mut session, &Request::CloseSession);
        (0..WRITERS).map(|n| Writer::begin(&server, n)).collect()
    };
    let mut committer = Committer::begin(&server);
    let mut departed = Departed::default();

    for round in 0..KILLS {
        departed.depart(&server, round);
        let progress = AtomicU64::new(0);
        let stop_after = Duration::from_millis(random.within(5..300));
        std::thread::scope(|scope| {
            for writer in &mut writers {
                scope.spawn(|| writer.write_until_cut(&progress));
            }
            if let Some(committer) = &mut committer {
                scope.spawn(|| committer.commit_until_cut());
            }
            // A kill before anything was acknowledged would be no test.
            let deadline = Instant::now() + PROGRESS_WITHIN;
            while progress.load(Ordering::Relaxed) < 20 && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(stop_after);
            server.kill9();
        });
        assert!(
            progress.load(Ordering::Relaxed) >= 20,
            "no progress in round {round}"
        );
        server.start_again();
        for writer in &mut writers {
            writer.check_after_restart(&server, round);
        }
        if let Some(committer) = &mut committer {
            committer.check_after_restart(&server);
        }
        departed.check(&server, round % 7 == 6);
    }

    departed.check(&server, true);
    let created: u64 = writers.iter().map(|w| w.next).sum();
    eprintln!(
        "{KILLS} kills, {created} rounds of create, set and multi, {} offset commits",
        committer.map_or(0, |c| c.acked)
    );
    for writer in writers {
        writer.end(&server);
    }
}

fn must(session: &mut Session, request: &Request) -> Reply {
    let reply = session.call(request);
    let reply = reply.unwrap_or_else(|e| panic!("{request:?}: {e}"));
    assert_eq!(reply.err, code::OK, "{request:?}");
    reply
}

/// The children's names, without those that do not begin so.
fn children(session: &mut Session, path: &str, prefix: &str) -> BTreeSet<String> {
    match must(session, &Request::GetChildren(path.into(), false)).answer {
        Answer::Children(names) => names
            .into_iter()
            .filter(|n| n.starts_with(prefix))
            .collect(),
        other => panic!("{other:?}"),
    }
}

fn number(session: &mut Session, path: &str) -> u64 {
    match must(session, &Request::GetData(path.into(), false)).answer {
        Answer::Data(Some(data), _) => {
            let text = String::from_utf8(data).expect("a number");
            text.parse()
                .unwrap_or_else(|e| panic!("{path}: {text:?}: {e}"))
        }
        other => panic!("{other:?}"),
    }
}

/// What a request of a writer was for.
#[derive(Clone, Copy)]
enum Sent {
    Create(u64),
    Set(u64),
    Multi(u64),
    Sequential(u64),
}

struct Writer {
    session: Session,
    home: String,
    /// To be written next; of those below, all before the last crash are known of.
    next: u64,
    /// How many of each, from the front, were acknowledged.
    created: u64,
    set: u64,
    multi: u64,
    /// What each acknowledged sequential node holds.
    sequential: BTreeMap<String, u64>,
    looked_at: u64,
    in_flight: VecDeque<Sent>,
}

impl Writer {
    fn begin(server: &Coordinator, n: usize) -> Writer {
        let mut session = Session::new(server.address(), TIMEOUT_MS).expect("a session");
        let home = format!("/crash/w{n}");
        must(&mut session, &Request::create(&home, b"", 0));
        // k counts from 1: 0 is what the counters hold before it.
        for counter in ["last", "multi"] {
            must(
                &mut session,
                &Request::create(&format!("{home}/{counter}"), b"0", 0),
            );
        }
        must(
            &mut session,
            &Request::create(&format!("{home}/seq"), b"", 0),
        );
        let mine = Request::create(&format!("{home}/mine"), b"", flags::EPHEMERAL);
        must(&mut session, &mine);
        Writer {
            session,
            home,
            next: 1,
            created: 0,
            set: 0,
            multi: 0,
            sequential: BTreeMap::new(),
            looked_at: 0,
            in_flight: VecDeque::new(),
        }
    }

    fn requests(&self, k: u64) -> Vec<(Sent, Request)> {
        let (home, data) = (&self.home, k.to_string());
        let data = data.as_bytes();
        let mut requests = vec![
            (
                Sent::Create(k),
                Request::create(&format!("{home}/n{k:08}"), data, 0),
            ),
            (
                Sent::Set(k),
                Request::set(&format!("{home}/last"), data, -1),
            ),
            (
                Sent::Multi(k),
                Request::Multi(vec![
                    Request::create(&format!("{home}/m{k:08}"), data, 0),
                    Request::set(&format!("{home}/multi"), data, -1),
                ]),
            ),
        ];
        if k.is_multiple_of(4) {
            let create = Create::at(&format!("{home}/seq/s-"), data, flags::SEQUENTIAL);
            requests.push((Sent::Sequential(k), Request::Create(create)));
        }
        requests
    }

    /// Returns when the connection is gone, which only the kill makes it.
    fn write_until_cut(&mut self, progress: &AtomicU64) {
        loop {
            let k = self.next;
            self.next += 1;
            let (sent, requests): (Vec<_>, Vec<_>) = self.requests(k).into_iter().unzip();
            self.in_flight.extend(sent);
            if let Err(e) = self.session.send_all(&requests) {
                assert!(is_end(&e), "{}: {e}", self.home);
                // What was answered before the end is acknowledged as well.
                while self.take_answer(progress).is_ok() {}
                return;
            }
            while self.session.outstanding() > WINDOW {
                if let Err(e) = self.take_answer(progress) {
                    assert!(is_end(&e), "{}: {e}", self.home);
                    return;
                }
            }
        }
    }

    fn take_answer(&mut self, progress: &AtomicU64) -> Result<()> {
        let reply = match self.session.receive()? {
            Message::Reply(reply) => reply,
            Message::Event(event) => panic!("nothing is watched: {event:?}"),
        };
        let sent = self.in_flight.pop_front().expect("an answer for each");
        assert_eq!(reply.err, code::OK, "{}: {reply:?}", self.home);
        match sent {
            Sent::Create(k) => self.created = k,
            Sent::Set(k) => self.set = k,
            Sent::Multi(k) => {
                let Answer::Multi(entries) = &reply.answer else {
                    panic!("{reply:?}");
                };
                assert!(
                    entries.iter().all(|(opcode, ..)| *opcode != -1),
                    "{entries:?}"
                );
                self.multi = k;
            }
            Sent::Sequential(k) => {
                let Answer::Path(path) = reply.answer else {
                    panic!("{reply:?}");
                };
                let other = self.sequential.insert(path.clone(), k);
                assert_eq!(other, None, "{path} was given twice");
            }
        }
        progress.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn check_after_restart(&mut self, server: &Coordinator, round: usize) {
        let home = &self.home;
        let session = Session::open(server.address(), &Connect::again(&self.session));
        // A refusal here is a lost session, or a lost zxid.
        let mut session = session.unwrap_or_else(|e| panic!("round {round}, {home}: {e}"));
        assert_eq!(session.id, self.session.id);
        assert_eq!(session.password, self.session.password);
        self.in_flight.clear();

        let sent = self.next - 1;
        let bounds = |what: &str, found: u64, acked: u64| {
            assert!(
                (acked..=sent).contains(&found),
                "round {round}, {home}: {what} is {found}, acknowledged {acked}, sent {sent}"
            );
        };
        let last = number(&mut session, &format!("{home}/last"));
        let multi = number(&mut session, &format!("{home}/multi"));
        bounds("last", last, self.set);
        bounds("multi", multi, self.multi);
        let created = number_of(&children(&mut session, home, "n"), "n", home);
        bounds("the newest node", created, self.created);
        let of_multis = number_of(&children(&mut session, home, "m0"), "m", home);
        assert_eq!(of_multis, multi, "{home}: a multi was torn");
        // In the order in which they were sent: create, set, multi.
        assert!(
            created >= last && last >= multi && created - multi <= 1,
            "{home}: created {created}, set {last}, multi {multi}"
        );

        let seq = format!("{home}/seq");
        let there = children(&mut session, &seq, "s-");
        for (path, k) in &self.sequential {
            let name = path.rsplit('/').next().expect("a name");
            assert!(
                there.contains(name),
                "round {round}: {path} for {k} is gone"
            );
        }
        for name in &there {
            let path = format!("{seq}/{name}");
            let known = self.sequential.get(&path).copied();
            // What it holds is looked at after the first restart that it sees, and at
            // the end.
            if known.is_some_and(|k| k <= self.looked_at) {
                continue;
            }
            let found = number(&mut session, &path);
            assert_eq!(found, known.unwrap_or(found), "{path}");
            // Given without its maker's knowing, and so not to be given again.
            self.sequential.insert(path, found);
        }
        self.looked_at = created;

        let mine = Request::Exists(format!("{home}/mine"), false);
        match must(&mut session, &mine).answer {
            Answer::Stat(stat) => assert_eq!(stat.ephemeral_owner, session.id),
            other => panic!("{other:?}"),
        }
        self.session = session;
        (self.created, self.set, self.multi) = (created, last, multi);
        // What of the last k is there is not to be made again; the rest is.
        self.next = created + 1;
        if multi < created {
            must(
                &mut self.session,
                &Request::set(&format!("{home}/last"), created.to_string().as_bytes(), -1),
            );
            let data = created.to_string();
            must(
                &mut self.session,
                &Request::Multi(vec![
                    Request::create(&format!("{home}/m{created:08}"), data.as_bytes(), 0),
                    Request::set(&format!("{home}/multi"), data.as_bytes(), -1),
                ]),
            );
            (self.set, self.multi) = (created, created);
        }
    }

    /// Every node once more, with what it holds; then the session's ephemeral goes.
    fn end(mut self, server: &Coordinator) {
        for k in 1..self.next {
            for kind in ["n", "m"] {
                let path = format!("{}/{kind}{k:08}", self.home);
                assert_eq!(number(&mut self.session, &path), k, "{path}");
            }
        }
        for (path, k) in &self.sequential {
            assert_eq!(number(&mut self.session, path), *k, "{path}");
        }
        must(&mut self.session, &Request::CloseSession);
        let mine = Request::Exists(format!("{}/mine", self.home), false);
        let reply = server.session().call(&mine).expect("an answer");
        assert_eq!(
            reply.err,
            code::NO_NODE,
            "{mine:?}, after the session's end"
        );
    }
}

/// The highest, with each below it there.
fn number_of(names: &BTreeSet<String>, prefix: &str, home: &str) -> u64 {
    let mut highest = 0;
    for name in names {
        let k: u64 = name[prefix.len()..].parse().expect("a numbered name");
        assert_eq!(k, highest + 1, "{home}: a gap before {name}");
        highest = k;
    }
    highest
}

/// Sessions that nobody goes on with, and those that said good-bye.
#[derive(Default)]
struct Departed {
    /// Path and when it was left.
    dead: Vec<(String, Instant)>,
    closed: Vec<String>,
}

impl Departed {
    fn depart(&mut self, server: &Coordinator, round: usize) {
        let ephemeral = |path: &str| {
            let mut session = Session::new(server.address(), DEAD_TIMEOUT_MS).expect("a session");
            must(&mut session, &Request::create(path, b"", flags::EPHEMERAL));
            session
        };
        let path = format!("/crash/closed{round}");
        must(&mut ephemeral(&path), &Request::CloseSession);
        self.closed.push(path);
        let path = format!("/crash/dead{round}");
        drop(ephemeral(&path));
        self.dead.push((path, Instant::now()));
    }

    /// After a restart; with `to_the_end` until the dead ones have gone.
    fn check(&mut self, server: &Coordinator, to_the_end: bool) {
        let restarted = Instant::now();
        let timeout = Duration::from_millis(DEAD_TIMEOUT_MS.unsigned_abs().into());
        let mut session = server.session();
        let mut is_there = |path: &str| {
            let reply = session.call(&Request::Exists(path.into(), false));
            match reply.expect("an answer").err {
                code::OK => true,
                code::NO_NODE => false,
                other => panic!("{path}: {other}"),
            }
        };
        for path in &self.closed {
            assert!(!is_there(path), "{path} is there after its session's end");
        }
        let mut there = Vec::new();
        for (path, left) in self.dead.drain(..) {
            let found = is_there(&path);
            // Asked before the time is looked at.
            let early = left.elapsed() < timeout;
            assert!(found || !early, "{path} went before its session's timeout");
            if found {
                there.push((path, left));
            }
        }
        self.dead = there;
        if !to_the_end {
            return;
        }
        // A restart gives each session its whole timeout again.
        for (path, _) in self.dead.drain(..) {
            while is_there(&path) {
                let late = restarted.elapsed() > timeout + LATE;
                assert!(
                    !late,
                    "{path} is there {:?} after the restart",
                    restarted.elapsed()
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        must(&mut session, &Request::CloseSession);
    }
}

/// One who commits offsets, over Kafka's port; there is none where Apache's server is.
struct Committer {
    address: SocketAddr,
    /// The offset that was sent last, and the last that was acknowledged.
    sent: i64,
    acked: i64,
}

impl Committer {
    fn begin(server: &Coordinator) -> Option<Committer> {
        let Coordinator::Klamm(broker) = server else {
            return None;
        };
        broker.connect().create_topic(TOPIC, PARTITIONS, &[]);
        Some(Committer {
            address: broker.address(),
            sent: 0,
            acked: 0,
        })
    }

    /// The same offset to each partition, in one request.
    fn commit_until_cut(&mut self) {
        let Ok(mut connection) = Connection::open(self.address) else {
            return;
        };
        loop {
            self.sent += 1;
            let partitions = (0..PARTITIONS).map(|partition| {
                OffsetCommitRequestPartition::default()
                    .with_partition_index(partition)
                    .with_committed_offset(self.sent)
                    .with_committed_metadata(Some(text("")))
            });
            let request = OffsetCommitRequest::default()
                .with_group_id(GroupId(text(GROUP)))
                .with_generation_id_or_member_epoch(-1)
                .with_topics(vec![
                    OffsetCommitRequestTopic::default()
                        .with_name(topic(TOPIC))
                        .with_partitions(partitions.collect()),
                ]);
            let response = match connection.call(7, &request) {
                Ok(response) => response,
                Err(e) if is_end(&e) => return,
                Err(e) => panic!("OffsetCommit: {e}"),
            };
            for partition in &response.topics[0].partitions {
                assert_eq!(partition.error_code, 0, "OffsetCommit of {}", self.sent);
            }
            self.acked = self.sent;
        }
    }

    fn check_after_restart(&mut self, server: &Coordinator) {
        let Coordinator::Klamm(broker) = server else {
            return;
        };
        let asked = OffsetFetchRequestTopic::default()
            .with_name(topic(TOPIC))
            .with_partition_indexes((0..PARTITIONS).collect());
        let request = OffsetFetchRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_topics(Some(vec![asked]));
        let response = broker.connect().call(5, &request);
        let response = response.expect("an answer to OffsetFetch");
        assert_eq!(response.error_code, 0, "OffsetFetch");
        for partition in &response.topics[0].partitions {
            let found = partition.committed_offset.max(0);
            assert!(
                partition.error_code == 0 && (self.acked..=self.sent).contains(&found),
                "partition {} is at {found}, error {}, acknowledged {}, sent {}",
                partition.partition_index,
                partition.error_code,
                self.acked,
                self.sent
            );
        }
    }
}
