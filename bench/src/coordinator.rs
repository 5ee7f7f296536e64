//! `coordinator`: Klamm's coordinator beside Apache ZooKeeper, one client for both.
//!
//! ```text
//!   rate      writes and reads a second, and the server's CPU for each
//!   latency   one outstanding at a time
//!   watch     1,000 sessions told of one change
//!   expiry    a dead client's ephemerals, against its deadline
//!   start     exec to the first answer, and connections left without one
//!   offsets   Kafka's OffsetCommit                                    Klamm only
//!   rebalance a group with 10,000 partitions, Klamm only               all --full
//!   sessions  memory at 19,600 sessions                               all --full
//!   nodes     memory at 1,000,000 nodes, and a start from them        all --full
//! ```
//!
//! In a run Klamm and ZooKeeper take turns (A B A B), each alone at its turn, so that a
//! machine that has other things to do is the same to both: the ratio counts.

mod comparison;
mod contender;
mod expiry;
mod latency;
mod nodes;
mod offsets;
mod rate;
mod rebalance;
mod sessions;
mod start;
mod tree;
mod watch;

use crate::cores::Cores;
use crate::data_folder::DataFolder;
use crate::report::Report;
use crate::zookeeper::{Session, TIMEOUT_MAX};
use crate::{Common, Outcome};
use clap::Subcommand;
use comparison::Comparison;
use contender::{Against, Contender, Running};
use start::Then;
use std::time::Duration;

/// Klamm's coordinator beside Apache ZooKeeper, in turns, by one client.
///
/// Each server is started by this program on the loopback, on an empty folder under
/// --data: Klamm with one core, Apache ZooKeeper 3.8 as zkServer.sh starts it (heap of
/// 1000 MB, synced before it answers). Its jars are fetched by Maven once, into
/// target/zookeeper. In `rate`, `latency`, `watch` and `offsets` a server has one core
/// to itself and the client another (see --unpinned); elsewhere they share all.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    figure: What,

    /// Whom to measure.
    #[arg(long, value_enum, value_name = "WHOM", default_value_t = Against::Both, global = true)]
    against: Against,

    /// Apache ZooKeeper's jars, as `java -cp` takes them. Default: fetched by Maven.
    #[arg(long, env = "ZOOKEEPER_CLASSPATH", value_name = "PATH", global = true)]
    zookeeper_classpath: Option<String>,

    /// How often each figure is taken of each server; the median is given.
    #[arg(long, value_name = "N", default_value_t = 3, global = true, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,

    /// How long a load lasts, each time.
    #[arg(long, value_name = "N", default_value_t = 1, global = true, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// Let server and client use every core.
    #[arg(long, global = true)]
    unpinned: bool,

    /// Sessions for `sessions`, which takes about 40 s.
    #[arg(long, value_name = "N", default_value_t = 19_600, global = true, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sessions: u32,

    /// Nodes for `nodes`, which takes about 2 minutes with a million.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, global = true, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    nodes: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Subcommand)]
enum What {
    /// Create, create ephemeral, set, get and delete: a second, and CPU for each.
    ///
    /// 8 sessions with 64 requests under way each, then one with 256; 100 bytes of data,
    /// every create of a node of its own, sets and gets of the nodes in turn.
    /// Aims: 3 x ZooKeeper's creates and sets, 10 x with one session, a quarter of its
    /// CPU for a create, a set and a get.
    Rate,
    /// Create and get with one outstanding: p50, p90, p99 and the longest.
    ///
    /// Aim: half of ZooKeeper's p99 for a create.
    Latency,
    /// A set of a node that 1,000 sessions watch, until the last of them is told.
    ///
    /// Aim: within 3 ms.
    Watch,
    /// A client that dies, until a watcher is told that its ephemerals are gone.
    ///
    /// Eight clients with a timeout of 4 s and ten ephemerals each fall silent 300 ms
    /// apart, every other one with its connection closed under it. Given is how late a
    /// watcher hears of the last ephemeral's end, against last request + timeout.
    /// Aim: within 100 ms.
    Expiry,
    /// From exec on an empty folder until the first get is answered.
    ///
    /// A client connects every 5 ms from exec on (past 250 ms less often). Counted is every connection that was
    /// accepted, and closed or left without an answer for 2 s. Aim: under 50 ms, none.
    Start,
    /// Kafka's OffsetCommit through Klamm's broker: a second, and CPU for each.
    ///
    /// 8 connections with 64 requests under way, each of one partition, a group each;
    /// then requests of 100 partitions. Aim: 100,000 offsets a second on one core.
    Offsets,
    /// A group of ten members with 10,000 partitions between them, rebalanced.
    ///
    /// Ten topics of 1,000 partitions are created first, which takes most of a minute.
    /// Fewer where a process may not have 20,000 open files.
    Rebalance,
    /// Memory with thousands of sessions. Aim: 19,600 in under 64 MiB.
    Sessions,
    /// Memory with a million nodes, and how long a start from them takes.
    ///
    /// 100 bytes of data in each, 1,000 nodes to a parent. Aims: under 400 MiB, and the
    /// first get answered in under 2 s.
    Nodes,
    /// All but rebalance, sessions and nodes, in less than four minutes; with --full all.
    All {
        /// With rebalance, sessions and nodes, too.
        #[arg(long)]
        full: bool,
    },
}

