//! The recent tail of every log of a shard, in memory: the very chunks that the
//! appender wrote, kept for readers that are close behind.
//!
//! ```text
//!   one log      [chunk][chunk][chunk]        starts never fall; a chunk that begins
//!                                             where the one before it began holds all
//!                                             that one held, and takes its place
//!   one shard    oldest chunk ... newest      one budget for all logs; the oldest goes
//!                                             first, once it is stable
//! ```

use crate::io::Io;
use crate::units::{BytePos, Offset};
use std::cell::{Cell, RefCell};
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
    pub held_bytes: usize,
}

impl<I: Io> Chunk<I> {
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
        self.chunks.borrow_mut().clear();
    }

    fn push(&self, chunk: Rc<Chunk<I>>) -> Option<Rc<Chunk<I>>> {
        let mut chunks = self.chunks.borrow_mut();
        let replaced = chunks
            .back()
            .is_some_and(|last| last.segment == chunk.segment && last.start == chunk.start)
            .then(|| chunks.pop_back())
            .flatten();
        if let Some(last) = chunks.back() {
            assert!(
                (last.segment, last.start) < (chunk.segment, chunk.start),
                "chunks in order"
            );
        }
        chunks.push_back(chunk);
        replaced
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
    held_bytes: Cell<usize>,
    by_age: RefCell<VecDeque<Aged<I>>>,
}

struct Aged<I: Io> {
    tail: Weak<Tail<I>>,
    chunk: Weak<Chunk<I>>,
    bytes: usize,
}

impl<I: Io> TailCache<I> {
    pub fn new(budget_bytes: usize) -> Rc<TailCache<I>> {
        Rc::new(TailCache {
            budget_bytes,
            held_bytes: Cell::new(0),
            by_age: RefCell::new(VecDeque::new()),
        })
    }

    /// Adds a chunk that has become stable, and lets go of the oldest ones beyond the
    /// budget. A reader that still holds one keeps it alive; it is then no longer
    /// counted.
    pub fn add(&self, tail: &Rc<Tail<I>>, chunk: Rc<Chunk<I>>) {
        let bytes = chunk.held_bytes;
        self.by_age.borrow_mut().push_back(Aged {
            tail: Rc::downgrade(tail),
            chunk: Rc::downgrade(&chunk),
            bytes,
        });
        self.held_bytes.set(self.held_bytes.get() + bytes);
        drop(tail.push(chunk));
        while self.held_bytes.get() > self.budget_bytes {
            let Some(oldest) = self.by_age.borrow_mut().pop_front() else {
                break;
            };
            self.held_bytes.set(self.held_bytes.get() - oldest.bytes);
            if let (Some(tail), Some(chunk)) = (oldest.tail.upgrade(), oldest.chunk.upgrade()) {
                tail.drop_oldest(&chunk);
            }
        }
        self.forget_gone();
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes.get()
    }

    /// Chunks that were replaced or whose log is closed weigh nothing any more. They
    /// are dropped from the front here; ones in the middle wait for their turn, which
    /// keeps an append at O(1), and count until then.
    fn forget_gone(&self) {
        let mut by_age = self.by_age.borrow_mut();
        while by_age
            .front()
            .is_some_and(|aged| aged.chunk.strong_count() == 0)
        {
            if let Some(gone) = by_age.pop_front() {
                self.held_bytes.set(self.held_bytes.get() - gone.bytes);
            }
        }
    }
}
