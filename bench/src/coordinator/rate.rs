//! Operations a second, and the server's CPU for each.
//!
//! ```text
//!   8 sessions x 64:   create  set  get  delete  create ephemeral       each: A B, then A B ...
//!   1 session x 256:   create  set  get
//! ```
//!
//! The first two rounds are a warm-up and do not count: a virtual machine compiles what
//! it runs often, and on one core that takes its time. Nodes made in a round are deleted in it. CPU is user and system time of
//! all the server's threads, from /proc, divided by what was answered meanwhile.

use super::Run;
use super::comparison::{Comparison, measure};
use super::contender::Who;
use super::tree::{Op, Tree};
use crate::Outcome;
use crate::process::Cpu;
use crate::report::Aim;
use std::time::{Duration, Instant};

struct Shape {
    sessions: usize,
    outstanding: usize,
    ops: &'static [Op],
}

const SHAPES: [Shape; 2] = [
    Shape {
        sessions: 8,
        outstanding: 64,
        ops: &[
            Op::Create,
            Op::Set,
            Op::Get,
            Op::Delete,
            Op::CreateEphemeral,
        ],
    },
    Shape {
        sessions: 1,
        outstanding: 256,
        ops: &[Op::Create, Op::Set, Op::Get],
    },
];

const WARM_UP_ROUNDS: u32 = 2;

pub fn take(run: &Run, to: &mut Comparison) -> Outcome {
    let servers = run.start_all("rate", run.apart)?;
    let mut nowhere = Comparison::default();
    for round in 0..WARM_UP_ROUNDS + run.args.repeats {
        let to = if round < WARM_UP_ROUNDS {
            &mut nowhere
        } else {
            &mut *to
        };
        for shape in &SHAPES {
            let mut trees = Vec::new();
            for (server, _) in &servers {
                trees.push(Tree::open(server.address, shape.sessions)?);
            }
            for &op in shape.ops {
                for ((server, _), tree) in servers.iter().zip(&mut trees) {
                    let pid = server.server.pid();
                    let rate = load(tree, op, shape.outstanding, run.seconds(), pid)?;
                    add(to, server.who, shape, op, &rate);
                }
            }
            for mut tree in trees {
                tree.empty(shape.outstanding)?;
                tree.close()?;
            }
        }
    }
    servers
        .into_iter()
        .try_for_each(|(server, _)| server.stop())
}

/// What one load came to.
pub struct Rate {
    pub ops: u64,
    pub took: Duration,
    pub server: Cpu,
    pub client: Cpu,
}

#[allow(clippy::cast_precision_loss)] // exact below 2^53
impl Rate {
    pub fn a_second(&self) -> f64 {
        self.ops as f64 / self.took.as_secs_f64()
    }

    pub fn us_each(&self, seconds: f64) -> f64 {
        seconds * 1e6 / self.ops as f64
    }
}

/// Runs `load` and holds the clocks, of the server and of this process.
pub fn timed(pid: u32, load: impl FnOnce() -> Outcome<u64>) -> Outcome<Rate> {
    let (server, client) = (Cpu::of(pid)?, Cpu::of_this_process()?);
    let began = Instant::now();
    let ops = load()?;
    let took = began.elapsed();
    Ok(Rate {
        ops: ops.max(1),
        took,
        server: Cpu::of(pid)? - server,
        client: Cpu::of_this_process()? - client,
    })
}

fn load(tree: &mut Tree, op: Op, outstanding: usize, during: Duration, pid: u32) -> Outcome<Rate> {
    let (lanes, mut load) = tree.load(op);
    timed(pid, || {
        // Deletes end when there is nothing left: as many as were created.
        let until = (op != Op::Delete).then(|| Instant::now() + during);
        lanes
            .run(outstanding, until, &mut load)
            .map_err(|e| format!("{}: {e}", op.name()))
    })
}

fn add(to: &mut Comparison, who: Who, shape: &Shape, op: Op, rate: &Rate) {
    let Shape {
        sessions,
        outstanding,
        ..
    } = shape;
    let id = format!("{}_{sessions}x{outstanding}", op.name().replace(' ', "_"));
    let label = format!("{}, {sessions} x {outstanding}", op.name());
    let mut ops = measure(&id, label, "/s");
    let mut cpu = measure(format!("{id}_cpu"), "  server's CPU for each", "us");
    match (op, sessions) {
        (Op::Create | Op::Set, 1) => ops = ops.aim(Aim::TimesAtLeast(10.0)),
        (Op::Create | Op::Set, _) => ops = ops.aim(Aim::TimesAtLeast(3.0)),
        _ => {}
    }
    if matches!(op, Op::Create | Op::Set | Op::Get) {
        cpu = cpu.aim(Aim::TimesAtMost(0.25));
    }
    to.add(who, &ops, rate.a_second());
    to.add(who, &cpu, rate.us_each(rate.server.total_s()));
    for (kind, label, seconds) in [
        ("user", "    user", rate.server.user_s),
        ("system", "    system", rate.server.system_s),
        ("client", "  client's CPU for each", rate.client.total_s()),
    ] {
        let part = measure(format!("{id}_{kind}"), label, "us");
        to.add(who, &part, rate.us_each(seconds));
    }
}
