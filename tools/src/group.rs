//! `klamm group`: list, describe with lag, delete; `reset` is in group/reset.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;

use crate::ConnectArgs;
use crate::client::groups::{Committed, Group};
use crate::client::offsets::{Spec, TopicPartition};
use crate::client::{Client, ClientError};
use crate::output::{
    Failure, Outcome, Table, complain_client, conclude, or_dash, print_json, printable, stdout,
};

mod reset;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: GroupCommand,
    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Subcommand)]
enum GroupCommand {
    /// List the consumer groups.
    #[command(visible_alias = "ls")]
    List(List),
    /// Show committed offsets, lag and members of groups.
    Describe(Describe),
    /// Move the committed offsets of a group that has no members.
    Reset(reset::Reset),
    /// Delete groups, or with --topic only their offsets of that topic.
    #[command(visible_alias = "rm")]
    Delete(Delete),
}

#[derive(clap::Args)]
struct List {
    /// Only groups in this state, such as Stable or Empty.
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only the names, one a line.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(clap::Args)]
struct Describe {
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// Only this topic's offsets; may be repeated.
    #[arg(short, long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
}

#[derive(clap::Args)]
struct Delete {
    #[arg(required = true, value_name = "GROUP")]
    groups: Vec<String>,
    /// Delete only the offsets of this topic; may be repeated.
    #[arg(short, long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
}

pub fn run(args: Args) -> ExitCode {
    let json = args.connect.json;
    let outcome = args
        .connect
        .connect()
        .map_err(Failure::from)
        .and_then(|mut client| match args.command {
            GroupCommand::List(a) => list(&mut client, &a, json),
            GroupCommand::Describe(a) => describe(&mut client, &a, json),
            GroupCommand::Reset(a) => reset::reset(&mut client, &a, json),
            GroupCommand::Delete(a) => delete(&mut client, &a, json),
        });
    conclude(json, outcome)
}

#[derive(Serialize)]
struct Listed {
    group: String,
    state: Option<String>,
    protocol_type: String,
    /// `classic` or `consumer`; null where the broker does not tell.
    kind: Option<String>,
    coordinator: i32,
}

#[derive(Serialize)]
struct AllListed {
    groups: Vec<Listed>,
}

fn list(client: &mut Client, args: &List, json: bool) -> Outcome {
    let mut groups = Vec::new();
    for g in client.list_groups()? {
        // Before 2.6 the list has no states: ask each group.
        let state = match g.state {
            Some(state) => Some(state),
            None => Some(client.describe_group(&g.group)?.state),
        };
        let wanted = args
            .state
            .as_ref()
            .is_none_or(|w| state.as_ref().is_some_and(|s| s.eq_ignore_ascii_case(w)));
        if wanted {
            groups.push(Listed {
                group: g.group,
                state,
                protocol_type: g.protocol_type,
                kind: g.kind,
                coordinator: g.coordinator,
            });
        }
    }
    if json {
        return print_json(&AllListed { groups });
    }
    let mut out = stdout();
    if args.quiet {
        for g in &groups {
            writeln!(out, "{}", printable(&g.group))?;
        }
    } else {
        let mut table = Table::new(&["GROUP", "STATE", "KIND", "PROTOCOL", ">COORDINATOR"]);
        for g in groups {
            table.row([
                printable(&g.group),
                or_dash(g.state),
                or_dash(g.kind),
                or_dash(Some(g.protocol_type).filter(|p| !p.is_empty())),
                g.coordinator.to_string(),
            ]);
        }
        table.print(&mut out)?;
    }
    out.flush()?;
    Ok(())
}

#[derive(Serialize)]
struct DescribedPartition {
    topic: String,
    partition: i32,
    /// Null: nothing committed.
    committed_offset: Option<i64>,
    log_start_offset: Option<i64>,
    end_offset: Option<i64>,
    /// Null where nothing is committed, or the partition is gone.
    lag: Option<i64>,
    metadata: Option<String>,
    member_id: Option<String>,
    client_id: Option<String>,
    host: Option<String>,
}

