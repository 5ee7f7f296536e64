//! `klamm consume`: records to stdout, alone or as a member of a group.
//!
//! ```text
//!  alone:  --offset, --partition ──> spans ──> FetchSet ──> printer
//!  group:  Member.join ──> committed, else --offset ──> spans ──> FetchSet ──> printer
//!            ^                                                                  |
//!            └── rebalance: flush, commit what was printed, join again <────────┘
//! ```
//!
//! What is committed is what has left for stdout, never what was only fetched: a
//! reader of the output that dies makes records come twice, not never.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::client::assign::Assignor;
use crate::client::fetch::{Chunk, FetchSet, Fetched, Isolation, Span};
use crate::client::member::{Member, Pulse, Settings};
use crate::client::offsets::{Spec, TopicPartition};
use crate::client::{Client, ClientError, pause};
use crate::datetime;
use crate::output::{Failure, Outcome, Stdout, complain, conclude, stdout};
use crate::produce::{Bytes, unescape_arg};
use crate::{ConnectArgs, interrupt, parse_duration};

pub mod format;

use format::Format;

/// As `auto.commit.interval.ms` is in Kafka's own consumer.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// Between looks at Ctrl-C and at the group.
const WAKE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IsolationArg {
    /// Everything that is there.
    Uncommitted,
    /// Without records of open and aborted transactions.
    Committed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AssignorArg {
    Range,
    Roundrobin,
}

#[derive(clap::Args)]
pub struct Args {
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,

    /// Where to begin: `beginning`, `end`, an offset, -N (the last N records of each
    /// partition) or @TIME (@2026-11-22T10:44:00Z, or ms since 1970). With --group,
    /// only for partitions that it has committed nothing for.
    #[arg(short, long, value_name = "WHERE", default_value = "beginning",
          allow_hyphen_values = true, value_parser = parse_where)]
    offset: Where,
    /// The same as --offset beginning.
    #[arg(long, conflicts_with = "offset")]
    from_beginning: bool,
    /// Only these partitions.
    #[arg(short, long = "partition", value_name = "N,...", value_delimiter = ',',
          conflicts_with = "group", value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// End after so many records.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End where the partitions end now, instead of waiting for more.
    #[arg(short, long)]
    exit_at_end: bool,
    /// End at the first record of this time or later, in each partition.
    #[arg(long, value_name = "TIME", value_parser = datetime::parse)]
    until: Option<i64>,
    /// Transactions: which records to show.
    #[arg(long, value_name = "LEVEL", default_value = "uncommitted")]
    isolation: IsolationArg,

    /// Consume as a member of this group: partitions are shared with its other
    /// members, and what was printed is committed.
    #[arg(short, long, value_name = "GROUP")]
    group: Option<String>,
    /// A static member (KIP-345): a restart within the session keeps its partitions.
    #[arg(long, value_name = "ID", requires = "group")]
    instance_id: Option<String>,
    /// How a group's leader shares partitions out; may be repeated, in order of
    /// preference.
    #[arg(long = "assignor", value_name = "NAME", requires = "group")]
    assignors: Vec<AssignorArg>,
    /// How long a group waits for a member that is silent.
    #[arg(long, value_name = "TIME", default_value = "45s", value_parser = parse_duration)]
    session_timeout: Duration,
    /// Commit nothing.
    #[arg(long, requires = "group")]
    no_commit: bool,

    /// How to print a record; see below.
    #[arg(short, long, value_name = "FORMAT", value_parser = Format::parse,
          conflicts_with = "json")]
    format: Option<Format>,
    /// Print keys, too, with this between key and value (\t and \x1f work).
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = unescape_arg,
          conflicts_with_all = ["format", "json"])]
    key_separator: Option<Bytes>,
    /// Say on stderr which partitions are read, and from where.
    #[arg(short, long)]
    verbose: bool,

    #[command(flatten)]
    connect: ConnectArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    Beginning,
    End,
    At(i64),
    /// The last so many.
    Tail(i64),
    Time(i64),
}

