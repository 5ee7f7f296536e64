//! What a start makes of the journals that a crash has left.
//!
//! ```text
//!   every file, synced, oldest use first:  groups -> entries by partition -> written where
//!   they are missing, and marked as committed -> synced
//!   then every file is retired: its header says that nothing in it counts
//! ```
//!
//! It runs once, before any partition is opened and before any shard's journal is: the
//! number of shards may have changed since. Until every file is retired no segment is
//! changed by anyone else, so a crash in the middle is made good by doing it all again.
//!
//! | what is found | what it means | what happens |
//! |---|---|---|
//! | no file, a header of zeros, a header that says unused | nothing counts | nothing |
//! | no whole group at the end of the newest file, none of its generation behind | torn, never acknowledged | ends there |
//! | a bad group, a whole one of the same generation behind it | it was synced: damage | error, nothing is opened |
//! | a file that ends before the group that a later file says was its last | it was synced: damage | error, nothing is opened |
//! | a bad header | a header is one sector, never torn: damage | error, nothing is opened |
//! | an entry of a folder that is gone, or is of another topic id | deleted | skipped |
//! | an entry of a segment that has a successor | a segment with a successor was synced whole | skipped |
//! | an entry of a segment that is gone, no newer one there | damage | error |
//! | the segment ends before the entry begins | bytes that were synced are gone | error |
//! | the segment has the bytes, as the entry's CRC says | written, perhaps not synced | synced |
//! | the segment has other bytes, or none | lost by the power cut | written, synced |
//! | it has bytes that are no older ones either | damage, of which the journal has the right bytes | written, synced, with a warning |
//!
//! An error leaves all files as they are, and says which file and byte; who gives up what
//! is there moves that file away.

mod brought;
mod groups;
mod segment;

pub(crate) use brought::KnownFolder;

use super::layout::{self, FOLDER, Header, Place};
use crate::error::Offline;
use crate::io::{BLOCK, Buf, File, Io, Open, write_whole};
use crate::segment::LogPosition;
use crate::units::{BytePos, Offset, PartitionId, ShardId};
use brought::{Brought, find};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use groups::EntryBytes;
use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Partitions at a time.
const CONCURRENT: usize = 32;

/// What a journal of a file holds.
struct Held<I: Io> {
    path: PathBuf,
    shard: ShardId,
    file: Rc<I::File>,
    header: Header,
}

/// How [`replay`] syncs.
#[derive(Clone, Copy, Debug)]
pub struct ReplayConfig {
    /// The broker stopped in order, and closed what was open.
    pub clean: bool,
    /// So many folders in DATA are synced as a whole file system.
    pub sync_all_from: usize,
}

/// What a start knows once the journals were replayed.
pub struct Replayed<I: Io> {
    /// Some: of that file system everything that is found from here on is synced, also what
    /// a killed process had only written.
    pub committed: Option<u64>,
    /// The folders that were looked into, as they are now: who opens one need not look again.
    looks: HashMap<PartitionId, KnownFolder<I>>,
}

impl<I: Io> Replayed<I> {
    /// Lets go of what is of other partitions.
    pub fn keep(&mut self, wanted: impl Fn(PartitionId) -> bool) {
        self.looks.retain(|id, _| wanted(*id));
    }

    pub(crate) fn into_looks(self) -> HashMap<PartitionId, KnownFolder<I>> {
        self.looks
    }
}

/// Where an entry belongs, and where its bytes are.
struct Noted {
    from: LogPosition,
    to: Offset,
    /// Which of the journals' files has it.
    file: usize,
    bytes: EntryBytes,
}

impl Noted {
    /// Where it ends in its segment.
    fn end(&self) -> u64 {
        self.from.pos.0 + self.bytes.len as u64
    }
}

/// What the journals have of a partition, as it was met: in the order in which it was written
/// by one shard. Of shards that had it before the number of shards changed, files that were
/// long retired may be back after a power cut, whose retiring no sync had seen.
struct Part {
    folder: Rc<str>,
    entries: Vec<Noted>,
}

/// An entry that a segment lacks: of which partition, and where its bytes go among those
/// that are fetched for it.
struct Missing {
    part: usize,
    to: usize,
    file: usize,
    bytes: EntryBytes,
}

