//! The rows of the producers.
//!
//! ```text
//!   bulk     1 partition, 1 connection, 5 requests under way, 1 MiB of 1 KiB records each
//!   small    16 partitions, 16 connections, 16 KiB a request: the Java producer's batch
//!   many     1,000 partitions, 64 batches of 16 KiB a request, 4 connections:
//!            1,280 batches under way, so that all partitions are written at once
//!            against 1 partition, requests of as many bytes, as many of them under way
//! ```

use super::{Taking, ratios};
use crate::against::Against;
use crate::application::Engine;
use crate::compare::{Rounds, cpu_per_gb, latency as latency_of, records_per_cpu_second};
use crate::floors::{Floors, Which, latency_beside};
use crate::load::{Rate, Spec, Workload, run_once};
use crate::measurement::Measurement;
use crate::report::{Aim, Figure};
use crate::{Outcome, syscalls};

const FLOOR_BYTES: u64 = 256 << 20;
const SMALL_BATCH_BYTES: usize = 16 << 10;
/// Kafka's peak is looked for in so many rounds.
const PEAK_ROUNDS: u32 = 3;

fn bulk(taking: &Taking<'_>) -> Spec {
    taking.spec(Workload::Produce)
}

fn small(taking: &Taking<'_>) -> Spec {
    let mut spec = taking.spec(Workload::Produce);
    (spec.partitions, spec.connections) = (16, 16);
    spec.content.batch_bytes = SMALL_BATCH_BYTES;
    spec
}

pub fn floor(taking: &mut Taking<'_>) -> Outcome {
    let spec = bulk(taking);
    let (mut rates, mut lower, mut to) = (Vec::new(), Vec::new(), Vec::new());
    let (mut disks, mut sockets, mut new_files) = (Vec::new(), Vec::new(), Vec::new());
    taking.with_klamm("floor", |taking, klamm, folder| {
        let floors_folder = folder.join("floors");
        std::fs::create_dir_all(&floors_folder).map_err(|e| format!("a folder: {e}"))?;
        for round in 0..=taking.args.repeats {
            let site = taking.site(&floors_folder, FLOOR_BYTES);
            let floors = Floors::take(&site, Which::Produce)?;
            let measured = run_once(&spec, &klamm.target)?;
            let floor = floors.produce().ok_or("no floor was taken")?;
            if round == 0 {
                continue;
            }
            rates.push(measured.mb_per_second());
            lower.push(floor.mb_per_second());
            disks.extend(floors.disk().map(|floor| floor.mb_per_second()));
            new_files.extend(
                floors
                    .disk_preallocated()
                    .map(|floor| floor.mb_per_second()),
            );
            sockets.extend(floors.inward().map(|floor| floor.mb_per_second()));
            to.push(measured.mb_per_second() / floor.mb_per_second());
            taking.shown_last(measured);
        }
        Ok(())
    })?;
    let figures = [
        Figure::median("produce", "produce, 1 MiB requests, synced", rates, "MB/s"),
        Figure::median("produce_disk", "  disk's floor", disks, "MB/s"),
        Figure::median(
            "produce_disk_preallocated",
            "    in a file never written before",
            new_files,
            "MB/s",
        ),
        Figure::median(
            "produce_loopback_crc",
            "  loopback's, with CRC",
            sockets,
            "MB/s",
        ),
        Figure::median("produce_to_floor", "  of the lower floor", to, "x").aim(Aim::AtLeast(0.8)),
    ];
    figures
        .into_iter()
        .for_each(|figure| taking.report.add(figure));
    Ok(())
}

pub fn beside_kafka(taking: &mut Taking<'_>) -> Outcome {
    let rounds = in_turn(taking, "kafka", Against::Kafka)?;
    beside(
        taking,
        &rounds,
        "kafka_rate",
        "produce, beside Kafka as shipped",
        "MB/s",
        rate,
        Some(Aim::TimesAtLeast(3.0)),
    )?;
    beside(
        taking,
        &rounds,
        "kafka_cpu",
        "  server's CPU",
        "s/GB",
        cpu_per_gb,
        Some(Aim::TimesAtMost(1.0 / 3.0)),
    )?;
    cpu_parts(taking, &rounds, "kafka")
}