#[derive(Serialize)]
struct DescribedMember {
    member_id: String,
    instance_id: Option<String>,
    client_id: String,
    host: String,
    partitions: usize,
}

#[derive(Serialize)]
struct Described {
    group: String,
    state: String,
    kind: &'static str,
    protocol_type: String,
    /// The assignor: `range`, `roundrobin`, ...; null while there are no members.
    assignor: Option<String>,
    coordinator: i32,
    /// Over all partitions with a commit; null where there is none.
    lag: Option<i64>,
    members: Vec<DescribedMember>,
    partitions: Vec<DescribedPartition>,
    #[serde(skip)]
    coordinator_label: String,
}

#[derive(Serialize)]
struct AllDescribed {
    groups: Vec<Described>,
}

fn describe(client: &mut Client, args: &Describe, json: bool) -> Outcome {
    let mut described = Vec::new();
    let mut failed = false;
    for group in &args.groups {
        match describe_one(client, group, &args.topics) {
            Ok(d) => described.push(d),
            Err(e) => {
                complain_client(json, &e);
                failed = true;
            }
        }
    }
    if json {
        print_json(&AllDescribed { groups: described })?;
    } else {
        print_described(&described)?;
    }
    if failed {
        Err(Failure::Reported)
    } else {
        Ok(())
    }
}

fn describe_one(
    client: &mut Client,
    name: &str,
    topics: &[String],
) -> Result<Described, ClientError> {
    let group = client.describe_group(name)?;
    let committed = client.committed(name, None)?;
    let mut owners = BTreeMap::new();
    for m in &group.members {
        for at in &m.assignment {
            owners.insert(at.clone(), m);
        }
    }
    let mut all: BTreeSet<TopicPartition> =
        committed.keys().chain(owners.keys()).cloned().collect();
    all.retain(|(t, _)| topics.is_empty() || topics.contains(t));
    let existing = existing(client, &all)?;
    let starts = client.edge_offsets(&existing, Spec::Earliest)?;
    let ends = client.edge_offsets(&existing, Spec::Latest)?;
    let partitions: Vec<_> = all
        .into_iter()
        .map(|at| {
            let owner = owners.get(&at);
            let commit = committed.get(&at);
            let end = ends.get(&at).copied();
            DescribedPartition {
                committed_offset: commit.map(|c| c.offset),
                log_start_offset: starts.get(&at).copied(),
                end_offset: end,
                lag: commit.zip(end).map(|(c, end)| lag(c, end)),
                metadata: commit.and_then(|c| c.metadata.clone()),
                member_id: owner.map(|m| m.member_id.clone()),
                client_id: owner.map(|m| m.client_id.clone()),
                host: owner.map(|m| m.host.clone()),
                topic: at.0,
                partition: at.1,
            }
        })
        .collect();
    Ok(to_described(group, partitions))
}

/// A group may stand behind a record that was never written (a reset by hand);
/// it has nothing left to read then.
fn lag(committed: &Committed, end: i64) -> i64 {
    (end - committed.offset).max(0)
}