/// Brings the segments up to what the journals hold, and retires the journals. Files of
/// shards that are no more, with `shards` of them, are removed.
///
/// It goes through the journals twice: once to know what they have, and where segments lack
/// something, which the entries' CRCs tell, once more for the bytes of that. Most often
/// that is the last second's.
pub async fn replay<I: Io>(
    io: &I,
    data: &Path,
    shards: usize,
    config: ReplayConfig,
) -> Result<Replayed<I>, Offline> {
    let dir = data.join(FOLDER);
    let mut held = Vec::new();
    let mut surplus = Vec::new();
    let mut counted = BTreeMap::new();
    for (shard, _, path) in list(io, &dir).await? {
        if usize::from(shard.0) >= shards {
            surplus.push(path.clone());
        }
        let (file, header) = open_file::<I>(io, &path).await?;
        // It says so of other files also where nothing of its own counts.
        let earlier = header.iter().flat_map(|header| header.earlier.clone());
        counted.extend(earlier.map(|(generation, groups)| ((shard, generation), groups)));
        match header {
            Some(header) if header.used => held.push(Held {
                path,
                shard,
                file,
                header,
            }),
            // A killed process may have written that last, and not synced it: after a power
            // cut the file would count again, beside others that were written since.
            Some(_) if !config.clean => {
                let synced = file.fdatasync().await;
                synced.map_err(|e| Offline::failed("sync", &path, e))?;
            }
            _ => {}
        }
    }
    held.sort_by_key(|h: &Held<I>| (h.shard, h.header.generation));
    let mut parts = BTreeMap::new();
    for (n, one) in held.iter().enumerate() {
        // What a killed process wrote last may not be synced, and is read all the same. The
        // mark that is about to say that it is committed may outlive a power cut that the
        // segment's bytes do not: then they must still be here.
        let synced = one.file.fdatasync().await;
        synced.map_err(|e| Offline::failed("sync", &one.path, e))?;
        let groups = counted.get(&(one.shard, one.header.generation)).copied();
        groups::read(one, groups, |place, bytes| {
            note(&mut parts, place, n, bytes)
        })
        .await?;
    }
    let mut brought = compare(io, data, config.clean, parts).await?;
    fetch(&held, &mut brought).await?;
    let behind = brought.iter_mut();
    stream::iter(behind.map(Ok))
        .try_for_each_concurrent(CONCURRENT, |one| one.bring(io))
        .await?;
    let all = !config.clean && count_folders(io, data).await? >= config.sync_all_from;
    let committed = commit(io, data, &brought, all).await?;
    for one in &held {
        retire(io, &one.file, &one.path, one.header.generation, Vec::new()).await?;
    }
    drop(held);
    if !surplus.is_empty() {
        for path in surplus {
            let removed = io.remove_file(&path).await;
            removed.map_err(|e| Offline::failed("remove", path, e))?;
        }
        let synced = io.sync_dir(&dir).await;
        synced.map_err(|e| Offline::failed("sync", dir, e))?;
    }
    Ok(Replayed {
        committed,
        looks: brought
            .into_iter()
            .map(|one| (one.id, one.folder))
            .collect(),
    })
}

fn note(parts: &mut BTreeMap<PartitionId, Part>, place: Place, file: usize, bytes: EntryBytes) {
    let part = parts.entry(place.id).or_insert_with(|| Part {
        folder: place.folder,
        entries: Vec::new(),
    });
    part.entries.push(Noted {
        from: LogPosition {
            segment: place.segment,
            pos: place.pos,
            offset: place.from,
        },
        to: place.to,
        file,
        bytes,
    });
}

/// Looks into the partitions' folders, and at what of the journals their segments have.
async fn compare<I: Io>(
    io: &I,
    data: &Path,
    clean: bool,
    parts: BTreeMap<PartitionId, Part>,
) -> Result<Vec<Brought<I>>, Offline> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    log::info!(
        "{}: has records of {} partitions, which are brought to their segments",
        data.join(FOLDER).display(),
        parts.len()
    );
    let found: Vec<Option<Brought<I>>> = stream::iter(parts)
        .map(|(id, part)| async move {
            let found = find(io, data, clean, id, part).await?;
            match found {
                Some(mut found) => {
                    found.compare().await?;
                    Ok(Some(found))
                }
                None => Ok(None),
            }
        })
        .buffered(CONCURRENT)
        .try_collect()
        .await?;
    Ok(found.into_iter().flatten().collect())
}

/// Gives the partitions the bytes that their segments lack.
async fn fetch<I: Io>(held: &[Held<I>], brought: &mut [Brought<I>]) -> Result<(), Offline> {
    let mut missing = Vec::new();
    for (part, one) in brought.iter_mut().enumerate() {
        let mut to = 0;
        for entry in one.missing.iter().map(|&entry| &one.entries[entry]) {
            missing.push(Missing {
                part,
                to,
                file: entry.file,
                bytes: entry.bytes,
            });
            to += entry.bytes.len;
        }
        one.fetched = vec![0; to];
    }
    missing.sort_unstable_by_key(|m| (m.file, m.bytes.at));
    for of_one in missing.chunk_by(|a, b| a.file == b.file) {
        let held = &held[of_one[0].file];
        groups::fetch(held, of_one, |m, bytes| {
            brought[m.part].fetched[m.to..m.to + bytes.len()].copy_from_slice(bytes);
        })
        .await?;
    }
    Ok(())
}

