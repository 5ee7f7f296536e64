//! `klamm-bench`: the figures that Klamm is held against, each by one command.
//!
//! ```text
//!   start   idle   rate          one file each: what is run, what is measured
//!     |       |      |  \
//!     |       |      |   disk    what the disk does with the same bytes, alone
//!   broker  process  topics      a broker of our own; its CPU and memory; what is in it
//!     |                 |
//!   klamm serve <---- wire       loopback
//!                    report      a short table or JSON, with the warnings
//! ```
//!
//! Every run starts its own broker, on a free port of the loopback, with its data
//! under one folder that is empty before and after. What a figure is measured
//! under, and what makes it worth less (a debug build, a busy machine), is said
//! beside it. An aim that is not reached is reported, not an error: the exit status
//! says only whether the figures could be taken.

mod broker;
mod data_folder;
mod disk;
mod idle;
mod process;
mod rate;
mod report;
mod start;
mod topics;
mod wire;

use clap::{Parser, Subcommand};
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

    /// Cores for the broker.
    #[arg(long, value_name = "N", default_value_t = 2, global = true)]
    cores: usize,

    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Figure {
    Start(start::Args),
    Idle(idle::Args),
    Rate(rate::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let report = match &args.figure {
        Figure::Start(start) => start::run(start, &args.common),
        Figure::Idle(idle) => idle::run(idle, &args.common),
        Figure::Rate(rate) => rate::run(rate, &args.common),
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
