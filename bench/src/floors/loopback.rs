//! The loopback's floor: the same bytes through one bare connection, nothing else.
//!
//! ```text
//!   in         client --send 1 request--> server: recv into one buffer, again and again
//!   in + CRC   the same, and CRC-32C over what each recv brought, while it is in the cache
//!   out        client: recv  <--send from one buffer-- server
//! ```
//!
//! Threads of this process, the server's on the server's core and the client's on the
//! client's. CPU is the server's thread's. What each receives is counted, and with CRC
//! compared with what was sent: a floor that lost bytes would be none.

use super::{Floor, Site};
use crate::Outcome;
use crate::noise::noise;
use crate::process::Cpu;
use crc_fast::{CrcAlgorithm, Digest};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A peer that says nothing for so long is hung.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

pub fn floors(site: &Site<'_>) -> Outcome<Vec<Floor>> {
    let requests = site.bytes.div_ceil(site.request_bytes as u64).max(1);
    let bytes = requests * site.request_bytes as u64;
    let floor = |id, label, (cpu, wall)| Floor {
        id,
        label,
        bytes,
        wall,
        cpu,
    };
    Ok(vec![
        floor(
            "loopback_in",
            "loopback: client to server",
            inward(site, requests, false)?,
        ),
        floor(
            "loopback_in_crc",
            "loopback: client to server, CRC-32C",
            inward(site, requests, true)?,
        ),
        floor(
            "loopback_out",
            "loopback: server to client",
            outward(site, requests)?,
        ),
    ])
}

/// The server's CPU, and the time until it had received all.
fn inward(site: &Site<'_>, requests: u64, with_crc: bool) -> Outcome<(Cpu, Duration)> {
    let (mut client, server) = pair()?;
    let request = noise(site.request_bytes);
    let (length, expected) = (
        site.request_bytes,
        u64::from(crc_fast::crc32_iscsi(&request)),
    );
    let server = on_server(site, move || {
        let before = Cpu::of_this_thread()?;
        let mut room = vec![0; length];
        for _ in 0..requests {
            let crc = receive(&server, &mut room, with_crc)?;
            if with_crc && crc != expected {
                return Err(format!("CRC-32C {crc:08x} came, {expected:08x} was sent"));
            }
        }
        Ok((Cpu::of_this_thread()? - before, Instant::now()))
    })?;
    let began = Instant::now();
    for _ in 0..requests {
        if client.write_all(&request).is_err() {
            // The server knows better why.
            break;
        }
    }
    let (cpu, ended) = joined(server)?;
    Ok((cpu, ended - began))
}

fn outward(site: &Site<'_>, requests: u64) -> Outcome<(Cpu, Duration)> {
    let (client, mut server) = pair()?;
    let request = noise(site.request_bytes);
    let server = on_server(site, move || {
        let before = Cpu::of_this_thread()?;
        (0..requests)
            .try_for_each(|_| server.write_all(&request))
            .map_err(|e| format!("the loopback: {e}"))?;
        Ok(Cpu::of_this_thread()? - before)
    })?;
    let began = Instant::now();
    let mut room = vec![0; site.request_bytes];
    for _ in 0..requests {
        receive(&client, &mut room, false)?;
    }
    let wall = began.elapsed();
    Ok((joined(server)?, wall))
}

/// One request's bytes, in as few calls as they come in; their CRC-32C if it is wanted.
fn receive(mut from: &TcpStream, room: &mut [u8], with_crc: bool) -> Outcome<u64> {
    let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    let mut at = 0;
    while at < room.len() {
        match from.read(&mut room[at..]) {
            Ok(0) => return Err("the loopback: the sender ended early".to_owned()),
            Ok(read) => {
                if with_crc {
                    digest.update(&room[at..at + read]);
                }
                at += read;
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(format!("the loopback: {e}")),
        }
    }
    Ok(digest.finalize())
}

/// Both ends of a connection of the loopback: client's, server's.
pub fn pair() -> Outcome<(TcpStream, TcpStream)> {
    let pair = || -> std::io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_nodelay(true)?;
            end.set_read_timeout(Some(ANSWER_WITHIN))?;
            end.set_write_timeout(Some(ANSWER_WITHIN))?;
        }
        Ok((client, server))
    };
    pair().map_err(|e| format!("a connection over the loopback: {e}"))
}

/// A thread on the server's core; this one goes on on the client's.
pub fn on_server<T: Send + 'static>(
    site: &Site<'_>,
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<JoinHandle<Outcome<T>>> {
    site.cores.start(|| {
        let thread = thread::Builder::new().name("floor".to_owned());
        thread
            .spawn(work)
            .map_err(|e| format!("a thread can't be started: {e}"))
    })
}

pub fn joined<T>(thread: JoinHandle<Outcome<T>>) -> Outcome<T> {
    thread
        .join()
        .map_err(|_| "the floor's thread panicked".to_owned())?
}
