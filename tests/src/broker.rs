//! One broker process: built once, started on a port and a data folder of its own.
//!
//! ```text
//!   Broker::start()  --build once-->  klamm serve --listen 127.0.0.1:PORT --data DIR
//!        |                                  |
//!        |<------ ApiVersions answered -----|
//!     stop() SIGTERM    kill9() SIGKILL    restart() same port, same data
//!        |
//!      drop: SIGTERM, SIGKILL after a deadline; the folder goes, unless the test failed
//! ```
//!
//! The binary is `KLAMM_BIN` where that is set, else what `cargo build -p klamm`
//! makes with the profile of the test itself. The data lies under cargo's target
//! folder: /tmp is often a tmpfs, which has no direct I/O.

use crate::wire::Connection;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A debug build on a machine that does other things: generous, as it is only ever
/// waited for in full by a test that fails.
const START_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub struct Broker {
    setup: Setup,
    folder: Option<TempDir>,
    port: Port,
    coordinator: Port,
    child: Option<Child>,
}

/// What a test changes about a broker before it starts.
#[derive(Clone, Default)]
pub struct Setup {
    flags: Vec<OsString>,
    settings: Vec<(String, String)>,
    environment: Vec<(OsString, OsString)>,
}

impl Setup {
    /// A flag of `klamm serve`, with its value where it has one.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: impl Into<OsString>) -> Setup {
        self.flags.extend([flag.into(), value.into()]);
        self
    }

    /// A variable of the broker's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Setup {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// What another starts with as well.
    #[must_use]
    pub fn and(mut self, more: Setup) -> Setup {
        self.flags.extend(more.flags);
        self.settings.extend(more.settings);
        self.environment.extend(more.environment);
        self
    }

    /// A broker setting by Kafka's name, as a line of the configuration file.
    #[must_use]
    pub fn setting(mut self, name: &str, value: impl ToString) -> Setup {
        self.settings.push((name.into(), value.to_string()));
        self
    }

    /// Starts a broker on an empty data folder; returns once it answers.
    pub fn start(self) -> Broker {
        let mut broker = self.prepare();
        broker.start_again();
        broker
    }

    /// Folder and ports, and nothing that runs: for [`Broker::launch`].
    pub fn prepare(self) -> Broker {
        let root = target().join("tmp");
        std::fs::create_dir_all(&root).expect("create the folder of the tests' data");
        let folder = tempfile::Builder::new()
            .prefix("klamm-")
            .tempdir_in(&root)
            .expect("create a data folder");
        Broker {
            setup: self,
            folder: Some(folder),
            port: Port::take(&root),
            coordinator: Port::take(&root),
            child: None,
        }
    }
}

impl Broker {
    pub fn start() -> Broker {
        Setup::default().start()
    }

