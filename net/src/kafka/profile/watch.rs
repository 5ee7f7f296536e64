//! One request's moments, from its last byte in to its answer's last byte out.
//!
//! ```text
//!   starting --known--> Context --part(..), stayed(..), waiting(..)--> answered --sent-->
//! ```
//!
//! A watch that is off does nothing and reads no clock. One that is on costs a produce
//! three reads of it, or four where it was behind another one, and two more where it crosses
//! to another shard: what the connection has read anyway for its own deadlines is used again.

use super::{Ended, PARTS, Part, Parts, Recorder};
use crate::kafka::context::{Local, Peer};
use crate::kafka::cores::Gone;
use crate::kafka::route::Api;
use futures_util::future::Either;
use klamm_engine::io::Io;
use klamm_engine::profile::Round;
use klamm_engine::units::{Nanos, ShardId};
use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::rc::Rc;

/// Held by whoever has a share in the request: the connection, the handler.
pub struct Watch<I: Io>(Option<Rc<Request<I>>>);

impl<I: Io> Clone for Watch<I> {
    fn clone(&self) -> Self {
        Watch(self.0.clone())
    }
}

impl<I: Io> Default for Watch<I> {
    fn default() -> Self {
        Watch(None)
    }
}

struct Request<I: Io> {
    recorder: Rc<Recorder<I>>,
    peer: Rc<Peer>,
    bytes: usize,
    received: Nanos,
    started: Nanos,
    answered: Cell<Nanos>,
    known: OnceCell<Known>,
    parts: [Cell<u64>; PARTS.len()],
    /// What lies before is in a part already.
    counted: Cell<Nanos>,
}

struct Known {
    api: &'static Api,
    /// Only where it may be logged. A copy: the original keeps the whole frame in memory.
    client_id: Option<Box<str>>,
}

impl<I: Io> Watch<I> {
    pub(super) fn starting(
        recorder: Rc<Recorder<I>>,
        peer: Rc<Peer>,
        received: Nanos,
        now: Option<Nanos>,
        bytes: usize,
    ) -> Watch<I> {
        let started = now.unwrap_or_else(|| recorder.io.now());
        Watch(Some(Rc::new(Request {
            recorder,
            peer,
            bytes,
            received,
            started,
            answered: Cell::new(started),
            known: OnceCell::new(),
            parts: Default::default(),
            counted: Cell::new(started),
        })))
    }

    /// Its header was read. What has none is not recorded.
    pub fn known(&self, api: &'static Api, client_id: Option<&str>) {
        let Some(request) = &self.0 else { return };
        let logged = request.recorder.slow.is_on();
        let client_id = client_id.filter(|_| logged).map(Box::from);
        let first = request.known.set(Known { api, client_id });
        assert!(first.is_ok(), "a request has one header");
    }

    fn now(&self) -> Nanos {
        self.0.as_ref().map_or(Nanos(0), |r| r.recorder.io.now())
    }

    /// Counts a stretch of time, less what was counted before.
    fn part(&self, part: Part, from: Nanos, to: Nanos) {
        let Some(request) = &self.0 else { return };
        let from = from.max(request.counted.get());
        if to > from {
            request.count(part, to.0 - from.0);
            request.counted.set(to);
        }
    }

    /// What is awaited by this counts as [`Part::Wait`].
    pub fn waiting<T, F: Future<Output = T>>(
        &self,
        future: F,
    ) -> impl Future<Output = T> + use<I, T, F> {
        let (watch, from) = (self.clone(), self.now());
        async move {
            let done = future.await;
            watch.part(Part::Wait, from, watch.now());
            done
        }
    }

    /// [`Local::on`], with the way there and back as [`Part::Hop`]. The call of `work` is
    /// made in the order of the calls of this.
    pub fn on<R, F, W>(
        &self,
        local: &Rc<Local<I>>,
        shard: ShardId,
        work: W,
    ) -> impl Future<Output = Result<R, Gone>> + use<I, R, F, W>
    where
        R: Send + 'static,
        F: Future<Output = R> + 'static,
        W: FnOnce(Rc<Local<I>>) -> F + Send + 'static,
    {
        if self.0.is_none() || shard == local.cores.here() {
            return Either::Left(local.on(shard, work));
        }
        let (watch, left) = (self.clone(), self.now());
        let there = local.on(shard, move |local| {
            let (io, arrived) = (local.io.clone(), local.io.now());
            let work = work(local);
            async move {
                let done = work.await;
                (done, arrived, io.now())
            }
        });
        Either::Right(async move {
            let (done, arrived, returning) = there.await?;
            watch.part(Part::Hop, left, arrived);
            watch.part(Part::Hop, returning, watch.now());
            Ok(done)
        })
    }

