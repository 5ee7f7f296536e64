//! Opens a log's folder, whatever a crash has left in it.
//!
//! The newest segment is the only one that a crash can have torn: an older one was cut,
//! synced and indexed before its successor's file was made (see appender.rs).
//!
//! | what is found | what it means | what happens |
//! |---|---|---|
//! | clean stop; mark, length and indexes agree | closed in order | opened without a scan |
//! | batches whole to the file's end, or to zeros | killed, or preallocated room | synced, opened |
//! | a bad batch at or above the mark, nothing whole behind the mark's window | torn by a power cut, never acknowledged | cut there, with a warning |
//! | a bad batch below the mark | was synced once: bit rot | offline, nothing is cut |
//! | a bad batch above the mark, whole ones beyond the window | later rounds were synced: bit rot | offline |
//! | the file ends below the mark, or the mark names a segment that is missing | committed bytes are gone | offline |
//! | an index or a snapshot is missing or bad | it can be rebuilt | rebuilt from the log |

use crate::batch::BatchHeader;
use crate::config::LogConfig;
use crate::epochs::LeaderEpochs;
use crate::error::Offline;
use crate::index::{OffsetIndex, SegmentBounds, TimeIndex};
use crate::io::{BLOCK, File, Io, Open};
use crate::mark::{self, Mark};
use crate::producer::ProducerState;
use crate::scan::{WalkEnd, valid_behind, walk};
use crate::segment::{Indexes, LogPosition, Segment, file_name, parse_file_name};
use crate::units::{BytePos, Offset, TimestampMs};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub const EPOCHS_FILE_NAME: &str = "leader-epoch-checkpoint";
pub const LOG_START_FILE_NAME: &str = "log-start-offset";

/// What [`open`] makes of a folder.
pub struct Opened<I: Io> {
    pub segments: BTreeMap<Offset, Rc<Segment<I>>>,
    pub log_start: Offset,
    pub end: LogPosition,
    /// The bytes of the end's block that are before the end.
    pub head: Vec<u8>,
    pub file_len: u64,
    pub producers: ProducerState,
    pub epochs: LeaderEpochs,
    pub mark_file: Rc<I::File>,
    /// What the mark on disk says; None: there is none yet.
    pub marked: Option<LogPosition>,
}

/// Opens or makes the log in `dir`. `clean` says that the broker stopped in order, so
/// that a scan may be spared.
pub async fn open<I: Io>(
    io: &I,
    dir: &Path,
    config: &LogConfig,
    clean: bool,
) -> Result<Opened<I>, Offline> {
    let found = match io.read_dir(dir).await {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            make_folder(io, dir).await?;
            Vec::new()
        }
        Err(e) => return Err(Offline::failed("list", dir, e)),
    };
    let names: Vec<String> = found
        .into_iter()
        .filter(|e| !e.is_dir)
        .map(|e| e.name)
        .collect();
    Recovery {
        io,
        dir,
        config,
        clean,
        names,
    }
    .run()
    .await
}

async fn make_folder<I: Io>(io: &I, dir: &Path) -> Result<(), Offline> {
    io.create_dir_all(dir)
        .await
        .map_err(|e| Offline::failed("create", dir, e))?;
    if let Some(parent) = dir.parent() {
        io.sync_dir(parent)
            .await
            .map_err(|e| Offline::failed("sync", parent, e))?;
    }
    Ok(())
}

struct Recovery<'a, I: Io> {
    io: &'a I,
    dir: &'a Path,
    config: &'a LogConfig,
    clean: bool,
    names: Vec<String>,
}

