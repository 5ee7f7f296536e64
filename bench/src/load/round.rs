//! A load from its beginning to its end: fill, warm-up, and the round that counts.
//!
//! ```text
//!   layout -> connections, dealt: leader by leader, then thread by thread
//!     [fill]  [warm-up]  [evict]  | server's /proc |  round  | server's /proc |  remove
//! ```

use super::consumer::{Consumer, Until};
use super::content::Batches;
use super::evict;
use super::layout::{Layout, Place};
use super::produce::Frame;
use super::producer::Producer;
use super::schedule::Schedule;
use super::tally::Tally;
use super::worker::{LATE, Round, Seen, Shared, Worker};
use super::{Rate, Spec, Target, Workload};
use crate::measurement::{Measurement, Used};
use crate::process::{Cpu, Memory, Switches};
use crate::{Outcome, cores};
use klamm_engine::units::TimestampMs;
use std::io::{IsTerminal, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// For filling, which ends when all is in.
const NO_END: Duration = Duration::from_secs(24 * 3600);

/// Above this share of late requests the latencies are the client's as much.
const LATE_SHARE: f64 = 0.01;

/// An open loop that ends so much later than it should is behind its rate.
const BEHIND_SHARE: f64 = 0.1;

pub fn run(spec: &Spec, target: &Target) -> Outcome<Vec<Measurement>> {
    spec.check()?;
    let mut layout = Layout::make(spec, target)?;
    // Whatever happens, what was made is removed; the first failure is the one to be told.
    let measured = load(spec, target, &mut layout);
    let removed = layout.remove();
    let measured = measured?;
    removed?;
    Ok(measured)
}

fn load(spec: &Spec, target: &Target, layout: &mut Layout) -> Outcome<Vec<Measurement>> {
    cores::raise_open_files()?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(|e| format!("the clock: {e}"))?;
    let now = TimestampMs(i64::try_from(now.as_millis()).map_err(|e| format!("the clock: {e}"))?);
    let batches = Batches::build(&spec.content, now);
    let client = Client {
        spec,
        layout,
        batches,
    };

    if spec.workload == Workload::Consume && spec.named_topics.is_empty() {
        let mut workers = client.workers(true, false)?;
        client.round(&mut workers, NO_END, None, spec.fill_bytes)?;
        drop(workers);
        client.layout.refresh_offsets()?;
    }
    let produces = spec.workload != Workload::Consume;
    let mut workers = client.workers(produces, spec.workload != Workload::Produce)?;
    if !spec.warm_up.is_zero() {
        client.round(&mut workers, spec.warm_up, spec.rate, u64::MAX)?;
    }
    if let Some(folder) = &spec.evict {
        evict::folder(folder)?;
    }

    let mut warnings = warnings(spec, target)?;
    let before = target.pid.map(used).transpose()?;
    let client_before = Cpu::of_this_process()?;
    let seen = client.round(&mut workers, spec.time, spec.rate, u64::MAX)?;
    let after = target.pid.map(used).transpose()?;
    let client_cpu = Cpu::of_this_process()? - client_before;
    let used = before.zip(after).map(|(before, after)| Used {
        cpu: after.cpu - before.cpu,
        resident_bytes_max: after.resident_bytes_max,
        switches_voluntary: after
            .switches_voluntary
            .saturating_sub(before.switches_voluntary),
        switches_involuntary: after
            .switches_involuntary
            .saturating_sub(before.switches_involuntary),
    });
    warnings.extend(open_loop_warnings(spec, &seen));

    let measurement = |tally: &Tally, side: &str| Measurement {
        workload: format!("{spec}{side}"),
        server: target.server.clone(),
        requests: tally.requests,
        records: tally.records,
        bytes: tally.bytes,
        wall: Duration::from_nanos(tally.last),
        latency: tally.latency.clone(),
        course: tally.course(),
        used,
        client: client_cpu,
        warnings: warnings.clone(),
    };
    let (produced, consumed) = (&seen.produced, &seen.consumed);
    let sides = match spec.workload {
        Workload::Produce => vec![measurement(produced, "")],
        Workload::Consume => vec![measurement(consumed, "")],
        Workload::Tail => vec![
            measurement(consumed, ""),
            measurement(produced, ": acknowledged"),
        ],
        Workload::Mixed => vec![
            measurement(produced, ": producers"),
            measurement(consumed, ": consumers"),
        ],
    };
    match sides.iter().find(|side| side.records == 0) {
        Some(side) => Err(format!(
            "{}: no record came in {:?}",
            side.workload, spec.time
        )),
        None => Ok(sides),
    }
}

fn used(pid: u32) -> Outcome<Used> {
    let switches = Switches::of(pid)?;
    Ok(Used {
        cpu: Cpu::of(pid)?,
        resident_bytes_max: Memory::of(pid)?.resident_bytes_max,
        switches_voluntary: switches.voluntary,
        switches_involuntary: switches.involuntary,
    })
}

/// What can be known before.
fn warnings(spec: &Spec, target: &Target) -> Outcome<Vec<String>> {
    let mut warnings = Vec::new();
    if let Some(pid) = target.pid {
        let shared = cores::shared_with(pid, &spec.client_cores)?;
        if !shared.is_empty() {
            warnings.push(format!(
                "{} may run on the client's processors {shared:?}: each takes time from the other; \
                 keep them apart with --server-cores and --client-cores, or taskset",
                target.server
            ));
        }
    }
    Ok(warnings)
}

/// And what only the round shows.
fn open_loop_warnings(spec: &Spec, seen: &Seen) -> Vec<String> {
    let mut warnings = Vec::new();
    let requests = seen.produced.requests + seen.given_up;
    let over = Duration::from_nanos(seen.produced.last).saturating_sub(spec.time);
    if spec.rate.is_some() && seen.given_up == 0 && over > spec.time.mul_f64(BEHIND_SHARE) {
        warnings.push(format!(
            "the last request was answered {over:.1?} after the round: this rate is more than the \
             broker keeps with {} under way on a connection",
            spec.in_flight
        ));
    }
    if seen.given_up > 0 {
        warnings.push(format!(
            "{} of {requests} requests that were due were never sent: the broker can't keep this \
             rate, and they count with the time that they have waited",
            seen.given_up
        ));
    }
    #[allow(clippy::cast_precision_loss)] // exact below 2^53
    if seen.late as f64 > LATE_SHARE * requests as f64 {
        warnings.push(format!(
            "{} of {requests} requests were sent more than {LATE:?} late by the client itself: its \
             latencies are not the broker's alone",
            seen.late
        ));
    }
    warnings
}

struct Client<'a> {
    spec: &'a Spec,
    layout: &'a mut Layout,
    batches: Batches,
}

