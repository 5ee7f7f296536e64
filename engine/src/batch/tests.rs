use super::*;
use crate::codec::compress;
use crate::record::{Header, RecordFault};
use proptest::prelude::*;

const LIMIT: usize = 1 << 20;

/// A record as a story tells it: timestamp, key, value, headers.
type Told = (
    i64,
    Option<Vec<u8>>,
    Option<Vec<u8>>,
    Vec<(Vec<u8>, Option<Vec<u8>>)>,
);

fn retell(batch: &Batch<'_>) -> Vec<Told> {
    let unpacked = batch.records_unpacked(LIMIT).unwrap();
    let told = batch.records(&unpacked).map(|record| {
        let record = record.unwrap();
        let headers = record
            .headers
            .map(|Header { key, value }| (key.into(), value.map(Vec::from)));
        (
            batch.timestamp_of(&record).0,
            record.key.map(Vec::from),
            record.value.map(Vec::from),
            headers.collect(),
        )
    });
    told.collect()
}

fn one(value: &[u8]) -> Vec<u8> {
    BatchBuilder::new(Codec::None)
        .record(TimestampMs(1000), Some(b"k"), Some(value))
        .finish()
}

fn three() -> Vec<u8> {
    BatchBuilder::new(Codec::None)
        .record(TimestampMs(1000), Some(b"a"), Some(b"one"))
        .record(TimestampMs(1005), None, Some(b"two"))
        .record(TimestampMs(1002), Some(b"c"), None)
        .finish()
}