pub fn beside_kafka_flush(taking: &mut Taking<'_>) -> Outcome {
    let rounds = in_turn(taking, "kafka-flush", Against::KafkaFlush)?;
    beside(
        taking,
        &rounds,
        "kafka_flush_rate",
        "produce, beside Kafka with flush.messages=1",
        "MB/s",
        rate,
        Some(Aim::TimesAtLeast(10.0)),
    )?;
    beside(
        taking,
        &rounds,
        "kafka_flush_cpu",
        "  server's CPU",
        "s/GB",
        cpu_per_gb,
        None,
    )
}

pub fn librdkafka(taking: &mut Taking<'_>) -> Outcome {
    let mut spec = taking.spec(Workload::Produce);
    spec.content.record_bytes = 100;
    let repeats = taking.args.repeats;
    let rounds = taking.with_bout("librdkafka", Against::Kafka, |_, bout, _| {
        bout.rounds(repeats, |target| Engine::Librdkafka.run_once(&spec, target))
    })?;
    beside(
        taking,
        &rounds,
        "librdkafka_records_per_cpu_second",
        "librdkafka, 100 B: records a server's CPU second",
        "/s",
        records_per_cpu_second,
        Some(Aim::TimesAtLeast(2.0)),
    )?;
    beside(
        taking,
        &rounds,
        "librdkafka_records",
        "  records",
        "/s",
        |m| Some(m.records_per_second()),
        None,
    )
}

pub fn partitions(taking: &mut Taking<'_>) -> Outcome {
    let mut one = bulk(taking);
    one.connections = 4;
    let mut many = one.clone();
    many.partitions = 1000;
    (many.content.batch_bytes, many.batches) = (SMALL_BATCH_BYTES, 64);
    let (mut ones, mut manies) = (Vec::new(), Vec::new());
    taking.with_klamm("partitions", |taking, klamm, _| {
        for round in 0..=taking.args.repeats {
            let of_one = run_once(&one, &klamm.target)?.mb_per_second();
            let measured = run_once(&many, &klamm.target)?;
            if round > 0 {
                ones.push(of_one);
                manies.push(measured.mb_per_second());
                taking.shown_last(measured);
            }
        }
        Ok(())
    })?;
    let to = ratios(&manies, &ones);
    let figures = [
        Figure::median(
            "partitions_1000",
            "produce, 1,000 partitions",
            manies,
            "MB/s",
        ),
        Figure::median(
            "partitions_1",
            "  1 partition, as many bytes a request",
            ones,
            "MB/s",
        ),
        Figure::median("partitions_ratio", "  1,000 : 1", to, "x").aim(Aim::AtLeast(0.8)),
    ];
    figures
        .into_iter()
        .for_each(|figure| taking.report.add(figure));
    Ok(())
}

pub fn latency(taking: &mut Taking<'_>) -> Outcome {
    let mut spec = small(taking);
    let repeats = taking.args.repeats;
    let mut alone = Vec::new();
    let (peak, rounds) = taking.with_bout("latency", Against::Kafka, |taking, bout, folder| {
        let kafka = bout.target(1).clone();
        let mut peak = 0.0;
        for _ in 0..PEAK_ROUNDS {
            peak = f64::max(peak, run_once(&spec, &kafka)?.records_per_second());
        }
        spec.rate = Some(Rate::Records(peak / 2.0));
        let klamm = bout.target(0).bootstrap.clone();
        let rounds = bout.rounds(repeats, |target| {
            let measured = run_once(&spec, target)?;
            if target.bootstrap == klamm {
                let disk = latency_beside(&taking.site(&folder, 0), &measured)?;
                alone.push(disk.value_at_percentile(99.0) as f64 / 1e6);
            }
            Ok(measured)
        })?;
        Ok((peak, rounds))
    })?;
    // As the rounds' own: the first is not counted.
    alone.remove(0);
    taking.report.add(Figure::new(
        "latency_kafka_peak",
        "Kafka's peak, 16 KiB requests, 16 connections",
        peak,
        "records/s",
    ));
    beside(
        taking,
        &rounds,
        "latency_p99",
        "  at half of it: p99",
        "ms",
        |m| latency_of(m, 99.0),
        Some(Aim::TimesAtMost(0.2)),
    )?;
    beside(
        taking,
        &rounds,
        "latency_p50",
        "  p50",
        "ms",
        |m| latency_of(m, 50.0),
        None,
    )?;
    beside(
        taking,
        &rounds,
        "latency_p99_9",
        "  p99.9",
        "ms",
        |m| latency_of(m, 99.9),
        None,
    )?;
    taking.report.add(Figure::median(
        "latency_disk_p99",
        "  the disk alone, as many writes and syncs a second: p99",
        alone,
        "ms",
    ));
    let tail = |m: &Measurement| Some(latency_of(m, 99.9)? / latency_of(m, 50.0)?);
    let tails = rounds.values(0, tail).ok_or("no latency was taken")?;
    taking
        .report
        .add(Figure::median("latency_tail", "  Klamm's p99.9 : p50", tails, "x").aim_under(5.0));
    taking.shown.extend(rounds.shown());
    Ok(())
}

