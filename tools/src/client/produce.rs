//! Producing: records in, record batches out, retried without loss or duplicate.
//!
//! ```text
//!  Input (any thread) ──records──┐                       one lane a partition
//!     bounded by a budget        v
//!                              Producer ── open batch ── ready ── in flight ──> broker
//!                                ^                         ^          |
//!  one thread a broker ──answers─┘                         └─ failed ─┘
//! ```
//!
//! An idempotent producer has up to 5 requests in flight at a broker. When a batch
//! fails in a way that passes, its lane sends nothing more until all that it has in
//! flight is answered; then what failed goes again, in order, under the sequence
//! numbers that it had: the broker recognises what it already has. Without
//! idempotence a lane has one batch in flight, so that a retry keeps the order (but
//! may double a batch whose answer was lost).
//!
//! What fails for good ends the run: nothing behind it is sent, and the error says
//! how much was acknowledged before.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, InitProducerIdRequest, ProduceRequest, ProduceResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use klamm_engine::batch::{BatchBuilder, NewRecord};
use klamm_engine::codec::Codec;
use klamm_engine::units::{ProducerEpoch, ProducerId, TimestampMs};

use super::connection::Ticket;
use super::error::{ClientError, Result};
use super::partitioner::{Sticky, for_key};
use super::{Client, Connection, Retry};
use crate::interrupt;

/// Topic ids replace names at 13.
const PRODUCE_CAP: i16 = 12;
/// zstd came with Produce 7 (KIP-110).
const PRODUCE_ZSTD: i16 = 7;
/// What a broker remembers of a producer (`ProducerStateManager`): more in flight
/// could not be told from a gap.
const IN_FLIGHT_MAX: usize = 5;
/// Batches of several partitions share a request up to this size; a broker takes
/// 100 MiB (`socket.request.max.bytes`).
const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Records read but not yet acknowledged, in bytes. Five requests of 4 MiB in flight
/// and as much again behind them.
const BUDGET_BYTES: usize = 40 << 20;
const RETRY_BACKOFF: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    None,
    Leader,
    All,
}

impl Acks {
    fn wire(self) -> i16 {
        match self {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub topic: String,
    pub codec: Codec,
    pub acks: Acks,
    pub idempotent: bool,
    pub batch_bytes: usize,
    pub linger: Duration,
    pub delivery_timeout: Duration,
}

/// A record on its way in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedRecord {
    /// None: by key, or sticky.
    pub partition: Option<i32>,
    /// None: now.
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl OwnedRecord {
    /// Its key, value and headers.
    fn payload(&self) -> usize {
        let of = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(k, v)| k.len() + of(v)).sum();
        of(&self.key) + of(&self.value) + headers
    }

    /// What it takes of the budget and, at most, of a batch: lengths and deltas are
    /// varints of up to 5 and 10 bytes.
    pub fn size(&self) -> usize {
        self.payload() + 32 + 10 * self.headers.len()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartitionStats {
    pub records: u64,
    /// Of what was acknowledged; None with acks=0, which tells no offsets.
    pub first_offset: Option<i64>,
    pub last_offset: Option<i64>,
}

#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub read: u64,
    pub acknowledged: u64,
    /// Keys, values and headers of what was acknowledged.
    pub bytes: u64,
    pub batches: u64,
    pub retries: u64,
    pub partitions: BTreeMap<i32, PartitionStats>,
}

enum Event {
    Records(Vec<OwnedRecord>),
    /// The input is over; an error says why before its end.
    End(std::result::Result<(), String>),
    Answer {
        broker: i32,
        /// Of the pipe: an answer of one that was given up is not for its successor.
        pipe: u64,
        answer: Result<ProduceResponse>,
    },
}

/// Bytes that may be between input and acknowledgement.
struct Budget {
    left: Mutex<isize>,
    freed: Condvar,
}

impl Budget {
    /// Waits until something is left, then takes `bytes`, perhaps below zero: so one
    /// record larger than the budget still gets through, alone.
    fn take(&self, bytes: usize) {
        let mut left = self.left.lock().expect("no holder panics");
        while *left <= 0 {
            left = self.freed.wait(left).expect("no holder panics");
        }
        *left -= bytes as isize;
    }

    fn give(&self, bytes: usize) {
        *self.left.lock().expect("no holder panics") += bytes as isize;
        self.freed.notify_all();
    }
}

/// Where another thread puts records in.
pub struct Input {
    events: Sender<Event>,
    budget: Arc<Budget>,
}

impl Input {
    /// Waits while too much is under way. False: the producer is gone.
    pub fn put(&self, records: Vec<OwnedRecord>) -> bool {
        self.budget
            .take(records.iter().map(OwnedRecord::size).sum());
        self.events.send(Event::Records(records)).is_ok()
    }

    pub fn end(self, how: std::result::Result<(), String>) {
        // The producer may have ended on an error of its own.
        let _ = self.events.send(Event::End(how));
    }
}

struct Open {
    builder: BatchBuilder,
    since: Instant,
    /// Of the budget.
    bytes: usize,
    payload: usize,
}

struct Sealed {
    /// Order within the lane, over all retries.
    ordinal: u64,
    batch: Bytes,
    records: u64,
    bytes: usize,
    payload: usize,
    deadline: Instant,
    failed_with: Option<ClientError>,
}

struct Lane {
    open: Option<Open>,
    ready: VecDeque<Sealed>,
    in_flight: usize,
    failed: Vec<Sealed>,
    ordinal_next: u64,
    sequence_next: i32,
    leader: Option<i32>,
    not_before: Option<Instant>,
}

struct Pipe {
    id: u64,
    connection: Connection,
    version: i16,
    tickets: Sender<Ticket>,
    /// What each unanswered request carries: (partition, batch).
    in_flight: VecDeque<Vec<(usize, Sealed)>>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // The answering thread may sit in a read.
        self.connection.close();
    }
}

pub struct Producer {
    client: Client,
    settings: Settings,
    identity: Option<(ProducerId, ProducerEpoch)>,
    lanes: Vec<Lane>,
    sticky: Sticky,
    pipes: HashMap<i32, Pipe>,
    pipes_opened: u64,
    events: Receiver<Event>,
    events_in: Sender<Event>,
    budget: Arc<Budget>,
    stats: Stats,
    metadata_stale: bool,
    ended: Option<std::result::Result<(), String>>,
}

/// How a run ended that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The input's end; everything was acknowledged.
    Complete,
    /// The input broke off; what was read before was acknowledged.
    InputFailed(String),
    /// Ctrl-C; what was read before was acknowledged.
    Interrupted,
}

