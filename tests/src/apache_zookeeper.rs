//! Apache ZooKeeper's server as a yardstick: found, started, stopped by the test.
//!
//! ```text
//!   find(3.8.0)   Debian's package  /usr/share/java/zookeeper.jar   (3.8 only)
//!                 else              target/zookeeper/3.8.0/*.jar
//!                 else Maven fills that folder, by tests/zookeeper/pom.xml
//!   start()       one java process, 127.0.0.1, a folder of its own
//!   drop          SIGKILL: nothing of it is kept, unless the test failed
//! ```
//!
//! Where there is neither Java nor a package, a test says that it is skipped; with
//! `KLAMM_REQUIRE_ZOOKEEPER=1` in the environment that is an error instead.

use crate::broker::{Port, target};
use crate::zookeeper::records::Request;
use crate::zookeeper::{Connect, Wire};
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const START_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOK_WITHIN: Duration = Duration::from_secs(2);

/// `super:` + base64(SHA-1("super:secret")): who presents super:secret may do anything.
pub const SUPER_DIGEST: &str = "super:lK75jTNcA+U9vtVEw5vB51mj/w4=";
pub const SUPER_CREDENTIAL: &[u8] = b"super:secret";

/// A release, and what `java -cp` takes to run it.
#[derive(Clone, Debug)]
pub struct Release {
    pub version: String,
    pub(crate) classpath: String,
}

/// What a test changes about the server.
#[derive(Clone)]
pub struct Setup {
    pub tick_ms: u32,
    /// Of one address; 0 is no limit.
    pub connections_max: u32,
    /// Four-letter words that are answered.
    pub words: &'static str,
    /// Off, the writes are answered before they are on the disk: for a yardstick of
    /// answers, which is not to survive a power cut, that is enough, and faster.
    pub force_sync: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            tick_ms: 2_000,
            connections_max: 0,
            words: "*",
            force_sync: false,
        }
    }
}

/// The release, or why the test is skipped, which it has then said.
pub fn find_or_say_skipped(version: &str, what: &str) -> Option<Release> {
    match find(version) {
        Ok(release) => Some(release),
        Err(why) => {
            let required = std::env::var_os("KLAMM_REQUIRE_ZOOKEEPER").is_some_and(|v| v != "0");
            assert!(
                !required,
                "{what} needs Apache ZooKeeper {version}, and KLAMM_REQUIRE_ZOOKEEPER is set: {why}"
            );
            eprintln!("SKIPPED: {what} needs Apache ZooKeeper {version}: {why}");
            None
        }
    }
}

/// The error says what was looked for and what to install.
pub fn find(version: &str) -> Result<Release, String> {
    // Two tests at a time would fill one folder twice.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());

    let java = Command::new("java")
        .arg("-version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !java.is_ok_and(|status| status.success()) {
        return Err("no `java` that runs: install a Java 11 or newer (Debian: \
                    default-jre-headless), and Debian's `zookeeper` or Maven"
            .into());
    }
    let release = |classpath: String| Release {
        version: version.into(),
        classpath,
    };
    if version.starts_with("3.8.") && Path::new("/usr/share/java/zookeeper.jar").is_file() {
        return Ok(release("/etc/zookeeper/conf:/usr/share/java/*".into()));
    }
    let folder = target().join("zookeeper").join(version);
    if !is_complete(&folder) {
        fill(&folder, version)?;
    }
    Ok(release(format!("{}/*", folder.display())))
}

/// Maven is done only once this is there: a half-filled folder is filled again.
fn mark(folder: &Path) -> PathBuf {
    folder.join("complete")
}

fn is_complete(folder: &Path) -> bool {
    mark(folder).is_file()
}

