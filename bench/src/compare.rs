//! `compare`: the same load on two or more brokers in turn, and the ratio of each figure.
//!
//! ```text
//!   untimed   A  B       round 1   A  B      round 2   A  B     ...
//!                                  \  /                \  /
//!                                  ratio               ratio   -> median (least to greatest)
//!   before each: sync, so that no broker pays for what another left in the page cache
//! ```
//!
//! A round's ratio is of two measurements that are seconds apart: on a machine that has
//! other things to do, what slows one slows the other, and the median of the ratios says
//! more than the ratio of the medians.

use crate::against::{Against, Server};
use crate::application::Engine;
use crate::broker::Binary;
use crate::cores::Cores;
use crate::data_folder::DataFolder;
use crate::floors::{Floors, Site, Which};
use crate::load::{Args as LoadArgs, Target, Workload};
use crate::measurement::{Measurement, median_round};
use crate::process::Cpu;
use crate::report::{Figure, Report};
use crate::{Common, Outcome};
use std::path::Path;
use std::time::Instant;

/// The same load on two or more brokers in turn (A B A B), and the ratios.
///
/// Each broker is started on an empty folder under --data, on the server's core, and
/// runs, idle, while the others have their turn. The first one is held against each of
/// the others. Given are medians of the rounds with the least and the greatest; a ratio
/// is the median of the rounds' ratios. A control (plain writes of as many bytes) says
/// what kind of moment it was.
#[derive(clap::Args)]
pub struct Args {
    /// klamm, kafka, kafka-flush (flush.messages=1), or NAME=HOST:PORT[,PID]; repeat it.
    /// Default: klamm and kafka.
    #[arg(long, value_name = "WHOM", global = true)]
    against: Vec<Against>,

    /// Rounds of each, after an untimed one.
    #[arg(long, value_name = "N", default_value_t = 5, global = true, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,

    #[command(subcommand)]
    load: Load,
}

#[derive(clap::Subcommand)]
enum Load {
    /// Records into the brokers.
    Produce(LoadArgs),
    /// Records out of them, from the start.
    Consume(LoadArgs),
    /// From the producer to the consumer, at a rate.
    Tail(LoadArgs),
    /// Producers and consumers at once.
    Mixed(LoadArgs),
}

const CONTROL_BYTES: u64 = 512 << 20;

pub fn run(args: &Args, common: &Common) -> Outcome<(Report, Vec<Measurement>)> {
    let (workload, load) = match &args.load {
        Load::Produce(load) => (Workload::Produce, load),
        Load::Consume(load) => (Workload::Consume, load),
        Load::Tail(load) => (Workload::Tail, load),
        Load::Mixed(load) => (Workload::Mixed, load),
    };
    if load.names_brokers() {
        return Err("compare takes brokers by --against NAME=HOST:PORT[,PID]".to_owned());
    }
    let mut spec = load.spec(workload)?;
    let against = match &args.against[..] {
        [] => vec![Against::Klamm, Against::Kafka],
        [one] => vec![Against::Klamm, one.clone()],
        named => named.to_vec(),
    };
    let klamm = match against.contains(&Against::Klamm) {
        true => Some(Binary::find(common, common.cores.unwrap_or(1))?),
        false => None,
    };
    let mut report = Report::new("compare", spec.to_string(), klamm.as_ref())?;
    let cores = Cores::for_load(common.cores.unwrap_or(1), &mut report)?;
    spec.client_cores = cores.of_client();
    spec.threads = spec.client_cores.len();
    let folder = DataFolder::make(&common.data)?;
    if load.is_cold() {
        if against
            .iter()
            .any(|whom| matches!(whom, Against::Other { .. }))
        {
            return Err(
                "--cold needs brokers whose data is here: klamm, kafka, kafka-flush".into(),
            );
        }
        spec.evict = Some(folder.join("brokers"));
    }
    let mut bout = Bout::start(&against, common, &cores, &folder.join("brokers"))?;
    let control = control(&cores, &folder.join("control"))?;
    let rounds = bout.rounds(args.rounds, |target| load.engine.run_once(&spec, target))?;
    bout.stop()?;
    if load.engine == Engine::Librdkafka {
        report.workload(rounds.of[0][0].workload.clone());
    }
    control.report(&mut report);
    rounds.report(&mut report);
    let shown = rounds.shown();
    Ok((report, shown))
}

/// The same bytes by plain writes, buffered and direct.
pub fn control(cores: &Cores, folder: &Path) -> Outcome<Floors> {
    std::fs::create_dir_all(folder)
        .map_err(|e| format!("{} can't be made: {e}", folder.display()))?;
    let site = Site {
        folder,
        cores,
        bytes: CONTROL_BYTES,
        request_bytes: 1 << 20,
    };
    Floors::take(&site, Which::Control)
}

/// Brokers that take turns.
pub struct Bout {
    servers: Vec<Server>,
}

impl Bout {
    /// All of them, answering.
    pub fn start(
        against: &[Against],
        common: &Common,
        cores: &Cores,
        folder: &Path,
    ) -> Outcome<Bout> {
        let start = |whom| Server::start(whom, common, cores, folder);
        let servers = against.iter().map(start).collect::<Outcome<_>>()?;
        Ok(Bout { servers })
    }

