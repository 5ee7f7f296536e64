//! Bytes that the journal has synced, on their way to their segment.
//!
//! ```text
//!   rounds that the journal committed      [chunk][chunk]..[chunk]     readers have them
//!                                             \      |       /          from memory
//!   later, in one write                     |== the segment's blocks ==|
//!                        placed ------------^                          ^------- stable
//! ```
//!
//! A small round needs no write of its own: the journal has it, and a start replays it from
//! there. So its chunks gather, and go to the segment together: when a megabyte of them is
//! there, when the shard has too many (journal/backlog.rs says when), when a second went by,
//! when the journal's file is full, and before anything else is done with the segment.
//!
//! - `placed <= committed` as long as chunks gather here: what is not placed is synced in the
//!   journal, whose file is not used again before it is placed and synced here.
//! - Each chunk begins with the block that the one before it ended in. So of each there goes
//!   what is before the next one's begin, and of the last one all of it: together they are
//!   the segment's blocks, none of them twice.
//! - One placing at a time, and none beside a round that is written here.

use super::Appender;
use super::gathering::CHUNK_BYTES_MAX;
use crate::error::Offline;
use crate::io::{Buf, Io, write_whole};
use crate::journal::Backlog;
use crate::tail::Chunk;
use crate::units::BytePos;
use futures_util::future::{join, join_all};
use std::collections::VecDeque;
use std::rc::Rc;

/// Chunks of this size are written from where they are: what is smaller is cheaper to copy
/// than to write by itself.
const WRITTEN_ALONE_BYTES: usize = 128 << 10;

/// The chunks that gather.
pub(super) struct Unplaced<I: Io> {
    chunks: VecDeque<Rc<Chunk<I>>>,
    held_bytes: usize,
    backlog: Option<Rc<Backlog<I>>>,
}

impl<I: Io> Unplaced<I> {
    pub fn new(backlog: Option<Rc<Backlog<I>>>) -> Unplaced<I> {
        Unplaced {
            chunks: VecDeque::new(),
            held_bytes: 0,
            backlog,
        }
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// One that begins where the last one began has all that the last one had.
    pub fn push(&mut self, chunk: Rc<Chunk<I>>) {
        if self
            .chunks
            .back()
            .is_some_and(|last| last.start == chunk.start)
            && let Some(last) = self.chunks.pop_back()
        {
            self.let_go(&last);
        }
        self.held_bytes += chunk.held_bytes();
        if let Some(backlog) = &self.backlog {
            backlog.add(chunk.held_bytes());
        }
        self.chunks.push_back(chunk);
    }

    fn let_go(&mut self, chunk: &Chunk<I>) {
        self.held_bytes -= chunk.held_bytes();
        if let Some(backlog) = &self.backlog {
            backlog.sub(chunk.held_bytes());
        }
    }

    /// Takes the first one out, if it is this one still.
    fn pop(&mut self, chunk: &Rc<Chunk<I>>) -> bool {
        let is_first = self
            .chunks
            .front()
            .is_some_and(|first| Rc::ptr_eq(first, chunk));
        if is_first {
            self.chunks.pop_front();
            self.let_go(chunk);
        }
        is_first
    }

    pub fn clear(&mut self) {
        while let Some(chunk) = self.chunks.pop_front() {
            self.let_go(&chunk);
        }
    }
}

impl<I: Io> Drop for Unplaced<I> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Held while the segment is written.
pub(super) struct PlaceTurn<I: Io>(Rc<Appender<I>>);

impl<I: Io> Drop for PlaceTurn<I> {
    fn drop(&mut self) {
        self.0.placing.set(false);
        self.0.placing_ended.wake();
    }
}

impl<I: Io> Appender<I> {
    pub(super) async fn place_turn(self: &Rc<Self>) -> PlaceTurn<I> {
        let ended = self.placing_ended.clone();
        ended.until(|| (!self.placing.get()).then_some(())).await;
        self.placing.set(true);
        PlaceTurn(self.clone())
    }

