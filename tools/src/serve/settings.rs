//! What the broker is started with: flags, else the environment, else the file, else
//! the defaults.
//!
//! ```text
//!   --listen 0.0.0.0:9092   KLAMM_LISTEN=...   klamm.toml: "listeners" = "PLAINTEXT://..."
//!          \                      |                  |
//!           +---- by Kafka's names into one map -----+--> BrokerConfig (checked)
//!                                                    +--> what Kafka has no name for
//! ```

use crate::serve::coordinator::{self, CoordinatorSettings};
use klamm_coord::core::settings::BrokerConfig;
use klamm_net::kafka::nodes::NODE_ID_STEP;
use klamm_net::kafka::profile;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Run the broker.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where to listen for Kafka clients.
    #[arg(long, env = "KLAMM_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,

    /// Where clients are told to connect, if that is not where the broker listens.
    #[arg(long, env = "KLAMM_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,

    /// The first of as many ports as there are cores: each core listens at one of its own,
    /// too, and clients are told those of the cores where their partitions live, so that
    /// their requests cross to no other. Default: off.
    #[arg(long, env = "KLAMM_CORE_PORTS", value_name = "PORT|off")]
    pub core_ports: Option<String>,

    /// Where to listen for ZooKeeper clients, or none. Default: 127.0.0.1:2181.
    #[arg(long, env = "KLAMM_COORDINATOR_LISTEN", value_name = "HOST:PORT|none")]
    pub coordinator_listen: Option<String>,

    /// Who keeps the cluster: an Apache ZooKeeper ensemble or another Klamm's coordinator.
    /// Default: this broker itself (zookeeper.connect).
    #[arg(
        long,
        env = "KLAMM_COORDINATOR",
        value_name = "zk://HOST:PORT,.../CHROOT"
    )]
    pub coordinator: Option<String>,

    /// The folder that holds everything the broker keeps.
    #[arg(long, env = "KLAMM_DATA", value_name = "FOLDER")]
    pub data: Option<PathBuf>,

    /// How many cores to use, one thread each. Default: all that this process may use.
    #[arg(long, env = "KLAMM_CORES", value_name = "N")]
    pub cores: Option<usize>,

    /// This broker's number in the cluster.
    #[arg(long, env = "KLAMM_BROKER_ID", value_name = "N")]
    pub broker_id: Option<i32>,

    /// A TOML file of settings; flags and environment are stronger.
    #[arg(long, env = "KLAMM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Partitions of a topic whose creator leaves it open (num.partitions).
    #[arg(long, env = "KLAMM_PARTITIONS", value_name = "N")]
    pub partitions: Option<i32>,

    /// Whether a client's first mention of a topic creates it (auto.create.topics.enable).
    #[arg(long, env = "KLAMM_AUTO_CREATE", value_name = "true|false")]
    pub auto_create: Option<bool>,

    /// Memory for recently written records, over all cores: `64MiB`, `2GiB`.
    #[arg(long, env = "KLAMM_TAIL_CACHE", value_name = "SIZE")]
    pub tail_cache: Option<String>,

    /// Whether to record what requests take, for `klamm profile`. Default: on.
    #[arg(long, env = "KLAMM_PROFILE", value_name = "on|off")]
    pub profile: Option<String>,

    /// Log each request that took at least so many milliseconds, and what for.
    #[arg(long, env = "KLAMM_LOG_SLOW_REQUESTS", value_name = "MS")]
    pub log_slow_requests: Option<u64>,

    /// Any setting by Kafka's name, or ZooKeeper's; may be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,

    /// What to log: off, error, warn, info, debug or trace.
    #[arg(long, env = "KLAMM_LOG", value_name = "LEVEL", default_value = "info")]
    pub log: log::LevelFilter,
}

/// Everything `serve` goes by.
#[derive(Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    /// None: the listening address, with the port it turns out to have.
    pub advertise: Option<(String, u16)>,
    /// None: cores have no ports of their own. 0: those that the system gives.
    pub core_ports: Option<u16>,
    pub data: PathBuf,
    pub cores: Option<usize>,
    pub tail_cache_bytes: usize,
    pub profile: profile::Settings,
    pub coordinator: CoordinatorSettings,
    pub broker: BrokerConfig,
}

