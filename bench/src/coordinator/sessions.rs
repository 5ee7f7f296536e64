//! What thousands of sessions cost: memory, with each of them connected.
//!
//! ```text
//!   32 connections, 32 connects written, 32 answers read     until all are there
//!   memory, a ping on each, memory again
//! ```
//!
//! They come from several addresses of the loopback, 4,000 from each: an address has
//! 28,000 ports.

use super::comparison::{Comparison, measure};
use super::contender::Contender;
use super::{Run, failed, mib};
use crate::Outcome;
use crate::cores;
use crate::process::Memory;
use crate::report::Aim;
use crate::zookeeper::{self, CONNECTED_BYTES, TIMEOUT_MAX};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const AT_ONCE: u32 = 32;
const AN_ADDRESS: u32 = 4000;

/// For whatever a process has open besides.
const OTHER_FILES: u64 = 200;

const OF_AIM: u32 = 19_600;
const MEMORY_MIB_AIM: f64 = 64.0;

pub fn take(run: &Run, to: &mut Comparison) -> Outcome {
    let files = cores::raise_open_files()?;
    let sessions = run.args.sessions;
    if u64::from(sessions) + OTHER_FILES > files {
        return Err(format!(
            "{sessions} sessions need as many open files, and a process may have {files} here: \
             raise the hard limit (ulimit -Hn) or ask for fewer with --sessions"
        ));
    }
    for contender in run.contenders {
        one_server(run, contender, sessions, to)?;
    }
    Ok(())
}

fn one_server(run: &Run, contender: &Contender, sessions: u32, to: &mut Comparison) -> Outcome {
    let who = contender.who();
    let (server, first) = run.start(contender, "sessions", run.together)?;
    let pid = server.server.pid();
    let fresh = Memory::of(pid)?.resident_bytes;

    let began = Instant::now();
    let mut sockets: Vec<TcpStream> = Vec::new();
    let mut from = (0..sessions).map(source).peekable();
    while from.peek().is_some() {
        let some = from.by_ref().take(AT_ONCE as usize);
        let begun: std::io::Result<Vec<_>> = some.map(|from| begin(server.address, from)).collect();
        let mut begun = begun.map_err(failed("connect"))?;
        for socket in &mut begun {
            finish(socket).map_err(failed("connect"))?;
        }
        sockets.append(&mut begun);
    }
    let took = began.elapsed();
    // What is written behind an answer is written by then.
    thread::sleep(Duration::from_secs(1));
    let connected = Memory::of(pid)?.resident_bytes;
    for socket in &mut sockets {
        socket
            .write_all(&zookeeper::ping())
            .map_err(failed("ping"))?;
    }
    for socket in &mut sockets {
        let mut pong = [0; 20];
        socket.read_exact(&mut pong).map_err(failed("ping"))?;
    }
    let pinged = Memory::of(pid)?.resident_bytes;

    let memory = measure(
        "sessions_memory",
        format!("memory, {sessions} sessions"),
        "MiB",
    );
    let memory = match sessions {
        OF_AIM => memory.aim(Aim::Under(MEMORY_MIB_AIM)),
        _ => memory,
    };
    let each = measure("sessions_each", "  more than fresh, each", "KiB");
    let pings = measure("sessions_pinged", "  after a ping on each", "MiB");
    let rate = measure(
        "sessions_rate",
        "sessions opened, one at a time of 32",
        "/s",
    );
    to.add(who, &memory, mib(connected));
    to.add(
        who,
        &each,
        1024.0 * mib(connected.saturating_sub(fresh)) / f64::from(sessions),
    );
    to.add(who, &pings, mib(pinged));
    to.add(who, &rate, f64::from(sessions) / took.as_secs_f64());
    drop((sockets, first));
    server.stop()
}

fn source(session: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + 1 + session / AN_ADDRESS)
}

fn begin(server: SocketAddr, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let mut socket = zookeeper::dial(server, from)?;
    socket.write_all(&zookeeper::connect(TIMEOUT_MAX))?;
    Ok(socket)
}

fn finish(socket: &mut TcpStream) -> std::io::Result<()> {
    let mut answer = [0; CONNECTED_BYTES];
    socket.read_exact(&mut answer)?;
    zookeeper::granted(&answer).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_come_from_addresses_of_the_loopback() {
        assert_eq!(source(0), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(source(AN_ADDRESS), Ipv4Addr::new(127, 0, 0, 3));
        assert!(source(100_000).is_loopback());
    }
}
