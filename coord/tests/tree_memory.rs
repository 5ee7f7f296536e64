//! Holds the tree to what it promises of memory: 1,000,000 nodes below 400 MiB, that
//! is 419 bytes a node, with 100 bytes of data and a name of 10. Told by the
//! process's resident memory, in a process of its own, so that what the allocator
//! rounds up counts too.

use klamm_coord::core::Zxid;
use klamm_coord::core::tree::{Op, Tree};
use klamm_engine::units::TimestampMs;

const NODES: u64 = 200_000;
const BYTES_PER_NODE_MAX: u64 = (400 << 20) / 1_000_000;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS:"))
        .expect("VmRSS is there");
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

#[test]
fn a_node_takes_no_more_than_is_promised() {
    let mut tree = Tree::new();
    let mut events = Vec::new();
    tree.apply(Zxid(1), TimestampMs(0), &Op::create("/n", ""), &mut events)
        .unwrap();
    let before = resident();
    for n in 0..NODES {
        let op = Op::create(format!("/n/{n:010}"), [b'x'; 100]);
        tree.apply(Zxid(n as i64 + 2), TimestampMs(0), &op, &mut events)
            .unwrap();
        events.clear();
    }
    let each = (resident() - before) / NODES;
    assert_eq!(tree.len() as u64, NODES + 5);
    println!("{each} bytes a node");
    assert!(each <= BYTES_PER_NODE_MAX, "{each} bytes a node");
}
