//! The rows of the consumers.
//!
//! ```text
//!   cold     1 GiB in 4 partitions, out of the page cache and more than Klamm keeps in
//!            memory; 4 consumers read it once                  beside sendfile's own rate
//!   recent   32 MiB in 4 partitions, just written; 4 consumers, over and over
//!                                                              beside the loopback's rate
//!   tail     10,000 records a second, acks=all, from due until read
//!                                                              beside the disk's sync, and the disk alone
//!                                                              at the same rate
//! ```

use super::Taking;
use crate::floors::{Floor, Floors, Which, latency_beside, sync_latency};
use crate::load::{Spec, Workload, run_once};
use crate::measurement::Measurement;
use crate::report::{Aim, Figure};
use crate::{Outcome, compare};

const FLOOR_BYTES: u64 = 256 << 20;
const COLD_BYTES: u64 = 1 << 30;
/// Within what Klamm keeps of what was written last.
const RECENT_BYTES: u64 = 32 << 20;
const SYNCS: u64 = 500;

fn catch_up(taking: &Taking<'_>) -> Spec {
    let mut spec = taking.spec(Workload::Consume);
    (spec.partitions, spec.connections, spec.consumers) = (4, 4, 4);
    spec
}

pub fn cold(taking: &mut Taking<'_>) -> Outcome {
    let mut spec = catch_up(taking);
    (spec.fill_bytes, spec.once) = (COLD_BYTES, true);
    let rounds = beside_floor(taking, "cold", spec, true, Floors::cold)?;
    let (rates, floors, to) = rounds.rates();
    let cpu = rounds.values(compare::cpu_per_gb)?;
    let user = rounds.values(|m| Some(m.cpu_per_gb()?.0))?;
    let system = rounds.values(|m| Some(m.cpu_per_gb()?.1))?;
    let figures = [
        Figure::median("cold", "catch-up read, cold", rates, "MB/s"),
        Figure::median("cold_floor", "  sendfile's own rate", floors, "MB/s"),
        Figure::median("cold_to_floor", "  of sendfile's", to, "x").aim(Aim::AtLeast(0.8)),
        Figure::median("cold_cpu", "  server's CPU", cpu, "s/GB").aim(Aim::AtMost(0.2)),
        Figure::median("cold_cpu_user", "    of that, user", user, "s/GB"),
        Figure::median("cold_cpu_system", "    of that, system", system, "s/GB"),
        Figure::median(
            "cold_floor_cpu",
            "  sendfile's own CPU",
            rounds.floor_cpu(),
            "s/GB",
        ),
    ];
    figures
        .into_iter()
        .for_each(|figure| taking.report.add(figure));
    Ok(())
}

pub fn recent(taking: &mut Taking<'_>) -> Outcome {
    let mut spec = catch_up(taking);
    spec.fill_bytes = RECENT_BYTES;
    let rounds = beside_floor(taking, "recent", spec, false, Floors::recent)?;
    let (rates, floors, to) = rounds.rates();
    let cpu = rounds.values(compare::cpu_per_gb)?;
    let figures = [
        Figure::median("recent", "catch-up read, recent", rates, "MB/s"),
        Figure::median("recent_floor", "  loopback's rate", floors, "MB/s"),
        Figure::median("recent_to_floor", "  of the loopback's", to, "x").aim(Aim::AtLeast(0.9)),
        Figure::median("recent_cpu", "  server's CPU", cpu, "s/GB"),
        Figure::median(
            "recent_floor_cpu",
            "  loopback's own CPU",
            rounds.floor_cpu(),
            "s/GB",
        ),
    ];
    figures
        .into_iter()
        .for_each(|figure| taking.report.add(figure));
    Ok(())
}

