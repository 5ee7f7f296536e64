//! One producing connection: requests under way, in order, none of them copied.
//!
//! ```text
//!   waiting: due, and no room          under_way
//!   | due | due | due |  --fill-->  | written | written | being written | to come |
//!                                      ^ oldest: its answer is next  ^ writev: fronts made
//!                                                                      anew, the rest prebuilt
//! ```

use super::layout::Place;
use super::produce::{FRONT_BYTES, Frame};
use super::tally::{Nanos, Tally};
use crate::Outcome;
use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;

/// Parts of one writev: a hundred small requests, and room on the stack.
const PARTS_MAX: usize = 256;

/// An answer to Produce has some 40 bytes a partition; more than this is not one.
const ANSWER_BYTES_MAX: usize = 64 << 20;

pub struct Producer {
    pub socket: TcpStream,
    frames: Vec<Frame>,
    next_frame: usize,
    correlation: i32,
    in_flight: usize,
    /// acks=0: a request is done when it is written.
    unanswered: bool,
    /// When what has no room yet was due.
    waiting: VecDeque<Nanos>,
    under_way: VecDeque<UnderWay>,
    /// The first of them that is not all written, and how much of it is.
    unwritten: usize,
    written: usize,
    /// The socket takes no more; epoll will say when it does.
    full: bool,
    begun: Vec<u8>,
}

struct UnderWay {
    front: [u8; FRONT_BYTES],
    frame: usize,
    since: Nanos,
}