/// Everything a figure needs to be taken.
struct Run<'a> {
    args: &'a Args,
    contenders: &'a [Contender],
    folder: &'a DataFolder,
    /// For the figures where a server has a core of its own.
    apart: &'a Cores,
    together: &'a Cores,
}

impl Run<'_> {
    fn seconds(&self) -> Duration {
        Duration::from_secs(self.args.seconds.into())
    }

    /// All of them, on an empty folder each, answering.
    fn start_all(&self, name: &str, cores: &Cores) -> Outcome<Vec<(Running, Session)>> {
        let start = |contender| self.start(contender, name, cores);
        self.contenders.iter().map(start).collect()
    }

    fn start(
        &self,
        contender: &Contender,
        name: &str,
        cores: &Cores,
    ) -> Outcome<(Running, Session)> {
        let folder = self.folder.join(&format!("{name}-{:?}", contender.who()));
        let mut running = cores.start(|| contender.start(&folder))?;
        // A server may leave its first connections without an answer: one that is
        // answered shows that it is there, and only then comes the session to keep.
        start::first_get(&mut running, "/", Then::Return)?;
        let session = Session::open(running.address, TIMEOUT_MAX).map_err(failed("connect"))?;
        Ok((running, session))
    }

    fn take(&self, what: What, to: &mut Comparison) -> Outcome {
        match what {
            What::Rate => rate::take(self, to),
            What::Latency => latency::take(self, to),
            What::Watch => watch::take(self, to),
            What::Expiry => expiry::take(self, to),
            What::Start => start::take(self, to),
            What::Offsets => offsets::take(self, to),
            What::Rebalance => rebalance::take(self, to),
            What::Sessions => sessions::take(self, to),
            What::Nodes => nodes::take(self, to),
            What::All { full } => {
                let always = [
                    What::Start,
                    What::Rate,
                    What::Latency,
                    What::Watch,
                    What::Expiry,
                    What::Offsets,
                ];
                let long = [What::Rebalance, What::Sessions, What::Nodes];
                let long = if full { &long[..] } else { &[] };
                always
                    .iter()
                    .chain(long)
                    .try_for_each(|&what| self.take(what, to))
            }
        }
    }
}

pub fn run(args: &Args, common: &Common) -> Outcome<Report> {
    let (contenders, missed) = contender::find(args, common)?;
    let mut servers = Vec::new();
    let mut klamm = None;
    for contender in &contenders {
        match contender {
            Contender::Klamm(binary) => {
                klamm = Some(binary);
                servers.push("Klamm".to_owned());
            }
            Contender::ApacheZooKeeper(jars) => {
                servers.push(format!("Apache ZooKeeper {}", jars.version));
            }
        }
    }
    let cores = common.cores.unwrap_or(1);
    let together = Cores::together()?;
    let apart = match args.unpinned {
        true => None,
        false => Cores::apart(cores)?,
    };
    let pinned = match &apart {
        Some(_) => format!("rates: {cores} cores for the server, another for the client"),
        None => "server and client on all cores".to_owned(),
    };
    let workload = format!(
        "{}; {} x {} s each; {pinned}",
        servers.join(" beside "),
        args.repeats,
        args.seconds
    );
    let mut report = Report::new("coordinator", workload, klamm)?;
    missed.into_iter().for_each(|missed| report.warn(missed));
    if apart.is_none() && !args.unpinned {
        report.warn(format!(
            "the machine has no core besides the server's {cores}: the client shares them"
        ));
    }

    let folder = DataFolder::make(&common.data)?;
    let run = Run {
        args,
        contenders: &contenders,
        folder: &folder,
        apart: apart.as_ref().unwrap_or(&together),
        together: &together,
    };
    let mut comparison = Comparison::default();
    run.take(args.figure, &mut comparison)?;
    comparison.report(&mut report);
    Ok(report)
}

/// Of a request or a connection, for a person.
fn failed(what: &str) -> impl Fn(std::io::Error) -> String {
    move |e| format!("{what}: {e}")
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[allow(clippy::cast_precision_loss)] // exact below 2^53 bytes
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