/// Recent enough for consumers that keep up, small enough for a small machine.
const TAIL_CACHE_BYTES: usize = 128 << 20;

/// The names in the file that are Klamm's alone.
const CORES: &str = "klamm.cores";
const CORE_PORTS: &str = "klamm.core.ports";
const TAIL_CACHE: &str = "klamm.tail.cache.bytes";
const PROFILE: &str = "klamm.profile";
const LOG_SLOW_REQUESTS: &str = "klamm.log.slow.requests.ms";

/// A setting that makes no sense; the sentence says which, and what would.
#[derive(Debug)]
pub struct SettingsError(String);

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingsError {}

pub(super) fn wrong(what: impl Into<String>) -> SettingsError {
    SettingsError(what.into())
}

impl Settings {
    pub fn resolve(args: &Args) -> Result<Settings, SettingsError> {
        let mut names = match &args.config {
            Some(path) => read_file(path)?,
            None => BTreeMap::new(),
        };
        for pair in &args.set {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| wrong(format!("--set {pair}: expected NAME=VALUE")))?;
            names.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        let mut flag = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                names.insert(name.to_owned(), value);
            }
        };
        flag(
            "listeners",
            args.listen.as_ref().map(|a| format!("PLAINTEXT://{a}")),
        );
        flag(
            "advertised.listeners",
            args.advertise.as_ref().map(|a| format!("PLAINTEXT://{a}")),
        );
        flag(
            "log.dirs",
            args.data.as_ref().map(|path| path.display().to_string()),
        );
        flag("broker.id", args.broker_id.map(|id| id.to_string()));
        flag("num.partitions", args.partitions.map(|n| n.to_string()));
        flag(
            "auto.create.topics.enable",
            args.auto_create.map(|yes| yes.to_string()),
        );
        flag(CORES, args.cores.map(|n| n.to_string()));
        flag(CORE_PORTS, args.core_ports.clone());
        flag(TAIL_CACHE, args.tail_cache.clone());
        flag(PROFILE, args.profile.clone());
        flag(
            LOG_SLOW_REQUESTS,
            args.log_slow_requests.map(|ms| ms.to_string()),
        );
        flag(coordinator::LISTEN, args.coordinator_listen.clone());
        flag(coordinator::CONNECT, args.coordinator.clone());

        let cores = match names.remove(CORES) {
            Some(text) => Some(parse_cores(&text)?),
            None => None,
        };
        let core_ports = match names.remove(CORE_PORTS).as_deref() {
            None | Some("off") => None,
            Some(text) => Some(parse_core_ports(text)?),
        };
        let tail_cache_bytes = match names.remove(TAIL_CACHE) {
            Some(text) => parse_size(&text)?,
            None => TAIL_CACHE_BYTES,
        };
        let profile = profile::Settings {
            histograms: match names.remove(PROFILE).as_deref() {
                None | Some("on" | "true") => true,
                Some("off" | "false") => false,
                Some(text) => return Err(wrong(format!("{PROFILE}={text}: expected on or off"))),
            },
            slow: match names.remove(LOG_SLOW_REQUESTS) {
                Some(text) => parse_slow(&text)?,
                None => None,
            },
        };
        let coordinator = CoordinatorSettings::take(&mut names)?;
        let broker = BrokerConfig::new(names).map_err(|e| wrong(e.to_string()))?;
        if core_ports.is_some() && broker.broker_id >= NODE_ID_STEP {
            return Err(wrong(format!(
                "broker.id={}: with {CORE_PORTS} it has to be below {NODE_ID_STEP}, so that the \
                 node ids of cores are no other broker's",
                broker.broker_id
            )));
        }
        let text = |name: &str| broker.get(name).map(|value| value.to_string());
        let listeners = text("listeners").unwrap_or_default();
        let (host, port) = parse_listener("listeners", &listeners)?;
        let listen = look_up(&format!("listeners={listeners}"), &host, port)?;
        let advertise = match text("advertised.listeners") {
            Some(listeners) => Some(parse_listener("advertised.listeners", &listeners)?),
            // Nobody can connect to "every address".
            None if listen.ip().is_unspecified() => {
                return Err(wrong(format!(
                    "listening at {listen} means every address of this machine; say with --advertise HOST:PORT which of them clients are to use"
                )));
            }
            None => None,
        };
        let data = PathBuf::from(text("log.dirs").unwrap_or_default());
        if data.as_os_str().is_empty() || data.display().to_string().contains(',') {
            return Err(wrong(format!(
                "log.dirs={}: expected one folder",
                data.display()
            )));
        }
        Ok(Settings {
            listen,
            advertise,
            core_ports,
            data,
            cores,
            tail_cache_bytes,
            profile,
            coordinator,
            broker,
        })
    }
}

