//! A broker process of this run's own: started, asked, stopped, killed.
//!
//! ```text
//!   Binary::find --> Binary::start(folder)  --exec-->  klamm serve
//!                        |   every 200 us: connect, ApiVersions
//!                        |<-------- answered: Started { broker, first_answer } --
//!   stop() SIGTERM, exit status 0      kill() SIGKILL      drop: kill
//! ```

use crate::wire::Connection;
use crate::{Common, Outcome};
use kafka_protocol::messages::ApiVersionsRequest;
use std::env;
use std::fs::{self, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const START_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// A figure's resolution: fine against 100 ms, and coarse enough that the asking
/// (20 us a refused connection) takes a tenth of a core from the broker and not all.
const ASK_EVERY: Duration = Duration::from_micros(200);

/// A `klamm` that is there, and how to start it.
pub struct Binary {
    pub path: PathBuf,
    cores: usize,
}

impl Binary {
    /// The one that was named, else the one that was built beside this program.
    pub fn find(common: &Common) -> Outcome<Binary> {
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
        Ok(Binary {
            path,
            cores: common.cores,
        })
    }

    /// Cargo's folder for it says so; nothing else from outside does.
    pub fn is_debug(&self) -> bool {
        self.path
            .parent()
            .is_some_and(|folder| folder.ends_with("debug"))
    }

    /// Starts on the data in `folder`, and returns when the first request is answered.
    pub fn start(&self, folder: &Path) -> Outcome<Started> {
        fs::create_dir_all(folder)
            .map_err(|e| format!("{} can't be made: {e}", folder.display()))?;
        let address = free_address()?;
        let log_file = folder.join("broker.log");
        let log = OpenOptions::new().create(true).append(true).open(&log_file);
        let log = log.map_err(|e| format!("{} can't be opened: {e}", log_file.display()))?;
        let errors = log
            .try_clone()
            .map_err(|e| format!("the broker's log can't be shared: {e}"))?;
        let mut command = Command::new(&self.path);
        command.args([
            "serve",
            "--cores",
            &self.cores.to_string(),
            "--listen",
            &address.to_string(),
        ]);
        command.arg("--data").arg(folder.join("data"));
        // What the shell says about a broker is not about this one.
        for (name, _) in
            env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KLAMM_"))
        {
            command.env_remove(name);
        }
        command.env("KLAMM_COORDINATOR_LISTEN", "none");
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let began = Instant::now();
        let child = command
            .spawn()
            .map_err(|e| format!("{} can't be started: {e}", self.path.display()))?;
        let mut broker = Broker {
            child,
            address,
            log_file,
        };
        let (connection, first_answer) = broker.await_answer(began)?;
        Ok(Started {
            broker,
            connection,
            began,
            first_answer,
        })
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
    child: Child,
    address: SocketAddr,
    log_file: PathBuf,
}

impl Broker {
    /// `bootstrap.servers` for a client.
    pub fn bootstrap(&self) -> String {
        self.address.to_string()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn await_answer(&mut self, began: Instant) -> Outcome<(Connection, Duration)> {
        loop {
            let error = match self.ask() {
                Ok(connection) => return Ok((connection, began.elapsed())),
                Err(error) => error,
            };
            if let Some(status) = self
                .child
                .try_wait()
                .map_err(|e| format!("the broker can't be asked after: {e}"))?
            {
                return Err(format!(
                    "the broker ended at its start with {status}\n{}",
                    self.end_of_log()
                ));
            }
            if began.elapsed() > START_WITHIN {
                return Err(format!(
                    "no answer within {START_WITHIN:?}: {error}\n{}",
                    self.end_of_log()
                ));
            }
            thread::sleep(ASK_EVERY);
        }
    }

    fn ask(&self) -> io::Result<Connection> {
        let mut connection = Connection::open(self.address)?;
        let versions = connection.call(0, &ApiVersionsRequest::default())?;
        match versions.error_code {
            0 => Ok(connection),
            code => Err(io::Error::other(format!(
                "ApiVersions answers with error {code}"
            ))),
        }
    }

    /// As an operator does it: SIGTERM, and the broker must call it a clean end.
    pub fn stop(mut self) -> Outcome {
        // By the command: the standard library can only kill.
        let sent = Command::new("kill")
            .arg("-TERM")
            .arg(self.pid().to_string())
            .status()
            .map_err(|e| format!("the kill command: {e}"))?;
        if !sent.success() {
            return Err(format!(
                "the broker can't be stopped: kill ended with {sent}"
            ));
        }
        let deadline = Instant::now() + STOP_WITHIN;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(format!(
                        "SIGTERM ended the broker with {status}\n{}",
                        self.end_of_log()
                    ));
                }
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                Ok(None) => {
                    return Err(format!(
                        "no end within {STOP_WITHIN:?} of SIGTERM\n{}",
                        self.end_of_log()
                    ));
                }
                Err(e) => return Err(format!("the broker can't be waited for: {e}")),
            }
        }
    }

    /// Between two instructions, as a crash does it.
    pub fn kill(mut self) -> Outcome {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed
            .map(drop)
            .map_err(|e| format!("the broker can't be killed: {e}"))
    }

    fn end_of_log(&self) -> String {
        let log = fs::read(&self.log_file).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(4 << 10)..]).into_owned();
        format!("the end of its log:\n{tail}")
    }
}

/// No figure is worth a broker that stays behind; after a stop there is none to kill.
impl Drop for Broker {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Below the ports that the kernel hands out to clients (32768 and up): a client that
/// asks again and again at a port nobody listens at may be given that very port, and
/// then TCP connects it to itself.
fn free_address() -> Outcome<SocketAddr> {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 10_000;
    (0..COUNT)
        .map(|n| FIRST + (process::id() + n) % COUNT)
        .filter_map(|port| {
            Some(SocketAddr::from((
                Ipv4Addr::LOCALHOST,
                u16::try_from(port).ok()?,
            )))
        })
        .find(|&address| TcpListener::bind(address).is_ok())
        .ok_or_else(|| format!("no free port from {FIRST} on"))
}
