//! `idle`: what a broker costs while nobody wants anything of it.
//!
//! ```text
//!   start --answered--> settle 2 s --> CPU before ... SECONDS ... CPU after, memory
//! ```
//!
//! CPU time is utime + stime of all its threads, from /proc; memory is VmRSS and its
//! peak. Clients are away: the one connection that asked is closed.

use crate::broker::Binary;
use crate::data_folder::DataFolder;
use crate::process::{Cpu, Memory};
use crate::report::{Figure, Report};
use crate::topics::Topics;
use crate::{Common, Outcome};
use std::thread;
use std::time::{Duration, Instant};

/// CPU and memory of a broker that nobody asks for anything.
///
/// Started on an empty folder (or with --partitions, ten topics with ten records of
/// 100 bytes a partition), left alone for two seconds, then watched. CPU is in
/// percent of one core, user and system time of all threads (resolution: 10 ms).
/// Aims, with 2 cores: under 1 % of a core, under 64 MiB resident.
#[derive(clap::Args)]
pub struct Args {
    /// How long it is watched.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,

    /// Partitions that it holds; a multiple of 10.
    #[arg(long, value_name = "N", default_value_t = 0)]
    partitions: i32,
}

const CPU_PERCENT_AIM: f64 = 1.0;
const MEMORY_MIB_AIM: f64 = 64.0;
const SETTLE: Duration = Duration::from_secs(2);

pub fn run(args: &Args, common: &Common) -> Outcome<Report> {
    if !Topics::are_divisible(args.partitions) {
        return Err(format!(
            "--partitions {}: a multiple of 10 is needed, for ten topics",
            args.partitions
        ));
    }
    let klamm = Binary::find(common, common.cores())?;
    let workload = format!(
        "{} s, {} cores, {} partitions, no clients",
        args.seconds,
        common.cores(),
        args.partitions
    );
    let mut report = Report::new("idle", workload, Some(&klamm))?;
    let folder = DataFolder::make(&common.data)?;
    let mut running = klamm.start(&folder.join("broker"))?;
    if args.partitions > 0 {
        Topics::create(&mut running.connection, args.partitions)?
            .append(&mut running.connection)?;
    }
    drop(running.connection);
    thread::sleep(SETTLE);

    let pid = running.broker.pid();
    let (before, began) = (Cpu::of(pid)?, Instant::now());
    thread::sleep(Duration::from_secs(args.seconds));
    let (used, watched) = (Cpu::of(pid)? - before, began.elapsed());
    let memory = Memory::of(pid)?;
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
    let of_aim = common.cores() == 2 && args.partitions == 0;
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
        resident.aim_under(MEMORY_MIB_AIM)
    } else {
        resident
    });
    report.add(peak);
    Ok(report)
}

#[allow(clippy::cast_precision_loss)] // exact below 2^53 bytes
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