/// A host's first address. `setting` is what to name where it has none.
pub(super) fn look_up(setting: &str, host: &str, port: u16) -> Result<SocketAddr, SettingsError> {
    (host, port)
        .to_socket_addrs()
        .map_err(|e| wrong(format!("{setting}: {host} can't be looked up: {e}")))?
        .next()
        .ok_or_else(|| wrong(format!("{setting}: {host} has no address")))
}

/// `PLAINTEXT://host:port`; the host of an IPv6 address stands in brackets.
fn parse_listener(name: &str, text: &str) -> Result<(String, u16), SettingsError> {
    let shape = || {
        wrong(format!(
            "{name}={text}: expected one PLAINTEXT://HOST:PORT; TLS and SASL are not there yet"
        ))
    };
    let address = match text.split_once("://") {
        Some(("PLAINTEXT", address)) => address,
        Some(_) => return Err(shape()),
        None => text,
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(shape)?;
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    if host.is_empty() || host.contains([',', '/']) {
        return Err(shape());
    }
    Ok((host.to_owned(), port.parse().map_err(|_| shape())?))
}

fn parse_cores(text: &str) -> Result<usize, SettingsError> {
    // A shard's number is 16 bits, and no machine has a mesh of more than this.
    match text.parse() {
        Ok(n) if (1..=256).contains(&n) => Ok(n),
        _ => Err(wrong(format!(
            "{CORES}={text}: expected a number from 1 to 256"
        ))),
    }
}

fn parse_core_ports(text: &str) -> Result<u16, SettingsError> {
    text.parse().map_err(|_| {
        wrong(format!(
            "{CORE_PORTS}={text}: expected the first port, from 1 to 65535 (0: any that are \
             free), or off"
        ))
    })
}

/// Milliseconds, or off; 0 logs every request.
fn parse_slow(text: &str) -> Result<Option<Duration>, SettingsError> {
    if text == "off" {
        return Ok(None);
    }
    // More than a day is a mistake.
    match text.parse() {
        Ok(ms @ 0..=86_400_000) => Ok(Some(Duration::from_millis(ms))),
        _ => Err(wrong(format!(
            "{LOG_SLOW_REQUESTS}={text}: expected milliseconds from 0 to 86400000, or off"
        ))),
    }
}

/// `4096`, `64KiB`, `128MiB`, `2GiB`.
fn parse_size(text: &str) -> Result<usize, SettingsError> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" | "k" | "K" => 10,
        "MiB" | "m" | "M" => 20,
        "GiB" | "g" | "G" => 30,
        _ => 64,
    };
    let bytes = number
        .parse::<usize>()
        .ok()
        .filter(|_| shift < 64)
        .and_then(|n| n.checked_mul(1 << shift));
    bytes.ok_or_else(|| {
        wrong(format!(
            "{TAIL_CACHE}={text}: expected a size such as 67108864, 64MiB or 2GiB"
        ))
    })
}

/// The file's settings by their full names. `"num.partitions" = 3` and
/// `num.partitions = 3` mean the same.
fn read_file(path: &Path) -> Result<BTreeMap<String, String>, SettingsError> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        wrong(format!(
            "could not read the settings file {}: {e}",
            path.display()
        ))
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|e| {
        wrong(format!(
            "the settings file {} is not TOML: {e}\n(a name that goes on another one, as max.connections.per.ip does max.connections, has to stand in quotes)",
            path.display()
        ))
    })?;
    let mut names = BTreeMap::new();
    flatten("", &table, &mut names)
        .map_err(|what| wrong(format!("in the settings file {}: {what}", path.display())))?;
    Ok(names)
}

