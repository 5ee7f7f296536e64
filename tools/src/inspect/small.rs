//! The small files beside segments: checkpoints, the committed mark, metadata.

use std::fmt;
use std::path::Path;

use klamm_engine::checkpoint::{self, Checkpoint};
use klamm_engine::epochs::LeaderEpochs;
use klamm_engine::mark::{self, Mark, UNBOUNDED};
use klamm_engine::recovery::{EPOCHS_FILE_NAME, LOG_START_FILE_NAME};
use klamm_engine::sealed_text;
use serde::Serialize;

use super::segment::Status;
use super::{Report, read};
use crate::output::{Outcome, printable};

/// What [`inspect`] reads.
pub const NAMES: [&str; 6] = [
    EPOCHS_FILE_NAME,
    mark::FILE_NAME,
    checkpoint::FILE_NAME,
    LOG_START_FILE_NAME,
    "partition.metadata",
    "meta.properties",
];

pub fn knows(name: &str) -> bool {
    NAMES.contains(&name)
}

#[derive(Serialize)]
struct EpochLine {
    r#type: &'static str,
    epoch: i32,
    start_offset: i64,
}

impl fmt::Display for EpochLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "  epoch {} from offset {}",
            self.epoch, self.start_offset
        )
    }
}

#[derive(Serialize)]
struct Summary {
    r#type: &'static str,
    file: String,
    status: Status,
    /// The file in words.
    says: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.file, self.status, self.says)
    }
}

pub fn inspect(path: &Path, name: &str, report: &mut Report) -> Outcome {
    let bytes = read(path)?;
    let mut lines = Vec::new();
    let (r#type, says) = match name {
        EPOCHS_FILE_NAME => {
            let epochs = LeaderEpochs::decode(&bytes).map_err(|e| e.to_string());
            let says = epochs.map(|epochs| {
                lines.extend(epochs.entries().iter().map(|e| EpochLine {
                    r#type: "leader_epoch",
                    epoch: e.epoch.0,
                    start_offset: e.start.0,
                }));
                format!("{} leader epochs", lines.len())
            });
            ("leader_epochs", says)
        }
        mark::FILE_NAME => ("mark", committed(&bytes)),
        checkpoint::FILE_NAME => ("checkpoint", checkpointed(&bytes)),
        LOG_START_FILE_NAME => ("text", log_start(&bytes)),
        _ => ("text", text(&bytes)),
    };
    for line in &lines {
        report.say(line)?;
    }
    let summary = Summary {
        r#type,
        file: path.display().to_string(),
        status: if says.is_ok() {
            Status::Ok
        } else {
            Status::Corrupt
        },
        says: says.unwrap_or_else(|why| why),
    };
    report.damaged |= summary.status.is_damage();
    report.say(&summary)
}

fn committed(bytes: &[u8]) -> Result<String, String> {
    match Mark::decode(bytes) {
        Some(mark) => Ok(format!(
            "committed up to byte {} of segment {}, offset {}; {}",
            mark.pos,
            mark.segment,
            mark.offset,
            if mark.window == UNBOUNDED {
                "what is behind it has no bound".into()
            } else {
                format!("at most {} bytes behind it may be torn", mark.window)
            }
        )),
        None => Err("no valid mark: recovery does without and scans the segment".into()),
    }
}

fn checkpointed(bytes: &[u8]) -> Result<String, String> {
    match Checkpoint::decode(bytes) {
        Some(Checkpoint { end, indexes, .. }) => Ok(format!(
            "segment {} up to byte {}, offset {}: {} index entries and the producers' state",
            end.segment,
            end.pos,
            end.offset,
            indexes.offsets.len(),
        )),
        None => Err("no valid checkpoint: recovery scans the newest segment from its front".into()),
    }
}

fn log_start(bytes: &[u8]) -> Result<String, String> {
    let (lines, _) = sealed_text::open(bytes)?;
    let offset = lines.lines().find_map(|line| line.strip_prefix("offset: "));
    match offset.and_then(|offset| offset.parse::<i64>().ok()) {
        Some(offset) if offset >= 0 => Ok(format!("the log starts at offset {offset}")),
        _ => Err("expected a line 'offset: ' with a number".into()),
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(bytes).map_err(|e| format!("no text: {e}"))?;
    let lines: Vec<String> = text
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty())
        .map(printable)
        .collect();
    Ok(lines.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_engine::recovery::encode_log_start;
    use klamm_engine::units::Offset;

    #[test]
    fn small_files_in_words() {
        let sealed = encode_log_start(Offset(42));
        assert_eq!(log_start(&sealed).unwrap(), "the log starts at offset 42");
        assert!(log_start(b"version: 0\noffset: -1\n").is_err());
        assert!(log_start(&sealed[1..]).is_err());
        assert!(log_start(b"").is_err());
        assert_eq!(
            text(b"#written\nversion: 0\ntopic_id: x\n").unwrap(),
            "version: 0, topic_id: x"
        );
        assert!(text(&[0xff]).is_err());
        assert!(committed(&[0; 4096]).is_err());
        assert!(checkpointed(&[0; 4096]).is_err());
    }
}