impl Producer {
    pub fn new(
        socket: TcpStream,
        frames: Vec<Frame>,
        in_flight: usize,
        unanswered: bool,
    ) -> Producer {
        assert!(!frames.is_empty() && in_flight > 0);
        Producer {
            socket,
            frames,
            next_frame: 0,
            correlation: 0,
            in_flight,
            unanswered,
            waiting: VecDeque::new(),
            under_way: VecDeque::new(),
            unwritten: 0,
            written: 0,
            full: false,
            begun: Vec::new(),
        }
    }

    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty() && self.waiting.is_empty()
    }

    pub fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    pub fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub fn due(&mut self, at: Nanos) {
        self.waiting.push_back(at);
    }

    /// Gives up what was due and had no room: since when each has waited.
    pub fn give_up(&mut self) -> impl Iterator<Item = Nanos> + '_ {
        self.waiting.drain(..)
    }

    /// Begins what was due, as far as there is room; `begun` is told of each.
    pub fn fill_waiting(&mut self, mut begun: impl FnMut(&Frame, Nanos)) {
        while self.under_way.len() < self.in_flight
            && let Some(since) = self.waiting.pop_front()
        {
            begun(self.begin(since), since);
        }
    }

    /// Begins as many as there is room for, and as the caller wants.
    pub fn fill(&mut self, now: Nanos, mut wanted: impl FnMut(&Frame) -> bool) {
        while self.under_way.len() < self.in_flight && wanted(&self.frames[self.next_frame]) {
            self.begin(now);
        }
    }

    fn begin(&mut self, since: Nanos) -> &Frame {
        let frame = self.next_frame;
        self.next_frame = (frame + 1) % self.frames.len();
        let front = self.frames[frame].front(self.correlation);
        // Round to 0: a negative one would be as good, but looks like an error.
        self.correlation = self.correlation.checked_add(1).unwrap_or(0);
        self.under_way.push_back(UnderWay {
            front,
            frame,
            since,
        });
        &self.frames[frame]
    }

    /// Nothing will come that would say when there is room: there is, now.
    pub fn is_hungry(&self) -> bool {
        self.unanswered && !self.full
    }

    pub fn writable(&mut self) {
        self.full = false;
    }

    /// Writes until all is written or the socket takes no more.
    pub fn write(&mut self, now: Nanos, tally: &mut Tally) -> Outcome {
        while !self.full && self.unwritten < self.under_way.len() {
            let mut parts = [IoSlice::new(&[]); PARTS_MAX];
            let (count, offered) = self.gather(&mut parts);
            let wrote = match (&self.socket).write_vectored(&parts[..count]) {
                Ok(wrote) => wrote,
                Err(e) if e.kind() == ErrorKind::WouldBlock => 0,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(format!("a request can't be sent: {e}")),
            };
            self.full = wrote < offered;
            self.advance(wrote);
        }
        if self.unanswered {
            for _ in 0..std::mem::take(&mut self.unwritten) {
                self.done(now, tally);
            }
        }
        Ok(())
    }

    /// What is to be written next, and how many bytes it is.
    fn gather<'a>(&'a self, parts: &mut [IoSlice<'a>; PARTS_MAX]) -> (usize, usize) {
        let (mut count, mut bytes, mut skip) = (0, 0, self.written);
        for request in self.under_way.range(self.unwritten..) {
            let rest = self.frames[request.frame]
                .parts
                .iter()
                .map(|part| &part[..]);
            for part in std::iter::once(&request.front[..]).chain(rest) {
                if skip >= part.len() {
                    skip -= part.len();
                    continue;
                }
                if count == PARTS_MAX {
                    return (count, bytes);
                }
                let part = &part[std::mem::take(&mut skip)..];
                parts[count] = IoSlice::new(part);
                count += 1;
                bytes += part.len();
            }
        }
        (count, bytes)
    }

    fn advance(&mut self, wrote: usize) {
        self.written += wrote;
        while let Some(request) = self.under_way.get(self.unwritten) {
            let whole = self.frames[request.frame].len();
            if self.written < whole {
                return;
            }
            self.written -= whole;
            self.unwritten += 1;
        }
        assert_eq!(self.written, 0, "no more is written than there is");
    }

    /// The oldest has been answered.
    fn done(&mut self, now: Nanos, tally: &mut Tally) {
        let request = self.under_way.pop_front().expect("it is under way");
        let frame = &self.frames[request.frame];
        tally.came(now, 1, frame.records, frame.bytes);
        tally.took(now, now.saturating_sub(request.since), 1);
    }

    /// Reads what is there, and looks at every answer that is whole.
    pub fn read(
        &mut self,
        inbound: &mut [u8],
        places: &[Place],
        now: impl Fn() -> Nanos,
        tally: &mut Tally,
        mut appended: impl FnMut(usize, i64, i64) -> Outcome,
    ) -> Outcome {
        loop {
            let read = match self.socket.read(inbound) {
                Ok(0) => return Err("the broker closed a producer's connection".to_owned()),
                Ok(read) => read,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(format!("an answer can't be read: {e}")),
            };
            let now = now();
            let mut bytes = &inbound[..read];
            let mut whole = std::mem::take(&mut self.begun);
            if !whole.is_empty() {
                whole.extend_from_slice(bytes);
                bytes = &whole;
            }
            while let Some((answer, rest)) = frame(bytes)? {
                self.answer(answer, places, &mut appended)?;
                self.done(now, tally);
                self.unwritten -= 1;
                bytes = rest;
            }
            self.begun = bytes.to_vec();
            // A stream that gave less than there was room for has no more.
            if read < inbound.len() {
                return Ok(());
            }
        }
    }

    fn answer(
        &self,
        answer: &[u8],
        places: &[Place],
        mut appended: impl FnMut(usize, i64, i64) -> Outcome,
    ) -> Outcome {
        let request = self.under_way.front().filter(|_| self.unwritten > 0);
        let request = request.ok_or("Produce: an answer that nobody asked for")?;
        let (correlation, body) = answer
            .split_at_checked(4)
            .ok_or("Produce: an answer without a number")?;
        let due = &request.front[FRONT_BYTES - 4..];
        if correlation != due {
            return Err(format!(
                "Produce: the answer to request {correlation:?} came where {due:?} was due"
            ));
        }
        let frame = &self.frames[request.frame];
        let records = i64::from(frame.records_each);
        frame.answered(body, places, |place, offset| {
            appended(place, offset, records)
        })
    }
}

/// The first frame, from behind its length, and what comes after it; None if it is not whole.
fn frame(bytes: &[u8]) -> Outcome<Option<(&[u8], &[u8])>> {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return Ok(None);
    };
    let length = usize::try_from(i32::from_be_bytes(*length)).ok();
    let length = length
        .filter(|&length| length <= ANSWER_BYTES_MAX)
        .ok_or("Produce: an answer whose length is none that was asked for")?;
    Ok(rest.split_at_checked(length))
}
