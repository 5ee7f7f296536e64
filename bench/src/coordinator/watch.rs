//! Many sessions that watch one node, told of a change.
//!
//! ```text
//!   session 0 .. 999:  getData(/watched, watch)  <--------- event, event, ... event
//!   one more:          setData(/watched) ------>                              |
//!                      |<---------------- until the last one is read ------->|
//! ```
//!
//! The client reads a thousand sockets from one core: that is in the figure too, the
//! same for both servers, while the server is still telling the others.

use super::comparison::{Comparison, measure};
use super::tree::{DATA, OnceEach};
use super::{Run, failed, ms};
use crate::Outcome;
use crate::lanes::Lanes;
use crate::report::Aim;
use crate::zookeeper::{self, Answer, Session, TIMEOUT_MAX};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const WATCHERS: usize = 1000;
const PATH: &str = "/watched";

/// Sets in each repeat; the first repeat is a warm-up.
const SETS: usize = 20;

const LAST_MS_AIM: f64 = 3.0;

pub fn take(run: &Run, to: &mut Comparison) -> Outcome {
    let mut servers = run.start_all("watch", run.apart)?;
    let mut watchers = Vec::new();
    for (server, session) in &mut servers {
        session.ensure(PATH).map_err(failed("create"))?;
        watchers.push(connect(server.address)?);
    }
    for repeat in 0..=run.args.repeats {
        for ((server, session), watchers) in servers.iter_mut().zip(&mut watchers) {
            let mut worst = Duration::ZERO;
            for _ in 0..SETS {
                let told = once(session, watchers)?;
                worst = worst.max(told);
                if repeat > 0 {
                    let last = measure("watch_last", "1,000 watchers, the last told", "ms");
                    to.add(server.who, &last.aim(Aim::Under(LAST_MS_AIM)), ms(told));
                }
            }
            if repeat > 0 {
                let worst_of = format!("  the slowest of {SETS}");
                to.add(
                    server.who,
                    &measure("watch_worst", worst_of, "ms"),
                    ms(worst),
                );
            }
        }
    }
    servers
        .into_iter()
        .try_for_each(|(server, _)| server.stop())
}

fn connect(address: SocketAddr) -> Outcome<Lanes> {
    let sessions: std::io::Result<Vec<_>> = (0..WATCHERS)
        .map(|_| Session::open(address, TIMEOUT_MAX).map(Session::into_parts))
        .collect();
    Lanes::over(sessions.map_err(failed("connect"))?)
}

/// Every watch set, then the node.
fn once(session: &mut Session, watchers: &mut Lanes) -> Outcome<Duration> {
    let mut get = OnceEach::new(zookeeper::get(PATH, true), WATCHERS);
    watchers.run(1, None, &mut get)?;
    let began = Instant::now();
    session
        .begin(zookeeper::set(PATH, &DATA))
        .map_err(failed("set"))?;
    let last = watchers.await_events(WATCHERS)?;
    match session.finish().map_err(failed("set"))? {
        Answer { error: 0, .. } => Ok(last - began),
        Answer { error, .. } => Err(format!("set is answered with error {error}")),
    }
}
