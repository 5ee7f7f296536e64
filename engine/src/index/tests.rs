use super::*;
use crate::batch::{Batch, BatchBuilder, Batches, stamp};
use crate::codec::Codec;
use crate::units::LeaderEpoch;
use proptest::prelude::*;

const BASE: Offset = Offset(1000);

/// A segment in memory, and the indexes that its appends made.
#[derive(Clone, Debug)]
struct Segment {
    bytes: Vec<u8>,
    indexes: SegmentIndexes,
}

impl Segment {
    fn new(interval: usize) -> Segment {
        Segment {
            bytes: Vec::new(),
            indexes: SegmentIndexes::new(BASE, interval),
        }
    }

    /// A batch with these timestamps, of a size that depends on `padding`.
    fn append(&mut self, timestamps: &[i64], padding: usize) {
        let mut builder = BatchBuilder::new(Codec::None);
        for &timestamp in timestamps {
            builder = builder.record(TimestampMs(timestamp), None, Some(&vec![b'.'; padding]));
        }
        let mut batch = builder.finish();
        stamp(&mut batch, self.bounds().next_offset, LeaderEpoch(0));
        let position = BytePos(self.bytes.len() as u64);
        self.indexes
            .on_batch(&Batch::parse(&batch).unwrap(), position);
        self.bytes.extend_from_slice(&batch);
    }

    /// Each batch with where it begins.
    fn batches(&self) -> impl Iterator<Item = (BytePos, Batch<'_>)> {
        let mut at = 0;
        Batches::new(&self.bytes).map(move |batch| {
            let batch = batch.unwrap();
            let position = BytePos(at);
            at += batch.size_in_bytes() as u64;
            (position, batch)
        })
    }

    fn bounds(&self) -> SegmentBounds {
        let next_offset = self
            .batches()
            .last()
            .map_or(BASE, |(_, batch)| batch.next_offset());
        SegmentBounds {
            base_offset: BASE,
            next_offset,
            end: BytePos(self.bytes.len() as u64),
        }
    }

    /// Where a walk through everything finds the batch with `offset`.
    fn scan_offset(&self, offset: Offset) -> Option<BytePos> {
        self.batches()
            .find(|(_, batch)| batch.last_offset() >= offset)
            .map(|(at, _)| at)
    }

    fn scan_time(&self, target: TimestampMs) -> Option<BytePos> {
        self.batches()
            .find(|(_, batch)| batch.max_timestamp() >= target)
            .map(|(at, _)| at)
    }
}

/// Batches of 100 bytes at an interval of 250: an entry each third.
fn story() -> Segment {
    let mut segment = Segment::new(250);
    for timestamp in [10, 30, 20, 40, 50, 50, 45, 60, 70] {
        segment.append(&[timestamp], 32);
    }
    let sizes: Vec<usize> = segment
        .batches()
        .map(|(_, batch)| batch.size_in_bytes())
        .collect();
    assert_eq!(sizes, [100; 9]);
    segment
}

#[test]
fn files_are_kafkas_to_the_byte() {
    let mut segment = story();
    #[rustfmt::skip]
    let offsets = [
        0, 0, 0, 3,  0, 0, 0x01, 0x2c,      // offset 1003 at 300
        0, 0, 0, 6,  0, 0, 0x02, 0x58,      // offset 1006 at 600
    ];
    #[rustfmt::skip]
    let times = [
        0, 0, 0, 0, 0, 0, 0, 40,  0, 0, 0, 3,
        0, 0, 0, 0, 0, 0, 0, 50,  0, 0, 0, 4,
    ];
    assert_eq!(segment.indexes.offsets.encode(), offsets);
    assert_eq!(segment.indexes.times.encode(), times);
    // Sealing adds the largest, which no interval has reached.
    segment.indexes.seal();
    let last = [0, 0, 0, 0, 0, 0, 0, 70, 0, 0, 0, 8];
    assert_eq!(segment.indexes.times.encode(), [&times[..], &last].concat());
    assert_eq!(segment.indexes.offsets.encode(), offsets);
}

