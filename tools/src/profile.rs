//! `klamm profile`: what a running broker's requests take, and what for.
//!
//! ```text
//!   DATA/klamm.sock --snapshot--> minus the one before --> a screen, lines or JSON
//!                   --snapshot--> minus the first ------> .hgrm files, at the end
//! ```
//!
//! The broker only counts upwards; every interval is a difference that is taken here, so
//! several may watch one broker.

mod hgrm;
mod json;
mod screen;

use crate::output::{self, Failure, Outcome};
use crate::{interrupt, parse_duration};
use klamm_net::profile::Snapshot;
use klamm_net::profile::socket::Line;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

/// Show what a running broker's requests take, and what for: live, or since its start.
#[derive(clap::Args)]
pub struct Args {
    /// The folder that the broker was started with.
    #[arg(
        long,
        env = "KLAMM_DATA",
        value_name = "FOLDER",
        default_value = "klamm-data"
    )]
    data: PathBuf,

    /// How much time each look covers: `1s`, `500ms`, `1m`.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    interval: Duration,

    /// End after so many seconds. Default: at Ctrl-C.
    #[arg(long, value_name = "N", conflicts_with = "once")]
    seconds: Option<u64>,

    /// Show all since the broker's start, once, and end.
    #[arg(long)]
    once: bool,

    /// At the end, write a .hgrm file for each histogram into this folder: of the time
    /// watched, or with --once since the broker's start.
    #[arg(long, value_name = "FOLDER")]
    hgrm: Option<PathBuf>,

    /// Print one JSON object a look.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    output::conclude(args.json, profile(&args))
}

fn profile(args: &Args) -> Outcome {
    if let Some(folder) = &args.hgrm {
        fs::create_dir_all(folder)
            .map_err(|e| Failure::Other(format!("could not create {}: {e}", folder.display())))?;
    }
    interrupt::catch().map_err(|e| Failure::Other(format!("signals can't be caught: {e}")))?;
    let mut line = Line::open(&args.data).map_err(Failure::Other)?;
    let first = line.snapshot().map_err(Failure::Other)?;
    if args.once {
        show(args, &first, false)?;
        return write_hgrm(args, &first);
    }
    let began = Instant::now();
    let until = args.seconds.map(|n| began + Duration::from_secs(n));
    let mut before = first.clone();
    let mut next = began;
    loop {
        next += args.interval;
        // The last look is cut to the time that was asked for.
        let ended = !wait(until.map_or(next, |until| until.min(next)))
            || until.is_some_and(|until| Instant::now() >= until);
        let now = line.snapshot().map_err(Failure::Other)?;
        let interval = now.since(&before).ok_or_else(restarted)?;
        // What a Ctrl-C cut short is no interval to look at.
        if !interrupt::asked() {
            show(args, &interval, true)?;
        }
        if ended {
            let watched = now.since(&first).ok_or_else(restarted)?;
            return write_hgrm(args, &watched);
        }
        before = now;
        // One who was stopped for a while does not catch up.
        next = next.max(Instant::now() - args.interval);
    }
}

fn restarted() -> Failure {
    Failure::Other("the broker was restarted meanwhile".to_owned())
}

/// How soon Ctrl-C is seen.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// False: Ctrl-C came before.
fn wait(until: Instant) -> bool {
    loop {
        if interrupt::asked() {
            return false;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        thread::sleep(left.min(LOOK_EVERY));
    }
}

fn show(args: &Args, snapshot: &Snapshot, live: bool) -> Outcome {
    let mut out = output::stdout();
    if args.json {
        output::json_line(&mut out, &json::look(snapshot, live))?;
    } else {
        if live && io::stdout().is_terminal() {
            // Home, and clear to the end: what is shorter than before leaves nothing.
            out.write_all(b"\x1b[H\x1b[J")?;
        }
        screen::print(&mut out, &args.data, snapshot, live)?;
    }
    out.flush()?;
    Ok(())
}

fn write_hgrm(args: &Args, snapshot: &Snapshot) -> Outcome {
    let Some(folder) = &args.hgrm else {
        return Ok(());
    };
    for entry in snapshot.entries.iter().filter(|e| e.series.count() > 0) {
        let path = folder.join(hgrm::file_name(entry));
        fs::write(&path, hgrm::text(&entry.series))
            .map_err(|e| Failure::Other(format!("could not write {}: {e}", path.display())))?;
    }
    Ok(())
}
