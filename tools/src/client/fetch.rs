//! Fetching: one thread a leader, each with its own connection and positions, all
//! into one bounded channel.
//!
//! ```text
//!  leader 1: Fetch(positions) ──┐
//!  leader 2: Fetch(positions) ──┼──> Chunk, Chunk, ...  ──> whoever prints them
//!  leader 3: Fetch(positions) ──┘    (2 a leader wait)
//! ```
//!
//! A slow reader stops the threads through the channel, so memory stays bounded. A
//! set of threads serves one assignment; where leaders move or the assignment
//! changes, the set is dropped and another one made from the positions reached.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, FetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use klamm_engine::batch::{Batch, BatchFault, Batches};
use klamm_engine::units::{Offset, TimestampMs};

use super::error::{ClientError, Result};
use super::offsets::TopicPartition;
use super::{Client, Connection};

/// Topic ids replace names at 13.
const FETCH_CAP: i16 = 12;
/// How long a broker holds a fetch that finds nothing.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// Of one answer, over all partitions; a larger single batch still comes whole.
const BYTES_MAX: i32 = 50 << 20;
const PARTITION_BYTES_MAX: i32 = 1 << 20;
/// Answers that wait for the reader, for each leader.
const CHUNKS_AHEAD: usize = 2;
/// What one batch may unpack to. Brokers take batches of up to 100 MiB, and text
/// packs by ten.
const UNPACKED_BYTES_MAX: usize = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    Uncommitted,
    Committed,
}

/// Where to begin, and where to end, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from: i64,
    pub until: Option<i64>,
}

/// What one fetch brought of one partition.
#[derive(Debug)]
pub struct Chunk {
    pub at: TopicPartition,
    /// Records below this offset are not asked for: a batch begins where it begins.
    pub from: i64,
    /// Behind the last whole batch.
    pub next: i64,
    pub batches: Bytes,
    /// Producer and first offset of transactions that were aborted.
    pub aborted: Vec<(i64, i64)>,
}

#[derive(Debug)]
pub enum Fetched {
    Chunk(Chunk),
    /// The position is not, or no longer, in the log.
    OutOfRange(TopicPartition, i64),
    /// Leaders moved or a connection broke: make a new set.
    Stale(ClientError),
    Failed(ClientError),
}

pub struct FetchSet {
    fetched: Receiver<Fetched>,
    stop: Arc<AtomicBool>,
    sockets: Vec<Connection>,
}

impl Drop for FetchSet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for socket in &self.sockets {
            socket.close();
        }
    }
}

impl FetchSet {
    /// Starts fetching. A leader that is missing or cannot be reached is an error
    /// that passes.
    pub fn start(
        client: &mut Client,
        spans: &BTreeMap<TopicPartition, Span>,
        isolation: Isolation,
    ) -> Result<FetchSet> {
        let mut names: Vec<String> = spans.keys().map(|(t, _)| t.clone()).collect();
        names.dedup();
        let leaders = if names.is_empty() {
            BTreeMap::new()
        } else {
            client.leaders(&names)?
        };
        let mut by_leader: BTreeMap<i32, BTreeMap<TopicPartition, Span>> = BTreeMap::new();
        for (at, span) in spans {
            let Some(leader) = leaders.get(at).copied().flatten() else {
                return Err(client.any()?.refused(
                    ApiKey::Metadata,
                    ResponseError::LeaderNotAvailable.code(),
                    format!("partition {}-{}", at.0, at.1),
                    None,
                ));
            };
            by_leader
                .entry(leader)
                .or_default()
                .insert(at.clone(), *span);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, fetched) = mpsc::sync_channel(CHUNKS_AHEAD * by_leader.len().max(1));
        let mut set = FetchSet {
            fetched,
            stop: stop.clone(),
            sockets: Vec::new(),
        };
        for (leader, spans) in by_leader {
            let connection = client.open(leader)?;
            set.sockets.push(connection.reader()?);
            let (tell, stop) = (tell.clone(), stop.clone());
            thread::spawn(move || fetch_loop(connection, spans, isolation, &tell, &stop));
        }
        Ok(set)
    }

