//! `produce`, `consume`, `tail`, `mixed`: from the command line to the table.
//!
//! ```text
//!   Args --> Spec      --brokers: theirs     else: a Klamm of our own, on its own cores
//!              \________________________________/
//!                 N times: warm-up, round --> medians --> Report
//! ```

use super::{Rate, Spec, Target, Workload, run as run_load};
use crate::broker::Binary;
use crate::cores::Cores;
use crate::data_folder::DataFolder;
use crate::measurement::{Measurement, Second};
use crate::report::{Figure, Report};
use crate::{Common, Outcome};
use klamm_engine::codec::Codec;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// What all four have in common. MB and GB are 10^6 and 10^9 bytes of record batches as
/// they go over the wire; a latency runs from when a request was due (--rate) or sent.
#[derive(clap::Args)]
pub struct Args {
    /// The broker to load, HOST:PORT or several by commas; default: a Klamm of our own.
    #[arg(long, visible_alias = "bootstrap-server", value_name = "HOST:PORT,...")]
    brokers: Option<String>,

    /// What to call the broker of --brokers.
    #[arg(long, value_name = "NAME", requires = "brokers")]
    server: Option<String>,

    /// Its process, for what it uses.
    #[arg(long, value_name = "PID", requires = "brokers")]
    server_pid: Option<u32>,

    /// Its data, which --cold puts out of the page cache.
    #[arg(long, value_name = "FOLDER", requires = "brokers")]
    server_data: Option<PathBuf>,

    /// Topics that are there already; default: fresh ones, deleted at the end.
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', conflicts_with_all = ["topics", "partitions"])]
    topic: Vec<String>,

    /// Fresh topics.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    topics: u32,

    /// Partitions of each.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    partitions: u32,

    /// Producers' connections, over all leaders; in `tail` each has a consumer's beside it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: u32,

    /// Consumers' connections; default: as many as --connections.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    consumers: Option<u32>,

    /// Bytes of a record's value.
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(0..=64 << 20))]
    record_size: u32,

    /// Bytes of a batch before it is packed, at most. Default: 1 MiB; `tail`: 12 KiB.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=64 << 20))]
    batch_size: Option<u32>,

    /// Batches in a request, each of another partition of the connection's.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batches: u32,

    /// When a broker answers: 0, 1 or all.
    #[arg(long, value_name = "ACKS", default_value = "all", value_parser = acks, allow_hyphen_values = true)]
    acks: i16,

    /// none, gzip, snappy, lz4 or zstd; records then pack to about a half.
    #[arg(long, value_name = "CODEC", default_value = "none", value_parser = codec)]
    compression: Codec,

    /// Records have keys, of so many.
    #[arg(long, value_name = "N", default_value_t = 0)]
    keys: u32,

    /// Records a second, in an open loop. Default: as fast as it goes; `tail`: 10000.
    #[arg(long, visible_alias = "throughput", value_name = "N")]
    rate: Option<f64>,

    /// The same, as requests a second.
    #[arg(long, value_name = "N", conflicts_with = "rate")]
    request_rate: Option<f64>,

    /// Produce requests under way on a connection, at most.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: u32,

    /// How long a round takes.
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    seconds: f64,

    /// Seconds of the same load before it, which do not count; 0: none.
    #[arg(long, value_name = "N", default_value_t = 3.0)]
    warm_up: f64,

    /// Rounds; with more than one, figures are medians.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeats: u32,

    /// `consume`: MiB that are put into fresh topics first.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    fill_mib: u32,

    /// `consume`: one pass over the data and not over and over.
    #[arg(long)]
    once: bool,

    /// `consume`: one pass, with the data put out of the page cache before it.
    #[arg(long)]
    cold: bool,

    /// Bytes of an answer to Fetch, at most (fetch.max.bytes).
    #[arg(long, value_name = "BYTES", default_value_t = 50 << 20)]
    fetch_max_bytes: i32,

    /// And of a partition in it (max.partition.fetch.bytes).
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    max_partition_fetch_bytes: i32,

    /// A Fetch waits for so many bytes (fetch.min.bytes) ...
    #[arg(long, value_name = "BYTES", default_value_t = 1)]
    fetch_min_bytes: i32,

    /// ... and for so long (fetch.max.wait.ms).
    #[arg(long, value_name = "MS", default_value_t = 500)]
    fetch_max_wait_ms: i32,

    /// Consumers check the CRC of every batch.
    #[arg(long)]
    check: bool,

    /// Threads of the client; default: one for each of its processors.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// Processors of our own broker, such as 0 or 0,2. Default: the first ones, as many
    /// as --cores, where one is left for the client.
    #[arg(
        long,
        value_name = "N,...",
        value_delimiter = ',',
        requires = "client_cores",
        conflicts_with = "brokers"
    )]
    server_cores: Vec<usize>,

    /// Processors of the client. Default: the last one.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    client_cores: Vec<usize>,
}

