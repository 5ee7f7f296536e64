//! The recent tail of every log of a shard, in memory: the very chunks that the
//! appender wrote, kept for readers that are close behind.
//!
//! ```text
//!   one log      [chunk][chunk][chunk]        starts never fall; a chunk that begins
//!                                             where the one before it began holds all
//!                                             that one held, and takes its place
//!   one shard    oldest chunk ... newest      one budget for all logs; the oldest goes
//!                                             first, once the file has it too
//! ```

use crate::io::Io;
use crate::units::{BytePos, Offset};
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

/// Aligned bytes of one segment, as they were or will be written.
pub struct Chunk<I: Io> {
    /// Base offset of the segment.
    pub segment: Offset,
    /// Where the chunk begins in the segment: a multiple of the block.
    pub start: BytePos,
    /// Where its records end; what follows in the buffer is padding.
    pub end: BytePos,
    pub buf: Rc<I::Buf>,
    /// What the buffer takes of memory, its unused end included.
    held_bytes: usize,
    /// Its share of the budget, from when it is added until it is let go.
    share: OnceCell<Share>,
}

/// Bytes and a chunk that count against the budget; given back once, by whoever is first:
/// the one who lets go of the chunk, or the last one who drops it.
struct Share {
    bytes: Cell<usize>,
    held: Rc<Held>,
}

#[derive(Default)]
struct Held {
    bytes: Cell<usize>,
    chunks: Cell<usize>,
}

