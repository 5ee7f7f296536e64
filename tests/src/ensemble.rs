//! Three of Apache ZooKeeper's servers that keep one tree among them.
//!
//! ```text
//!   server.1 --quorum, election--> server.2 --...--> server.3    one java process each
//!      \______________ two of them are enough _______________/
//!   leader()    who says of itself that it is, by srvr
//!   kill9(n)    the others elect another, where it was the leader
//! ```
//!
//! Writes are synced: a server that is killed has what it acknowledged.

use crate::apache_zookeeper::Release;
use crate::broker::{Port, target};
use crate::zookeeper::{Session, four_letters};
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SERVERS: usize = 3;
const START_WITHIN: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A session ends at the first tick after its timeout: with short ones soon after it.
const TICK_MS: u32 = 500;

pub struct Ensemble {
    release: Release,
    folder: Option<TempDir>,
    servers: Vec<Server>,
}

struct Server {
    client: Port,
    quorum: Port,
    election: Port,
    child: Option<Child>,
}

impl Ensemble {
    /// Returns once there is a leader, and every server gives sessions.
    pub fn start(release: &Release) -> Ensemble {
        let root = target().join("tmp");
        std::fs::create_dir_all(&root).expect("create the folder of the tests' data");
        let folder = tempfile::Builder::new()
            .prefix("ensemble-")
            .tempdir_in(&root)
            .expect("create a data folder");
        let servers = (0..SERVERS).map(|_| Server {
            client: Port::take(&root),
            quorum: Port::take(&root),
            election: Port::take(&root),
            child: None,
        });
        let mut ensemble = Ensemble {
            release: release.clone(),
            folder: Some(folder),
            servers: servers.collect(),
        };
        for at in 0..SERVERS {
            let folder = ensemble.folder_of(at);
            std::fs::create_dir_all(folder.join("data")).expect("create a server's folder");
            std::fs::write(folder.join("data/myid"), (at + 1).to_string()).expect("write myid");
            std::fs::write(folder.join("zoo.cfg"), ensemble.configuration(at))
                .expect("write zoo.cfg");
            ensemble.launch(at);
        }
        for at in 0..SERVERS {
            ensemble.await_session(at);
        }
        ensemble
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        (0..SERVERS).map(|at| self.address(at)).collect()
    }

    pub fn address(&self, at: usize) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.servers[at].client.number).into()
    }

    /// The server that leads, of those that run; waits for an election.
    pub fn leader(&mut self) -> usize {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let leads = |at: &usize| {
                let said = self.servers[*at].child.is_some().then(|| {
                    let said = four_letters(self.address(*at), "srvr").unwrap_or_default();
                    said.contains("Mode: leader")
                });
                said.unwrap_or(false)
            };
            if let Some(at) = (0..SERVERS).find(leads) {
                return at;
            }
            self.check_late(deadline, 0);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Stops a server between two instructions, as a crash would.
    pub fn kill9(&mut self, at: usize) {
        let mut child = self.servers[at].child.take().expect("it runs");
        child.kill().expect("kill the server");
        child.wait().expect("the server's end");
    }

    /// On the data that is there; returns once it gives sessions again.
    pub fn start_again(&mut self, at: usize) {
        self.launch(at);
        self.await_session(at);
    }

    /// Starts without waiting.
    pub fn launch(&mut self, at: usize) {
        let folder = self.folder_of(at);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("server.log"))
            .expect("open the log");
        let errors = log.try_clone().expect("share the log");
        let child = Command::new("java")
            .args(["-Xmx192m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg("-Dzookeeper.admin.enableServer=false")
            .arg("-cp")
            .arg(&self.release.classpath)
            .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
            .arg(folder.join("zoo.cfg"))
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("start java");
        assert!(self.servers[at].child.replace(child).is_none(), "it runs");
    }

    /// Returns once it gives sessions; after [`Ensemble::launch`].
    pub fn await_session(&mut self, at: usize) {
        let deadline = Instant::now() + START_WITHIN;
        // Closed at once: none is left to expire in the middle of a test.
        let gives = |address| {
            Session::new(address, 4_000)?.call(&crate::zookeeper::records::Request::CloseSession)
        };
        while gives(self.address(at)).is_err() {
            self.check_late(deadline, at);
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn check_late(&mut self, deadline: Instant, at: usize) {
        if let Some(child) = self.servers[at].child.as_mut()
            && let Some(status) = child.try_wait().expect("ask after the server")
        {
            panic!("ZooKeeper {} ended with {status}\n{}", at + 1, self.log(at));
        }
        let late = Instant::now() >= deadline;
        assert!(!late, "no answer in {START_WITHIN:?}\n{}", self.log(at));
    }

    fn configuration(&self, at: usize) -> String {
        let members: String = (1..)
            .zip(&self.servers)
            .map(|(id, s)| {
                let (quorum, election) = (s.quorum.number, s.election.number);
                format!("server.{id}=127.0.0.1:{quorum}:{election}\n")
            })
            .collect();
        format!(
            "dataDir={}\nclientPortAddress=127.0.0.1\nclientPort={}\ntickTime={TICK_MS}\n\
             initLimit=60\nsyncLimit=20\nmaxSessionTimeout=40000\nmaxClientCnxns=0\n\
             4lw.commands.whitelist=srvr\nadmin.enableServer=false\npreAllocSize=1024\n{members}",
            self.folder_of(at).join("data").display(),
            self.servers[at].client.number,
        )
    }

    fn folder_of(&self, at: usize) -> PathBuf {
        let folder = self.folder.as_ref().expect("until drop");
        folder.path().join(format!("server-{}", at + 1))
    }

    fn log(&self, at: usize) -> String {
        let bytes = std::fs::read(self.folder_of(at).join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        for child in self.servers.iter_mut().filter_map(|s| s.child.as_mut()) {
            if child.kill().is_ok() {
                child.wait().ok();
            }
        }
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("ZooKeeper's folder stays: {}", folder.keep().display());
        }
    }
}
