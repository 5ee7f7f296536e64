//! Answers that wait for the socket.
//!
//! ```text
//!   parts     [ bytes | memory | bytes ][ file ........................ ][ bytes ]...
//!   sent by     one sendmsg              sendfile, a window at a time
//!   loaded                               | window | next |   and the first of the file
//!                                                            behind it, or what the client
//!                                                            will ask for next
//! ```
//!
//! A window of a file is sent only when its pages are there: else a blocking thread loads
//! them, and the shard goes on with others. While one is sent the next is loaded, and
//! behind the end of a part what follows it in its file: a client that catches up asks
//! for that as soon as it has this.
//!
//! A slow reader holds descriptors and no memory for what is of files; pages that went
//! before it took them are loaded again.

use crate::kafka::answer::Part;
use crate::socket::Socket;
use futures_util::future::LocalBoxFuture;
use klamm_engine::io::Io;
use klamm_engine::io::page_cache::CachedFile;
use klamm_engine::slice::{FilePiece, WINDOW_BYTES};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::task::{Context, Poll, ready};

/// Slices of one send. Linux takes up to 1,024.
const SLICES_A_SEND: usize = 64;

/// Windows of one connection that are being loaded. What is needed now is always begun;
/// what is loaded ahead keeps within this.
const LOADS_MAX: usize = 2;

/// What is loaded behind a client's range, that the batch is in it where the next cut
/// will be made, which is read to make it.
const BEHIND_THE_CUT: u64 = 16 << 10;

pub struct Outbox<I: Io> {
    io: I,
    parts: VecDeque<Part<I>>,
    /// How much of the first part is sent.
    sent: usize,
    /// What is left of all parts.
    pub(super) bytes: usize,
    loads: Vec<Load>,
    /// The window that was loaded, and sending was not tried since. Where it is not there
    /// even so (a file system that caches nothing, a kernel that can't say), it is sent all
    /// the same.
    loaded: Option<Range<u64>>,
    /// Up to where files were loaded ahead lately, by their numbers.
    ahead: VecDeque<(u64, u64)>,
}

/// Files whose read-ahead is remembered.
const AHEAD_MAX: usize = 16;

struct Load {
    file: u64,
    range: Range<u64>,
    done: LocalBoxFuture<'static, io::Result<()>>,
}

