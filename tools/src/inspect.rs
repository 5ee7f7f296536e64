//! `klamm inspect`: what stands in the files of a data folder.
//!
//! ```text
//!  DATA/                     a line a partition
//!    orders-0/               a line a file, everything checked
//!      ....log               batches, with --records what is in them
//!      ....index .timeindex  entries, held against the log beside them
//!      ....snapshot          idempotent producers
//!      leader-epoch-checkpoint, committed, log-start-offset, *.metadata
//! ```
//!
//! Reads only. Works on Kafka's folders as well as on Klamm's, whose layout it is,
//! and beside a running broker (whose active segment may then end in a batch that is
//! just being written). Every CRC is computed; what is wrong is said with its byte.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::output::{Failure, Outcome, conclude, json_line, stdout};

mod changelog;
mod folder;
mod index;
mod producers;
pub mod segment;
mod small;

pub const HELP: &str = "\
Exit status:
  0  everything that was looked at is whole
  1  something is damaged or torn, or cannot be read; what and where is said
  2  the command line makes no sense

With --json, one object a line; its `type` says what it is: batch, record, command, \
segment, index_entry, index, producer, producers, leader_epoch, leader_epochs, mark, text, partition. \
A `status` other than `ok` or `preallocated` is damage.";

#[derive(clap::Args)]
pub struct Args {
    /// Segments, indexes, checkpoints, snapshots; a partition's folder; a data folder.
    #[arg(required = true, value_name = "FILE|FOLDER")]
    paths: Vec<PathBuf>,
    /// Show the records in the batches of a segment, too.
    #[arg(short, long)]
    records: bool,
    /// A segment of the coordinator's changelog: show its records as commands. (A
    /// folder that is no topic's partition is taken for one anyway.)
    #[arg(long)]
    changelog: bool,
    /// Only the summary of a segment or an index, not its batches or entries.
    #[arg(short, long, conflicts_with_all = ["records", "changelog"])]
    summary: bool,
    /// Print results as JSON, one object a line.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> ExitCode {
    let mut report = Report {
        out: Box::new(stdout()),
        json: args.json,
        damaged: false,
    };
    let outcome = inspect_all(args, &mut report);
    // What was found before an error is worth having.
    let flushed = report.out.flush().map_err(Failure::from);
    conclude(args.json, outcome.and(flushed))
}

fn inspect_all(args: &Args, report: &mut Report) -> Outcome {
    for path in &args.paths {
        inspect(path, args, report)?;
    }
    if report.damaged {
        return Err(Failure::Reported);
    }
    Ok(())
}

/// Where findings go: each is a line for people and an object for scripts.
pub struct Report {
    out: Box<dyn Write>,
    json: bool,
    damaged: bool,
}

impl Report {
    fn say(&mut self, finding: &(impl Serialize + fmt::Display)) -> Outcome {
        if self.json {
            json_line(&mut self.out, finding)?;
        } else {
            writeln!(self.out, "{finding}")?;
        }
        Ok(())
    }

    /// For people only: a line of column names.
    fn heading(&mut self, line: &str) -> Outcome {
        if !self.json {
            writeln!(self.out, "{line}")?;
        }
        Ok(())
    }
}

fn unreadable(path: &Path, e: &std::io::Error) -> Failure {
    Failure::Other(format!("cannot read {}: {e}", path.display()))
}

/// A small file, whole. Indexes are at most 10 MiB (`segment.index.bytes`), but that is
/// a setting.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|e| unreadable(path, &e))
}

/// `00000000000000000042.log` -> 42
fn base_offset(path: &Path) -> Option<i64> {
    let digits = path.file_stem()?.to_str()?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

fn inspect(path: &Path, args: &Args, report: &mut Report) -> Outcome {
    let metadata = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?;
    if metadata.is_dir() {
        return folder::inspect(path, report);
    }
    let details = !args.summary;
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    match path.extension().and_then(|e| e.to_str()) {
        Some("log") => {
            let show = segment::Show {
                batches: details,
                records: args.records,
                commands: args.changelog || (args.records && changelog::is_changelog(path)),
            };
            segment::inspect(path, show, report).map(|_| ())
        }
        Some("index") => index::inspect(path, index::Kind::Offset, details, report),
        Some("timeindex") => index::inspect(path, index::Kind::Time, details, report),
        Some("txnindex") => index::inspect(path, index::Kind::Transaction, details, report),
        Some("snapshot") => producers::inspect(path, details, report),
        _ if small::knows(&name) => small::inspect(path, &name, report),
        Some(klamm_engine::journal::layout::EXTENSION) => Err(Failure::Other(format!(
            "{} is a journal: rounds of many partitions that their segments may not have yet. \
             The next `klamm serve` brings them there; this command looks at the segments",
            path.display()
        ))),
        _ => Err(Failure::Other(format!(
            "{} is no file that this command knows: it reads .log, .index, .timeindex, \
             .txnindex and .snapshot, {}, and folders",
            path.display(),
            small::NAMES.join(", ")
        ))),
    }
}
