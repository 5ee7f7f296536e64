//! Load on a broker that the client does not feel: batches built once, few system calls.
//!
//! ```text
//!   Spec, Target
//!     layout     topics, partitions, leaders        content    batches, built once
//!        \                                             |
//!       connections, dealt to threads            produce, fetch    requests and answers
//!        \_____________________________________________|
//!     worker     a thread: epoll over its producers and consumers, on a schedule or as
//!        |       fast as it goes                       warm-up round, then the one that counts
//!     tally      counts, latencies, by second
//!        |
//!     Measurement
//! ```
//!
//! Nothing that a broker answers is taken on trust: every partition's error code is read,
//! and an error ends the run; batches that come back must lie offset to offset. What is
//! asked for and what is counted is the same for every broker that speaks Kafka's
//! protocol.

mod beside;
mod command;
mod consumer;
mod content;
mod cursor;
mod evict;
mod fetch;
mod layout;
mod produce;
mod producer;
mod round;
mod schedule;
mod tally;
mod worker;

pub use command::{Args, run as run_command};
pub use content::Content;
pub use evict::folder as evict;
pub use fetch::Limits;
pub use layout::Layout;
pub use tally::Tally;

use crate::Outcome;
use crate::measurement::Measurement;
use klamm_engine::codec::Codec;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Records go in.
    Produce,
    /// Records that are there come out, from the start.
    Consume,
    /// Records go in at a rate, and come out where somebody waits for them: the latency
    /// is from when a batch's request was due to when the batch has been read, one for
    /// each batch.
    Tail,
    /// Producers and consumers at once.
    Mixed,
}

/// Where a partition's requests go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To its leader, as Metadata has it.
    Leader,
    /// To another node, which must be one that serves what it does not lead: another core
    /// of the same broker.
    Elsewhere,
}

/// How many of them a second, in an open loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    Records(f64),
    Requests(f64),
}

/// A load, whoever it is put on.
#[derive(Clone, Debug)]
pub struct Spec {
    pub workload: Workload,
    /// Topics that are there already; none: fresh ones are made, and deleted afterwards.
    pub named_topics: Vec<String>,
    /// Of the fresh ones: how many, and the partitions of each.
    pub topics: u32,
    pub partitions: u32,
    pub route: Route,
    /// Producers, over all leaders; consumers.
    pub connections: u32,
    pub consumers: u32,
    pub content: Content,
    /// Batches in a request, each of another partition.
    pub batches: u32,
    /// -1 is all.
    pub acks: i16,
    /// None: as fast as it goes.
    pub rate: Option<Rate>,
    /// Requests under way on a connection, at most.
    pub in_flight: u32,
    pub warm_up: Duration,
    pub time: Duration,
    /// What is put into fresh topics for [`Workload::Consume`], in bytes of batches.
    pub fill_bytes: u64,
    /// A catch-up reads to the end once, not over and over.
    pub once: bool,
    /// Files in this folder leave the page cache before the round that counts.
    pub evict: Option<PathBuf>,
    pub limits: Limits,
    /// Consumers check each batch's CRC.
    pub check: bool,
    /// One for each core, if there are any.
    pub threads: usize,
    /// Where the threads run, in turn; empty: wherever the kernel puts them.
    pub client_cores: Vec<usize>,
}

/// On whom a load is put.
#[derive(Clone, Debug)]
pub struct Target {
    /// HOST:PORT, or several by commas.
    pub bootstrap: String,
    /// For what it uses; None: it is not asked.
    pub pid: Option<u32>,
    /// As a person calls it: "Klamm".
    pub server: String,
}

impl Spec {
    /// The workload with what is usual for it.
    pub fn new(workload: Workload) -> Spec {
        let small = workload == Workload::Tail;
        Spec {
            workload,
            named_topics: Vec::new(),
            topics: 1,
            partitions: 1,
            route: Route::Leader,
            connections: 1,
            consumers: 1,
            content: Content {
                record_bytes: 1024,
                batch_bytes: if small { 12 << 10 } else { 1 << 20 },
                codec: Codec::None,
                keys: 0,
            },
            batches: 1,
            acks: -1,
            rate: small.then_some(Rate::Records(10_000.0)),
            in_flight: 5,
            warm_up: Duration::from_secs(3),
            time: Duration::from_secs(10),
            fill_bytes: 1 << 30,
            once: false,
            evict: None,
            limits: Limits {
                max_bytes: 50 << 20,
                max_partition_bytes: 1 << 20,
                min_bytes: 1,
                max_wait_ms: 500,
            },
            check: false,
            threads: 1,
            client_cores: Vec::new(),
        }
    }

