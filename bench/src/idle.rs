//! `idle`: what a broker costs while nobody wants anything of it.
//!
//! ```text
//!   start --answered--> settle 2 s --> CPU before ... SECONDS ... CPU after, memory
//!       with --connections: 32 connects and ApiVersions written, 32 answers read, until
//!       all are there; they stay open, and say nothing more, or with --waiting each a
//!       Fetch, which is not answered as long as nobody writes
//! ```
//!
//! CPU time is utime + stime of all its threads, from /proc; memory is VmRSS and its
//! peak. Without --connections clients are away: the one connection that asked is closed.
//! Many connections come from several addresses of the loopback, 4,000 from each: an
//! address has 28,000 ports.

use crate::broker::Binary;
use crate::data_folder::DataFolder;
use crate::process::{Cpu, Memory};
use crate::report::{Figure, Report};
use crate::topics::{FETCH_VERSION, Topics};
use crate::{Common, Outcome, cores, wire, zookeeper};
use kafka_protocol::messages::ApiVersionsRequest;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// CPU and memory of a broker that nobody asks for anything.
///
/// Started on an empty folder (or with --partitions, ten topics with ten records of
/// 100 bytes a partition), left alone for two seconds, then watched. CPU is in
/// percent of one core, user and system time of all threads (resolution: 10 ms).
/// Aims, with 2 cores: under 1 % of a core, under 64 MiB resident; with 10,000
/// connections, on any cores: under 1 % of a core, under 100 MiB resident.
#[derive(clap::Args)]
pub struct Args {
    /// How long it is watched.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Partitions that it holds; a multiple of 10.
    #[arg(long, value_name = "N", default_value_t = 0)]
    partitions: i32,

    /// Connections that are open, and were each answered once.
    #[arg(long, value_name = "N", default_value_t = 0)]
    connections: u32,

    /// Each of them is a consumer at its partition's end, and waits for a record.
    #[arg(long, requires = "connections", requires = "partitions")]
    waiting: bool,
}

/// A consumer's Fetch is not to be answered while it is watched.
const LONGER_THAN_WATCHED: Duration = Duration::from_secs(60);

const CPU_PERCENT_AIM: f64 = 1.0;
const MEMORY_MIB_AIM: f64 = 64.0;
const CONNECTIONS_OF_AIM: u32 = 10_000;
const CONNECTIONS_MEMORY_MIB_AIM: f64 = 100.0;
const AT_ONCE: u32 = 32;
const FROM_AN_ADDRESS: u32 = 4000;
/// For whatever a process has open besides.
const OTHER_FILES: u64 = 200;
const SETTLE: Duration = Duration::from_secs(2);

