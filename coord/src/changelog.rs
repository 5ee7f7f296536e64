//! The commands on disk: one record each in an engine log, in the order of zxids.
//!
//! ```text
//!   DATA/coordinator/changelog/00000000000000000000.log
//!     | batch: command, command, ...  | batch: ... |          zxid = offset + 1
//!
//!   append --> one batch of many commands --> written, synced --> committed
//!   replay <-- every batch's CRC checked, every command decoded, no gap
//! ```
//!
//! It is a log like a topic's, so what the engine promises of a crash holds here: a
//! torn tail is cut, damage below what was committed is an error that names the file
//! and the byte. Kafka's tools read it (`klamm inspect` too). It is cut below the
//! older of the snapshots that are kept, whole segments at a time.

use crate::core::Zxid;
use crate::core::codec::DecodeError;
use crate::core::command::Command;
use klamm_engine::batch::NewRecord;
use klamm_engine::batch::{Batch, BatchBuilder, Batches};
use klamm_engine::codec::Codec;
use klamm_engine::config::LogConfig;
use klamm_engine::error::{Offline, ReadError};
use klamm_engine::io::Io;
use klamm_engine::partition::{AppendError, OpenOptions, Partition};
use klamm_engine::slice::{Range, Slice};
use klamm_engine::tail::TailCache;
use klamm_engine::units::{BytePos, LeaderEpoch, Offset};
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// A batch is closed at this size: a batch is read whole, and 1 MiB is where a read
/// of one no longer gets cheaper per byte.
const BATCH_BYTES: usize = 1 << 20;

/// Segments are the unit of cutting: small beside what lies between two snapshots.
const SEGMENT_BYTES: u64 = 16 << 20;

/// What a replay reads at a time.
const READ_BYTES: usize = 4 << 20;

/// Recently written chunks that stay in memory. Nobody reads them while it runs.
const TAIL_BYTES: usize = 256 << 10;

/// No command comes near it: requests end at `socket.request.max.bytes`, and what a
/// group keeps of its members came in such requests.
const COMMAND_BYTES_MAX: usize = i32::MAX as usize - 4096;

pub struct Changelog<I: Io> {
    log: Rc<Partition<I>>,
}

/// Why the changelog cannot be used.
#[derive(Debug)]
pub enum ChangelogError {
    /// A failed write or sync, or damage; it latches.
    Offline(Offline),
    /// A batch whose bytes are whole holds something else than commands.
    NoCommand {
        file: PathBuf,
        at: BytePos,
        zxid: Zxid,
        error: DecodeError,
    },
    /// What lies before is gone, and no snapshot has it.
    Gap {
        dir: PathBuf,
        wanted: Zxid,
        first: Zxid,
    },
    /// A command that no log can hold.
    TooLarge { zxid: Zxid, bytes: usize },
}

impl fmt::Display for ChangelogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChangelogError::Offline(offline) => write!(f, "the coordinator's changelog: {offline}"),
            ChangelogError::NoCommand {
                file,
                at,
                zxid,
                error,
            } => write!(
                f,
                "{}: the batch at byte {at} holds no command of the coordinator at zxid {zxid}: {error}; \
                 was it written by a newer Klamm?",
                file.display()
            ),
            ChangelogError::Gap { dir, wanted, first } => write!(
                f,
                "{}: begins at zxid {first}, but the newest readable snapshot needs it from {wanted} on; \
                 restore the missing snapshot or changelog from a backup",
                dir.display()
            ),
            ChangelogError::TooLarge { zxid, bytes } => {
                write!(
                    f,
                    "the change at zxid {zxid} has {bytes} bytes, more than the changelog can hold"
                )
            }
        }
    }
}

impl std::error::Error for ChangelogError {}

impl From<Offline> for ChangelogError {
    fn from(offline: Offline) -> ChangelogError {
        ChangelogError::Offline(offline)
    }
}