fn parse_where(given: &str) -> Result<Where, String> {
    let wrong =
        || format!("`{given}` is not beginning, end, an offset, -N for the last N, or @TIME");
    match given {
        "beginning" | "earliest" | "start" => Ok(Where::Beginning),
        "end" | "latest" => Ok(Where::End),
        _ => {
            if let Some(time) = given.strip_prefix('@') {
                return datetime::parse(time).map(Where::Time);
            }
            match given.strip_prefix('-') {
                Some(n) => n.parse().ok().filter(|n| *n >= 0).map(Where::Tail),
                None => given.parse().ok().filter(|n| *n >= 0).map(Where::At),
            }
            .ok_or_else(wrong)
        }
    }
}

pub fn run(args: Args) -> ExitCode {
    let json = args.connect.json;
    conclude(json, consume(&args))
}

fn consume(args: &Args) -> Outcome {
    let mut client = args.connect.connect()?;
    interrupt::catch().map_err(|e| Failure::Other(format!("cannot catch signals: {e}")))?;
    let mut reading = Reading {
        args,
        from: if args.from_beginning {
            Where::Beginning
        } else {
            args.offset
        },
        isolation: match args.isolation {
            IsolationArg::Uncommitted => Isolation::Uncommitted,
            IsolationArg::Committed => Isolation::Committed,
        },
        printer: Printer {
            out: stdout(),
            style: match (&args.format, args.connect.json) {
                (Some(format), _) => Style::Format(format.clone()),
                (None, true) => Style::Json,
                (None, false) => {
                    let separator = args.key_separator.as_ref().map(|s| s.0.as_slice());
                    Style::Format(Format::plain(separator))
                }
            },
            left: args.count,
        },
        spans: BTreeMap::new(),
        printed: BTreeMap::new(),
        set: None,
        trouble_since: None,
    };
    let outcome = match &args.group {
        Some(group) => consume_in_group(&mut client, &mut reading, group),
        None => consume_alone(&mut client, &mut reading),
    };
    match outcome {
        // Ctrl-C is how a person ends it.
        Err(Failure::Client(ClientError::Interrupted)) => reading.printer.flush(),
        other => other,
    }
}

fn consume_alone(client: &mut Client, reading: &mut Reading<'_>) -> Outcome {
    let mut partitions = Vec::new();
    for name in &reading.args.topics {
        let topic = client.topic(name, false)?;
        let exist: BTreeSet<i32> = topic.partitions.iter().map(|p| p.index).collect();
        let wanted: BTreeSet<i32> = reading.args.partitions.iter().copied().collect();
        if let Some(none) = wanted.difference(&exist).next() {
            return Err(
                ClientError::Missing(format!("topic {name} has no partition {none}")).into(),
            );
        }
        partitions.extend(
            exist
                .into_iter()
                .filter(|p| wanted.is_empty() || wanted.contains(p))
                .map(|p| (name.clone(), p)),
        );
    }
    let starts = resolve(client, &partitions, reading.from)?;
    reading.begin(client, starts)?;
    while !reading.done() {
        reading.step(client)?;
        if interrupt::now() {
            return Err(ClientError::Interrupted.into());
        }
    }
    reading.printer.flush()
}

fn consume_in_group(client: &mut Client, reading: &mut Reading<'_>, group: &str) -> Outcome {
    let args = reading.args;
    for name in &args.topics {
        client.topic(name, false)?;
    }
    let assignors = if args.assignors.is_empty() {
        Assignor::ALL.to_vec()
    } else {
        args.assignors
            .iter()
            .map(|a| match a {
                AssignorArg::Range => Assignor::Range,
                AssignorArg::Roundrobin => Assignor::RoundRobin,
            })
            .collect()
    };
    let mut member = Member::new(Settings {
        group: group.to_string(),
        topics: args.topics.clone(),
        instance_id: args.instance_id.clone(),
        session_timeout: args.session_timeout,
        assignors,
    });
    let outcome = member_life(client, reading, group, &mut member);

    // Whatever ended it: what was printed is committed, and the others are told.
    interrupt::begin_end();
    reading.set = None;
    let flushed = match outcome {
        Err(Failure::Output(_)) => Ok(()),
        _ => reading.flush(),
    };
    let committed = reading.commit(client, group, &member);
    let left = member.leave(client);
    match outcome {
        Err(Failure::Client(ClientError::Interrupted)) | Ok(()) => {
            flushed?;
            committed?;
            Ok(left?)
        }
        failed => failed,
    }
}

