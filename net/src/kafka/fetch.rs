//! Fetch (key 1, versions 4-12).
//!
//! ```text
//!   turn comes --> read on the home shards --> enough, an error, or time is up --> answer
//!                     ^                            | no
//!                     +--- a high watermark moved -+      nothing polls
//! ```
//!
//! How much is enough: `min_bytes`, or `max_wait` is over. How much at most: the
//! request's `max_bytes`, each partition's, and `fetch.max.bytes`; but the first batch
//! of the first partition that has one is sent whole, however large (KIP-74). The
//! order of the partitions is the client's: it rotates them so that none starves.
//!
//! Fetch sessions (KIP-227) are declined: a full fetch is answered with session 0. A
//! request that goes on with a session can't be one of ours.

mod read;
mod response;

use crate::kafka::answer::{Answer, Part};
use crate::kafka::context::Context;
use crate::kafka::errors::{Code, Failure};
use crate::kafka::hosted;
use crate::kafka::route::{self, Answering, Api, Refused};
use bytes::Bytes;
use futures_util::future::{Either, select, select_all};
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::protocol::StrBytes;
use klamm_engine::io::Io;
use klamm_engine::units::{LeaderEpoch, Nanos, Offset, ShardId};
use read::{Bounds, Fetched, Query};
use std::pin::pin;
use std::time::Duration;

/// What an answer may hold even where the shard's budget is used up by readers that
/// are slow: they cost only themselves.
const BYTES_FLOOR: usize = 64 << 10;

const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;

/// Sessions came with this version.
const SESSIONS_FROM: i16 = 7;

pub fn start<I: Io>(
    ctx: Context<I>,
    api: &'static Api,
    body: Bytes,
) -> Result<Answering<I>, Refused> {
    let request = route::decode::<FetchRequest>(api, body, ctx.version)?;
    let flexible = ctx.version >= api.flexible_from;
    Ok(Box::pin(handle(ctx, request, flexible)))
}

/// One partition of the answer.
pub(crate) type Outcome<I> = Result<Fetched<I>, Failure>;

/// The topics of the answer, in the order and with the names of the request.
type Shape = Vec<(StrBytes, Vec<i32>)>;

async fn handle<I: Io>(ctx: Context<I>, request: FetchRequest, flexible: bool) -> Answer<I> {
    // A large answer is made only when it can leave: see turns.rs.
    ctx.watch.waiting(ctx.turn.come()).await;
    if ctx.version >= SESSIONS_FROM
        && let Some(code) = refuse_session(request.session_id, request.session_epoch)
    {
        return response::encode(&ctx, flexible, code, Vec::new(), Vec::new(), false, None);
    }
    let fetch = Fetch::new(ctx, &request, flexible);
    let shape: Shape = request
        .topics
        .into_iter()
        .map(|topic| {
            let indexes = topic.partitions.iter().map(|p| p.partition).collect();
            (topic.topic.0, indexes)
        })
        .collect();
    fetch.run(shape).await
}

/// A full fetch begins or ends a session; whatever else goes on with one.
fn refuse_session(id: i32, epoch: i32) -> Option<Code> {
    match epoch {
        INITIAL_EPOCH | FINAL_EPOCH => None,
        // Session 0 is the name of having none.
        _ if id == 0 => Some(Code::INVALID_FETCH_SESSION_EPOCH),
        _ => Some(Code::FETCH_SESSION_ID_NOT_FOUND),
    }
}

struct Fetch<I: Io> {
    ctx: Context<I>,
    flexible: bool,
    read_committed: bool,
    /// By home shard, in the order in which the request first names them.
    homes: Vec<(ShardId, Vec<Query>)>,
    /// What was known before any partition was asked, by slot.
    early: Vec<Option<Code>>,
    bytes_min: usize,
    bytes_max: usize,
    /// All partitions' bounds together.
    bytes_of_partitions: usize,
    until: Option<Nanos>,
}

/// What one reading of all partitions brought.
struct Round<I: Io> {
    outcomes: Vec<Option<Outcome<I>>>,
    bytes: usize,
    /// Whether every partition's records are at hand, and not only counted.
    loaded: bool,
    /// Something that the client should hear at once.
    urgent: bool,
}

impl<I: Io> Fetch<I> {
    fn new(ctx: Context<I>, request: &FetchRequest, flexible: bool) -> Fetch<I> {
        let image = ctx.image();
        let mut homes: Vec<(ShardId, Vec<Query>)> = Vec::new();
        let mut early = Vec::new();
        let mut bytes_of_partitions = 0usize;
        for topic in &request.topics {
            let known = image.topic(&topic.topic);
            for partition in &topic.partitions {
                let slot = early.len();
                let place = known
                    .ok_or(Code::UNKNOWN_TOPIC_OR_PARTITION)
                    .and_then(|topic| hosted::find_in(&ctx.local, topic, partition.partition))
                    .and_then(|place| {
                        let epoch = partition.current_leader_epoch;
                        hosted::check_leader_epoch(epoch, place.leader_epoch)?;
                        Ok(place)
                    });
                let place = match place {
                    Ok(place) => place,
                    Err(code) => {
                        early.push(Some(code));
                        continue;
                    }
                };
                early.push(None);
                let bytes_max = usize::try_from(partition.partition_max_bytes).unwrap_or(0);
                bytes_of_partitions = bytes_of_partitions.saturating_add(bytes_max);
                let query = Query {
                    slot,
                    id: place.id,
                    from: Offset(partition.fetch_offset),
                    bytes_max,
                    last_epoch: match partition.last_fetched_epoch {
                        epoch if epoch >= 0 => Some(LeaderEpoch(epoch)),
                        _ => None,
                    },
                };
                match homes.iter_mut().find(|(shard, _)| *shard == place.shard) {
                    Some((_, queries)) => queries.push(query),
                    None => homes.push((place.shard, vec![query])),
                }
            }
        }
        let io = &ctx.local.io;
        let until = u64::try_from(request.max_wait_ms)
            .ok()
            .filter(|ms| *ms > 0)
            .map(|ms| io.now().plus(Duration::from_millis(ms)));
        let bytes_max = usize::try_from(request.max_bytes).unwrap_or(0);
        Fetch {
            flexible,
            read_committed: request.isolation_level == 1,
            homes,
            early,
            bytes_min: usize::try_from(request.min_bytes).unwrap_or(0),
            bytes_max: bytes_max.min(ctx.local.limits.fetch_bytes_max),
            bytes_of_partitions,
            until,
            ctx,
        }
    }