    /// The next answer, or None after `wait`.
    pub fn next(&self, wait: Duration) -> Option<Fetched> {
        match self.fetched.recv_timeout(wait) {
            Ok(fetched) => Some(fetched),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // Every thread has reached its end; the caller knows from positions.
                thread::sleep(wait);
                None
            }
        }
    }

    /// One that is there already.
    pub fn ready(&self) -> Option<Fetched> {
        self.fetched.try_recv().ok()
    }
}

fn fetch_loop(
    mut connection: Connection,
    mut spans: BTreeMap<TopicPartition, Span>,
    isolation: Isolation,
    tell: &SyncSender<Fetched>,
    stop: &AtomicBool,
) {
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        spans.retain(|_, span| span.until.is_none_or(|until| span.from < until));
        if spans.is_empty() {
            return;
        }
        let told = match fetch_once(&mut connection, &mut spans, isolation, turn) {
            Ok(all) => all.into_iter().try_for_each(|f| {
                let goes_on = matches!(f, Fetched::Chunk(_));
                tell.send(f).ok().filter(|()| goes_on)
            }),
            Err(_) if stop.load(Ordering::Relaxed) => None,
            Err(e) if e.passes() => tell.send(Fetched::Stale(e)).ok().and(None),
            Err(e) => tell.send(Fetched::Failed(e)).ok().and(None),
        };
        if told.is_none() {
            return;
        }
        turn += 1;
    }
}

fn fetch_once(
    connection: &mut Connection,
    spans: &mut BTreeMap<TopicPartition, Span>,
    isolation: Isolation,
    turn: usize,
) -> Result<Vec<Fetched>> {
    // The broker fills its answer in the order of the request: each time another
    // partition comes first, so that none starves.
    let first = turn % spans.len();
    let mut topics: Vec<FetchTopic> = Vec::new();
    for ((topic, index), span) in spans.iter().cycle().skip(first).take(spans.len()) {
        let partition = FetchPartition::default()
            .with_partition(*index)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(span.from)
            .with_partition_max_bytes(PARTITION_BYTES_MAX);
        match topics.last_mut() {
            Some(last) if *last.topic.0 == **topic => last.partitions.push(partition),
            _ => topics.push(
                FetchTopic::default()
                    .with_topic(TopicName(StrBytes::from_string(topic.clone())))
                    .with_partitions(vec![partition]),
            ),
        }
    }
    let answer = connection.call_held::<FetchRequest>(FETCH_CAP, MAX_WAIT, |_| {
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(MAX_WAIT.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(BYTES_MAX)
            .with_isolation_level(i8::from(isolation == Isolation::Committed))
            // No fetch session (KIP-227): every request says all.
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(topics)
    })?;
    let refused = |code, at: &TopicPartition| {
        connection.refused(
            ApiKey::Fetch,
            code,
            format!("partition {}-{}", at.0, at.1),
            None,
        )
    };
    if answer.error_code != 0 {
        return Err(connection.refused(ApiKey::Fetch, answer.error_code, "the fetch", None));
    }
    let mut all = Vec::new();
    for topic in answer.responses {
        for p in topic.partitions {
            let at = (topic.topic.0.to_string(), p.partition_index);
            let Some(span) = spans.get_mut(&at) else {
                continue;
            };
            if p.error_code == ResponseError::OffsetOutOfRange.code() {
                all.push(Fetched::OutOfRange(at, span.from));
                continue;
            }
            if p.error_code != 0 {
                let e = refused(p.error_code, &at);
                // The topic was there when we began: a leader that does not know it
                // (yet) is one that just changed.
                let moved = e.passes() || e.is(ResponseError::UnknownTopicOrPartition);
                all.push(if moved {
                    Fetched::Stale(e)
                } else {
                    Fetched::Failed(e)
                });
                continue;
            }
            let batches = p.records.unwrap_or_default();
            let next = whole_until(&batches).map_err(|what| ClientError::Malformed {
                place: connection.place(ApiKey::Fetch as i16),
                what: format!("{}-{} at offset {}: {what}", at.0, at.1, span.from),
            })?;
            let Some(next) = next else {
                continue;
            };
            let mut aborted: Vec<(i64, i64)> = p
                .aborted_transactions
                .unwrap_or_default()
                .into_iter()
                .map(|t| (t.producer_id.0, t.first_offset))
                .collect();
            aborted.sort_by_key(|(_, first)| *first);
            let from = span.from;
            span.from = next.max(span.from);
            all.push(Fetched::Chunk(Chunk {
                at,
                from,
                next: span.from,
                batches,
                aborted,
            }));
        }
    }
    Ok(all)
}

/// The offset behind the last whole batch; None where there is none. A broker may
/// cut the last batch of an answer anywhere, but sends the first one whole (KIP-74).
fn whole_until(bytes: &[u8]) -> std::result::Result<Option<i64>, String> {
    let mut next = None;
    for batch in Batches::new(bytes) {
        match batch {
            Ok(batch) => next = Some(batch.next_offset().0),
            Err(e) if matches!(e.fault, BatchFault::Short { .. }) => break,
            Err(e) => return Err(e.to_string()),
        }
    }
    if next.is_none() && !bytes.is_empty() {
        return Err(format!("{} bytes that hold no whole batch", bytes.len()));
    }
    Ok(next)
}

/// A record as it is printed.
#[derive(Clone, Copy, Debug)]
pub struct Read<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub timestamp: TimestampMs,
    pub log_append_time: bool,
    pub record: &'a klamm_engine::record::Record<'a>,
}

