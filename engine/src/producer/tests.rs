use super::*;
use crate::batch::{Batch, BatchBuilder};
use crate::codec::Codec;
use crate::crc;
use proptest::prelude::*;

const SEVEN: ProducerId = ProducerId(7);

/// A log that numbers what it is given, as a partition does.
#[derive(Clone, Default)]
struct Log {
    state: ProducerState,
    end: i64,
    batches: Vec<Vec<u8>>,
}

impl Log {
    fn append(&mut self, builder: BatchBuilder, records: i32, timestamp: i64) -> Offset {
        let base = Offset(self.end);
        let mut builder = builder.base_offset(base);
        for _ in 0..records {
            builder = builder.record(TimestampMs(timestamp), None, Some(b"x"));
        }
        let bytes = builder.finish();
        self.state.apply(&Batch::parse(&bytes).unwrap());
        self.end += i64::from(records);
        self.batches.push(bytes);
        base
    }

    /// As a client sends it: checked, then appended where it is fresh.
    fn send(
        &mut self,
        id: ProducerId,
        epoch: i16,
        first: i32,
        records: i32,
    ) -> Result<Check, SequenceError> {
        let epoch = ProducerEpoch(epoch);
        let check = self
            .state
            .check(id, epoch, first, sequence_plus(first, records - 1))?;
        if check == Check::Fresh {
            self.append(
                BatchBuilder::new(Codec::None).producer(id, epoch, first),
                records,
                1000,
            );
        }
        Ok(check)
    }

    fn marker(&mut self, id: ProducerId, epoch: i16) {
        let builder = BatchBuilder::new(Codec::None).control().transactional();
        self.append(builder.producer(id, ProducerEpoch(epoch), -1), 1, 1000);
    }

    /// The state of the first `n` batches, as recovery builds it.
    fn replayed(&self, n: usize) -> ProducerState {
        let mut state = ProducerState::new(Offset::ZERO);
        for bytes in &self.batches[..n] {
            state.apply(&Batch::parse(bytes).unwrap());
        }
        state
    }
}

fn duplicate(base: i64, last: i64) -> Result<Check, SequenceError> {
    Ok(Check::Duplicate {
        base_offset: Offset(base),
        last_offset: Offset(last),
        timestamp: TimestampMs(1000),
    })
}

fn gap(epoch: i16, is: i32, expected: i32) -> Result<Check, SequenceError> {
    let epoch = ProducerEpoch(epoch);
    Err(SequenceError::OutOfOrderSequence {
        producer: SEVEN,
        epoch,
        is,
        expected,
    })
}

#[test]
fn a_retry_of_the_last_five_is_answered_with_its_offsets() {
    let mut log = Log::default();
    for n in 0..6 {
        assert_eq!(log.send(SEVEN, 0, n * 3, 3), Ok(Check::Fresh));
    }
    for n in 1..6 {
        let base = i64::from(n) * 3;
        assert_eq!(
            log.send(SEVEN, 0, n * 3, 3),
            duplicate(base, base + 2),
            "batch {n}"
        );
    }
    assert_eq!(
        log.send(SEVEN, 0, 0, 3),
        gap(0, 0, 18),
        "the sixth from the end is forgotten"
    );
    assert_eq!(
        log.send(SEVEN, 0, 15, 2),
        gap(0, 15, 18),
        "the same start, another end"
    );
    assert_eq!(log.end, 18);
}

#[test]
fn a_gap_is_refused_and_the_next_one_taken() {
    let mut log = Log::default();
    assert_eq!(log.send(SEVEN, 0, 0, 5), Ok(Check::Fresh));
    assert_eq!(log.send(SEVEN, 0, 6, 1), gap(0, 6, 5));
    assert_eq!(log.send(SEVEN, 0, 5, 1), Ok(Check::Fresh));
}

#[test]
fn after_the_largest_sequence_comes_zero() {
    let mut log = Log::default();
    assert_eq!(
        log.send(SEVEN, 0, i32::MAX - 1, 1),
        Ok(Check::Fresh),
        "unknown: starts anywhere"
    );
    assert_eq!(
        log.send(SEVEN, 0, i32::MAX, 3),
        Ok(Check::Fresh),
        "over the end: MAX, 0, 1"
    );
    assert_eq!(log.send(SEVEN, 0, i32::MAX, 3), duplicate(1, 3));
    assert_eq!(log.send(SEVEN, 0, 2, 1), Ok(Check::Fresh));
    let mut log = Log::default();
    assert_eq!(log.send(SEVEN, 0, i32::MAX, 1), Ok(Check::Fresh));
    assert_eq!(log.send(SEVEN, 0, 0, 1), Ok(Check::Fresh));
}