pub fn tail(taking: &mut Taking<'_>) -> Outcome {
    let spec = taking.spec(Workload::Tail);
    let (mut p50, mut p99, mut p99_9) = (Vec::new(), Vec::new(), Vec::new());
    let (mut syncs, mut alone, mut to) = (Vec::new(), Vec::new(), Vec::new());
    taking.with_klamm("tail", |taking, klamm, folder| {
        for round in 0..=taking.args.repeats {
            let measured = run_once(&spec, &klamm.target)?;
            let site = taking.site(&folder, 0);
            let [sync, _] = sync_latency(&site, SYNCS)?;
            let disk = latency_beside(&site, &measured)?.value_at_percentile(99.0) as f64 / 1e6;
            if round == 0 {
                continue;
            }
            for (at, to) in [(50.0, &mut p50), (99.0, &mut p99), (99.9, &mut p99_9)] {
                to.push(measured.latency_at(at).as_secs_f64() * 1e3);
            }
            syncs.push(sync.as_secs_f64() * 1e3);
            to.push(measured.latency_at(99.0).as_secs_f64() * 1e3 / disk);
            alone.push(disk);
            taking.shown_last(measured);
        }
        Ok(())
    })?;
    let figures = [
        Figure::median("tail_p99", "end to end, 10,000 records/s: p99", p99, "ms").aim_under(2.0),
        Figure::median("tail_p50", "  p50", p50, "ms"),
        Figure::median("tail_p99_9", "  p99.9", p99_9, "ms"),
        Figure::median(
            "tail_sync",
            "  disk: 4 KiB write and sync, p50 (the aim wants under 0.5)",
            syncs,
            "ms",
        ),
        Figure::median(
            "tail_disk_p99",
            "  the disk alone, as many writes and syncs a second: p99",
            alone,
            "ms",
        ),
        Figure::median("tail_to_disk", "  p99 : the disk's alone", to, "x"),
    ];
    figures
        .into_iter()
        .for_each(|figure| taking.report.add(figure));
    Ok(())
}

/// Rounds, each with the floor that was taken beside it.
struct Beside(Vec<(Measurement, Floor)>);

impl Beside {
    /// Klamm's, the floor's, and what one is of the other.
    fn rates(&self) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let ours: Vec<f64> = self.0.iter().map(|(m, _)| m.mb_per_second()).collect();
        let floors: Vec<f64> = self.0.iter().map(|(_, f)| f.mb_per_second()).collect();
        let to = super::ratios(&ours, &floors);
        (ours, floors, to)
    }

    fn values(&self, of: impl Fn(&Measurement) -> Option<f64>) -> Outcome<Vec<f64>> {
        let values: Option<Vec<f64>> = self.0.iter().map(|(m, _)| of(m)).collect();
        values.ok_or_else(|| "the server's CPU is not known".to_owned())
    }

    fn floor_cpu(&self) -> Vec<f64> {
        let total = |(_, floor): &(_, Floor)| {
            let (user, system) = floor.cpu_per_gb();
            user + system
        };
        self.0.iter().map(total).collect()
    }
}

fn beside_floor(
    taking: &mut Taking<'_>,
    name: &str,
    mut spec: Spec,
    cold: bool,
    which: impl Fn(&Floors) -> Option<Floor>,
) -> Outcome<Beside> {
    let mut all = Vec::new();
    taking.with_klamm(name, |taking, klamm, folder| {
        spec.evict = cold.then(|| folder.join("klamm"));
        let floors_folder = folder.join("floors");
        std::fs::create_dir_all(&floors_folder).map_err(|e| format!("a folder: {e}"))?;
        for round in 0..=taking.args.repeats {
            let site = taking.site(&floors_folder, FLOOR_BYTES);
            let floors = Floors::take(&site, Which::Consume)?;
            let floor = which(&floors).ok_or("no floor was taken")?;
            let measured = run_once(&spec, &klamm.target)?;
            if round > 0 {
                all.push((measured, floor));
            }
        }
        Ok(())
    })?;
    if let Some((measured, _)) = all.last() {
        taking.shown.push(measured.clone());
    }
    Ok(Beside(all))
}
