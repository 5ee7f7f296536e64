//! Reading on a partition's home shard, and waiting there.
//!
//! ```text
//!   here     Slice -> pieces: memory stays where it is, and so do files
//!   there    the same; memory is copied, as what crosses shards is Bytes, and ranges of
//!            files cross as such
//! ```
//!
//! A reading that will be thrown away, since there is not yet enough, is counted and
//! not loaded.

use crate::kafka::answer::Part;
use crate::kafka::context::{Context, Local};
use crate::kafka::cores::Gone;
use crate::kafka::errors::{self, Code, Failure};
use crate::kafka::hosted;
use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{join_all, select, select_all};
use klamm_engine::error::Offline;
use klamm_engine::io::Io;
use klamm_engine::partition::{Offsets, Partition};
use klamm_engine::slice::{FilePiece, Range, Slice};
use klamm_engine::units::{LeaderEpoch, Offset, PartitionId, ShardId};
use std::pin::pin;
use std::rc::Rc;

/// What one partition is asked.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    pub slot: usize,
    pub id: PartitionId,
    pub from: Offset,
    pub bytes_max: usize,
    /// The epoch of the last record that the reader has.
    pub last_epoch: Option<LeaderEpoch>,
}

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub bytes_max: usize,
    /// The first batch is read whatever its size.
    pub at_least_one: bool,
    /// Records are loaded only if there are at least so many bytes.
    pub load_from: usize,
    /// The batches will be looked at: none may stay in its file.
    pub all_in_memory: bool,
}

/// What one partition has, for one answer.
pub struct Fetched<I: Io> {
    pub offsets: Offsets,
    pub bytes: usize,
    /// Empty where they were only counted.
    pub records: Vec<Part<I>>,
    /// Where the reader's log and ours part ways: it must cut back to there.
    pub diverging: Option<(LeaderEpoch, Offset)>,
}

/// One shard's share of a fetch.
pub struct Batch<I: Io> {
    pub outcomes: Vec<(usize, Result<Fetched<I>, Failure>)>,
    pub loaded: bool,
}

/// A [`Fetched`] that may cross shards.
struct Crossing {
    offsets: Offsets,
    bytes: usize,
    records: Vec<Crossed>,
    diverging: Option<(LeaderEpoch, Offset)>,
}

/// A part that may cross shards.
enum Crossed {
    Bytes(Bytes),
    File(FilePiece),
}

/// What was found, before anything is loaded.
struct Found<I: Io> {
    partition: Rc<Partition<I>>,
    offsets: Offsets,
    slice: Slice<I>,
    diverging: Option<(LeaderEpoch, Offset)>,
}

/// Reads on `shard`, wherever that is.
pub async fn from<I: Io>(
    ctx: &Context<I>,
    shard: ShardId,
    queries: &[Query],
    bounds: Bounds,
) -> Result<Batch<I>, Gone> {
    let local = &ctx.local;
    if shard == local.cores.here() {
        return Ok(here(local, queries, bounds).await);
    }
    let queries = queries.to_vec();
    let crossed = ctx.watch.on(local, shard, move |local| async move {
        there(&local, &queries, bounds).await
    });
    let (outcomes, loaded) = crossed.await?;
    let outcomes = outcomes.into_iter().map(|(slot, outcome)| {
        let outcome = outcome.map(|crossing| Fetched {
            offsets: crossing.offsets,
            bytes: crossing.bytes,
            records: crossing.records.into_iter().map(Part::from).collect(),
            diverging: crossing.diverging,
        });
        (slot, outcome)
    });
    Ok(Batch {
        outcomes: outcomes.collect(),
        loaded,
    })
}

async fn here<I: Io>(local: &Local<I>, queries: &[Query], bounds: Bounds) -> Batch<I> {
    let (found, loaded) = find_all(local, queries, bounds).await;
    let load = async |slice: &Slice<I>| parts(local, slice, bounds.all_in_memory).await;
    let each = found.into_iter().map(|(slot, found)| {
        let load = &load;
        async move {
            let Found {
                partition,
                offsets,
                slice,
                diverging,
            } = match found {
                Err(failure) => return (slot, Err(failure)),
                Ok(found) => found,
            };
            let records = if loaded {
                load(&slice).await
            } else {
                Ok(Vec::new())
            };
            let records = records.map_err(|offline| failed(&partition, offline));
            let fetched = records.map(|records| Fetched {
                offsets,
                bytes: slice.bytes,
                records,
                diverging,
            });
            (slot, fetched)
        }
    });
    // Beside each other: what is of files waits for the disk.
    let outcomes = join_all(each).await;
    Batch { outcomes, loaded }
}

type Crossings = Vec<(usize, Result<Crossing, Failure>)>;