    pub fn with() -> Setup {
        Setup::default()
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number).into()
    }

    /// Where the coordinator speaks ZooKeeper's protocol.
    pub fn coordinator(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.coordinator.number).into()
    }

    /// `bootstrap.servers` for a client.
    pub fn bootstrap(&self) -> String {
        self.address().to_string()
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address()).expect("connect to the broker")
    }

    pub fn data(&self) -> PathBuf {
        self.folder().join("data")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the broker runs").id()
    }

    /// Everything that the broker has said, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    /// The most memory the process has held so far, in bytes.
    pub fn memory_peak(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = std::fs::read_to_string(path).expect("read the broker's status");
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .expect("VmHWM in the broker's status");
        kib * 1024
    }

    pub fn is_running(&mut self) -> bool {
        let child = self.child.as_mut().expect("the broker was started");
        child.try_wait().expect("ask after the broker").is_none()
    }

    /// Stops with SIGTERM and asserts that the broker called it a clean end.
    pub fn stop(&mut self) {
        self.stop_by("TERM");
    }

    /// The same with what Ctrl-C sends.
    pub fn interrupt(&mut self) {
        self.stop_by("INT");
    }

    fn stop_by(&mut self, signal: &str) {
        self.signal(signal);
        let status = self.wait(STOP_WITHIN).unwrap_or_else(|| {
            self.kill9();
            panic!(
                "no end within {STOP_WITHIN:?} of SIG{signal}\n{}",
                self.log()
            )
        });
        assert!(status.success(), "ended with {status}\n{}", self.log());
    }

    /// Stops it between two instructions, as a crash would.
    pub fn kill9(&mut self) {
        self.signal("KILL");
        let status = self.wait(STOP_WITHIN).expect("SIGKILL ends a process");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{}", self.log());
    }

    /// Stands still from now on, as in a machine that is suspended; its sockets stay open.
    pub fn suspend(&self) {
        self.signal("STOP");
    }

    /// Goes on after [`Broker::suspend`], and does not know that it was away.
    pub fn resume(&self) {
        self.signal("CONT");
    }

    /// A clean stop, where it runs, and a start on the same data and port.
    pub fn restart(&mut self) {
        if self.child.is_some() {
            self.stop();
        }
        self.start_again();
    }

    /// Starts on the data that is there; after [`Broker::stop`] or [`Broker::kill9`].
    pub fn start_again(&mut self) {
        self.launch();
        self.await_answer();
    }

    /// What a later start is to do otherwise. Port and data stay.
    pub fn change(&mut self, setup: Setup) {
        self.setup = setup;
    }

    /// Starts without waiting: the broker may not have got far when this returns.
    pub fn launch(&mut self) {
        assert!(self.child.is_none(), "the broker runs already");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file())
            .expect("open the broker's log");
        let mut command = Command::new(klamm());
        command
            .arg("serve")
            .arg("--listen")
            .arg(self.bootstrap())
            .arg("--data")
            .arg(self.data());
        if !self.setup.settings.is_empty() {
            let file = self.folder().join("klamm.toml");
            std::fs::write(&file, settings_toml(&self.setup.settings)).expect("write settings");
            command.arg("--config").arg(file);
        }
        command.args(&self.setup.flags);
        // What the developer's shell says about a broker is not about this one.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("KLAMM_") {
                command.env_remove(name);
            }
        }
        // Brokers of other tests run beside this one: never the default port. A test's
        // own flag is stronger; with --coordinator there is none here to listen for.
        if !self.setup.flags.iter().any(|flag| flag == "--coordinator") {
            command.env("KLAMM_COORDINATOR_LISTEN", self.coordinator().to_string());
        }
        command.envs(self.setup.environment.iter().cloned());
        let errors = log.try_clone().expect("share the broker's log");
        let child = command
            .current_dir(self.folder())
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .expect("start klamm");
        self.child = Some(child);
    }

    /// Returns once it answers; after [`Broker::launch`].
    pub fn await_answer(&mut self) {
        let deadline = Instant::now() + START_WITHIN;
        loop {
            if let Some(status) = self.wait(Duration::ZERO) {
                panic!("klamm ended at its start with {status}\n{}", self.log());
            }
            let answered = Connection::open(self.address()).and_then(|mut c| c.api_versions());
            if answered.is_ok() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "no answer within {START_WITHIN:?}: {}\n{}",
                answered.unwrap_err(),
                self.log()
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// By the command, because the standard library can only kill.
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.pid().to_string())
            .status()
            .expect("the kill command");
        assert!(sent.success(), "signal {signal} to the broker");
    }

    /// Its exit status, if it ends in time; it is then no longer there to be asked.
    fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + within;
        let child = self.child.as_mut().expect("the broker runs");
        loop {
            if let Some(status) = child.try_wait().expect("ask after the broker") {
                self.child = None;
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn folder(&self) -> &Path {
        self.folder.as_ref().expect("until drop").path()
    }

    fn log_file(&self) -> PathBuf {
        self.folder().join("broker.log")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut()
            && child.try_wait().is_ok_and(|status| status.is_none())
        {
            // Where a test failed while it stood still.
            self.signal("CONT");
            self.signal("TERM");
            if self.wait(STOP_WITHIN).is_none() {
                self.signal("KILL");
                self.wait(STOP_WITHIN);
            }
        }
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.len().saturating_sub(8 << 10);
            let tail = (tail..).find(|&at| log.is_char_boundary(at)).unwrap_or(0);
            let folder = self.folder.take().expect("dropped once").keep();
            eprintln!("the broker's folder stays: {}", folder.display());
            eprintln!("the end of its log:\n{}", &log[tail..]);
        }
    }
}

/// A port of this test's own: taken by a lock on a file, since others may choose before
/// anybody listens there, and below the range from which the kernel hands out ports to
/// clients (32768 and up): it stays ours over a restart.
pub(crate) struct Port {
    pub(crate) number: u16,
    _lock: File,
}

impl Port {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;

    pub(crate) fn take(root: &Path) -> Port {
        let start = u16::try_from(std::process::id() % u32::from(Port::COUNT)).expect("below 2^16");
        for n in 0..Port::COUNT {
            let number = Port::FIRST + (start + n) % Port::COUNT;
            let lock = File::create(root.join(format!("port-{number}.lock"))).expect("a lock file");
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Port {
                    number,
                    _lock: lock,
                };
            }
        }
        panic!("no free port from {} on", Port::FIRST)
    }
}

/// `"name" = "value"`; a dotted name is quoted, else TOML makes tables of it.
fn settings_toml(settings: &[(String, String)]) -> String {
    settings
        .iter()
        .map(|(name, value)| format!("{name:?} = {value:?}\n"))
        .collect()
}

/// The binary under test.
pub fn klamm() -> &'static Path {
    static KLAMM: OnceLock<PathBuf> = OnceLock::new();
    KLAMM.get_or_init(|| match std::env::var_os("KLAMM_BIN") {
        Some(path) => {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "KLAMM_BIN: no file {}", path.display());
            path
        }
        None => build(),
    })
}

/// A test's own executable is TARGET/PROFILE/deps/NAME: the binary is built into
/// the same place, so that a second build of everything is not needed.
fn build() -> PathBuf {
    let profile = profile_folder();
    let name = profile.file_name().and_then(|n| n.to_str());
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", "klamm", "--bin", "klamm"])
        .arg("--profile")
        .arg(match name.expect("a profile's name") {
            "debug" => "dev",
            other => other,
        })
        .arg("--target-dir")
        .arg(target())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("run cargo");
    assert!(status.success(), "cargo build -p klamm: {status}");
    profile.join("klamm")
}

fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let deps = test.parent().expect("deps");
    deps.parent().expect("the profile's folder").to_path_buf()
}

pub(crate) fn target() -> PathBuf {
    let profile = profile_folder();
    profile.parent().expect("cargo's target folder").into()
}