impl Client<'_> {
    /// Threads with their connections, all open.
    fn workers(&self, produces: bool, consumes: bool) -> Outcome<Vec<Worker>> {
        let spec = self.spec;
        let places: Arc<[Place]> = Arc::from(&self.layout.places[..]);
        let end_to_end = spec.workload == Workload::Tail;
        let threads = spec.threads.max(1);
        let mut each: Vec<(Vec<Producer>, Vec<Consumer>)> =
            (0..threads).map(|_| (Vec::new(), Vec::new())).collect();
        let deal = |connections| deal(&places, self.layout.leaders.len(), connections, end_to_end);
        if produces {
            for (n, (leader, mine)) in deal(spec.connections as usize).into_iter().enumerate() {
                let frames = self.frames(&mine)?;
                let socket = open(self.layout.leaders[leader])?;
                let in_flight = spec.in_flight.max(1) as usize;
                let producer = Producer::new(socket, frames, in_flight, spec.acks == 0);
                each[n % threads].0.push(producer);
            }
        }
        if consumes {
            // From end to end, a record is read by the thread that sent it.
            let count = if end_to_end {
                spec.connections
            } else {
                spec.consumers
            };
            let until = match spec.workload {
                Workload::Consume if spec.once || spec.evict.is_some() => Until::End,
                Workload::Consume => Until::EndOverAndOver,
                _ => Until::Stopped,
            };
            for (n, (leader, mine)) in deal(count as usize).into_iter().enumerate() {
                let socket = open(self.layout.leaders[leader])?;
                let consumer = Consumer::new(socket, mine, &places, until, spec.limits, spec.check);
                each[n % threads].1.push(consumer);
            }
        }
        each.retain(|(producers, consumers)| !producers.is_empty() || !consumers.is_empty());
        each.into_iter()
            .map(|(producers, consumers)| {
                Worker::new(producers, consumers, places.clone(), end_to_end && consumes)
            })
            .collect()
    }

    /// A connection's requests, which it sends in turn: each of its partitions in one of
    /// them, and so many of them that all the batches are in some.
    fn frames(&self, mine: &[usize]) -> Outcome<Vec<Frame>> {
        let Batches { batches, records } = &self.batches;
        let groups: Vec<&[usize]> = mine.chunks((self.spec.batches as usize).max(1)).collect();
        let rounds = batches.len().div_ceil(mine.len());
        let mut next = 0;
        let mut frames = Vec::with_capacity(rounds * groups.len());
        for _ in 0..rounds {
            for group in &groups {
                let to: Vec<_> = (group.iter())
                    .map(|&place| {
                        next += 1;
                        (place, &batches[next % batches.len()])
                    })
                    .collect();
                let (version, acks) = (self.layout.produce_version, self.spec.acks);
                frames.push(Frame::build(
                    version,
                    acks,
                    &self.layout.places,
                    &to,
                    *records,
                )?);
            }
        }
        Ok(frames)
    }

    fn requests_a_second(&self, rate: Rate, workers: &[Worker]) -> f64 {
        match rate {
            Rate::Requests(rate) => rate,
            Rate::Records(rate) => {
                let all = workers.iter().flat_map(|worker| &worker.producers);
                let (records, requests) = all
                    .flat_map(|producer| producer.frames())
                    .fold((0, 0), |(records, n), frame| {
                        (records + frame.records, n + 1)
                    });
                #[allow(clippy::cast_precision_loss)] // some thousands
                let each = records as f64 / f64::from(requests.max(1));
                rate / each
            }
        }
    }

    /// One round on all threads.
    fn round(
        &self,
        workers: &mut [Worker],
        time: Duration,
        rate: Option<Rate>,
        bytes_max: u64,
    ) -> Outcome<Seen> {
        let requests = rate.map(|rate| self.requests_a_second(rate, workers));
        let threads = workers.len();
        // Who only consumes has no share of the schedule.
        let producing = workers
            .iter()
            .filter(|worker| !worker.producers.is_empty())
            .count();
        let mut share = 0..producing;
        let shared = Shared::default();
        let origin = Instant::now();
        let (tell, told) = channel();
        let mut all = Seen::new();
        let mut failure: Option<String> = None;
        thread::scope(|scope| {
            for (n, worker) in workers.iter_mut().enumerate() {
                let share = if worker.producers.is_empty() {
                    None
                } else {
                    share.next()
                };
                let schedule = requests
                    .zip(share)
                    .map(|(rate, share)| Schedule::new(rate, share, producing));
                let mut round = Round {
                    origin,
                    time,
                    schedule,
                    bytes_max: bytes_max.div_ceil(threads as u64),
                    shared: &shared,
                };
                let (tell, core) = (tell.clone(), self.core(n));
                scope.spawn(move || {
                    let seen = cores::pin_this_thread(core).and_then(|()| worker.run(&mut round));
                    if seen.is_err() {
                        round.shared.aborted.store(true, Ordering::Relaxed);
                    }
                    // Heard by the loop below, which ends after all of them.
                    let _ = tell.send(seen);
                });
            }
            let mut progress = Progress::begin();
            let mut running = threads;
            while running > 0 {
                match told.recv_timeout(Progress::EVERY) {
                    Ok(seen) => {
                        running -= 1;
                        // An empty one only follows another's.
                        let added = seen.and_then(|seen| all.add(&seen));
                        failure = failure.take().filter(|m| !m.is_empty()).or(added.err());
                    }
                    Err(RecvTimeoutError::Timeout) => progress.show(&shared),
                    Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is held here"),
                }
            }
        });
        match failure {
            Some(message) => Err(message),
            None => Ok(all),
        }
    }

    fn core(&self, thread: usize) -> Option<usize> {
        let cores = &self.spec.client_cores;
        (!cores.is_empty()).then(|| cores[thread % cores.len()])
    }
}

