//! One thread of the client: its connections, and the loop that serves them.
//!
//! ```text
//!        +-> begin what is due (open loop) -> writev
//!        |   wait: epoll, until the next is due
//!        |   for each socket that is ready:
//!        |      producer: read answers -> begin more -> writev
//!        +---   consumer: read batches -> ask for more
//!   the round is over: what is under way is answered first
//! ```
//!
//! Events are told once (edge-triggered), for both directions: no system call is spent
//! on what epoll is to look at. Nothing is shared with other threads but two counters
//! for the progress line.

use super::consumer::Consumer;
use super::layout::Place;
use super::produce::Frame;
use super::producer::Producer;
use super::schedule::Schedule;
use super::tally::{Nanos, Tally};
use crate::Outcome;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One read: a few batches, and within a processor's second cache.
const READ_BYTES: usize = 256 << 10;
const READY_MAX: usize = 1024;

/// Longer without an answer, and the broker is hung.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// After the end of an open loop, for what was due and has no room yet.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(10);

/// A request that the client's thread comes to later is late by the client's fault.
pub const LATE: Duration = Duration::from_millis(1);

/// Sleeping for less would be late: the thread turns round instead.
const SLEEP_MIN: Duration = Duration::from_micros(10);
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What all threads of a round see.
#[derive(Default)]
pub struct Shared {
    /// One has failed: the others need not go on.
    pub aborted: AtomicBool,
    /// For the progress line.
    pub records: AtomicU64,
    pub bytes: AtomicU64,
}

/// A stretch of load: the warm-up, or what is measured.
pub struct Round<'a> {
    pub origin: Instant,
    pub time: Duration,
    /// None: as fast as it goes.
    pub schedule: Option<Schedule>,
    /// This thread sends no more than this, as fast as it goes.
    pub bytes_max: u64,
    pub shared: &'a Shared,
}

/// What a thread has seen in a round.
pub struct Seen {
    pub produced: Tally,
    pub consumed: Tally,
    /// Requests that were due and never sent.
    pub given_up: u64,
    /// Requests that this thread itself came to more than [`LATE`] after they were due.
    pub late: u64,
    /// Bytes of batches whose requests were begun.
    begun: u64,
}

impl Seen {
    pub fn new() -> Seen {
        Seen {
            produced: Tally::new(),
            consumed: Tally::new(),
            given_up: 0,
            late: 0,
            begun: 0,
        }
    }

    /// Records and bytes.
    fn so_far(&self) -> (u64, u64) {
        let (produced, consumed) = (&self.produced, &self.consumed);
        (
            produced.records + consumed.records,
            produced.bytes + consumed.bytes,
        )
    }

    pub fn add(&mut self, other: &Seen) -> Outcome {
        self.produced.add(&other.produced)?;
        self.consumed.add(&other.consumed)?;
        self.given_up += other.given_up;
        self.late += other.late;
        self.begun += other.begun;
        Ok(())
    }
}

/// What is on its way from a producer to the consumer of the same partition.
struct Tail {
    /// Where the next batch that is sent will begin, and the next one that is answered.
    next: i64,
    appended: i64,
    /// The offset behind each, and when it was due.
    under_way: VecDeque<(i64, Nanos)>,
}

impl Tail {
    /// All up to that offset has been read.
    fn read(&mut self, next: i64, now: Nanos, tally: &mut Tally) {
        while let Some(&(end, due)) = self.under_way.front()
            && end <= next
        {
            self.under_way.pop_front();
            tally.took(now, now.saturating_sub(due), 1);
        }
    }

    /// Nobody else may write: by its offset a record is known.
    fn appended(&mut self, offset: i64, records: i64, place: &Place) -> Outcome {
        if offset != self.appended {
            return Err(format!(
                "Produce: {place} appends at offset {offset}, where {} was due: \
                 somebody else writes to it, and no latency can be told",
                self.appended
            ));
        }
        self.appended += records;
        Ok(())
    }
}

pub struct Worker {
    epoll: OwnedFd,
    pub producers: Vec<Producer>,
    pub consumers: Vec<Consumer>,
    places: Arc<[Place]>,
    /// By place, where the latency from end to end is wanted; else empty.
    tails: Vec<Tail>,
    inbound: Box<[u8]>,
    /// Whose turn it is for what is due.
    turn: usize,
}