/// `acks` as Kafka's producers have it.
fn acks(text: &str) -> Result<i16, String> {
    match text {
        "all" | "-1" => Ok(-1),
        "0" => Ok(0),
        "1" => Ok(1),
        _ => Err("0, 1 or all".to_owned()),
    }
}

fn codec(text: &str) -> Result<Codec, String> {
    let found = Codec::ALL.into_iter().find(|codec| codec.name() == text);
    found.ok_or_else(|| "none, gzip, snappy, lz4 or zstd".to_owned())
}

impl Args {
    fn spec(&self, workload: Workload) -> Outcome<Spec> {
        let seconds =
            |n: f64| Duration::try_from_secs_f64(n).map_err(|e| format!("{n} seconds: {e}"));
        let mut spec = Spec::new(workload);
        spec.named_topics.clone_from(&self.topic);
        (spec.topics, spec.partitions) = (self.topics, self.partitions);
        spec.connections = self.connections;
        spec.consumers = self.consumers.unwrap_or(self.connections);
        spec.content.record_bytes = self.record_size as usize;
        if let Some(bytes) = self.batch_size {
            spec.content.batch_bytes = bytes as usize;
        }
        (spec.content.codec, spec.content.keys) = (self.compression, self.keys);
        (spec.batches, spec.acks, spec.in_flight) = (self.batches, self.acks, self.in_flight);
        let requests = self.request_rate.map(Rate::Requests);
        spec.rate = self.rate.map(Rate::Records).or(requests).or(spec.rate);
        (spec.warm_up, spec.time) = (seconds(self.warm_up)?, seconds(self.seconds)?);
        spec.fill_bytes = u64::from(self.fill_mib) << 20;
        spec.once = self.once;
        spec.limits.max_bytes = self.fetch_max_bytes;
        spec.limits.max_partition_bytes = self.max_partition_fetch_bytes;
        spec.limits.min_bytes = self.fetch_min_bytes;
        spec.limits.max_wait_ms = self.fetch_max_wait_ms;
        spec.check = self.check;
        spec.check()?;
        Ok(spec)
    }
}

pub fn run(workload: Workload, args: &Args, common: &Common) -> Outcome<Report> {
    let mut spec = args.spec(workload)?;
    match &args.brokers {
        Some(bootstrap) => {
            let target = Target {
                bootstrap: bootstrap.clone(),
                pid: args.server_pid,
                server: args.server.clone().unwrap_or_else(|| bootstrap.clone()),
            };
            if args.cold && args.server_data.is_none() {
                return Err(
                    "--cold needs to know where the broker's data is: name it with \
                            --server-data"
                        .to_owned(),
                );
            }
            spec.evict = args.server_data.clone().filter(|_| args.cold);
            spec.client_cores.clone_from(&args.client_cores);
            let report = Report::new(name(workload), String::new(), None)?;
            rounds(report, spec, &target, args)
        }
        None => own(spec, args, common),
    }
}

