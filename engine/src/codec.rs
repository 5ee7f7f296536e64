//! Compression codecs, as a batch's attributes number them (bits 0 to 2).
//!
//! ```text
//!  1 gzip     RFC 1952, one or more members
//!  2 snappy   either  82 'SNAPPY' 00 | version i32 | compatible i32 | (length i32 | block)*
//!                     (xerial's framing: Java and most clients)
//!             or      one raw block (librdkafka)
//!  3 lz4      LZ4 frame, with the right header checksum (magic 2 batches)
//!  4 zstd     RFC 8878
//! ```
//!
//! The broker keeps what producers packed and unpacks only where it must: to find a
//! timestamp inside a batch, to compact. What it unpacks came from outside, so every
//! output is bounded: a megabyte may claim to be gigabytes, and costs no more
//! memory than the limit before it is refused.

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, Read, Write};

/// How the records of a batch are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    pub const ALL: [Codec; 5] = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];

    /// None for ids 5 to 7, which no version of Kafka has given a meaning.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Codec> {
        Codec::ALL.get(usize::from(id)).copied()
    }

    #[must_use]
    pub fn id(self) -> u8 {
        self as u8
    }

    /// As `compression.type` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why packed records could not be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The output would pass `limit` bytes; what was unpacked is dropped.
    TooLarge { codec: Codec, limit: usize },
    /// The input is not what the codec's format says.
    Corrupt { codec: Codec, why: String },
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CodecError::TooLarge { codec, limit } => {
                write!(
                    f,
                    "{codec} data unpacks to more than the {limit} bytes allowed"
                )
            }
            CodecError::Corrupt { codec, why } => write!(f, "bad {codec} data: {why}"),
        }
    }
}

impl std::error::Error for CodecError {}

/// Unpacks `bytes` to at most `limit` bytes.
pub fn decompress(codec: Codec, bytes: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    match codec {
        Codec::None if bytes.len() > limit => Err(CodecError::TooLarge { codec, limit }),
        Codec::None => Ok(bytes.to_vec()),
        Codec::Gzip => drain(codec, flate2::bufread::MultiGzDecoder::new(bytes), limit),
        Codec::Snappy => unsnappy(bytes, limit),
        Codec::Lz4 => unlz4(bytes, limit),
        // zstd reserves a frame's whole window at once, 128 MiB at most by its own
        // default, but touches of it only what it unpacks: the limit again.
        Codec::Zstd => match zstd::stream::read::Decoder::with_buffer(bytes) {
            Ok(decoder) => drain(codec, decoder, limit),
            Err(error) => Err(corrupt(codec, error)),
        },
    }
}

/// Packs `bytes`, at each codec's default level.
#[must_use]
pub fn compress(codec: Codec, bytes: &[u8]) -> Vec<u8> {
    match codec {
        Codec::None => bytes.to_vec(),
        Codec::Snappy => snappy(bytes),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            encoder.write_all(bytes).and_then(|()| encoder.finish())
        }
        .expect("memory takes every write"),
        Codec::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(bytes).expect("memory takes every write");
            encoder.finish().expect("memory takes every write")
        }
        Codec::Zstd => zstd::stream::encode_all(bytes, zstd::DEFAULT_COMPRESSION_LEVEL)
            .expect("memory takes every write"),
    }
}

/// What is unpacked by doubling; more gets the room for all that it may become at once.
/// Room that is not written to costs nothing, but a doubling that is moved has both.
const DOUBLED_BYTES_MAX: usize = 4 << 20;
/// A limit above this is none, and no room is made for it.
const ROOM_BYTES_MAX: usize = 1 << 30;