async fn there<I: Io>(local: &Local<I>, queries: &[Query], bounds: Bounds) -> (Crossings, bool) {
    let batch = here(local, queries, bounds).await;
    let outcomes = batch.outcomes.into_iter().map(|(slot, outcome)| {
        let crossing = outcome.map(|fetched| Crossing {
            offsets: fetched.offsets,
            bytes: fetched.bytes,
            records: fetched.records.into_iter().map(crossed).collect(),
            diverging: fetched.diverging,
        });
        (slot, crossing)
    });
    (outcomes.collect(), batch.loaded)
}

fn crossed<I: Io>(part: Part<I>) -> Crossed {
    match part {
        Part::Bytes(bytes) => Crossed::Bytes(bytes),
        Part::Memory { chunk, from, to } => {
            Crossed::Bytes(Bytes::copy_from_slice(chunk.slice(from, to)))
        }
        Part::File(piece) => Crossed::File(piece),
        Part::Held(_) => unreachable!("records are no permit"),
    }
}

impl<I: Io> From<Crossed> for Part<I> {
    fn from(crossed: Crossed) -> Part<I> {
        match crossed {
            Crossed::Bytes(bytes) => Part::Bytes(bytes),
            Crossed::File(piece) => Part::File(piece),
        }
    }
}

/// The ranges of all partitions, in order; each takes from what the bounds leave.
async fn find_all<I: Io>(
    local: &Local<I>,
    queries: &[Query],
    bounds: Bounds,
) -> (Vec<(usize, Result<Found<I>, Failure>)>, bool) {
    let mut outcomes = Vec::with_capacity(queries.len());
    let mut bytes = 0;
    let mut urgent = false;
    for query in queries {
        let bytes_max = query.bytes_max.min(bounds.bytes_max.saturating_sub(bytes));
        let first = bounds.at_least_one && bytes == 0;
        let found = find(local, query, bytes_max, first).await;
        match &found {
            Ok(found) => {
                bytes += found.slice.bytes;
                urgent |= found.diverging.is_some();
            }
            Err(_) => urgent = true,
        }
        outcomes.push((query.slot, found));
    }
    // What is urgent is answered at once, with what there is.
    (outcomes, urgent || bytes >= bounds.load_from)
}

async fn find<I: Io>(
    local: &Local<I>,
    query: &Query,
    bytes_max: usize,
    at_least_one: bool,
) -> Result<Found<I>, Failure> {
    let partition = hosted::partition(local, &query.id)?;
    if let Some(last) = query.last_epoch {
        match partition.end_offset_for_epoch(last) {
            None => return Err(Code::OFFSET_OUT_OF_RANGE.into()),
            Some((epoch, end)) if epoch < last || end < query.from => {
                return Ok(Found {
                    offsets: partition.offsets(),
                    partition,
                    slice: Slice::default(),
                    diverging: Some((epoch, end)),
                });
            }
            Some(_) => {}
        }
    }
    // Before the read: a record that is appended meanwhile is then news to the waiter.
    let offsets = partition.offsets();
    let slice = partition
        .read(query.from, bytes_max, at_least_one)
        .await
        .map_err(|e| errors::read(&e))?;
    Ok(Found {
        offsets,
        partition,
        slice,
        diverging: None,
    })
}

/// What is sent stays where it is. What will be looked at is read from files first.
async fn parts<I: Io>(
    local: &Local<I>,
    slice: &Slice<I>,
    all_in_memory: bool,
) -> Result<Vec<Part<I>>, Offline> {
    if all_in_memory && slice.ranges.iter().any(Range::is_file) {
        return Ok(slice.load().await?.into_iter().map(Part::Bytes).collect());
    }
    let pieces = slice.pieces(&local.io).await?;
    Ok(pieces.into_iter().map(Part::from).collect())
}

fn failed<I: Io>(partition: &Partition<I>, offline: Offline) -> Failure {
    if !offline.is_closed() {
        log::error!("{}: {offline}", partition.dir().display());
    }
    errors::offline(&offline)
}

/// Resolves once one of the partitions can be read beyond the offset given with it.
pub async fn news<I: Io>(local: &Rc<Local<I>>, shard: ShardId, seen: Vec<(PartitionId, Offset)>) {
    if shard == local.cores.here() {
        return first_beyond(local, seen).await;
    }
    // Dropped with the fetch: the other shard then waits no longer either.
    let (_alive, dropped) = oneshot::channel::<()>();
    let there = local.on(shard, move |local| async move {
        let beyond = pin!(first_beyond(&local, seen));
        select(beyond, dropped).await;
    });
    // Gone is news too: the next read says so.
    let _ = there.await;
}

async fn first_beyond<I: Io>(local: &Local<I>, seen: Vec<(PartitionId, Offset)>) {
    let mut waits = Vec::with_capacity(seen.len());
    for (id, offset) in seen {
        match hosted::partition(local, &id) {
            Ok(partition) => waits.push(Box::pin(partition.beyond(offset))),
            // The next read says why.
            Err(_) => return,
        }
    }
    if !waits.is_empty() {
        select_all(waits).await;
    }
}