    async fn run(self, shape: Shape) -> Answer<I> {
        loop {
            let local = &self.ctx.local;
            let due = local.closing.is_said() || self.until.is_none_or(|at| local.io.now() >= at);
            let wanted = self.bytes_max.min(self.bytes_of_partitions);
            let mut permit = local.answer_bytes.acquire_up_to(wanted);
            let bytes_max = permit.bytes().max(BYTES_FLOOR).min(self.bytes_max);
            let load_from = if due { 0 } else { self.bytes_min };
            let mut round = self.read(bytes_max, load_from).await;
            if due || round.urgent || round.bytes >= self.bytes_min {
                if !round.loaded {
                    round = self.read(bytes_max, 0).await;
                }
                permit.shrink(round.held_bytes());
                let outcomes = round.outcomes.into_iter();
                let outcomes = outcomes.map(|o| o.expect("all were asked")).collect();
                return response::encode(
                    &self.ctx,
                    self.flexible,
                    Code::NONE,
                    shape,
                    outcomes,
                    self.read_committed,
                    Some(permit),
                );
            }
            drop(permit);
            self.ctx.watch.waiting(self.wait(&round)).await;
        }
    }

    /// Reads every partition once. Where all of them fit side by side, the shards read
    /// at the same time; else each gets what those before it have left.
    async fn read(&self, bytes_max: usize, load_from: usize) -> Round<I> {
        let mut round = Round {
            outcomes: self
                .early
                .iter()
                .map(|code| code.map(|code| Err(code.into())))
                .collect(),
            bytes: 0,
            loaded: true,
            urgent: self.homes.is_empty() || self.early.iter().any(Option::is_some),
        };
        let bounds = Bounds {
            bytes_max,
            at_least_one: true,
            load_from,
            all_in_memory: self.ctx.version < response::ZSTD_FROM,
        };
        if self.homes.len() > 1 && self.bytes_of_partitions <= bytes_max {
            let reads = self
                .homes
                .iter()
                .map(|(shard, queries)| read::from(&self.ctx, *shard, queries, bounds));
            for (at, read) in futures_util::future::join_all(reads)
                .await
                .into_iter()
                .enumerate()
            {
                round.take(&self.homes[at].1, read);
            }
            return round;
        }
        for (shard, queries) in &self.homes {
            let bounds = Bounds {
                bytes_max: bytes_max.saturating_sub(round.bytes),
                at_least_one: round.bytes == 0,
                load_from: load_from.saturating_sub(round.bytes),
                ..bounds
            };
            let read = read::from(&self.ctx, *shard, queries, bounds).await;
            round.take(queries, read);
        }
        round
    }

    /// Until there is more than `round` saw, time is up, or the broker is stopping.
    async fn wait(&self, round: &Round<I>) {
        let local = &self.ctx.local;
        let Some(until) = self.until else { return };
        let left = until.0.saturating_sub(local.io.now().0);
        let late = pin!(local.io.sleep(Duration::from_nanos(left)));
        let heard = pin!(local.closing.heard());
        let news = self.homes.iter().map(|(shard, queries)| {
            let seen = queries.iter().map(|query| {
                let fetched = round.outcomes[query.slot].as_ref();
                let fetched = fetched.and_then(|outcome| outcome.as_ref().ok());
                let fetched = fetched.expect("a failure is answered and not waited for");
                (query.id, fetched.offsets.high_watermark)
            });
            Box::pin(read::news(local, *shard, seen.collect()))
        });
        let news = select_all(news);
        match select(news, select(late, heard)).await {
            Either::Left(_) | Either::Right(_) => {}
        }
    }
}

impl<I: Io> Round<I> {
    /// What it keeps of memory until it is sent: what is of files costs none.
    fn held_bytes(&self) -> usize {
        let outcomes = self.outcomes.iter().flatten().flatten();
        let records = outcomes.flat_map(|fetched| &fetched.records);
        records.map(Part::held_bytes).sum()
    }

    fn take(&mut self, queries: &[Query], read: Result<read::Batch<I>, crate::kafka::cores::Gone>) {
        let Ok(read) = read else {
            // The broker is stopping.
            for query in queries {
                let code = Code::NOT_LEADER_OR_FOLLOWER;
                self.outcomes[query.slot] = Some(Err(code.into()));
            }
            self.urgent = true;
            return;
        };
        self.loaded &= read.loaded;
        for (slot, outcome) in read.outcomes {
            match &outcome {
                Ok(fetched) => {
                    self.bytes += fetched.bytes;
                    self.urgent |= fetched.diverging.is_some();
                }
                Err(_) => self.urgent = true,
            }
            self.outcomes[slot] = Some(outcome);
        }
    }
}

#[cfg(test)]
mod files;