impl<I: Io> Outbox<I> {
    pub fn new(io: I) -> Outbox<I> {
        Outbox {
            io,
            parts: VecDeque::new(),
            sent: 0,
            bytes: 0,
            loads: Vec::new(),
            loaded: None,
            ahead: VecDeque::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub fn push(&mut self, parts: Vec<Part<I>>) {
        for part in parts {
            self.bytes += part.len();
            self.parts.push_back(part);
        }
    }

    /// Sends some from the front. There is something to send.
    pub fn poll_send<S: Socket>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let taken = match self.parts.iter().find(|part| !part.is_empty()) {
            Some(Part::File(piece)) => {
                let piece = piece.clone();
                ready!(self.poll_send_file(&piece, socket, cx))
            }
            _ => ready!(self.poll_send_memory(socket, cx)),
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(e) => return Poll::Ready(Err(e)),
        };
        self.advance(taken);
        Poll::Ready(Ok(()))
    }

    /// All up to the next file, by one call.
    fn poll_send_memory<S: Socket>(
        &mut self,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); SLICES_A_SEND];
        let mut used = 0;
        let mut before_file = false;
        let parts = self.parts.iter().filter(|part| !part.is_empty());
        for (slice, part) in slices.iter_mut().zip(parts) {
            let Some(bytes) = part.in_memory() else {
                before_file = true;
                break;
            };
            let from = if used == 0 { self.sent } else { 0 };
            *slice = IoSlice::new(&bytes[from..]);
            used += 1;
        }
        if before_file {
            socket.poll_send_before_file(cx, &slices[..used])
        } else {
            socket.poll_send(cx, &slices[..used])
        }
    }

    fn poll_send_file<S: Socket>(
        &mut self,
        piece: &FilePiece,
        socket: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let at = piece.from + self.sent as u64;
        // Windows lie where they were loaded, also where a send ended inside of one.
        let windows = self.sent as u64 / WINDOW_BYTES + 1;
        let window = at..piece.to.min(piece.from + windows * WINDOW_BYTES);
        if let Err(e) = ready!(self.poll_loaded(piece, &window, cx)) {
            return Poll::Ready(Err(told(piece, e)));
        }
        self.load_ahead(piece, &window, cx);
        // Pages may go while the socket is full: then it is seen to anew.
        self.loaded = None;
        match ready!(socket.poll_send_file(cx, &piece.file, window)) {
            Ok(0) => Poll::Ready(Err(told(piece, ends_within(at)))),
            Ok(taken) => Poll::Ready(Ok(taken)),
            // The disk's, and not the socket's.
            Err(e) if e.raw_os_error() == Some(libc::EIO) => Poll::Ready(Err(told(piece, e))),
            Err(e) => Poll::Ready(Err(e)),
        }
    }

    /// Ready once the window can be sent.
    fn poll_loaded(
        &mut self,
        piece: &FilePiece,
        window: &Range<u64>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let is_it = |load: &Load| {
                load.file == piece.file.number()
                    && load.range.start < window.end
                    && window.start < load.range.end
            };
            if let Some(at) = self.loads.iter().position(is_it) {
                let result = ready!(self.loads[at].done.as_mut().poll(cx));
                let load = self.loads.swap_remove(at);
                result?;
                if load.range.start <= window.start && window.end <= load.range.end {
                    self.loaded = Some(window.clone());
                }
                continue;
            }
            let here = piece.file.is_resident(window.clone());
            if here || self.loaded.as_ref() == Some(window) {
                return Poll::Ready(Ok(()));
            }
            self.load(&piece.file, window.clone());
        }
    }

    fn load(&mut self, file: &CachedFile, range: Range<u64>) {
        self.loads.push(Load {
            file: file.number(),
            range: range.clone(),
            done: Box::pin(self.io.load_pages(file, range)),
        });
    }

    /// While a window is sent: the next one, and at a part's end the next part's first and
    /// what is behind it in its file. Errors wait until the range is needed.
    fn load_ahead(&mut self, piece: &FilePiece, window: &Range<u64>, cx: &mut Context<'_>) {
        self.loads
            .retain_mut(|load| load.done.as_mut().poll(cx).is_pending());
        if window.end < piece.to {
            let next = window.end..piece.to.min(window.end + WINDOW_BYTES);
            self.begin_ahead(&piece.file, next, cx);
            return;
        }
        // The first of the files is the one that is being sent.
        let mut files = self.parts.iter().filter_map(|part| match part {
            Part::File(piece) => Some(piece),
            _ => None,
        });
        if let Some(next) = files.nth(1).cloned() {
            let first = next.from..next.to.min(next.from + WINDOW_BYTES);
            self.begin_ahead(&next.file, first, cx);
        }
        let like = (piece.to - piece.from + BEHIND_THE_CUT).min(WINDOW_BYTES + BEHIND_THE_CUT);
        let behind = piece.to..piece.settled.min(piece.to + like);
        self.begin_ahead(&piece.file, behind, cx);
    }

    fn begin_ahead(&mut self, file: &CachedFile, range: Range<u64>, cx: &mut Context<'_>) {
        if range.is_empty() || self.loads.len() >= LOADS_MAX {
            return;
        }
        // A window that leaves in many small sends would else be asked for at each.
        let known = self.ahead.iter_mut().find(|(f, _)| *f == file.number());
        match known {
            Some((_, end)) if *end >= range.end && range.end + 4 * WINDOW_BYTES > *end => return,
            Some((_, end)) => *end = range.end,
            None => {
                if self.ahead.len() == AHEAD_MAX {
                    self.ahead.pop_front();
                }
                self.ahead.push_back((file.number(), range.end));
            }
        }
        if file.is_resident(range.clone()) {
            return;
        }
        self.load(file, range);
        let load = self.loads.last_mut().expect("just begun");
        if load.done.as_mut().poll(cx).is_ready() {
            self.loads.pop();
        }
    }

    fn advance(&mut self, taken: usize) {
        assert!(taken <= self.bytes, "more was sent than there is");
        self.bytes -= taken;
        self.sent += taken;
        while let Some(first) = self.parts.front() {
            if self.sent < first.len() {
                return;
            }
            self.sent -= first.len();
            self.parts.pop_front();
        }
        assert_eq!(self.sent, 0, "nothing is half sent behind the end");
    }
}

fn ends_within(at: u64) -> io::Error {
    let what = format!("the file ends at byte {at}, inside of committed records");
    io::Error::new(io::ErrorKind::UnexpectedEof, what)
}

/// The answer has begun, so the client can only be left; it comes again and is answered
/// with an error, since then the bad place is at the front. Here it is said why.
fn told(piece: &FilePiece, error: io::Error) -> io::Error {
    let path = piece.file.path().display();
    log::error!("{path}: records could not be sent: {error}");
    io::Error::new(error.kind(), format!("{path} could not be read: {error}"))
}

#[cfg(test)]
mod tests;