impl Producer {
    pub fn open(mut client: Client, settings: Settings) -> Result<Producer> {
        // Producing may create the topic, where the broker allows that, as with any
        // other producer.
        let topic = client.topic(&settings.topic, true)?;
        let identity = if settings.idempotent {
            Some(init_producer(&mut client)?)
        } else {
            None
        };
        let lanes: Vec<Lane> = topic
            .partitions
            .iter()
            .map(|p| Lane {
                open: None,
                ready: VecDeque::new(),
                in_flight: 0,
                failed: Vec::new(),
                ordinal_next: 0,
                sequence_next: 0,
                leader: p.leader,
                not_before: None,
            })
            .collect();
        let whole = topic
            .partitions
            .iter()
            .enumerate()
            .all(|(at, p)| usize::try_from(p.index) == Ok(at));
        if lanes.is_empty() || !whole {
            return Err(ClientError::Missing(format!(
                "the broker's metadata does not list all partitions of topic {}",
                settings.topic
            )));
        }
        let seed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |d| d.as_nanos() as u64);
        let (events_in, events) = mpsc::channel();
        Ok(Producer {
            client,
            settings,
            identity,
            sticky: Sticky::new(seed, lanes.len()),
            lanes,
            pipes: HashMap::new(),
            pipes_opened: 0,
            events,
            events_in,
            budget: Arc::new(Budget {
                left: Mutex::new(BUDGET_BYTES as isize),
                freed: Condvar::new(),
            }),
            stats: Stats::default(),
            metadata_stale: false,
            ended: None,
        })
    }

    pub fn input(&self) -> Input {
        Input {
            events: self.events_in.clone(),
            budget: self.budget.clone(),
        }
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Produces until the input ends and everything is acknowledged. `progress` is
    /// called often.
    pub fn run(&mut self, mut progress: impl FnMut(&Stats)) -> Result<End> {
        let mut interrupted = false;
        loop {
            match self.events.recv_timeout(self.next_wake()) {
                Ok(event) => {
                    self.handle(event)?;
                    while let Ok(event) = self.events.try_recv() {
                        self.handle(event)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender"),
            }
            if interrupt::asked() && self.ended.is_none() {
                interrupted = true;
                self.ended = Some(Ok(()));
            }
            self.send_what_can_be_sent()?;
            progress(&self.stats);
            if self.idle()
                && let Some(how) = self.ended.take()
            {
                return Ok(match how {
                    _ if interrupted => End::Interrupted,
                    Ok(()) => End::Complete,
                    Err(why) => End::InputFailed(why),
                });
            }
        }
    }

    fn idle(&self) -> bool {
        self.lanes.iter().all(|l| {
            l.open.is_none() && l.ready.is_empty() && l.in_flight == 0 && l.failed.is_empty()
        })
    }

    /// Until the next thing happens by itself: a linger that is over, a retry. At
    /// most 100 ms, to see Ctrl-C.
    fn next_wake(&self) -> Duration {
        let now = Instant::now();
        let mut wake = now + Duration::from_millis(100);
        for lane in &self.lanes {
            let blocked = lane.in_flight >= self.lane_in_flight_max()
                || !lane.failed.is_empty()
                || lane
                    .leader
                    .and_then(|id| self.pipes.get(&id))
                    .is_some_and(|p| p.in_flight.len() >= IN_FLIGHT_MAX);
            if blocked || lane.leader.is_none() {
                // An answer wakes it, or fresh metadata.
                continue;
            }
            let linger = lane.open.as_ref().map(|o| o.since + self.settings.linger);
            match lane.not_before.filter(|t| *t > now) {
                Some(not_before) => wake = wake.min(not_before),
                None => wake = wake.min(linger.unwrap_or(wake)),
            }
        }
        wake.saturating_duration_since(now)
    }

    fn lane_in_flight_max(&self) -> usize {
        if self.identity.is_some() {
            IN_FLIGHT_MAX
        } else {
            1
        }
    }

    fn handle(&mut self, event: Event) -> Result<()> {
        match event {
            // After Ctrl-C what still comes in is not taken.
            Event::Records(_) if self.ended.is_some() => Ok(()),
            Event::Records(records) => records.into_iter().try_for_each(|r| self.add(&r)),
            Event::End(how) => {
                self.ended.get_or_insert(how);
                Ok(())
            }
            Event::Answer {
                broker,
                pipe,
                answer,
            } => {
                if self.pipes.get(&broker).is_none_or(|p| p.id != pipe) {
                    return Ok(());
                }
                match answer {
                    Ok(answer) => self.answered(broker, answer),
                    Err(e) if e.passes() || matches!(e, ClientError::TimedOut { .. }) => {
                        self.pipe_broke(broker, e);
                        Ok(())
                    }
                    Err(e) => Err(e),
                }
            }
        }
    }

    fn add(&mut self, record: &OwnedRecord) -> Result<()> {
        self.stats.read += 1;
        let count = self.lanes.len();
        let at = match (record.partition, &record.key) {
            (Some(index), _) => usize::try_from(index)
                .ok()
                .filter(|at| *at < count)
                .ok_or_else(|| {
                    ClientError::Missing(format!(
                        "topic {} has partitions 0 to {}, not {index}",
                        self.settings.topic,
                        count - 1
                    ))
                })?,
            (None, Some(key)) => for_key(key, count),
            (None, None) => self.sticky.current(),
        };
        let size = record.size();
        let full = self.lanes[at]
            .open
            .as_ref()
            .is_some_and(|o| o.builder.size_unpacked() + size > self.settings.batch_bytes);
        if full {
            self.seal(at);
        }
        let lane = &mut self.lanes[at];
        let open = lane.open.get_or_insert_with(|| Open {
            builder: BatchBuilder::new(self.settings.codec),
            since: Instant::now(),
            bytes: 0,
            payload: 0,
        });
        let headers: Vec<(&[u8], Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|(k, v)| (k.as_slice(), v.as_deref()))
            .collect();
        open.builder.push(NewRecord {
            timestamp: TimestampMs(record.timestamp_ms.unwrap_or_else(now_ms)),
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        });
        open.bytes += size;
        open.payload += record.payload();
        if open.builder.size_unpacked() >= self.settings.batch_bytes {
            self.seal(at);
        }
        Ok(())
    }

    /// Closes the lane's open batch and gives it its sequence numbers.
    fn seal(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        let Some(Open {
            mut builder,
            bytes,
            payload,
            ..
        }) = lane.open.take()
        else {
            return;
        };
        let records = builder.record_count();
        if let Some((id, epoch)) = self.identity {
            builder = builder.producer(id, epoch, lane.sequence_next);
            lane.sequence_next = klamm_engine::batch::sequence_plus(lane.sequence_next, records);
        }
        lane.ready.push_back(Sealed {
            ordinal: lane.ordinal_next,
            batch: Bytes::from(builder.finish()),
            records: records as u64,
            bytes,
            payload,
            deadline: Instant::now() + self.settings.delivery_timeout,
            failed_with: None,
        });
        lane.ordinal_next += 1;
        if at == self.sticky.current() {
            self.sticky.advance(self.lanes.len());
        }
    }

    fn send_what_can_be_sent(&mut self) -> Result<()> {
        self.give_up_on_the_late()?;
        if self.metadata_stale {
            self.refresh_leaders()?;
        }
        let leaders: Vec<i32> = {
            let mut ids: Vec<i32> = self.lanes.iter().filter_map(|l| l.leader).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        for leader in leaders {
            while self.send_one(leader)? {}
        }
        Ok(())
    }

    /// What was tried and is past its time fails, with the last reason.
    fn give_up_on_the_late(&mut self) -> Result<()> {
        let now = Instant::now();
        for lane in &mut self.lanes {
            if let Some(late) = lane.ready.front_mut().filter(|s| s.deadline < now) {
                return Err(late.failed_with.take().unwrap_or_else(|| {
                    ClientError::Missing(format!(
                        "topic {}: no leader took a batch within {:?} (--delivery-timeout)",
                        self.settings.topic, self.settings.delivery_timeout
                    ))
                }));
            }
        }
        Ok(())
    }

    /// One request to one broker, with one batch of each lane that may send. False:
    /// there is nothing to send to it now.
    fn send_one(&mut self, leader: i32) -> Result<bool> {
        let in_flight = self.pipes.get(&leader).map_or(0, |p| p.in_flight.len());
        if in_flight >= IN_FLIGHT_MAX {
            return Ok(false);
        }
        let now = Instant::now();
        let lane_max = self.lane_in_flight_max();
        let mut chosen = Vec::new();
        let mut size = 0;
        for at in 0..self.lanes.len() {
            let lane = &self.lanes[at];
            let may = lane.leader == Some(leader)
                && lane.failed.is_empty()
                && lane.in_flight < lane_max
                && lane.not_before.is_none_or(|t| t <= now);
            if !may || size >= REQUEST_BYTES_MAX {
                continue;
            }
            // A batch is closed early only where it can go at once: while it waits
            // for others it may as well grow.
            let due = lane
                .open
                .as_ref()
                .is_some_and(|o| self.ended.is_some() || o.since + self.settings.linger <= now);
            if lane.ready.is_empty() && due {
                self.seal(at);
            }
            if let Some(sealed) = self.lanes[at].ready.front() {
                size += sealed.batch.len();
                chosen.push(at);
            }
        }
        if chosen.is_empty() {
            return Ok(false);
        }
        if let Err(e) = self.pipe_to(leader) {
            if !e.passes() {
                return Err(e);
            }
            self.postpone(&chosen, e);
            return Ok(false);
        }
        let carried: Vec<(usize, Sealed)> = chosen
            .into_iter()
            .map(|at| {
                let lane = &mut self.lanes[at];
                lane.not_before = None;
                lane.in_flight += 1;
                let sealed = lane.ready.pop_front().expect("chosen for having one");
                (at, sealed)
            })
            .collect();
        let request = self.request(&carried);
        let pipe = self.pipes.get_mut(&leader).expect("opened above");
        let sent = pipe.connection.send(pipe.version, &request);
        pipe.in_flight.push_back(carried);
        match sent {
            Ok(_) if self.settings.acks == Acks::None => {
                // There is no answer: what was handed over counts.
                let carried = pipe.in_flight.pop_back().expect("pushed above");
                for (at, sealed) in carried {
                    self.lanes[at].in_flight -= 1;
                    self.acknowledge(at, &sealed, None);
                }
            }
            // The thread ends only after an error, which its answer tells.
            Ok(ticket) => drop(pipe.tickets.send(ticket)),
            Err(e) => self.pipe_broke(leader, e),
        }
        Ok(true)
    }

    fn request(&self, carried: &[(usize, Sealed)]) -> ProduceRequest {
        let timeout = self.settings.delivery_timeout.min(self.client.timeout());
        ProduceRequest::default()
            .with_acks(self.settings.acks.wire())
            .with_timeout_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(vec![
                TopicProduceData::default()
                    .with_name(TopicName(StrBytes::from_string(
                        self.settings.topic.clone(),
                    )))
                    .with_partition_data(
                        carried
                            .iter()
                            .map(|(at, sealed)| {
                                PartitionProduceData::default()
                                    .with_index(*at as i32)
                                    .with_records(Some(sealed.batch.clone()))
                            })
                            .collect(),
                    ),
            ])
    }

    fn pipe_to(&mut self, broker: i32) -> Result<()> {
        if self.pipes.contains_key(&broker) {
            return Ok(());
        }
        let connection = self.client.open(broker)?;
        let version = connection.version_of::<ProduceRequest>(PRODUCE_CAP)?;
        if self.settings.codec == Codec::Zstd && version < PRODUCE_ZSTD {
            return Err(connection.refused(
                ApiKey::Produce,
                ResponseError::UnsupportedCompressionType.code(),
                format!("topic {}", self.settings.topic),
                None,
            ));
        }
        self.pipes_opened += 1;
        let id = self.pipes_opened;
        let mut reader = connection.reader()?;
        let (tickets, due) = mpsc::channel::<Ticket>();
        let events = self.events_in.clone();
        thread::spawn(move || {
            for ticket in due {
                // The broker may wait for replicas as long as the timeout itself.
                let wait = reader.timeout() + Duration::from_secs(5);
                let answer = reader.receive::<ProduceRequest>(ticket, wait);
                let last = answer.is_err();
                let told = events.send(Event::Answer {
                    broker,
                    pipe: id,
                    answer,
                });
                if last || told.is_err() {
                    break;
                }
            }
        });
        self.pipes.insert(
            broker,
            Pipe {
                id,
                connection,
                version,
                tickets,
                in_flight: VecDeque::new(),
            },
        );
        Ok(())
    }

    fn answered(&mut self, broker: i32, answer: ProduceResponse) -> Result<()> {
        let pipe = self.pipes.get_mut(&broker).expect("asked for by handle");
        let carried = pipe
            .in_flight
            .pop_front()
            .expect("an answer is read only for a request that was sent");
        let mut outcomes: HashMap<i32, _> = answer
            .responses
            .into_iter()
            .flat_map(|t| t.partition_responses)
            .map(|p| (p.index, p))
            .collect();
        for (at, sealed) in carried {
            self.lanes[at].in_flight -= 1;
            let Some(p) = outcomes.remove(&(at as i32)) else {
                return Err(ClientError::Missing(format!(
                    "the broker's Produce answer leaves {}-{at} out",
                    self.settings.topic
                )));
            };
            if p.error_code == 0 {
                self.acknowledge(at, &sealed, Some(p.base_offset).filter(|o| *o >= 0));
                continue;
            }
            let detail = p.error_message.or_else(|| {
                let first = p.record_errors.into_iter().next()?;
                first.batch_index_error_message
            });
            let error = self.pipes[&broker].connection.refused(
                ApiKey::Produce,
                p.error_code,
                format!("partition {}-{at}", self.settings.topic),
                detail.as_ref(),
            );
            // Further back than the broker remembers, but it has it.
            if error.is(ResponseError::DuplicateSequenceNumber) {
                self.acknowledge(at, &sealed, None);
                continue;
            }
            // Only because a batch before it failed.
            let behind_a_failure = error.is(ResponseError::OutOfOrderSequenceNumber)
                && !self.lanes[at].failed.is_empty();
            let gone_for_now = error.is(ResponseError::UnknownTopicOrPartition)
                || error.is(ResponseError::KafkaStorageError)
                || error.is(ResponseError::RequestTimedOut)
                || error.is(ResponseError::CorruptMessage);
            if !(behind_a_failure || gone_for_now || error.passes()) {
                return Err(error);
            }
            self.failed(at, sealed, error);
        }
        self.settle();
        Ok(())
    }

    fn acknowledge(&mut self, at: usize, sealed: &Sealed, base_offset: Option<i64>) {
        self.budget.give(sealed.bytes);
        self.stats.acknowledged += sealed.records;
        self.stats.bytes += sealed.payload as u64;
        self.stats.batches += 1;
        let of = self.stats.partitions.entry(at as i32).or_default();
        of.records += sealed.records;
        if let Some(base) = base_offset {
            let last = base + sealed.records as i64 - 1;
            of.first_offset = Some(of.first_offset.map_or(base, |o| o.min(base)));
            of.last_offset = Some(of.last_offset.map_or(last, |o| o.max(last)));
        }
    }

    fn failed(&mut self, at: usize, mut sealed: Sealed, error: ClientError) {
        self.stats.retries += 1;
        sealed.failed_with = Some(error);
        self.lanes[at].failed.push(sealed);
        self.metadata_stale = true;
    }

    /// A connection is gone, and with it the answers to all that was under way on it.
    fn pipe_broke(&mut self, broker: i32, error: ClientError) {
        let Some(mut pipe) = self.pipes.remove(&broker) else {
            return;
        };
        let mut error = Some(error);
        for (at, sealed) in pipe.in_flight.drain(..).flatten() {
            self.lanes[at].in_flight -= 1;
            let said = error.take().unwrap_or_else(|| ClientError::Lost {
                place: pipe.connection.place(ApiKey::Produce as i16),
                source: std::io::ErrorKind::ConnectionAborted.into(),
            });
            self.failed(at, sealed, said);
        }
        self.settle();
    }

    /// Lanes whose failures are all known go back to sending, oldest first.
    fn settle(&mut self) {
        let not_before = Instant::now() + RETRY_BACKOFF;
        for lane in &mut self.lanes {
            if lane.in_flight > 0 || lane.failed.is_empty() {
                continue;
            }
            lane.failed.sort_by_key(|s| s.ordinal);
            for sealed in lane.failed.drain(..).rev() {
                lane.ready.push_front(sealed);
            }
            lane.not_before = Some(not_before);
        }
    }

    /// Their broker cannot be reached; nothing was sent.
    fn postpone(&mut self, lanes: &[usize], error: ClientError) {
        let not_before = Instant::now() + RETRY_BACKOFF;
        let mut error = Some(error);
        for at in lanes {
            let lane = &mut self.lanes[*at];
            lane.not_before = Some(not_before);
            if let Some(front) = lane.ready.front_mut()
                && let Some(e) = error.take()
            {
                front.failed_with = Some(e);
            }
        }
        self.metadata_stale = true;
    }

    fn refresh_leaders(&mut self) -> Result<()> {
        let due = self
            .lanes
            .iter()
            .filter_map(|l| l.not_before)
            .min()
            .is_none_or(|t| t <= Instant::now());
        if !due {
            return Ok(());
        }
        self.metadata_stale = false;
        let names = [self.settings.topic.clone()];
        let topic = match self.client.topics(Some(&names), false) {
            Ok(mut found) => found.pop().map(|(_, topic)| topic),
            Err(e) => Some(Err(e)),
        };
        match topic {
            Some(Ok(topic)) => {
                for p in topic.partitions {
                    if let Some(lane) = usize::try_from(p.index)
                        .ok()
                        .and_then(|at| self.lanes.get_mut(at))
                    {
                        lane.leader = p.leader;
                        if p.leader.is_none() {
                            lane.not_before = Some(Instant::now() + RETRY_BACKOFF);
                            self.metadata_stale = true;
                        }
                    }
                }
                Ok(())
            }
            // A cluster in trouble may come back before the batches' time is over.
            Some(Err(e)) if e.passes() || e.is(ResponseError::UnknownTopicOrPartition) => {
                for lane in self.lanes.iter_mut().filter(|l| !l.ready.is_empty()) {
                    lane.not_before = Some(Instant::now() + RETRY_BACKOFF);
                }
                self.metadata_stale = true;
                Ok(())
            }
            Some(Err(e)) => Err(e),
            None => Ok(()),
        }
    }
}

/// A producer id of its own, so that brokers can tell a retry from a new batch.
fn init_producer(client: &mut Client) -> Result<(ProducerId, ProducerEpoch)> {
    client.retrying(Retry::Freely, |client| {
        let connection = client.any()?;
        let answer = connection.call::<InitProducerIdRequest>(4, |_| {
            InitProducerIdRequest::default()
                .with_transactional_id(None)
                .with_transaction_timeout_ms(i32::MAX)
        })?;
        if answer.error_code != 0 {
            return Err(connection.refused(
                ApiKey::InitProducerId,
                answer.error_code,
                "a producer id (--no-idempotence does without)",
                None,
            ));
        }
        Ok((
            ProducerId(answer.producer_id.0),
            ProducerEpoch(answer.producer_epoch),
        ))
    })
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
