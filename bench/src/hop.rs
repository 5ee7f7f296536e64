//! `hop`: what it costs that a request comes in on another core than its partition's.
//!
//! ```text
//!   klamm serve --cores 2 --core-ports P
//!      P    core 0 <--- home: the leader that Metadata names
//!      P+1  core 1 <--- elsewhere: the other one, which forwards        (or the reverse)
//!
//!   each load, untimed: home, elsewhere     then so many times: home, elsewhere -> a ratio
//! ```
//!
//! One connection, one partition, fresh each time: it may live on either core. Both ways go
//! to the same process, so what differs is the hop alone: two messages between cores, two
//! cores that wake up instead of one, and what was moved from one's caches to the other's.
//! A broker without ports of its cores serves half of its requests elsewhere if it has two
//! cores, and more if it has more.
//!
//! With a client on a third core a latency is that of the broker. On a machine of two, the
//! client takes time from one of the broker's cores, and from both of them where a request
//! needs both: believe the server's CPU there.

use crate::broker::Binary;
use crate::cores::Cores;
use crate::data_folder::DataFolder;
use crate::load::{Content, Route, Spec, Target, Workload, run_once};
use crate::measurement::{Measurement, median_round};
use crate::report::{Figure, Report};
use crate::syscalls::{self, By};
use crate::{Common, Outcome, broker, compare};
use klamm_engine::codec::Codec;
use std::path::Path;
use std::time::Duration;

/// A request to the core where its partition lives, beside one to another core.
///
/// One broker, each core with a port of its own, and one connection: to the port that
/// Metadata names as the leader's, and to another core's, in turns. Small requests one at
/// a time (a record of 100 bytes: synced, not synced, and read again) for latency and CPU
/// a request, and where perf or strace may, system calls of the produces; requests of 1 MiB
/// as fast as it goes for CPU a GB. Given are medians of the rounds with the least and the
/// greatest; a ratio is the median of the rounds' ratios.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds of each, after an untimed one.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    /// How long a round lasts.
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    seconds: f64,
}

const ELSEWHERE: &str = "another core";

/// Enough for some thousand fetches before they begin again, and soon filled.
const SMALL_FILL_BYTES: u64 = 256 << 10;
/// Within what Klamm keeps of what was written last.
const LARGE_FILL_BYTES: u64 = 32 << 20;
const SMALL_RECORD_BYTES: usize = 100;

/// A setting of the broker: nothing is synced before it is answered.
const NO_SYNC: &str = "log.flush.interval.messages=9223372036854775807";

struct Load {
    id: &'static str,
    label: &'static str,
    workload: Workload,
    is_small: bool,
    is_synced: bool,
}

const LOADS: [Load; 5] = [
    Load {
        id: "produce_small",
        label: "produce, 100 B",
        workload: Workload::Produce,
        is_small: true,
        is_synced: true,
    },
    Load {
        id: "produce_small_unsynced",
        label: "produce, 100 B, not synced",
        workload: Workload::Produce,
        is_small: true,
        is_synced: false,
    },
    Load {
        id: "fetch_small",
        label: "recent fetch, 100 B",
        workload: Workload::Consume,
        is_small: true,
        is_synced: false,
    },
    Load {
        id: "produce_large",
        label: "produce, 1 MiB",
        workload: Workload::Produce,
        is_small: false,
        is_synced: true,
    },
    Load {
        id: "fetch_large",
        label: "recent fetch, 1 MiB",
        workload: Workload::Consume,
        is_small: false,
        is_synced: false,
    },
];

pub fn run(args: &Args, common: &Common) -> Outcome<(Report, Vec<Measurement>)> {
    let count = common.cores();
    if count < 2 {
        return Err("--cores 1: with one core there is nowhere to cross to".to_owned());
    }
    let time = Duration::try_from_secs_f64(args.seconds)
        .ok()
        .filter(|time| !time.is_zero())
        .ok_or_else(|| format!("--seconds {}: some time is needed", args.seconds))?;
    let workload = format!(
        "{count} cores, 1 connection, {} rounds of {} s each, to the partition's core and to another",
        args.rounds, args.seconds
    );
    let klamm = Binary::find(common, count)?;
    let mut report = Report::new("hop", workload, Some(&klamm))?;
    let cores = match Cores::apart(count)? {
        Some(cores) => cores,
        None => {
            report.warn(format!(
                "the machine has no core besides the broker's {count}: the client shares them, \
                 and latencies are of both"
            ));
            Cores::together()?
        }
    };
    // Pinned to one of the broker's, it would meet the home of every second partition.
    let client = match cores.of_client()[..] {
        [one] => vec![one],
        _ => Vec::new(),
    };
    let folder = DataFolder::make(&common.data)?;
    let mut shown = Vec::new();
    for is_synced in [true, false] {
        let place = folder.join(if is_synced { "synced" } else { "unsynced" });
        let started = cores.start(|| start(common, count, is_synced, &place))?;
        for load in LOADS.iter().filter(|load| load.is_synced == is_synced) {
            eprintln!("klamm-bench: {}", load.label);
            let spec = load.spec(time, &client);
            let rounds = rounds(args.rounds, &spec, &started.broker)?;
            rounds.report(load, &mut report);
            if let Err(why) = report_calls(load, &spec, &started.broker, &mut report) {
                // Not everybody may look: the rest is worth as much without.
                report.warn(format!("{}: {why}", load.label));
            }
            shown.extend([median_round(rounds.home), median_round(rounds.elsewhere)]);
        }
        started.broker.stop()?;
    }
    Ok((report, shown))
}

