//! The ports that cores have of their own: chosen and found free before a core starts.
//!
//! ```text
//!   klamm.core.ports   9093        4 cores: 9093 9094 9095 9096, at the address of --listen
//!                      0           as many as the system has to give (a test's)
//! ```
//!
//! What two of them were to have is refused here, by the flag that has it already, and not
//! only when it is listened at.

use crate::serve::free_port;
use crate::serve::settings::Settings;
use std::net::{IpAddr, SocketAddr};

/// One a core, in their order; none where cores have no ports of their own. `all` and
/// `coordinator` are what this process is to listen at besides.
pub fn free(
    settings: &Settings,
    cores: usize,
    all: SocketAddr,
    coordinator: Option<SocketAddr>,
) -> Result<Vec<SocketAddr>, String> {
    let Some(first) = settings.core_ports else {
        return Ok(Vec::new());
    };
    let mut taken = vec![(all, "--listen")];
    taken.extend(coordinator.map(|address| (address, "--coordinator-listen")));
    if first == 0 {
        return any(cores, all, &taken);
    }
    chosen(first, cores, all, &taken)?
        .into_iter()
        .map(|address| free_port(address, "--core-ports"))
        .collect()
}

/// For a person; None where there are none.
pub fn in_words(ports: &[SocketAddr]) -> Option<String> {
    let ports: Vec<u16> = ports.iter().map(SocketAddr::port).collect();
    let (first, last) = (ports.first()?, ports.last()?);
    if ports.len() > 1 && ports.is_sorted_by(|a, b| a.checked_add(1) == Some(*b)) {
        return Some(format!("{first} to {last}"));
    }
    let each: Vec<String> = ports.iter().map(u16::to_string).collect();
    Some(each.join(", "))
}

/// The same host's.
fn at(mut host: SocketAddr, port: u16) -> SocketAddr {
    host.set_port(port);
    host
}

fn any(
    cores: usize,
    host: SocketAddr,
    taken: &[(SocketAddr, &str)],
) -> Result<Vec<SocketAddr>, String> {
    let mut ports = Vec::with_capacity(cores);
    while ports.len() < cores {
        let port = free_port(at(host, 0), "--core-ports")?;
        // The system may give one again that nobody listens at yet.
        if !ports.contains(&port) && taken.iter().all(|(by, _)| !is_same(*by, port)) {
            ports.push(port);
        }
    }
    Ok(ports)
}

fn chosen(
    first: u16,
    cores: usize,
    host: SocketAddr,
    taken: &[(SocketAddr, &str)],
) -> Result<Vec<SocketAddr>, String> {
    let last = usize::from(first) + cores - 1;
    let Ok(last) = u16::try_from(last) else {
        return Err(format!(
            "--core-ports {first}: {cores} cores need the ports to {last}, and 65535 is the last \
             that there is; begin lower, or take fewer --cores"
        ));
    };
    let ports = (first..=last).map(|port| at(host, port));
    for port in ports.clone() {
        if let Some((_, flag)) = taken.iter().find(|(by, _)| is_same(*by, port)) {
            return Err(format!(
                "--core-ports {first}: {cores} cores need the ports {first} to {last}, and {} is \
                 that of {flag}; begin elsewhere",
                port.port()
            ));
        }
    }
    Ok(ports.collect())
}

/// Whether a client of one could come to the other.
fn is_same(a: SocketAddr, b: SocketAddr) -> bool {
    let every = |ip: IpAddr| ip.is_unspecified();
    a.port() == b.port() && (a.ip() == b.ip() || every(a.ip()) || every(b.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_has_a_port_and_nobody_elses() {
        let here = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let every = SocketAddr::from(([0, 0, 0, 0], 9092));
        let there = SocketAddr::from(([127, 0, 0, 2], 9094));
        for (first, cores, by, outcome) in [
            (9093, 1, here(9092), Ok(9093)),
            (9093, 4, here(9092), Ok(9096)),
            (9093, 4, there, Ok(9096)),
            (65_535, 1, here(9092), Ok(65_535)),
            (65_535, 2, here(9092), Err("65536")),
            (1, 256, here(9092), Ok(256)),
            (9092, 1, here(9092), Err("9092 is that of --listen")),
            (9090, 3, here(9092), Err("9092 is that of --listen")),
            (9090, 2, here(9092), Ok(9091)),
            (9090, 3, every, Err("9092 is that of --listen")),
        ] {
            let ports = chosen(first, cores, here(0), &[(by, "--listen")]);
            match (ports, outcome) {
                (Ok(ports), Ok(last)) => {
                    assert_eq!(ports.len(), cores);
                    assert_eq!(ports.first(), Some(&here(first)));
                    assert_eq!(ports.last(), Some(&here(last)));
                }
                (Err(why), Err(says)) => assert!(why.contains(says), "{why}"),
                (ports, _) => panic!("{first} for {cores} beside {by}: {ports:?}"),
            }
        }
    }

    #[test]
    fn ports_in_words_are_few() {
        let ports = |each: &[u16]| -> Vec<SocketAddr> {
            let port = |port: &u16| SocketAddr::from(([127, 0, 0, 1], *port));
            each.iter().map(port).collect()
        };
        for (each, words) in [
            (&[][..], None),
            (&[9093], Some("9093")),
            (&[9093, 9094, 9095], Some("9093 to 9095")),
            (&[40_001, 39_000], Some("40001, 39000")),
        ] {
            assert_eq!(in_words(&ports(each)).as_deref(), words);
        }
    }

    #[test]
    fn the_system_gives_each_core_another_port() {
        let all = SocketAddr::from(([127, 0, 0, 1], 9092));
        let ports = any(16, all, &[(all, "--listen")]).unwrap();
        let mut each: Vec<u16> = ports.iter().map(SocketAddr::port).collect();
        each.sort_unstable();
        each.dedup();
        assert_eq!(each.len(), 16);
        assert!(!each.contains(&0));
    }
}