    /// What can't be done, said before anything is.
    pub fn check(&self) -> Outcome {
        if self.workload == Workload::Tail && self.rate.is_none() {
            return Err("tail needs a rate: name one with --rate".to_owned());
        }
        if self.workload == Workload::Tail && self.acks == 0 {
            return Err("tail needs acks, 1 or all: by its offset a record is known".to_owned());
        }
        if self.workload == Workload::Consume && self.rate.is_some() {
            return Err("consume reads as fast as it goes: there is no --rate for it".to_owned());
        }
        if let Some(Rate::Records(rate) | Rate::Requests(rate)) = self.rate
            && !(rate > 0.0 && rate.is_finite())
        {
            return Err(format!("a rate of {rate} is none"));
        }
        if self.time.is_zero() {
            return Err("a round takes some time: --seconds 1 or more".to_owned());
        }
        Ok(())
    }
}

/// One load, once: its warm-up, and the round that counts.
///
/// [`Workload::Mixed`] has two sides, of which this is the producers'; [`run`] has both.
pub fn run_once(spec: &Spec, target: &Target) -> Outcome<Measurement> {
    let mut sides = run(spec, target)?;
    Ok(sides.swap_remove(0))
}

/// As [`run_once`]; for [`Workload::Tail`] the end to end and then the producers' own
/// side, for [`Workload::Mixed`] the producers' and then the consumers'.
pub fn run(spec: &Spec, target: &Target) -> Outcome<Vec<Measurement>> {
    round::run(spec, target)
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Workload::Produce => "produce",
            Workload::Consume => "consume",
            Workload::Tail => "tail",
            Workload::Mixed => "mixed",
        })
    }
}

/// As a person would say it: "produce, 1 partition, 1 MiB of 1 KiB records".
impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, ", self.workload)?;
        match &self.named_topics[..] {
            [] if self.topics == 1 => write!(f, "{}", counted(self.partitions, "partition"))?,
            [] => write!(
                f,
                "{} of {}",
                counted(self.topics, "topic"),
                counted(self.partitions, "partition")
            )?,
            names => write!(f, "{}", names.join(","))?,
        }
        let content = &self.content;
        write!(
            f,
            ", {} of {} records",
            size(content.batch_bytes),
            size(content.record_bytes)
        )?;
        if content.codec != Codec::None {
            write!(f, ", {}", content.codec)?;
        }
        if self.batches > 1 {
            write!(f, ", {} batches a request", self.batches)?;
        }
        if self.workload != Workload::Consume {
            let acks = if self.acks == -1 {
                "all".to_owned()
            } else {
                self.acks.to_string()
            };
            write!(
                f,
                ", acks={acks}, {}, {} in flight",
                counted(self.connections, "connection"),
                self.in_flight
            )?;
        }
        if self.workload != Workload::Produce {
            write!(f, ", {}", counted(self.consumers, "consumer"))?;
        }
        if self.evict.is_some() {
            write!(f, ", cold")?;
        }
        match self.rate {
            Some(Rate::Records(rate)) => write!(f, ", {rate} records/s"),
            Some(Rate::Requests(rate)) => write!(f, ", {rate} requests/s"),
            None => write!(f, ", as fast as it goes"),
        }
    }
}

fn counted(n: u32, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

fn size(bytes: usize) -> String {
    match bytes {
        0 => "0 B".to_owned(),
        mib if mib % (1 << 20) == 0 => format!("{} MiB", mib >> 20),
        kib if kib % (1 << 10) == 0 => format!("{} KiB", kib >> 10),
        bytes => format!("{bytes} B"),
    }
}