/// Changes a byte and makes the CRC right again, as a hostile client would.
fn forged(mut batch: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc::castagnoli(&batch[CRC_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn refused(bytes: &[u8]) -> BatchFault {
    check_from_client(bytes, LIMIT).expect_err("refused").fault
}

// -- the format

/// Byte by byte from the table at the top of `batch.rs`.
#[rustfmt::skip]
const GOLDEN: [u8; 81] = [
    0, 0, 0, 0, 0, 0, 0, 42,             // baseOffset
    0, 0, 0, 69,                         // batchLength: 81 - 12
    0, 0, 0, 7,                          // partitionLeaderEpoch
    2,                                   // magic
    0x16, 0x9a, 0xcb, 0x82,              // crc
    0, 0b0001_0000,                      // attributes: transactional
    0, 0, 0, 0,                          // lastOffsetDelta
    0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0,  // baseTimestamp: 1,700,000,000,000
    0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0,  // maxTimestamp
    0, 0, 0, 0, 0, 0, 0x12, 0x67,        // producerId: 4711
    0, 3,                                // producerEpoch
    0, 0, 0, 9,                          // baseSequence
    0, 0, 0, 1,                          // recordCount
    // the record; varints are zigzag, so each number is doubled
    38,                                  // length: 19
    0,                                   // attributes
    0,                                   // timestampDelta
    0,                                   // offsetDelta
    2, b'k',                             // key
    10, b'k', b'l', b'a', b'm', b'm',    // value
    4,                                   // two headers
    2, b'h', 2, b'1',                    // h = 1
    2, b'h', 1,                          // h again, null
];

#[test]
fn golden_bytes_are_read() {
    let batch = Batch::parse(&GOLDEN).unwrap();
    batch.verify_crc().unwrap();
    assert_eq!(batch.base_offset(), Offset(42));
    assert_eq!(batch.last_offset(), Offset(42));
    assert_eq!(batch.next_offset(), Offset(43));
    assert_eq!(batch.size_in_bytes(), 81);
    assert_eq!(batch.leader_epoch(), LeaderEpoch(7));
    assert_eq!(batch.codec(), Codec::None);
    assert_eq!(batch.timestamp_type(), TimestampType::CreateTime);
    assert!(batch.is_transactional() && !batch.is_control());
    assert_eq!(batch.delete_horizon(), None);
    assert_eq!(batch.base_timestamp(), TimestampMs(1_700_000_000_000));
    assert_eq!(batch.max_timestamp(), TimestampMs(1_700_000_000_000));
    assert_eq!(batch.producer_id(), ProducerId(4711));
    assert_eq!(batch.producer_epoch(), ProducerEpoch(3));
    assert_eq!((batch.base_sequence(), batch.last_sequence()), (9, 9));
    assert_eq!(batch.record_count(), 1);
    let headers = vec![(b"h".to_vec(), Some(b"1".to_vec())), (b"h".to_vec(), None)];
    let record = (
        1_700_000_000_000,
        Some(b"k".to_vec()),
        Some(b"klamm".to_vec()),
        headers,
    );
    assert_eq!(retell(&batch), [record]);
}

#[test]
fn golden_bytes_are_written() {
    let mut builder = BatchBuilder::new(Codec::None)
        .base_offset(Offset(42))
        .leader_epoch(LeaderEpoch(7))
        .producer(ProducerId(4711), ProducerEpoch(3), 9)
        .transactional();
    builder.push(NewRecord {
        timestamp: TimestampMs(1_700_000_000_000),
        key: Some(b"k"),
        value: Some(b"klamm"),
        headers: &[(b"h", Some(b"1")), (b"h", None)],
    });
    assert_eq!(builder.finish(), GOLDEN);
}

macro_rules! fixture {
    ($name:literal) => {
        (
            $name,
            include_bytes!(concat!("fixtures/", $name, ".batch")).as_slice(),
        )
    };
}

/// What the fixtures' README says is in them.
fn fixture_records() -> Vec<Told> {
    let bytes = |s: &str| s.as_bytes().to_vec();
    vec![
        (
            1_700_000_000_000,
            Some(bytes("key-0")),
            Some(bytes("value-0")),
            vec![],
        ),
        (
            1_700_000_000_250,
            None,
            Some(bytes("no key")),
            vec![
                (bytes("a"), Some(bytes("1"))),
                (bytes("a"), Some(bytes("2"))),
                (bytes("null"), None),
            ],
        ),
        (
            1_699_999_999_000,
            Some(vec![]),
            Some(vec![]),
            vec![(vec![], Some(vec![]))],
        ),
        (1_700_000_001_000, Some(bytes("tombstone")), None, vec![]),
        (
            1_700_000_001_000,
            Some(bytes("long")),
            Some(bytes(&"klamm ".repeat(500))),
            vec![(bytes(&"h".repeat(70)), Some(bytes(&"v".repeat(130))))],
        ),
    ]
}

#[test]
fn batches_of_other_writers_are_read_with_every_codec() {
    let fixtures = [
        (Codec::None, fixture!("kafka-clients-none")),
        (Codec::Gzip, fixture!("kafka-clients-gzip")),
        (Codec::Snappy, fixture!("kafka-clients-snappy")),
        (Codec::Lz4, fixture!("kafka-clients-lz4")),
        (Codec::Zstd, fixture!("kafka-clients-zstd")),
        (Codec::None, fixture!("kafka-python-none")),
        (Codec::Gzip, fixture!("kafka-python-gzip")),
        (Codec::Snappy, fixture!("kafka-python-snappy")),
        (Codec::Lz4, fixture!("kafka-python-lz4")),
        (Codec::Zstd, fixture!("kafka-python-zstd")),
    ];
    for (codec, (name, bytes)) in fixtures {
        let batch = check_from_client(bytes, LIMIT).expect(name);
        assert_eq!(batch.codec(), codec, "{name}");
        assert_eq!(batch.producer_id(), ProducerId(4711), "{name}");
        assert_eq!(batch.producer_epoch(), ProducerEpoch(3), "{name}");
        // i32::MAX - 2, then over the end: MAX - 1, MAX, 0, 1.
        assert_eq!(
            (batch.base_sequence(), batch.last_sequence()),
            (i32::MAX - 2, 1),
            "{name}"
        );
        assert_eq!(
            batch.max_timestamp(),
            TimestampMs(1_700_000_001_000),
            "{name}"
        );
        assert_eq!(retell(&batch), fixture_records(), "{name}");
    }
}

#[test]
fn our_uncompressed_batch_is_the_java_clients_to_the_byte() {
    let records = fixture_records();
    let mut builder =
        BatchBuilder::new(Codec::None).producer(ProducerId(4711), ProducerEpoch(3), i32::MAX - 2);
    for (timestamp, key, value, headers) in &records {
        let headers: Vec<_> = headers
            .iter()
            .map(|(k, v)| (&k[..], v.as_deref()))
            .collect();
        builder.push(NewRecord {
            timestamp: TimestampMs(*timestamp),
            key: key.as_deref(),
            value: value.as_deref(),
            headers: &headers,
        });
    }
    assert_eq!(builder.finish(), fixture!("kafka-clients-none").1);
}

#[test]
fn a_raw_snappy_block_is_read_as_librdkafka_sends_it() {
    let raw = include_bytes!("fixtures/snappy-raw.block");
    let records = &fixture!("kafka-clients-none").1[HEADER_LEN..];
    assert_eq!(
        codec::decompress(Codec::Snappy, raw, LIMIT).unwrap(),
        records
    );
}

// -- stamping

#[test]
fn stamping_a_place_leaves_the_crc_alone() {
    let mut bytes = three();
    let crc = Batch::parse(&bytes).unwrap().crc();
    stamp(&mut bytes, Offset(1 << 40), LeaderEpoch(12));
    let batch = Batch::parse(&bytes).unwrap();
    assert_eq!(batch.crc(), crc);
    batch.verify_crc().unwrap();
    assert_eq!(batch.base_offset(), Offset(1 << 40));
    assert_eq!(batch.next_offset(), Offset((1 << 40) + 3));
    assert_eq!(batch.leader_epoch(), LeaderEpoch(12));
}

#[test]
fn log_append_time_is_every_records_time() {
    let mut bytes = three();
    stamp_log_append_time(&mut bytes, TimestampMs(9_999));
    let batch = check_from_client(&bytes, LIMIT).unwrap();
    assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime);
    let times: Vec<i64> = retell(&batch).iter().map(|told| told.0).collect();
    assert_eq!(times, [9_999; 3]);
    assert_eq!(
        batch.first_at_or_after(TimestampMs(9_999), LIMIT),
        Ok(Some((Offset(0), TimestampMs(9_999))))
    );
    assert_eq!(
        batch.first_at_or_after(TimestampMs(10_000), LIMIT),
        Ok(None)
    );
}

#[test]
fn a_wrong_max_timestamp_is_seen_and_put_right() {
    let mut bytes = forged(three(), 35, &1002i64.to_be_bytes());
    let batch = check_from_client(&bytes, LIMIT).unwrap();
    let max = batch.max_timestamp_of_records().unwrap();
    assert_eq!(
        (batch.max_timestamp(), max),
        (TimestampMs(1002), TimestampMs(1005))
    );
    stamp_max_timestamp(&mut bytes, max);
    assert_eq!(bytes, three());
}

#[test]
fn a_timestamp_is_found_inside_a_batch_of_every_codec() {
    for codec in Codec::ALL {
        let mut bytes = BatchBuilder::new(codec)
            .record(TimestampMs(1000), None, Some(b"a"))
            .record(TimestampMs(1005), None, Some(b"b"))
            .record(TimestampMs(1002), None, Some(b"c"))
            .finish();
        stamp(&mut bytes, Offset(500), LeaderEpoch(0));
        let batch = Batch::parse(&bytes).unwrap();
        let find = |t| batch.first_at_or_after(TimestampMs(t), LIMIT).unwrap();
        assert_eq!(find(0), Some((Offset(500), TimestampMs(1000))), "{codec}");
        assert_eq!(
            find(1001),
            Some((Offset(501), TimestampMs(1005))),
            "{codec}"
        );
        assert_eq!(
            find(1005),
            Some((Offset(501), TimestampMs(1005))),
            "{codec}"
        );
        assert_eq!(find(1006), None, "{codec}");
    }
}

// -- what a client may not send

#[test]
fn each_fault_of_a_produced_batch_has_its_answer() {
    use Refusal::*;
    let good = three();
    assert!(check_from_client(&good, good.len()).is_ok());

    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let two = [good.clone(), good.clone()].concat();
    let tail = [&good[..], &[0]].concat();
    let i32be = i32::to_be_bytes;
    let cases: Vec<(&str, Vec<u8>, Refusal)> = vec![
        ("nothing", vec![], InvalidRecord),
        ("half a header", good[..30].to_vec(), InvalidRecord),
        (
            "half a batch",
            good[..good.len() - 1].to_vec(),
            InvalidRecord,
        ),
        ("zeros", vec![0; 200], InvalidRecord),
        ("two batches", two, InvalidRecord),
        ("a byte too many", tail, InvalidRecord),
        (
            "length negative",
            forged(good.clone(), 8, &i32be(-1)),
            InvalidRecord,
        ),
        (
            "length below a header",
            forged(good.clone(), 8, &i32be(48)),
            InvalidRecord,
        ),
        (
            "length 2^31-1",
            forged(good.clone(), 8, &i32be(i32::MAX)),
            InvalidRecord,
        ),
        ("magic 0", forged(good.clone(), 16, &[0]), InvalidRecord),
        ("magic 1", forged(good.clone(), 16, &[1]), InvalidRecord),
        ("magic 3", forged(good.clone(), 16, &[3]), InvalidRecord),
        (
            "base offset 1",
            forged(good.clone(), 0, &1i64.to_be_bytes()),
            InvalidRecord,
        ),
        (
            "base offset -1",
            forged(good.clone(), 0, &(-1i64).to_be_bytes()),
            InvalidRecord,
        ),
        ("a flipped bit", flipped, CorruptMessage),
        (
            "codec 5",
            forged(good.clone(), 21, &[0, 5]),
            UnsupportedCompressionType,
        ),
        (
            "codec 7",
            forged(good.clone(), 21, &[0, 7]),
            UnsupportedCompressionType,
        ),
        (
            "control",
            forged(good.clone(), 21, &[0, 0x20]),
            InvalidRecord,
        ),
        (
            "count 0",
            forged(good.clone(), 57, &i32be(0)),
            InvalidRecord,
        ),
        (
            "count -1",
            forged(good.clone(), 57, &i32be(-1)),
            InvalidRecord,
        ),
        (
            "count below the range",
            forged(good.clone(), 57, &i32be(2)),
            InvalidRecord,
        ),
        (
            "count above the range",
            forged(good.clone(), 57, &i32be(4)),
            InvalidRecord,
        ),
        (
            "offset delta -1",
            forged(good.clone(), 23, &i32be(-1)),
            InvalidRecord,
        ),
        (
            "range above the records",
            forged(good.clone(), 23, &i32be(i32::MAX)),
            InvalidRecord,
        ),
        (
            "sequence -1 of a producer",
            forged(good.clone(), 43, &7i64.to_be_bytes()),
            InvalidRecord,
        ),
        (
            "first record's length",
            forged(good.clone(), 61, &[126]),
            InvalidRecord,
        ),
        (
            "first record's length negative",
            forged(good.clone(), 61, &[1]),
            InvalidRecord,
        ),
        (
            "first record's offset delta",
            forged(good.clone(), 64, &[2]),
            InvalidRecord,
        ),
        (
            "key length",
            forged(good.clone(), 65, &[100]),
            InvalidRecord,
        ),
        (
            "key length -2",
            forged(good.clone(), 65, &[3]),
            InvalidRecord,
        ),
        (
            "header count",
            forged(good.clone(), 71, &[2]),
            InvalidRecord,
        ),
    ];
    for (name, bytes, expected) in cases {
        let error = check_from_client(&bytes, LIMIT).expect_err(name);
        assert_eq!(error.fault.refusal(), expected, "{name}: {error}");
    }
    let error = check_from_client(&good, good.len() - 1).unwrap_err();
    assert_eq!(error.fault.refusal(), MessageTooLarge, "{error}");
}

#[test]
fn a_flipped_bit_is_named_as_one_wherever_it_is() {
    let good = three();
    // Before 21 the bytes are outside of the CRC, or are the CRC.
    for bit in 8 * CRC_FROM..8 * good.len() {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(
            matches!(refused(&bytes), BatchFault::Crc { .. }),
            "bit {bit}"
        );
    }
}

#[test]
fn records_that_do_not_fill_the_batch_are_refused() {
    let mut bytes = three();
    bytes.extend_from_slice(&[0, 0]);
    let length = (bytes.len() - LENGTH_OVERHEAD) as i32;
    let bytes = forged(bytes, 8, &length.to_be_bytes());
    let fault = refused(&bytes);
    let trailing = |f: RecordFault| f == RecordFault::Trailing { bytes: 2 };
    assert!(
        matches!(fault, BatchFault::Record(e) if trailing(e.fault)),
        "{fault:?}"
    );
}

/// What a packed batch holds is the consumers' business: the broker passes it on.
#[test]
fn a_packed_batch_is_not_looked_into() {
    let bytes = forged(three(), 21, &[0, Codec::Gzip.id()]);
    let batch = check_from_client(&bytes, LIMIT).unwrap();
    assert!(matches!(
        batch.records_unpacked(LIMIT),
        Err(CodecError::Corrupt { .. })
    ));
    assert_eq!(batch.max_timestamp_of_records(), None);
}

#[test]
fn an_error_says_where_and_what() {
    let mut bytes = [one(b"first"), one(b"second")].concat();
    let at = one(b"first").len();
    bytes[at + 30] ^= 0xff;
    let mut batches = Batches::new(&bytes);
    batches.next().unwrap().unwrap().verify_crc().unwrap();
    let second = batches.next().unwrap().unwrap();
    let error = second.verify_crc().unwrap_err().shifted(at as u64);
    let (is, header) = (crc::castagnoli(&bytes[at + CRC_FROM..]), second.crc());
    let expected = format!("batch at byte {at}: crc is {is:08x}, header says {header:08x}");
    assert_eq!(error.to_string(), expected);
}

// -- batches end to end

#[test]
fn a_walk_ends_at_the_first_byte_that_begins_no_batch() {
    let whole = [one(b"a"), three(), one(b"c")].concat();
    let walk = |bytes: &[u8]| {
        let mut batches = Batches::new(bytes);
        let (mut sound, mut fault) = (0, None);
        for batch in &mut batches {
            match batch {
                Ok(_) => sound += 1,
                Err(error) => fault = Some(error),
            }
        }
        assert!(batches.next().is_none());
        if let Some(error) = fault {
            assert_eq!(error.at, batches.position() as u64);
        }
        (sound, batches.position(), fault.map(|error| error.fault))
    };
    let end = whole.len();
    assert_eq!(walk(&[]), (0, 0, None));
    assert_eq!(walk(&whole), (3, end, None));
    // Preallocated room, more and less than a header's size.
    assert_eq!(
        walk(&[&whole[..], &[0; 4096]].concat()),
        (3, end, Some(BatchFault::Zeros))
    );
    assert_eq!(
        walk(&[&whole[..], &[0; 5]].concat()),
        (3, end, Some(BatchFault::Zeros))
    );
    let last = one(b"c").len();
    for cut in 1..last {
        let (sound, at, fault) = walk(&whole[..end - cut]);
        assert_eq!((sound, at), (2, end - last));
        // Of base offset 0 and 3 bytes of a small length nobody can say what they are.
        match fault {
            Some(BatchFault::Zeros) => assert!(last - cut <= 11, "cut {cut}"),
            fault => assert!(matches!(fault, Some(BatchFault::Short { .. })), "cut {cut}"),
        }
    }
}

#[test]
fn a_header_is_enough_to_walk_by() {
    let bytes = three();
    let header = BatchHeader::parse(&bytes[..HEADER_LEN]).unwrap();
    assert_eq!(header.size_in_bytes(), bytes.len());
    assert_eq!(header.next_offset(), Offset(3));
    let short = Batch::parse(&bytes[..HEADER_LEN]).unwrap_err();
    assert_eq!(
        short.fault,
        BatchFault::Short {
            need: bytes.len(),
            have: HEADER_LEN
        }
    );
}

/// The largest offset leaves room for the one behind it, or the batch is none.
#[test]
fn no_offset_overflows() {
    let at = |base: i64| forged(three(), 0, &base.to_be_bytes());
    let batch = at(i64::MAX - 3);
    assert_eq!(
        Batch::parse(&batch).unwrap().next_offset(),
        Offset(i64::MAX)
    );
    assert!(Batch::parse(&at(i64::MAX - 2)).is_err());
}

#[test]
fn sequences_go_round() {
    assert_eq!(sequence_plus(i32::MAX, 0), i32::MAX);
    assert_eq!(sequence_plus(i32::MAX, 1), 0);
    assert_eq!(sequence_plus(i32::MAX, i32::MAX), i32::MAX - 1);
    assert_eq!(sequence_plus(5, 3), 8);
}

// -- anything

fn told() -> impl Strategy<Value = Told> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    (
        prop_oneof![any::<i64>(), 0..2_000_000_000_000i64],
        prop::option::of(bytes()),
        prop::option::of(bytes()),
        prop::collection::vec((bytes(), prop::option::of(bytes())), 0..4),
    )
}

/// Asks everything there is to ask, of bytes that may be anything.
fn exercise(bytes: &[u8]) {
    for batch in Batches::new(bytes).flatten() {
        let _ = batch.verify_crc();
        assert!(batch.next_offset() > batch.base_offset());
        let _ = (batch.codec(), batch.last_sequence(), batch.delete_horizon());
        if let Ok(unpacked) = batch.records_unpacked(LIMIT) {
            for record in batch.records(&unpacked).flatten() {
                let _ = (batch.offset_of(&record), batch.timestamp_of(&record));
                assert_eq!(record.headers.count(), record.headers.len());
            }
        }
        let _ = batch.first_at_or_after(TimestampMs(5), LIMIT);
    }
    let _ = check_from_client(bytes, LIMIT);
    let _ = BatchHeader::parse(bytes);
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(
        records in prop::collection::vec(told(), 1..20),
        codec in prop::sample::select(Codec::ALL.to_vec()),
        producer in (any::<i64>(), any::<i16>(), 0..i32::MAX),
    ) {
        let (id, epoch, sequence) = producer;
        let mut builder =
            BatchBuilder::new(codec).producer(ProducerId(id), ProducerEpoch(epoch), sequence);
        for (timestamp, key, value, headers) in &records {
            let headers: Vec<_> = headers.iter().map(|(k, v)| (&k[..], v.as_deref())).collect();
            let (key, value) = (key.as_deref(), value.as_deref());
            let timestamp = TimestampMs(*timestamp);
            builder.push(NewRecord { timestamp, key, value, headers: &headers });
        }
        let bytes = builder.finish();
        let batch = check_from_client(&bytes, LIMIT).unwrap();
        prop_assert_eq!(batch.codec(), codec);
        prop_assert_eq!(batch.record_count() as usize, records.len());
        prop_assert_eq!(batch.producer_id(), ProducerId(id));
        prop_assert_eq!(retell(&batch), records);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        exercise(&bytes);
    }

    /// Random bytes seldom get past the magic; a batch with a few bytes changed and
    /// the CRC right again does.
    #[test]
    fn forged_bytes_are_survived(
        codec in prop::sample::select(Codec::ALL.to_vec()),
        changes in prop::collection::vec((17usize..400, any::<u8>()), 0..6),
    ) {
        let mut bytes = BatchBuilder::new(codec)
            .record(TimestampMs(1000), Some(b"a"), Some(&[7; 90]))
            .record(TimestampMs(1005), None, Some(b"two"))
            .finish();
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        exercise(&forged(bytes, 0, &[0]));
    }

    /// A section of records by itself: as the walk at produce meets it.
    #[test]
    fn any_records_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        count in any::<i32>(),
    ) {
        let _ = record::check_records(&bytes, count);
        for record in Records::new(&bytes, count).flatten() {
            prop_assert!(record.headers.count() <= bytes.len());
        }
        let packed = compress(Codec::Snappy, &bytes);
        prop_assert_eq!(codec::decompress(Codec::Snappy, &packed, LIMIT).unwrap(), bytes);
    }
}
