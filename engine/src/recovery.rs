//! Opens a log's folder, whatever a crash has left in it.
//!
//! The newest segment is the only one that a crash can have torn: an older one was cut,
//! synced and indexed before its successor's file was made (see appender.rs).
//!
//! A segment below the log start offset is one whose removal a crash has cut short.
//!
//! | what is found | what it means | what happens |
//! |---|---|---|
//! | clean stop; mark, length and indexes agree | closed in order | opened without a scan |
//! | batches whole to the file's end, or to zeros | killed, or preallocated room | synced, opened |
//! | a bad batch at or above the mark, nothing whole behind the mark's window | torn by a power cut, never acknowledged | cut there, with a warning |
//! | a bad batch below the mark, or another offset at the mark than it says | was synced once: bit rot | offline, nothing is cut |
//! | a bad batch, and no mark at all | another broker's folder, not closed in order | offline, nothing is cut |
//! | a gap in the offsets above the mark | we leave none: bit rot | offline |
//! | a bad batch above the mark, whole ones beyond the window | later rounds were synced: bit rot | offline |
//! | the file ends below the mark, or the mark names a segment that is missing | committed bytes are gone | offline |
//! | an index or a snapshot is missing or bad | it can be rebuilt | rebuilt from the log |
//! | a checkpoint of the newest segment, and the block before its position agrees | committed to there at least | scanned from there on (checkpoint.rs) |
//! | a checkpoint that is damaged, or does not agree | nothing is known by it | scanned from the front |

mod newest;

use crate::batch::is_zero;
use crate::checkpoint::{self, Checkpoint};
use crate::config::LogConfig;
use crate::epochs::LeaderEpochs;
use crate::error::Offline;
use crate::index::SegmentBounds;
use crate::index_files;
use crate::io::{BLOCK, Buf, Entry, File, Io, Open, OpenedDir, OpenedFile, Want, write_whole};
use crate::mark::{self, Mark};
use crate::producer::ProducerState;
use crate::scan::{Reach, Stretch, Window, walk};
use crate::sealed_text;
use crate::segment::{LogPosition, Segment, file_name, parse_file_name};
use crate::store::METADATA_FILE_NAME;
use crate::units::{BytePos, Offset, PartitionId, TimestampMs};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
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
    /// What the mark on disk says, and is synced; None: that is to be seen to.
    pub marked: Option<Mark>,
    /// The end of a checkpoint that was believed.
    pub checkpointed: Option<LogPosition>,
}

/// What is known of a folder before it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    pub id: PartitionId,
    /// The broker stopped in order, so that a scan may be spared.
    pub clean: bool,
    /// The file system of which everything that was found was synced as a whole, so that
    /// only what is changed from here on needs a sync.
    pub committed: Option<u64>,
}

/// A log's folder: what opening it needs of it.
pub type Look<I> = OpenedDir<<I as Io>::File>;

/// Looks into a log's folder. None where there is none.
pub async fn look<I: Io>(io: &I, dir: &Path, clean: bool) -> Result<Option<Look<I>>, Offline> {
    match io
        .open_dir(dir, move |entries| wanted(entries, clean))
        .await
    {
        Ok(look) => Ok(Some(look)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Offline::failed("list", dir, e)),
    }
}

fn wanted(entries: &[Entry], clean: bool) -> Vec<(String, Want)> {
    let small = [
        METADATA_FILE_NAME,
        LOG_START_FILE_NAME,
        EPOCHS_FILE_NAME,
        checkpoint::FILE_NAME,
    ];
    let mut wanted = Vec::new();
    let files = || entries.iter().filter(|e| !e.is_dir);
    for entry in files() {
        if small.contains(&&entry.name[..]) {
            wanted.push((entry.name.clone(), Want::Bytes));
        } else if entry.name == mark::FILE_NAME {
            wanted.push((entry.name.clone(), Want::File { front: BLOCK }));
        }
    }
    let newest = |extension| {
        let of = files().filter_map(|e| parse_file_name(&e.name, extension));
        of.max()
    };
    if let Some(active) = newest("log") {
        wanted.push((file_name(active, "log"), Want::File { front: 0 }));
    }
    if clean {
        for extension in ["index", "timeindex", "snapshot"] {
            let base = newest(extension);
            wanted.extend(base.map(|base| (file_name(base, extension), Want::Bytes)));
        }
    }
    wanted
}

