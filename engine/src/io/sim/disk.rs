//! The disk that lies: what reads see, what a power cut leaves, and what lies between.
//!
//! ```text
//!   write -> changes (unsynced, in order) -> fdatasync -> committed
//!              |                                             |
//!              +--> view: what reads see                     +--> view after a power cut,
//!                                                                 with ANY sectors of the
//!                                                                 changes on top
//!   create, rename, remove -> name changes -> sync_dir -> committed names
//!   sync_all is a sync of each of them
//! ```
//!
//! Names hang on inodes, as on a real disk: a file that lost its name is still read
//! through the handle that is open, and a folder that is renamed keeps what is in it.
//! No time and no tasks here: each method is one instant.

use super::rng::Rng;
use crate::io::{BLOCK, SECTOR};
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::Range;
use std::path::{Component, Path};
use std::rc::Rc;

pub(super) type Page = [u8; BLOCK];
pub(super) type Ino = u64;

const ROOT: Ino = 0;
const BLOCK_U64: u64 = BLOCK as u64;
/// One bit a sector: 4,096 / 512 = 8 of them, so a page's mask is a byte.
const ALL_SECTORS: u8 = 0xff;
const _: () = assert!(BLOCK / SECTOR == 8);

/// What of the unsynced bytes and names a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerCut {
    /// Any subset, by the seed: whole writes kept, lost, cut short, or torn by sector.
    Random,
    /// Only what was committed.
    LoseAll,
    /// Everything, as if the disk had no cache.
    KeepAll,
    /// Everything, but the newest write only in part.
    TearLast,
}

/// One page of a write; `mask` says which of its sectors are new.
#[derive(Clone)]
pub(super) struct Piece {
    page: u64,
    data: Rc<Page>,
    mask: u8,
}

enum Change {
    Write(Vec<Piece>),
    Len(u64),
}

/// A file's bytes; what has no page is zero.
#[derive(Clone, Default)]
struct Content {
    len: u64,
    pages: BTreeMap<u64, Rc<Page>>,
}

#[derive(Default)]
struct FileNode {
    view: Content,
    committed: Content,
    /// With the number of each, rising.
    changes: Vec<(u64, Change)>,
}

#[derive(Default)]
struct DirNode {
    view: BTreeMap<String, Ino>,
    committed: BTreeMap<String, Ino>,
}

enum Kind {
    File(FileNode),
    Dir(DirNode),
}

struct Node {
    kind: Kind,
    handles: u32,
}

/// Sets or clears one name. A rename is two of them that happen together.
struct NameEdit {
    dir: Ino,
    name: String,
    to: Option<Ino>,
}

pub(super) struct Disk {
    nodes: BTreeMap<Ino, Node>,
    next_ino: Ino,
    names: Vec<(u64, Vec<NameEdit>)>,
    next_change: u64,
    /// None: as large as one likes.
    pub capacity: Option<u64>,
}

impl Content {
    fn apply(&mut self, piece: &Piece, mask: u8) {
        let mask = mask & piece.mask;
        if mask == ALL_SECTORS {
            self.pages.insert(piece.page, piece.data.clone());
        } else if mask != 0 {
            let page = self
                .pages
                .entry(piece.page)
                .or_insert_with(|| Rc::new([0; BLOCK]));
            let page = Rc::make_mut(page);
            for sector in (0..8).filter(|s| mask & (1 << s) != 0) {
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                page[range.clone()].copy_from_slice(&piece.data[range]);
            }
        }
    }

    /// Bytes cut off are gone: growing again brings zeros.
    fn set_len(&mut self, len: u64) {
        self.len = len;
        self.pages.split_off(&len.div_ceil(BLOCK_U64));
        let rest = (len % BLOCK_U64) as usize;
        if rest > 0
            && let Some(page) = self.pages.get_mut(&(len / BLOCK_U64))
            && page[rest..].iter().any(|b| *b != 0)
        {
            Rc::make_mut(page)[rest..].fill(0);
        }
    }