impl<I: Io> Recovery<'_, I> {
    async fn run(self) -> Result<Opened<I>, Offline> {
        let mut bases: Vec<Offset> = self
            .names
            .iter()
            .filter_map(|n| parse_file_name(n, "log"))
            .collect();
        bases.sort_unstable();
        let log_start = self.read_log_start().await?;
        let (mark_file, mark) = self.open_mark().await?;
        if bases.is_empty() {
            if let Some(mark) = mark.filter(|m| m.offset > Offset::ZERO) {
                return Err(self.missing(mark));
            }
            return self.begin(log_start.unwrap_or_default(), mark_file).await;
        }
        let active = *bases.last().unwrap_or(&Offset::ZERO);
        if let Some(mark) = mark.filter(|m| !bases.contains(&m.segment) && m.segment >= bases[0]) {
            return Err(self.missing(mark));
        }
        let mut segments = BTreeMap::new();
        for pair in bases.windows(2) {
            segments.insert(pair[0], self.open_sealed(pair[0], pair[1], mark).await?);
        }
        let mut epochs = self.read_epochs().await?;
        let (segment, file, closed) = self.open_active(active, mark).await?;
        let mut producers = None;
        let file_len = self.len(&segment.path, &file).await?;
        let cut = if closed {
            None
        } else {
            producers = self.producers_up_to(active, &segments, log_start).await?;
            let end = self
                .scan_active(&segment, &file, file_len, producers.as_mut(), &mut epochs)
                .await?;
            Some(self.judge(&segment, &file, file_len, end, mark).await?)
        };
        segments.insert(active, segment.clone());
        let end = segment.end();
        let file_len = match cut {
            None => file_len,
            Some(torn_bytes) => {
                if torn_bytes > 0 {
                    log::warn!(
                        "{}: cut the {torn_bytes} bytes behind byte {}, which a crash left unfinished; none of them was acknowledged",
                        segment.path.display(),
                        end.pos
                    );
                }
                self.cut_and_sync(&segment, &file).await?;
                end.pos.0
            }
        };
        let producers = match producers {
            Some(producers) => producers,
            None => self.producers_at(end, &segments, log_start).await?,
        };
        epochs.truncate_from_end(end.offset);
        self.remove_snapshots_above(end.offset).await?;
        let head = self.read_head(&segment, &file, end.pos).await?;
        let log_start = log_start.unwrap_or_default().max(bases[0]).min(end.offset);
        let marked = mark.map(|m| LogPosition {
            segment: m.segment,
            pos: m.pos,
            offset: m.offset,
        });
        Ok(Opened {
            segments,
            log_start,
            end,
            head,
            file_len,
            producers,
            epochs,
            mark_file,
            marked,
        })
    }

    /// A log without a segment: its first one is made.
    async fn begin(&self, base: Offset, mark_file: Rc<I::File>) -> Result<Opened<I>, Offline> {
        let segment = Segment::active(self.dir, base);
        let file = self
            .io
            .open(&segment.path, Open::New)
            .await
            .map_err(|e| Offline::failed("create", &segment.path, e))?;
        self.sync_dir().await?;
        segment.set_file(Rc::new(file));
        let end = segment.end();
        Ok(Opened {
            segments: BTreeMap::from([(base, segment)]),
            log_start: base,
            end,
            head: Vec::new(),
            file_len: 0,
            producers: ProducerState::new(base),
            epochs: self.read_epochs().await?,
            mark_file,
            marked: None,
        })
    }

    fn missing(&self, mark: Mark) -> Offline {
        Offline::corrupt(
            self.dir.join(file_name(mark.segment, "log")),
            mark.pos,
            format!(
                "records up to offset {} were committed to it, and it is missing",
                mark.offset
            ),
        )
    }

    /// The mark's file, made where there is none, and what it says.
    async fn open_mark(&self) -> Result<(Rc<I::File>, Option<Mark>), Offline> {
        let path = self.dir.join(mark::FILE_NAME);
        if self.names.iter().any(|n| n == mark::FILE_NAME) {
            let file = self
                .io
                .open(&path, Open::Existing)
                .await
                .map_err(|e| Offline::failed("open", &path, e))?;
            let bytes = file
                .read_at(0, BLOCK)
                .await
                .map_err(|e| Offline::failed("read", &path, e))?;
            return Ok((Rc::new(file), Mark::decode(&bytes)));
        }
        let failed = |e| Offline::failed("create", &path, e);
        let file = self.io.open(&path, Open::New).await.map_err(failed)?;
        // Written once and synced, so that later writes find their block and cost no
        // metadata. Zeros are no mark.
        let taken = file
            .write_at(Rc::new(self.io.alloc(BLOCK)), 0)
            .await
            .map_err(failed)?;
        if taken < BLOCK {
            return Err(failed(std::io::Error::new(
                ErrorKind::WriteZero,
                "the disk takes no more bytes",
            )));
        }
        file.fdatasync().await.map_err(failed)?;
        self.sync_dir().await?;
        Ok((Rc::new(file), None))
    }

    async fn open_sealed(
        &self,
        base: Offset,
        next: Offset,
        mark: Option<Mark>,
    ) -> Result<Rc<Segment<I>>, Offline> {
        let path = self.dir.join(file_name(base, "log"));
        let file = self.open_existing(&path).await?;
        let len = self.len(&path, &file).await?;
        if let Some(mark) = mark.filter(|m| m.segment == base && m.pos.0 > len) {
            return Err(Offline::corrupt(
                path,
                BytePos(len),
                format!("the file ends here, and {} bytes were committed", mark.pos),
            ));
        }
        let times = match self.read_index_files(base, next, len).await {
            Some(indexes) => indexes.times,
            None => {
                let rebuilt = self.rebuild_indexes(base, &file, len).await?;
                rebuilt.times
            }
        };
        let largest = times.last().unwrap_or((TimestampMs::NONE, base));
        Ok(Segment::sealed(self.dir, base, len, next, largest))
    }

    /// The index files of a segment, if they are there and sound.
    async fn read_index_files(&self, base: Offset, next: Offset, len: u64) -> Option<Indexes> {
        read_index_files(self.io, self.dir, base, next, len).await
    }

    async fn rebuild_indexes(
        &self,
        base: Offset,
        file: &Rc<I::File>,
        len: u64,
    ) -> Result<Indexes, Offline> {
        rebuild_indexes(
            self.io,
            self.dir,
            base,
            file,
            len,
            self.config.index_interval_bytes,
        )
        .await
    }

    /// The newest segment; true where a clean stop has closed it, so that its length
    /// and indexes can be taken as they are.
    async fn open_active(
        &self,
        base: Offset,
        mark: Option<Mark>,
    ) -> Result<(Rc<Segment<I>>, Rc<I::File>, bool), Offline> {
        let segment = Segment::active(self.dir, base);
        let file = self.open_existing(&segment.path).await?;
        segment.set_file(file.clone());
        let len = self.len(&segment.path, &file).await?;
        let Some(mark) = mark.filter(|m| self.clean && m.segment == base && m.pos.0 == len) else {
            return Ok((segment, file, false));
        };
        let Some(indexes) = self.read_index_files(base, mark.offset, len).await else {
            return Ok((segment, file, false));
        };
        let mut first = TimestampMs::NONE;
        if len > 0 {
            let bytes = file
                .read_at(0, crate::batch::HEADER_LEN)
                .await
                .map_err(|e| Offline::failed("read", &segment.path, e))?;
            match BatchHeader::parse(&bytes) {
                Ok(header) => first = header.max_timestamp(),
                // The scan that follows says what is wrong.
                Err(_) => return Ok((segment, file, false)),
            }
        }
        let largest = indexes.times.last().unwrap_or((TimestampMs::NONE, base));
        let segment = Segment::sealed(self.dir, base, len, mark.offset, largest);
        segment.set_file(file.clone());
        segment.unseal(indexes, first);
        Ok((segment, file, true))
    }

    async fn scan_active(
        &self,
        segment: &Rc<Segment<I>>,
        file: &Rc<I::File>,
        len: u64,
        mut producers: Option<&mut ProducerState>,
        epochs: &mut LeaderEpochs,
    ) -> Result<WalkEnd, Offline> {
        let now = self.io.wall();
        walk(
            file,
            &segment.path,
            len,
            (BytePos::ZERO, segment.base),
            |header, _| {
                segment.extend(header, self.config.index_interval_bytes, now);
                epochs.assign(header.leader_epoch(), header.base_offset());
                if let Some(producers) = &mut producers
                    && header.base_offset() >= producers.next_offset()
                {
                    producers.apply(header);
                }
            },
        )
        .await
    }

    /// The table at the top. Ok: how many bytes behind the end are a torn tail.
    async fn judge(
        &self,
        segment: &Rc<Segment<I>>,
        file: &Rc<I::File>,
        len: u64,
        end: WalkEnd,
        mark: Option<Mark>,
    ) -> Result<u64, Offline> {
        let committed = mark
            .filter(|m| m.segment == segment.base)
            .map_or(BytePos::ZERO, |m| m.pos);
        // Without a mark nothing is known of rounds: then any whole batch behind a bad
        // one speaks for damage.
        let window = mark.map_or(0, |m| m.window);
        if end.pos < committed {
            let what = end.fault.unwrap_or_else(|| "the file ends here".to_owned());
            return Err(Offline::corrupt(
                &segment.path,
                end.pos,
                format!(
                    "{what}; the log was committed up to byte {committed}, so this is damage and not the tail of a crash"
                ),
            ));
        }
        let Some(fault) = end.fault.filter(|_| !end.only_zeros) else {
            return Ok(0);
        };
        let behind = valid_behind(file, &segment.path, len, end.pos.plus(1), end.next).await?;
        match behind {
            Some(last)
                if window != mark::UNBOUNDED && last.0 > committed.0.saturating_add(window) =>
            {
                Err(Offline::corrupt(
                    &segment.path,
                    end.pos,
                    format!(
                        "{fault}; whole batches stand behind it up to byte {last}, so this is damage and not the tail of a crash"
                    ),
                ))
            }
            _ => Ok(len - end.pos.0),
        }
    }

    /// Whatever was only stable is committed now; whatever is behind the end is gone,
    /// so that no later crash can mistake it for a batch.
    async fn cut_and_sync(
        &self,
        segment: &Rc<Segment<I>>,
        file: &Rc<I::File>,
    ) -> Result<(), Offline> {
        let path = &segment.path;
        file.truncate(segment.size_bytes())
            .await
            .map_err(|e| Offline::failed("cut", path, e))?;
        file.fdatasync()
            .await
            .map_err(|e| Offline::failed("sync", path, e))?;
        self.sync_dir().await
    }

    async fn read_head(
        &self,
        segment: &Segment<I>,
        file: &Rc<I::File>,
        end: BytePos,
    ) -> Result<Vec<u8>, Offline> {
        let start = end.0 / BLOCK as u64 * BLOCK as u64;
        let n = (end.0 - start) as usize;
        if n == 0 {
            return Ok(Vec::new());
        }
        let bytes = file
            .read_at(start, n)
            .await
            .map_err(|e| Offline::failed("read", &segment.path, e))?;
        if bytes.len() < n {
            return Err(Offline::corrupt(
                &segment.path,
                BytePos(start + bytes.len() as u64),
                "the file ends here",
            ));
        }
        Ok(bytes.to_vec())
    }

    /// Producer state where the active segment begins or later, ready for its scan.
    async fn producers_up_to(
        &self,
        active: Offset,
        sealed: &BTreeMap<Offset, Rc<Segment<I>>>,
        log_start: Option<Offset>,
    ) -> Result<Option<ProducerState>, Offline> {
        // A snapshot inside of the active segment may be of a tail that is about to be
        // cut, so only those up to its base count.
        Ok(Some(
            self.load_producers(active, active, sealed, log_start)
                .await?,
        ))
    }

    async fn producers_at(
        &self,
        end: LogPosition,
        segments: &BTreeMap<Offset, Rc<Segment<I>>>,
        log_start: Option<Offset>,
    ) -> Result<ProducerState, Offline> {
        self.load_producers(end.offset, end.offset, segments, log_start)
            .await
    }

    /// The newest snapshot not above `at_most`, brought forward to `upto` through the
    /// segments given.
    async fn load_producers(
        &self,
        at_most: Offset,
        upto: Offset,
        segments: &BTreeMap<Offset, Rc<Segment<I>>>,
        log_start: Option<Offset>,
    ) -> Result<ProducerState, Offline> {
        let mut snapshots: Vec<Offset> = self
            .names
            .iter()
            .filter_map(|n| parse_file_name(n, "snapshot"))
            .filter(|&at| at <= at_most)
            .collect();
        snapshots.sort_unstable();
        let mut state = None;
        for at in snapshots.into_iter().rev() {
            let path = self.dir.join(file_name(at, "snapshot"));
            let bytes = self
                .io
                .read_file(&path)
                .await
                .map_err(|e| Offline::failed("read", &path, e))?;
            match ProducerState::decode_snapshot(&bytes) {
                Ok(mut found) => {
                    found.advance_to(at);
                    state = Some(found);
                    break;
                }
                Err(e) => log::warn!(
                    "{}: {e}; an older one or the log itself is used",
                    path.display()
                ),
            }
        }
        let begin = segments
            .keys()
            .next()
            .copied()
            .unwrap_or(upto)
            .max(log_start.unwrap_or_default());
        let mut state = state.unwrap_or_else(|| ProducerState::new(begin.min(upto)));
        for segment in segments.values() {
            if segment.end().offset <= state.next_offset() || segment.base >= upto {
                continue;
            }
            let file = match segment.file() {
                Some(file) => file,
                None => self.open_existing(&segment.path).await?,
            };
            let next = state.next_offset();
            let end = walk(
                &file,
                &segment.path,
                segment.size_bytes(),
                (BytePos::ZERO, segment.base),
                |header, _| {
                    if header.base_offset() >= next && header.base_offset() < upto {
                        state.apply(header);
                    }
                },
            )
            .await?;
            if let Some(fault) = end.fault {
                return Err(Offline::corrupt(&segment.path, end.pos, fault));
            }
        }
        state.advance_to(upto);
        Ok(state)
    }

    async fn remove_snapshots_above(&self, end: Offset) -> Result<(), Offline> {
        for name in &self.names {
            if parse_file_name(name, "snapshot").is_some_and(|at| at > end) {
                let path = self.dir.join(name);
                self.io
                    .remove_file(&path)
                    .await
                    .map_err(|e| Offline::failed("remove", &path, e))?;
            }
        }
        Ok(())
    }

    async fn read_log_start(&self) -> Result<Option<Offset>, Offline> {
        if !self.names.iter().any(|n| n == LOG_START_FILE_NAME) {
            return Ok(None);
        }
        let path = self.dir.join(LOG_START_FILE_NAME);
        let bytes = self
            .io
            .read_file(&path)
            .await
            .map_err(|e| Offline::failed("read", &path, e))?;
        let text = String::from_utf8_lossy(&bytes);
        match text.trim_end().parse() {
            Ok(offset) if offset >= 0 => Ok(Some(Offset(offset))),
            _ => Err(Offline::corrupt(
                path,
                BytePos::ZERO,
                "expected the log start offset as a decimal number",
            )),
        }
    }

    async fn read_epochs(&self) -> Result<LeaderEpochs, Offline> {
        if !self.names.iter().any(|n| n == EPOCHS_FILE_NAME) {
            return Ok(LeaderEpochs::default());
        }
        let path = self.dir.join(EPOCHS_FILE_NAME);
        let bytes = self
            .io
            .read_file(&path)
            .await
            .map_err(|e| Offline::failed("read", &path, e))?;
        LeaderEpochs::decode(&bytes)
            .map_err(|e| Offline::corrupt(path, BytePos::ZERO, e.to_string()))
    }

    async fn open_existing(&self, path: &PathBuf) -> Result<Rc<I::File>, Offline> {
        let file = self
            .io
            .open(path, Open::Existing)
            .await
            .map_err(|e| Offline::failed("open", path, e))?;
        Ok(Rc::new(file))
    }

    async fn len(&self, path: &Path, file: &Rc<I::File>) -> Result<u64, Offline> {
        file.len()
            .await
            .map_err(|e| Offline::failed("measure", path, e))
    }

    async fn sync_dir(&self) -> Result<(), Offline> {
        self.io
            .sync_dir(self.dir)
            .await
            .map_err(|e| Offline::failed("sync", self.dir, e))
    }
}