fn member_life(
    client: &mut Client,
    reading: &mut Reading<'_>,
    group: &str,
    member: &mut Member,
) -> Outcome {
    loop {
        let assignment = member.join(client)?;
        if reading.args.verbose {
            eprintln!(
                "klamm: member {} of {group}, generation {}: {}",
                member.id(),
                member.generation(),
                described(&assignment)
            );
        }
        let starts = starts_of_group(client, group, &assignment, reading.from)?;
        reading.begin(client, starts)?;
        let mut commit_due = Instant::now() + COMMIT_EVERY;
        loop {
            if reading.done() {
                return Ok(());
            }
            reading.step(client)?;
            if interrupt::now() {
                return Err(ClientError::Interrupted.into());
            }
            match member.pulse(client) {
                Pulse::Steady => {}
                Pulse::Rebalance => {
                    reading.set = None;
                    reading.flush()?;
                    if let Err(e) = reading.commit(client, group, member) {
                        complain(
                            reading.args.connect.json,
                            "COMMIT",
                            &format!("a rebalance came first; records may be read again: {e}"),
                        );
                    }
                    break;
                }
                Pulse::SentAway(e) => {
                    reading.set = None;
                    reading.flush()?;
                    complain(
                        reading.args.connect.json,
                        &e.name(),
                        &format!("joining again; what was not committed is read again: {e}"),
                    );
                    break;
                }
                Pulse::Failed(e) => return Err(e.into()),
            }
            if Instant::now() >= commit_due {
                commit_due = Instant::now() + COMMIT_EVERY;
                match reading.commit(client, group, member) {
                    Ok(()) => {}
                    // The next pulse tells about it.
                    Err(e) if is_rebalance(&e) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }
}

fn is_rebalance(e: &ClientError) -> bool {
    use kafka_protocol::ResponseError as R;
    [
        R::RebalanceInProgress,
        R::IllegalGeneration,
        R::UnknownMemberId,
    ]
    .into_iter()
    .any(|code| e.is(code))
}

/// Where the group left each partition, or where `--offset` says.
fn starts_of_group(
    client: &mut Client,
    group: &str,
    assignment: &[TopicPartition],
    otherwise: Where,
) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
    if assignment.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, index) in assignment {
        topics.entry(topic.clone()).or_default().push(*index);
    }
    let committed = client.committed(group, Some(&topics))?;
    let new: Vec<TopicPartition> = assignment
        .iter()
        .filter(|at| !committed.contains_key(at))
        .cloned()
        .collect();
    let mut starts = resolve(client, &new, otherwise)?;
    for at in assignment {
        if let Some(c) = committed.get(at) {
            starts.insert(at.clone(), c.offset);
        }
    }
    Ok(starts)
}

fn resolve(
    client: &mut Client,
    partitions: &[TopicPartition],
    from: Where,
) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
    if partitions.is_empty() {
        return Ok(BTreeMap::new());
    }
    if from == Where::Beginning {
        return client.edge_offsets(partitions, Spec::Earliest);
    }
    let ends = client.edge_offsets(partitions, Spec::Latest)?;
    match from {
        Where::Beginning | Where::End => Ok(ends),
        Where::Time(ms) => {
            let wanted: Vec<_> = partitions
                .iter()
                .map(|p| (p.clone(), Spec::At(ms)))
                .collect();
            let found = client.list_offsets(&wanted)?;
            Ok(found
                .into_iter()
                .map(|(at, offset)| {
                    let offset = offset.unwrap_or(ends[&at]);
                    (at, offset)
                })
                .collect())
        }
        Where::Tail(n) => {
            let firsts = client.edge_offsets(partitions, Spec::Earliest)?;
            Ok(ends
                .into_iter()
                .map(|(at, end)| {
                    let offset = end.saturating_sub(n).max(firsts[&at]);
                    (at, offset)
                })
                .collect())
        }
        Where::At(offset) => {
            if let Some((at, end)) = ends.iter().find(|(_, end)| offset > **end) {
                return Err(ClientError::Missing(format!(
                    "partition {}-{} ends at offset {end}; there is no {offset} yet",
                    at.0, at.1
                )));
            }
            Ok(ends.into_keys().map(|at| (at, offset)).collect())
        }
    }
}