fn start(common: &Common, cores: usize, sync: bool, place: &Path) -> Outcome<broker::Started> {
    let first = broker::free_ports(cores)?;
    let mut klamm = Binary::find(common, cores)?.flag("--core-ports", first);
    if !sync {
        klamm = klamm.flag("--set", NO_SYNC);
    }
    klamm.start(place)
}

impl Load {
    fn spec(&self, time: Duration, client: &[usize]) -> Spec {
        let mut spec = Spec::new(self.workload);
        spec.client_cores = client.to_vec();
        spec.warm_up = time / 4;
        spec.time = time;
        spec.fill_bytes = LARGE_FILL_BYTES;
        if self.is_small {
            spec.content = Content {
                record_bytes: SMALL_RECORD_BYTES,
                batch_bytes: SMALL_RECORD_BYTES,
                codec: Codec::None,
                keys: 0,
            };
            spec.in_flight = 1;
            spec.fill_bytes = SMALL_FILL_BYTES;
            // The first batch comes whole, whatever its size, and no other with it.
            spec.limits.max_partition_bytes = 1;
        }
        spec
    }
}

/// What each turn has shown.
struct Rounds {
    home: Vec<Measurement>,
    elsewhere: Vec<Measurement>,
}

fn turn(spec: &Spec, route: Route, broker: &broker::Broker) -> Outcome<Measurement> {
    let spec = Spec {
        route,
        ..spec.clone()
    };
    let server = match route {
        Route::Leader => "the partition's core",
        Route::Elsewhere => ELSEWHERE,
    };
    let target = Target {
        bootstrap: broker.bootstrap(),
        pid: Some(broker.pid()),
        server: format!("Klamm, {server}"),
    };
    run_once(&spec, &target)
}

/// System calls a request, all and those that drive a ring, in a round that is watched and
/// not timed; and who counted them.
fn calls(spec: &Spec, route: Route, broker: &broker::Broker) -> Outcome<([f64; 2], By)> {
    // All that the broker does while it is watched is for requests that count.
    let spec = Spec {
        warm_up: Duration::ZERO,
        ..spec.clone()
    };
    let (measured, calls, by) = syscalls::during(broker.pid(), || turn(&spec, route, broker))?;
    let each = |calls: u64| calls as f64 / measured.requests as f64;
    Ok(([each(calls.all), each(calls.io_uring_enter)], by))
}

/// Of what is not filled before: that would be counted with the rest.
fn report_calls(load: &Load, spec: &Spec, broker: &broker::Broker, to: &mut Report) -> Outcome {
    if !load.is_small || load.workload != Workload::Produce {
        return Ok(());
    }
    let ([all, ring], by) = calls(spec, Route::Leader, broker)?;
    let ([all_there, ring_there], _) = calls(spec, Route::Elsewhere, broker)?;
    let label = format!("  system calls a request ({})", by.name());
    let all = Figure::new(format!("{}_syscalls", load.id), label, all, "calls");
    to.add(all.beside(ELSEWHERE, vec![all_there]));
    let id = format!("{}_io_uring_enter", load.id);
    let ring = Figure::new(id, "    of them io_uring_enter", ring, "calls");
    to.add(ring.beside(ELSEWHERE, vec![ring_there]));
    Ok(())
}

fn rounds(count: u32, spec: &Spec, broker: &broker::Broker) -> Outcome<Rounds> {
    let (mut home, mut elsewhere) = (Vec::new(), Vec::new());
    for round in 0..=count {
        let measured = [
            turn(spec, Route::Leader, broker)?,
            turn(spec, Route::Elsewhere, broker)?,
        ];
        if round > 0 {
            let [at_home, there] = measured;
            home.push(at_home);
            elsewhere.push(there);
        }
    }
    Ok(Rounds { home, elsewhere })
}

/// A figure's part of an id, its label and its unit, and where it is in a measurement.
type Measure = (&'static str, &'static str, &'static str, Of);
type Of = fn(&Measurement) -> Option<f64>;

const OF_SMALL: [Measure; 4] = [
    ("p50", "p50", "us", |m| micros(m, 50.0)),
    ("p99", "p99", "us", |m| micros(m, 99.0)),
    ("rate", "requests", "/s", |m| {
        Some(m.requests as f64 / m.wall.as_secs_f64())
    }),
    ("cpu", "server's CPU a request", "us", |m| {
        let cpu = m.used?.cpu.total_s();
        (m.requests > 0).then(|| 1e6 * cpu / m.requests as f64)
    }),
];

const OF_LARGE: [Measure; 2] = [
    ("rate", "throughput", "MB/s", |m| Some(m.mb_per_second())),
    ("cpu", "server's CPU", "s/GB", compare::cpu_per_gb),
];

fn micros(m: &Measurement, percentile: f64) -> Option<f64> {
    compare::latency(m, percentile).map(|ms| 1e3 * ms)
}

impl Rounds {
    fn report(&self, load: &Load, to: &mut Report) {
        let measures: &[Measure] = if load.is_small { &OF_SMALL } else { &OF_LARGE };
        for (n, (id, label, unit, of)) in measures.iter().enumerate() {
            let values = |side: &[Measurement]| side.iter().map(of).collect::<Option<Vec<_>>>();
            let (Some(home), Some(elsewhere)) = (values(&self.home), values(&self.elsewhere))
            else {
                continue;
            };
            let label = match n {
                0 => format!("{}: {label}", load.label),
                _ => format!("  {label}"),
            };
            let figure = Figure::median(format!("{}_{id}", load.id), label, home, unit);
            to.add(figure.beside_in_turn(ELSEWHERE, elsewhere));
        }
        let sides = self.home.iter().chain(&self.elsewhere);
        for warning in sides.flat_map(|m| &m.warnings) {
            if !to.warnings().contains(warning) {
                to.warn(warning.clone());
            }
        }
    }
}
