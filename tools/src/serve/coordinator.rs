//! The coordinator's own listener: ZooKeeper's settings by ZooKeeper's names.
//!
//! ```text
//!   klamm.coordinator.listen   127.0.0.1:2181, or none
//!   tickTime ... enforceQuota  as in a zoo.cfg; what is a system property there may
//!                              keep its "zookeeper." in front
//! ```

use crate::serve::settings::{SettingsError, look_up, wrong};
use klamm_coord::core::zookeeper::ZooKeeperConfig;
use klamm_net::zookeeper::limits::Limits;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;

pub const LISTEN: &str = "klamm.coordinator.listen";
const LISTEN_DEFAULT: &str = "127.0.0.1:2181";

#[derive(Debug)]
pub struct CoordinatorSettings {
    /// None: no listener for ZooKeeper's clients.
    pub listen: Option<SocketAddr>,
    pub tick_time_ms: u32,
    pub core: ZooKeeperConfig,
    pub limits: Limits,
}

impl CoordinatorSettings {
    /// Takes its names out of the map; what is left belongs to others.
    pub fn take(
        names: &mut BTreeMap<String, String>,
    ) -> Result<CoordinatorSettings, SettingsError> {
        let listen = names.remove(LISTEN);
        let listen = match listen.as_deref().unwrap_or(LISTEN_DEFAULT) {
            "none" => None,
            text => Some(address(text)?),
        };
        let (core, limits) = (ZooKeeperConfig::default(), Limits::default());
        let tick_time_ms: u32 = number(names, "tickTime", 1..=3_600_000)?.unwrap_or(2000);
        // An hour a tick is 20 hours, far below 2^31 ms.
        let ticks = |count: u32| (tick_time_ms * count).cast_signed();
        let timeouts = 1..=i32::MAX;
        let min = number(names, "minSessionTimeout", timeouts.clone())?.unwrap_or(ticks(2));
        let max = number(names, "maxSessionTimeout", timeouts)?.unwrap_or(ticks(20));
        if min > max {
            return Err(wrong(format!(
                "minSessionTimeout={min} is above maxSessionTimeout={max}"
            )));
        }
        let interval = number(
            names,
            "znode.container.checkIntervalMs",
            1..=u64::MAX / 1_000_000,
        )?;
        let core = ZooKeeperConfig {
            min_session_timeout_ms: min,
            max_session_timeout_ms: max,
            enforce_quota: parse(names, "enforceQuota", "true or false")?
                .unwrap_or(core.enforce_quota),
            container_check_interval_ms: interval.unwrap_or(core.container_check_interval_ms),
        };
        let unlimited = |max: usize| if max == 0 { usize::MAX } else { max };
        let limits = Limits {
            frame_bytes_max: number(names, "jute.maxbuffer", 1024..=256 << 20)?
                .unwrap_or(limits.frame_bytes_max),
            connections_max: number(names, "maxCnxns", 0..=usize::MAX)?
                .map_or(limits.connections_max, unlimited),
            connections_per_ip_max: number(names, "maxClientCnxns", 0..=usize::MAX)?
                .map_or(limits.connections_per_ip_max, unlimited),
            words: parse(names, "4lw.commands.whitelist", "words between commas")?
                .unwrap_or(limits.words),
            super_digest: take(names, "DigestAuthenticationProvider.superDigest").1,
            ..limits
        };
        Ok(CoordinatorSettings {
            listen,
            tick_time_ms,
            core,
            limits,
        })
    }
}

fn address(text: &str) -> Result<SocketAddr, SettingsError> {
    let shape = || wrong(format!("{LISTEN}={text}: expected HOST:PORT or none"));
    let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(shape());
    }
    let port = port.parse().map_err(|_| shape())?;
    look_up(&format!("{LISTEN}={text}"), host, port)
}

/// The name under which it was given, and its value.
fn take(names: &mut BTreeMap<String, String>, name: &str) -> (String, Option<String>) {
    let long = format!("zookeeper.{name}");
    match names.remove(name) {
        Some(value) => (name.to_owned(), Some(value)),
        None => (long.clone(), names.remove(&long)),
    }
}

fn parse<T>(
    names: &mut BTreeMap<String, String>,
    name: &str,
    expected: &str,
) -> Result<Option<T>, SettingsError>
where
    T: FromStr,
    T::Err: Display,
{
    let (name, Some(text)) = take(names, name) else {
        return Ok(None);
    };
    let value = text.trim().parse();
    let value = value.map_err(|e| wrong(format!("{name}={text}: expected {expected}: {e}")));
    value.map(Some)
}

fn number<T>(
    names: &mut BTreeMap<String, String>,
    name: &str,
    within: std::ops::RangeInclusive<T>,
) -> Result<Option<T>, SettingsError>
where
    T: FromStr + PartialOrd + Display,
    T::Err: Display,
{
    let expected = format!("a number from {} to {}", within.start(), within.end());
    match parse::<T>(names, name, &expected)? {
        Some(value) if !within.contains(&value) => {
            Err(wrong(format!("{name}={value}: expected {expected}")))
        }
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(given: &[(&str, &str)]) -> Result<CoordinatorSettings, String> {
        let given = given
            .iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        let mut names: BTreeMap<String, String> = given.collect();
        let settings = CoordinatorSettings::take(&mut names).map_err(|e| e.to_string())?;
        assert!(names.is_empty(), "left: {names:?}");
        Ok(settings)
    }

    #[test]
    fn the_defaults_are_zookeepers_on_this_machine_alone() {
        let settings = resolve(&[]).unwrap();
        assert_eq!(settings.listen.unwrap().to_string(), "127.0.0.1:2181");
        assert_eq!(settings.core, ZooKeeperConfig::default());
        assert_eq!(settings.limits.frame_bytes_max, 0xf_ffff);
        assert_eq!(settings.limits.connections_per_ip_max, 60);
    }

    #[test]
    fn settings_keep_their_names() {
        let settings = resolve(&[
            (LISTEN, "none"),
            ("tickTime", "500"),
            ("maxSessionTimeout", "60000"),
            ("maxClientCnxns", "0"),
            ("jute.maxbuffer", "4194304"),
            ("zookeeper.4lw.commands.whitelist", "*"),
            (
                "zookeeper.DigestAuthenticationProvider.superDigest",
                "super:x=",
            ),
            ("enforceQuota", "true"),
        ])
        .unwrap();
        assert_eq!(settings.listen, None);
        assert_eq!(settings.core.min_session_timeout_ms, 1000);
        assert_eq!(settings.core.max_session_timeout_ms, 60_000);
        assert!(settings.core.enforce_quota);
        assert_eq!(settings.limits.connections_per_ip_max, usize::MAX);
        assert_eq!(settings.limits.frame_bytes_max, 4 << 20);
        assert_eq!(settings.limits.super_digest.as_deref(), Some("super:x="));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (name, value, says) in [
            (LISTEN, "nonsense", "HOST:PORT or none"),
            ("tickTime", "0", "tickTime=0"),
            ("tickTime", "x", "tickTime=x"),
            (
                "minSessionTimeout",
                "50000",
                "above maxSessionTimeout=40000",
            ),
            ("4lw.commands.whitelist", "wat", "no four-letter word"),
            (
                "zookeeper.enforceQuota",
                "yes",
                "zookeeper.enforceQuota=yes",
            ),
            ("jute.maxbuffer", "10", "from 1024"),
        ] {
            let refused = resolve(&[(name, value)]).unwrap_err();
            assert!(refused.contains(says), "{refused}");
        }
    }
}
