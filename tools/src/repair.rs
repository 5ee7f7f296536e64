//! `klamm repair`: an operator's decision about a damaged partition.
//!
//! ```text
//!   orders-0/   |== whole ==|X bad X|== whole, but behind it ==|   later segments
//!   say                     ^ where, why, what stands behind it: nothing is changed
//!   --give-up   |== whole ==|  cut here; all behind it is kept as *.removed
//! ```
//!
//! The broker never gives up committed records by itself: it takes the partition
//! offline. Without replicas somebody has to decide, and this is how: the log ends in
//! front of the damage, and what is taken away stays beside it under another name.

use crate::inspect::segment::{self, Summary};
use crate::output::{self, Failure, Outcome};
use klamm_engine::checkpoint;
use klamm_engine::mark;
use klamm_engine::segment::parse_file_name;
use serde::Serialize;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Say what is damaged in a partition's folder, and give it up if told to.
#[derive(clap::Args)]
pub struct Args {
    /// The partition's folder, such as klamm-data/orders-0. Its broker must be stopped.
    folder: PathBuf,

    /// End the log in front of the first damage. What stood there and behind it is kept
    /// in files named *.removed; to consumers it is gone.
    #[arg(long)]
    give_up: bool,

    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Verdict {
    folder: String,
    damaged: bool,
    file: Option<String>,
    bad_byte: Option<u64>,
    why: Option<String>,
    /// Where the log ends once the damage is given up.
    next_offset: Option<i64>,
    /// Whole records behind the damage, which would go too.
    records_behind: u64,
    given_up: bool,
    removed: Vec<String>,
}

pub fn run(args: Args) -> ExitCode {
    output::conclude(args.json, repair(&args))
}

fn repair(args: &Args) -> Outcome {
    let _lock = lock_data(&args.folder)?;
    let segments = segments(&args.folder)?;
    if segments.is_empty() {
        return Err(Failure::Other(format!(
            "{} holds no segment: name a partition's folder, such as klamm-data/orders-0",
            args.folder.display()
        )));
    }
    let mut verdict = Verdict {
        folder: args.folder.display().to_string(),
        damaged: false,
        file: None,
        bad_byte: None,
        why: None,
        next_offset: None,
        records_behind: 0,
        given_up: false,
        removed: Vec::new(),
    };
    let mut bad = None;
    for (at, path) in segments.iter().enumerate() {
        let mut whole = 0;
        let summary = segment::walk(path, |_, batch, crc_ok| {
            if crc_ok {
                whole += batch.record_count() as u64;
            }
            Ok(())
        })?;
        match bad {
            None => {
                verdict.next_offset = summary.next_offset;
                if let Some(byte) = summary.bad_byte {
                    note(&mut verdict, &summary, path, byte, whole)?;
                    bad = Some((at, byte));
                }
            }
            Some(_) => verdict.records_behind += whole,
        }
    }
    if let (Some((at, byte)), true) = (bad, args.give_up) {
        verdict.removed = give_up(&args.folder, &segments[at..], byte)?;
        verdict.given_up = true;
    }
    if args.json {
        output::print_json(&verdict)?;
    } else {
        say(&verdict);
    }
    if verdict.damaged && !verdict.given_up {
        Err(Failure::Reported)
    } else {
        Ok(())
    }
}

fn note(verdict: &mut Verdict, summary: &Summary, path: &Path, byte: u64, whole: u64) -> Outcome {
    let (mut before, mut next) = (0, summary.base_offset);
    segment::walk(path, |position, batch, _| {
        if position < byte {
            before += batch.record_count() as u64;
            next = Some(batch.next_offset().0);
        }
        Ok(())
    })?;
    verdict.damaged = true;
    verdict.file = Some(path.display().to_string());
    verdict.bad_byte = Some(byte);
    verdict.why.clone_from(&summary.why);
    verdict.next_offset = next;
    verdict.records_behind = whole - before;
    Ok(())
}

fn say(verdict: &Verdict) {
    let (Some(file), Some(byte)) = (&verdict.file, verdict.bad_byte) else {
        println!("{}: no damage", verdict.folder);
        return;
    };
    let next = verdict.next_offset.unwrap_or_default();
    println!(
        "{file}: damaged at byte {byte}: {}",
        verdict.why.as_deref().unwrap_or("not a batch")
    );
    println!(
        "  the log is whole up to offset {next}; {} whole records stand behind the damage",
        verdict.records_behind
    );
    if verdict.given_up {
        println!("  given up: the log ends at offset {next}; taken away and kept:");
        for name in &verdict.removed {
            println!("    {name}");
        }
    } else {
        println!("  nothing was changed; --give-up ends the log at offset {next}");
    }
}

/// The folder's data folder, locked as a broker locks it: none may run meanwhile.
fn lock_data(folder: &Path) -> Result<Option<File>, Failure> {
    let data = match folder.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Ok(None),
    };
    let path = data.join(".lock");
    let lock = match File::options().write(true).open(&path) {
        Ok(lock) => lock,
        // A folder by itself, as one that was copied elsewhere.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("open", &path, &e)),
    };
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(fs::TryLockError::WouldBlock) => Err(Failure::Other(format!(
            "a broker is running on {}: stop it first",
            data.display()
        ))),
        Err(fs::TryLockError::Error(e)) => Err(failed("lock", &path, &e)),
    }
}

