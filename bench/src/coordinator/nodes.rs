//! A tree of a million nodes: its memory, and a start from it.
//!
//! ```text
//!   /n/00000 .. /n/00999    parents
//!   /n/00000/000 .. /999    1,000 nodes in each, 100 bytes of data
//!   create all --> memory --> SIGTERM --> exec --> get of the last: the data that was written
//! ```

use super::comparison::{Comparison, measure};
use super::contender::Contender;
use super::start::{self, Then};
use super::tree::{DATA, expect_no_error, put_digits};
use super::{Run, failed, mib, ms};
use crate::Outcome;
use crate::lanes::{Lanes, Load};
use crate::process::Memory;
use crate::report::Aim;
use crate::zookeeper::{self, PERSISTENT, Session, TIMEOUT_MAX};
use std::io::Result;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

const LANES: usize = 8;
const OUTSTANDING: usize = 64;
const A_PARENT: u32 = 1000;

const OF_AIM: u32 = 1_000_000;
const MEMORY_MIB_AIM: f64 = 400.0;
const START_MS_AIM: f64 = 2000.0;

pub fn take(run: &Run, to: &mut Comparison) -> Outcome {
    let nodes = run.args.nodes;
    for contender in run.contenders {
        one_server(run, contender, nodes, to)?;
    }
    Ok(())
}

fn one_server(run: &Run, contender: &Contender, nodes: u32, to: &mut Comparison) -> Outcome {
    let who = contender.who();
    let (mut server, mut session) = run.start(contender, "nodes", run.together)?;
    session.ensure("/n").map_err(failed("create"))?;
    for parent in 0..nodes.div_ceil(A_PARENT) {
        session
            .ensure(&format!("/n/{parent:05}"))
            .map_err(failed("create"))?;
    }
    drop(session);
    let began = Instant::now();
    create(server.address, nodes)?;
    let took = began.elapsed();
    thread::sleep(Duration::from_secs(2));
    let loaded = Memory::of(server.server.pid())?.resident_bytes;

    let of_aim = |measure: super::comparison::Measure, aim| match nodes {
        OF_AIM => measure.aim(aim),
        _ => measure,
    };
    let memory = measure(
        "nodes_memory",
        format!("memory, {nodes} nodes created"),
        "MiB",
    );
    let memory = of_aim(memory, Aim::Under(MEMORY_MIB_AIM));
    to.add(who, &memory, mib(loaded));
    let rate = measure("nodes_rate", "  created", "/s");
    to.add(who, &rate, f64::from(nodes) / took.as_secs_f64());

    let first_get = measure(
        "nodes_start",
        format!("start, {nodes} nodes, to the first get"),
        "ms",
    );
    let first_get = of_aim(first_get, Aim::Under(START_MS_AIM));
    let started = measure("nodes_memory_started", "  memory then", "MiB");
    let started = of_aim(started, Aim::Under(MEMORY_MIB_AIM));
    let folder = run.folder.join(&format!("nodes-{who:?}"));
    for _ in 0..run.args.repeats {
        server.stop()?;
        server = run.together.start(|| contender.start(&folder))?;
        let last = start::first_get(&mut server, &path(nodes - 1), Then::Return)?;
        if last.data != DATA {
            return Err("the last node has not the data that was written to it".to_owned());
        }
        to.add(who, &first_get, ms(last.first_answer));
        let cpu = measure("nodes_start_cpu", "  server's CPU by then", "ms");
        to.add(who, &cpu, 1000.0 * last.cpu.total_s());
        let resident = Memory::of(server.server.pid())?.resident_bytes;
        to.add(who, &started, mib(resident));
    }
    server.stop()
}

fn create(address: SocketAddr, nodes: u32) -> Outcome {
    let sessions: Result<Vec<_>> = (0..LANES)
        .map(|_| Session::open(address, TIMEOUT_MAX).map(Session::into_parts))
        .collect();
    let mut lanes = Lanes::over(sessions.map_err(failed("connect"))?)?;
    let mut load = Creates {
        request: zookeeper::create(&path(0), &DATA, PERSISTENT),
        next: 0,
        nodes,
    };
    lanes.run(OUTSTANDING, None, &mut load).map(drop)
}

fn path(node: u32) -> String {
    format!("/n/{:05}/{:03}", node / A_PARENT, node % A_PARENT)
}

struct Creates {
    request: Vec<u8>,
    next: u32,
    nodes: u32,
}

impl Load for Creates {
    fn request(&mut self, _: usize, number: i32, to: &mut Vec<u8>) -> bool {
        let more = self.next < self.nodes;
        if more {
            zookeeper::stamp(&mut self.request, number);
            // Behind the path's length, "/n/" and "/n/00000/".
            put_digits(&mut self.request[19..24], self.next / A_PARENT);
            put_digits(&mut self.request[25..28], self.next % A_PARENT);
            to.extend_from_slice(&self.request);
            self.next += 1;
        }
        more
    }

    fn answer(&mut self, _: usize, body: &[u8]) -> Outcome {
        expect_no_error(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_where_the_path_has_them() {
        let mut load = Creates {
            request: zookeeper::create(&path(0), &DATA, PERSISTENT),
            next: 123_456,
            nodes: 123_457,
        };
        let mut sent = Vec::new();
        assert!(load.request(0, 5, &mut sent));
        let mut expected = zookeeper::create("/n/00123/456", &DATA, PERSISTENT);
        zookeeper::stamp(&mut expected, 5);
        assert_eq!(sent, expected);
        assert!(!load.request(0, 6, &mut sent), "that was the last");
    }
}