pub fn run(args: &Args, common: &Common) -> Outcome<Report> {
    if !Topics::are_divisible(args.partitions) {
        return Err(format!(
            "--partitions {}: a multiple of 10 is needed, for ten topics",
            args.partitions
        ));
    }
    // The broker has from this process how many files it may open.
    let files = cores::raise_open_files()?;
    if u64::from(args.connections) + OTHER_FILES > files {
        return Err(format!(
            "{} connections need as many open files, and a process may have {files} here: \
             raise the hard limit (ulimit -Hn) or ask for fewer",
            args.connections
        ));
    }
    let klamm = Binary::find(common, common.cores())?;
    let clients = match args.connections {
        0 => "no clients".to_owned(),
        n if args.waiting => format!("{n} consumers that wait"),
        n => format!("{n} connections that say nothing"),
    };
    let workload = format!(
        "{} s, {} cores, {} partitions, {clients}",
        args.seconds,
        common.cores(),
        args.partitions
    );
    let mut report = Report::new("idle", workload, Some(&klamm))?;
    let folder = DataFolder::make(&common.data)?;
    let mut running = klamm.start(&folder.join("broker"))?;
    let mut topics = None;
    if args.partitions > 0 {
        let mut with = Topics::create(&mut running.connection, args.partitions)?;
        with.append(&mut running.connection)?;
        topics = Some(with);
    }
    drop(running.connection);
    let pid = running.broker.pid();
    let fresh = Memory::of(pid)?.resident_bytes;
    let mut connections = connect(args.connections, running.broker.address())
        .map_err(|e| format!("{} connections: {e}", args.connections))?;
    if let (true, Some(topics)) = (args.waiting, &topics) {
        let wait = SETTLE + Duration::from_secs(args.seconds) + LONGER_THAN_WATCHED;
        for (consumer, socket) in (0..).zip(&mut connections) {
            let request = topics.wait_for_more(consumer, wait);
            wire::encode(2, FETCH_VERSION, &request)
                .and_then(|request| socket.write_all(&request))
                .map_err(|e| format!("Fetch: {e}"))?;
        }
    }
    thread::sleep(SETTLE);

    let (before, began) = (Cpu::of(pid)?, Instant::now());
    thread::sleep(Duration::from_secs(args.seconds));
    let (used, watched) = (Cpu::of(pid)? - before, began.elapsed());
    let memory = Memory::of(pid)?;
    if args.waiting {
        still_waiting(&connections)?;
    }
    drop(connections);
    running.broker.stop()?;

    let percent = |seconds: f64| 100.0 * seconds / watched.as_secs_f64();
    let cpu = Figure::new("cpu", "CPU, of one core", percent(used.total_s()), "%");
    let resident = Figure::new(
        "resident",
        "memory resident",
        mib(memory.resident_bytes),
        "MiB",
    );
    let peak = Figure::new(
        "resident_max",
        "memory resident at most",
        mib(memory.resident_bytes_max),
        "MiB",
    );
    let of_aim = match args.connections {
        0 => common.cores() == 2 && args.partitions == 0,
        n => n == CONNECTIONS_OF_AIM && args.partitions == 0,
    };
    let memory_aim = match args.connections {
        0 => MEMORY_MIB_AIM,
        _ => CONNECTIONS_MEMORY_MIB_AIM,
    };
    report.add(if of_aim {
        cpu.aim_under(CPU_PERCENT_AIM)
    } else {
        cpu
    });
    report.add(Figure::new(
        "cpu_user",
        "  of that, user",
        percent(used.user_s),
        "%",
    ));
    report.add(Figure::new(
        "cpu_system",
        "  of that, system",
        percent(used.system_s),
        "%",
    ));
    report.add(if of_aim {
        resident.aim_under(memory_aim)
    } else {
        resident
    });
    report.add(peak);
    if args.connections > 0 {
        let more = memory.resident_bytes.saturating_sub(fresh);
        let each = 1024.0 * mib(more) / f64::from(args.connections);
        let label = "  more than without them, each";
        report.add(Figure::new("connection", label, each, "KiB"));
    }
    Ok(report)
}

/// So many connections, each answered once.
fn connect(count: u32, broker: SocketAddr) -> io::Result<Vec<TcpStream>> {
    let request = wire::encode(1, 0, &ApiVersionsRequest::default())?;
    let mut all = Vec::new();
    let mut left = (0..count).map(source).peekable();
    while left.peek().is_some() {
        let begin = |from| {
            let mut socket = zookeeper::dial(broker, from)?;
            socket.write_all(&request)?;
            Ok(socket)
        };
        let some: io::Result<Vec<TcpStream>> =
            left.by_ref().take(AT_ONCE as usize).map(begin).collect();
        let mut some = some?;
        some.iter_mut().try_for_each(answered)?;
        all.append(&mut some);
    }
    Ok(all)
}

/// An answer would mean that something else was watched than consumers that wait.
fn still_waiting(connections: &[TcpStream]) -> Outcome {
    for socket in connections {
        let look = socket
            .set_nonblocking(true)
            .and_then(|()| socket.peek(&mut [0]));
        match look {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(format!("a consumer that waits: {e}")),
            Ok(_) => return Err("a consumer was answered, though there was no record".to_owned()),
        }
    }
    Ok(())
}

fn source(connection: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + 1 + connection / FROM_AN_ADDRESS)
}

/// Length, correlation id, error code, and the rest of the answer.
fn answered(socket: &mut TcpStream) -> io::Result<()> {
    let mut front = [0; 10];
    socket.read_exact(&mut front)?;
    let (length, rest) = front.split_first_chunk().expect("10 bytes");
    let (correlation, error) = rest.split_at(4);
    let length = u64::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
    if correlation != [0, 0, 0, 1] || error != [0, 0] || length < 6 {
        return Err(io::Error::other(format!(
            "ApiVersions is answered with {front:?}"
        )));
    }
    let behind = io::copy(&mut socket.take(length - 6), &mut io::sink())?;
    if behind == length - 6 {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[allow(clippy::cast_precision_loss)] // exact below 2^53 bytes
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_come_from_addresses_of_the_loopback() {
        assert_eq!(source(0), Ipv4Addr::new(127, 0, 0, 2));
        assert_eq!(source(FROM_AN_ADDRESS), Ipv4Addr::new(127, 0, 0, 3));
        assert!(source(1_000_000).is_loopback());
    }
}