impl<I: Io> Changelog<I> {
    /// Opens the log in `dir`, or makes it. `clean`: the last process stopped in order.
    pub async fn open(io: I, dir: &Path, clean: bool) -> Result<Changelog<I>, ChangelogError> {
        let config = LogConfig {
            segment_bytes: SEGMENT_BYTES,
            // A hundred years: only size rolls it, and only snapshots cut it.
            segment_age_max: Duration::from_secs(100 * 365 * 24 * 60 * 60),
            retention_age_max: None,
            retention_bytes_max: None,
            batch_bytes_max: COMMAND_BYTES_MAX + BATCH_BYTES,
            // The wall clock may jump; a command is never refused for its time.
            timestamp_before_max: None,
            timestamp_after_max: None,
            ..LogConfig::default()
        };
        assert!(config.acks_committed(), "an answer rests on what is synced");
        let options = OpenOptions {
            clean,
            leader_epoch: LeaderEpoch(0),
        };
        let log = Partition::open(
            io,
            dir.to_owned(),
            config,
            options,
            TailCache::new(TAIL_BYTES),
        )
        .await?;
        Ok(Changelog { log })
    }

    /// The last command that is in it; ZERO for an empty one.
    #[must_use]
    pub fn last(&self) -> Zxid {
        Zxid(self.log.offsets().log_end.0)
    }

    /// Hands every committed command after `after` to `apply`, in order.
    pub async fn replay(
        &self,
        after: Zxid,
        mut apply: impl FnMut(Zxid, &Command),
    ) -> Result<(), ChangelogError> {
        let offsets = self.log.offsets();
        if offsets.log_start.0 > after.0 {
            let first = Zxid(offsets.log_start.0).next();
            return Err(ChangelogError::Gap {
                dir: self.log.dir().to_owned(),
                wanted: after.next(),
                first,
            });
        }
        // A snapshot is written only of what is committed: a log that ends before it
        // has lost something, or is another one's.
        if offsets.high_watermark.0 < after.0 {
            let first = Zxid(offsets.high_watermark.0).next();
            return Err(ChangelogError::Gap {
                dir: self.log.dir().to_owned(),
                wanted: after.next(),
                first,
            });
        }
        let mut next = Offset(after.0);
        while next < offsets.high_watermark {
            let slice = self
                .log
                .read(next, READ_BYTES, true)
                .await
                .map_err(offline)?;
            let bytes = slice.load().await?.concat();
            let mut batches = Batches::new(&bytes);
            loop {
                let at = batches.position();
                let Some(batch) = batches.next() else { break };
                let sound = batch.and_then(|batch| batch.verify_crc().map(|()| batch));
                let batch = sound.map_err(|error| {
                    let (file, at) = place(&slice, at, self.log.dir());
                    Offline::corrupt(file, at, error.to_string())
                })?;
                self.apply_batch(&batch, &mut next, &mut apply)
                    .map_err(|(zxid, error)| {
                        let (file, at) = place(&slice, at, self.log.dir());
                        ChangelogError::NoCommand {
                            file,
                            at,
                            zxid,
                            error,
                        }
                    })?;
            }
        }
        Ok(())
    }

    /// The commands of one batch from `next` on; `next` is then the one behind it.
    fn apply_batch(
        &self,
        batch: &Batch<'_>,
        next: &mut Offset,
        apply: &mut impl FnMut(Zxid, &Command),
    ) -> Result<(), (Zxid, DecodeError)> {
        let wrong = |offset: Offset, what| (Zxid(offset.0).next(), DecodeError { at: 0, what });
        let unpacked = batch.records_unpacked(COMMAND_BYTES_MAX).map_err(|_| {
            wrong(
                batch.header().base_offset(),
                "records that cannot be unpacked",
            )
        })?;
        for record in batch.records(&unpacked) {
            let record = record.map_err(|_| wrong(*next, "a record that cannot be read"))?;
            let offset = batch.offset_of(&record);
            if offset < *next {
                continue;
            }
            if offset > *next {
                return Err(wrong(*next, "a gap before it"));
            }
            let zxid = Zxid(offset.0).next();
            let command =
                Command::decode(record.value.unwrap_or_default()).map_err(|error| (zxid, error))?;
            apply(zxid, &command);
            *next = offset.plus(1);
        }
        // A batch may say that it is longer than its records are (compaction does
        // that; here nothing is compacted).
        if *next != batch.header().next_offset() {
            return Err(wrong(*next, "fewer records than the batch says"));
        }
        Ok(())
    }