#[test]
fn a_new_epoch_starts_at_zero_and_fences_the_old() {
    let mut log = Log::default();
    assert_eq!(log.send(SEVEN, 4, 100, 1), Ok(Check::Fresh));
    assert_eq!(log.send(SEVEN, 5, 101, 1), gap(5, 101, 0));
    assert_eq!(log.send(SEVEN, 5, 0, 1), Ok(Check::Fresh));
    let fenced = SequenceError::InvalidProducerEpoch {
        producer: SEVEN,
        is: ProducerEpoch(4),
        current: ProducerEpoch(5),
    };
    assert_eq!(log.send(SEVEN, 4, 101, 1), Err(fenced));
    assert_eq!(log.send(SEVEN, 4, 100, 1), Err(fenced), "not even a retry");
    assert_eq!(
        log.send(ProducerId(8), 0, 55, 1),
        Ok(Check::Fresh),
        "another producer"
    );
}

#[test]
fn a_marker_may_bring_an_epoch_whose_first_batch_starts_at_zero() {
    let mut log = Log::default();
    assert_eq!(log.send(SEVEN, 4, 0, 2), Ok(Check::Fresh));
    log.marker(SEVEN, 5);
    assert!(matches!(
        log.send(SEVEN, 4, 2, 1),
        Err(SequenceError::InvalidProducerEpoch { .. })
    ));
    assert_eq!(log.send(SEVEN, 5, 2, 1), gap(5, 2, 0));
    assert_eq!(log.send(SEVEN, 5, 0, 1), Ok(Check::Fresh));
}

/// A marker of the same epoch is not a batch: sequences go on over it.
#[test]
fn sequences_go_on_over_a_marker() {
    let mut log = Log::default();
    assert_eq!(log.send(SEVEN, 0, 0, 2), Ok(Check::Fresh));
    log.marker(SEVEN, 0);
    assert_eq!(log.send(SEVEN, 0, 0, 2), duplicate(0, 1));
    assert_eq!(log.send(SEVEN, 0, 2, 1), Ok(Check::Fresh));
}

#[test]
fn expiry_counts_from_the_last_batch_and_spares_open_transactions() {
    let mut log = Log::default();
    let of = |id| BatchBuilder::new(Codec::None).producer(ProducerId(id), ProducerEpoch(0), 0);
    log.append(of(1), 1, 1000);
    log.append(of(2), 1, 2000);
    log.append(of(3).transactional(), 1, 1000);
    assert_eq!(log.state.expire(TimestampMs(1999), 1000), 0);
    assert_eq!(log.state.expire(TimestampMs(2000), 1000), 1);
    let left: Vec<i64> = log.state.iter().map(|(id, _)| id.0).collect();
    assert_eq!(left, [2, 3]);
    assert_eq!(log.state.first_open_txn_offset(), Some(Offset(2)));
    log.marker(ProducerId(3), 0);
    assert_eq!(log.state.first_open_txn_offset(), None);
    assert_eq!(log.state.expire(TimestampMs(i64::MAX), 1000), 2);
    assert!(log.state.is_empty());
    assert_eq!(
        log.send(ProducerId(1), 0, 77, 1),
        Ok(Check::Fresh),
        "forgotten: starts anywhere"
    );
}

#[test]
fn a_cut_gives_back_the_state_before_or_says_that_it_cannot() {
    let mut log = Log::default();
    for n in 0..4 {
        log.send(SEVEN, 0, n, 1).unwrap();
    }
    let mut cut = log.state.clone();
    assert!(cut.truncate_to(Offset(2)));
    assert_eq!(cut, log.replayed(2));
    assert!(!cut.truncate_to(Offset(0)), "no batch of the producer left");
    assert!(cut.is_empty());

    log.send(SEVEN, 0, 4, 1).unwrap();
    assert!(log.state.clone().truncate_to(Offset(5)), "nothing to cut");
    assert!(
        !log.state.clone().truncate_to(Offset(4)),
        "five: a sixth may be missing"
    );
}

// -- snapshots