pub fn system_calls(taking: &mut Taking<'_>) -> Outcome {
    let mut spec = small(taking);
    spec.connections = 64;
    // All that the server does while it is watched is for requests that count.
    spec.warm_up = std::time::Duration::ZERO;
    let (mut all, mut ring, mut by) = (Vec::new(), Vec::new(), None);
    taking.with_klamm("syscalls", |taking, klamm, _| {
        let pid = klamm.target.pid.ok_or("Klamm has no process")?;
        for _ in 0..taking.args.repeats {
            let (measured, calls, with) = syscalls::during(pid, || run_once(&spec, &klamm.target))?;
            all.push(calls.all as f64 / measured.requests as f64);
            ring.push(calls.io_uring_enter as f64 / measured.requests as f64);
            by = Some(with.name());
        }
        Ok(())
    })?;
    let label = format!(
        "system calls a produce request, 64 connections ({})",
        by.unwrap_or("-")
    );
    taking
        .report
        .add(Figure::median("syscalls", label, all, "calls").aim(Aim::AtMost(2.0)));
    taking.report.add(Figure::median(
        "syscalls_io_uring_enter",
        "  of them io_uring_enter",
        ring,
        "calls",
    ));
    Ok(())
}

fn rate(m: &Measurement) -> Option<f64> {
    Some(m.mb_per_second())
}

/// The bulk load on Klamm and another.
fn in_turn(taking: &mut Taking<'_>, name: &str, other: Against) -> Outcome<Rounds> {
    let (spec, repeats) = (bulk(taking), taking.args.repeats);
    taking.with_bout(name, other, |_, bout, _| {
        bout.rounds(repeats, |target| run_once(&spec, target))
    })
}

/// One figure of Klamm's beside the other's, turn by turn.
fn beside(
    taking: &mut Taking<'_>,
    rounds: &Rounds,
    id: &str,
    label: &str,
    unit: &'static str,
    of: impl Fn(&Measurement) -> Option<f64>,
    aim: Option<Aim>,
) -> Outcome {
    let values = |server| {
        rounds
            .values(server, &of)
            .ok_or(format!("{label}: a round has no such figure"))
    };
    let figure = Figure::median(id, label, values(0)?, unit);
    let figure = figure.beside_in_turn(&rounds.of[1][0].server, values(1)?);
    taking.report.add(match aim {
        Some(aim) => figure.aim(aim),
        None => figure,
    });
    Ok(())
}

/// User and system apart: on a virtual machine it is the second that swings.
fn cpu_parts(taking: &mut Taking<'_>, rounds: &Rounds, id: &str) -> Outcome {
    beside(
        taking,
        rounds,
        &format!("{id}_cpu_user"),
        "    of that, user",
        "s/GB",
        |m| Some(m.cpu_per_gb()?.0),
        None,
    )?;
    beside(
        taking,
        rounds,
        &format!("{id}_cpu_system"),
        "    of that, system",
        "s/GB",
        |m| Some(m.cpu_per_gb()?.1),
        None,
    )
}