    /// Writes what has gathered to its segment. A failure has latched the log when this
    /// returns.
    pub async fn place(self: &Rc<Self>) -> Result<(), Offline> {
        let nothing = self.state.borrow().unplaced.chunks.is_empty();
        if nothing && !self.placing.get() {
            return Ok(());
        }
        let turn = self.place_turn().await;
        self.place_in(&turn).await.inspect_err(|offline| {
            // What the journal has is for the next start, and in nobody's way until then.
            self.fail(offline.clone());
            self.state.borrow_mut().unplaced.clear();
        })
    }

    pub(super) async fn place_in(self: &Rc<Self>, _turn: &PlaceTurn<I>) -> Result<(), Offline> {
        self.check_online()?;
        let (segment, chunks, upto) = {
            let state = self.state.borrow();
            let chunks: Vec<_> = state.unplaced.chunks.iter().cloned().collect();
            (state.open.clone(), chunks, state.stable)
        };
        let Some(last) = chunks.last() else {
            return Ok(());
        };
        assert!(
            chunks.iter().all(|c| c.segment == segment.base),
            "a segment is begun once what is of the last one is placed"
        );
        assert_eq!(last.end, upto.pos, "whole batches were committed");
        let end = last.start.plus(last.buf.len() as u64);
        let file = self.file_of(&segment);
        self.reserve(&segment, &file, end.0).await?;
        let mark = self.mark_of(self.committed());
        if !self.marker.covers(segment.base, end) {
            self.marker.commit(mark).await?;
        }
        let writes = self.laid_out(&chunks);
        let writes = writes
            .into_iter()
            .map(|(start, buf)| write_whole(&self.io, &file, buf, start.0));
        let marking = async {
            match self.marker.is_due(segment.base, end) {
                true => self.marker.commit(mark).await,
                false => Ok(()),
            }
        };
        let (written, marked) = join(join_all(writes), marking).await;
        let written: Result<(), _> = written.into_iter().collect();
        written.map_err(|e| Offline::failed("write", &segment.path, e))?;
        marked?;
        self.check_online()?;
        let mut state = self.state.borrow_mut();
        state.placed = upto;
        for chunk in chunks {
            // A last one may have been replaced meanwhile, by one with more in it.
            if state.unplaced.pop(&chunk) {
                self.tail_cache.count(&self.tail, &chunk);
            }
        }
        Ok(())
    }

    /// The chunks' blocks, each once, in few writes.
    fn laid_out(&self, chunks: &[Rc<Chunk<I>>]) -> Vec<(BytePos, Rc<I::Buf>)> {
        let mut writes = Vec::new();
        let mut gathered: Vec<(&Rc<Chunk<I>>, usize)> = Vec::new();
        let mut gathered_bytes = 0;
        for (n, chunk) in chunks.iter().enumerate() {
            let bytes = match chunks.get(n + 1) {
                Some(next) => {
                    let end = chunk.start.plus(chunk.buf.len() as u64);
                    assert!(
                        chunk.start <= next.start && next.start <= end,
                        "no block is left out"
                    );
                    (next.start.0 - chunk.start.0) as usize
                }
                None => chunk.buf.len(),
            };
            let alone = bytes == chunk.buf.len() && bytes >= WRITTEN_ALONE_BYTES;
            if alone || gathered_bytes + bytes > CHUNK_BYTES_MAX {
                writes.extend(self.joined(&gathered, gathered_bytes));
                gathered.clear();
                gathered_bytes = 0;
            }
            if alone {
                writes.push((chunk.start, chunk.buf.clone()));
            } else if bytes > 0 {
                gathered.push((chunk, bytes));
                gathered_bytes += bytes;
            }
        }
        writes.extend(self.joined(&gathered, gathered_bytes));
        writes
    }

    fn joined(
        &self,
        chunks: &[(&Rc<Chunk<I>>, usize)],
        bytes: usize,
    ) -> Option<(BytePos, Rc<I::Buf>)> {
        let (first, _) = chunks.first()?;
        if let [(chunk, whole)] = chunks
            && *whole == chunk.buf.len()
        {
            return Some((chunk.start, chunk.buf.clone()));
        }
        let mut buf = self.io.alloc(bytes);
        let mut rest = buf.as_mut();
        for (chunk, bytes) in chunks {
            let (part, behind) = rest.split_at_mut(*bytes);
            part.copy_from_slice(&chunk.buf[..*bytes]);
            rest = behind;
        }
        assert!(rest.is_empty());
        Some((first.start, Rc::new(buf)))
    }
}
