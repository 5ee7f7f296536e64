//! The coordinator's changelog: an engine log whose records are commands, in the order
//! of their zxids.

use std::fmt;
use std::path::Path;

use klamm_coord::core::command::{Change, Command};
use klamm_coord::core::groups::Record;
use klamm_coord::core::tree::Op;
use serde::Serialize;

use crate::datetime;
use crate::output::printable;

/// A segment in a folder that is no `TOPIC-N`, as every partition's is.
pub fn is_changelog(segment: &Path) -> bool {
    let folder = std::path::absolute(segment)
        .ok()
        .and_then(|p| Some(p.parent()?.file_name()?.to_string_lossy().into_owned()));
    folder.is_some_and(|name| {
        !name
            .rsplit_once('-')
            .is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    })
}

#[derive(Serialize)]
pub struct CommandLine {
    r#type: &'static str,
    offset: i64,
    zxid: i64,
    time: Option<i64>,
    /// `tree`, `group` or `refused`; null where it cannot be read.
    kind: Option<&'static str>,
    /// What it does, each change in words.
    changes: Vec<String>,
    error: Option<String>,
}

impl CommandLine {
    pub fn wrong(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "    zxid {}", self.zxid)?;
        if let Some(time) = self.time {
            write!(f, " {}", datetime::format(time))?;
        }
        if let Some(error) = &self.error {
            return write!(f, " NO COMMAND: {error}");
        }
        write!(f, " {}", self.kind.unwrap_or("-"))?;
        match self.changes.as_slice() {
            [] => Ok(()),
            [one] => write!(f, " {one}"),
            many => many.iter().try_for_each(|c| write!(f, "\n      {c}")),
        }
    }
}

/// A record's value as a command. The first record has zxid 1.
pub fn line(offset: i64, value: &[u8]) -> CommandLine {
    let mut line = CommandLine {
        r#type: "command",
        offset,
        zxid: offset.saturating_add(1),
        time: None,
        kind: None,
        changes: Vec::new(),
        error: None,
    };
    match Command::decode(value) {
        Err(e) => line.error = Some(e.to_string()),
        Ok(command) => {
            line.time = Some(command.time.0);
            match command.change {
                Change::Tree(ops) => {
                    line.kind = Some("tree");
                    line.changes = ops.iter().map(op).collect();
                }
                Change::Group(record) => {
                    line.kind = Some("group");
                    line.changes = vec![group(&record)];
                }
                Change::Refused => line.kind = Some("refused"),
                Change::SessionOpened(session) => {
                    line.kind = Some("session");
                    // Not its password: with it anyone could take the session up.
                    line.changes = vec![format!(
                        "opened 0x{:x} timeout {} ms{}",
                        session.id.0,
                        session.timeout_ms,
                        if session.internal {
                            ", the broker's own"
                        } else {
                            ""
                        }
                    )];
                }
                Change::SessionClosed(id) => {
                    line.kind = Some("session");
                    line.changes = vec![format!("closed 0x{:x}", id.0)];
                }
            }
        }
    }
    line
}

fn data(data: Option<&[u8]>) -> String {
    match data {
        None => "null".into(),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if text.len() <= 200 => format!("`{}`", printable(text)),
            _ => format!("{} bytes", bytes.len()),
        },
    }
}

fn op(op: &Op) -> String {
    let path = printable(op.path());
    match op {
        Op::Create {
            data: d,
            lifetime,
            sequential,
            ..
        } => format!(
            "create {path} {lifetime:?}{} = {}",
            if *sequential { " sequential" } else { "" },
            data(d.as_deref())
        ),
        Op::Delete { version, .. } => format!("delete {path} version {version}"),
        Op::Set {
            data: d, version, ..
        } => format!("set {path} version {version} = {}", data(d.as_deref())),
        Op::SetAcl { acl, version, .. } => {
            format!("set ACL {path} version {version}, {} entries", acl.len())
        }
        Op::Check { version, .. } => format!("check {path} version {version}"),
    }
}

fn group(record: &Record) -> String {
    match record {
        Record::OffsetsCommitted { group, topics } => {
            let mut said = format!("{}: offsets committed", printable(group));
            for topic in topics {
                for (partition, committed) in &topic.partitions {
                    said += &format!(
                        " {}-{partition}={}",
                        printable(&topic.topic),
                        committed.offset
                    );
                }
            }
            said
        }
        Record::OffsetsRemoved { group, topics } => {
            let mut said = format!("{}: offsets removed", printable(group));
            for (topic, partitions) in topics {
                for partition in partitions {
                    said += &format!(" {}-{partition}", printable(topic));
                }
            }
            said
        }
        Record::GroupState { group, state } => format!(
            "{}: generation {}, {} members, protocol {}",
            printable(group),
            state.generation,
            state.members.len(),
            state.protocol.as_deref().unwrap_or("-"),
        ),
        Record::GroupRemoved { group } => format!("{}: removed", printable(group)),
        Record::TopicForgotten { topic } => {
            format!(
                "offsets of topic {} forgotten in every group",
                printable(topic)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_engine::units::TimestampMs;

    #[test]
    fn commands_are_said_in_words() {
        let mut bytes = Vec::new();
        Command {
            time: TimestampMs(1_795_344_240_000),
            change: Change::Tree(vec![
                Op::create("/brokers/topics/orders", "{}"),
                Op::set("/controller_epoch", "2"),
            ]),
        }
        .encode(&mut bytes);
        let line = line(41, &bytes);
        assert!(line.wrong().is_none());
        let said = line.to_string();
        assert!(
            said.contains("zxid 42 2026-11-22T10:44:00.000Z tree"),
            "{said}"
        );
        assert!(
            said.contains("create /brokers/topics/orders Persistent = `{}`"),
            "{said}"
        );
        assert!(said.contains("set /controller_epoch"), "{said}");
    }

    #[test]
    fn what_is_no_command_is_an_error() {
        for bytes in [b"".as_slice(), b"hello", &[1, 0, 0, 0, 0, 0, 0, 0, 0, 9]] {
            assert!(line(0, bytes).wrong().is_some());
        }
    }

    #[test]
    fn partitions_are_told_from_the_changelog_by_their_folder() {
        for (path, is) in [
            ("/d/orders-0/00000000000000000000.log", false),
            ("/d/a-b-12/00000000000000000000.log", false),
            ("/d/.coordinator/00000000000000000000.log", true),
            ("/d/x-y/00000000000000000000.log", true),
        ] {
            assert_eq!(is_changelog(Path::new(path)), is, "{path}");
        }
    }
}