fn flatten(
    prefix: &str,
    table: &toml::Table,
    names: &mut BTreeMap<String, String>,
) -> Result<(), String> {
    for (key, value) in table {
        let name = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        let text = match value {
            toml::Value::Table(inner) => {
                flatten(&name, inner, names)?;
                continue;
            }
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(n) => n.to_string(),
            toml::Value::Float(x) => x.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            toml::Value::Array(_) | toml::Value::Datetime(_) => {
                return Err(format!("{name}: expected a string, a number or a boolean"));
            }
        };
        names.insert(name, text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn resolve(flags: &[&str]) -> Result<Settings, SettingsError> {
        let line = Line::parse_from(["serve"].iter().chain(flags));
        Settings::resolve(&line.args)
    }

    #[test]
    fn the_defaults_are_this_machine_alone() {
        let settings = resolve(&[]).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:9092");
        assert_eq!(settings.data, Path::new("klamm-data"));
        assert_eq!(settings.broker.broker_id, 1);
        assert!(settings.advertise.is_none());
    }

    #[test]
    fn a_flag_is_stronger_than_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("klamm.toml");
        std::fs::write(
            &file,
            "num.partitions = 3\n\"max.connections\" = 10\n\"max.connections.per.ip\" = 5\nbroker.id = 7\nklamm.cores = 2\nklamm.tail.cache.bytes = \"8MiB\"\n",
        )
        .unwrap();
        let file = file.to_str().unwrap();
        let settings = resolve(&[
            "--config",
            file,
            "--partitions",
            "9",
            "--set",
            "log.retention.ms=1000",
        ])
        .unwrap();
        assert_eq!(settings.broker.num_partitions, 9);
        assert_eq!(settings.broker.max_connections_per_ip, 5);
        assert_eq!(settings.broker.broker_id, 7);
        assert_eq!(settings.cores, Some(2));
        assert_eq!(settings.tail_cache_bytes, 8 << 20);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (flags, says) in [
            (&["--set", "no.such=1"][..], "no.such"),
            (&["--set", "num.partitions"], "NAME=VALUE"),
            (&["--partitions", "0"], "num.partitions"),
            (&["--listen", "nonsense"], "HOST:PORT"),
            (&["--listen", "127.0.0.1:99999"], "HOST:PORT"),
            (&["--listen", "0.0.0.0:9092"], "--advertise"),
            (&["--set", "listeners=SSL://h:1"], "TLS"),
            (&["--tail-cache", "many"], "64MiB"),
            (&["--cores", "0"], "1 to 256"),
            (&["--core-ports", "on"], "the first port"),
            (&["--core-ports", "65536"], "1 to 65535"),
            (
                &["--core-ports", "9093", "--broker-id", "1000000"],
                "below 1000000",
            ),
            (&["--profile", "maybe"], "on or off"),
            (&["--set", "klamm.log.slow.requests.ms=-1"], "milliseconds"),
            (&["--data", "/a,/b"], "one folder"),
            (&["--config", "/no/such/file"], "/no/such/file"),
        ] {
            let refused = resolve(flags).unwrap_err().to_string();
            assert!(refused.contains(says), "{flags:?}: {refused}");
        }
    }

    #[test]
    fn cores_have_ports_where_the_first_is_named() {
        for (flags, first) in [
            (&[][..], None),
            (&["--core-ports", "off", "--broker-id", "1000000"], None),
            (&["--core-ports", "9093"], Some(9093)),
            (&["--set", "klamm.core.ports=0"], Some(0)),
        ] {
            assert_eq!(resolve(flags).unwrap().core_ports, first, "{flags:?}");
        }
    }

    #[test]
    fn recording_is_on_and_logging_of_slow_requests_off() {
        let settings = resolve(&[]).unwrap().profile;
        assert_eq!(settings, profile::Settings::default());
        let settings = resolve(&["--profile", "off", "--log-slow-requests", "20"]).unwrap();
        assert!(!settings.profile.histograms);
        assert_eq!(settings.profile.slow, Some(Duration::from_millis(20)));
        let settings = resolve(&["--set", "klamm.log.slow.requests.ms=off"]).unwrap();
        assert_eq!(settings.profile.slow, None);
    }

    #[test]
    fn every_address_is_advertised_by_name() {
        let settings = resolve(&["--listen", "0.0.0.0:9092", "--advertise", "[::1]:9093"]).unwrap();
        assert_eq!(settings.advertise, Some(("::1".to_owned(), 9093)));
    }
}
