//! `klamm topic`: create, list, describe, delete, alter.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use kafka_protocol::ResponseError;
use serde::Serialize;

use crate::ConnectArgs;
use crate::client::admin::{Alteration, ConfigEntry, NewTopic, Outcomes};
use crate::client::offsets::TopicPartition;
use crate::client::{Client, ClientError, Topic};
use crate::output::{
    Failure, Outcome, Table, complain_client, conclude, joined, or_dash, print_json, printable,
    stdout,
};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: TopicCommand,
    #[command(flatten)]
    pub connect: ConnectArgs,
}

#[derive(Subcommand)]
enum TopicCommand {
    /// Create topics.
    Create(Create),
    /// List the topics.
    #[command(visible_alias = "ls")]
    List(List),
    /// Show partitions, offsets and settings of topics (all of them, if none is named).
    Describe(Describe),
    /// Delete topics and their records.
    #[command(visible_alias = "rm")]
    Delete(Delete),
    /// Add partitions to a topic, or change its settings.
    Alter(Alter),
}

#[derive(clap::Args)]
struct Create {
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// How many partitions; without it, what the broker's num.partitions says.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// How many replicas; without it, what the broker's default.replication.factor says.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A setting of the topic, such as retention.ms=86400000; may be repeated.
    #[arg(short, long = "config", value_name = "NAME=VALUE", value_parser = parse_setting)]
    configs: Vec<(String, String)>,
    /// A topic that is there already is no error (and stays as it is).
    #[arg(long)]
    if_not_exists: bool,
    /// Ask the broker whether it would, and create nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(clap::Args)]
struct List {
    /// Internal topics too, such as __consumer_offsets.
    #[arg(long)]
    internal: bool,
    /// Only the names, one a line.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(clap::Args)]
struct Describe {
    #[arg(value_name = "TOPIC")]
    names: Vec<String>,
    /// Every setting, not only those that were set on the topic.
    #[arg(long)]
    all_configs: bool,
    /// Internal topics too, where no topic is named.
    #[arg(long)]
    internal: bool,
}

#[derive(clap::Args)]
struct Delete {
    #[arg(required = true, value_name = "TOPIC")]
    names: Vec<String>,
    /// A topic that is not there is no error.
    #[arg(long)]
    if_exists: bool,
}

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
struct Alter {
    #[arg(value_name = "TOPIC")]
    name: String,
    /// The new number of partitions; it can only grow, and keys move.
    #[arg(short, long, value_name = "N", group = "change",
          value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Set a setting; may be repeated.
    #[arg(short, long = "config", value_name = "NAME=VALUE", group = "change",
          value_parser = parse_setting)]
    configs: Vec<(String, String)>,
    /// Give a setting back to the broker's default; may be repeated.
    #[arg(short, long = "delete-config", value_name = "NAME", group = "change")]
    delete_configs: Vec<String>,
    /// Add to a setting that is a list, such as cleanup.policy; may be repeated.
    #[arg(long = "append-config", value_name = "NAME=VALUE", group = "change",
          value_parser = parse_setting)]
    append_configs: Vec<(String, String)>,
    /// Take away from a setting that is a list; may be repeated.
    #[arg(long = "subtract-config", value_name = "NAME=VALUE", group = "change",
          value_parser = parse_setting)]
    subtract_configs: Vec<(String, String)>,
    /// Ask the broker whether it would, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

fn parse_setting(given: &str) -> Result<(String, String), String> {
    match given.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_string(), value.to_string()))
        }
        _ => Err(format!("`{given}` is not NAME=VALUE")),
    }
}

pub fn run(args: Args) -> ExitCode {
    let json = args.connect.json;
    let outcome = args
        .connect
        .connect()
        .map_err(Failure::from)
        .and_then(|mut client| match args.command {
            TopicCommand::Create(a) => create(&mut client, &a, json),
            TopicCommand::List(a) => list(&mut client, &a, json),
            TopicCommand::Describe(a) => describe(&mut client, &a, json),
            TopicCommand::Delete(a) => delete(&mut client, &a, json),
            TopicCommand::Alter(a) => alter(&mut client, &a, json),
        });
    conclude(json, outcome)
}