impl Share {
    fn give_back(&self) {
        let bytes = self.bytes.take();
        if bytes > 0 {
            self.held.bytes.set(self.held.bytes.get() - bytes);
            self.held.chunks.set(self.held.chunks.get() - 1);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl<I: Io> Chunk<I> {
    /// `held_bytes`: what the buffer takes of memory.
    pub fn new(
        segment: Offset,
        start: BytePos,
        end: BytePos,
        buf: I::Buf,
        held_bytes: usize,
    ) -> Rc<Chunk<I>> {
        Rc::new(Chunk {
            segment,
            start,
            end,
            buf: Rc::new(buf),
            held_bytes,
            share: OnceCell::new(),
        })
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    fn let_go(&self) {
        if let Some(share) = self.share.get() {
            share.give_back();
        }
    }

    /// The chunk's bytes from `from` to at most `to`.
    pub fn slice(&self, from: BytePos, to: BytePos) -> &[u8] {
        assert!(self.start <= from && from <= to);
        let to = to.min(self.end);
        &self.buf[(from.0 - self.start.0) as usize..(to.0 - self.start.0) as usize]
    }
}

/// One log's chunks. Belongs to a [`TailCache`], which may take the oldest away.
pub struct Tail<I: Io> {
    chunks: RefCell<VecDeque<Rc<Chunk<I>>>>,
}

impl<I: Io> Default for Tail<I> {
    fn default() -> Self {
        Tail {
            chunks: RefCell::new(VecDeque::new()),
        }
    }
}

impl<I: Io> Tail<I> {
    /// The chunk to read `pos` from, or None where only the file has it.
    pub fn at(&self, segment: Offset, pos: BytePos) -> Option<Rc<Chunk<I>>> {
        let chunks = self.chunks.borrow();
        let after = chunks.partition_point(|c| (c.segment, c.start) <= (segment, pos));
        let chunk = chunks.get(after.checked_sub(1)?)?;
        (chunk.segment == segment && pos < chunk.end).then(|| chunk.clone())
    }

    /// Where the chunks of a segment begin, if there are any: below it is the file.
    pub fn begins(&self, segment: Offset) -> Option<BytePos> {
        let chunks = self.chunks.borrow();
        let first = chunks.partition_point(|c| c.segment < segment);
        chunks
            .get(first)
            .filter(|c| c.segment == segment)
            .map(|c| c.start)
    }

    pub fn clear(&self) {
        for chunk in self.chunks.take() {
            chunk.let_go();
        }
    }

    /// Readers find it from here on. It stays until the budget counts it: so who pushes one
    /// that is in no file yet counts it ([`TailCache::count`]) when it is there.
    pub fn push(&self, chunk: Rc<Chunk<I>>) {
        let mut chunks = self.chunks.borrow_mut();
        if chunks
            .back()
            .is_some_and(|last| last.segment == chunk.segment && last.start == chunk.start)
            && let Some(last) = chunks.pop_back()
        {
            last.let_go();
        }
        if let Some(last) = chunks.back() {
            assert!(
                (last.segment, last.start) < (chunk.segment, chunk.start),
                "chunks in order"
            );
        }
        chunks.push_back(chunk);
    }

    fn drop_oldest(&self, chunk: &Rc<Chunk<I>>) {
        let mut chunks = self.chunks.borrow_mut();
        if chunks.front().is_some_and(|first| Rc::ptr_eq(first, chunk)) {
            chunks.pop_front();
        }
    }
}

/// The chunks of all logs of one shard, under one budget.
pub struct TailCache<I: Io> {
    budget_bytes: usize,
    held: Rc<Held>,
    by_age: RefCell<VecDeque<Aged<I>>>,
}

struct Aged<I: Io> {
    tail: Weak<Tail<I>>,
    chunk: Weak<Chunk<I>>,
}

impl<I: Io> TailCache<I> {
    pub fn new(budget_bytes: usize) -> Rc<TailCache<I>> {
        Rc::new(TailCache {
            budget_bytes,
            held: Rc::default(),
            by_age: RefCell::new(VecDeque::new()),
        })
    }

    /// Adds a chunk whose bytes the file has, too.
    pub fn add(&self, tail: &Rc<Tail<I>>, chunk: Rc<Chunk<I>>) {
        tail.push(chunk.clone());
        self.count(tail, &chunk);
    }

    /// The file has what is in this chunk of a log's tail: from now on it may be let go of,
    /// as the oldest ones are beyond the budget. A reader that still holds one keeps it
    /// alive; it is then no longer counted.
    pub fn count(&self, tail: &Rc<Tail<I>>, chunk: &Rc<Chunk<I>>) {
        let share = Share {
            bytes: Cell::new(chunk.held_bytes),
            held: self.held.clone(),
        };
        assert!(chunk.share.set(share).is_ok(), "a chunk is counted once");
        self.held
            .bytes
            .set(self.held.bytes.get() + chunk.held_bytes);
        self.held.chunks.set(self.held.chunks.get() + 1);
        let mut by_age = self.by_age.borrow_mut();
        by_age.push_back(Aged {
            tail: Rc::downgrade(tail),
            chunk: Rc::downgrade(chunk),
        });
        while self.held.bytes.get() > self.budget_bytes {
            let Some(oldest) = by_age.pop_front() else {
                break;
            };
            if let Some(chunk) = oldest.chunk.upgrade() {
                chunk.let_go();
                if let Some(tail) = oldest.tail.upgrade() {
                    tail.drop_oldest(&chunk);
                }
            }
        }
        // Chunks that were replaced leave their entries behind: a log of small appends,
        // with an idle log's chunk at the front, would else grow the list for ever. Each
        // sweep halves it at least, so an append stays at O(1).
        if by_age.len() > 2 * self.held.chunks.get() + 64 {
            by_age.retain(|aged| aged.chunk.strong_count() > 0);
        }
    }

    /// Bytes of the chunks that readers find.
    pub fn held_bytes(&self) -> usize {
        self.held.bytes.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::BLOCK;
    use crate::io::sim::{Sim, SimIo};

    struct Room {
        _sim: Sim,
        io: SimIo,
        cache: Rc<TailCache<SimIo>>,
    }

    fn room(blocks: usize) -> Room {
        let sim = Sim::from_seed(1);
        Room {
            io: sim.io(),
            cache: TailCache::new(blocks * BLOCK),
            _sim: sim,
        }
    }

    impl Room {
        /// One block at the `start`-th block, with so many bytes in it.
        fn add(&self, tail: &Rc<Tail<SimIo>>, start: u64, used: u64) {
            let start = BytePos(start * BLOCK as u64);
            let chunk = Chunk::new(
                Offset(0),
                start,
                start.plus(used),
                self.io.alloc(BLOCK),
                BLOCK,
            );
            self.cache.add(tail, chunk);
        }
    }

    #[test]
    fn a_replaced_chunk_weighs_nothing_and_pushes_nobody_out() {
        let room = room(3);
        let (idle, busy) = (Rc::new(Tail::default()), Rc::new(Tail::default()));
        room.add(&idle, 0, 100);
        for used in 1..4000 {
            room.add(&busy, 0, used);
        }
        assert_eq!(room.cache.held_bytes(), 2 * BLOCK);
        assert!(idle.at(Offset(0), BytePos(0)).is_some());
        assert!(room.cache.by_age.borrow().len() < 200, "the list is swept");
    }

    #[test]
    fn the_oldest_goes_first_whosever_it_is() {
        let room = room(3);
        let (a, b) = (Rc::new(Tail::default()), Rc::new(Tail::default()));
        room.add(&a, 0, 4096);
        room.add(&b, 0, 4096);
        room.add(&a, 1, 4096);
        room.add(&a, 2, 4096);
        assert_eq!(room.cache.held_bytes(), 3 * BLOCK);
        assert_eq!(a.begins(Offset(0)), Some(BytePos(4096)));
        assert!(b.at(Offset(0), BytePos(7)).is_some());
    }

    #[test]
    fn what_a_reader_holds_is_counted_no_more_once_it_was_let_go() {
        let room = room(1);
        let tail = Rc::new(Tail::default());
        room.add(&tail, 0, 4096);
        let held = tail.at(Offset(0), BytePos(0)).unwrap();
        room.add(&tail, 1, 4096);
        assert_eq!(room.cache.held_bytes(), BLOCK);
        drop(held);
        assert_eq!(room.cache.held_bytes(), BLOCK);
        tail.clear();
        assert_eq!(room.cache.held_bytes(), 0);
    }
}
