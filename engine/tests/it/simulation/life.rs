//! One life of the machine: partitions are opened and checked, then written, read, cut
//! short and closed, until the work is done or the power goes.

use super::ledger::{Broken, Ledger, batch_of};
use super::lies::LyingIo;
use futures_util::future::{LocalBoxFuture, join, join_all};
use klamm_engine::config::LogConfig;
use klamm_engine::error::{Offline, OfflineReason, ReadError};
use klamm_engine::io::Io;
use klamm_engine::io::sim::Rng;
use klamm_engine::journal::{self, JournalConfig, ReplayConfig};
use klamm_engine::partition::{AppendError, Appended, Partition};
use klamm_engine::producer::SequenceError;
use klamm_engine::store::{Entry, PartitionSpec, Store};
use klamm_engine::units::{LeaderEpoch, Offset, PartitionId, ShardId, TopicId};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

type Log = Rc<Partition<LyingIo>>;

/// What this life may see go wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// Errors of the disk are planted.
    pub failures: bool,
    /// A bit was flipped at rest.
    pub damage: bool,
    /// Syncs fail, and with a journal what a failed one of a segment forgets was visible: a
    /// reader may meet the hole in the instant before the partition is latched. (What was
    /// forgotten is in the journal, and is there again at the next start.)
    pub holes: bool,
}

/// Whom a flipped bit may harm; nobody else is to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    Topic(&'static str),
    /// The start as a whole.
    Start,
}

/// What is to be done in one life.
#[derive(Clone, Debug)]
pub struct Plan {
    pub clean: bool,
    pub leader_epoch: i32,
    pub tail_bytes: usize,
    pub steps: usize,
    pub upkeep: bool,
    pub checkpoints: bool,
    pub allowed: Allowed,
    /// Whom a flipped bit may harm.
    pub harmed: Option<Harm>,
    /// The journal of which shard, if there is one, and of how many.
    pub journal: Option<(ShardId, JournalConfig)>,
    pub shards: usize,
    /// Ends with a stop in order, where nothing comes between.
    pub close: bool,
}

/// How a life ended that no crash did end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Closed,
    Running,
}

pub struct Topic {
    pub name: &'static str,
    pub config: LogConfig,
    pub ledger: Rc<RefCell<Ledger>>,
}

pub async fn live(
    io: LyingIo,
    topics: &[Topic],
    plan: &Plan,
    numbers: Rc<Cell<u64>>,
    mut rng: Rng,
) -> Result<Ended, Broken> {
    let data = PathBuf::from(klamm_engine::io::sim::DATA);
    let store = Store::new(io.clone(), data, plan.clean, plan.tail_bytes);
    if let Err(offline) = open_journal(&io, &store, plan).await {
        plan.allowed_of(None).check(&offline)?;
        return Ok(Ended::Running);
    }
    let mut opened = Vec::new();
    let opening = topics.iter().enumerate().map(|(n, topic)| {
        store.open_partition(PartitionSpec {
            id: PartitionId {
                topic: TopicId([n as u8 + 1; 16]),
                index: 0,
            },
            topic: topic.name.to_owned(),
            leader_epoch: LeaderEpoch(plan.leader_epoch),
            config: topic.config.clone(),
        })
    });
    for (entry, topic) in join_all(opening).await.into_iter().zip(topics) {
        let allowed = plan.allowed_of(Some(topic.name));
        match entry {
            Entry::Online(log) => opened.push(Client {
                log,
                ledger: topic.ledger.clone(),
                io: io.clone(),
                allowed,
                numbers: numbers.clone(),
                config: topic.config.clone(),
            }),
            Entry::Offline(offline) => allowed.check(&offline)?,
        }
    }
    for client in &opened {
        client.check_opened(&mut rng).await?;
    }
    let done = Cell::new(0);
    let producers: usize = opened.len() * 3;
    let work = opened.iter().flat_map(|client| {
        let mut tasks: Vec<LocalBoxFuture<'_, Result<(), Broken>>> = Vec::new();
        // The last one is not idempotent.
        for n in 0..3 {
            let rng = rng.fork();
            let done = &done;
            tasks.push(Box::pin(async move {
                let result = client.produce(n, plan.steps, rng).await;
                done.set(done.get() + 1);
                result
            }));
        }
        for _ in 0..2 {
            let (rng, done) = (rng.fork(), &done);
            tasks.push(Box::pin(client.consume(done, producers, rng)));
        }
        if plan.upkeep {
            let (rng, done) = (rng.fork(), &done);
            tasks.push(Box::pin(client.keep_up(done, producers, rng)));
        }
        if plan.checkpoints {
            let (rng, done) = (rng.fork(), &done);
            tasks.push(Box::pin(client.checkpoint(done, producers, rng)));
        }
        tasks
    });
    let work: Vec<_> = work.collect();
    for result in join_all(work).await {
        result?;
    }
    if rng.below(3) == 0 {
        io.sleep(Duration::from_millis(rng.below(3000))).await;
    }
    if !plan.close {
        return Ok(Ended::Running);
    }
    match store.close_all().await {
        Ok(()) => {
            opened.iter().for_each(|c| c.ledger.borrow_mut().closed());
            Ok(Ended::Closed)
        }
        Err(offline) => {
            let damage = plan.harmed.is_some();
            let allowed = Allowed {
                damage,
                ..plan.allowed
            };
            allowed.check(&offline)?;
            Ok(Ended::Running)
        }
    }
}