impl Worker {
    pub fn new(
        producers: Vec<Producer>,
        consumers: Vec<Consumer>,
        places: Arc<[Place]>,
        end_to_end: bool,
    ) -> Outcome<Worker> {
        let failed = |e| format!("epoll: {e}");
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        let sockets =
            (producers.iter().map(|p| &p.socket)).chain(consumers.iter().map(|c| &c.socket));
        for (index, socket) in (0..).zip(sockets) {
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&epoll, socket, EventData::new_u64(index), flags).map_err(failed)?;
        }
        let tail = |place: &Place| Tail {
            next: place.end,
            appended: place.end,
            under_way: VecDeque::new(),
        };
        Ok(Worker {
            epoll,
            producers,
            consumers,
            tails: if end_to_end {
                places.iter().map(tail).collect()
            } else {
                Vec::new()
            },
            places,
            inbound: vec![0; READ_BYTES].into(),
            turn: 0,
        })
    }

    /// Returns when the round's time is over and all is answered.
    pub fn run(&mut self, round: &mut Round<'_>) -> Outcome<Seen> {
        let origin = round.origin;
        let clock = || nanos(origin.elapsed());
        let time = nanos(round.time);
        let mut seen = Seen::new();
        let mut events: Vec<Event> = Vec::with_capacity(READY_MAX);
        let (mut heard, mut shown) = (0, (0, 0));

        if round.schedule.is_none() {
            for index in 0..self.producers.len() {
                self.begin(index, clock(), round.bytes_max, &mut seen)?;
            }
        }
        for consumer in &mut self.consumers {
            consumer.rewind(&self.places);
            consumer.ask(&self.places, clock())?;
        }
        loop {
            let now = clock();
            let mut wake = time;
            if let Some(schedule) = &mut round.schedule {
                self.take_due(schedule, now.min(time - 1), now, &mut seen)?;
                wake = wake.min(nanos(schedule.due()));
            }
            if now > time.saturating_add(nanos(CATCH_UP_WITHIN)) {
                self.give_up(now, &mut seen);
            }
            let sent_all = now >= time || seen.begun >= round.bytes_max;
            if self.is_over(sent_all) {
                return Ok(seen);
            }
            let hungry = !sent_all && self.feed(round, &clock, &mut seen)?;
            let sleep = match wake.checked_sub(now) {
                _ if hungry => Duration::ZERO,
                Some(sleep) if !sent_all => Duration::from_nanos(sleep),
                _ => SLEEP_MAX,
            };
            self.wait(&mut events, sleep)?;
            if round.shared.aborted.load(Ordering::Relaxed) {
                return Err(String::new());
            }
            for event in &events {
                let index = usize::try_from(event.data.u64()).expect("a connection's index");
                if index < self.producers.len() {
                    self.serve_producer(index, event.flags, round, &clock, &mut seen)?;
                } else {
                    let index = index - self.producers.len();
                    self.serve_consumer(index, event.flags, time, &clock, &mut seen)?;
                }
            }
            let now = clock();
            if !events.is_empty() || !self.is_waiting() {
                heard = now;
            } else if now - heard > nanos(ANSWER_WITHIN) {
                return Err(format!("no answer within {ANSWER_WITHIN:?}"));
            }
            let (all, shared) = (seen.so_far(), round.shared);
            shared.records.fetch_add(all.0 - shown.0, Ordering::Relaxed);
            shared.bytes.fetch_add(all.1 - shown.1, Ordering::Relaxed);
            shown = all;
        }
    }

    fn wait(&self, events: &mut Vec<Event>, sleep: Duration) -> Outcome {
        let sleep = if sleep < SLEEP_MIN {
            Duration::ZERO
        } else {
            sleep.min(SLEEP_MAX)
        };
        let timeout = Timespec {
            tv_sec: i64::try_from(sleep.as_secs()).expect("a second"),
            tv_nsec: sleep.subsec_nanos().into(),
        };
        events.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(events),
            Some(&timeout),
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(format!("epoll: {e}")),
        }
    }

    fn is_waiting(&self) -> bool {
        self.producers.iter().any(Producer::is_under_way)
            || self.consumers.iter().any(Consumer::is_under_way)
    }

    fn is_over(&self, sent_all: bool) -> bool {
        let idle = self.producers.iter().all(Producer::is_idle)
            && !self.consumers.iter().any(Consumer::is_under_way);
        let read_all =
            || self.producers.is_empty() && self.consumers.iter().all(|c| c.is_done(&self.places));
        idle && (sent_all || read_all())
    }

    /// Deals what is due by then to the producers in turn.
    fn take_due(
        &mut self,
        schedule: &mut Schedule,
        by: Nanos,
        now: Nanos,
        seen: &mut Seen,
    ) -> Outcome {
        while let Some(due) = schedule.take(Duration::from_nanos(by)) {
            let due = nanos(due);
            seen.late += u64::from(now - due > nanos(LATE));
            let index = self.turn;
            self.turn = (index + 1) % self.producers.len();
            self.producers[index].due(due);
            self.begin_due(index, now, seen)?;
        }
        Ok(())
    }

    /// What was due and never sent has at least waited so long.
    fn give_up(&mut self, now: Nanos, seen: &mut Seen) {
        for producer in &mut self.producers {
            for due in producer.give_up() {
                seen.produced.took(now, now - due, 1);
                seen.given_up += 1;
            }
        }
    }

    fn begin(&mut self, index: usize, now: Nanos, bytes_max: u64, seen: &mut Seen) -> Outcome {
        let (tails, producer) = (&mut self.tails, &mut self.producers[index]);
        producer.fill(now, |frame| {
            let more = seen.begun < bytes_max;
            if more {
                seen.begun += frame.bytes;
                note(tails, frame, now);
            }
            more
        });
        producer.write(now, &mut seen.produced)
    }

    /// As fast as it goes, and nobody answers: more for each that can take it. True where
    /// one still can.
    fn feed(
        &mut self,
        round: &Round<'_>,
        clock: &impl Fn() -> Nanos,
        seen: &mut Seen,
    ) -> Outcome<bool> {
        if round.schedule.is_some() {
            return Ok(false);
        }
        let mut hungry = false;
        for index in 0..self.producers.len() {
            if self.producers[index].is_hungry() {
                self.begin(index, clock(), round.bytes_max, seen)?;
                hungry |= self.producers[index].is_hungry();
            }
        }
        Ok(hungry)
    }

    fn begin_due(&mut self, index: usize, now: Nanos, seen: &mut Seen) -> Outcome {
        let (tails, producer) = (&mut self.tails, &mut self.producers[index]);
        loop {
            producer.fill_waiting(|frame, since| note(tails, frame, since));
            producer.write(now, &mut seen.produced)?;
            // Where nobody answers, what was written has made room.
            if !(producer.is_hungry() && producer.is_behind()) {
                return Ok(());
            }
        }
    }

    fn serve_producer(
        &mut self,
        index: usize,
        flags: EventFlags,
        round: &Round<'_>,
        clock: &impl Fn() -> Nanos,
        seen: &mut Seen,
    ) -> Outcome {
        let Worker {
            producers,
            places,
            inbound,
            tails,
            ..
        } = self;
        let producer = &mut producers[index];
        if flags.contains(EventFlags::OUT) {
            producer.writable();
        }
        let mut appended = |place: usize, offset, records| match tails.get_mut(place) {
            Some(tail) => tail.appended(offset, records, &places[place]),
            None => Ok(()),
        };
        if flags.intersects(READABLE) {
            producer.read(inbound, places, clock, &mut seen.produced, &mut appended)?;
        }
        // It is told once: what lies before the end may have been all of a read.
        if flags.intersects(CLOSED) {
            producer.read(inbound, places, clock, &mut seen.produced, &mut appended)?;
        }
        let now = clock();
        if round.schedule.is_none() && now < nanos(round.time) {
            self.begin(index, now, round.bytes_max, seen)
        } else {
            self.begin_due(index, now, seen)
        }
    }

    fn serve_consumer(
        &mut self,
        index: usize,
        flags: EventFlags,
        time: Nanos,
        clock: &impl Fn() -> Nanos,
        seen: &mut Seen,
    ) -> Outcome {
        let Worker {
            consumers,
            places,
            inbound,
            tails,
            producers,
            ..
        } = self;
        let consumer = &mut consumers[index];
        if flags.contains(EventFlags::OUT) {
            consumer.write()?;
        }
        if !flags.intersects(READABLE) {
            return Ok(());
        }
        let end_to_end = !tails.is_empty();
        let was_under_way = consumer.is_under_way();
        consumer.read(
            inbound,
            places,
            clock,
            &mut seen.consumed,
            |tally, now, place, next| {
                if let Some(tail) = tails.get_mut(place) {
                    tail.read(next, now, tally);
                }
            },
        )?;
        if was_under_way && consumer.is_under_way() && flags.intersects(CLOSED) {
            return Err(
                "the broker closed a consumer's connection in the middle of an answer".to_owned(),
            );
        }
        if !was_under_way || consumer.is_under_way() {
            return Ok(());
        }
        let now = clock();
        consumer.count(now, !end_to_end, &mut seen.consumed);
        // From end to end, all that was sent is read, also when the time is over.
        let missing = || {
            producers.iter().any(|producer| !producer.is_idle())
                || tails.iter().any(|tail| !tail.under_way.is_empty())
        };
        if now < time || end_to_end && missing() {
            consumer.ask(places, now)?;
        }
        Ok(())
    }
}

const CLOSED: EventFlags = EventFlags::RDHUP
    .union(EventFlags::HUP)
    .union(EventFlags::ERR);
const READABLE: EventFlags = EventFlags::IN.union(CLOSED);

/// A request is begun: its batches will be read at the offsets behind what went before.
fn note(tails: &mut [Tail], frame: &Frame, since: Nanos) {
    if tails.is_empty() {
        return;
    }
    for &place in &frame.places {
        let tail = &mut tails[place];
        tail.next += i64::from(frame.records_each);
        tail.under_way.push_back((tail.next, since));
    }
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
