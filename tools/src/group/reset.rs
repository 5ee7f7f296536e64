//! `klamm group reset`: what a group reads next, moved.
//!
//! ```text
//!  committed ──> wanted (earliest | latest | offset | time | shift) ──> clamped to
//!  [log start, end] ──> shown ──> with --execute: committed from outside the group
//! ```
//!
//! Only a group without members can be moved: a member would go on from where it is
//! and commit over the reset.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde::Serialize;

use crate::client::groups::{Committed, Committer};
use crate::client::offsets::{Spec, TopicPartition};
use crate::client::{Client, ClientError};
use crate::datetime;
use crate::output::{Failure, Outcome, Table, or_dash, print_json, printable, stdout};

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("to").required(true)))]
#[command(group(clap::ArgGroup::new("scope").required(true).multiple(true)))]
pub struct Reset {
    #[arg(value_name = "GROUP")]
    group: String,
    /// A topic, or some partitions of it as TOPIC:0,1,2; may be repeated.
    #[arg(short, long = "topic", value_name = "TOPIC[:N,N]", group = "scope",
          value_parser = parse_scope)]
    topics: Vec<Scope>,
    /// Every topic that the group has committed offsets of.
    #[arg(long, group = "scope", conflicts_with = "topics")]
    all_topics: bool,

    /// To the oldest record that is still there.
    #[arg(long, group = "to")]
    to_earliest: bool,
    /// To the end: only records that come from now on.
    #[arg(long, group = "to")]
    to_latest: bool,
    /// To this offset.
    #[arg(long, group = "to", value_name = "OFFSET",
          value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first record of this time or later: 2026-11-22T10:44:00Z, or ms since 1970.
    #[arg(long, group = "to", value_name = "TIME", visible_alias = "to-timestamp",
          value_parser = datetime::parse)]
    to_datetime: Option<i64>,
    /// By so many records from what is committed: 10 forward, -10 back.
    #[arg(long, group = "to", value_name = "N", allow_negative_numbers = true)]
    shift_by: Option<i64>,
    /// To what is committed now (to commit it again, or to look at it).
    #[arg(long, group = "to")]
    to_current: bool,

    /// Commit the new offsets; without it they are only shown.
    #[arg(long, conflicts_with = "dry_run")]
    execute: bool,
    /// Only show the new offsets (the default).
    #[arg(long)]
    dry_run: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Scope {
    topic: String,
    /// None: all partitions.
    partitions: Option<Vec<i32>>,
}

