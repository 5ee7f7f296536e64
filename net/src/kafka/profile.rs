//! What a request's time went into, in histograms of its shard.
//!
//! ```text
//!   received   started                                    answered        sent
//!      |--queue--|--hop--|--append--|-wait-|-write-|-sync-|--hop--|--send--|
//!      |         |       arrived on the home shard        |       |        |
//!      +------------------------------ total ------------------------------+
//!
//!   Watch      one request: moments and parts       (watch.rs)
//!   Stay       its time on a partition's home shard, carried back with the outcome
//!   Departures which answers are sent whole         (departures.rs)
//!   Recorder   one shard: a histogram a part and API; Stalls (stalls.rs); Slow (slow.rs)
//! ```
//!
//! | part | from, to |
//! |---|---|
//! | `queue` | the frame is whole -> its handler starts (the budget's wait is in it) |
//! | `hop` | to the home shard and back |
//! | `append` | records decoded, checked, stamped and copied into a chunk |
//! | `write`, `sync` | the share of the round's that was waited for |
//! | `wait` | everything else that was waited for: others' rounds, records to come, an earlier fetch's answer, the coordinator |
//! | `handle` | what is left: looking up, reading, encoding |
//! | `send` | the answer is ready -> its last byte is the kernel's |
//!
//! The parts never overlap (where shards work side by side, time that was counted is not
//! counted again), so they add up to the total. One that a request has not is not
//! recorded for it: its histogram's count says how many had it.

mod departures;
mod slow;
mod stalls;
mod watch;

pub use departures::Departures;
pub use stalls::watch_stalls;
pub use watch::{Stay, Watch};

use crate::kafka::context::{Local, Peer};
use crate::kafka::route::Api;
use crate::profile::{ENGINE, Entry, SHARD, Snapshot};
use klamm_engine::io::Io;
use klamm_engine::profile::{Series, StoreProfile, Unit};
use klamm_engine::units::{Nanos, ShardId};
use slow::Slow;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// What is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    pub histograms: bool,
    /// Requests that took at least so long are logged.
    pub slow: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            histograms: true,
            slow: None,
        }
    }
}

impl Settings {
    /// What the shard's store reports into.
    #[must_use]
    pub fn store_profile(&self) -> Option<Rc<StoreProfile>> {
        self.histograms.then(StoreProfile::new)
    }
}

/// A part of a request's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Queue,
    Hop,
    Append,
    Write,
    Sync,
    Wait,
    Handle,
    Send,
}

pub const PARTS: [(Part, &str); 8] = [
    (Part::Queue, "queue"),
    (Part::Hop, "hop"),
    (Part::Append, "append"),
    (Part::Write, "write"),
    (Part::Sync, "sync"),
    (Part::Wait, "wait"),
    (Part::Handle, "handle"),
    (Part::Send, "send"),
];

/// So many requests are counted together: a histogram's lines are far apart, and to
/// fetch ten of them into the core's cache for each request costs more than all else.
const COUNTED_TOGETHER: usize = 256;

/// A request that is over.
struct Ended {
    api: &'static Api,
    total: u64,
    parts: Parts,
    bytes: usize,
    answer_bytes: usize,
}

/// A request's nanoseconds by part.
pub(crate) type Parts = [u64; PARTS.len()];

/// One shard's histograms.
pub struct Recorder<I: Io> {
    io: I,
    settings: Settings,
    began: Nanos,
    /// Those that are not yet counted, fewer than [`COUNTED_TOGETHER`].
    ended: RefCell<Vec<Ended>>,
    /// By the API's key; made at its first request.
    apis: RefCell<Vec<Option<Box<OfApi>>>>,
    /// How late timers fire, and how late tasks that could run do.
    timer: RefCell<Series>,
    turn: RefCell<Series>,
    slow: Slow,
}

struct OfApi {
    name: &'static str,
    total: Series,
    parts: [Option<Series>; PARTS.len()],
    request_bytes: Series,
    answer_bytes: Series,
}

impl OfApi {
    fn new(name: &'static str) -> OfApi {
        OfApi {
            name,
            total: Series::new(Unit::Nanos),
            parts: [const { None }; PARTS.len()],
            request_bytes: Series::new(Unit::Bytes),
            answer_bytes: Series::new(Unit::Bytes),
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let entry = |name: &'static str, series: &Series| Entry {
            group: self.name.into(),
            name: name.into(),
            series: series.clone(),
        };
        let mut entries = vec![entry("total", &self.total)];
        for ((_, name), series) in PARTS.iter().zip(&self.parts) {
            entries.extend(series.iter().map(|series| entry(name, series)));
        }
        entries.push(entry("request_bytes", &self.request_bytes));
        entries.push(entry("answer_bytes", &self.answer_bytes));
        entries
    }
}