/// Against a Klamm of our own.
fn own(mut spec: Spec, args: &Args, common: &Common) -> Outcome<Report> {
    let count = common.cores.unwrap_or(1);
    let klamm = Binary::find(common, count)?;
    let mut report = Report::new(name(spec.workload), String::new(), Some(&klamm))?;
    let cores = match (&args.server_cores[..], &args.client_cores[..]) {
        ([], client) => match (Cores::apart(count)?, client) {
            (Some(apart), []) => apart,
            (Some(apart), client) => Cores::named(&apart.of_server(), client)?,
            (None, _) => {
                report.warn(format!(
                    "the client has no processor of its own beside the broker's {count}: each \
                     takes time from the other"
                ));
                Cores::together()?
            }
        },
        (server, client) => Cores::named(server, client)?,
    };
    spec.client_cores = cores.of_client();
    let folder = DataFolder::make(&common.data)?;
    let data = folder.join("broker");
    spec.evict = args.cold.then(|| data.clone());
    let started = cores.start(|| klamm.start(&data))?;
    drop(started.connection);
    let target = Target {
        bootstrap: started.broker.bootstrap(),
        pid: Some(started.broker.pid()),
        server: "Klamm".to_owned(),
    };
    let report = rounds(report, spec, &target, args)?;
    started.broker.stop()?;
    Ok(report)
}

fn name(workload: Workload) -> &'static str {
    match workload {
        Workload::Produce => "produce",
        Workload::Consume => "consume",
        Workload::Tail => "tail",
        Workload::Mixed => "mixed",
    }
}

fn rounds(mut report: Report, mut spec: Spec, target: &Target, args: &Args) -> Outcome<Report> {
    spec.threads = match args.threads {
        Some(threads) => threads as usize,
        None if spec.client_cores.is_empty() => {
            thread::available_parallelism().map_or(1, usize::from)
        }
        None => spec.client_cores.len(),
    };
    let mut sides: Vec<Vec<Measurement>> = Vec::new();
    for _ in 0..args.repeats {
        for (n, measured) in run_load(&spec, target)?.into_iter().enumerate() {
            if sides.len() == n {
                sides.push(Vec::new());
            }
            sides[n].push(measured);
        }
    }
    let server = &sides[0][0].server;
    report.workload(format!(
        "{spec}; {}, {} x {:?}",
        server, args.repeats, spec.time
    ));
    for (n, side) in sides.iter().enumerate() {
        add(&mut report, spec.workload, n, side);
    }
    Ok(report)
}