    /// Appends commands, the next ones in order, and waits until they are committed:
    /// all in one sync. Returns how many bytes that was.
    pub async fn commit(&self, commands: &[(Zxid, Command)]) -> Result<u64, ChangelogError> {
        let Some((last, _)) = commands.last() else {
            return Ok(0);
        };
        let mut bytes = 0;
        let mut value = Vec::new();
        let mut batch = BatchBuilder::new(Codec::None);
        let mut first = Offset(self.last().0);
        for (zxid, command) in commands {
            value.clear();
            command.encode(&mut value);
            if value.len() > COMMAND_BYTES_MAX {
                return Err(ChangelogError::TooLarge {
                    zxid: *zxid,
                    bytes: value.len(),
                });
            }
            if !batch.is_empty() && batch.size_unpacked() + value.len() > BATCH_BYTES {
                let full = std::mem::replace(&mut batch, BatchBuilder::new(Codec::None));
                bytes += self.append(full, &mut first)?;
            }
            batch.push(NewRecord {
                timestamp: command.time,
                key: None,
                value: Some(&value),
                headers: &[],
            });
        }
        bytes += self.append(batch, &mut first)?;
        assert_eq!(first.0, last.0, "a command's place is its zxid less one");
        self.log.acknowledged(first).await?;
        Ok(bytes)
    }

    fn append(&self, batch: BatchBuilder, next: &mut Offset) -> Result<u64, ChangelogError> {
        let count = i64::from(batch.record_count());
        let bytes = batch.finish();
        let appended = match self.log.append(&bytes) {
            Ok(appended) => appended,
            Err(AppendError::Offline(offline)) => return Err(offline.into()),
            // The batch is our own, and nothing that can be in it is refused.
            Err(other) => unreachable!("the changelog refuses a batch of commands: {other}"),
        };
        assert_eq!(
            appended.base_offset, *next,
            "nobody else writes the changelog"
        );
        *next = next.plus(count);
        Ok(bytes.len() as u64)
    }

    /// Lets go of what lies before `first`, in whole segments.
    pub async fn cut_before(&self, first: Zxid) -> Result<(), ChangelogError> {
        self.log
            .delete_records(Offset(first.0 - 1))
            .await
            .map_err(offline)?;
        Ok(())
    }

    pub async fn close(&self) -> Result<(), ChangelogError> {
        Ok(self.log.close().await?)
    }
}

fn offline(error: ReadError) -> ChangelogError {
    match error {
        ReadError::Offline(offline) => ChangelogError::Offline(offline),
        // Neither is asked for: reads stay inside of the log, by offset.
        error @ (ReadError::OutOfRange { .. }
        | ReadError::Undecodable { .. }
        | ReadError::UnpacksTooLarge { .. }) => {
            unreachable!("a read inside of the changelog: {error}")
        }
    }
}

/// The file and the byte behind a position in what a slice gave.
fn place<I: Io>(slice: &Slice<I>, at: usize, dir: &Path) -> (PathBuf, BytePos) {
    let mut at = at as u64;
    for range in &slice.ranges {
        let (from, to) = match range {
            Range::Memory { from, to, .. } | Range::File { from, to, .. } => (*from, *to),
        };
        if at < to.0 - from.0 {
            let file = match range {
                Range::Memory { .. } => dir.to_owned(),
                Range::File { segment, .. } => segment.path.clone(),
            };
            return (file, from.plus(at));
        }
        at -= to.0 - from.0;
    }
    (dir.to_owned(), BytePos(at))
}
