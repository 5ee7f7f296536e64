//! Whom a load is put on: Klamm, Apache Kafka, or whoever is named.
//!
//! ```text
//!   klamm                   this repository's, started here, synced before it answers
//!   kafka                   Apache Kafka as shipped (no sync), by bench/peers/apache-kafka
//!   kafka-flush             the same with log.flush.interval.messages=1
//!   NAME=HOST:PORT[,PID]    one that runs already; with its PID its CPU is known
//!        |
//!      start, on the server's cores, on an empty folder --> Server { target } --> stop
//! ```
//!
//! All that are compared run from the beginning to the end, and all but one are idle at a
//! time: a virtual machine that is started anew each round would be measured cold, and
//! one that was warmed up each round would write twice as much to the disk.

use crate::broker::{self, Binary, Broker};
use crate::cores::Cores;
use crate::load::Target;
use crate::server;
use crate::{Common, Outcome};
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

pub const APACHE_KAFKA: &str = "Apache Kafka";

/// Beside this crate: klamm-bench is run from the tree that it was built from.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/apache-kafka");

/// A deleted topic's files go after this time and not after a minute, so that ten rounds
/// do not need ten times the room. All else is as shipped.
const DELETE_SOON: &str = "log.segment.delete.delay.ms=1000";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Against {
    Klamm,
    Kafka,
    KafkaFlush,
    Other {
        name: String,
        bootstrap: String,
        pid: Option<u32>,
    },
}

impl FromStr for Against {
    type Err = String;

    fn from_str(text: &str) -> Result<Against, String> {
        let wanted =
            || format!("{text}: klamm, kafka, kafka-flush or NAME=HOST:PORT[,PID] was expected");
        match text {
            "klamm" => return Ok(Against::Klamm),
            "kafka" => return Ok(Against::Kafka),
            "kafka-flush" => return Ok(Against::KafkaFlush),
            _ => {}
        }
        let (name, at) = text.split_once('=').ok_or_else(wanted)?;
        let (bootstrap, pid) = match at.split_once(',') {
            Some((bootstrap, pid)) => (bootstrap, Some(pid.parse().map_err(|_| wanted())?)),
            None => (at, None),
        };
        let port = bootstrap.rsplit_once(':');
        if name.is_empty() || port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            return Err(wanted());
        }
        Ok(Against::Other {
            name: name.to_owned(),
            bootstrap: bootstrap.to_owned(),
            pid,
        })
    }
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Against::Klamm => f.write_str("Klamm"),
            Against::Kafka => f.write_str(APACHE_KAFKA),
            Against::KafkaFlush => write!(f, "{APACHE_KAFKA}, flush.messages=1"),
            Against::Other { name, .. } => f.write_str(name),
        }
    }
}

/// One that answers.
pub struct Server {
    pub target: Target,
    process: Process,
}

enum Process {
    Klamm(Broker),
    ApacheKafka(server::Server),
    /// Not ours: it stays.
    Theirs,
}

impl Server {
    /// On an empty folder of its own under `folder`, on the server's cores.
    pub fn start(
        against: &Against,
        common: &Common,
        cores: &Cores,
        folder: &Path,
    ) -> Outcome<Server> {
        match against {
            Against::Klamm => {
                let binary = Binary::find(common, common.cores.unwrap_or(1))?;
                let started = cores.start(|| binary.start(&folder.join("klamm")))?;
                Ok(Server::klamm(started.broker))
            }
            Against::Kafka | Against::KafkaFlush => {
                let flush = *against == Against::KafkaFlush;
                let name = if flush { "kafka-flush" } else { "kafka" };
                cores.start(|| apache_kafka(against, flush, &folder.join(name)))
            }
            Against::Other {
                name,
                bootstrap,
                pid,
            } => Ok(Server {
                target: Target {
                    bootstrap: bootstrap.clone(),
                    pid: *pid,
                    server: name.clone(),
                },
                process: Process::Theirs,
            }),
        }
    }

    pub fn klamm(broker: Broker) -> Server {
        Server {
            target: Target {
                bootstrap: broker.bootstrap(),
                pid: Some(broker.pid()),
                server: Against::Klamm.to_string(),
            },
            process: Process::Klamm(broker),
        }
    }

    pub fn stop(self) -> Outcome {
        match self.process {
            Process::Klamm(broker) => broker.stop(),
            // The virtual machine's own way to say SIGTERM.
            Process::ApacheKafka(server) => server.stop(&[0, 128 + 15]),
            Process::Theirs => Ok(()),
        }
    }
}

fn apache_kafka(against: &Against, flush: bool, folder: &Path) -> Outcome<Server> {
    let version = fetched()?;
    let address = broker::free_address()?;
    let mut command = Command::new(SCRIPT);
    command
        .arg("--exec")
        .args(["--port", &address.port().to_string()])
        .arg("--data")
        .arg(folder)
        .args(["--set", DELETE_SOON]);
    if flush {
        command.arg("--flush");
    }
    let mut server = server::Server::start(APACHE_KAFKA, command, folder)?;
    server.await_answer(|| broker::ask(address))?;
    let server_name = against
        .to_string()
        .replace(APACHE_KAFKA, &format!("{APACHE_KAFKA} {version}"));
    Ok(Server {
        target: Target {
            bootstrap: address.to_string(),
            pid: Some(server.pid()),
            server: server_name,
        },
        process: Process::ApacheKafka(server),
    })
}

/// Its version, once Maven has brought it.
fn fetched() -> Outcome<String> {
    let done = Command::new(SCRIPT).arg("--prepare").output();
    let done = done.map_err(|e| {
        format!("{SCRIPT}: {e}; it is part of the source tree and needs python3, java and mvn")
    })?;
    if !done.status.success() {
        return Err(format!(
            "Apache Kafka can't be fetched: {}",
            String::from_utf8_lossy(&done.stderr).trim()
        ));
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_is_said_in_a_word_or_by_an_address() {
        assert_eq!("kafka-flush".parse(), Ok(Against::KafkaFlush));
        assert_eq!(
            "redpanda=127.0.0.1:9092,77".parse(),
            Ok(Against::Other {
                name: "redpanda".to_owned(),
                bootstrap: "127.0.0.1:9092".to_owned(),
                pid: Some(77),
            })
        );
        for bad in [
            "redpanda",
            "=127.0.0.1:9092",
            "a=127.0.0.1",
            "a=b:1,x",
            "a=b:70000",
        ] {
            assert!(bad.parse::<Against>().is_err(), "{bad}");
        }
    }
}
