//! The coordinator under test: Klamm's, or Apache's server in its place.
//!
//! ```text
//!   KLAMM_TESTS_COORDINATOR unset          klamm serve --coordinator-listen
//!                           apache-3.8.0   to see that a test says what ZooKeeper does
//! ```

use crate::apache_zookeeper::{self, ApacheZooKeeper, find_or_say_skipped};
use crate::broker::{Broker, Setup};
use crate::zookeeper::{Session, Wire};
use std::net::SocketAddr;

const WORDS: &str = "ruok,srvr,stat,mntr,conf,cons,envi,isro,wchs,dirs";

pub enum Coordinator {
    Klamm(Box<Broker>),
    Apache(ApacheZooKeeper),
}

impl Coordinator {
    /// None where it cannot be had, which has then been said.
    pub fn start(what: &str) -> Option<Coordinator> {
        if let Some(version) = apache() {
            let setup = apache_zookeeper::Setup {
                connections_max: 60,
                words: WORDS,
                ..apache_zookeeper::Setup::default()
            };
            let release = find_or_say_skipped(&version, what)?;
            return Some(Coordinator::Apache(ApacheZooKeeper::start(
                &release, &setup,
            )));
        }
        let setup = Setup::default().setting("4lw.commands.whitelist", WORDS);
        Some(Coordinator::Klamm(Box::new(setup.start())))
    }

    pub fn address(&self) -> SocketAddr {
        match self {
            Coordinator::Klamm(broker) => broker.coordinator(),
            Coordinator::Apache(server) => server.address(),
        }
    }

    pub fn kill9(&mut self) {
        match self {
            Coordinator::Klamm(broker) => broker.kill9(),
            Coordinator::Apache(server) => server.kill9(),
        }
    }

    /// Returns once it answers; after [`Coordinator::kill9`].
    pub fn start_again(&mut self) {
        match self {
            Coordinator::Klamm(broker) => broker.start_again(),
            Coordinator::Apache(server) => server.start_again(),
        }
    }

    pub fn is_klamm(&self) -> bool {
        matches!(self, Coordinator::Klamm(_))
    }

    pub fn wire(&self) -> Wire {
        Wire::open(self.address()).expect("connect to the coordinator")
    }

    pub fn session(&self) -> Session {
        Session::new(self.address(), 30_000).expect("a session of the coordinator")
    }
}

/// The version of Apache's server that is to be tested instead.
pub fn apache() -> Option<String> {
    let asked = std::env::var("KLAMM_TESTS_COORDINATOR").ok()?;
    let version = asked.strip_prefix("apache-");
    Some(
        version
            .expect("KLAMM_TESTS_COORDINATOR is apache-VERSION")
            .into(),
    )
}