/// As a broker starts: what a crash has left in the journals of all shards first.
async fn open_journal(
    io: &LyingIo,
    store: &Rc<Store<LyingIo>>,
    plan: &Plan,
) -> Result<(), Offline> {
    let data = Path::new(klamm_engine::io::sim::DATA);
    let config = ReplayConfig {
        clean: plan.clean,
        sync_all_from: plan.journal.map_or(1, |(_, config)| config.sync_all_from),
    };
    store.note_replayed(journal::replay(io, data, plan.shards, config).await?);
    match plan.journal {
        Some((shard, config)) => store.use_journal(shard, config).await,
        None => Ok(()),
    }
}

impl Plan {
    /// What may go wrong with a topic, or with what is of none.
    fn allowed_of(&self, topic: Option<&'static str>) -> Allowed {
        let damage = match self.harmed {
            None => false,
            Some(Harm::Start) => true,
            Some(Harm::Topic(harmed)) => topic == Some(harmed),
        };
        Allowed {
            damage,
            ..self.allowed
        }
    }
}

impl Allowed {
    pub fn check(self, offline: &Offline) -> Result<(), Broken> {
        let allowed = match &*offline.0 {
            OfflineReason::Failed { .. } => self.failures,
            OfflineReason::Corrupt { .. } => self.damage || self.holes,
            OfflineReason::Closed => self.failures || self.damage,
        };
        match allowed {
            true => Ok(()),
            false => Err(format!("offline for no reason: {offline}")),
        }
    }
}

struct Client {
    log: Log,
    ledger: Rc<RefCell<Ledger>>,
    io: LyingIo,
    allowed: Allowed,
    numbers: Rc<Cell<u64>>,
    config: LogConfig,
}

impl Client {
    fn fresh_numbers(&self, count: u64) -> Vec<u64> {
        let first = self.numbers.get();
        self.numbers.set(first + count);
        (first..first + count).collect()
    }

    async fn pause(&self, rng: &mut Rng) {
        let us = if rng.below(8) == 0 { 9_000 } else { 150 };
        self.io.sleep(Duration::from_micros(rng.below(us))).await;
    }

    /// Everything promised is there, once, in order; and retries are known.
    async fn check_opened(&self, rng: &mut Rng) -> Result<(), Broken> {
        let offsets = self.log.offsets();
        self.ledger.borrow_mut().opened(&offsets)?;
        let mut next = offsets.log_start;
        while next < offsets.log_end {
            let read = self.read(next, rng.between(1, 20_000) as usize).await?;
            let Some(behind) = read else { return Ok(()) };
            if behind == next {
                return Err(format!("a fetch at {next} below the end gives nothing"));
            }
            next = behind;
        }
        let producers = self.ledger.borrow().producers.clone();
        for producer in producers {
            let kept = producer.batches.iter().rev().take(5);
            for sent in kept.filter(|sent| sent.base >= offsets.log_start.0) {
                let batch = batch_of(&sent.numbers, Some((producer.id, sent.sequence)));
                self.expect_duplicate(self.log.append(&batch), sent.base)?;
            }
        }
        Ok(())
    }

    fn expect_duplicate(
        &self,
        result: Result<Appended, AppendError>,
        base: i64,
    ) -> Result<(), Broken> {
        match result {
            Ok(appended) if appended.duplicate && appended.base_offset.0 == base => Ok(()),
            Err(AppendError::Offline(offline)) => self.allowed.check(&offline),
            other => Err(format!("a retry of the batch at {base}: {other:?}")),
        }
    }