fn parse_scope(given: &str) -> Result<Scope, String> {
    let wrong = || format!("`{given}` is not TOPIC or TOPIC:0,1,2");
    let Some((topic, list)) = given.split_once(':') else {
        return Ok(Scope {
            topic: given.to_string(),
            partitions: None,
        });
    };
    let partitions: Result<Vec<i32>, String> = list
        .split(',')
        .map(|p| p.parse().ok().filter(|p| *p >= 0).ok_or_else(wrong))
        .collect();
    Ok(Scope {
        topic: topic.to_string(),
        partitions: Some(partitions?),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Earliest,
    Latest,
    Current,
    Offset(i64),
    Shift(i64),
    Time(i64),
}

impl Reset {
    fn target(&self) -> Target {
        if self.to_earliest {
            Target::Earliest
        } else if self.to_latest {
            Target::Latest
        } else if let Some(offset) = self.to_offset {
            Target::Offset(offset)
        } else if let Some(ms) = self.to_datetime {
            Target::Time(ms)
        } else if let Some(n) = self.shift_by {
            Target::Shift(n)
        } else {
            assert!(self.to_current, "clap asks for one of the group `to`");
            Target::Current
        }
    }
}

#[derive(Serialize)]
struct Moved {
    topic: String,
    partition: i32,
    committed_offset: Option<i64>,
    new_offset: i64,
    log_start_offset: i64,
    end_offset: i64,
}

#[derive(Serialize)]
struct Report<'a> {
    group: &'a str,
    executed: bool,
    partitions: Vec<Moved>,
}

pub fn reset(client: &mut Client, args: &Reset, json: bool) -> Outcome {
    // A group that does not exist yet may be given offsets to begin from.
    match client.describe_group(&args.group) {
        Ok(g) if !g.members.is_empty() => {
            return Err(Failure::Other(format!(
                "group {} has {} active members (state {}); they would go on from where they \
                 are and commit over a reset. Stop them first",
                args.group,
                g.members.len(),
                g.state
            )));
        }
        Ok(_) => {}
        Err(e) if e.is(kafka_protocol::ResponseError::GroupIdNotFound) => {}
        Err(e) => return Err(e.into()),
    }
    let committed = client.committed(&args.group, None)?;
    let partitions = in_scope(client, args, &committed)?;
    let starts = client.edge_offsets(&partitions, Spec::Earliest)?;
    let ends = client.edge_offsets(&partitions, Spec::Latest)?;
    let by_time = match args.target() {
        Target::Time(ms) => {
            let wanted: Vec<_> = partitions
                .iter()
                .map(|p| (p.clone(), Spec::At(ms)))
                .collect();
            client.list_offsets(&wanted)?
        }
        _ => BTreeMap::new(),
    };

    let mut moved = Vec::new();
    let mut new_offsets = BTreeMap::new();
    for at in partitions {
        let (start, end) = (starts[&at], ends[&at]);
        let current = committed.get(&at).map(|c| c.offset);
        // After the last record there is only the end.
        let at_time = by_time.get(&at).copied().flatten();
        let Some(new) = new_offset(args.target(), current, at_time, start, end) else {
            return Err(Failure::Other(format!(
                "group {} has committed nothing for {}-{}, so there is nothing to count from; \
                 name the partitions that it has (`klamm group describe {}`), or use another \
                 target",
                args.group, at.0, at.1, args.group
            )));
        };
        new_offsets.insert(at.clone(), new);
        moved.push(Moved {
            topic: at.0,
            partition: at.1,
            committed_offset: current,
            new_offset: new,
            log_start_offset: start,
            end_offset: end,
        });
    }
    if args.execute {
        client.commit(&args.group, &Committer::outside(), &new_offsets)?;
    }
    if json {
        return print_json(&Report {
            group: &args.group,
            executed: args.execute,
            partitions: moved,
        });
    }
    let mut out = stdout();
    let mut table = Table::new(&[
        "TOPIC",
        ">PARTITION",
        ">COMMITTED",
        ">NEW",
        ">START",
        ">END",
    ]);
    for m in moved {
        table.row([
            printable(&m.topic),
            m.partition.to_string(),
            or_dash(m.committed_offset),
            m.new_offset.to_string(),
            m.log_start_offset.to_string(),
            m.end_offset.to_string(),
        ]);
    }
    table.print(&mut out)?;
    if args.execute {
        writeln!(out, "committed for {}", printable(&args.group))?;
    } else {
        writeln!(out, "nothing was changed; --execute commits this")?;
    }
    out.flush()?;
    Ok(())
}

/// The partitions that the flags name, all of which exist.
fn in_scope(
    client: &mut Client,
    args: &Reset,
    committed: &BTreeMap<TopicPartition, Committed>,
) -> Result<Vec<TopicPartition>, Failure> {
    let scopes: Vec<Scope> = if args.all_topics {
        let topics: BTreeSet<&String> = committed.keys().map(|(t, _)| t).collect();
        if topics.is_empty() {
            return Err(Failure::Other(format!(
                "group {} has committed nothing, so --all-topics names none; use --topic",
                args.group
            )));
        }
        topics
            .into_iter()
            .map(|t| Scope {
                topic: t.clone(),
                partitions: None,
            })
            .collect()
    } else {
        args.topics.clone()
    };
    let mut partitions = BTreeSet::new();
    for scope in scopes {
        let topic = client.topic(&scope.topic, false)?;
        let exist: BTreeSet<i32> = topic.partitions.iter().map(|p| p.index).collect();
        for index in scope
            .partitions
            .unwrap_or_else(|| exist.iter().copied().collect())
        {
            if !exist.contains(&index) {
                return Err(ClientError::Missing(format!(
                    "topic {} has no partition {index}",
                    scope.topic
                ))
                .into());
            }
            partitions.insert((scope.topic.clone(), index));
        }
    }
    Ok(partitions.into_iter().collect())
}

/// None where a target counts from a commit that is not there.
fn new_offset(
    target: Target,
    committed: Option<i64>,
    at_time: Option<i64>,
    start: i64,
    end: i64,
) -> Option<i64> {
    let wanted = match target {
        Target::Earliest => start,
        Target::Latest => end,
        Target::Current => committed?,
        Target::Offset(offset) => offset,
        Target::Shift(n) => committed?.saturating_add(n),
        Target::Time(_) => at_time.unwrap_or(end),
    };
    // Not `clamp`: it panics where start > end, and both come from brokers.
    Some(wanted.min(end).max(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_stay_within_what_is_there() {
        let at = |target| new_offset(target, Some(40), Some(33), 10, 50);
        assert_eq!(at(Target::Earliest), Some(10));
        assert_eq!(at(Target::Latest), Some(50));
        assert_eq!(at(Target::Current), Some(40));
        assert_eq!(at(Target::Offset(0)), Some(10));
        assert_eq!(at(Target::Offset(99)), Some(50));
        assert_eq!(at(Target::Shift(5)), Some(45));
        assert_eq!(at(Target::Shift(-50)), Some(10));
        assert_eq!(at(Target::Shift(i64::MAX)), Some(50));
        assert_eq!(at(Target::Time(1)), Some(33));
        assert_eq!(
            new_offset(Target::Time(1), None, None, 10, 50),
            Some(50),
            "a time behind the last record means the end"
        );
        assert_eq!(new_offset(Target::Shift(1), None, None, 10, 50), None);
        assert_eq!(new_offset(Target::Earliest, None, None, 10, 5), Some(10));
    }

    #[test]
    fn a_scope_may_name_partitions() {
        assert_eq!(
            parse_scope("orders:0,12").unwrap(),
            Scope {
                topic: "orders".into(),
                partitions: Some(vec![0, 12])
            }
        );
        assert_eq!(parse_scope("orders").unwrap().partitions, None);
        assert!(parse_scope("orders:").is_err());
        assert!(parse_scope("orders:-1").is_err());
        assert!(parse_scope("orders:x").is_err());
    }
}
