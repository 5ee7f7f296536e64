//! Doors for fuzzers: everything that the engine does with bytes that it did not write.
//!
//! ```text
//!   fuzz/fuzz_targets/T.rs  --any bytes-->   fuzzing::T   <--fuzz/corpus/T/*--  cargo test
//! ```
//!
//! Each takes any bytes, and panics where a promise is broken: what was taken is what it
//! says it is, limits hold, what is read has its checksum and its place. Most fuzz stops
//! at a checksum, so each input is tried as it is and with its checksums mended.

mod folder;
mod recovery;

pub use folder::Folder;
pub use recovery::recovery;

use crate::batch::{self, Batch, Batches, HEADER_LEN};
use crate::codec::{self, Codec};
use crate::crc;
use crate::epochs::LeaderEpochs;
use crate::index::{OffsetIndex, SegmentBounds, TimeIndex};
use crate::mark::Mark;
use crate::producer::ProducerState;
use crate::sealed_text;
use crate::units::{BytePos, LeaderEpoch, Offset, TimestampMs};

/// What anything may unpack to.
const UNPACKED_MAX: usize = 1 << 20;

/// What a producer sends for a partition.
pub fn record_batch(bytes: &[u8]) {
    one_record_batch(bytes);
    let mut mended = bytes.to_vec();
    mend_batches(&mut mended);
    if mended != bytes {
        one_record_batch(&mended);
    }
}

fn one_record_batch(bytes: &[u8]) {
    if let Ok(taken) = batch::check_from_client(bytes, UNPACKED_MAX) {
        assert_eq!(
            taken.size_in_bytes(),
            bytes.len(),
            "one batch, and all of it"
        );
        let count = taken.record_count();
        assert!(count > 0 && taken.last_offset_delta() == count - 1);
        if taken.codec() == Codec::None {
            let records = taken.records(taken.records_bytes());
            let read: Result<Vec<_>, _> = records.collect();
            let read = read.expect("the records of a batch that was taken");
            assert_eq!(read.len(), usize::try_from(count).expect("positive"));
        }
        let mut stamped = bytes.to_vec();
        batch::stamp(&mut stamped, Offset(1 << 40), LeaderEpoch(7));
        let stamped = Batch::parse(&stamped).expect("a batch that was taken");
        assert_eq!(stamped.base_offset(), Offset(1 << 40));
        stamped
            .verify_crc()
            .expect("the stamp is outside of the CRC");
    }
    let mut batches = Batches::new(bytes);
    while let Some(Ok(batch)) = batches.next() {
        let crc_is_right = batch.verify_crc().is_ok();
        assert_eq!(
            crc_is_right,
            crc::castagnoli(&batch.bytes()[21..]) == batch.crc()
        );
        if let Ok(unpacked) = batch.records_unpacked(UNPACKED_MAX) {
            assert!(unpacked.len() <= UNPACKED_MAX || batch.codec() == Codec::None);
            for record in batch.records(&unpacked).map_while(Result::ok) {
                let _ = batch.offset_of(&record);
                let _ = batch.timestamp_of(&record);
                record.headers.for_each(drop);
            }
        }
        for target in [i64::MIN, 0, i64::MAX] {
            let _ = batch.first_at_or_after(TimestampMs(target), UNPACKED_MAX);
        }
    }
    assert!(batches.position() <= bytes.len());
    let _ = batch::is_zero(bytes);
    if let Some((first, packed)) = bytes.split_first() {
        unpack(Codec::from_id(first % 5).expect("five codecs"), packed);
    }
}

fn unpack(codec: Codec, packed: &[u8]) {
    let limit = 64 << 10;
    let Ok(unpacked) = codec::decompress(codec, packed, limit) else {
        return;
    };
    assert!(unpacked.len() <= limit, "{codec}: {} bytes", unpacked.len());
    let again = codec::decompress(codec, &codec::compress(codec, &unpacked), limit);
    assert_eq!(
        again.as_deref(),
        Ok(&unpacked[..]),
        "{codec}: there and back"
    );
}