/// Those of the partitions that exist now and have a leader: a group keeps its
/// offsets of deleted topics for a while.
fn existing(
    client: &mut Client,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<Vec<TopicPartition>, ClientError> {
    let mut names: Vec<String> = partitions.iter().map(|(t, _)| t.clone()).collect();
    names.dedup();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut led = BTreeSet::new();
    for (name, topic) in client.topics(Some(&names), false)? {
        if let Ok(topic) = topic {
            for p in topic.partitions.iter().filter(|p| p.leader.is_some()) {
                led.insert((name.clone(), p.index));
            }
        }
    }
    Ok(partitions.intersection(&led).cloned().collect())
}

fn to_described(group: Group, partitions: Vec<DescribedPartition>) -> Described {
    Described {
        coordinator_label: format!("{} ({})", group.coordinator, group.coordinator_address),
        group: group.group,
        state: group.state,
        kind: group.kind,
        protocol_type: group.protocol_type,
        assignor: Some(group.protocol).filter(|p| !p.is_empty()),
        coordinator: group.coordinator,
        lag: partitions
            .iter()
            .filter_map(|p| p.lag)
            .reduce(i64::saturating_add),
        members: group
            .members
            .into_iter()
            .map(|m| DescribedMember {
                partitions: m.assignment.len(),
                member_id: m.member_id,
                instance_id: m.instance_id,
                client_id: m.client_id,
                host: m.host,
            })
            .collect(),
        partitions,
    }
}

fn print_described(groups: &[Described]) -> Outcome {
    let mut out = stdout();
    for (at, g) in groups.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        writeln!(
            out,
            "{}  state={} kind={} assignor={} members={} lag={} coordinator={}",
            printable(&g.group),
            g.state,
            g.kind,
            or_dash(g.assignor.as_ref()),
            g.members.len(),
            or_dash(g.lag),
            g.coordinator_label,
        )?;
        let mut table = Table::new(&[
            "TOPIC",
            ">PARTITION",
            ">COMMITTED",
            ">START",
            ">END",
            ">LAG",
            "CLIENT",
            "HOST",
            "MEMBER",
        ]);
        for p in &g.partitions {
            table.row([
                printable(&p.topic),
                p.partition.to_string(),
                or_dash(p.committed_offset),
                or_dash(p.log_start_offset),
                or_dash(p.end_offset),
                or_dash(p.lag),
                printable(&or_dash(p.client_id.as_ref())),
                or_dash(p.host.as_ref()),
                printable(&or_dash(p.member_id.as_ref())),
            ]);
        }
        if !table.is_empty() {
            table.print(&mut out)?;
        }
        let mut idle = Table::new(&["IDLE MEMBER", "CLIENT", "HOST"]);
        for m in g.members.iter().filter(|m| m.partitions == 0) {
            idle.row([
                printable(&m.member_id),
                printable(&m.client_id),
                m.host.clone(),
            ]);
        }
        if !idle.is_empty() {
            idle.print(&mut out)?;
        }
    }
    out.flush()?;
    Ok(())
}

#[derive(Serialize)]
struct Deleted {
    group: String,
    /// `deleted` or `failed`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize)]
struct AllDeleted {
    groups: Vec<Deleted>,
}

fn delete(client: &mut Client, args: &Delete, json: bool) -> Outcome {
    let mut all = Vec::new();
    for group in &args.groups {
        let outcome = if args.topics.is_empty() {
            client.delete_group(group)
        } else {
            delete_offsets(client, group, &args.topics)
        };
        if let Err(e) = &outcome {
            complain_client(json, e);
        }
        let error = outcome.err();
        all.push(Deleted {
            group: group.clone(),
            status: if error.is_some() { "failed" } else { "deleted" },
            error: error.as_ref().map(ClientError::name),
            message: error.map(|e| e.to_string()),
        });
    }
    let failed = all.iter().any(|d| d.error.is_some());
    if json {
        print_json(&AllDeleted { groups: all })?;
    } else {
        let what = if args.topics.is_empty() {
            String::new()
        } else {
            format!(" offsets of {}", args.topics.join(", "))
        };
        let mut out = stdout();
        for d in all.iter().filter(|d| d.error.is_none()) {
            writeln!(out, "deleted {}{what}", printable(&d.group))?;
        }
        out.flush()?;
    }
    if failed {
        Err(Failure::Reported)
    } else {
        Ok(())
    }
}

fn delete_offsets(client: &mut Client, group: &str, topics: &[String]) -> Result<(), ClientError> {
    let of_topics: Vec<TopicPartition> = client
        .committed(group, None)?
        .into_keys()
        .filter(|(t, _)| topics.contains(t))
        .collect();
    if of_topics.is_empty() {
        return Err(ClientError::Missing(format!(
            "group {group} has no offsets of {}",
            topics.join(", ")
        )));
    }
    client.delete_offsets(group, &of_topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_never_negative() {
        let at = |offset| Committed {
            offset,
            metadata: None,
        };
        assert_eq!(lag(&at(3), 10), 7);
        assert_eq!(lag(&at(10), 10), 0);
        assert_eq!(lag(&at(12), 10), 0);
    }
}
