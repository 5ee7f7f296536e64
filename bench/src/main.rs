//! `klamm-bench`: the figures that Klamm is held against, each by one command.
//!
//! ```text
//!   start   idle   rate   coordinator    what is run, what is measured
//!     |       |     |  \       |   \
//!     |       |     |  disk   lanes  zookeeper    one client for two coordinators
//!     |       |     |           |   what the disk does with the same bytes, alone
//!   broker  process  topics   cores
//!     |       |        |       who runs where
//!   server    |       wire      loopback
//!             |
//!           /proc    report     a short table or JSON, with the warnings
//!
//!   produce, consume, tail, mixed --> load     by a client of its own that costs little
//! ```
//!
//! Every run starts its own broker (a load may name another with --brokers), on a free
//! port of the loopback, with its data under one folder that is empty before and after.
//! What a figure is measured under, and what makes it worth less (a debug build, a busy
//! machine), is said beside it. An aim that is not reached is reported, not an error: the
//! exit status says only whether the figures could be taken.

mod broker;
mod coordinator;
mod cores;
mod data_folder;
mod disk;
mod idle;
mod lanes;
mod load;
mod measurement;
mod process;
mod rate;
mod report;
mod server;
mod start;
mod topics;
mod wire;
mod zookeeper;

use clap::{Parser, Subcommand};
use load::Workload;
use std::path::PathBuf;
use std::process::ExitCode;

/// What could not be done, in a sentence for a person.
type Outcome<T = ()> = Result<T, String>;

/// Klamm's figures: its start, its idleness, its rates beside the disk's own.
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
    Rate(rate::Args),
    Coordinator(coordinator::Args),
    /// Records into a broker: any that speaks Kafka's protocol.
    Produce(load::Args),
    /// Records out of a broker, from the start, as a consumer that catches up.
    Consume(load::Args),
    /// Records at a rate, and how long each takes from the producer to the consumer.
    Tail(load::Args),
    /// Producers and consumers at once.
    Mixed(load::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let report = match &args.figure {
        Figure::Start(start) => start::run(start, &args.common),
        Figure::Idle(idle) => idle::run(idle, &args.common),
        Figure::Rate(rate) => rate::run(rate, &args.common),
        Figure::Coordinator(coordinator) => coordinator::run(coordinator, &args.common),
        Figure::Produce(load) => load::run_command(Workload::Produce, load, &args.common),
        Figure::Consume(load) => load::run_command(Workload::Consume, load, &args.common),
        Figure::Tail(load) => load::run_command(Workload::Tail, load, &args.common),
        Figure::Mixed(load) => load::run_command(Workload::Mixed, load, &args.common),
    };
    match report {
        Ok(report) if args.common.json => println!("{:#}", report.json()),
        Ok(report) => print!("{report}"),
        Err(message) => {
            eprintln!("klamm-bench: {message}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
