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
use super::contender::Who;
use super::tree::{DATA, OnceEach};
use super::{Run, failed, ms};
use crate::Outcome;
use crate::lanes::Lanes;
use crate::process::on_processor;
use crate::report::Aim;
use crate::zookeeper::{self, Answer, Session, TIMEOUT_MAX};
use std::net::SocketAddr;
use std::process;
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
                let told = once(session, watchers, server.server.pid())?;
                worst = worst.max(told.last);
                if repeat > 0 {
                    add(to, server.who, &told);
                }
            }
            if repeat > 0 {
                let slowest = measure("watch_worst", format!("  the slowest of {SETS}"), "ms");
                to.add(server.who, &slowest, ms(worst));
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

struct Told {
    last: Duration,
    server: Duration,
    client: Duration,
}

fn add(to: &mut Comparison, who: Who, told: &Told) {
    let last = measure("watch_last", "1,000 watchers, the last told", "ms");
    to.add(who, &last.aim(Aim::Under(LAST_MS_AIM)), ms(told.last));
    // What a busy machine does not stretch.
    let server = measure("watch_cpu", "  server's CPU by then", "ms");
    to.add(who, &server, ms(told.server));
    let client = measure("watch_client", "  client's CPU by then", "ms");
    to.add(who, &client, ms(told.client));
}

/// Every watch set, then the node.
fn once(session: &mut Session, watchers: &mut Lanes, pid: u32) -> Outcome<Told> {
    let mut get = OnceEach::new(zookeeper::get(PATH, true), WATCHERS);
    watchers.run(1, None, &mut get)?;
    let (server, client) = (on_processor(pid)?, on_processor(process::id())?);
    let began = Instant::now();
    session
        .begin(zookeeper::set(PATH, &DATA))
        .map_err(failed("set"))?;
    let last = watchers.await_events(WATCHERS)? - began;
    let (server, client) = (
        on_processor(pid)?.saturating_sub(server),
        on_processor(process::id())?.saturating_sub(client),
    );
    match session.finish().map_err(failed("set"))? {
        Answer { error: 0, .. } => Ok(Told {
            last,
            server,
            client,
        }),
        Answer { error, .. } => Err(format!("set is answered with error {error}")),
    }
}
