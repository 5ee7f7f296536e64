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
//! | the segment has the bytes | written, perhaps not synced | synced |
//! | the segment has other bytes, or none | lost by the power cut | written, synced |
//! | it has bytes that are no older ones either | damage, of which the journal has the right bytes | written, synced, with a warning |
//!
//! An error leaves all files as they are, and says which file and byte; who gives up what
//! is there moves that file away.

use super::layout::{self, Entry, FOLDER, Found, Header, decode_group};
use crate::batch::is_zero;
use crate::error::Offline;
use crate::io::{BLOCK, Buf, File, Io, Open, OpenedFile, SECTOR, write_whole};
use crate::mark::{self, Mark};
use crate::recovery;
use crate::scan::{Reach, Window};
use crate::segment::{file_name, parse_file_name};
use crate::store::{METADATA_FILE_NAME, topic_id};
use crate::units::{BytePos, PartitionId, ShardId};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Partitions at a time.
const CONCURRENT: usize = 32;

/// Bytes read, compared and written at a time.
const STEP_BYTES: usize = 1 << 20;

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

/// Brings the segments up to what the journals hold, and retires the journals. Files of
/// shards that are no more, with `shards` of them, are removed.
///
/// Some: of that file system everything that is found from here on is synced, also what a
/// killed process had only written.
pub async fn replay<I: Io>(
    io: &I,
    data: &Path,
    shards: usize,
    config: ReplayConfig,
) -> Result<Option<u64>, Offline> {
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
        if let Some(header) = header.filter(|h| h.used) {
            held.push(Held {
                path,
                shard,
                file,
                header,
            });
        }
    }
    held.sort_by_key(|h: &Held<I>| (h.shard, h.header.generation));
    let brought = RefCell::new(Vec::new());
    for one in &held {
        // What a killed process wrote last may not be synced, and is read all the same. The
        // mark that is about to say that it is committed may outlive a power cut that the
        // segment's bytes do not: then they must still be here.
        let synced = one.file.fdatasync().await;
        synced.map_err(|e| Offline::failed("sync", &one.path, e))?;
        let groups = counted.get(&(one.shard, one.header.generation)).copied();
        replay_file(io, data, one, groups, &brought).await?;
    }
    let all = !config.clean && count_folders(io, data).await? >= config.sync_all_from;
    let committed = commit(io, data, brought.into_inner(), all).await?;
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
    Ok(committed)
}