    fn read(&self, pos: u64, len: usize) -> Vec<u8> {
        let end = pos.saturating_add(len as u64).min(self.len);
        if pos >= end {
            return Vec::new();
        }
        let mut out = Vec::with_capacity((end - pos) as usize);
        let mut at = pos;
        while at < end {
            let from = (at % BLOCK_U64) as usize;
            let take = ((end - at) as usize).min(BLOCK - from);
            match self.pages.get(&(at / BLOCK_U64)) {
                Some(page) => out.extend_from_slice(&page[from..from + take]),
                None => out.resize(out.len() + take, 0),
            }
            at += take as u64;
        }
        out
    }

    fn flip(&mut self, byte: u64, bit: u8) {
        let page = self
            .pages
            .entry(byte / BLOCK_U64)
            .or_insert_with(|| Rc::new([0; BLOCK]));
        Rc::make_mut(page)[(byte % BLOCK_U64) as usize] ^= 1 << bit;
    }
}

impl FileNode {
    fn commit(&mut self, upto: u64) {
        let rest = self.changes.partition_point(|(n, _)| *n <= upto);
        for (_, change) in self.changes.drain(..rest) {
            match change {
                Change::Write(pieces) => {
                    pieces
                        .iter()
                        .for_each(|p| self.committed.apply(p, ALL_SECTORS));
                }
                Change::Len(len) => self.committed.set_len(len),
            }
        }
    }

    /// Commits what lies in some pages, and the length; what was written elsewhere waits on.
    fn commit_pages(&mut self, upto: u64, pages: &Range<u64>) {
        let rest = self.changes.partition_point(|(n, _)| *n <= upto);
        let mut len = self.committed.len;
        let is_cut = self.changes[..rest].iter().any(|(_, change)| match change {
            Change::Len(new) => *new < std::mem::replace(&mut len, *new),
            Change::Write(_) => false,
        });
        if is_cut {
            // What waited on could bring back what was cut off.
            return self.commit(upto);
        }
        let mut waiting = Vec::new();
        let later = self.changes.split_off(rest);
        for (number, change) in std::mem::replace(&mut self.changes, later) {
            match change {
                Change::Write(pieces) => {
                    let (here, elsewhere): (Vec<_>, Vec<_>) =
                        pieces.into_iter().partition(|p| pages.contains(&p.page));
                    here.iter()
                        .for_each(|p| self.committed.apply(p, ALL_SECTORS));
                    if !elsewhere.is_empty() {
                        waiting.push((number, Change::Write(elsewhere)));
                    }
                }
                Change::Len(len) => self.committed.set_len(len),
            }
        }
        self.changes.splice(..0, waiting);
    }

    /// Commits any part of the changes up to `upto` and forgets the rest of them.
    fn commit_some(&mut self, upto: u64, how: PowerCut, newest: u64, rng: &mut Rng) {
        let rest = self.changes.partition_point(|(n, _)| *n <= upto);
        let changes: Vec<_> = self.changes.drain(..rest).collect();
        // Lengths are the file system's own metadata: it keeps them in order, so a cut
        // leaves the first so many of them.
        let lens = changes
            .iter()
            .filter(|(_, c)| matches!(c, Change::Len(_)))
            .count() as u64;
        let mut lens_kept = match how {
            PowerCut::Random => rng.below(lens + 1),
            PowerCut::LoseAll => 0,
            PowerCut::KeepAll | PowerCut::TearLast => lens,
        };
        for (number, change) in changes {
            match change {
                Change::Len(len) if lens_kept > 0 => {
                    lens_kept -= 1;
                    self.committed.set_len(len);
                }
                Change::Len(_) => {}
                Change::Write(pieces) => {
                    let fate = match how {
                        PowerCut::LoseAll => Fate::Lost,
                        PowerCut::KeepAll => Fate::Kept,
                        PowerCut::TearLast if number == newest => Fate::torn(&pieces, rng),
                        PowerCut::TearLast => Fate::Kept,
                        PowerCut::Random => match rng.below(4) {
                            0 => Fate::Kept,
                            1 => Fate::Lost,
                            _ => Fate::torn(&pieces, rng),
                        },
                    };
                    for (i, piece) in pieces.iter().enumerate() {
                        let mask = fate.mask(i, rng);
                        self.committed.apply(piece, mask);
                    }
                }
            }
        }
        // Sectors may have reached the disk whose length did not.
        self.committed.set_len(self.committed.len);
    }
}