fn fill(folder: &Path, version: &str) -> Result<(), String> {
    let pom = Path::new(env!("CARGO_MANIFEST_DIR")).join("zookeeper/pom.xml");
    let output = Command::new("mvn")
        .args(["--quiet", "--batch-mode", "--file"])
        .arg(pom)
        .arg(format!("-Dzookeeper.version={version}"))
        .arg(format!("-Dout={}", folder.display()))
        .arg("dependency:copy-dependencies")
        .output()
        .map_err(|e| format!("neither Debian's package `zookeeper` nor Maven: mvn: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        let said = said.lines().take(5).collect::<Vec<_>>().join(" | ");
        return Err(format!(
            "Maven got no zookeeper {version}: {}: {said}",
            output.status
        ));
    }
    let jar = folder.join(format!("zookeeper-{version}.jar"));
    if !jar.is_file() {
        return Err(format!("Maven made no {}", jar.display()));
    }
    File::create(mark(folder)).map_err(|e| format!("{}: {e}", folder.display()))?;
    Ok(())
}

pub struct ApacheZooKeeper {
    folder: Option<TempDir>,
    port: Port,
    child: Child,
    release: Release,
    setup: Setup,
}

impl ApacheZooKeeper {
    /// Returns once it answers.
    pub fn start(release: &Release, setup: &Setup) -> ApacheZooKeeper {
        let root = target().join("tmp");
        std::fs::create_dir_all(&root).expect("create the folder of the tests' data");
        let folder = tempfile::Builder::new()
            .prefix("zookeeper-")
            .tempdir_in(&root)
            .expect("create a data folder");
        let port = Port::take(&root);
        let settings = folder.path().join("zoo.cfg");
        std::fs::write(&settings, configuration(folder.path(), port.number, setup))
            .expect("write zoo.cfg");
        let mut server = ApacheZooKeeper {
            child: launch(release, setup, folder.path()),
            folder: Some(folder),
            port,
            release: release.clone(),
            setup: setup.clone(),
        };
        server.await_answer();
        server
    }

    /// Stops it between two instructions, as a crash would.
    pub fn kill9(&mut self) {
        self.child.kill().expect("kill the server");
        self.child.wait().expect("the server's end");
    }

    /// On the data that is there; after [`ApacheZooKeeper::kill9`].
    pub fn start_again(&mut self) {
        self.child = launch(&self.release, &self.setup, self.folder());
        self.await_answer();
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number).into()
    }

    /// The port is bound, ruok answered and sessions dropped or left without a word
    /// before the server is ready: only a session that was given says that it is.
    fn await_answer(&mut self) {
        let deadline = Instant::now() + START_WITHIN;
        while !self.gives_a_session().unwrap_or(false) {
            if let Some(status) = self.child.try_wait().expect("ask after the server") {
                panic!("ZooKeeper ended with {status}\n{}", self.log());
            }
            let late = Instant::now() >= deadline;
            assert!(!late, "no answer in {START_WITHIN:?}\n{}", self.log());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn gives_a_session(&self) -> std::io::Result<bool> {
        let mut wire = Wire::open(self.address())?;
        wire.send_frame(&Connect::new(4_000).encode())?;
        if wire.receive_frame(LOOK_WITHIN)?.is_none() {
            return Ok(false);
        }
        // Not left to expire in the middle of a test: that would be a transaction.
        let close = Request::CloseSession.opcode().to_be_bytes();
        wire.send_frame(&[&1i32.to_be_bytes(), &close[..]].concat())?;
        Ok(wire.receive_frame(LOOK_WITHIN)?.is_some())
    }

    fn folder(&self) -> &Path {
        self.folder.as_ref().expect("until drop").path()
    }

    fn log(&self) -> String {
        let bytes = std::fs::read(self.folder().join("server.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn launch(release: &Release, setup: &Setup, folder: &Path) -> Child {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("server.log"))
        .expect("open the log");
    let errors = log.try_clone().expect("share the log");
    let yes_no = if setup.force_sync { "yes" } else { "no" };
    Command::new("java")
        .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .arg("-Dzookeeper.extendedTypesEnabled=true")
        .arg("-Dzookeeper.admin.enableServer=false")
        .arg(format!("-Dzookeeper.forceSync={yes_no}"))
        // Containers are looked after far from any test.
        .arg("-Dznode.container.checkIntervalMs=86400000")
        .arg(format!(
            "-Dzookeeper.DigestAuthenticationProvider.superDigest={SUPER_DIGEST}"
        ))
        .arg("-cp")
        .arg(&release.classpath)
        .arg("org.apache.zookeeper.server.ZooKeeperServerMain")
        .arg(folder.join("zoo.cfg"))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .expect("start java")
}

fn configuration(folder: &Path, port: u16, setup: &Setup) -> String {
    format!(
        "dataDir={}\nclientPortAddress=127.0.0.1\nclientPort={port}\ntickTime={}\n\
         maxClientCnxns={}\n4lw.commands.whitelist={}\nadmin.enableServer=false\n\
         preAllocSize=1024\n",
        folder.join("data").display(),
        setup.tick_ms,
        setup.connections_max,
        setup.words,
    )
}

impl Drop for ApacheZooKeeper {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("ZooKeeper's folder stays: {}", folder.keep().display());
        }
    }
}
