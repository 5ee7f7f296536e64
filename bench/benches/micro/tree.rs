//! A change of the coordinator's tree, without its changelog and its clients.
//!
//! ```text
//!   set              step(set) -> what to persist, what to send
//!   create_delete    step(create), step(delete): a node among 10,000 others
//!   set_encoded      the same as set, and the command's bytes for the changelog
//!   replay_set       those bytes -> command -> applied, as at a start
//!   exists           what a read costs that changes nothing
//! ```
//!
//! One core of one broker does it for the whole cluster, so it bounds the changes a second
//! that there can be where a group commit takes many of them; and `replay_set` bounds how
//! soon a broker is there after a start.

use crate::content::{BEGAN, Random};
use criterion::{Criterion, Throughput};
use klamm_coord::core::command::{Change, Command};
use klamm_coord::core::coordinator::{Core, CoreConfig, Output, Request, Response};
use klamm_coord::core::settings::BrokerConfig;
use klamm_coord::core::tree::Op;
use klamm_coord::core::zookeeper::ZooKeeperConfig;
use klamm_coord::core::{Now, Token};
use klamm_engine::units::Nanos;

/// So many nodes in one parent, each with 100 bytes.
const NODES: u64 = 10_000;
const DATA: [u8; 100] = [b'k'; 100];

const NOW: Now = Now {
    mono: Nanos(1_000_000_000),
    wall: BEGAN,
};

pub fn benchmarks(c: &mut Criterion) {
    let mut group = c.benchmark_group("tree");
    group.throughput(Throughput::Elements(1));
    let (mut core, mut random) = (started(), Random::new());
    group.bench_function("set", |b| {
        b.iter(|| step(&mut core, Op::set(path(random.below(NODES)), DATA)));
    });
    group.bench_function("set_encoded", |b| {
        let mut bytes = Vec::new();
        b.iter(|| {
            let output = step(&mut core, Op::set(path(random.below(NODES)), DATA));
            bytes.clear();
            for (_, command) in &output.persist {
                command.encode(&mut bytes);
            }
            bytes.len()
        });
    });
    group.bench_function("exists", |b| {
        b.iter(|| core.tree().exists(&path(random.below(NODES))));
    });
    group.throughput(Throughput::Elements(2));
    group.bench_function("create_delete", |b| {
        b.iter(|| {
            step(&mut core, Op::create(path(NODES), DATA));
            step(&mut core, Op::delete(path(NODES)))
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("replay_set", |b| {
        let mut core = grown();
        let stored: Vec<Vec<u8>> = (0..NODES)
            .map(|_| encoded(Op::set(path(random.below(NODES)), DATA)))
            .collect();
        let mut turn = stored.iter().cycle();
        b.iter(|| replay(&mut core, turn.next().expect("it goes round")));
    });
    group.finish();
}

fn path(node: u64) -> String {
    format!("/bench/{node:010}")
}

fn encoded(op: Op) -> Vec<u8> {
    let command = Command {
        time: BEGAN,
        change: Change::Tree(vec![op]),
    };
    let mut bytes = Vec::new();
    command.encode(&mut bytes);
    bytes
}

fn replay(core: &mut Core, bytes: &[u8]) {
    let command = Command::decode(bytes).expect("a command as it was encoded");
    core.apply(core.zxid().next(), &command);
}

/// A coordinator that has replayed the creation of the nodes.
fn grown() -> Core {
    let mut core = Core::new(CoreConfig {
        broker: BrokerConfig::new([]).expect("the defaults are valid"),
        zookeeper: ZooKeeperConfig::default(),
        cluster_id: None,
        id_seed: 7,
        session_secret: 7,
    });
    replay(&mut core, &encoded(Op::create("/bench", "")));
    for node in 0..NODES {
        replay(&mut core, &encoded(Op::create(path(node), DATA)));
    }
    assert!(core.tree().exists(&path(NODES - 1)));
    core
}

fn started() -> Core {
    let mut core = grown();
    core.start(NOW).expect("nothing is in its way");
    core.take_output();
    core
}

/// One change, which must succeed, with all that the driver would be given for it.
fn step(core: &mut Core, op: Op) -> Output {
    core.step(Token(1), Request::CommitTreeOps { ops: vec![op] }, NOW);
    let output = core.take_output();
    let answer = output.send.last().map(|(_, _, response)| response);
    assert!(matches!(
        answer,
        Some(Response::CommitTreeOps { result: Ok(_), .. })
    ));
    output
}