/// What became of one topic of several: the same shape for create and delete.
#[derive(Serialize)]
struct Done {
    name: String,
    /// `created`, `would_create`, `exists`, `deleted`, `absent` or `failed`.
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partitions: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replication_factor: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

#[derive(Serialize)]
struct AllDone {
    topics: Vec<Done>,
}

/// Prints what became of each topic; fails where one of them did.
fn conclude_each<T>(
    outcomes: Outcomes<T>,
    json: bool,
    done: &'static str,
    harmless: Option<(ResponseError, &'static str)>,
    detail: impl Fn(&T, &mut Done),
) -> Outcome {
    let mut all = Vec::new();
    let mut failed = false;
    let mut lines = Vec::new();
    for (name, outcome) in outcomes {
        let mut entry = Done {
            status: done,
            id: None,
            partitions: None,
            replication_factor: None,
            error: None,
            message: None,
            name,
        };
        match outcome {
            Ok(t) => {
                detail(&t, &mut entry);
                let mut line = format!("{} {}", done.replace('_', " "), printable(&entry.name));
                if let (Some(p), Some(r)) = (entry.partitions, entry.replication_factor) {
                    line += &format!(" with partitions={p} replication-factor={r}");
                }
                lines.push(line);
            }
            Err(e) => match harmless {
                Some((code, status)) if e.is(code) => {
                    entry.status = status;
                    lines.push(format!("{status} {}", printable(&entry.name)));
                }
                _ => {
                    failed = true;
                    entry.status = "failed";
                    complain_client(json, &e);
                    entry.error = Some(e.name());
                    entry.message = Some(e.to_string());
                }
            },
        }
        all.push(entry);
    }
    if json {
        print_json(&AllDone { topics: all })?;
    } else {
        let mut out = stdout();
        for line in lines {
            writeln!(out, "{line}")?;
        }
        out.flush()?;
    }
    if failed {
        Err(Failure::Reported)
    } else {
        Ok(())
    }
}

fn create(client: &mut Client, args: &Create, json: bool) -> Outcome {
    let topics: Vec<_> = args
        .names
        .iter()
        .map(|name| NewTopic {
            name: name.clone(),
            partitions: args.partitions,
            replication_factor: args.replication_factor,
            configs: args.configs.clone(),
        })
        .collect();
    let outcomes = client.create_topics(&topics, args.dry_run)?;
    conclude_each(
        outcomes,
        json,
        if args.dry_run {
            "would_create"
        } else {
            "created"
        },
        args.if_not_exists
            .then_some((ResponseError::TopicAlreadyExists, "exists")),
        |created, entry| {
            entry.id.clone_from(&created.id);
            entry.partitions = created.partitions.or(args.partitions);
            entry.replication_factor = created.replication_factor.or(args.replication_factor);
        },
    )
}

fn delete(client: &mut Client, args: &Delete, json: bool) -> Outcome {
    let outcomes = client.delete_topics(&args.names)?;
    conclude_each(
        outcomes,
        json,
        "deleted",
        args.if_exists
            .then_some((ResponseError::UnknownTopicOrPartition, "absent")),
        |(), _| {},
    )
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    id: Option<&'a str>,
    internal: bool,
    partitions: usize,
    replication_factor: usize,
}

#[derive(Serialize)]
struct AllListed<'a> {
    topics: Vec<Listed<'a>>,
}

fn list(client: &mut Client, args: &List, json: bool) -> Outcome {
    let mut topics = Vec::new();
    for (_, topic) in client.topics(None, false)? {
        let topic = topic?;
        if args.internal || !topic.internal {
            topics.push(topic);
        }
    }
    let listed = topics.iter().map(|t| Listed {
        name: &t.name,
        id: t.id.as_deref(),
        internal: t.internal,
        partitions: t.partitions.len(),
        replication_factor: t.partitions.first().map_or(0, |p| p.replicas.len()),
    });
    if json {
        return print_json(&AllListed {
            topics: listed.collect(),
        });
    }
    let mut out = stdout();
    if args.quiet {
        for t in &topics {
            writeln!(out, "{}", printable(&t.name))?;
        }
    } else {
        let mut table = Table::new(&["TOPIC", ">PARTITIONS", ">REPLICAS"]);
        for t in listed {
            table.row([
                printable(t.name),
                t.partitions.to_string(),
                t.replication_factor.to_string(),
            ]);
        }
        table.print(&mut out)?;
    }
    out.flush()?;
    Ok(())
}

#[derive(Serialize)]
struct DescribedPartition {
    partition: i32,
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    offline: Vec<i32>,
    log_start_offset: Option<i64>,
    end_offset: Option<i64>,
}

#[derive(Serialize)]
struct DescribedConfig {
    name: String,
    value: Option<String>,
    /// Where the value comes from: topic, broker, cluster, default.
    source: &'static str,
    read_only: bool,
    sensitive: bool,
}

#[derive(Serialize)]
struct Described {
    name: String,
    id: Option<String>,
    internal: bool,
    replication_factor: usize,
    partitions: Vec<DescribedPartition>,
    configs: Vec<DescribedConfig>,
}

#[derive(Serialize)]
struct AllDescribed {
    topics: Vec<Described>,
}

fn describe(client: &mut Client, args: &Describe, json: bool) -> Outcome {
    let wanted = (!args.names.is_empty()).then_some(args.names.as_slice());
    let mut topics = Vec::new();
    let mut failed = false;
    for (_, topic) in client.topics(wanted, false)? {
        match topic {
            Ok(t) if wanted.is_none() && t.internal && !args.internal => {}
            Ok(t) => topics.push(t),
            Err(e) => {
                complain_client(json, &e);
                failed = true;
            }
        }
    }
    let names: Vec<String> = topics.iter().map(|t| t.name.clone()).collect();
    let mut configs = client.describe_topic_configs(&names)?;
    let edges = edges(client, &mut topics)?;
    let described: Vec<Described> = topics
        .into_iter()
        .map(|t| {
            let own = configs.remove(&t.name).unwrap_or_default();
            to_described(t, own, args.all_configs, &edges)
        })
        .collect();
    if json {
        print_json(&AllDescribed { topics: described })?;
    } else {
        print_described(&described)?;
    }
    if failed {
        Err(Failure::Reported)
    } else {
        Ok(())
    }
}

type Edges = BTreeMap<TopicPartition, (i64, i64)>;

/// First and end offsets of what has a leader that answers; the rest stays without.
fn edges(client: &mut Client, topics: &mut [Topic]) -> Result<Edges, ClientError> {
    let led: Vec<TopicPartition> = topics
        .iter()
        .flat_map(|t| {
            t.partitions
                .iter()
                .filter(|p| p.leader.is_some())
                .map(|p| (t.name.clone(), p.index))
        })
        .collect();
    let edges = client.edges_of_led(&led)?;
    if edges.len() < led.len() {
        // A leader has gone meanwhile: shown is who leads now.
        let names: Vec<String> = topics.iter().map(|t| t.name.clone()).collect();
        for (name, now) in client.topics(Some(&names), false)? {
            if let (Some(topic), Ok(now)) = (topics.iter_mut().find(|t| t.name == name), now) {
                *topic = now;
            }
        }
    }
    Ok(edges)
}

fn to_described(
    topic: Topic,
    configs: Vec<ConfigEntry>,
    all_configs: bool,
    edges: &Edges,
) -> Described {
    Described {
        replication_factor: topic.partitions.first().map_or(0, |p| p.replicas.len()),
        partitions: topic
            .partitions
            .into_iter()
            .map(|p| {
                let at = (topic.name.clone(), p.index);
                DescribedPartition {
                    partition: p.index,
                    leader: p.leader,
                    leader_epoch: p.leader_epoch,
                    replicas: p.replicas,
                    isr: p.isr,
                    offline: p.offline,
                    log_start_offset: edges.get(&at).map(|(start, _)| *start),
                    end_offset: edges.get(&at).map(|(_, end)| *end),
                }
            })
            .collect(),
        configs: configs
            .into_iter()
            .filter(|c| all_configs || c.own)
            .map(|c| DescribedConfig {
                name: c.name,
                value: c.value,
                source: c.source,
                read_only: c.read_only,
                sensitive: c.sensitive,
            })
            .collect(),
        name: topic.name,
        id: topic.id,
        internal: topic.internal,
    }
}

fn print_described(topics: &[Described]) -> Outcome {
    let mut out = stdout();
    for (at, t) in topics.iter().enumerate() {
        if at > 0 {
            writeln!(out)?;
        }
        writeln!(
            out,
            "{}  partitions={} replication-factor={}{}{}",
            printable(&t.name),
            t.partitions.len(),
            t.replication_factor,
            t.id.as_ref()
                .map_or(String::new(), |id| format!(" id={id}")),
            if t.internal { " internal" } else { "" },
        )?;
        let mut table = Table::new(&[
            ">PARTITION",
            ">LEADER",
            ">EPOCH",
            "REPLICAS",
            "ISR",
            "OFFLINE",
            ">START",
            ">END",
            ">RECORDS",
        ]);
        for p in &t.partitions {
            let span = p.end_offset.zip(p.log_start_offset).map(|(e, s)| e - s);
            table.row([
                p.partition.to_string(),
                or_dash(p.leader),
                or_dash(Some(p.leader_epoch).filter(|e| *e >= 0)),
                joined(&p.replicas),
                joined(&p.isr),
                or_dash(Some(joined(&p.offline)).filter(|o| !o.is_empty())),
                or_dash(p.log_start_offset),
                or_dash(p.end_offset),
                or_dash(span),
            ]);
        }
        table.print(&mut out)?;
        for c in &t.configs {
            let value = match (&c.value, c.sensitive) {
                (_, true) => "(secret)".to_string(),
                (Some(v), _) => printable(v),
                (None, _) => "(none)".to_string(),
            };
            writeln!(out, "  {}={value}  ({})", printable(&c.name), c.source)?;
        }
    }
    out.flush()?;
    Ok(())
}

#[derive(Serialize)]
struct Altered<'a> {
    name: &'a str,
    /// `altered` or `would_alter`.
    status: &'static str,
    partitions: Option<i32>,
    configs: usize,
}