async fn count_folders<I: Io>(io: &I, data: &Path) -> Result<usize, Offline> {
    match io.read_dir(data).await {
        Ok(entries) => Ok(entries.iter().filter(|e| e.is_dir).count()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
        Err(e) => Err(Offline::failed("list", data, e)),
    }
}

/// A file that has what the journals had of it, to be synced before those are retired.
struct Brought<I: Io> {
    path: PathBuf,
    file: Rc<I::File>,
}

/// Syncs what was brought; with `all`, where the file system can do it, together with all
/// else on it. Then it says which one that is.
async fn commit<I: Io>(
    io: &I,
    data: &Path,
    brought: Vec<Brought<I>>,
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
    stream::iter(brought)
        .map(Ok)
        .try_for_each_concurrent(CONCURRENT, |Brought { path, file }| async move {
            // A folder may be a link to another file system.
            let device = file.device();
            let device = device.map_err(|e| Offline::failed("look at", &path, e))?;
            if Some(device) == committed {
                return Ok(());
            }
            let synced = file.fdatasync().await;
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

fn damaged(path: &Path, at: usize, what: &str) -> Offline {
    Offline::corrupt(
        path,
        BytePos(at as u64),
        format!(
            "{what}; acknowledged records may be in it that their segments do not have. Restore the file, or move it away to give up what only it has"
        ),
    )
}

async fn replay_file<I: Io>(
    io: &I,
    data: &Path,
    held: &Held<I>,
    groups: Option<u64>,
    brought: &RefCell<Vec<Brought<I>>>,
) -> Result<(), Offline> {
    let bytes = read_whole(&held.file, &held.path).await?;
    let entries = parse(&bytes, held.header.generation, groups)
        .map_err(|(at, what)| damaged(&held.path, at, &what))?;
    if entries.is_empty() {
        return Ok(());
    }
    let mut by_partition: BTreeMap<PartitionId, Vec<Entry>> = BTreeMap::new();
    for entry in entries {
        by_partition.entry(entry.place.id).or_default().push(entry);
    }
    log::info!(
        "{}: records of {} partitions are brought to their segments",
        held.path.display(),
        by_partition.len()
    );
    let bytes = &bytes;
    stream::iter(by_partition)
        .map(Ok)
        .try_for_each_concurrent(CONCURRENT, |(id, entries)| async move {
            bring(io, data, id, entries, bytes, brought).await
        })
        .await
}

async fn read_whole<F: File>(file: &Rc<F>, path: &Path) -> Result<Vec<u8>, Offline> {
    let len = file.len().await;
    let len = len.map_err(|e| Offline::failed("measure", path, e))?;
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
    let mut window = Window::new(file.clone(), path, Reach::of(len), STEP_BYTES);
    while (bytes.len() as u64) < len {
        let step = window.get(bytes.len() as u64, STEP_BYTES).await?;
        if step.is_empty() {
            break;
        }
        bytes.extend_from_slice(step);
    }
    Ok(bytes)
}

/// The entries of a file's groups, in order. `groups`: how many there must be, where that
/// is known. Err: where it is damaged, and how.
pub(super) fn parse(
    file: &[u8],
    generation: u64,
    groups: Option<u64>,
) -> Result<Vec<Entry>, (usize, String)> {
    let mut entries = Vec::new();
    let (mut at, mut number) = (BLOCK, 0);
    loop {
        match decode_group(file, at, generation) {
            (Found::Whole(group), is) if is == number => {
                entries.extend(group.entries);
                at += layout::group_room(group.len);
                number += 1;
                continue;
            }
            _ => {}
        }
        if groups.is_some_and(|groups| number < groups) {
            let what = format!(
                "its groups end with number {number}, and a file that was written later says that there were more"
            );
            return Err((at, what));
        }
        // A group is written once the one before it was synced.
        let mut behind = at + BLOCK;
        while behind < file.len() {
            let (found, is) = decode_group(file, behind, generation);
            if !matches!(found, Found::Nothing) && is > number {
                let what = format!(
                    "group {number} is not whole, and group {is}, at byte {behind}, was written after it was synced"
                );
                return Err((at, what));
            }
            behind += BLOCK;
        }
        return Ok(entries);
    }
}

/// Bytes of a segment that lie side by side.
struct Run {
    pos: u64,
    bytes: Vec<u8>,
}

/// Brings one partition's segment up to its entries.
async fn bring<I: Io>(
    io: &I,
    data: &Path,
    id: PartitionId,
    entries: Vec<Entry>,
    file: &[u8],
    brought: &RefCell<Vec<Brought<I>>>,
) -> Result<(), Offline> {
    let folder = entries[0].place.folder.clone();
    let dir = data.join(&*folder);
    // Of the same names as recovery, which looks after this.
    let mut found = recovery::look(io, &dir, false).await?;
    let is = match &mut found {
        Some(found) => topic_id(&dir, found.bytes.remove(METADATA_FILE_NAME))?,
        None => None,
    };
    let Some(mut found) = found.filter(|_| is.map(|(topic, _)| topic) == Some(id.topic)) else {
        log::info!(
            "{}: of another topic than {}, or gone; what the journal has of that one is skipped",
            dir.display(),
            id.topic
        );
        return Ok(());
    };
    let newest = found
        .entries
        .iter()
        .filter(|e| !e.is_dir)
        .filter_map(|e| parse_file_name(&e.name, "log"))
        .max();
    let last = entries
        .last()
        .expect("a partition with entries")
        .place
        .clone();
    let path = dir.join(file_name(last.segment, "log"));
    if newest.is_none_or(|newest| newest < last.segment) {
        return Err(Offline::corrupt(
            path,
            last.pos,
            format!(
                "records up to offset {} were committed to it, and it is missing",
                last.to
            ),
        ));
    }
    if newest != Some(last.segment) {
        return Ok(());
    }
    let mut runs: Vec<Run> = Vec::new();
    for entry in entries.iter().filter(|e| e.place.segment == last.segment) {
        let bytes = &file[entry.bytes.clone()];
        let pos = entry.place.pos.0;
        match runs.last_mut() {
            Some(run) if run.pos + run.bytes.len() as u64 == pos => {
                run.bytes.extend_from_slice(bytes);
            }
            _ => runs.push(Run {
                pos,
                bytes: bytes.to_vec(),
            }),
        }
    }
    let opened = found.files.remove(&file_name(last.segment, "log"));
    let opened = opened.unwrap_or_else(|| unreachable!("the look opens the newest segment"));
    let OpenedFile { file, data_end, .. } =
        opened.map_err(|e| Offline::failed("open", &path, e))?;
    let segment = Rc::new(file);
    for run in &runs {
        bring_run(io, &path, &segment, data_end, run).await?;
    }
    brought.borrow_mut().push(Brought {
        path,
        file: segment,
    });
    let end = Mark {
        segment: last.segment,
        pos: last
            .pos
            .plus(entries.last().map_or(0, |e| e.bytes.len()) as u64),
        offset: last.to,
        window: 0,
    };
    let mark = found.files.remove(mark::FILE_NAME);
    let path = dir.join(mark::FILE_NAME);
    let mark = mark.transpose();
    let Some(mark) = mark.map_err(|e| Offline::failed("open", &path, e))? else {
        return Ok(());
    };
    let file = bring_mark(io, &path, mark, end).await?;
    brought
        .borrow_mut()
        .extend(file.map(|file| Brought { path, file }));
    Ok(())
}

async fn bring_run<I: Io>(
    io: &I,
    path: &Path,
    segment: &Rc<I::File>,
    data_end: u64,
    run: &Run,
) -> Result<(), Offline> {
    let len = segment.len().await;
    let len = len.map_err(|e| Offline::failed("measure", path, e))?;
    if len < run.pos {
        return Err(Offline::corrupt(
            path,
            BytePos(len),
            format!(
                "the file ends here, and the journal goes on at byte {}",
                run.pos
            ),
        ));
    }
    let (block, end) = (BLOCK as u64, run.pos + run.bytes.len() as u64);
    let mut start = run.pos / block * block;
    while start < end {
        let upto = end.next_multiple_of(block).min(start + STEP_BYTES as u64);
        let (from, to) = (run.pos.max(start), end.min(upto));
        let wanted = &run.bytes[(from - run.pos) as usize..(to - run.pos) as usize];
        let size = (upto - start) as usize;
        // What was never written is not read.
        let has = match start < data_end {
            true => {
                let has = segment.read_at(start, size).await;
                Some(has.map_err(|e| Offline::failed("read", path, e))?)
            }
            false => None,
        };
        let has_bytes = has.as_deref().unwrap_or_default();
        let place = (from - start) as usize..(to - start) as usize;
        if has_bytes.get(place.clone()) != Some(wanted) {
            let there =
                &has_bytes[place.start.min(has_bytes.len())..place.end.min(has_bytes.len())];
            if let Some(byte) = first_damaged(there, wanted, from) {
                log::warn!(
                    "{}: damaged at byte {byte}; put right with what the journal has of it",
                    path.display()
                );
            }
            // What else is in the first and the last block stays as it is.
            let mut buf = io.alloc(size);
            let out = buf.as_mut();
            out.fill(0);
            out[..has_bytes.len()].copy_from_slice(has_bytes);
            out[place].copy_from_slice(wanted);
            drop(has);
            let written = write_whole(io, segment, Rc::new(buf), start).await;
            written.map_err(|e| Offline::failed("write", path, e))?;
        }
        start = upto;
    }
    Ok(())
}

/// Where bytes that begin at `pos` in their file are first not what they are to be, in a
/// sector that no lost write explains: one that a power cut left out is what it was before,
/// the front of what it is to be, and zeros.
fn first_damaged(has: &[u8], wanted: &[u8], pos: u64) -> Option<u64> {
    let (len, mut at) = (has.len().min(wanted.len()), 0);
    while at < len {
        let upto = (at + SECTOR - (pos as usize + at) % SECTOR).min(len);
        let pairs = has[at..upto].iter().zip(&wanted[at..upto]);
        at += pairs.take_while(|(has, wanted)| has == wanted).count();
        if !is_zero(&has[at..upto]) {
            return Some(pos + at as u64);
        }
        at = upto;
    }
    None
}

/// The mark says no less than the journal did: what is damaged below it from now on is no
/// torn tail.
async fn bring_mark<I: Io>(
    io: &I,
    path: &Path,
    found: OpenedFile<I::File>,
    end: Mark,
) -> Result<Option<Rc<I::File>>, Offline> {
    let file = Rc::new(found.file);
    let Some(is) = Mark::decode(&found.front).filter(|is| is.offset < end.offset) else {
        return Ok(None);
    };
    let mut block = io.alloc(BLOCK);
    let mark = Mark {
        window: is.window,
        ..end
    };
    mark.encode(block.as_mut());
    write_whole(io, &file, Rc::new(block), 0)
        .await
        .map_err(|e| Offline::failed("write", path, e))?;
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_power_cut_left_out_is_told_from_damage() {
        let wanted: Vec<u8> = (0..2000u32).map(|n| (n % 251) as u8 | 1).collect();
        let first = |has: &[u8]| first_damaged(has, &wanted, 5000);
        assert_eq!(first(&wanted), None);
        assert_eq!(first(&[]), None, "the file ends before");
        assert_eq!(first(&[0; 2000]), None, "nothing of it was written");
        // Sectors begin at 5120, 5632, 6144, 6656 of the file.
        let mut older = wanted.clone();
        older[700..].fill(0);
        older[..120].copy_from_slice(&wanted[..120]);
        assert_eq!(first(&older), None, "a block as it was before");
        older[1144..1656].copy_from_slice(&wanted[1144..1656]);
        assert_eq!(first(&older), None, "one sector of what came later");
        for at in [0, 119, 120, 699, 1200] {
            let mut flipped = older.clone();
            flipped[at] ^= 2;
            assert_eq!(first(&flipped), Some(5000 + at as u64));
        }
        older[1800] = 1;
        assert_eq!(
            first(&older),
            Some(6656),
            "a sector that was not written, and is not zeros"
        );
    }
}