#[test]
fn a_snapshot_is_the_state() {
    let mut log = Log::default();
    for n in 0..9 {
        log.send(SEVEN, 3, n, 1).unwrap();
        log.send(ProducerId(i64::from(n) << 40), 0, 500, 2).unwrap();
    }
    let txn = BatchBuilder::new(Codec::None).producer(ProducerId(9), ProducerEpoch(1), 0);
    log.append(txn.transactional(), 3, 5000);
    log.marker(ProducerId(11), 8);
    let state = ProducerState::decode_snapshot(&log.state.encode_snapshot()).unwrap();
    assert_eq!(state, log.state);
    assert_eq!(state.next_offset(), Offset(log.end));
    assert_eq!(state.first_open_txn_offset(), Some(Offset(27)));
}

/// Byte by byte from the table in `snapshot.rs`.
#[test]
fn golden_snapshot() {
    let mut log = Log::default();
    log.send(SEVEN, 2, 5, 3).unwrap();
    #[rustfmt::skip]
    let mut golden = vec![
        b'K', b'L', b'M', b'P', b'R', b'O', b'D', b'S',
        0, 0, 0, 1,                              // version
        0, 0, 0, 0,                              // crc: below
        0, 0, 0, 0, 0, 0, 0, 3,                  // nextOffset
        0, 0, 0, 1,                              // count
        0, 0, 0, 0, 0, 0, 0, 7,                  // producerId
        0, 2,                                    // epoch
        0xff, 0xff, 0xff, 0xff,                  // coordinatorEpoch: -1
        0, 0, 0, 0, 0, 0, 0x03, 0xe8,            // lastTimestamp: 1000
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // currentTxnFirstOffset: none
        1,                                       // batches
        0, 0, 0, 5,                              // firstSequence
        0, 0, 0, 7,                              // lastSequence
        0, 0, 0, 0, 0, 0, 0, 0,                  // baseOffset
        0, 0, 0, 0, 0, 0, 0, 2,                  // lastOffset
        0, 0, 0, 0, 0, 0, 0x03, 0xe8,            // timestamp
    ];
    let crc = crc::iso_hdlc_of(&[&golden[8..12], &golden[16..]]);
    golden[12..16].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(log.state.encode_snapshot(), golden);
    assert_eq!(ProducerState::decode_snapshot(&golden), Ok(log.state));
}

#[test]
fn a_changed_snapshot_is_refused_at_every_bit_and_every_cut() {
    let mut log = Log::default();
    log.send(SEVEN, 2, 5, 3).unwrap();
    let good = log.state.encode_snapshot();
    for bit in 0..8 * good.len() {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        ProducerState::decode_snapshot(&bytes).expect_err("a flipped bit");
    }
    for cut in 0..good.len() {
        ProducerState::decode_snapshot(&good[..cut]).expect_err("cut off");
    }
}

/// Kafka's own `.snapshot` of a folder that is taken over is none of ours.
#[test]
fn kafkas_snapshot_is_not_taken_for_ours() {
    let kafkas = [0, 1, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0];
    assert_eq!(
        ProducerState::decode_snapshot(&kafkas),
        Err(SnapshotError::Magic)
    );
}

/// Makes the CRC right again, so that what is behind it is reached.
fn forged(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() >= 16 {
        bytes[..8].copy_from_slice(b"KLMPRODS");
        bytes[8..12].copy_from_slice(&1u32.to_be_bytes());
        let crc = crc::iso_hdlc_of(&[&bytes[8..12], &bytes[16..]]);
        bytes[12..16].copy_from_slice(&crc.to_be_bytes());
    }
    bytes
}

#[test]
fn a_sound_checksum_does_not_make_sound_contents() {
    let mut log = Log::default();
    log.send(SEVEN, 2, 5, 3).unwrap();
    let good = log.state.encode_snapshot();
    for (what, at, byte) in [
        ("a count beyond the bytes", 24, 0x7f),
        ("a negative next offset", 16, 0x80),
        ("a negative producer", 28, 0x80),
        ("a transaction in the future", 50, 0x00),
        ("six batches", 58, 6),
        ("a negative sequence", 59, 0x80),
        ("a batch behind the end", 82, 3),
    ] {
        let mut bytes = good.clone();
        bytes[at] = byte;
        let result = ProducerState::decode_snapshot(&forged(bytes));
        assert!(
            matches!(result, Err(SnapshotError::Invalid { .. })),
            "{what}: {result:?}"
        );
    }
}

// -- against a model

