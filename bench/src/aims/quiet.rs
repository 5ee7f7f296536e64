//! The rows of a broker that has nothing to do yet, or not any more.
//!
//! ```text
//!   idle    10,000 connections that asked once --settle 2 s--> CPU over 2 s, memory; again
//!   start   10 GB in 10 topics of 100 partitions --SIGKILL--> exec
//!             -> every partition's leader named, and its end offset is what it was
//! ```

use super::Taking;
use crate::against::Against;
use crate::broker::{self, Started};
use crate::load::{Layout, Spec, Target, Workload, run_once};
use crate::process::{Memory, on_processor};
use crate::report::Figure;
use crate::wire::Connection;
use crate::{Outcome, topics};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 10_000;
const SETTLE: Duration = Duration::from_secs(2);
const WATCHED: Duration = Duration::from_secs(2);

const TOPICS: i32 = 10;
const PARTITIONS_EACH: i32 = 100;
const DATA_BYTES: u64 = 10_000_000_000;
const READY_WITHIN: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_millis(1);
/// A round in which no byte came would go on for ever.
const FILL_ROUNDS_MAX: u32 = 100;

pub fn idle(taking: &mut Taking<'_>) -> Outcome {
    let (mut cpu, mut memory) = (Vec::new(), Vec::new());
    taking.with_klamm("idle", |taking, klamm, _| {
        let pid = klamm.target.pid.ok_or("Klamm has no process")?;
        let address: SocketAddr = (klamm.target.bootstrap.parse())
            .map_err(|e| format!("{}: {e}", klamm.target.bootstrap))?;
        let open = |n| broker::ask(address).map_err(|e| format!("connection {n}: {e}"));
        let open: Vec<Connection> = (0..CONNECTIONS).map(open).collect::<Outcome<_>>()?;
        thread::sleep(SETTLE);
        for _ in 0..taking.args.repeats {
            let (before, began) = (on_processor(pid)?, Instant::now());
            thread::sleep(WATCHED);
            let used = on_processor(pid)?.saturating_sub(before).as_secs_f64();
            cpu.push(100.0 * used / began.elapsed().as_secs_f64());
            memory.push(Memory::of(pid)?.resident_bytes as f64 / f64::from(1 << 20));
        }
        drop(open);
        Ok(())
    })?;
    taking.report.add(
        Figure::median(
            "idle_memory",
            "10,000 idle connections: memory",
            memory,
            "MiB",
        )
        .aim_under(100.0),
    );
    taking
        .report
        .add(Figure::median("idle_cpu", "  CPU, of one core", cpu, "%").aim_under(1.0));
    Ok(())
}

pub fn start(taking: &mut Taking<'_>) -> Outcome {
    let mut spec = taking.spec(Workload::Produce);
    spec.named_topics = (0..TOPICS).map(|n| format!("start-{n}")).collect();
    // 1 MiB a batch: what is measured is the start, and not a thousand syncs in a row.
    spec.connections = 4;
    spec.warm_up = Duration::ZERO;
    let (mut took, mut answered) = (Vec::new(), Vec::new());
    taking.with_folder("start", |taking, folder| {
        let place = folder.join("klamm");
        let binary = taking.klamm()?;
        let mut running = taking.cores.start(|| binary.start(&place))?;
        let names = spec
            .named_topics
            .iter()
            .map(|name| (&name[..], PARTITIONS_EACH));
        topics::create(&mut running.connection, names)?;
        layout(&spec, &target(&running))?;
        let (mut bytes, mut rounds) = (0, 0);
        while bytes < DATA_BYTES {
            if rounds == FILL_ROUNDS_MAX {
                return Err(format!("only {bytes} bytes went in, in {rounds} rounds"));
            }
            bytes += run_once(&spec, &target(&running))?.bytes;
            rounds += 1;
        }
        for _ in 0..taking.args.repeats {
            // Something new to recover, each time.
            let mut some = spec.clone();
            some.time = Duration::from_millis(500);
            (some.content.batch_bytes, some.batches) = (16 << 10, 64);
            run_once(&some, &target(&running))?;
            let before = ends(&layout(&spec, &target(&running))?);
            drop(running.connection);
            running.broker.kill()?;
            running = taking.cores.start(|| binary.start(&place))?;
            let layout = layout(&spec, &target(&running))?;
            took.push(running.began.elapsed().as_secs_f64());
            answered.push(running.first_answer.as_secs_f64());
            all_is_there(&before, &ends(&layout))?;
        }
        running.broker.stop()
    })?;
    taking.report.add(
        Figure::median(
            "start",
            "start after SIGKILL, 1,000 partitions, 10 GB",
            took,
            "s",
        )
        .aim_under(2.0),
    );
    taking.report.add(Figure::median(
        "start_first_answer",
        "  first answer",
        answered,
        "s",
    ));
    Ok(())
}

/// Asked until every partition answers: a broker that has just been started, or was just
/// told of a topic, may not know it yet.
fn layout(spec: &Spec, target: &Target) -> Outcome<Layout> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        match Layout::make(spec, target) {
            Err(_) if Instant::now() < deadline => thread::sleep(ASK_EVERY),
            made => return made,
        }
    }
}

fn target(running: &Started) -> Target {
    Target {
        bootstrap: running.broker.bootstrap(),
        pid: Some(running.broker.pid()),
        server: Against::Klamm.to_string(),
    }
}

/// Each partition's end offset.
fn ends(layout: &Layout) -> BTreeMap<String, i64> {
    let places = layout.places.iter();
    places.map(|place| (place.to_string(), place.end)).collect()
}

/// Every acknowledged record: a start that loses some is not fast.
fn all_is_there(before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) -> Outcome {
    let expected = usize::try_from(TOPICS * PARTITIONS_EACH).expect("a thousand");
    if before.len() != expected {
        return Err(format!(
            "{} of {expected} partitions were there",
            before.len()
        ));
    }
    for (place, end) in before {
        match after.get(place) {
            Some(now) if now >= end => {}
            now => {
                return Err(format!(
                    "{place} ended at {end} before SIGKILL, and at {now:?} after the start"
                ));
            }
        }
    }
    Ok(())
}