fn described(assignment: &[TopicPartition]) -> String {
    if assignment.is_empty() {
        return "no partitions".into();
    }
    let names: Vec<String> = assignment.iter().map(|(t, p)| format!("{t}-{p}")).collect();
    names.join(" ")
}

enum Style {
    Format(Format),
    Json,
}

struct Printer {
    out: Stdout,
    style: Style,
    /// How many more, where there is a limit.
    left: Option<u64>,
}

impl Printer {
    fn flush(&mut self) -> Outcome {
        Ok(self.out.flush()?)
    }
}

struct Reading<'a> {
    args: &'a Args,
    from: Where,
    isolation: Isolation,
    printer: Printer,
    /// What is still to be read: `from` is behind the last record given to stdout's
    /// buffer.
    spans: BTreeMap<TopicPartition, Span>,
    /// The same positions as of the last flush: what may be committed.
    printed: BTreeMap<TopicPartition, i64>,
    set: Option<FetchSet>,
    trouble_since: Option<Instant>,
}

impl Reading<'_> {
    fn begin(
        &mut self,
        client: &mut Client,
        starts: BTreeMap<TopicPartition, i64>,
    ) -> Result<(), ClientError> {
        let partitions: Vec<TopicPartition> = starts.keys().cloned().collect();
        let mut until: BTreeMap<TopicPartition, i64> = BTreeMap::new();
        if let Some(ms) = self.args.until {
            let wanted: Vec<_> = partitions
                .iter()
                .map(|p| (p.clone(), Spec::At(ms)))
                .collect();
            for (at, offset) in client.list_offsets(&wanted)? {
                if let Some(offset) = offset {
                    until.insert(at, offset);
                }
            }
        }
        if self.args.exit_at_end {
            let spec = match self.isolation {
                Isolation::Uncommitted => Spec::Latest,
                Isolation::Committed => Spec::LatestStable,
            };
            for (at, end) in client.edge_offsets(&partitions, spec)? {
                let until = until.entry(at).or_insert(end);
                *until = end.min(*until);
            }
        }
        self.spans = starts
            .iter()
            .map(|(at, from)| {
                let until = until.get(at).copied();
                (at.clone(), Span { from: *from, until })
            })
            .collect();
        self.printed.clear();
        self.set = None;
        if self.args.verbose {
            for (at, span) in &self.spans {
                let until = span.until.map_or(String::new(), |u| format!(" until {u}"));
                eprintln!("klamm: {}-{} from {}{until}", at.0, at.1, span.from);
            }
        }
        Ok(())
    }

    /// Nothing more is to come: enough records, or every partition's end.
    fn done(&self) -> bool {
        let limited = self.args.exit_at_end || self.args.until.is_some();
        self.printer.left == Some(0)
            || (limited
                && self
                    .spans
                    .values()
                    .all(|s| s.until.is_some_and(|until| s.from >= until)))
    }

    /// Waits a little for records and prints what there is.
    fn step(&mut self, client: &mut Client) -> Outcome {
        if self.spans.is_empty() {
            return Ok(pause(WAKE)?);
        }
        if self.set.is_none() {
            match FetchSet::start(client, &self.spans, self.isolation) {
                Ok(set) => self.set = Some(set),
                Err(e) => return self.trouble(client, e),
            }
        }
        let set = self.set.as_ref().expect("started above");
        let mut next = set.next(WAKE);
        let mut chunks = 0;
        while let Some(fetched) = next {
            match fetched {
                Fetched::Chunk(chunk) => {
                    self.trouble_since = None;
                    self.print(&chunk)?;
                }
                Fetched::OutOfRange(at, offset) => {
                    self.set = None;
                    self.out_of_range(client, at, offset)?;
                    break;
                }
                Fetched::Stale(e) => {
                    self.trouble(client, e)?;
                    break;
                }
                Fetched::Failed(e) => return Err(e.into()),
            }
            chunks += 1;
            // The caller has a group to look after.
            if self.printer.left == Some(0) || chunks == 16 {
                break;
            }
            next = self.set.as_ref().and_then(FetchSet::ready);
        }
        self.flush()
    }

    fn print(&mut self, chunk: &Chunk) -> Outcome {
        let Some(span) = self.spans.get_mut(&chunk.at) else {
            return Ok(());
        };
        let Printer { out, style, left } = &mut self.printer;
        let mut position = span.from;
        let printed = chunk.each(span.until, self.isolation, |read| {
            match style {
                Style::Format(format) => format.print(out, &read)?,
                Style::Json => format::print_json(out, &read)?,
            }
            position = read.offset + 1;
            if let Some(left) = left {
                *left -= 1;
            }
            Ok::<bool, std::io::Error>(*left != Some(0))
        });
        let whole = printed.map_err(|what| {
            Failure::Other(format!(
                "{what}; the records before it were printed. --offset goes on behind it"
            ))
        })??;
        span.from = if whole {
            // Not beyond the end that was asked for: what lies there was not printed.
            span.until
                .map_or(chunk.next, |u| chunk.next.min(u).max(position))
        } else {
            position
        };
        Ok(())
    }

    fn flush(&mut self) -> Outcome {
        self.printer.flush()?;
        for (at, span) in &self.spans {
            self.printed.insert(at.clone(), span.from);
        }
        Ok(())
    }

    fn commit(
        &mut self,
        client: &mut Client,
        group: &str,
        member: &Member,
    ) -> Result<(), ClientError> {
        if self.args.no_commit || self.printed.is_empty() {
            return Ok(());
        }
        client.commit(group, &member.committer(), &self.printed)
    }

    /// Leaders move and brokers restart; but not for longer than the timeout.
    fn trouble(&mut self, client: &mut Client, error: ClientError) -> Outcome {
        self.set = None;
        if !error.passes() && !error.is(kafka_protocol::ResponseError::UnknownTopicOrPartition) {
            return Err(error.into());
        }
        let since = *self.trouble_since.get_or_insert_with(Instant::now);
        if since.elapsed() > client.timeout() {
            return Err(error.into());
        }
        pause(WAKE)?;
        client.refresh();
        Ok(())
    }

    /// Retention or DeleteRecords was faster, or the topic was made anew.
    fn out_of_range(&mut self, client: &mut Client, at: TopicPartition, offset: i64) -> Outcome {
        let one = [at.clone()];
        let start = client.edge_offsets(&one, Spec::Earliest)?[&at];
        let end = client.edge_offsets(&one, Spec::Latest)?[&at];
        let to = if offset < start {
            start
        } else if self.args.group.is_some() {
            resolve(client, &one, self.from)?[&at]
        } else {
            return Err(Failure::Other(format!(
                "partition {}-{} goes from offset {start} to {end}; {offset} is not in it",
                at.0, at.1
            )));
        };
        complain(
            self.args.connect.json,
            "OFFSET_OUT_OF_RANGE",
            &format!(
                "partition {}-{} goes from offset {start} to {end}; {offset} is not in it, \
                 going on at {to}",
                at.0, at.1
            ),
        );
        if let Some(span) = self.spans.get_mut(&at) {
            span.from = to;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_begin() {
        for (given, meant) in [
            ("beginning", Where::Beginning),
            ("earliest", Where::Beginning),
            ("end", Where::End),
            ("0", Where::At(0)),
            ("12", Where::At(12)),
            ("-5", Where::Tail(5)),
            ("@5", Where::Time(5)),
            ("@2026-11-22T10:44Z", Where::Time(1_795_344_240_000)),
        ] {
            assert_eq!(parse_where(given), Ok(meant), "{given}");
        }
        for wrong in ["", "-", "--5", "x", "1.5", "@", "@x"] {
            assert!(parse_where(wrong).is_err(), "{wrong}");
        }
    }
}
