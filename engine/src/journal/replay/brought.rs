//! A partition whose newest segment is to have what the journals have of it.
//!
//! ```text
//!   find        its folder is looked into, and the segment is the one that the entries are of
//!   compare     which entries the segment lacks
//!   fetched     their bytes, read from the journals for all partitions together
//!   bring       written, and the mark with them; to be synced
//! ```

use super::{Noted, Part, segment};
use crate::error::Offline;
use crate::io::{BLOCK, Buf, Io, OpenedDir, OpenedFile, write_whole};
use crate::mark::{self, Mark};
use crate::recovery::{self, Look};
use crate::segment::{file_name, parse_file_name};
use crate::store::{METADATA_FILE_NAME, topic_id};
use crate::units::{BytePos, PartitionId};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// A partition's folder, of which nothing has changed since it was looked into.
pub(crate) struct KnownFolder<I: Io> {
    pub name: Rc<str>,
    pub look: Look<I>,
    /// Its topic's id is under a checksum.
    pub sealed_id: bool,
}

/// See the module.
pub(super) struct Brought<I: Io> {
    pub id: PartitionId,
    dir: PathBuf,
    pub folder: KnownFolder<I>,
    /// The segment's file.
    log: String,
    /// What belongs in it.
    pub entries: Vec<Noted>,
    /// Those that it lacks.
    pub missing: Vec<usize>,
    /// Their bytes, one behind another.
    pub fetched: Vec<u8>,
    /// The mark's file was written.
    marked: bool,
}

/// Looks for the segment that a partition's entries belong in. None where there is nothing
/// to do.
pub(super) async fn find<I: Io>(
    io: &I,
    data: &Path,
    clean: bool,
    id: PartitionId,
    part: Part,
) -> Result<Option<Brought<I>>, Offline> {
    let dir = data.join(&*part.folder);
    // Of the same names as recovery, which looks after this.
    let mut look = recovery::look(io, &dir, clean).await?;
    let is = match &mut look {
        Some(look) => topic_id(&dir, look.bytes.remove(METADATA_FILE_NAME))?,
        None => None,
    };
    let (look, sealed_id) = match (look, is) {
        (Some(look), Some((topic, sealed))) if topic == id.topic => (look, sealed),
        _ => {
            log::info!(
                "{}: of another topic than {}, or gone; what the journal has of that one is skipped",
                dir.display(),
                id.topic
            );
            return Ok(None);
        }
    };
    let files = look.entries.iter().filter(|e| !e.is_dir);
    let newest = files.filter_map(|e| parse_file_name(&e.name, "log")).max();
    let mut entries = part.entries;
    entries.sort_by_key(|entry| (entry.from.segment, entry.from.pos));
    let last = entries.last().expect("a partition with entries");
    let base = last.from.segment;
    let log = file_name(base, "log");
    if newest.is_none_or(|newest| newest < base) {
        return Err(Offline::corrupt(
            dir.join(log),
            last.from.pos,
            format!(
                "records up to offset {} were committed to it, and it is missing",
                last.to
            ),
        ));
    }
    // A segment with a successor was synced whole.
    entries.retain(|e| e.from.segment == base && newest == Some(base));
    Ok(Some(Brought {
        id,
        dir,
        folder: KnownFolder {
            name: part.folder,
            look,
            sealed_id,
        },
        log,
        entries,
        missing: Vec::new(),
        fetched: Vec::new(),
        marked: false,
    }))
}

impl<I: Io> Brought<I> {
    /// Finds out what the segment lacks.
    pub async fn compare(&mut self) -> Result<(), Offline> {
        if self.entries.is_empty() {
            return Ok(());
        }
        let (path, log) = opened(&mut self.folder.look, &self.dir, &self.log)?;
        self.missing = segment::lacks(&path, log, &self.entries).await?;
        Ok(())
    }

    /// Writes what is missing, and has the mark say no less than the journals did: what is
    /// damaged below it from now on is no torn tail.
    pub async fn bring(&mut self, io: &I) -> Result<(), Offline> {
        let Some(last) = self.entries.last() else {
            return Ok(());
        };
        let end = Mark {
            segment: last.from.segment,
            pos: BytePos(last.end()),
            offset: last.to,
            window: 0,
        };
        let (path, log) = opened(&mut self.folder.look, &self.dir, &self.log)?;
        let missing: Vec<&Noted> = self.missing.iter().map(|&n| &self.entries[n]).collect();
        segment::bring(io, &path, log, &missing, &self.fetched).await?;
        self.fetched = Vec::new();
        if self.folder.look.files.contains_key(mark::FILE_NAME) {
            let (path, file) = opened(&mut self.folder.look, &self.dir, mark::FILE_NAME)?;
            self.marked = bring_mark(io, &path, file, end).await?;
        }
        Ok(())
    }

    /// The files that have what the journals had, to be synced before those are retired.
    pub fn changed(&self) -> impl Iterator<Item = (PathBuf, &OpenedFile<I::File>)> {
        let log = (!self.entries.is_empty()).then_some(&self.log[..]);
        let mark = self.marked.then_some(mark::FILE_NAME);
        let names = log.into_iter().chain(mark);
        names.filter_map(|name| {
            let opened = self.folder.look.files.get(name)?.as_ref().ok()?;
            Some((self.dir.join(name), opened))
        })
    }
}

/// A file that the look has opened.
fn opened<'a, F>(
    look: &'a mut OpenedDir<F>,
    dir: &Path,
    name: &str,
) -> Result<(PathBuf, &'a mut OpenedFile<F>), Offline> {
    let path = dir.join(name);
    let found = look.files.get_mut(name);
    match found.unwrap_or_else(|| unreachable!("the look opens it")) {
        Ok(opened) => Ok((path, opened)),
        Err(e) => {
            let e = std::mem::replace(e, ErrorKind::Other.into());
            Err(Offline::failed("open", path, e))
        }
    }
}

async fn bring_mark<I: Io>(
    io: &I,
    path: &Path,
    mark: &mut OpenedFile<I::File>,
    end: Mark,
) -> Result<bool, Offline> {
    let Some(is) = Mark::decode(&mark.front).filter(|is| is.offset < end.offset) else {
        return Ok(false);
    };
    let mut block = io.alloc(BLOCK);
    let end = Mark {
        window: is.window,
        ..end
    };
    end.encode(block.as_mut());
    mark.front = block.to_vec();
    write_whole(io, &mark.file, Rc::new(block), 0)
        .await
        .map_err(|e| Offline::failed("write", path, e))?;
    Ok(true)
}