/// Opens or makes the log in `dir`, of which `found` is what [`look`] has found.
pub async fn open<I: Io>(
    io: &I,
    dir: &Path,
    config: &LogConfig,
    before: Before,
    found: Option<Look<I>>,
) -> Result<Opened<I>, Offline> {
    let found = match found {
        Some(found) => found,
        None => {
            make_folder(io, dir).await?;
            OpenedDir {
                entries: Vec::new(),
                bytes: HashMap::new(),
                files: HashMap::new(),
            }
        }
    };
    // A folder may be a link to another file system.
    let committed = before.committed.is_some_and(|device| {
        let mark = found.files.get(mark::FILE_NAME);
        let mark = mark.and_then(|mark| mark.as_ref().ok());
        mark.is_some_and(|mark| mark.file.device().is_ok_and(|is| is == device))
    });
    let names: Vec<String> = found
        .entries
        .into_iter()
        .filter(|e| !e.is_dir)
        .map(|e| e.name)
        .collect();
    Recovery {
        io,
        dir,
        config,
        id: before.id,
        clean: before.clean,
        committed,
        names,
        bytes: RefCell::new(found.bytes),
        files: RefCell::new(found.files),
    }
    .run()
    .await
}

/// The file of the log start offset.
pub fn encode_log_start(offset: Offset) -> Vec<u8> {
    sealed_text::seal(&format!("version: 0\noffset: {offset}\n"))
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

/// How far the log is known to be committed: a checkpoint is of committed bytes too. The
/// window stays the mark's: it says how far beyond it writes may have gone.
fn furthest(mark: Option<Mark>, checkpoint: Option<&Checkpoint>) -> Option<Mark> {
    let mark = mark?;
    let Some(LogPosition {
        segment,
        pos,
        offset,
    }) = checkpoint
        .map(|c| c.end)
        .filter(|end| (end.segment, end.pos) > (mark.segment, mark.pos))
    else {
        return Some(mark);
    };
    Some(Mark {
        segment,
        pos,
        offset,
        ..mark
    })
}

struct Recovery<'a, I: Io> {
    io: &'a I,
    dir: &'a Path,
    config: &'a LogConfig,
    id: PartitionId,
    clean: bool,
    /// What was found is synced.
    committed: bool,
    names: Vec<String>,
    /// What was read and opened at the first look, until it is asked for.
    bytes: RefCell<HashMap<String, std::io::Result<Vec<u8>>>>,
    files: RefCell<HashMap<String, std::io::Result<OpenedFile<I::File>>>>,
}

