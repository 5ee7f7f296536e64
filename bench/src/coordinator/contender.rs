//! Who is measured: Klamm's coordinator, and Apache ZooKeeper's server.
//!
//! ```text
//!   klamm serve --coordinator-listen ADDRESS --listen ... --cores 1 --data FOLDER/data
//!               --set maxClientCnxns=0
//!   java -Xmx1000m -cp JARS QuorumPeerMain FOLDER/zoo.cfg
//!     JARS: --zookeeper-classpath, else target/zookeeper/lib, which Maven fills once
//! ```
//!
//! Each is as its own start script has it: ZooKeeper with the heap that zkServer.sh
//! gives (1000 MB), synced before it answers (forceSync, its default), any number of
//! connections an address (maxClientCnxns=0, both), its data beside Klamm's. Klamm's broker
//! comes along with its coordinator, as it does in life.

use super::Args;
use crate::broker::{self, Binary};
use crate::server::Server;
use crate::{Common, Outcome};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What stands beside Klamm's figures.
pub const APACHE_ZOOKEEPER: &str = "Apache ZooKeeper";

const POM: &str = include_str!("../../zookeeper/pom.xml");
const FETCHED: &str = "target/zookeeper";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Klamm,
    ApacheZooKeeper,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Against {
    Klamm,
    ApacheZookeeper,
    Both,
}

pub enum Contender {
    Klamm(Binary),
    ApacheZooKeeper(ClassPath),
}

/// Jars, as `java -cp` takes them.
pub struct ClassPath {
    jars: String,
    /// Of its jar's name: 3.8.4.
    pub version: String,
}

/// A server that was started; it may not answer yet.
pub struct Running {
    pub who: Who,
    pub server: Server,
    pub address: SocketAddr,
    /// Where Klamm speaks Kafka's protocol.
    pub kafka: Option<SocketAddr>,
}

/// Those that were asked for and are to be had, Klamm first; and what is to be said of
/// one that is not.
pub fn find(args: &Args, common: &Common) -> Outcome<(Vec<Contender>, Option<String>)> {
    let mut contenders = Vec::new();
    let mut missed = None;
    if args.against != Against::ApacheZookeeper {
        let klamm = Binary::find(common, common.cores.unwrap_or(1))?;
        contenders.push(Contender::Klamm(klamm));
    }
    if args.against != Against::Klamm {
        match ClassPath::find(args.zookeeper_classpath.as_deref()) {
            Ok(class_path) => contenders.push(Contender::ApacheZooKeeper(class_path)),
            Err(message) if args.against == Against::Both => {
                missed = Some(format!("nothing stands beside Klamm's figures: {message}"));
            }
            Err(message) => return Err(message),
        }
    }
    Ok((contenders, missed))
}

impl Contender {
    pub fn who(&self) -> Who {
        match self {
            Contender::Klamm(_) => Who::Klamm,
            Contender::ApacheZooKeeper(_) => Who::ApacheZooKeeper,
        }
    }

    /// On the data in `folder`, as it was left there.
    pub fn start(&self, folder: &Path) -> Outcome<Running> {
        let address = broker::free_address()?;
        match self {
            Contender::Klamm(binary) => {
                let kafka = broker::free_address()?;
                let mut command = binary.serve(folder, kafka);
                command
                    .arg("--coordinator-listen")
                    .arg(address.to_string())
                    .args(["--set", "maxClientCnxns=0"]);
                Ok(Running {
                    who: Who::Klamm,
                    server: Server::start("the broker", command, folder)?,
                    address,
                    kafka: Some(kafka),
                })
            }
            Contender::ApacheZooKeeper(class_path) => {
                let config = class_path.config(folder, address)?;
                let mut command = Command::new("java");
                command
                    .arg("-Xmx1000m")
                    .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
                    .args(["-cp", &class_path.jars])
                    .arg("org.apache.zookeeper.server.quorum.QuorumPeerMain")
                    .arg(config);
                Ok(Running {
                    who: Who::ApacheZooKeeper,
                    server: Server::start(APACHE_ZOOKEEPER, command, folder)?,
                    address,
                    kafka: None,
                })
            }
        }
    }
}

impl Running {
    pub fn stop(self) -> Outcome {
        match self.who {
            Who::Klamm => self.server.stop(&[0]),
            // The virtual machine's own way to say SIGTERM.
            Who::ApacheZooKeeper => self.server.stop(&[0, 128 + 15]),
        }
    }
}