    /// What came of it on a partition's home shard.
    pub fn stayed(&self, stay: Stay, crossed: bool) {
        let (Some(request), Some(at)) = (&self.0, stay.0) else {
            return;
        };
        if crossed {
            self.part(Part::Hop, request.started, at.arrived);
        }
        self.part(Part::Append, at.arrived, at.appended);
        let from = at.appended.max(request.counted.get());
        if at.acknowledged > from {
            let write = at.round.write.within(from, at.acknowledged);
            let sync = at.round.sync.within(from, at.acknowledged);
            request.count(Part::Write, write);
            request.count(Part::Sync, sync);
            let waited = at.acknowledged.0 - from.0;
            request.count(Part::Wait, waited.saturating_sub(write + sync));
            request.counted.set(at.acknowledged);
        }
        if crossed {
            self.part(Part::Hop, at.acknowledged, self.now());
        }
    }

    /// Where it stays on its shard: from when on.
    pub fn started_at(&self) -> Option<Nanos> {
        self.0.as_ref().map(|request| request.started)
    }

    /// Its answer is ready; those before it may not be.
    pub fn answered(&self) {
        if let Some(request) = &self.0 {
            request.answered.set(request.recorder.io.now());
        }
    }

    /// The last of its answer's bytes is the kernel's. None: there was nothing to send.
    pub fn sent(&self, at: Option<Nanos>, answer_bytes: usize) {
        if let Some(request) = &self.0 {
            request.end(at.unwrap_or(request.answered.get()), answer_bytes);
        }
    }
}

impl<I: Io> Request<I> {
    fn count(&self, part: Part, nanos: u64) {
        let of_part = &self.parts[part as usize];
        of_part.set(of_part.get() + nanos);
    }

    fn end(&self, sent: Nanos, answer_bytes: usize) {
        // One that was refused before it was understood.
        let Some(known) = self.known.get() else {
            return;
        };
        let answered = self.answered.get();
        let total = sent.0.saturating_sub(self.received.0);
        self.count(Part::Queue, self.started.0.saturating_sub(self.received.0));
        self.count(Part::Send, sent.0.saturating_sub(answered.0));
        let counted: u64 = self.parts.iter().map(Cell::get).sum();
        self.count(Part::Handle, total.saturating_sub(counted));
        let parts: Parts = self.parts.each_ref().map(Cell::get);
        self.recorder.record(Ended {
            api: known.api,
            total,
            parts,
            bytes: self.bytes,
            answer_bytes,
        });
        if !self.recorder.slow.is_on() {
            return;
        }
        self.recorder.slow.consider(
            sent,
            total,
            &parts,
            &super::slow::Of {
                api: known.api,
                client_id: known.client_id.as_deref(),
                peer: &self.peer,
                bytes: self.bytes,
                answer_bytes,
            },
        );
    }
}

/// A request's time on a partition's home shard: it crosses back with the outcome. Empty
/// where nothing is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Stay(Option<Moments>);

#[derive(Clone, Copy, Debug)]
struct Moments {
    arrived: Nanos,
    appended: Nanos,
    acknowledged: Nanos,
    round: Round,
}

impl Stay {
    /// `since`: when the request started, where that was on this very shard.
    pub fn arrived<I: Io>(local: &Local<I>, since: Option<Nanos>) -> Stay {
        Stay(local.profile.is_on().then(|| {
            let now = since.unwrap_or_else(|| local.io.now());
            Moments {
                arrived: now,
                appended: now,
                acknowledged: now,
                round: Round::default(),
            }
        }))
    }

    /// All its records are in memory, or refused.
    pub fn appended<I: Io>(&mut self, local: &Local<I>) {
        if let Some(at) = &mut self.0 {
            at.appended = local.io.now();
            at.acknowledged = at.appended;
        }
    }

    /// One of its partitions acknowledged, by this round. The last one counts.
    pub fn by(&mut self, round: Round) {
        if let Some(at) = &mut self.0
            && round.ended() > at.round.ended()
        {
            at.round = round;
        }
    }

    /// All of them did, or failed.
    pub fn acknowledged<I: Io>(&mut self, local: &Local<I>) {
        if let Some(at) = &mut self.0 {
            at.acknowledged = local.io.now();
        }
    }
}