/// Connections, dealt to the leaders in turn, and a leader's partitions to its
/// connections; where these are more, several have the same partition, unless `alone`.
fn deal(
    places: &[Place],
    leaders: usize,
    connections: usize,
    alone: bool,
) -> Vec<(usize, Vec<usize>)> {
    let connections = connections.max(leaders);
    (0..connections)
        .filter_map(|n| {
            let (leader, nth) = (n % leaders, n / leaders);
            let siblings = (connections - leader).div_ceil(leaders);
            let theirs: Vec<usize> = (places.iter().enumerate())
                .filter(|(_, place)| place.leader == leader)
                .map(|(at, _)| at)
                .collect();
            let mine: Vec<usize> = if siblings <= theirs.len() {
                theirs.into_iter().skip(nth).step_by(siblings).collect()
            } else if alone {
                theirs.into_iter().skip(nth).take(1).collect()
            } else {
                vec![theirs[nth % theirs.len()]]
            };
            (!mine.is_empty()).then_some((leader, mine))
        })
        .collect()
}

fn open(leader: SocketAddr) -> Outcome<TcpStream> {
    let failed = |e| format!("the leader at {leader}: {e}");
    let socket = TcpStream::connect(leader).map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(socket)
}

/// A line on the terminal, if there is one.
struct Progress {
    on: bool,
    began: Instant,
    last: (Instant, u64, u64),
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(1);