impl ClassPath {
    fn find(named: Option<&str>) -> Outcome<ClassPath> {
        let java = Command::new("java").arg("-version").output();
        if !java.is_ok_and(|java| java.status.success()) {
            return Err(
                "Apache ZooKeeper needs Java: install a JRE, or measure Klamm alone with \
                 --against klamm"
                    .to_owned(),
            );
        }
        let jars = match named {
            Some(jars) => jars.to_owned(),
            None => fetched()?,
        };
        let version = version_in(&jars)
            .ok_or_else(|| format!("no zookeeper-3.x.jar is in the class path {jars}"))?;
        Ok(ClassPath { jars, version })
    }

    fn config(&self, folder: &Path, address: SocketAddr) -> Outcome<PathBuf> {
        let failed = |e| format!("{} can't be made: {e}", folder.display());
        fs::create_dir_all(folder).map_err(failed)?;
        let file = folder.join("zoo.cfg");
        let config = format!(
            "tickTime=2000\ndataDir={}\nclientPortAddress={}\nclientPort={}\n\
             maxClientCnxns=0\nadmin.enableServer=false\nforceSync=yes\n",
            folder.join("data").display(),
            address.ip(),
            address.port()
        );
        fs::write(&file, config).map_err(failed)?;
        Ok(file)
    }
}

/// The jars of the pom, which Maven brings once.
fn fetched() -> Outcome<String> {
    let failed = |e| format!("{FETCHED} can't be made: {e}");
    let folder = Path::new(FETCHED);
    fs::create_dir_all(folder).map_err(failed)?;
    let folder = folder.canonicalize().map_err(failed)?;
    let (lib, pom, whole) = (
        folder.join("lib"),
        folder.join("pom.xml"),
        folder.join("whole"),
    );
    // Last written, so that a fetch that was broken off is done again.
    if fs::read_to_string(&whole).ok().as_deref() != Some(POM) {
        fs::write(&pom, POM).map_err(failed)?;
        eprintln!("klamm-bench: Maven fetches Apache ZooKeeper into {FETCHED}, once");
        let maven = Command::new("mvn")
            .args(["-B", "-q", "-f"])
            .arg(&pom)
            .args(["dependency:copy-dependencies", "-DincludeScope=runtime"])
            .arg(format!("-DoutputDirectory={}", lib.display()))
            .output()
            .map_err(|e| {
                format!(
                    "Apache ZooKeeper can't be fetched: mvn: {e}; name its jars with \
                     --zookeeper-classpath"
                )
            })?;
        if !maven.status.success() {
            return Err(format!(
                "Apache ZooKeeper can't be fetched: mvn ended with {}: {}; name its jars with \
                 --zookeeper-classpath",
                maven.status,
                String::from_utf8_lossy(&maven.stdout).trim()
            ));
        }
        fs::write(&whole, POM).map_err(failed)?;
    }
    let jars = lib.read_dir().map_err(failed)?;
    let mut jars: Vec<String> = jars
        .filter_map(|jar| Some(jar.ok()?.path().display().to_string()))
        .collect();
    jars.sort();
    Ok(jars.join(":"))
}

/// Of `.../zookeeper-3.8.4.jar`; where the path holds a folder, of what is in it.
fn version_in(class_path: &str) -> Option<String> {
    let names = class_path
        .split(':')
        .flat_map(|entry| match entry.strip_suffix('*') {
            None => vec![entry.to_owned()],
            Some(folder) => Path::new(folder)
                .read_dir()
                .into_iter()
                .flatten()
                .filter_map(|jar| Some(jar.ok()?.path().display().to_string()))
                .collect(),
        });
    names
        .filter_map(|name| {
            let name = name
                .rsplit_once('/')
                .map_or(name.as_str(), |(_, name)| name);
            let version = name.strip_prefix("zookeeper-")?.strip_suffix(".jar")?;
            version.starts_with('3').then(|| version.to_owned())
        })
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_server_and_not_of_its_protocol() {
        let jars = "/a/slf4j-api-1.7.30.jar:/a/zookeeper-jute-3.8.4.jar:/a/zookeeper-3.8.4.jar";
        assert_eq!(version_in(jars).as_deref(), Some("3.8.4"));
        assert_eq!(version_in("/a/kafka.jar"), None);
    }
}