/// The medians of one side's rounds.
fn add(report: &mut Report, workload: Workload, n: usize, rounds: &[Measurement]) {
    let side = match (workload, n) {
        (Workload::Produce | Workload::Consume, _) => "",
        (Workload::Tail, 0) => "end to end",
        (Workload::Mixed, 1) => "consumers",
        _ => "producers",
    };
    let mut figure = |id: &str, label: &str, unit, of: &dyn Fn(&Measurement) -> Option<f64>| {
        let of: Vec<f64> = rounds.iter().filter_map(of).collect();
        if of.is_empty() {
            return;
        }
        let (id, label) = match side {
            "" => (id.to_owned(), label.to_owned()),
            side => (
                format!("{}_{id}", side.replace(' ', "_")),
                format!("{side}: {label}"),
            ),
        };
        report.add(Figure::median(id, label, of, unit));
    };
    figure("rate", "throughput", "MB/s", &|m| Some(m.mb_per_second()));
    figure("records", "  records", "records/s", &|m| {
        Some(m.records_per_second())
    });
    figure("requests", "  requests", "requests/s", &|m| {
        Some(exact(m.requests) / m.wall.as_secs_f64())
    });
    for (id, label, pick) in COURSE {
        figure(id, label, "MB/s", &|m| course(&m.course, *pick));
    }
    for (id, label, percentile) in PERCENTILES {
        figure(id, label, "ms", &|m| {
            Some(m.latency_at(*percentile).as_secs_f64() * 1000.0)
        });
    }
    // What a process used it used for both sides.
    if n > 0 {
        return;
    }
    let per_gb = |m: &Measurement, seconds: f64| Some(seconds / (exact(m.bytes) / 1e9));
    figure("server_user", "server's CPU, user", "s/GB", &|m| {
        m.cpu_per_gb().map(|(user, _)| user)
    });
    figure("server_system", "server's CPU, system", "s/GB", &|m| {
        m.cpu_per_gb().map(|(_, system)| system)
    });
    figure("server_share", "server's CPU, of one core", "%", &|m| {
        Some(100.0 * m.used?.cpu.total_s() / m.wall.as_secs_f64())
    });
    figure("server_memory", "server's memory at most", "MiB", &|m| {
        Some(exact(m.used?.resident_bytes_max) / f64::from(1 << 20))
    });
    figure(
        "server_switches",
        "server's context switches, voluntary",
        "/s",
        &|m| Some(exact(m.used?.switches_voluntary) / m.wall.as_secs_f64()),
    );
    figure("server_switches_involuntary", "  involuntary", "/s", &|m| {
        Some(exact(m.used?.switches_involuntary) / m.wall.as_secs_f64())
    });
    figure("client_user", "client's CPU, user", "s/GB", &|m| {
        per_gb(m, m.client.user_s)
    });
    figure("client_system", "client's CPU, system", "s/GB", &|m| {
        per_gb(m, m.client.system_s)
    });
    figure("client_share", "client's CPU, of one core", "%", &|m| {
        Some(100.0 * m.client.total_s() / m.wall.as_secs_f64())
    });
    let mut told: Vec<&String> = rounds.iter().flat_map(|m| &m.warnings).collect();
    told.dedup();
    for warning in told {
        report.warn(warning.clone());
    }
}

const PERCENTILES: &[(&str, &str, f64)] = &[
    ("p50", "latency p50", 50.0),
    ("p90", "  p90", 90.0),
    ("p99", "  p99", 99.0),
    ("p99_9", "  p99.9", 99.9),
    ("p99_99", "  p99.99", 99.99),
    ("max", "  max", 100.0),
];

/// The slowest second, the one in the middle, the fastest.
#[derive(Clone, Copy)]
enum Pick {
    Least,
    Median,
    Most,
}

const COURSE: &[(&str, &str, Pick)] = &[
    ("second_min", "  slowest second", Pick::Least),
    ("second_median", "  median second", Pick::Median),
    ("second_max", "  fastest second", Pick::Most),
];

/// The last second is seldom a whole one, and is left out.
fn course(seconds: &[Second], pick: Pick) -> Option<f64> {
    let (_, whole) = seconds.split_last()?;
    let mut bytes: Vec<u64> = whole.iter().map(|second| second.bytes).collect();
    bytes.sort_unstable();
    let at = match pick {
        Pick::Least => bytes.first(),
        Pick::Median => bytes.get(bytes.len() / 2),
        Pick::Most => bytes.last(),
    };
    at.map(|&bytes| exact(bytes) / 1e6)
}

#[allow(clippy::cast_precision_loss)] // exact below 2^53
fn exact(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_second_is_none_of_the_course() {
        let second = |bytes| Second {
            bytes,
            ..Second::default()
        };
        let seconds = [
            second(3_000_000),
            second(1_000_000),
            second(2_000_000),
            second(1),
        ];
        let picked = [Pick::Least, Pick::Median, Pick::Most].map(|pick| course(&seconds, pick));
        assert_eq!(picked, [Some(1.0), Some(2.0), Some(3.0)]);
        assert_eq!(course(&seconds[..1], Pick::Least), None);
        assert_eq!(course(&[], Pick::Least), None);
    }

    #[test]
    fn acks_and_codecs_by_kafkas_names() {
        assert_eq!(
            (acks("all"), acks("-1"), acks("0")),
            (Ok(-1), Ok(-1), Ok(0))
        );
        assert!(acks("2").is_err());
        assert_eq!(codec("zstd"), Ok(Codec::Zstd));
        assert!(codec("brotli").is_err());
    }
}
