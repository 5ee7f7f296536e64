//! Zeros ahead of the groups, so that a group overwrites blocks that were written before.
//!
//! ```text
//!   |head| group | group |~~~ zeros, written ~~~|   reserved, or not there
//!                        ^ end                  ^ written: zeros go on here
//! ```
//!
//! A group that goes beyond what was written costs the file system a change of its own books,
//! which its sync waits for. So, while there are groups, as much again is made ready beside
//! them: a broker with little to do keeps a small file, a busy one soon has a whole one.
//!
//! - No group is written where zeros are being written: it waits for their end
//!   ([`Journal::until_zeroed`]), and no file is used again before that.
//! - A failure is not told here: the group that needs the room meets it.

use super::Journal;
use crate::io::{BLOCK, Buf, File, Io, write_whole};
use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;

/// One write: what a group's own may have to wait for.
const STEP_BYTES: u64 = 256 << 10;

/// How much of a file was written before.
#[derive(Default)]
pub(super) struct Ready {
    /// Up to here every byte was written once.
    pub written: Cell<u64>,
    /// Zeros are being written behind that.
    pub zeroing: Cell<bool>,
}

impl Ready {
    pub fn new(written: u64) -> Rc<Ready> {
        Rc::new(Ready {
            written: Cell::new(written),
            zeroing: Cell::new(false),
        })
    }
}

impl<I: Io> Journal<I> {
    /// Resolves once no zeros are being written to a file.
    pub(super) async fn until_zeroed(&self, ready: &Ready) {
        self.progress
            .until(|| (!ready.zeroing.get()).then_some(()))
            .await;
    }

    /// Begins to write zeros, where there are fewer than groups.
    pub(super) fn zero_ahead(self: &Rc<Self>) {
        let (file, ready, upto) = {
            let state = self.state.borrow();
            let Some(current) = &state.current else {
                return;
            };
            let upto = (2 * current.end)
                .next_multiple_of(self.config.grow_bytes)
                .min(self.config.file_bytes)
                .min(current.limit / BLOCK as u64 * BLOCK as u64);
            (current.file.file.clone(), current.file.ready.clone(), upto)
        };
        if ready.written.get() >= upto || ready.zeroing.replace(true) {
            return;
        }
        let this = self.clone();
        self.io.spawn(async move {
            this.zero(&file, &ready, upto).await;
            ready.zeroing.set(false);
            this.progress.wake();
        });
    }

    async fn zero(&self, file: &Rc<I::File>, ready: &Ready, upto: u64) {
        match file.allocate(upto).await {
            Err(e) if e.kind() != ErrorKind::Unsupported => return,
            _ => {}
        }
        loop {
            let at = ready.written.get();
            let bytes = STEP_BYTES.min(upto.saturating_sub(at));
            if bytes == 0 {
                return;
            }
            let mut zeros = self.io.alloc(bytes as usize);
            zeros.as_mut().fill(0);
            let written = write_whole(&self.io, file, Rc::new(zeros), at).await;
            if written.is_err() {
                return;
            }
            ready.written.set(at + bytes);
        }
    }
}