    /// One untimed round of each, then so many that count.
    pub fn rounds(
        &mut self,
        rounds: u32,
        mut run: impl FnMut(&Target) -> Outcome<Measurement>,
    ) -> Outcome<Rounds> {
        let mut all = Rounds {
            of: self.servers.iter().map(|_| Vec::new()).collect(),
            idle: self.servers.iter().map(|_| Vec::new()).collect(),
        };
        for round in 0..=rounds {
            for (n, server) in self.servers.iter().enumerate() {
                rustix::fs::sync();
                let (before, began) = (self.cpu()?, Instant::now());
                let measured = run(&server.target)?;
                let (after, seconds) = (self.cpu()?, began.elapsed().as_secs_f64());
                if round == 0 {
                    continue;
                }
                all.of[n].push(measured);
                for (other, (before, after)) in before.iter().zip(after).enumerate() {
                    if let (true, Some(before), Some(after)) = (other != n, before, after) {
                        all.idle[other].push(100.0 * (after - *before).total_s() / seconds);
                    }
                }
            }
        }
        Ok(all)
    }

    fn cpu(&self) -> Outcome<Vec<Option<Cpu>>> {
        let cpu = |server: &Server| server.target.pid.map(Cpu::of).transpose();
        self.servers.iter().map(cpu).collect()
    }

    pub fn target(&self, n: usize) -> &Target {
        &self.servers[n].target
    }

    pub fn stop(self) -> Outcome {
        self.servers.into_iter().try_for_each(Server::stop)
    }
}

/// What the rounds have shown, by server.
pub struct Rounds {
    pub of: Vec<Vec<Measurement>>,
    /// Percent of a core that it used in the others' turns.
    idle: Vec<Vec<f64>>,
}

/// A figure, whoever it is taken of. None: this measurement does not have it.
pub struct Measure {
    pub id: &'static str,
    pub label: &'static str,
    pub unit: &'static str,
    pub of: fn(&Measurement) -> Option<f64>,
}

pub const MEASURES: [Measure; 11] = [
    Measure {
        id: "rate",
        label: "throughput",
        unit: "MB/s",
        of: |m| Some(m.mb_per_second()),
    },
    Measure {
        id: "records",
        label: "  records",
        unit: "/s",
        of: |m| Some(m.records_per_second()),
    },
    Measure {
        id: "cpu",
        label: "server's CPU",
        unit: "s/GB",
        of: cpu_per_gb,
    },
    Measure {
        id: "cpu_user",
        label: "  of that, user",
        unit: "s/GB",
        of: |m| Some(m.cpu_per_gb()?.0),
    },
    Measure {
        id: "cpu_system",
        label: "  of that, system",
        unit: "s/GB",
        of: |m| Some(m.cpu_per_gb()?.1),
    },
    Measure {
        id: "records_per_cpu_second",
        label: "records a server's CPU second",
        unit: "/s",
        of: records_per_cpu_second,
    },
    Measure {
        id: "p50",
        label: "latency p50",
        unit: "ms",
        of: |m| latency(m, 50.0),
    },
    Measure {
        id: "p99",
        label: "  p99",
        unit: "ms",
        of: |m| latency(m, 99.0),
    },
    Measure {
        id: "p99_9",
        label: "  p99.9",
        unit: "ms",
        of: |m| latency(m, 99.9),
    },
    Measure {
        id: "max",
        label: "  max",
        unit: "ms",
        of: |m| latency(m, 100.0),
    },
    Measure {
        id: "memory",
        label: "server's memory at most",
        unit: "MiB",
        of: |m| Some(m.used?.resident_bytes_max as f64 / f64::from(1 << 20)),
    },
];

pub fn cpu_per_gb(m: &Measurement) -> Option<f64> {
    m.cpu_per_gb().map(|(user, system)| user + system)
}

pub fn records_per_cpu_second(m: &Measurement) -> Option<f64> {
    let cpu = m.used?.cpu.total_s();
    (cpu > 0.0).then(|| m.records as f64 / cpu)
}

/// None where no latency was taken.
pub fn latency(m: &Measurement, percentile: f64) -> Option<f64> {
    (!m.latency.is_empty()).then(|| m.latency_at(percentile).as_secs_f64() * 1e3)
}

impl Rounds {
    /// A server's figure in each round; None where some round does not have it.
    pub fn values(
        &self,
        server: usize,
        of: impl Fn(&Measurement) -> Option<f64>,
    ) -> Option<Vec<f64>> {
        self.of[server].iter().map(of).collect()
    }

    fn name(&self, server: usize) -> &str {
        &self.of[server][0].server
    }

    /// Every figure of the first server beside that of each other.
    pub fn report(&self, to: &mut Report) {
        for other in 1..self.of.len() {
            for measure in &MEASURES {
                let (ours, theirs) = (self.values(0, measure.of), self.values(other, measure.of));
                let (Some(ours), Some(theirs)) = (ours, theirs) else {
                    continue;
                };
                let id = match self.of.len() {
                    2 => measure.id.to_owned(),
                    _ => format!("{}_beside_{other}", measure.id),
                };
                let figure = Figure::median(id, measure.label, ours, measure.unit);
                to.add(figure.beside_in_turn(self.name(other), theirs));
            }
        }
        for (n, idle) in self.idle.iter().enumerate() {
            if !idle.is_empty() {
                let label = format!("{}: CPU in the others' turns", self.name(n));
                to.add(Figure::median(
                    format!("idle_{n}"),
                    label,
                    idle.clone(),
                    "%",
                ));
            }
        }
        let mut warnings: Vec<&String> =
            self.of.iter().flatten().flat_map(|m| &m.warnings).collect();
        warnings.sort();
        warnings.dedup();
        warnings
            .into_iter()
            .for_each(|warning| to.warn(warning.clone()));
    }

    /// Of each server the round whose throughput is the median one.
    pub fn shown(self) -> Vec<Measurement> {
        self.of.into_iter().map(median_round).collect()
    }
}
