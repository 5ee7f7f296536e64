//! Frames: a 4-byte length and what follows it.
//!
//! ```text
//!  socket -> | len i32 | request ... | len i32 | requ
//!                        ^^^^^^^^^^^ Whole: taken out as a slice, nothing is copied
//!                                              ^^^^ Partial: the buffer grows as bytes
//!                                                   come, never by what len claims, until
//!                                                   that is granted
//! ```

use bytes::{Buf, Bytes, BytesMut};
use std::fmt;

/// The first read of a connection that has nothing buffered.
const READ_BYTES_MIN: usize = 4 << 10;
/// What one read takes at most, unless a frame in progress is already larger: then as
/// much again as has come, so that a large frame is copied about once while it grows.
const READ_BYTES_MAX: usize = 64 << 10;

/// What lies at the front of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// No byte, or not even the length.
    Nothing,
    /// So many bytes of a frame of `len` are here (the length's own 4 not counted).
    Partial { len: usize, have: usize },
    /// A frame of `len` bytes: take it.
    Whole { len: usize },
}

/// A length that no request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadLength {
    pub len: i32,
    pub max: usize,
}

impl fmt::Display for BadLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "it sent a frame of {} bytes; 1 to {} are allowed (socket.request.max.bytes)",
            self.len, self.max
        )
    }
}

/// Bytes of one connection that were received and not yet taken.
pub struct Frames {
    buf: BytesMut,
    bytes_max: usize,
    /// What the next read asks for: grows while reads come back full.
    room: usize,
    /// The memory of the frame at the front is granted: it is taken whole.
    granted: bool,
}

impl Frames {
    pub fn new(bytes_max: usize) -> Frames {
        Frames {
            buf: BytesMut::new(),
            bytes_max,
            room: READ_BYTES_MIN,
            granted: false,
        }
    }

    /// The frame at the front has its share of the memory for requests: from now on its
    /// buffer need not grow with what comes, which would copy it each time.
    pub fn grant(&mut self) {
        self.granted = true;
    }

    pub fn front(&self) -> Result<Front, BadLength> {
        let Some(head) = self.buf.first_chunk::<4>() else {
            return Ok(Front::Nothing);
        };
        let claimed = i32::from_be_bytes(*head);
        let bad = BadLength {
            len: claimed,
            max: self.bytes_max,
        };
        let len = usize::try_from(claimed).map_err(|_| bad)?;
        if len == 0 || len > self.bytes_max {
            return Err(bad);
        }
        let have = self.buf.len() - 4;
        Ok(if have >= len {
            Front::Whole { len }
        } else {
            Front::Partial { len, have }
        })
    }

    /// Whether a frame, or its length, has begun and is not whole.
    pub fn is_partial(&self) -> bool {
        !self.buf.is_empty()
    }

    pub fn buffered(&self) -> usize {
        self.buf.len()
    }

    /// Takes out the frame that [`Frames::front`] found whole.
    pub fn take(&mut self, len: usize) -> Bytes {
        assert!(self.buf.len() >= 4 + len, "the frame is not whole");
        self.granted = false;
        self.buf.advance(4);
        self.buf.split_to(len).freeze()
    }

    /// Where the next bytes go: behind those that are there, in the room reserved.
    pub fn room(&mut self) -> &mut BytesMut {
        if self.buf.is_empty() && self.room == READ_BYTES_MIN {
            // A quiet connection keeps no large buffer.
            if self.buf.capacity() > READ_BYTES_MAX {
                self.buf = BytesMut::new();
            }
        }
        let ask = match self.front() {
            // Never beyond this frame's end by more than a usual read: what follows it
            // would have to be copied when the buffer is exchanged.
            Ok(Front::Partial { len, have }) if self.granted => (len - have).max(READ_BYTES_MIN),
            Ok(Front::Partial { len, have }) => (len - have).clamp(self.room, have.max(self.room)),
            _ => self.room,
        };
        if self.buf.capacity() - self.buf.len() < ask {
            self.buf.reserve(ask);
        }
        &mut self.buf
    }

    /// Says how many bytes the last read brought, so that the next one asks for more
    /// or less.
    pub fn received(&mut self, bytes: usize) {
        if bytes >= self.room {
            self.room = (self.room * 2).min(READ_BYTES_MAX);
        } else if bytes < self.room / 4 {
            self.room = (self.room / 2).max(READ_BYTES_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(frames: &mut Frames, bytes: &[u8]) {
        frames.room().extend_from_slice(bytes);
        frames.received(bytes.len());
    }

    #[test]
    fn a_claim_takes_no_memory_until_it_is_granted_and_then_all_of_it_at_once() {
        let len = 1 << 20;
        let mut frames = Frames::new(2 * len);
        feed(&mut frames, &(len as i32).to_be_bytes());
        feed(&mut frames, &[7; 2000]);
        frames.room();
        assert!(frames.buf.capacity() < READ_BYTES_MAX, "a claim alone");
        frames.grant();
        let room = frames.room();
        assert!(room.capacity() - room.len() >= len - 2000);
        let at = room.as_ptr();
        feed(&mut frames, &vec![7; len - 2000]);
        assert_eq!(frames.buf.as_ptr(), at, "what came was not moved again");
        assert!(frames.take(len).iter().all(|b| *b == 7));
        // The next one has to ask for itself.
        assert!(!frames.granted);
    }

    #[test]
    fn lengths_that_no_request_has_are_refused() {
        let tls_hello = [0x16, 3, 1, 0];
        for bytes in [
            (-1i32).to_be_bytes(),
            0i32.to_be_bytes(),
            (100 * 1024 * 1024 + 1i32).to_be_bytes(),
            i32::MAX.to_be_bytes(),
            *b"GET ",
            tls_hello,
        ] {
            let mut frames = Frames::new(100 << 20);
            feed(&mut frames, &bytes);
            assert!(frames.front().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn memory_follows_the_bytes_and_not_the_claim() {
        let mut frames = Frames::new(100 << 20);
        feed(&mut frames, &(100i32 << 20).to_be_bytes());
        feed(&mut frames, &[0; 1000]);
        assert_eq!(
            frames.front(),
            Ok(Front::Partial {
                len: 100 << 20,
                have: 1000
            })
        );
        assert!(frames.room().capacity() <= 2 * READ_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..40),
            cut in 1usize..400,
        ) {
            let mut wire = Vec::new();
            for frame in &sent {
                wire.extend_from_slice(&(frame.len() as i32).to_be_bytes());
                wire.extend_from_slice(frame);
            }
            let mut frames = Frames::new(1 << 20);
            let mut came = Vec::new();
            for piece in wire.chunks(cut) {
                feed(&mut frames, piece);
                while let Front::Whole { len } = frames.front().unwrap() {
                    came.push(frames.take(len).to_vec());
                }
            }
            prop_assert_eq!(came, sent);
            prop_assert!(!frames.is_partial());
        }
    }
}