impl Chunk {
    /// Gives each record in [from, until) to `take`, as long as that says to go on.
    /// Control records, and with read_committed those of aborted transactions, are
    /// left out. Checks every batch's CRC.
    pub fn each<E>(
        &self,
        until: Option<i64>,
        isolation: Isolation,
        mut take: impl FnMut(Read<'_>) -> std::result::Result<bool, E>,
    ) -> std::result::Result<std::result::Result<bool, E>, String> {
        let wrong = |at: Offset, what: String| {
            format!(
                "partition {}-{}, batch at offset {at}: {what}",
                self.at.0, self.at.1
            )
        };
        let mut transactions = Transactions::new(&self.aborted);
        for batch in Batches::new(&self.batches) {
            let batch = match batch {
                Ok(batch) => batch,
                Err(e) if matches!(e.fault, BatchFault::Short { .. }) => break,
                Err(e) => return Err(wrong(Offset(self.from), e.to_string())),
            };
            let base = batch.base_offset();
            batch.verify_crc().map_err(|e| wrong(base, e.to_string()))?;
            let aborted = transactions.drops(&batch);
            if batch.is_control() || (aborted && isolation == Isolation::Committed) {
                continue;
            }
            let unpacked = batch
                .records_unpacked(UNPACKED_BYTES_MAX)
                .map_err(|e| wrong(base, e.to_string()))?;
            for record in batch.records(&unpacked) {
                let record = record.map_err(|e| wrong(base, e.to_string()))?;
                let offset = batch.offset_of(&record).0;
                if offset < self.from {
                    continue;
                }
                if until.is_some_and(|until| offset >= until) {
                    return Ok(Ok(true));
                }
                let read = Read {
                    topic: &self.at.0,
                    partition: self.at.1,
                    offset,
                    timestamp: batch.timestamp_of(&record),
                    log_append_time: batch.timestamp_type()
                        == klamm_engine::batch::TimestampType::LogAppendTime,
                    record: &record,
                };
                match take(read) {
                    Ok(true) => {}
                    other => return Ok(other),
                }
            }
        }
        Ok(Ok(true))
    }
}

/// Which producers are inside an aborted transaction, walking batch by batch.
struct Transactions<'a> {
    /// By first offset; those behind `next` have not begun.
    aborted: &'a [(i64, i64)],
    next: usize,
    open: BTreeSet<i64>,
}

