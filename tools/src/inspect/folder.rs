//! Folders: a partition's, or DATA with a folder for each partition.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::segment::{self, Show, Status};
use super::{Report, index, producers, small, unreadable};
use crate::output::{Failure, Outcome};

#[derive(Serialize)]
struct PartitionLine {
    r#type: &'static str,
    folder: String,
    status: Status,
    segments: usize,
    bytes: u64,
    batches: u64,
    records: u64,
    base_offset: Option<i64>,
    next_offset: Option<i64>,
}

impl fmt::Display for PartitionLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}; {} segments, {} batches, {} records, ",
            self.folder, self.status, self.segments, self.batches, self.records
        )?;
        match (self.base_offset, self.next_offset) {
            (Some(base), Some(next)) if next > base => {
                write!(f, "offsets {base} to {}, ", next - 1)?;
            }
            _ => write!(f, "offsets none, ")?,
        }
        write!(f, "{} bytes", self.bytes)
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |e: std::io::Error| unreadable(folder, &e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.sort();
    Ok(paths)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|e| e == extension)
}

pub fn inspect(folder: &Path, report: &mut Report) -> Outcome {
    let paths = entries(folder)?;
    if paths.iter().any(|p| has_extension(p, "log") && p.is_file()) {
        return partition(folder, &paths, report);
    }
    let partitions = partitions_below(&paths, report)?;
    if partitions == 0 {
        return Err(Failure::Other(format!(
            "{} holds neither segments nor folders with segments",
            folder.display()
        )));
    }
    Ok(())
}

/// A line for each folder with segments: DATA has the partitions' folders in it, and
/// the coordinator's folder its changelog's one below. How many there were.
fn partitions_below(paths: &[PathBuf], report: &mut Report) -> Result<usize, Failure> {
    let mut partitions = 0;
    for path in paths {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        if path.is_file() && name.as_deref().is_some_and(small::knows) {
            small::inspect(path, &name.unwrap_or_default(), report)?;
        } else if path.is_dir() && !path.is_symlink() {
            let inside = entries(path)?;
            if inside
                .iter()
                .any(|p| has_extension(p, "log") && p.is_file())
            {
                partition_line(path, &inside, report)?;
                partitions += 1;
            } else {
                let folders: Vec<PathBuf> = inside.into_iter().filter(|p| p.is_dir()).collect();
                partitions += partitions_below(&folders, report)?;
            }
        }
    }
    Ok(partitions)
}

/// Each file of a partition, without its details.
fn partition(folder: &Path, paths: &[PathBuf], report: &mut Report) -> Outcome {
    for path in paths.iter().filter(|p| p.is_file()) {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        match path.extension().and_then(|e| e.to_str()) {
            Some("index") => index::inspect(path, index::Kind::Offset, false, report)?,
            Some("timeindex") => index::inspect(path, index::Kind::Time, false, report)?,
            Some("txnindex") => index::inspect(path, index::Kind::Transaction, false, report)?,
            Some("snapshot") => producers::inspect(path, false, report)?,
            _ if small::knows(&name) => small::inspect(path, &name, report)?,
            _ => {}
        }
    }
    segments(folder, paths, true, report)
}

fn partition_line(folder: &Path, paths: &[PathBuf], report: &mut Report) -> Outcome {
    segments(folder, paths, false, report)
}

/// The segments in order; together they are the partition. Where one is damaged it is
/// said on its own even where only the sum is wanted.
fn segments(folder: &Path, paths: &[PathBuf], each: bool, report: &mut Report) -> Outcome {
    let mut line = PartitionLine {
        r#type: "partition",
        folder: folder.display().to_string(),
        status: Status::Ok,
        segments: 0,
        bytes: 0,
        batches: 0,
        records: 0,
        base_offset: None,
        next_offset: None,
    };
    for path in paths.iter().filter(|p| has_extension(p, "log")) {
        let mut summary = if each {
            segment::inspect(path, Show::default(), report)?
        } else {
            let summary = segment::walk(path, |_, _, _| Ok(()))?;
            if summary.status.is_damage() {
                report.damaged = true;
                report.say(&summary)?;
            }
            summary
        };
        // Only the newest one may have a torn tail, or room.
        if let (Some(next), Some(base)) = (line.next_offset, summary.base_offset)
            && base < next
        {
            report.damaged = true;
            summary.status = Status::Corrupt;
            report.heading(&format!(
                "{}: its base offset {base} is below {next}, where the segment before it ends",
                path.display()
            ))?;
        }
        line.segments += 1;
        line.bytes += summary.bytes;
        line.batches += summary.batches;
        line.records += summary.records;
        line.base_offset = line.base_offset.or(summary.base_offset);
        line.next_offset = summary.next_offset.or(line.next_offset);
        if summary.status.is_damage() && line.status != Status::Corrupt {
            line.status = summary.status;
        }
    }
    report.say(&line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_engine::batch::BatchBuilder;
    use klamm_engine::codec::Codec;
    use klamm_engine::units::{Offset, TimestampMs};

    fn write_segment(folder: &Path, base: i64) {
        std::fs::create_dir_all(folder).unwrap();
        let batch = BatchBuilder::new(Codec::None)
            .base_offset(Offset(base))
            .record(TimestampMs(1), None, Some(b"v"))
            .finish();
        std::fs::write(folder.join(format!("{base:020}.log")), batch).unwrap();
    }

    fn damaged(folder: &Path) -> Result<bool, Failure> {
        let mut report = Report {
            out: Box::new(std::io::sink()),
            json: true,
            damaged: false,
        };
        inspect(folder, &mut report)?;
        Ok(report.damaged)
    }

    #[test]
    fn a_data_folder_is_its_partitions() {
        let data = tempfile::tempdir().unwrap();
        assert!(damaged(data.path()).is_err(), "nothing is in it");
        write_segment(&data.path().join("orders-0"), 0);
        write_segment(&data.path().join("orders-0"), 1);
        write_segment(&data.path().join("orders-1"), 0);
        write_segment(&data.path().join("coordinator/changelog"), 0);
        assert!(!damaged(data.path()).unwrap());
        assert!(!damaged(&data.path().join("orders-0")).unwrap());

        let bad = data.path().join("orders-1/00000000000000000000.log");
        let mut bytes = std::fs::read(&bad).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        std::fs::write(&bad, bytes).unwrap();
        assert!(damaged(data.path()).unwrap());
        std::fs::remove_file(&bad).unwrap();
        assert!(!damaged(data.path()).unwrap());
        let below = "coordinator/changelog/00000000000000000000.log";
        std::fs::write(data.path().join(below), "no batch").unwrap();
        assert!(damaged(data.path()).unwrap(), "the changelog counts");
        assert!(!damaged(&data.path().join("orders-0")).unwrap());
    }
}