/// The rules as one would say them: all batches of a producer, newest last.
#[derive(Default)]
struct Model(BTreeMap<i64, Vec<(i16, i32, i32, i64)>>);

impl Model {
    fn check(&self, id: i64, epoch: i16, first: i32, last: i32) -> Result<Option<i64>, u8> {
        let Some(all) = self.0.get(&id) else {
            return Ok(None);
        };
        let newest = all.last().unwrap();
        if epoch < newest.0 {
            return Err(47);
        }
        let incarnation = all
            .iter()
            .rev()
            .take_while(|batch| batch.0 == newest.0)
            .take(5);
        for &(e, f, l, base) in incarnation {
            if (e, f, l) == (epoch, first, last) {
                return Ok(Some(base));
            }
        }
        let next = match newest.2 {
            _ if epoch > newest.0 => 0,
            i32::MAX => 0,
            last => last + 1,
        };
        if first == next { Ok(None) } else { Err(45) }
    }
}

proptest! {
    #[test]
    fn checks_are_the_models(
        sends in prop::collection::vec(
            (0i64..3, 0i16..3, -7i64..3, prop_oneof![Just(true), Just(false)], 1i32..3),
            1..120,
        ),
    ) {
        let mut log = Log::default();
        let mut model = Model::default();
        for (id, epoch, around, restart, records) in sends {
            // Near where the producer is, which is near the end of the numbers.
            let newest = model.0.get(&id).and_then(|all| all.last());
            let near = newest.map_or(i32::MAX - 4, |batch| batch.2);
            let first = if restart { 0 } else { (i64::from(near) + around).rem_euclid(1 << 31) as i32 };
            let last = sequence_plus(first, records - 1);
            let expected = model.check(id, epoch, first, last);
            let end = log.end;
            let got = match log.send(ProducerId(id), epoch, first, records) {
                Ok(Check::Fresh) => Ok(None),
                Ok(Check::Duplicate { base_offset, .. }) => Ok(Some(base_offset.0)),
                Err(SequenceError::OutOfOrderSequence { .. }) => Err(45),
                Err(SequenceError::InvalidProducerEpoch { .. }) => Err(47),
            };
            prop_assert_eq!(got, expected);
            prop_assert_eq!(log.end > end, expected == Ok(None));
            if expected == Ok(None) {
                model.0.entry(id).or_default().push((epoch, first, last, end));
            }
        }
        let snapshot = ProducerState::decode_snapshot(&log.state.encode_snapshot());
        prop_assert_eq!(snapshot.as_ref(), Ok(&log.state));
        prop_assert_eq!(log.replayed(log.batches.len()), log.state.clone());
    }

    /// Whatever was appended, a cut is exact or says that it is not.
    #[test]
    fn cuts_are_exact_or_refused(
        appends in prop::collection::vec((0i64..4, 0i16..2, 0u8..8), 1..30),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut log = Log::default();
        for (n, (id, epoch, kind)) in (0..).zip(appends) {
            let builder = BatchBuilder::new(Codec::None);
            let (id, epoch) = (ProducerId(id), ProducerEpoch(epoch));
            match kind {
                0 => log.marker(id, epoch.0),
                1 => drop(log.append(builder, 2, n)),
                2 => drop(log.append(builder.producer(id, epoch, n as i32).transactional(), 1, n)),
                _ => drop(log.append(builder.producer(id, epoch, n as i32), 1, n)),
            }
        }
        let keep = keep.index(log.batches.len() + 1);
        let expected = log.replayed(keep);
        let mut cut = log.state.clone();
        if cut.truncate_to(expected.next_offset()) {
            let told = |state: &ProducerState| {
                state.iter().map(|(id, p)| (id, p.clone())).collect::<Vec<_>>()
            };
            prop_assert_eq!(told(&cut), told(&expected));
            prop_assert_eq!(cut.next_offset(), expected.next_offset());
        } else {
            prop_assert!(cut.is_empty());
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = ProducerState::decode_snapshot(&bytes);
        let mut bytes = forged(bytes);
        let _ = ProducerState::decode_snapshot(&bytes);
        if let Some(count) = bytes.get_mut(24..28) {
            count.copy_from_slice(&[0, 0, 0, 2]);
        }
        if let Ok(state) = ProducerState::decode_snapshot(&forged(bytes)) {
            let again = ProducerState::decode_snapshot(&state.encode_snapshot());
            prop_assert_eq!(again, Ok(state));
        }
    }
}