/// The small files beside a log: indexes, checkpoints, snapshots, the mark. The first
/// byte says which, the next four how long the segment is.
pub fn small_files(bytes: &[u8]) {
    let Some((head, bytes)) = bytes.split_first_chunk::<5>() else {
        return;
    };
    let bounds = SegmentBounds {
        base_offset: Offset(i64::from(head[1])),
        next_offset: Offset(i64::from(head[1]) + i64::from(head[2]) * 16),
        end: BytePos(u64::from(u16::from_le_bytes([head[3], head[4]])) * 64),
    };
    match head[0] % 6 {
        0 => offset_index(bytes, bounds),
        1 => time_index(bytes, bounds),
        2 => snapshot(bytes),
        3 => {
            if let Ok(epochs) = LeaderEpochs::decode(bytes) {
                let again = LeaderEpochs::decode(epochs.encode().as_bytes());
                let again = again.expect("what we write");
                assert_eq!(again.entries(), epochs.entries());
                for offset in [0, 1, i64::MAX] {
                    let _ = epochs.epoch_at(Offset(offset));
                }
                for epoch in [-1, 0, i32::MAX] {
                    let end = epochs.end_offset_for(LeaderEpoch(epoch), Offset(i64::MAX));
                    assert!(end.is_none_or(|(found, _)| found <= LeaderEpoch(epoch)));
                }
            }
        }
        4 => {
            let mut mended = bytes.to_vec();
            folder::mend_mark(&mut mended);
            for bytes in [bytes, &mended] {
                if let Some(mark) = Mark::decode(bytes) {
                    let mut block = vec![0; crate::io::BLOCK];
                    mark.encode(&mut block);
                    assert_eq!(Mark::decode(&block), Some(mark));
                }
            }
        }
        _ => {
            if let Ok((lines, _)) = sealed_text::open(bytes) {
                assert!(bytes.starts_with(lines.as_bytes()));
            }
        }
    }
}

fn offset_index(bytes: &[u8], bounds: SegmentBounds) {
    let Ok(mut index) = OffsetIndex::decode(bytes, bounds) else {
        return;
    };
    assert_eq!(index.encode(), bytes);
    for offset in [bounds.base_offset.0, bounds.next_offset.0, 0, i64::MAX] {
        let (at, position) = index.lookup(Offset(offset));
        assert!(at <= Offset(offset.max(bounds.base_offset.0)) && position <= bounds.end);
        let _ = index.upper_bound(Offset(offset));
    }
    let _ = index.last_within(bounds.end);
    index.truncate_to(Offset(bounds.base_offset.0 + 5));
    let below = |(offset, _): (Offset, _)| offset.0 < bounds.base_offset.0 + 5;
    assert!(index.last().is_none_or(below));
}

fn time_index(bytes: &[u8], bounds: SegmentBounds) {
    let Ok(mut index) = TimeIndex::decode(bytes, bounds) else {
        return;
    };
    assert_eq!(index.encode(), bytes);
    for time in [i64::MIN, -1, 0, 1 << 40, i64::MAX] {
        let _ = index.lookup(TimestampMs(time));
        let floor = index.floor(TimestampMs(time));
        assert!(floor.is_none_or(|(at, _)| at <= TimestampMs(time)));
    }
    let _ = index.last_below(bounds.next_offset);
    index.truncate_to(Offset(bounds.base_offset.0 + 5));
    let below = |(_, offset): (_, Offset)| offset.0 < bounds.base_offset.0 + 5;
    assert!(index.last().is_none_or(below));
}

fn snapshot(bytes: &[u8]) {
    let mut mended = bytes.to_vec();
    folder::mend_snapshot(&mut mended);
    for bytes in [bytes, &mended] {
        if let Ok(state) = ProducerState::decode_snapshot(bytes) {
            assert_eq!(state.encode_snapshot(), bytes, "one form of each state");
        }
    }
}

/// Gives each batch that lies whole in `bytes` the CRC that it should have.
fn mend_batches(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + HEADER_LEN) {
        let length = i32::from_be_bytes(head[8..12].try_into().expect("four bytes"));
        let Ok(length) = usize::try_from(length) else {
            return;
        };
        let end = at + 12 + length;
        if length + 12 < HEADER_LEN || end > bytes.len() {
            return;
        }
        let crc = crc::castagnoli(&bytes[at + 21..end]);
        bytes[at + 17..at + 21].copy_from_slice(&crc.to_be_bytes());
        at = end;
    }
}

#[cfg(test)]
mod tests;
