//! Bytes -> frames, and a frame's length put before what is written.
//!
//! ```text
//!   | len i32 | payload .... | len i32 | payl      what is not whole waits for more bytes
//!   | "srvr" |                                     a word, only before the first frame
//! ```

use crate::zookeeper::jute::Field;

/// What the bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Front<'a> {
    /// A frame's payload; it and its length are `4 + payload.len()` bytes.
    Whole(&'a [u8]),
    /// Not yet a frame.
    Partial,
    /// A length that is more than allowed, and as much of the payload as has come.
    TooLong(usize, &'a [u8]),
    /// A negative length.
    Nonsense(i32),
}

/// `bytes_max` is `jute.maxbuffer`.
#[must_use]
pub fn front(bytes: &[u8], bytes_max: usize) -> Front<'_> {
    let Some((len, rest)) = bytes.split_first_chunk::<4>() else {
        return Front::Partial;
    };
    let len = i32::from_be_bytes(*len);
    match usize::try_from(len) {
        Err(_) => Front::Nonsense(len),
        Ok(len) if len > bytes_max => Front::TooLong(len, rest),
        Ok(len) => rest.get(..len).map_or(Front::Partial, Front::Whole),
    }
}

/// How many bytes are missing to a frame that has begun; at least one.
#[must_use]
pub fn missing(bytes: &[u8], bytes_max: usize) -> usize {
    match bytes.first_chunk::<4>() {
        None => 4 - bytes.len(),
        Some(len) => {
            let len = usize::try_from(i32::from_be_bytes(*len)).unwrap_or(0);
            (4 + len.min(bytes_max)).saturating_sub(bytes.len()).max(1)
        }
    }
}

/// Writes a frame: the payload is what `fill` appends.
pub fn put(to: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let at = to.len();
    0i32.put(to);
    fill(to);
    let len = i32::try_from(to.len() - at - 4).expect("an answer stays far below 2 GiB");
    to[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_at_their_lengths() {
        let mut bytes = Vec::new();
        put(&mut bytes, |to| to.extend_from_slice(b"one"));
        put(&mut bytes, |_| {});
        assert_eq!(front(&bytes, 10), Front::Whole(b"one"));
        assert_eq!(front(&bytes[7..], 10), Front::Whole(b""));
        assert_eq!(front(&bytes[11..], 10), Front::Partial);
        for end in 0..7 {
            assert_eq!(front(&bytes[..end], 10), Front::Partial, "{end}");
            let missing = missing(&bytes[..end], 10);
            assert!(missing == 4 - end.min(4) || missing == 7 - end, "{end}");
            assert!(missing > 0);
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_told_apart() {
        assert_eq!(front(&[0, 0, 0, 11, 1, 2], 10), Front::TooLong(11, &[1, 2]));
        assert_eq!(front(&[0xff; 4], 10), Front::Nonsense(-1));
        assert_eq!(
            front(b"GET / HTTP/1.1", 10),
            Front::TooLong(0x4745_5420, b"/ HTTP/1.1".as_slice())
        );
    }
}
