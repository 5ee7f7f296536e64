//! How bytes gather: batches into chunks, chunks into rounds.
//!
//! ```text
//!   append --> filling chunk --sealed--> gathered chunks --> round: what is written at once
//!              [head|batch|ba]              | c | c | c |
//!                 \__ the block that was not full when the one before it was sealed
//! ```
//!
//! No await here: what an append and a round see of each other is decided by their order.

use super::{ROUND_BYTES_MAX, State};
use crate::io::{BLOCK, Buf, Io};
use crate::segment::{LogPosition, Segment};
use crate::tail::Chunk;
use crate::units::BytePos;
use std::rc::Rc;

/// The largest chunk, and so the largest write. Direct writes gain little beyond it,
/// and a chunk is what a reader keeps alive.
pub(super) const CHUNK_BYTES_MAX: usize = 1 << 20;

/// A chunk that still takes bytes.
pub(super) struct Filling<I: Io> {
    pub(super) segment: Rc<Segment<I>>,
    pub(super) start: BytePos,
    pub(super) buf: I::Buf,
    pub(super) used: usize,
    /// The end of the last batch that ends in or before this chunk.
    pub(super) whole: LogPosition,
}

/// A chunk that waits for its round.
pub(super) struct Gathered<I: Io> {
    pub(super) segment: Rc<Segment<I>>,
    pub(super) chunk: Rc<Chunk<I>>,
    pub(super) whole: LogPosition,
}

/// What is written at once. Without chunks only a sync or a new segment is due.
pub(super) struct Round<I: Io> {
    pub(super) segment: Rc<Segment<I>>,
    pub(super) chunks: Vec<Rc<Chunk<I>>>,
    pub(super) whole: LogPosition,
}

impl<I: Io> State<I> {
    /// The filling chunk, made or replaced where there is no room. `left` is how much
    /// of the batch is still to come.
    pub(super) fn filling_with_room(
        &mut self,
        io: &I,
        segment: &Rc<Segment<I>>,
        left: usize,
    ) -> &mut Filling<I> {
        if self.filling.as_ref().is_some_and(|f| f.used == f.buf.len()) {
            self.seal_filling();
        }
        let whole = self.dirty;
        let (head, start) = (&self.head, self.head_start);
        // Each chunk of a round is twice the one before it: a lone small batch costs one
        // block, a burst of them few writes, and no more than half is ever unused.
        let grown = BLOCK << self.gathered.len().min(16);
        let filling = self.filling.get_or_insert_with(|| {
            let want = (head.len() + left).max(grown).next_multiple_of(BLOCK);
            let mut buf = io.alloc(want.min(CHUNK_BYTES_MAX));
            buf.as_mut()[..head.len()].copy_from_slice(head);
            Filling {
                segment: segment.clone(),
                start,
                buf,
                used: head.len(),
                whole,
            }
        });
        assert_eq!(filling.segment.base, segment.base, "one segment a chunk");
        filling
    }

    /// Bytes are taken for `segment` from here on: the successor of the newest one.
    pub(super) fn go_to(&mut self, segment: &Rc<Segment<I>>) {
        assert_eq!(
            segment.base, self.dirty.offset,
            "a segment goes on where the last ended"
        );
        self.seal_filling();
        self.head.clear();
        self.head_start = BytePos::ZERO;
        self.dirty = segment.start();
        self.newest = segment.clone();
    }

    /// Hands the filling chunk over to the rounds, and keeps its last, partial block.
    pub(super) fn seal_filling(&mut self) {
        let Some(mut filling) = self.filling.take() else {
            return;
        };
        let held_bytes = filling.buf.len();
        let padded = filling.used.next_multiple_of(BLOCK);
        filling.buf.shrink(padded);
        // The buffer comes with what it was used for before.
        filling.buf.as_mut()[filling.used..].fill(0);
        let block = filling.used / BLOCK * BLOCK;
        self.head.clear();
        self.head
            .extend_from_slice(&filling.buf[block..filling.used]);
        self.head_start = filling.start.plus(block as u64);
        let end = filling.start.plus(filling.used as u64);
        let base = filling.segment.base;
        self.gathered.push_back(Gathered {
            segment: filling.segment,
            chunk: Chunk::new(base, filling.start, end, filling.buf, held_bytes),
            whole: filling.whole,
        });
    }

    /// What to write next, or None where all is written, no sync is due and no segment is
    /// to be begun.
    pub(super) fn next_round(&mut self) -> Option<Round<I>> {
        // The filling chunk goes along only where all before it do. Left behind half full
        // it would be followed, in one round, by a chunk that begins inside of it.
        let waiting: usize = self.gathered.iter().map(|g| g.chunk.buf.len()).sum();
        let one_segment = self
            .gathered
            .iter()
            .all(|g| g.segment.base == self.newest.base);
        if (waiting as u64) < ROUND_BYTES_MAX && one_segment {
            self.seal_filling();
        }
        let Some(first) = self.gathered.front() else {
            let sync = self.sync_due && self.committed != self.stable;
            let begin = self.newest.base != self.open.base;
            return (sync || begin).then(|| Round {
                segment: self.newest.clone(),
                chunks: Vec::new(),
                whole: self.stable,
            });
        };
        let mut round = Round {
            segment: first.segment.clone(),
            chunks: Vec::new(),
            whole: self.stable,
        };
        let mut bytes = 0;
        while let Some(next) = self.gathered.front() {
            // One chunk at least; they are all smaller than a round.
            let fits =
                bytes + next.chunk.buf.len() as u64 <= ROUND_BYTES_MAX + CHUNK_BYTES_MAX as u64;
            if next.segment.base != round.segment.base || !fits {
                break;
            }
            let Some(next) = self.gathered.pop_front() else {
                break;
            };
            let (start, len) = (next.chunk.start, next.chunk.buf.len() as u64);
            if let Some(last) = round.chunks.last() {
                let end = last.start.plus(last.buf.len() as u64);
                assert!(end <= start, "a round writes no block twice");
            }
            bytes += len;
            round.whole = next.whole;
            round.chunks.push(next.chunk);
        }
        Some(round)
    }
}