async fn count_folders<I: Io>(io: &I, data: &Path) -> Result<usize, Offline> {
    match io.read_dir(data).await {
        Ok(entries) => Ok(entries.iter().filter(|e| e.is_dir).count()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(Offline::failed("list", data, e)),
    }
}

/// Syncs what was brought; with `all`, where the file system can do it, together with all
/// else on it. Then it says which one that is.
async fn commit<I: Io>(
    io: &I,
    data: &Path,
    brought: &[Brought<I>],
    all: bool,
) -> Result<Option<u64>, Offline> {
    let mut committed = None;
    if all {
        match io.sync_all(data).await {
            Ok(()) => {
                let device = io.device(data).await;
                committed = Some(device.map_err(|e| Offline::failed("look at", data, e))?);
            }
            Err(e) if e.kind() == ErrorKind::Unsupported => {}
            Err(e) => return Err(Offline::failed("sync all of", data, e)),
        }
    }
    let files = brought.iter().flat_map(Brought::changed);
    stream::iter(files.map(Ok))
        .try_for_each_concurrent(CONCURRENT, |(path, opened)| async move {
            // A folder may be a link to another file system.
            let device = opened.file.device();
            let device = device.map_err(|e| Offline::failed("look at", &path, e))?;
            if Some(device) == committed {
                return Ok(());
            }
            let synced = opened.file.fdatasync().await;
            synced.map_err(|e| Offline::failed("sync", &path, e))
        })
        .await?;
    Ok(committed)
}

async fn list<I: Io>(io: &I, dir: &Path) -> Result<Vec<(ShardId, u32, PathBuf)>, Offline> {
    let entries = match io.read_dir(dir).await {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Offline::failed("list", dir, e)),
    };
    let files = entries.into_iter().filter(|e| !e.is_dir).filter_map(|e| {
        let (shard, number) = layout::parse_file_name(&e.name)?;
        Some((shard, number, dir.join(e.name)))
    });
    Ok(files.collect())
}

/// One shard's files, with their numbers.
pub(super) async fn files_of<I: Io>(
    io: &I,
    dir: &Path,
    shard: ShardId,
) -> Result<Vec<(u32, PathBuf)>, Offline> {
    let all = list(io, dir).await?;
    let own = all.into_iter().filter(|(of, _, _)| *of == shard);
    Ok(own.map(|(_, number, path)| (number, path)).collect())
}

pub(super) async fn open_file<I: Io>(
    io: &I,
    path: &Path,
) -> Result<(Rc<I::File>, Option<Header>), Offline> {
    let file = io.open(path, Open::Existing).await;
    let file = file.map_err(|e| Offline::failed("open", path, e))?;
    let block = file.read_at(0, BLOCK).await;
    let block = block.map_err(|e| Offline::failed("read", path, e))?;
    let header = Header::decode(&block).map_err(|what| damaged(path, 0, &what))?;
    Ok((Rc::new(file), header))
}

/// Says that nothing in a file counts, from now on and after any crash.
pub(super) async fn retire<I: Io>(
    io: &I,
    file: &Rc<I::File>,
    path: &Path,
    generation: u64,
    earlier: Vec<(u64, u64)>,
) -> Result<(), Offline> {
    let header = Header {
        generation,
        used: false,
        earlier,
    };
    write_header(io, file, path, header).await
}

/// Writes and syncs a file's header.
pub(super) async fn write_header<I: Io>(
    io: &I,
    file: &Rc<I::File>,
    path: &Path,
    header: Header,
) -> Result<(), Offline> {
    let mut block = io.alloc(BLOCK);
    header.encode(block.as_mut());
    write_whole(io, file, Rc::new(block), 0)
        .await
        .map_err(|e| Offline::failed("write", path, e))?;
    file.fdatasync()
        .await
        .map_err(|e| Offline::failed("sync", path, e))
}

fn damaged(path: &Path, at: u64, what: &str) -> Offline {
    Offline::corrupt(
        path,
        BytePos(at),
        format!(
            "{what}; acknowledged records may be in it that their segments do not have. Restore the file, or move it away to give up what only it has"
        ),
    )
}