enum Fate {
    Kept,
    Lost,
    /// The first so many sectors.
    Prefix(usize),
    /// Each sector for itself.
    Scattered,
}

impl Fate {
    fn torn(pieces: &[Piece], rng: &mut Rng) -> Fate {
        if rng.coin() {
            Fate::Prefix(rng.index((pieces.len() * 8).max(1)))
        } else {
            Fate::Scattered
        }
    }

    fn mask(&self, piece: usize, rng: &mut Rng) -> u8 {
        match self {
            Fate::Kept => ALL_SECTORS,
            Fate::Lost => 0,
            Fate::Prefix(sectors) => prefix_mask(sectors.saturating_sub(piece * 8)),
            Fate::Scattered => (rng.next_u64() >> 56) as u8,
        }
    }
}

fn prefix_mask(sectors: usize) -> u8 {
    if sectors >= 8 {
        ALL_SECTORS
    } else {
        ((1u16 << sectors) - 1) as u8
    }
}

/// Cuts what is written into pages. Whole blocks, except at the end of a small file.
pub(super) fn pieces(pos: u64, bytes: &[u8]) -> Vec<Piece> {
    assert!(
        pos.is_multiple_of(BLOCK_U64),
        "a write starts at a multiple of BLOCK, not at {pos}"
    );
    bytes
        .chunks(BLOCK)
        .enumerate()
        .map(|(i, chunk)| {
            let mut page = [0; BLOCK];
            page[..chunk.len()].copy_from_slice(chunk);
            Piece {
                page: pos / BLOCK_U64 + i as u64,
                data: Rc::new(page),
                mask: ALL_SECTORS,
            }
        })
        .collect()
}

/// Only the first `taken` bytes of a write, whole sectors.
pub(super) fn shorten(pieces: &mut Vec<Piece>, taken: usize) {
    assert!(taken.is_multiple_of(SECTOR));
    pieces.truncate(taken.div_ceil(BLOCK));
    if !taken.is_multiple_of(BLOCK)
        && let Some(last) = pieces.last_mut()
    {
        last.mask = prefix_mask(taken % BLOCK / SECTOR);
    }
}

/// Any sectors of a write, for one that failed half-way.
pub(super) fn scatter(pieces: &mut [Piece], rng: &mut Rng) {
    let fate = match rng.below(3) {
        0 => Fate::Lost,
        _ => Fate::torn(pieces, rng),
    };
    for (i, piece) in pieces.iter_mut().enumerate() {
        piece.mask &= fate.mask(i, rng);
    }
}

impl Disk {
    pub fn new() -> Disk {
        let root = Node {
            kind: Kind::Dir(DirNode::default()),
            handles: 0,
        };
        Disk {
            nodes: BTreeMap::from([(ROOT, root)]),
            next_ino: ROOT + 1,
            names: Vec::new(),
            next_change: 1,
            capacity: None,
        }
    }

    // -- names