fn failed(doing: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::Other(format!("could not {doing} {}: {error}", path.display()))
}

/// In the order of their offsets.
fn segments(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(folder).map_err(|e| failed("list", folder, &e))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| failed("list", folder, &e))?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        if name.is_some_and(|n| parse_file_name(&n, "log").is_some()) {
            found.push(path);
        }
    }
    // Twenty digits: the order of names is that of offsets.
    found.sort();
    Ok(found)
}

/// Ends the log at `byte` of the first segment given. Everything is copied or renamed
/// before anything is cut.
fn give_up(folder: &Path, segments: &[PathBuf], byte: u64) -> Result<Vec<String>, Failure> {
    let mut removed = Vec::new();
    let first = &segments[0];
    let aside = beside(first);
    fs::copy(first, &aside).map_err(|e| failed("copy", first, &e))?;
    sync(&aside)?;
    removed.push(aside.display().to_string());
    for later in &segments[1..] {
        let aside = beside(later);
        fs::rename(later, &aside).map_err(|e| failed("rename", later, &e))?;
        removed.push(aside.display().to_string());
    }
    // They speak of bytes that are no longer there, and are made anew.
    for segment in segments {
        for extension in ["index", "timeindex"] {
            remove(&segment.with_extension(extension))?;
        }
    }
    for later in &segments[1..] {
        remove(&later.with_extension("snapshot"))?;
    }
    let cut = File::options()
        .write(true)
        .open(first)
        .map_err(|e| failed("open", first, &e))?;
    cut.set_len(byte).map_err(|e| failed("cut", first, &e))?;
    cut.sync_all().map_err(|e| failed("sync", first, &e))?;
    remove(&folder.join(checkpoint::FILE_NAME))?;
    // Last: without it the log counts as another broker's, whole as it is now.
    remove(&folder.join(mark::FILE_NAME))?;
    sync(folder)?;
    Ok(removed)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".removed");
    PathBuf::from(name)
}

fn sync(path: &Path) -> Outcome {
    let opened = File::open(path).and_then(|file| file.sync_all());
    opened.map_err(|e| failed("sync", path, &e))
}

fn remove(path: &Path) -> Outcome {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", path, &e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_engine::batch::BatchBuilder;
    use klamm_engine::codec::Codec;
    use klamm_engine::units::{Offset, TimestampMs};

    fn batch(base: i64) -> Vec<u8> {
        BatchBuilder::new(Codec::None)
            .base_offset(Offset(base))
            .record(TimestampMs(1), None, Some(b"value"))
            .finish()
    }

    fn args(folder: &Path, give_up: bool) -> Args {
        Args {
            folder: folder.to_owned(),
            give_up,
            json: true,
        }
    }

    #[test]
    fn damage_is_said_first_and_given_up_only_when_told_to() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("orders-0");
        fs::create_dir(&folder).unwrap();
        let first = folder.join("00000000000000000000.log");
        let second = folder.join("00000000000000000003.log");
        let (a, mut b, c) = (batch(0), batch(1), batch(2));
        let end = b.len() - 1;
        b[end] ^= 1;
        let bytes = [a.clone(), b, c].concat();
        fs::write(&first, &bytes).unwrap();
        fs::write(&second, batch(3)).unwrap();
        fs::write(folder.join("committed"), [0; 4096]).unwrap();

        assert!(matches!(
            repair(&args(&folder, false)),
            Err(Failure::Reported)
        ));
        assert_eq!(fs::read(&first).unwrap(), bytes, "nothing was changed");

        repair(&args(&folder, true)).unwrap();
        assert_eq!(fs::read(&first).unwrap(), a);
        assert!(!second.exists() && !folder.join("committed").exists());
        assert_eq!(fs::read(beside(&first)).unwrap(), bytes);
        assert_eq!(fs::read(beside(&second)).unwrap(), batch(3));
        repair(&args(&folder, false)).unwrap();
    }

    #[test]
    fn a_running_broker_is_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().join("orders-0");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("00000000000000000000.log"), batch(0)).unwrap();
        let lock = File::create(data.path().join(".lock")).unwrap();
        lock.lock().unwrap();
        let refused = repair(&args(&folder, true));
        assert!(matches!(refused, Err(Failure::Other(m)) if m.contains("stop it first")));
    }
}
