//! One request outstanding: how long until it is answered.
//!
//! ```text
//!   write ---- request ----> server, which syncs a create ---- answer ----> read
//!   |<------------------------- into a histogram ------------------------->|
//! ```
//!
//! One session, one request at a time, so the next one is late where one was (closed
//! loop): these are a single careful client's waits, not those under a load.

use super::Run;
use super::comparison::{Comparison, measure};
use super::contender::Who;
use super::tree::{Numbered, Op, Tree};
use crate::Outcome;
use crate::lanes::Load;
use crate::report::Aim;
use hdrhistogram::Histogram;
use std::time::Instant;

/// As long as an answer is waited for.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

pub fn take(run: &Run, to: &mut Comparison) -> Outcome {
    let servers = run.start_all("latency", run.apart)?;
    let mut nowhere = Comparison::default();
    for repeat in 0..=run.args.repeats {
        let to = if repeat == 0 { &mut nowhere } else { &mut *to };
        let mut trees = Vec::new();
        for (server, _) in &servers {
            trees.push(Tree::open(server.address, 1)?);
        }
        for op in [Op::Create, Op::Get] {
            for ((server, _), tree) in servers.iter().zip(&mut trees) {
                let (lanes, load) = tree.load(op);
                let mut load = Timed::new(load)?;
                let until = Instant::now() + run.seconds();
                lanes.run(1, Some(until), &mut load)?;
                add(to, server.who, op, &load.latencies_ns);
            }
        }
        for mut tree in trees {
            tree.empty(64)?;
            tree.close()?;
        }
    }
    servers
        .into_iter()
        .try_for_each(|(server, _)| server.stop())
}

/// A load of one request at a time, with its waits.
struct Timed<'a> {
    load: Numbered<'a>,
    sent: Instant,
    latencies_ns: Histogram<u64>,
}

impl Timed<'_> {
    fn new(load: Numbered<'_>) -> Outcome<Timed<'_>> {
        Ok(Timed {
            load,
            sent: Instant::now(),
            latencies_ns: Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3)
                .map_err(|e| format!("a histogram: {e}"))?,
        })
    }
}

impl Load for Timed<'_> {
    fn request(&mut self, lane: usize, number: i32, to: &mut Vec<u8>) -> bool {
        let more = self.load.request(lane, number, to);
        self.sent = Instant::now();
        more
    }

    fn answer(&mut self, lane: usize, body: &[u8]) -> Outcome {
        let waited = u64::try_from(self.sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.latencies_ns.saturating_record(waited);
        self.load.answer(lane, body)
    }
}

fn add(to: &mut Comparison, who: Who, op: Op, latencies_ns: &Histogram<u64>) {
    let name = op.name();
    for (part, quantile) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)] {
        let id = format!("{name}_latency_{part}");
        let mut measure = measure(id, format!("one {name} at a time, {part}"), "us");
        if op == Op::Create && part == "p99" {
            measure = measure.aim(Aim::TimesAtMost(0.5));
        }
        #[allow(clippy::cast_precision_loss)] // exact below 2^53 ns
        let us = latencies_ns.value_at_quantile(quantile) as f64 / 1000.0;
        to.add(who, &measure, us);
    }
}
