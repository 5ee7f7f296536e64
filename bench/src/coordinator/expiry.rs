//! A client that dies: how late a watcher hears that its ephemerals are gone.
//!
//! ```text
//!   client:   connect(4 s)  create x 10   ping  (silence, every other one cut off)
//!   deadline:                              |------- 4 s ------>|
//!   watcher:  exists(watch) x 10                               |-- late --> deleted
//! ```
//!
//! The deadline counts from when the client sent its last request, so a figure may be a
//! little too great and never too small. A node that goes before it is an error. One
//! client that closes its session properly is timed, too.

use super::comparison::{Comparison, measure};
use super::contender::Running;
use super::{Run, failed, ms};
use crate::Outcome;
use crate::report::Aim;
use crate::zookeeper::{self, EPHEMERAL, Session};
use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

const CLIENTS: usize = 8;
const EPHEMERALS: usize = 10;
const TIMEOUT: Duration = Duration::from_secs(4);

/// No divisor of a tick, so that deadlines fall on all parts of one.
const APART: Duration = Duration::from_millis(300);

const LATE_MS_AIM: f64 = 100.0;

pub fn take(run: &Run, to: &mut Comparison) -> Outcome {
    for contender in run.contenders {
        let (server, watcher) = run.start(contender, "expiry", run.together)?;
        one_server(&server, watcher, to)?;
        server.stop()?;
    }
    Ok(())
}

fn one_server(server: &Running, mut watcher: Session, to: &mut Comparison) -> Outcome {
    // Closed properly first: what there is besides the wait for a deadline.
    let closing = client(server, &mut watcher, CLIENTS)?;
    let began = Instant::now();
    closing.close().map_err(failed("close"))?;
    let gone = (0..EPHEMERALS).map(|_| watcher.await_event().map(|event| event.at));
    let gone: Result<Vec<Instant>, _> = gone.collect();
    let last = gone.map_err(failed("a watch"))?.into_iter().max();
    let closed = measure(
        "expiry_closed",
        "a closed session's ephemerals gone after",
        "ms",
    );
    to.add(server.who, &closed, ms(last.expect("ten events") - began));

    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(client(server, &mut watcher, number)?);
    }
    let mut silent = Vec::new();
    let mut deadlines = Vec::new();
    for (number, mut client) in clients.into_iter().enumerate() {
        deadlines.push(Instant::now() + TIMEOUT);
        client
            .call(zookeeper::exists("/", false))
            .map_err(failed("exists"))?;
        // The others stay connected and say nothing.
        if number % 2 == 1 {
            silent.push(client);
        }
        thread::sleep(APART);
    }

    let mut last: HashMap<usize, (usize, Instant)> = HashMap::new();
    for _ in 0..CLIENTS * EPHEMERALS {
        let event = watcher.await_event().map_err(failed("a watch"))?;
        let number = owner(&event.path)?;
        let (count, at) = last.entry(number).or_insert((0, event.at));
        (*count, *at) = (*count + 1, event.at);
        if event.at < deadlines[number] {
            let early = ms(deadlines[number] - event.at);
            return Err(format!(
                "{} was deleted {early:.0} ms before its session's deadline",
                event.path
            ));
        }
    }
    let late = measure("expiry_late", "a dead client's ephemerals, late by", "ms");
    let late = late.aim(Aim::Under(LATE_MS_AIM));
    let mut worst = Duration::ZERO;
    for (number, deadline) in deadlines.into_iter().enumerate() {
        let (count, at) = last[&number];
        assert_eq!(count, EPHEMERALS, "one event a node, all of them came");
        worst = worst.max(at - deadline);
        to.add(server.who, &late, ms(at - deadline));
    }
    let worst_of = measure(
        "expiry_late_worst",
        format!("  the latest of {CLIENTS}"),
        "ms",
    );
    to.add(server.who, &worst_of, ms(worst));
    Ok(())
}

/// A session with its ephemerals, each with a watch of the watcher's on it.
fn client(server: &Running, watcher: &mut Session, number: usize) -> Outcome<Session> {
    let mut client = Session::open(server.address, TIMEOUT).map_err(failed("connect"))?;
    if client.timeout != TIMEOUT {
        return Err(format!(
            "a timeout of {TIMEOUT:?} was asked for and {:?} granted",
            client.timeout
        ));
    }
    for node in 0..EPHEMERALS {
        let path = format!("/dead-{number}-{node}");
        client
            .call(zookeeper::create(&path, b"", EPHEMERAL))
            .map_err(failed("create"))?;
        watcher
            .call(zookeeper::exists(&path, true))
            .map_err(failed("exists"))?;
    }
    Ok(client)
}

fn owner(path: &str) -> Outcome<usize> {
    path.split('-')
        .nth(1)
        .and_then(|number| number.parse().ok())
        .filter(|&number| number < CLIENTS)
        .ok_or_else(|| format!("an event for {path}, which was not watched"))
}
