//! A broker process of this run's own: started, asked, stopped, killed.
//!
//! ```text
//!   Binary::find --> Binary::start(folder)  --exec-->  klamm serve
//!                        |   every 200 us: connect, ApiVersions
//!                        |<-------- answered: Started { broker, first_answer } --
//!   stop() SIGTERM, exit status 0      kill() SIGKILL      drop: kill
//! ```

use crate::server::Server;
use crate::wire::Connection;
use crate::{Common, Outcome};
use kafka_protocol::messages::ApiVersionsRequest;
use std::env;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A `klamm` that is there, and how to start it.
pub struct Binary {
    pub path: PathBuf,
    cores: usize,
    flags: Vec<String>,
}

impl Binary {
    /// The one that was named, else the one that was built beside this program.
    pub fn find(common: &Common, cores: usize) -> Outcome<Binary> {
        let path = match &common.klamm {
            Some(path) => path.clone(),
            None => env::current_exe()
                .map_err(|e| format!("this program's own path can't be found out: {e}; name the broker with --klamm"))?
                .with_file_name("klamm"),
        };
        let path = path.canonicalize().map_err(|e| {
            format!(
                "no broker at {}: {e}; build one with `cargo build --release -p klamm`, or name one with --klamm",
                path.display()
            )
        })?;
        let flags = Vec::new();
        Ok(Binary { path, cores, flags })
    }

    /// The same, started with this besides.
    #[must_use]
    pub fn flag(mut self, name: &str, value: impl ToString) -> Binary {
        self.flags.extend([name.to_owned(), value.to_string()]);
        self
    }

    /// Cargo's folder for it says so; nothing else from outside does.
    pub fn is_debug(&self) -> bool {
        self.path
            .parent()
            .is_some_and(|folder| folder.ends_with("debug"))
    }

    /// Starts on the data in `folder`, and returns when the first request is answered.
    pub fn start(&self, folder: &Path) -> Outcome<Started> {
        let address = free_address()?;
        let server = Server::start("the broker", self.serve(folder, address), folder)?;
        let mut broker = Broker { server, address };
        let (connection, first_answer) = broker.server.await_answer(|| ask(address))?;
        Ok(Started {
            began: broker.server.began,
            broker,
            connection,
            first_answer,
        })
    }

    /// `klamm serve` on the data in `folder`, as long as nobody says more to it.
    pub fn serve(&self, folder: &Path, address: SocketAddr) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("serve").arg("--cores");
        command.arg(self.cores.to_string());
        command.arg("--listen").arg(address.to_string());
        command.arg("--data").arg(folder.join("data"));
        command.args(&self.flags);
        // What the shell says about a broker is not about this one.
        for (name, _) in
            env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KLAMM_"))
        {
            command.env_remove(name);
        }
        command.env("KLAMM_COORDINATOR_LISTEN", "none");
        command
    }
}

/// A broker that answers.
pub struct Started {
    pub broker: Broker,
    pub connection: Connection,
    /// Just before exec.
    pub began: Instant,
    pub first_answer: Duration,
}

pub struct Broker {
    server: Server,
    address: SocketAddr,
}

impl Broker {
    /// `bootstrap.servers` for a client.
    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// As an operator does it: SIGTERM, and the broker must call it a clean end.
    pub fn stop(self) -> Outcome {
        self.server.stop(&[0])
    }

    /// Between two instructions, as a crash does it.
    pub fn kill(self) -> Outcome {
        self.server.kill()
    }
}

/// A connection on which the broker has answered.
pub fn ask(address: SocketAddr) -> io::Result<Connection> {
    let mut connection = Connection::open(address)?;
    let versions = connection.call(0, &ApiVersionsRequest::default())?;
    match versions.error_code {
        0 => Ok(connection),
        code => Err(io::Error::other(format!(
            "ApiVersions answers with error {code}"
        ))),
    }
}

/// Below the ports that the kernel hands out to clients (32768 and up): a client that
/// asks again and again at a port nobody listens at may be given that very port, and
/// then TCP connects it to itself.
pub fn free_address() -> Outcome<SocketAddr> {
    let port = free_ports(1)?;
    Ok((Ipv4Addr::LOCALHOST, port).into())
}

/// The first of so many that follow each other. They are this process's until it ends: a
/// run beside it finds them free as well until somebody listens there.
pub fn free_ports(count: usize) -> Outcome<u16> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 10_000;
    // Never the same twice in a run: one that was given is not listened at yet.
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    static TAKEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut take = |port: u16| {
        let Ok(claim) = claim(port) else {
            return false;
        };
        taken.push(claim);
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    };
    let mut row: Vec<u16> = Vec::new();
    for _ in 0..COUNT {
        let n = GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + process::id().wrapping_add(n) % COUNT;
        let port = u16::try_from(port).map_err(|e| e.to_string())?;
        // After the last port comes the first one again: they do not follow each other.
        if row.last().is_some_and(|last| last + 1 != port) {
            row.clear();
        }
        match take(port) {
            true => row.push(port),
            false => row.clear(),
        }
        if row.len() == count {
            return Ok(row[0]);
        }
    }
    Err(format!("no {count} free ports in a row from {FIRST} on"))
}

/// A name that one alone can hold, and that goes with the process.
fn claim(port: u16) -> io::Result<UnixListener> {
    let name = UnixAddress::from_abstract_name(format!("klamm-bench/port/{port}"))?;
    UnixListener::bind_addr(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_a_row_are_given_once() {
        let first = free_ports(3).unwrap();
        let next = free_address().unwrap().port();
        assert!(!(first..first + 3).contains(&next));
        assert!((first..first + 3).all(|port| claim(port).is_err()));
        assert!(
            (first..first + 3)
                .all(|port| { TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() })
        );
    }
}