    /// One fetch. None: the partition is offline, for a reason.
    async fn read(&self, from: Offset, bytes_max: usize) -> Result<Option<Offset>, Broken> {
        let bytes = match self.log.read(from, bytes_max, true).await {
            Ok(slice) => slice.load().await,
            Err(ReadError::Offline(offline)) => Err(offline),
            Err(ReadError::OutOfRange { log_start, .. }) if log_start > from => {
                return Ok(Some(log_start));
            }
            Err(error) => return Err(format!("a fetch at {from}: {error}")),
        };
        match bytes {
            Ok(parts) => {
                let bytes = parts.concat();
                let seen = self.ledger.borrow_mut().seen(from, &bytes);
                if seen.is_err() && self.allowed.holes {
                    self.io.sleep(Duration::from_millis(5)).await;
                    if self.log.offline().is_some() {
                        return Ok(None);
                    }
                }
                seen.map(Some)
            }
            Err(offline) => {
                self.allowed.check(&offline)?;
                Ok(None)
            }
        }
    }

    /// A producer: some requests in flight, some of them again, some out of order.
    async fn produce(&self, n: usize, steps: usize, mut rng: Rng) -> Result<(), Broken> {
        let idempotent = n < self.ledger.borrow().producers.len();
        let mut in_flight = VecDeque::new();
        for _ in 0..steps {
            self.pause(&mut rng).await;
            let was_offline = self.log.offline();
            let taken = match rng.below(12) {
                0 if idempotent => self.retry(n, &mut rng)?,
                1 if idempotent => self.leave_a_gap(n)?,
                _ => self.send(idempotent.then_some(n), rng.between(1, 4))?,
            };
            let Some(upto) = taken else { break };
            if let Some(offline) = was_offline.filter(|_| upto > Offset::ZERO) {
                return Err(format!("a batch is taken after: {offline}"));
            }
            in_flight.push_back(upto);
            if in_flight.len() > 4 || rng.below(3) == 0 {
                let upto = in_flight.pop_front().expect("just pushed");
                if !self.wait_for(upto).await? {
                    return Ok(());
                }
            }
        }
        for upto in in_flight {
            if !self.wait_for(upto).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn wait_for(&self, upto: Offset) -> Result<bool, Broken> {
        match self.log.acknowledged(upto).await {
            Ok(()) => {
                self.ledger.borrow_mut().acknowledged(upto);
                Ok(true)
            }
            Err(offline) => {
                self.allowed.check(&offline)?;
                // Nothing that comes now is acknowledged.
                let after = self.log.append(&batch_of(&self.fresh_numbers(1), None));
                match after {
                    Err(AppendError::Offline(_)) => Ok(false),
                    other => Err(format!("after {offline} an append gives {other:?}")),
                }
            }
        }
    }

    fn send(&self, producer: Option<usize>, count: u64) -> Result<Option<Offset>, Broken> {
        let numbers = self.fresh_numbers(count);
        let mut ledger = self.ledger.borrow_mut();
        let identity = producer.map(|n| {
            let producer = &ledger.producers[n];
            (producer.id, producer.next_sequence)
        });
        let appended = match self.log.append(&batch_of(&numbers, identity)) {
            Ok(appended) => appended,
            Err(AppendError::Offline(offline)) => {
                self.allowed.check(&offline)?;
                return Ok(None);
            }
            Err(error) => return Err(format!("a batch of {identity:?}: {error}")),
        };
        if appended.duplicate {
            return Err(format!(
                "a fresh batch of {identity:?} is taken for another"
            ));
        }
        ledger.appended(appended.base_offset, &numbers)?;
        if let (Some(n), Some((_, sequence))) = (producer, identity) {
            let producer = &mut ledger.producers[n];
            producer.next_sequence += count as i32;
            producer.batches.push(super::ledger::Sent {
                sequence,
                numbers,
                base: appended.base_offset.0,
            });
        }
        Ok(Some(appended.next_offset))
    }

    /// One of the last five again.
    fn retry(&self, n: usize, rng: &mut Rng) -> Result<Option<Offset>, Broken> {
        let ledger = self.ledger.borrow();
        let producer = &ledger.producers[n];
        let kept: Vec<_> = producer.batches.iter().rev().take(5).collect();
        if kept.is_empty() {
            return Ok(Some(Offset(0)));
        }
        let sent = kept[rng.index(kept.len())];
        if sent.base < self.log.offsets().log_start.0 {
            return Ok(Some(Offset(0)));
        }
        let batch = batch_of(&sent.numbers, Some((producer.id, sent.sequence)));
        let result = self.log.append(&batch);
        let upto = result.as_ref().ok().map(|appended| appended.next_offset);
        self.expect_duplicate(result, sent.base)?;
        Ok(upto)
    }

    fn leave_a_gap(&self, n: usize) -> Result<Option<Offset>, Broken> {
        let ledger = self.ledger.borrow();
        let producer = &ledger.producers[n];
        let Some(last) = producer.batches.last() else {
            return Ok(Some(Offset(0)));
        };
        if last.base < self.log.offsets().log_start.0 {
            return Ok(Some(Offset(0)));
        }
        let batch = batch_of(&[0], Some((producer.id, producer.next_sequence + 3)));
        match self.log.append(&batch) {
            Err(AppendError::Sequence(SequenceError::OutOfOrderSequence { .. })) => {
                Ok(Some(Offset(0)))
            }
            Err(AppendError::Offline(offline)) => {
                self.allowed.check(&offline)?;
                Ok(None)
            }
            other => Err(format!("a batch behind a gap: {other:?}")),
        }
    }

    /// A consumer, from anywhere to the end and again, until all producers are done.
    async fn consume(
        &self,
        done: &Cell<usize>,
        producers: usize,
        mut rng: Rng,
    ) -> Result<(), Broken> {
        let mut next = self.log.offsets().log_start;
        while done.get() < producers {
            let offsets = self.log.offsets();
            if rng.below(10) == 0 {
                let span = offsets.high_watermark.0 - offsets.log_start.0 + 1;
                next = offsets.log_start.plus(rng.below(span.max(1) as u64) as i64);
            }
            let bytes_max = rng.between(1, 9000) as usize;
            match self.read(next, bytes_max).await? {
                None => return Ok(()),
                Some(behind) if behind > next => next = behind,
                Some(_) => {
                    let more = self.log.beyond(next);
                    let pause = self.pause(&mut rng);
                    futures_util::future::select(Box::pin(more), Box::pin(pause)).await;
                }
            }
            if rng.below(3) == 0 {
                self.pause(&mut rng).await;
            }
        }
        Ok(())
    }

    async fn keep_up(
        &self,
        done: &Cell<usize>,
        producers: usize,
        mut rng: Rng,
    ) -> Result<(), Broken> {
        while done.get() < producers {
            self.io
                .sleep(Duration::from_micros(rng.between(100, 4000)))
                .await;
            let visible = self.log.offsets().high_watermark;
            let result = if rng.coin() {
                let before = Offset(rng.below(visible.0 as u64 + 1) as i64);
                {
                    let mut ledger = self.ledger.borrow_mut();
                    ledger.deleted_at_most = ledger.deleted_at_most.max(before.0);
                }
                match join(self.log.delete_records(before), self.pause(&mut rng))
                    .await
                    .0
                {
                    Ok(start) => {
                        let mut ledger = self.ledger.borrow_mut();
                        ledger.deleted = ledger.deleted.max(start.0);
                        if start < before {
                            return Err(format!("deleted up to {before}, starts at {start}"));
                        }
                        Ok(())
                    }
                    Err(ReadError::Offline(offline)) => Err(offline),
                    Err(error) => return Err(format!("delete below {before}: {error}")),
                }
            } else {
                {
                    let mut ledger = self.ledger.borrow_mut();
                    if self.config.retention_bytes_max.is_some() {
                        ledger.deleted_at_most = ledger.deleted_at_most.max(ledger.end());
                        ledger.retaining = true;
                    }
                }
                let kept = self.keep_house().await?;
                self.ledger.borrow_mut().retaining = false;
                kept
            };
            if let Err(offline) = result {
                return self.allowed.check(&offline);
            }
        }
        Ok(())
    }

    /// Checkpoints, whether they are due or not.
    async fn checkpoint(
        &self,
        done: &Cell<usize>,
        producers: usize,
        mut rng: Rng,
    ) -> Result<(), Broken> {
        while done.get() < producers {
            let pause = Duration::from_micros(rng.between(100, 6000));
            self.io.sleep(pause).await;
            if let Err(offline) = self.log.checkpoint().await {
                return self.allowed.check(&offline);
            }
        }
        Ok(())
    }

    /// Retention takes no more than it must.
    async fn keep_house(&self) -> Result<Result<(), Offline>, Broken> {
        let before = self.log.offsets().log_start;
        let result = self.log.housekeep().await;
        let (after, size) = (self.log.offsets().log_start, self.log.size_bytes());
        match self.config.retention_bytes_max {
            Some(kept) if result.is_ok() && after > before && size < kept => {
                Err(format!("retention left {size} bytes of {kept}"))
            }
            None if after > before => Err(format!("retention went from {before} to {after}")),
            _ => Ok(result),
        }
    }
}
