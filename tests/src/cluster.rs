//! Several brokers that share one coordinator, and its tree as a tool sees it.
//!
//! ```text
//!   Cluster::hosted(3)       broker 1 keeps the tree <--zk://-- brokers 2, 3
//!   Cluster::kept_by(...)    an ensemble keeps it    <--zk://-- brokers 1, 2, 3
//!
//!   Tree   reads and writes below the chroot, over a session of its own; one that is
//!          lost is opened again, on whichever server answers
//! ```

use crate::broker::{Broker, Setup};
use crate::zookeeper::records::{Answer, Request, Stat, code, flags};
use crate::zookeeper::{Reply, Session};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Generous: waited for in full by a test that fails only.
pub const WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub struct Cluster {
    brokers: Vec<Broker>,
    keepers: Vec<SocketAddr>,
    chroot: String,
}

impl Cluster {
    /// The first broker's coordinator keeps the cluster.
    pub fn hosted(count: i32, setup: &Setup) -> Cluster {
        let first = numbered(1, setup).start();
        let keepers = vec![first.coordinator()];
        Cluster {
            brokers: vec![first],
            keepers,
            chroot: String::new(),
        }
        .joined_by(2..=count, setup)
    }

    /// Others keep it, below the chroot.
    pub fn kept_by(keepers: Vec<SocketAddr>, chroot: &str, count: i32, setup: &Setup) -> Cluster {
        Cluster {
            brokers: Vec::new(),
            keepers,
            chroot: chroot.to_owned(),
        }
        .joined_by(1..=count, setup)
    }

    fn joined_by(mut self, ids: impl Iterator<Item = i32>, setup: &Setup) -> Cluster {
        let keepers: Vec<String> = self.keepers.iter().map(ToString::to_string).collect();
        let connect = format!("zk://{}{}", keepers.join(","), self.chroot);
        let mut joining: Vec<Broker> = ids
            .map(|id| {
                let setup = numbered(id, setup).flag("--coordinator", connect.as_str());
                setup.prepare()
            })
            .collect();
        // All at once, as after a power cut.
        joining.iter_mut().for_each(Broker::launch);
        joining.iter_mut().for_each(Broker::await_answer);
        self.brokers.extend(joining);
        self
    }

    pub fn ids(&self) -> impl Iterator<Item = i32> + use<> {
        1..=i32::try_from(self.brokers.len()).expect("a few")
    }

    pub fn broker(&mut self, id: i32) -> &mut Broker {
        &mut self.brokers[at(id)]
    }

    pub fn bootstrap(&self, id: i32) -> String {
        self.brokers[at(id)].bootstrap()
    }

    pub fn address(&self, id: i32) -> SocketAddr {
        self.brokers[at(id)].address()
    }

    pub fn log(&self, id: i32) -> String {
        self.brokers[at(id)].log()
    }

    pub fn tree(&self) -> Tree {
        Tree {
            servers: self.keepers.clone(),
            chroot: self.chroot.clone(),
            session: None,
        }
    }
}

impl Drop for Cluster {
    /// Who keeps the tree goes last.
    fn drop(&mut self) {
        while let Some(broker) = self.brokers.pop() {
            drop(broker);
        }
    }
}

fn at(id: i32) -> usize {
    usize::try_from(id - 1).expect("brokers are numbered from 1 on")
}

fn numbered(id: i32, setup: &Setup) -> Setup {
    setup.clone().flag("--broker-id", id.to_string())
}

/// Polls for what is to come; panics with what there is instead.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) => assert!(
                Instant::now() < deadline,
                "{what}: not within {WITHIN:?}: {instead}"
            ),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The cluster's tree. Paths are those below the chroot.
pub struct Tree {
    servers: Vec<SocketAddr>,
    chroot: String,
    session: Option<(Session, Instant)>,
}

impl Tree {
    /// None where it is not there.
    pub fn node(&mut self, path: &str) -> Option<(String, Stat)> {
        let reply = self.read(&Request::GetData(self.full(path), false));
        match (reply.err, reply.answer) {
            (code::OK, Answer::Data(data, stat)) => {
                let data = String::from_utf8(data.unwrap_or_default()).expect("text");
                Some((data, stat))
            }
            (code::NO_NODE, _) => None,
            (err, answer) => panic!("reading {path}: {err} {answer:?}"),
        }
    }

    pub fn has(&mut self, path: &str) -> bool {
        self.node(path).is_some()
    }

    pub fn text(&mut self, path: &str) -> Option<String> {
        self.node(path).map(|(data, _)| data)
    }

    pub fn json(&mut self, path: &str) -> Option<serde_json::Value> {
        let (data, _) = self.node(path)?;
        Some(serde_json::from_str(&data).unwrap_or_else(|e| panic!("{path} holds {data:?}: {e}")))
    }

    /// In order; none where the node is not there.
    pub fn children(&mut self, path: &str) -> Vec<String> {
        let reply = self.read(&Request::GetChildren(self.full(path), false));
        match (reply.err, reply.answer) {
            (code::OK, Answer::Children(mut names)) => {
                names.sort();
                names
            }
            (code::NO_NODE, _) => Vec::new(),
            (err, answer) => panic!("the children of {path}: {err} {answer:?}"),
        }
    }

    /// What was done before this, by whomever, is seen after it.
    pub fn sync(&mut self) {
        let reply = self.read(&Request::Sync("/".into()));
        assert_eq!(reply.err, code::OK, "sync");
    }

    pub fn create(&mut self, path: &str, data: &str) {
        let request = Request::create(&self.full(path), data.as_bytes(), flags::PERSISTENT);
        let reply = self.write(&request);
        assert_eq!(reply.err, code::OK, "creating {path}");
    }

    pub fn delete(&mut self, path: &str) {
        let reply = self.write(&Request::Delete(self.full(path), -1));
        assert_eq!(reply.err, code::OK, "deleting {path}");
    }

    fn full(&self, path: &str) -> String {
        format!("{}{path}", self.chroot)
    }

    /// Asked again where the session was lost.
    fn read(&mut self, request: &Request) -> Reply {
        let deadline = Instant::now() + WITHIN;
        loop {
            let asked = self.session().and_then(|session| session.call(request));
            match asked {
                Ok(reply) => return reply,
                Err(lost) => {
                    assert!(Instant::now() < deadline, "{request:?}: {lost}");
                    self.session = None;
                    std::thread::sleep(LOOK_EVERY);
                }
            }
        }
    }

    /// Once: whether a write whose answer is lost was done is not known. A session is
    /// found first that lives.
    fn write(&mut self, request: &Request) -> Reply {
        self.read(&Request::Exists("/".into(), false));
        let session = self.session().expect("it lived a moment ago");
        session.call(request).expect("an answer to a write")
    }

    fn session(&mut self) -> std::io::Result<&mut Session> {
        // It sends no pings: one that was silent for long may have expired.
        let is_fresh = |used: &Instant| used.elapsed() < Duration::from_secs(5);
        if self
            .session
            .as_ref()
            .is_none_or(|(_, used)| !is_fresh(used))
        {
            self.session = None;
            let mut last = None;
            for server in &self.servers {
                match Session::new(*server, 30_000) {
                    Ok(session) => {
                        self.session = Some((session, Instant::now()));
                        break;
                    }
                    Err(error) => last = Some(error),
                }
            }
            if let (None, Some(error)) = (&self.session, last) {
                return Err(error);
            }
        }
        let (session, used) = self.session.as_mut().expect("opened above");
        *used = Instant::now();
        Ok(session)
    }
}
