//! What a handler gives back, and how it becomes bytes.
//!
//! ```text
//!  Answer::Send  [ size i32 | response header | body ............... ]
//!                [ Bytes              | Memory  | Bytes | File ..... ]   parts
//! ```
//!
//! An answer is a list of parts, so that records leave from where they lie: memory by
//! `sendmsg`, ranges of files by `sendfile` (outbox.rs).

use crate::kafka::limits::Permit;
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::protocol::Encodable;
use klamm_engine::io::Io;
use klamm_engine::slice::{FilePiece, Piece};
use klamm_engine::tail::Chunk;
use klamm_engine::units::BytePos;
use std::rc::Rc;

/// A piece of an answer.
pub enum Part<I: Io> {
    Bytes(Bytes),
    /// Records in the log's tail; the chunk stays as long as it is being sent.
    Memory {
        chunk: Rc<Chunk<I>>,
        from: BytePos,
        to: BytePos,
    },
    /// Records in a segment's file; sent without coming to this process.
    File(FilePiece),
    /// No byte: a share of the shard's budget, given back once all before it is sent.
    Held(Permit),
}

impl<I: Io> Part<I> {
    /// The bytes, where they are at hand.
    pub fn in_memory(&self) -> Option<&[u8]> {
        match self {
            Part::Bytes(b) => Some(b),
            Part::Memory { chunk, from, to } => Some(chunk.slice(*from, *to)),
            Part::File(_) => None,
            Part::Held(_) => Some(&[]),
        }
    }

    /// What of the shard's memory it keeps until it is sent.
    pub fn held_bytes(&self) -> usize {
        self.in_memory().map_or(0, <[u8]>::len)
    }

    pub fn len(&self) -> usize {
        match self {
            Part::Bytes(b) => b.len(),
            Part::Memory { from, to, .. } => (to.0 - from.0) as usize,
            Part::File(piece) => (piece.to - piece.from) as usize,
            Part::Held(_) => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        assert!(len <= self.len());
        match self {
            Part::Bytes(b) => b.truncate(len),
            Part::Memory { from, to, .. } => *to = from.plus(len as u64),
            Part::File(piece) => piece.to = piece.from + len as u64,
            Part::Held(_) => {}
        }
    }
}

impl<I: Io> From<Piece<I>> for Part<I> {
    fn from(piece: Piece<I>) -> Part<I> {
        match piece {
            Piece::Memory { chunk, from, to } => Part::Memory { chunk, from, to },
            Piece::File(piece) => Part::File(piece),
            Piece::Bytes(bytes) => Part::Bytes(bytes),
        }
    }
}

/// What happens to a request's connection.
pub enum Answer<I: Io> {
    /// The whole frame, with its size.
    Send(Vec<Part<I>>),
    /// Nothing is sent (a produce with acks=0).
    Nothing,
    /// The connection ends, once the answers before this one are sent. Why, for the log.
    Close(String),
}

/// Which header an answer has. ApiVersions is always [`Header::V0`], so that a
/// client that does not yet know the broker can read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The correlation id.
    V0,
    /// The correlation id and tagged fields, of which there are none.
    V1,
}

impl Header {
    /// Bytes in front of the body: the frame's size and the header.
    pub fn prefix(self) -> usize {
        match self {
            Header::V0 => 8,
            Header::V1 => 9,
        }
    }

    /// Writes size and header in front of a body of `body` bytes.
    pub fn put(self, to: &mut BytesMut, correlation_id: i32, body: usize) -> Result<(), String> {
        let size = self.prefix() - 4 + body;
        let size = i32::try_from(size)
            .map_err(|_| format!("an answer of {size} bytes is beyond what a frame can hold"))?;
        to.put_i32(size);
        to.put_i32(correlation_id);
        if self == Header::V1 {
            to.put_u8(0);
        }
        Ok(())
    }
}

/// Encodes a whole answer. An error is a fault of ours (a field that the version
/// does not have): the connection is closed with a line in the log, since the
/// client would wait for ever for an answer that is missing.
pub fn encode<I: Io, R: Encodable>(
    response: &R,
    header: Header,
    correlation_id: i32,
    version: i16,
) -> Answer<I> {
    let whole = || -> Result<Bytes, String> {
        let body = response.compute_size(version).map_err(|e| e.to_string())?;
        let mut to = BytesMut::with_capacity(header.prefix() + body);
        header.put(&mut to, correlation_id, body)?;
        let at = to.len();
        response
            .encode(&mut to, version)
            .map_err(|e| e.to_string())?;
        if to.len() - at != body {
            return Err(format!(
                "the body was said to have {body} bytes and has {}",
                to.len() - at
            ));
        }
        Ok(to.freeze())
    };
    match whole() {
        Ok(bytes) => Answer::Send(vec![Part::Bytes(bytes)]),
        Err(e) => {
            let what = std::any::type_name::<R>();
            log::error!("an answer could not be encoded ({what}, version {version}): {e}");
            Answer::Close(format!("its answer could not be encoded: {e}"))
        }
    }
}