    fn dir(&self, ino: Ino) -> io::Result<&DirNode> {
        match &self.nodes[&ino].kind {
            Kind::Dir(dir) => Ok(dir),
            Kind::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn dir_mut(&mut self, ino: Ino) -> &mut DirNode {
        match &mut self.nodes.get_mut(&ino).expect("a folder's inode").kind {
            Kind::Dir(dir) => dir,
            Kind::File(_) => unreachable!("inode {ino} is a folder"),
        }
    }

    pub fn find(&self, path: &Path) -> io::Result<Ino> {
        let mut ino = ROOT;
        for part in path.components() {
            match part {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
                    ino = *self
                        .dir(ino)?
                        .view
                        .get(name)
                        .ok_or(io::ErrorKind::NotFound)?;
                }
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
            }
        }
        Ok(ino)
    }

    fn find_parent(&self, path: &Path) -> io::Result<(Ino, String)> {
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("/")))?;
        self.dir(dir)?;
        Ok((dir, name.to_owned()))
    }

    pub fn find_file(&self, path: &Path) -> io::Result<Ino> {
        let ino = self.find(path)?;
        match self.nodes[&ino].kind {
            Kind::File(_) => Ok(ino),
            Kind::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub fn find_dir(&self, path: &Path) -> io::Result<Ino> {
        let ino = self.find(path)?;
        self.dir(ino)?;
        Ok(ino)
    }

    fn is_dir(&self, ino: Ino) -> bool {
        matches!(self.nodes[&ino].kind, Kind::Dir(_))
    }

    fn edit_names(&mut self, edits: Vec<NameEdit>) {
        for edit in &edits {
            let names = &mut self.dir_mut(edit.dir).view;
            match edit.to {
                Some(ino) => names.insert(edit.name.clone(), ino),
                None => names.remove(&edit.name),
            };
        }
        let number = self.number();
        self.names.push((number, edits));
    }

    /// The number of the newest change; a sync is of all up to the one that it saw.
    pub fn newest(&self) -> u64 {
        self.next_change - 1
    }

    fn number(&mut self) -> u64 {
        self.next_change += 1;
        self.next_change - 1
    }

    fn create(&mut self, path: &Path, kind: Kind) -> io::Result<Ino> {
        let (dir, name) = self.find_parent(path)?;
        if self.dir(dir)?.view.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if self.free() < BLOCK_U64 {
            return Err(super::faults::enospc());
        }
        let ino = self.next_ino;
        self.next_ino += 1;
        self.nodes.insert(ino, Node { kind, handles: 0 });
        self.edit_names(vec![NameEdit {
            dir,
            name,
            to: Some(ino),
        }]);
        Ok(ino)
    }

    pub fn create_file(&mut self, path: &Path) -> io::Result<Ino> {
        self.create(path, Kind::File(FileNode::default()))
    }

    pub fn create_dir(&mut self, path: &Path) -> io::Result<Ino> {
        self.create(path, Kind::Dir(DirNode::default()))
    }

    /// Names and whether each is a folder, sorted by name.
    pub fn list(&self, path: &Path) -> io::Result<Vec<(String, bool)>> {
        let dir = self.dir(self.find(path)?)?;
        Ok(dir
            .view
            .iter()
            .map(|(name, ino)| (name.clone(), self.is_dir(*ino)))
            .collect())
    }

    pub fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name) = self.find_parent(from)?;
        let ino = *self
            .dir(from_dir)?
            .view
            .get(&from_name)
            .ok_or(io::ErrorKind::NotFound)?;
        let (to_dir, to_name) = self.find_parent(to)?;
        if self.is_dir(ino) && to.starts_with(from) && to != from {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if let Some(&old) = self.dir(to_dir)?.view.get(&to_name) {
            if old == ino {
                return Ok(());
            }
            match (&self.nodes[&old].kind, self.is_dir(ino)) {
                (Kind::Dir(old), true) if old.view.is_empty() => {}
                (Kind::Dir(_), true) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                (Kind::Dir(_), false) => return Err(io::ErrorKind::IsADirectory.into()),
                (Kind::File(_), true) => return Err(io::ErrorKind::NotADirectory.into()),
                (Kind::File(_), false) => {}
            }
        }
        self.edit_names(vec![
            NameEdit {
                dir: from_dir,
                name: from_name,
                to: None,
            },
            NameEdit {
                dir: to_dir,
                name: to_name,
                to: Some(ino),
            },
        ]);
        self.forget_unnamed();
        Ok(())
    }

    pub fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.find_file(path)?;
        let (dir, name) = self.find_parent(path)?;
        self.edit_names(vec![NameEdit {
            dir,
            name,
            to: None,
        }]);
        self.forget_unnamed();
        Ok(())
    }

    pub fn remove_empty_dir(&mut self, path: &Path) -> io::Result<()> {
        let ino = self.find_dir(path)?;
        if !self.dir(ino)?.view.is_empty() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (dir, name) = self.find_parent(path)?;
        self.edit_names(vec![NameEdit {
            dir,
            name,
            to: None,
        }]);
        self.forget_unnamed();
        Ok(())
    }

    // -- bytes

    fn file(&self, ino: Ino) -> &FileNode {
        match &self.nodes[&ino].kind {
            Kind::File(file) => file,
            Kind::Dir(_) => unreachable!("inode {ino} is a file"),
        }
    }

    fn file_mut(&mut self, ino: Ino) -> &mut FileNode {
        match &mut self.nodes.get_mut(&ino).expect("a file's inode").kind {
            Kind::File(file) => file,
            Kind::Dir(_) => unreachable!("inode {ino} is a file"),
        }
    }

    pub fn hold(&mut self, ino: Ino) {
        self.nodes.get_mut(&ino).expect("a file's inode").handles += 1;
    }

    pub fn release(&mut self, ino: Ino) {
        // A restart lets go of all handles at once; those that are dropped late find
        // the number at 0, or the file gone.
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.handles = node.handles.saturating_sub(1);
            if node.handles == 0 {
                self.forget_unnamed();
            }
        }
    }

    pub fn len(&self, ino: Ino) -> u64 {
        self.file(ino).view.len
    }

    /// Behind the last page that was ever written, as a real one knows its extents.
    pub fn data_end(&self, ino: Ino) -> u64 {
        let view = &self.file(ino).view;
        let last = view.pages.last_key_value();
        last.map_or(0, |(page, _)| ((page + 1) * BLOCK_U64).min(view.len))
    }

    pub fn read(&self, ino: Ino, pos: u64, len: usize) -> Vec<u8> {
        self.file(ino).view.read(pos, len)
    }

    /// Makes `pieces` visible; the file reaches at least to `end`.
    pub fn write(&mut self, ino: Ino, pieces: Vec<Piece>, end: u64) {
        let (number, number_len) = (self.number(), self.number());
        let file = self.file_mut(ino);
        for piece in &pieces {
            file.view.apply(piece, ALL_SECTORS);
        }
        if !pieces.is_empty() {
            file.changes.push((number, Change::Write(pieces)));
        }
        if end > file.view.len {
            file.view.set_len(end);
            file.changes.push((number_len, Change::Len(end)));
        }
    }

    pub fn set_len(&mut self, ino: Ino, len: u64) {
        let number = self.number();
        let file = self.file_mut(ino);
        file.view.set_len(len);
        file.changes.push((number, Change::Len(len)));
    }

    // -- syncs

    pub fn commit_file(&mut self, ino: Ino, upto: u64) {
        self.file_mut(ino).commit(upto);
    }

    /// What a synced write to these bytes commits.
    pub fn commit_range(&mut self, ino: Ino, upto: u64, bytes: Range<u64>) {
        let pages = bytes.start / BLOCK_U64..bytes.end.div_ceil(BLOCK_U64);
        self.file_mut(ino).commit_pages(upto, &pages);
    }

    /// A sync that failed: some sectors are committed, the others will never be, and
    /// reads may or may not go on to see them. The next sync has nothing to do.
    pub fn fail_commit_file(&mut self, ino: Ino, upto: u64, rng: &mut Rng) {
        let newest = self.newest();
        let file = self.file_mut(ino);
        file.commit_some(upto, PowerCut::Random, newest, rng);
        if rng.coin() {
            // The pages were dropped: what is read now is what is on the disk, and the
            // writes that the sync did not cover.
            file.view = file.committed.clone();
            for (_, change) in &file.changes {
                match change {
                    Change::Write(pieces) => {
                        pieces.iter().for_each(|p| file.view.apply(p, ALL_SECTORS));
                    }
                    Change::Len(len) => file.view.set_len(*len),
                }
            }
        }
    }

    pub fn commit_names(&mut self, dir: Ino, upto: u64) {
        self.commit_names_where(upto, |edits, _| edits.iter().any(|e| e.dir == dir));
        self.forget_unnamed();
    }

    pub fn fail_commit_names(&mut self, dir: Ino, upto: u64, rng: &mut Rng) {
        let touches = |edits: &[NameEdit]| edits.iter().any(|e| e.dir == dir);
        self.commit_names_where(upto, |edits, forced| forced || touches(edits) && rng.coin());
        self.names.retain(|(n, edits)| *n > upto || !touches(edits));
    }

    /// Every file and every folder.
    pub fn commit_all(&mut self, upto: u64) {
        for node in self.nodes.values_mut() {
            if let Kind::File(file) = &mut node.kind {
                file.commit(upto);
            }
        }
        self.commit_names_where(upto, |_, _| true);
        self.forget_unnamed();
    }

    /// A sync of everything that failed: at some files and folders, and it does not say
    /// which.
    pub fn fail_commit_all(&mut self, upto: u64, rng: &mut Rng) {
        let inos: Vec<(Ino, bool)> = self
            .nodes
            .iter()
            .map(|(ino, node)| (*ino, matches!(node.kind, Kind::Dir(_))))
            .collect();
        for (ino, is_dir) in inos {
            match (is_dir, rng.coin()) {
                (true, true) => self.commit_names_where(upto, |edits, forced| {
                    forced || edits.iter().any(|e| e.dir == ino)
                }),
                (true, false) => self.fail_commit_names(ino, upto, rng),
                (false, true) => self.commit_file(ino, upto),
                (false, false) => self.fail_commit_file(ino, upto, rng),
            }
        }
        self.forget_unnamed();
    }

    /// Commits the name changes that `keep` chooses, and with each the earlier ones of
    /// the same names, whose order even a lying disk keeps.
    fn commit_names_where(&mut self, upto: u64, mut keep: impl FnMut(&[NameEdit], bool) -> bool) {
        let mut forced: HashSet<(Ino, String)> = HashSet::new();
        let mut kept = Vec::new();
        let mut rest = Vec::new();
        for (number, edits) in std::mem::take(&mut self.names).into_iter().rev() {
            let must = edits
                .iter()
                .any(|e| forced.contains(&(e.dir, e.name.clone())));
            if number <= upto && (keep(&edits, must) || must) {
                forced.extend(edits.iter().map(|e| (e.dir, e.name.clone())));
                kept.push(edits);
            } else {
                rest.push((number, edits));
            }
        }
        rest.reverse();
        self.names = rest;
        for edit in kept.into_iter().rev().flatten() {
            let names = &mut self.dir_mut(edit.dir).committed;
            match edit.to {
                Some(ino) => names.insert(edit.name, ino),
                None => names.remove(&edit.name),
            };
        }
    }

    // -- crashes

    /// What is left after the power went: the committed bytes and names, and of the
    /// others what `how` says.
    pub fn power_cut(&mut self, how: PowerCut, rng: &mut Rng) {
        let newest = self.newest_write();
        for node in self.nodes.values_mut() {
            if let Kind::File(file) = &mut node.kind {
                file.commit_some(u64::MAX, how, newest, rng);
            }
        }
        self.commit_names_where(u64::MAX, |_, _| match how {
            PowerCut::Random => rng.coin(),
            PowerCut::LoseAll => false,
            PowerCut::KeepAll | PowerCut::TearLast => true,
        });
        self.names.clear();
        for node in self.nodes.values_mut() {
            match &mut node.kind {
                Kind::File(file) => file.view = file.committed.clone(),
                Kind::Dir(dir) => dir.view = dir.committed.clone(),
            }
        }
        self.release_all();
    }

    fn newest_write(&self) -> u64 {
        let numbers = self.nodes.values().filter_map(|node| match &node.kind {
            Kind::File(file) => {
                let writes = file.changes.iter().rev();
                writes
                    .filter(|(_, c)| matches!(c, Change::Write(_)))
                    .map(|(n, _)| *n)
                    .next()
            }
            Kind::Dir(_) => None,
        });
        numbers.max().unwrap_or(0)
    }

    pub fn release_all(&mut self) {
        self.nodes.values_mut().for_each(|node| node.handles = 0);
        self.forget_unnamed();
    }

    /// Drops the inodes that no name, no unsynced change of a name and no handle leads to.
    fn forget_unnamed(&mut self) {
        let mut named = vec![ROOT];
        for node in self.nodes.values() {
            if let Kind::Dir(dir) = &node.kind {
                named.extend(dir.view.values().chain(dir.committed.values()));
            }
        }
        for edit in self.names.iter().flat_map(|(_, edits)| edits) {
            named.push(edit.dir);
            named.extend(edit.to);
        }
        named.sort_unstable();
        self.nodes
            .retain(|ino, node| node.handles > 0 || named.binary_search(ino).is_ok());
    }

    // -- room

    /// Bytes that are taken: whole blocks up to each file's length.
    pub fn used(&self) -> u64 {
        let files = self.nodes.values().map(|node| match &node.kind {
            Kind::File(file) => file.view.len.next_multiple_of(BLOCK_U64),
            Kind::Dir(_) => 0,
        });
        files.sum()
    }

    pub fn free(&self) -> u64 {
        match self.capacity {
            Some(capacity) => capacity.saturating_sub(self.used()),
            None => u64::MAX,
        }
    }

    /// How far the file could reach, were it given all the room there is.
    pub fn reach(&self, ino: Ino) -> u64 {
        let has = self.len(ino).next_multiple_of(BLOCK_U64);
        has.saturating_add(self.free()) / BLOCK_U64 * BLOCK_U64
    }

    // -- for tests, past every rule

    pub fn committed(&self, path: &Path) -> Option<Vec<u8>> {
        let mut ino = ROOT;
        for part in path.components() {
            if let Component::Normal(name) = part {
                let Kind::Dir(dir) = &self.nodes[&ino].kind else {
                    return None;
                };
                ino = *dir.committed.get(name.to_str()?)?;
            }
        }
        match &self.nodes[&ino].kind {
            Kind::File(file) => Some(file.committed.read(0, file.committed.len as usize)),
            Kind::Dir(_) => None,
        }
    }

    pub fn commit_everything(&mut self) {
        self.commit_all(self.newest());
    }

    /// Flips one bit where it lies, in what is read, and in what no sync has brought down
    /// yet: else a sync would put it right under the eyes of who still reads it flipped.
    pub fn flip(&mut self, ino: Ino, byte: u64, bit: u8) {
        let file = self.file_mut(ino);
        for (_, change) in &mut file.changes {
            if let Change::Write(pieces) = change {
                let here = pieces.iter_mut().filter(|p| p.page == byte / BLOCK_U64);
                here.for_each(|p| {
                    Rc::make_mut(&mut p.data)[(byte % BLOCK_U64) as usize] ^= 1 << bit;
                });
            }
        }
        if byte < file.committed.len {
            file.committed.flip(byte, bit);
        }
        if byte < file.view.len {
            file.view.flip(byte, bit);
        }
    }

    /// The files that have committed bytes, in the order of their making.
    pub fn files_with_bytes(&self) -> Vec<(Ino, u64)> {
        let files = self
            .nodes
            .iter()
            .filter_map(|(ino, node)| match &node.kind {
                Kind::File(file) if file.committed.len > 0 => Some((*ino, file.committed.len)),
                _ => None,
            });
        files.collect()
    }
}