    fn begin() -> Progress {
        let now = Instant::now();
        Progress {
            on: std::io::stderr().is_terminal(),
            began: now,
            last: (now, 0, 0),
        }
    }

    #[allow(clippy::cast_precision_loss)] // for people
    fn show(&mut self, shared: &Shared) {
        if !self.on {
            return;
        }
        let now = Instant::now();
        let (bytes, records) = (
            shared.bytes.load(Ordering::Relaxed),
            shared.records.load(Ordering::Relaxed),
        );
        let (before, bytes_before, records_before) = self.last;
        let seconds = (now - before).as_secs_f64();
        let line = format!(
            "{:>4} s  {:8.1} MB/s  {:10.0} records/s",
            self.began.elapsed().as_secs(),
            (bytes - bytes_before) as f64 / 1e6 / seconds,
            (records - records_before) as f64 / seconds,
        );
        // To nobody's harm if the terminal is gone.
        let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
        self.last = (now, bytes, records);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.on {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(leaders: &[usize]) -> Vec<Place> {
        (0..)
            .zip(leaders)
            .map(|(index, &leader)| Place {
                topic: "t".into(),
                index,
                leader,
                start: 0,
                end: 0,
            })
            .collect()
    }

    #[test]
    fn every_partition_is_dealt_to_a_connection_of_its_leader() {
        let places = places(&[0, 1, 0, 1, 1, 0, 1]);
        for connections in 1..20 {
            for alone in [false, true] {
                let dealt = deal(&places, 2, connections, alone);
                let mut all: Vec<usize> = Vec::new();
                for (leader, mine) in &dealt {
                    assert!(!mine.is_empty());
                    assert!(mine.iter().all(|&place| places[place].leader == *leader));
                    all.extend(mine);
                }
                all.sort_unstable();
                if alone || connections <= 6 {
                    assert_eq!(all, (0..7).collect::<Vec<_>>(), "{connections}: each once");
                } else {
                    assert_eq!(dealt.len(), connections);
                    assert!((0..7).all(|place| all.contains(&place)));
                }
            }
        }
    }
}
