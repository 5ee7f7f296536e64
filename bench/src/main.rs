//! `klamm-bench`: the figures that Klamm is held against, each by one command.
//!
//! ```text
//!   produce consume tail mixed    compare, aims    hop   start idle coordinator
//!        |                          |      |   \      |     |     |     |
//!      load, application            |   against: Klamm, Apache Kafka, others
//!   raw batches, or librdkafka      |      |                |     |     |
//!        |                          |   broker  server      process    lanes
//!     measurement ------------------+      |
//!        |         \                     wire           floors: disk, loopback, sendfile
//!     publish     report                 cores            syscalls: perf, strace
//!   .hgrm, CSV,   a short table or
//!   a page        JSON, with the warnings
//! ```
//!
//! Every run starts its own broker, on a free port of the loopback, with its data
//! under one folder that is empty before and after (a load may name another with
//! --brokers). What a figure is measured under, and what makes it worth less (a debug
//! build, a busy machine), is said beside it. An aim that is not reached is reported, not an error: the exit
//! status says only whether the figures could be taken.

mod against;
mod aims;
mod application;
mod broker;
mod compare;
mod coordinator;
mod cores;
mod data_folder;
mod floors;
mod hop;
mod idle;
mod interrupt;
mod lanes;
mod load;
mod machine;
mod measurement;
mod noise;
mod process;
mod publish;
mod report;
mod server;
mod start;
mod syscalls;
mod topics;
mod wire;
mod zookeeper;

use clap::{Parser, Subcommand};
use load::Workload;
use report::Report;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// What could not be done, in a sentence for a person.
type Outcome<T = ()> = Result<T, String>;

/// Klamm's figures: its rates beside the machine's own and Apache Kafka's, its start, its
/// idleness.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    figure: Figure,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Common {
    /// The broker's binary. Default: `klamm` beside this one.
    #[arg(long, env = "KLAMM_BIN", value_name = "FILE", global = true)]
    klamm: Option<PathBuf>,

    /// Where the broker and the disk's floor write; emptied before and after.
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = "target/klamm-bench-data",
        global = true
    )]
    data: PathBuf,

    /// Cores for the broker: 2, or for `coordinator` and the loads 1.
    #[arg(long, value_name = "N", global = true)]
    cores: Option<usize>,

    /// Write report.html (plots), .hgrm and .csv files into this folder, too.
    #[arg(long, value_name = "FOLDER", global = true)]
    report: Option<PathBuf>,

    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

impl Common {
    fn cores(&self) -> usize {
        self.cores.unwrap_or(2)
    }
}

#[derive(Subcommand)]
enum Figure {
    Start(start::Args),
    Idle(idle::Args),
    Floors(floors::Args),
    Coordinator(coordinator::Args),
    /// Records into a broker: any that speaks Kafka's protocol.
    Produce(load::Args),
    /// Records out of a broker, from the start, as a consumer that catches up.
    Consume(load::Args),
    /// Records at a rate, and how long each takes from the producer to the consumer.
    Tail(load::Args),
    /// Producers and consumers at once.
    Mixed(load::Args),
    Hop(hop::Args),
    Compare(compare::Args),
    Aims(aims::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(e) = interrupt::catch() {
        eprintln!("klamm-bench: signals can't be caught: {e}");
        return ExitCode::FAILURE;
    }
    let common = &args.common;
    let alone = |report: Outcome<Report>| report.map(|report| (report, Vec::new()));
    let load = |workload, load| load::run_command(workload, load, common);
    let taken = match &args.figure {
        Figure::Start(start) => alone(start::run(start, common)),
        Figure::Idle(idle) => alone(idle::run(idle, common)),
        Figure::Floors(floors) => alone(floors::run(floors, common)),
        Figure::Coordinator(coordinator) => alone(coordinator::run(coordinator, common)),
        Figure::Produce(args) => load(Workload::Produce, args),
        Figure::Consume(args) => load(Workload::Consume, args),
        Figure::Tail(args) => load(Workload::Tail, args),
        Figure::Mixed(args) => load(Workload::Mixed, args),
        Figure::Hop(hop) => hop::run(hop, common),
        Figure::Compare(compare) => compare::run(compare, common),
        Figure::Aims(aims) => aims::run(aims, common),
    };
    let shown = taken.and_then(|(report, measurements)| {
        let text = match common.json {
            true => format!("{:#}\n", report.json()),
            false => report.to_string(),
        };
        match io::stdout().write_all(text.as_bytes()) {
            // Whoever reads has read enough.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.map_err(|e| format!("the report can't be printed: {e}"))?,
        }
        publish::publish(common, &report, &measurements)?;
        Ok(report.is_whole())
    });
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("klamm-bench: {message}");
            ExitCode::FAILURE
        }
    }
}
