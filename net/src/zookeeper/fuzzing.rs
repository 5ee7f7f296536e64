//! Doors for fuzzers: every record that is decoded from a client's bytes.

use crate::zookeeper::frame;
use crate::zookeeper::jute::{Field, Reader};
use crate::zookeeper::records::*;

/// What is read, written and read again is the same. Not always the same bytes: a text
/// that was none is replaced, a count below -1 is none.
macro_rules! again {
    ($record:ident, $bytes:expr) => {{
        if let Ok(first) = Reader::new($bytes).take::<$record<'_>>() {
            let mut written = Vec::new();
            first.put(&mut written);
            assert!(written.len() <= 3 * $bytes.len() + 8, "{first:?}");
            let second = Reader::new(&written).take::<$record<'_>>();
            assert_eq!(second.as_ref(), Ok(&first));
        }
    }};
}

/// A stream of frames, as a connection reads it: each is decoded as what its header says
/// it is, and also as a connect request.
pub fn fuzz_frames(bytes: &[u8]) {
    let mut rest = bytes;
    while let frame::Front::Whole(payload) = frame::front(rest, 1 << 20) {
        rest = &rest[4 + payload.len()..];
        fuzz_request(payload);
    }
}

/// The payload of one frame.
pub fn fuzz_request(payload: &[u8]) {
    again!(ConnectRequest, payload);
    let mut from = Reader::new(payload);
    let Ok(header) = from.take::<RequestHeader>() else {
        return;
    };
    let body = &payload[payload.len() - from.left()..];
    match header.op {
        op::CREATE | op::CREATE2 | op::CREATE_CONTAINER => again!(CreateRequest, body),
        op::CREATE_TTL => again!(CreateTtlRequest, body),
        op::DELETE | op::CHECK => again!(VersionRequest, body),
        op::EXISTS | op::GET_DATA | op::GET_CHILDREN | op::GET_CHILDREN2 => {
            again!(ReadRequest, body);
        }
        op::SET_DATA => again!(SetDataRequest, body),
        op::SET_ACL => again!(SetAclRequest, body),
        op::GET_ACL
        | op::SYNC
        | op::DELETE_CONTAINER
        | op::GET_EPHEMERALS
        | op::GET_ALL_CHILDREN_NUMBER => again!(PathRequest, body),
        op::MULTI | op::MULTI_READ => fuzz_multi(body),
        op::RECONFIG => again!(ReconfigRequest, body),
        op::CHECK_WATCHES | op::REMOVE_WATCHES | op::ADD_WATCH => {
            again!(WatchesRequest, body);
        }
        op::AUTH => again!(AuthRequest, body),
        op::SET_WATCHES => again!(SetWatchesRequest, body),
        op::SET_WATCHES2 => again!(SetWatches2Request, body),
        op::SASL => again!(SaslToken, body),
        _ => {}
    }
}

fn fuzz_multi(body: &[u8]) {
    let mut from = Reader::new(body);
    while let Ok(header) = from.take::<MultiHeader>() {
        let read = match header.op {
            _ if header.done => return,
            op::CREATE | op::CREATE2 => from.take::<CreateRequest<'_>>().map(drop),
            op::CREATE_TTL => from.take::<CreateTtlRequest<'_>>().map(drop),
            op::DELETE | op::CHECK => from.take::<VersionRequest<'_>>().map(drop),
            op::SET_DATA => from.take::<SetDataRequest<'_>>().map(drop),
            op::GET_DATA | op::GET_CHILDREN => from.take::<ReadRequest<'_>>().map(drop),
            _ => return,
        };
        if read.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn corpus() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/zookeeper_frames")
    }

    #[test]
    fn the_corpus_of_frames() {
        let mut inputs = 0;
        for entry in std::fs::read_dir(corpus()).expect("the corpus") {
            let path = entry.expect("the corpus").path();
            let bytes = std::fs::read(&path).expect("an input");
            std::panic::catch_unwind(|| fuzz_frames(&bytes))
                .unwrap_or_else(|_| panic!("the input was {}", path.display()));
            inputs += 1;
        }
        assert!(inputs >= 20, "a corpus of {inputs}");
    }

    /// Every kind of record, whole and cut short; the fuzzer goes on from these.
    #[test]
    #[ignore = "writes the seeds of the corpus"]
    fn seeds_of_the_corpus_of_frames_are_written() {
        let folder = corpus();
        std::fs::create_dir_all(&folder).expect("the corpus");
        for (name, payload) in crate::zookeeper::testing::every_request() {
            let mut bytes = Vec::new();
            frame::put(&mut bytes, |to| to.extend_from_slice(&payload));
            frame::put(&mut bytes, |to| {
                to.extend_from_slice(&payload[..payload.len() - 1])
            });
            std::fs::write(folder.join(name), bytes).expect("an input");
        }
    }
}
