//! `start`: how long after exec a broker answers.
//!
//! ```text
//!   once, not measured:  start; with --partitions: 10 topics, 10 records a partition
//!   N times:  (one batch more a partition)  stop or kill  -->  exec
//!                                                               | ApiVersions answered
//!                                                               | Metadata: all have a leader
//!                                                               v Fetch: the last batch of each
//! ```
//!
//! Without partitions and with a clean stop every start is on an empty folder, as a
//! newcomer's first one is. The start that is not measured brings the binary into
//! memory: disks are not what is asked about here.

use crate::broker::Binary;
use crate::data_folder::{self, DataFolder};
use crate::process::Cpu;
use crate::report::{Figure, Report};
use crate::topics::Topics;
use crate::{Common, Outcome};
use std::time::Duration;

/// Time from exec to the first answered request; with partitions, to the last record
/// of each.
///
/// The broker is started, asked (a connection every 200 us until ApiVersions is
/// answered) and stopped again, N times; the median is given, with the least and the
/// greatest. With --partitions, ten topics share them, each partition gets ten
/// records of 100 bytes before every stop, and the clock stops when Metadata names
/// a leader for all and Fetch has given the last acknowledged batch of each.
/// Aims: under 100 ms without partitions, under 1000 ms with 1000.
#[derive(clap::Args)]
pub struct Args {
    /// Partitions that are there already; a multiple of 10.
    #[arg(long, value_name = "N", default_value_t = 0)]
    partitions: i32,

    /// End the broker with SIGKILL before each start, so that it has to recover.
    #[arg(long)]
    kill: bool,

    /// How many starts are measured.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    times: u16,
}

const EMPTY_MS_AIM: f64 = 100.0;
const PARTITIONS_MS_AIM: f64 = 1000.0;
const PARTITIONS_OF_AIM: i32 = 1000;

pub fn run(args: &Args, common: &Common) -> Outcome<Report> {
    if !Topics::are_divisible(args.partitions) {
        return Err(format!(
            "--partitions {}: a multiple of 10 is needed, for ten topics",
            args.partitions
        ));
    }
    let klamm = Binary::find(common, common.cores())?;
    let ended = if args.kill {
        "killed"
    } else {
        "stopped cleanly"
    };
    let data = match (args.partitions, args.kill) {
        (0, false) => "on an empty folder each".to_owned(),
        (0, true) => "no partitions, killed before each".to_owned(),
        (n, _) => format!("{n} partitions, {ended} before each"),
    };
    let workload = format!("{} starts, {} cores, {data}", args.times, common.cores());
    let mut report = Report::new("start", workload, Some(&klamm))?;
    let folder = DataFolder::make(&common.data)?;
    let place = folder.join("broker");

    let mut running = klamm.start(&place)?;
    let mut topics = match args.partitions {
        0 => None,
        n => Some(Topics::create(&mut running.connection, n)?),
    };
    let (mut answered, mut metadata, mut fetched) = (Vec::new(), Vec::new(), Vec::new());
    let mut cpu = Vec::new();
    for _ in 0..args.times {
        if let Some(topics) = &mut topics {
            topics.append(&mut running.connection)?;
        }
        drop(running.connection);
        if args.kill {
            running.broker.kill()?;
        } else {
            running.broker.stop()?;
        }
        if topics.is_none() && !args.kill {
            data_folder::remove(&place)?;
        }
        running = klamm.start(&place)?;
        answered.push(ms(running.first_answer));
        if let Some(topics) = &topics {
            topics.await_metadata(&mut running.connection)?;
            metadata.push(ms(running.began.elapsed()));
            topics.await_last_batches(&mut running.connection)?;
            fetched.push(ms(running.began.elapsed()));
        }
        cpu.push(1000.0 * Cpu::of(running.broker.pid())?.total_s());
    }
    running.broker.stop()?;

    let answered = Figure::median("first_answer", "first answer (ApiVersions)", answered, "ms");
    // What a busy machine does not stretch.
    let cpu = Figure::median("cpu", "broker's CPU by then", cpu, "ms");
    if topics.is_none() {
        report.add(answered.aim_under(EMPTY_MS_AIM));
        report.add(cpu);
        return Ok(report);
    }
    report.add(answered);
    report.add(Figure::median(
        "metadata",
        "Metadata of all partitions",
        metadata,
        "ms",
    ));
    let fetched = Figure::median(
        "last_batches",
        "last batch of every partition",
        fetched,
        "ms",
    );
    let of_aim = args.partitions == PARTITIONS_OF_AIM;
    report.add(if of_aim {
        fetched.aim_under(PARTITIONS_MS_AIM)
    } else {
        fetched
    });
    report.add(cpu);
    Ok(report)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