/// Reads to the end, but no further than one byte past the limit.
fn drain(codec: Codec, from: impl Read, limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    let stop = limit.saturating_add(1);
    let first = stop.min(DOUBLED_BYTES_MAX);
    let mut from = from.take(first as u64);
    let mut read = from.read_to_end(&mut out);
    if read.is_ok() && out.len() == first {
        out.reserve_exact(stop.min(ROOM_BYTES_MAX) - first);
        from.set_limit((stop - first) as u64);
        read = from.read_to_end(&mut out);
    }
    read.map_err(|error| corrupt(codec, error))?;
    if out.len() > limit {
        return Err(CodecError::TooLarge { codec, limit });
    }
    Ok(out)
}

/// lz4_flex takes the input's end for the frame's; only the end mark is.
fn unlz4(bytes: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    struct Watched<'a> {
        rest: &'a [u8],
        ran_out: bool,
    }
    impl Read for Watched<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let n = self.rest.read(to)?;
            self.ran_out |= n == 0 && !to.is_empty();
            Ok(n)
        }
    }
    let from = Watched {
        rest: bytes,
        ran_out: false,
    };
    let mut decoder = lz4_flex::frame::FrameDecoder::new(from);
    let out = drain(Codec::Lz4, &mut decoder, limit)?;
    if decoder.get_ref().ran_out {
        let why = "the frame is cut off".to_owned();
        return Err(CodecError::Corrupt {
            codec: Codec::Lz4,
            why,
        });
    }
    Ok(out)
}

fn corrupt(codec: Codec, error: io::Error) -> CodecError {
    CodecError::Corrupt {
        codec,
        why: error.to_string(),
    }
}

// -- snappy

const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// Magic, version, oldest version that can read it.
const XERIAL_HEADER_LEN: usize = 16;
/// Java's default; a block is at most 32 KiB before it is packed.
const XERIAL_BLOCK: usize = 32 << 10;

fn unsnappy(bytes: &[u8], limit: usize) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    if !bytes.starts_with(XERIAL_MAGIC) {
        unsnappy_block(bytes, &mut out, limit)?;
        return Ok(out);
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        // Streams may be joined end to end, each with its header.
        if rest.starts_with(XERIAL_MAGIC) {
            let Some((_, behind)) = rest.split_at_checked(XERIAL_HEADER_LEN) else {
                return Err(bad_snappy("the header is cut off"));
            };
            rest = behind;
            continue;
        }
        let Some((len, behind)) = rest.split_first_chunk::<4>() else {
            return Err(bad_snappy("a block's length is cut off"));
        };
        let len = usize::try_from(i32::from_be_bytes(*len))
            .map_err(|_| bad_snappy("a block's length is negative"))?;
        let Some((block, behind)) = behind.split_at_checked(len) else {
            return Err(bad_snappy("a block is cut off"));
        };
        unsnappy_block(block, &mut out, limit)?;
        rest = behind;
    }
    Ok(out)
}

/// A block says its size in front; it is believed only up to what its bytes can
/// unpack to. A copy of 64 bytes takes 3 bytes, so 22 to 1 at best.
fn unsnappy_block(block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), CodecError> {
    let corrupt = |error: snap::Error| bad_snappy(&error.to_string());
    let len = snap::raw::decompress_len(block).map_err(corrupt)?;
    if len > limit - out.len() {
        return Err(CodecError::TooLarge {
            codec: Codec::Snappy,
            limit,
        });
    }
    if len / 64 > block.len() {
        return Err(bad_snappy(
            "a block is too short for the size that it claims",
        ));
    }
    let start = out.len();
    out.resize(start + len, 0);
    let got = snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(corrupt)?;
    out.truncate(start + got);
    Ok(())
}

fn bad_snappy(why: &str) -> CodecError {
    CodecError::Corrupt {
        codec: Codec::Snappy,
        why: why.to_owned(),
    }
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    let mut out = XERIAL_MAGIC.to_vec();
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    for block in bytes.chunks(XERIAL_BLOCK) {
        let packed = snap::raw::Encoder::new()
            .compress_vec(block)
            .expect("a block of 32 KiB");
        out.extend_from_slice(&(packed.len() as i32).to_be_bytes());
        out.extend_from_slice(&packed);
    }
    out
}