impl<I: Io> Recorder<I> {
    pub fn new(io: I, settings: Settings) -> Rc<Recorder<I>> {
        Rc::new(Recorder {
            began: io.now(),
            io,
            settings,
            ended: RefCell::new(Vec::with_capacity(COUNTED_TOGETHER)),
            apis: RefCell::default(),
            timer: RefCell::new(Series::new(Unit::Nanos)),
            turn: RefCell::new(Series::new(Unit::Nanos)),
            slow: Slow::new(settings.slow),
        })
    }

    fn is_on(&self) -> bool {
        self.settings.histograms || self.slow.is_on()
    }

    /// A request that was whole at `received` starts `now`; the clock is read where that is
    /// not known.
    pub fn watch(
        self: &Rc<Self>,
        peer: &Rc<Peer>,
        received: Nanos,
        now: Option<Nanos>,
        bytes: usize,
    ) -> Watch<I> {
        match self.is_on() {
            true => Watch::starting(self.clone(), peer.clone(), received, now, bytes),
            false => Watch::default(),
        }
    }

    /// A request is over: its answer is the kernel's.
    fn record(&self, ended: Ended) {
        if !self.settings.histograms {
            return;
        }
        let mut together = self.ended.borrow_mut();
        together.push(ended);
        if together.len() == COUNTED_TOGETHER {
            self.count(&mut together);
        }
    }

    fn count(&self, together: &mut Vec<Ended>) {
        let mut apis = self.apis.borrow_mut();
        for ended in together.drain(..) {
            let at = usize::from(ended.api.key.unsigned_abs());
            if apis.len() <= at {
                apis.resize_with(at + 1, || None);
            }
            let of = apis[at].get_or_insert_with(|| Box::new(OfApi::new(ended.api.name)));
            of.total.record(ended.total);
            for (series, nanos) in of.parts.iter_mut().zip(&ended.parts) {
                if *nanos > 0 {
                    let series = series.get_or_insert_with(|| Series::new(Unit::Nanos));
                    series.record(*nanos);
                }
            }
            of.request_bytes.record(ended.bytes as u64);
            of.answer_bytes.record(ended.answer_bytes as u64);
        }
    }

    /// This shard's histograms as they are. Other tasks have their turn between groups:
    /// a group is some 300 KiB to copy.
    async fn copied(&self, store: Option<&Rc<StoreProfile>>) -> Snapshot {
        self.count(&mut self.ended.borrow_mut());
        let mut entries = Vec::new();
        let count = self.apis.borrow().len();
        for at in 0..count {
            let of_api = self.apis.borrow()[at].as_ref().map(|of| of.entries());
            if let Some(of_api) = of_api {
                entries.extend(of_api);
                give_way().await;
            }
        }
        let engine = store.map(|store| store.copied()).unwrap_or_default();
        entries.extend(engine.into_iter().map(|(name, series)| Entry {
            group: ENGINE.into(),
            name: name.into(),
            series,
        }));
        for (name, series) in [("timer", &self.timer), ("turn", &self.turn)] {
            entries.push(Entry {
                group: SHARD.into(),
                name: name.into(),
                series: series.borrow().clone(),
            });
        }
        Snapshot {
            began: self.began,
            taken: self.io.now(),
            shards: 1,
            entries,
        }
    }
}

/// Ends this task's turn.
async fn give_way() {
    let given = Cell::new(false);
    poll_fn(|cx| {
        if given.replace(true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Every shard's histograms, or why there are none.
pub async fn collect<I: Io>(local: &Rc<Local<I>>) -> Result<Vec<Snapshot>, String> {
    if !local.profile.settings.histograms {
        return Err(
            "the broker was started with --profile off; start it with --profile on".to_owned(),
        );
    }
    let shards = (0..local.cores.count()).map(|at| {
        local.on(ShardId(at as u16), |there| async move {
            there.profile.copied(there.store.profile()).await
        })
    });
    futures_util::future::join_all(shards)
        .await
        .into_iter()
        .map(|snapshot| snapshot.map_err(|gone| gone.to_string()))
        .collect()
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