fn alter(client: &mut Client, args: &Alter, json: bool) -> Outcome {
    let mut alterations = Vec::new();
    let pairs = |list: &[(String, String)], make: fn(String, String) -> Alteration| {
        list.iter()
            .map(|(k, v)| make(k.clone(), v.clone()))
            .collect::<Vec<_>>()
    };
    alterations.extend(pairs(&args.configs, Alteration::Set));
    alterations.extend(args.delete_configs.iter().cloned().map(Alteration::Delete));
    alterations.extend(pairs(&args.append_configs, Alteration::Append));
    alterations.extend(pairs(&args.subtract_configs, Alteration::Subtract));

    // A broker may take settings for a topic that does not exist; a person would
    // not notice. So look first.
    let names = [args.name.clone()];
    for (_, topic) in client.topics(Some(&names), false)? {
        topic?;
    }
    if !alterations.is_empty() {
        client.alter_topic_configs(&args.name, &alterations, args.dry_run)?;
    }
    if let Some(count) = args.partitions {
        client.create_partitions(&args.name, count, args.dry_run)?;
    }
    let status = if args.dry_run {
        "would_alter"
    } else {
        "altered"
    };
    if json {
        return print_json(&Altered {
            name: &args.name,
            status,
            partitions: args.partitions,
            configs: alterations.len(),
        });
    }
    let mut out = stdout();
    write!(
        out,
        "{} {}",
        status.replace('_', " "),
        printable(&args.name)
    )?;
    if let Some(count) = args.partitions {
        write!(out, " partitions={count}")?;
    }
    for a in &alterations {
        match a {
            Alteration::Set(k, v) => write!(out, " {k}={v}")?,
            Alteration::Delete(k) => write!(out, " -{k}")?,
            Alteration::Append(k, v) => write!(out, " {k}+={v}")?,
            Alteration::Subtract(k, v) => write!(out, " {k}-={v}")?,
        }
    }
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_may_hold_an_equals_sign_in_its_value() {
        assert_eq!(
            parse_setting("a.b=c=d").unwrap(),
            ("a.b".into(), "c=d".into())
        );
        assert_eq!(parse_setting("a=").unwrap(), ("a".into(), String::new()));
        assert!(parse_setting("=x").is_err());
        assert!(parse_setting("ab").is_err());
    }
}