impl<'a> Transactions<'a> {
    fn new(aborted: &'a [(i64, i64)]) -> Transactions<'a> {
        Transactions {
            aborted,
            next: 0,
            open: BTreeSet::new(),
        }
    }

    /// True where the batch belongs to a transaction that was aborted.
    fn drops(&mut self, batch: &Batch<'_>) -> bool {
        while let Some((producer, first)) = self.aborted.get(self.next)
            && *first <= batch.last_offset().0
        {
            self.open.insert(*producer);
            self.next += 1;
        }
        let producer = batch.producer_id().0;
        if batch.is_control() {
            // Either marker ends the producer's transaction; only one that was
            // aborted is in the set.
            self.open.remove(&producer);
            return false;
        }
        batch.is_transactional() && self.open.contains(&producer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_engine::batch::BatchBuilder;
    use klamm_engine::codec::Codec;
    use klamm_engine::units::{ProducerEpoch, ProducerId};

    fn batch(base: i64, values: &[&str], codec: Codec) -> Vec<u8> {
        let mut builder = BatchBuilder::new(codec).base_offset(Offset(base));
        for v in values {
            builder = builder.record(TimestampMs(1), None, Some(v.as_bytes()));
        }
        builder.finish()
    }

    fn chunk(bytes: Vec<u8>, from: i64, aborted: Vec<(i64, i64)>) -> Chunk {
        let next = whole_until(&bytes).unwrap().unwrap();
        Chunk {
            at: ("t".into(), 0),
            from,
            next,
            batches: Bytes::from(bytes),
            aborted,
        }
    }

    fn values(chunk: &Chunk, until: Option<i64>, isolation: Isolation) -> Vec<(i64, String)> {
        let mut seen = Vec::new();
        chunk
            .each(until, isolation, |r| {
                let value = String::from_utf8_lossy(r.record.value.unwrap()).into_owned();
                seen.push((r.offset, value));
                Ok::<_, ()>(true)
            })
            .unwrap()
            .unwrap();
        seen
    }

    #[test]
    fn a_fetch_inside_a_batch_gives_its_rest_and_a_cut_batch_waits() {
        let mut bytes = batch(0, &["a", "b", "c"], Codec::Zstd);
        bytes.extend(batch(3, &["d"], Codec::None));
        let cut = batch(4, &["e", "f"], Codec::None);
        bytes.extend(&cut[..cut.len() - 1]);
        let chunk = chunk(bytes, 1, Vec::new());
        assert_eq!(chunk.next, 4);
        let all = [(1, "b".to_string()), (2, "c".into()), (3, "d".into())];
        assert_eq!(values(&chunk, None, Isolation::Uncommitted), all);
        assert_eq!(values(&chunk, Some(3), Isolation::Uncommitted), all[..2]);
    }

    #[test]
    fn a_flipped_bit_is_an_error_and_names_the_place() {
        let mut bytes = batch(7, &["a"], Codec::None);
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        let e = chunk(bytes, 7, Vec::new())
            .each(None, Isolation::Uncommitted, |_| Ok::<_, ()>(true))
            .unwrap_err();
        assert!(e.contains("t-0") && e.contains("offset 7"), "{e}");
    }

    #[test]
    fn aborted_records_are_left_out_when_asked() {
        let transactional = |base: i64, producer: i64, value: &str| {
            BatchBuilder::new(Codec::None)
                .base_offset(Offset(base))
                .producer(ProducerId(producer), ProducerEpoch(0), 0)
                .transactional()
                .record(TimestampMs(1), None, Some(value.as_bytes()))
                .finish()
        };
        let marker = |base: i64, producer: i64| {
            BatchBuilder::new(Codec::None)
                .base_offset(Offset(base))
                .producer(ProducerId(producer), ProducerEpoch(0), -1)
                .transactional()
                .control()
                .record(TimestampMs(1), Some(&[0, 0, 0, 0]), Some(&[0; 6]))
                .finish()
        };
        let bytes = [
            transactional(0, 9, "aborted"),
            transactional(1, 8, "kept"),
            marker(2, 9),
            transactional(3, 9, "kept too"),
            marker(4, 8),
            marker(5, 9),
        ]
        .concat();
        let chunk = chunk(bytes, 0, vec![(9, 0)]);
        assert_eq!(chunk.next, 6);
        assert_eq!(
            values(&chunk, None, Isolation::Committed),
            [(1, "kept".to_string()), (3, "kept too".into())]
        );
        assert_eq!(values(&chunk, None, Isolation::Uncommitted).len(), 3);
    }

    #[test]
    fn garbage_is_said_to_be_garbage() {
        assert!(whole_until(&[]).unwrap().is_none());
        assert!(whole_until(b"HTTP/1.1 400").is_err());
        let mut old = batch(0, &["a"], Codec::None);
        old[16] = 1;
        assert!(whole_until(&old).is_err());
    }
}