/// A sealed segment's index files, if both are there and sound.
pub async fn read_index_files<I: Io>(
    io: &I,
    dir: &Path,
    base: Offset,
    next: Offset,
    len: u64,
) -> Option<Indexes> {
    let offsets = io
        .read_file(&dir.join(file_name(base, "index")))
        .await
        .ok()?;
    let times = io
        .read_file(&dir.join(file_name(base, "timeindex")))
        .await
        .ok()?;
    let bounds = SegmentBounds {
        base_offset: base,
        next_offset: next,
        end: BytePos(len),
    };
    let offsets = OffsetIndex::decode(&offsets, bounds).ok()?;
    let times = TimeIndex::decode(&times, bounds).ok()?;
    // A segment with records has an entry for its first batch in both.
    (len == 0 || (!offsets.is_empty() && !times.is_empty())).then_some(Indexes { offsets, times })
}

/// Makes a sealed segment's indexes from its batches, and writes their files.
pub async fn rebuild_indexes<I: Io>(
    io: &I,
    dir: &Path,
    base: Offset,
    file: &Rc<I::File>,
    len: u64,
    index_interval_bytes: u64,
) -> Result<Indexes, Offline> {
    let segment = Segment::<I>::active(dir, base);
    let now = io.wall();
    let end = walk(
        file,
        &segment.path,
        len,
        (BytePos::ZERO, base),
        |header, _| {
            segment.extend(header, index_interval_bytes, now);
        },
    )
    .await?;
    if let Some(fault) = end.fault {
        return Err(Offline::corrupt(&segment.path, end.pos, fault));
    }
    segment.seal();
    let indexes = segment
        .indexes()
        .map(|i| i.borrow().clone())
        .unwrap_or_else(|| Indexes::new(base));
    for (extension, bytes) in [
        ("index", indexes.offsets.encode()),
        ("timeindex", indexes.times.encode()),
    ] {
        let path = dir.join(file_name(base, extension));
        io.replace_file(&path, bytes)
            .await
            .map_err(|e| Offline::failed("write", &path, e))?;
    }
    log::info!("{}: indexes made anew from the log", segment.path.display());
    Ok(indexes)
}