#[test]
fn an_offset_is_found_from_the_last_entry_not_above_it() {
    let indexes = story().indexes;
    let at = |offset| indexes.position_of(Offset(offset)).0;
    assert_eq!(
        [at(1000), at(1002), at(1003), at(1005), at(1006), at(9999)],
        [0, 0, 300, 300, 600, 600]
    );
    assert_eq!(indexes.offsets.lookup(Offset(0)), (BASE, BytePos::ZERO));
    assert_eq!(
        indexes.offsets.upper_bound(Offset(1003)),
        Some((Offset(1006), BytePos(600)))
    );
    assert_eq!(indexes.offsets.upper_bound(Offset(1006)), None);
    assert_eq!(
        indexes.offsets.last_within(BytePos(599)),
        Some((Offset(1003), BytePos(300)))
    );
    assert_eq!(indexes.offsets.last_within(BytePos(299)), None);
}

#[test]
fn a_time_is_found_from_the_last_entry_not_above_it() {
    let indexes = story().indexes;
    let at = |time| {
        indexes
            .position_at_or_after(TimestampMs(time))
            .map(|at| at.0)
    };
    assert_eq!([at(-5), at(10), at(39)], [Some(0); 3]);
    assert_eq!(
        [at(40), at(50), at(70)],
        [Some(300); 3],
        "1004 began at 400, above its entry"
    );
    assert_eq!(at(71), None);
    assert_eq!(indexes.max_timestamp(), (TimestampMs(70), Offset(1008)));
}

#[test]
fn records_without_time_have_no_time_entry() {
    let mut segment = Segment::new(0);
    for _ in 0..5 {
        segment.append(&[-1], 10);
    }
    segment.indexes.seal();
    assert!(segment.indexes.times.is_empty());
    assert_eq!(segment.indexes.offsets.len(), 4);
    assert_eq!(segment.indexes.position_at_or_after(TimestampMs(0)), None);
}

#[test]
fn a_damaged_file_is_refused() {
    let segment = story();
    let bounds = segment.bounds();
    let offsets = segment.indexes.offsets.encode();
    let times = segment.indexes.times.encode();
    let with = |bytes: &[u8], at: usize, byte: u8| {
        let mut bytes = bytes.to_vec();
        bytes[at] = byte;
        bytes
    };
    let offset_fault = |bytes: &[u8]| OffsetIndex::decode(bytes, bounds).unwrap_err();
    let time_fault = |bytes: &[u8]| TimeIndex::decode(bytes, bounds).unwrap_err();
    let error = |entry, fault| IndexError { entry, fault };

    assert_eq!(
        offset_fault(&offsets[1..]),
        error(
            1,
            IndexFault::Size {
                bytes: 15,
                entry: 8
            }
        )
    );
    assert_eq!(
        offset_fault(&[&offsets[8..], &offsets[..8]].concat()),
        error(1, IndexFault::Order)
    );
    assert_eq!(
        offset_fault(&with(&offsets, 3, 6)),
        error(1, IndexFault::Order)
    );
    assert_eq!(
        offset_fault(&with(&offsets, 11, 9)),
        error(1, IndexFault::Offset { relative: 9 })
    );
    let negative = IndexFault::Offset {
        relative: 3 + i32::MIN,
    };
    assert_eq!(offset_fault(&with(&offsets, 0, 0x80)), error(0, negative));
    let behind = IndexFault::Position { is: 0x0f58 };
    assert_eq!(offset_fault(&with(&offsets, 14, 0x0f)), error(1, behind));

    assert_eq!(
        time_fault(&times[..13]),
        error(
            1,
            IndexFault::Size {
                bytes: 13,
                entry: 12
            }
        )
    );
    assert_eq!(
        time_fault(&with(&times, 7, 50)),
        error(1, IndexFault::Order)
    );
    assert_eq!(
        time_fault(&with(&times, 23, 2)),
        error(1, IndexFault::Order)
    );
    assert_eq!(
        time_fault(&with(&times, 23, 9)),
        error(1, IndexFault::Offset { relative: 9 })
    );
    let negative = IndexFault::Timestamp { is: 40 + i64::MIN };
    assert_eq!(time_fault(&with(&times, 0, 0x80)), error(0, negative));
}

/// An index that was preallocated and not cut, as Kafka's is after a crash.
#[test]
fn preallocated_zeros_are_refused() {
    let bounds = story().bounds();
    assert!(OffsetIndex::decode(&[0; 80], bounds).is_err());
    assert!(TimeIndex::decode(&[0; 120], bounds).is_err());
}

/// What is sealed is decoded to the same answers.
fn reopened(segment: &Segment) -> SegmentIndexes {
    let mut sealed = segment.indexes.clone();
    sealed.seal();
    let (offsets, times) = (sealed.offsets.encode(), sealed.times.encode());
    SegmentIndexes::decode(&offsets, &times, segment.bounds(), 1).unwrap()
}