impl<I: Io> Recovery<'_, I> {
    async fn run(self) -> Result<Opened<I>, Offline> {
        let log_start = self.read_log_start().await?;
        let (mark_file, marked) = self.open_mark().await?;
        let checkpoint = self.read_checkpoint().await?;
        let mark = furthest(marked, checkpoint.as_ref());
        if !self.clean && !self.committed {
            // Made by a process that was killed, the folder itself may not be committed.
            self.sync_parent().await?;
        }
        let mut bases = self.bases();
        if bases.is_empty() {
            if let Some(mark) = mark.filter(|m| m.offset > Offset::ZERO) {
                return Err(self.missing(mark));
            }
            return self.begin(log_start.unwrap_or_default(), mark_file).await;
        }
        let below = log_start.unwrap_or_default();
        let kept = bases.len() - bases.partition_point(|&base| base <= below).max(1) + 1;
        bases.drain(..bases.len() - kept);
        if let Some(mark) =
            mark.filter(|m| !bases.contains(&m.segment) && m.offset > below.max(bases[0]))
        {
            return Err(self.missing(mark));
        }
        self.remove_leftovers(&bases).await?;
        let active = bases[bases.len() - 1];
        let mut segments = BTreeMap::new();
        for pair in bases.windows(2) {
            segments.insert(pair[0], self.open_sealed(pair[0], pair[1], mark).await?);
        }
        let mut epochs = self.read_epochs().await?;
        let (mut segment, file, reach, closed) = self.open_active(active, mark).await?;
        let mut producers = None;
        let mut checkpointed = None;
        let file_len = reach.len;
        // One for all that is read from here on: it lies side by side.
        let mut window = Window::to_walk(&file, &segment.path, reach);
        let cut = if closed {
            None
        } else {
            let trusted = match checkpoint.filter(|c| c.end.segment == active) {
                // The epochs of what is not scanned must be known without it.
                Some(found) if mark.is_some() && !epochs.entries().is_empty() => {
                    self.trusted(found, &mut window).await?
                }
                _ => None,
            };
            let state = match trusted {
                Some(found) => {
                    let state;
                    checkpointed = Some(found.end);
                    (segment, state) = found.segment(self.dir, self.io.wall());
                    segment.set_file(file.clone());
                    state
                }
                // A snapshot inside of the active segment may be of a tail that is about to
                // be cut, so only those up to its base count.
                None => self.load_producers(active, &segments).await?,
            };
            let state = producers.insert(state);
            let end = self
                .scan_active(&segment, &mut window, file_len, mark, state, &mut epochs)
                .await?;
            Some(self.judge(&segment, &file, reach, end, mark).await?)
        };
        segments.insert(active, segment.clone());
        let end = segment.end();
        let file_len = match cut {
            None => file_len,
            // Room that was reserved is left as it is.
            Some(0) if self.committed => file_len,
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
            None => self.load_producers(end.offset, &segments).await?,
        };
        epochs.truncate_from_end(end.offset);
        self.remove_snapshots(&segments, end.offset).await?;
        let head = self.read_head(&segment, &mut window, end.pos).await?;
        let log_start = below.max(bases[0]).min(end.offset);
        Ok(Opened {
            segments,
            log_start,
            end,
            head,
            file_len,
            producers,
            epochs,
            mark_file,
            // Of a process that was killed, nobody knows whether its last mark was synced.
            marked: marked.filter(|_| self.clean || self.committed),
            checkpointed,
        })
    }

    /// A small file, as the first look has it.
    async fn read(&self, name: &str) -> Result<(PathBuf, Vec<u8>), Offline> {
        let path = self.dir.join(name);
        let has = self.bytes.borrow_mut().remove(name);
        let bytes = match has {
            Some(has) => has,
            None => self.io.read_file(&path).await,
        };
        let bytes = bytes.map_err(|e| Offline::failed("read", &path, e))?;
        Ok((path, bytes))
    }

    /// The checkpoint that was taken last, of whatever segment.
    async fn read_checkpoint(&self) -> Result<Option<Checkpoint>, Offline> {
        if !self.names.iter().any(|n| n == checkpoint::FILE_NAME) {
            return Ok(None);
        }
        let (path, bytes) = self.read(checkpoint::FILE_NAME).await?;
        let found = Checkpoint::decode(&bytes).filter(|found| found.id == self.id);
        if found.is_none() {
            log::warn!(
                "{}: not whole, or of another partition, as a power cut may leave it, or of another version; the newest segment is scanned from its front",
                path.display()
            );
        }
        Ok(found)
    }

    /// The checkpoint, where the segment ends there as it says (checkpoint.rs).
    async fn trusted(
        &self,
        found: Checkpoint,
        window: &mut Window<I::File>,
    ) -> Result<Option<Checkpoint>, Offline> {
        let range = checkpoint::last_block(found.end.pos);
        let len = (range.end - range.start) as usize;
        // Less of it, where the file ends before: the scan says that committed bytes are
        // missing, and from where on.
        let bytes = window.get(range.start, len).await?;
        Ok(found.ends_with(bytes).then_some(found))
    }

    fn bases(&self) -> Vec<Offset> {
        let mut bases: Vec<Offset> = self
            .names
            .iter()
            .filter_map(|n| parse_file_name(n, "log"))
            .collect();
        bases.sort_unstable();
        bases
    }

    /// Removes what retention or a crash has left behind: segments that end at or below
    /// the log start, oldest first, and files of segments that are not there.
    async fn remove_leftovers(&self, kept: &[Offset]) -> Result<(), Offline> {
        let gone = |name: &&String| {
            name.ends_with(".tmp")
                || ["log", "index", "timeindex"].iter().any(|extension| {
                    parse_file_name(name, extension).is_some_and(|base| !kept.contains(&base))
                })
        };
        for name in self.names.iter().filter(gone) {
            self.remove(name).await?;
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), Offline> {
        let path = self.dir.join(name);
        let removed = self.io.remove_file(&path).await;
        removed.map_err(|e| Offline::failed("remove", path, e))
    }

    async fn sync_parent(&self) -> Result<(), Offline> {
        match self.dir.parent() {
            Some(parent) => self
                .io
                .sync_dir(parent)
                .await
                .map_err(|e| Offline::failed("sync", parent, e)),
            None => Ok(()),
        }
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
            checkpointed: None,
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
            let has = self.files.borrow_mut().remove(mark::FILE_NAME);
            let opened = match has {
                Some(has) => has,
                None => unreachable!("the first look opens a mark that it sees"),
            };
            let opened = opened.map_err(|e| Offline::failed("open", &path, e))?;
            let (file, bytes) = (opened.file, opened.front);
            let mark = Mark::decode(&bytes);
            if mark.is_none() && !is_zero(&bytes) {
                log::warn!(
                    "{}: damaged; how far the log was committed is not known",
                    path.display()
                );
            }
            return Ok((Rc::new(file), mark));
        }
        let failed = |e| Offline::failed("create", &path, e);
        let file = self.io.open(&path, Open::New).await.map_err(failed)?;
        // Written once and synced, so that later writes find their block and cost no
        // metadata. Zeros are no mark.
        let mut zeros = self.io.alloc(BLOCK);
        zeros.as_mut().fill(0);
        write_whole(self.io, &file, Rc::new(zeros), 0)
            .await
            .map_err(failed)?;
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
        let bounds = SegmentBounds {
            base_offset: base,
            next_offset: next,
            end: BytePos(len),
        };
        let times = match index_files::read(self.io, self.dir, &file, bounds).await? {
            Some(indexes) => indexes.times,
            None => {
                let interval = self.config.index_interval_bytes;
                let rebuilt =
                    index_files::rebuild(self.io, self.dir, &file, bounds, interval).await?;
                index_files::save(self.io, self.dir, base, &rebuilt).await;
                rebuilt.times
            }
        };
        let largest = times.last().unwrap_or((TimestampMs::NONE, base));
        let now = self.io.wall();
        Ok(Segment::sealed(self.dir, base, len, next, largest, now))
    }

    /// The newest snapshot not above `upto`, brought forward to there through the segments
    /// given.
    async fn load_producers(
        &self,
        upto: Offset,
        segments: &BTreeMap<Offset, Rc<Segment<I>>>,
    ) -> Result<ProducerState, Offline> {
        // From the first batch that is there, whether DeleteRecords hides it or not: a
        // producer may still ask about it. An older snapshot would have a hole behind it:
        // better to know nothing of a producer than that it is where it was long ago.
        let begin = segments.keys().next().copied().unwrap_or(upto);
        let mut snapshots: Vec<Offset> = self
            .names
            .iter()
            .filter_map(|n| parse_file_name(n, "snapshot"))
            .filter(|&at| begin <= at && at <= upto)
            .collect();
        snapshots.sort_unstable();
        let mut state = None;
        for at in snapshots.into_iter().rev() {
            let (path, bytes) = self.read(&file_name(at, "snapshot")).await?;
            match ProducerState::decode_snapshot(&bytes) {
                // Of another time or another log: what it knows is not of this offset.
                Ok(found) if found.next_offset() > at => log::warn!(
                    "{}: it says that it was made at offset {}; an older one or the log itself is used",
                    path.display(),
                    found.next_offset()
                ),
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
        let mut state = state.unwrap_or_else(|| ProducerState::new(begin));
        for segment in segments.values() {
            if segment.end().offset <= state.next_offset() || segment.base >= upto {
                continue;
            }
            let file = match segment.file() {
                Some(file) => file,
                None => self.open_existing(&segment.path).await?,
            };
            let next = state.next_offset();
            let stretch = Stretch {
                base: segment.base,
                pos: BytePos::ZERO,
                next: segment.base,
                below: Some(segment.end().offset),
            };
            let len = segment.size_bytes();
            let mut window = Window::to_walk(&file, &segment.path, Reach::of(len));
            let end = walk(&mut window, len, stretch, |header, _| {
                if header.base_offset() >= next && header.base_offset() < upto {
                    state.apply(header);
                }
            })
            .await?;
            if let Some(fault) = end.fault {
                return Err(Offline::corrupt(&segment.path, end.pos, fault));
            }
        }
        state.advance_to(upto);
        Ok(state)
    }

    /// Keeps the snapshots where segments begin and the newest one that is of this log.
    async fn remove_snapshots(
        &self,
        segments: &BTreeMap<Offset, Rc<Segment<I>>>,
        end: Offset,
    ) -> Result<(), Offline> {
        let all = self.names.iter().filter_map(|name| {
            let at = parse_file_name(name, "snapshot")?;
            Some((at, name))
        });
        let newest = all.clone().map(|(at, _)| at).filter(|&at| at <= end).max();
        for (at, name) in all {
            if !segments.contains_key(&at) && Some(at) != newest {
                self.remove(name).await?;
            }
        }
        Ok(())
    }

    async fn read_log_start(&self) -> Result<Option<Offset>, Offline> {
        if !self.names.iter().any(|n| n == LOG_START_FILE_NAME) {
            return Ok(None);
        }
        let (path, bytes) = self.read(LOG_START_FILE_NAME).await?;
        let offset = match sealed_text::open(&bytes) {
            Ok((lines, true)) => lines
                .lines()
                .find_map(|line| line.strip_prefix("offset: "))
                .and_then(|offset| offset.parse().ok())
                .filter(|&offset| offset >= 0)
                .ok_or_else(|| "expected a line 'offset: ' with a number".to_owned()),
            Ok((_, false)) => Err("its last line, the checksum, is missing".to_owned()),
            Err(what) => Err(what),
        };
        match offset {
            Ok(offset) => Ok(Some(Offset(offset))),
            Err(what) => Err(Offline::corrupt(
                path,
                BytePos::ZERO,
                format!(
                    "{what}; write the log start offset anew or remove the file, then the log starts at its first record"
                ),
            )),
        }
    }

    async fn read_epochs(&self) -> Result<LeaderEpochs, Offline> {
        if !self.names.iter().any(|n| n == EPOCHS_FILE_NAME) {
            return Ok(LeaderEpochs::default());
        }
        let (path, bytes) = self.read(EPOCHS_FILE_NAME).await?;
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