fn segments() -> impl Strategy<Value = Segment> {
    let batch = (prop::collection::vec(-1i64..500, 1..4), 0usize..300);
    (0usize..600, prop::collection::vec(batch, 0..40)).prop_map(|(interval, batches)| {
        let mut segment = Segment::new(interval);
        for (timestamps, padding) in batches {
            segment.append(&timestamps, padding);
        }
        segment
    })
}

/// A lookup leads to a batch's begin, not behind the one that a scan of the whole
/// segment finds, and no more before it than the interval and two batches.
fn check_lookups(segment: &Segment, indexes: &SegmentIndexes) -> Result<(), TestCaseError> {
    let begins: Vec<BytePos> = segment.batches().map(|(at, _)| at).collect();
    let longest = segment
        .batches()
        .map(|(_, batch)| batch.size_in_bytes())
        .max()
        .unwrap_or(0);
    let far = (segment.indexes.interval + 2 * longest) as u64;
    for offset in BASE.0..segment.bounds().next_offset.0 {
        let truth = segment.scan_offset(Offset(offset)).unwrap();
        let found = indexes.position_of(Offset(offset));
        prop_assert!(found <= truth && begins.contains(&found));
        prop_assert!(truth.0 - found.0 <= far, "{} from {}", truth, found);
    }
    for target in (0..502).map(TimestampMs) {
        match (
            segment.scan_time(target),
            indexes.position_at_or_after(target),
        ) {
            (Some(truth), Some(found)) => {
                prop_assert!(found <= truth && begins.contains(&found));
            }
            (truth, found) => prop_assert_eq!(truth, found),
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn lookups_lead_to_what_a_scan_finds(segment in segments()) {
        check_lookups(&segment, &segment.indexes)?;
        check_lookups(&segment, &reopened(&segment))?;
    }

    /// Cutting and walking the rest again is as if the cut had never been written.
    #[test]
    fn a_cut_segment_has_the_indexes_of_a_shorter_one(
        segment in segments(),
        keep in any::<prop::sample::Index>(),
        seal in any::<bool>(),
        more in prop::collection::vec(0i64..500, 0..10),
    ) {
        let batches: Vec<_> = segment.batches().collect();
        let keep = keep.index(batches.len() + 1);
        let bounds = segment.bounds();
        let (end, cut) =
            batches.get(keep).map_or((bounds.end, bounds.next_offset), |(at, b)| (*at, b.base_offset()));

        let mut shorter = SegmentIndexes::new(BASE, segment.indexes.interval);
        for (at, batch) in &batches[..keep] {
            shorter.on_batch(batch, *at);
        }
        let mut indexes = segment.indexes.clone();
        if seal {
            indexes.seal();
        }
        let from = indexes.truncate_to(cut);
        for (at, batch) in batches[..keep].iter().filter(|(at, _)| *at >= from) {
            indexes.on_batch(batch, *at);
        }
        prop_assert_eq!(indexes.offsets.encode(), shorter.offsets.encode());
        prop_assert_eq!(indexes.max_timestamp(), shorter.max_timestamp());
        prop_assert_eq!(indexes.since_entry, shorter.since_entry);

        // Its time entries may be closer, so they are held against the records.
        let mut bytes = segment.bytes.clone();
        bytes.truncate(end.0 as usize);
        let mut segment = Segment { bytes, indexes };
        for timestamp in more {
            segment.append(&[timestamp], 100);
        }
        check_lookups(&segment, &segment.indexes)?;
        check_lookups(&segment, &reopened(&segment))?;
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(1u8), any::<u8>()], 0..60),
    ) {
        let base_offset = Offset(i64::MAX - 70_000);
        let next_offset = Offset(i64::MAX);
        let bounds = SegmentBounds { base_offset, next_offset, end: BytePos(1 << 20) };
        if let Ok(index) = OffsetIndex::decode(&bytes, bounds) {
            prop_assert!(index.lookup(Offset(i64::MAX)).1 < bounds.end);
            prop_assert_eq!(index.encode(), bytes.clone());
        }
        if let Ok(index) = TimeIndex::decode(&bytes, bounds) {
            prop_assert!(index.lookup(TimestampMs(i64::MAX)) < next_offset);
            prop_assert_eq!(index.encode(), bytes);
        }
    }
}
