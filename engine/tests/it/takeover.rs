//! A partition's folder that a Kafka broker closed, taken over as it is.

use crate::world::*;
use klamm_engine::batch::BatchBuilder;
use klamm_engine::codec::Codec;
use klamm_engine::config::LogConfig;
use klamm_engine::error::ReadError;
use klamm_engine::io::sim::Sim;
use klamm_engine::partition::AppendError;
use klamm_engine::producer::SequenceError;
use klamm_engine::segment::file_name;
use klamm_engine::units::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// A stored batch of records whose offsets are given, as compaction leaves them: base and
/// last offset stay though the records of some offsets are gone.
fn stored(base: i64, last: i64, producer: Option<(i64, i32)>) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None)
        .base_offset(Offset(base))
        .leader_epoch(LeaderEpoch(3));
    if let Some((id, sequence)) = producer {
        builder = builder.producer(ProducerId(id), ProducerEpoch(0), sequence);
    }
    for offset in base..=last {
        let key = offset.to_be_bytes();
        builder = builder.record(
            TimestampMs(1000 + offset),
            Some(&key),
            Some(&value(offset as u64, 40)),
        );
    }
    builder.finish()
}

/// `.index` entries: relative offset, position.
fn index(entries: &[(i32, i32)]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|(offset, position)| [offset.to_be_bytes(), position.to_be_bytes()].concat())
        .collect()
}

/// Kafka's `.snapshot`: version 1, CRC-32C, one entry a producer.
fn kafka_snapshot(last_sequence: i32, last_offset: i64) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&1i32.to_be_bytes());
    body.extend_from_slice(&42i64.to_be_bytes());
    body.extend_from_slice(&0i16.to_be_bytes());
    body.extend_from_slice(&last_sequence.to_be_bytes());
    body.extend_from_slice(&last_offset.to_be_bytes());
    body.extend_from_slice(&0i32.to_be_bytes());
    body.extend_from_slice(&1000i64.to_be_bytes());
    body.extend_from_slice(&(-1i32).to_be_bytes());
    body.extend_from_slice(&(-1i64).to_be_bytes());
    let crc = klamm_engine::crc::castagnoli(&body);
    [&1i16.to_be_bytes()[..], &crc.to_be_bytes(), &body].concat()
}

fn path(base: i64, extension: &str) -> String {
    format!("{DIR}/{}", file_name(Offset(base), extension))
}

/// Offsets 0-1, 5-6 and then nothing up to 20, where the active segment begins; in it
/// 20-21 and 25-26 of an idempotent producer. 2-4, 7-19 and 22-24 were compacted away.
fn kafka_folder(sim: &Sim) {
    let (a, b) = (stored(0, 1, None), stored(5, 6, None));
    let split = a.len() as i32;
    sim.plant(path(0, "log"), &[a, b].concat());
    sim.plant(path(0, "index"), &index(&[(6, split)]));
    let time = [&1006i64.to_be_bytes()[..], &6i32.to_be_bytes()].concat();
    sim.plant(path(0, "timeindex"), &time);
    let (c, d) = (stored(20, 21, Some((42, 0))), stored(25, 26, Some((42, 2))));
    sim.plant(path(20, "log"), &[c, d].concat());
    sim.plant(path(20, "index"), &[]);
    sim.plant(path(20, "timeindex"), &[]);
    sim.plant(path(20, "snapshot"), &kafka_snapshot(9, 19));
    sim.plant(path(27, "snapshot"), &kafka_snapshot(3, 26));
    sim.plant(format!("{DIR}/leader-epoch-checkpoint"), b"0\n1\n3 0\n");
    let id = "version: 0\ntopic_id: ABCDEFGHIJKLMNOPQRSTUQ";
    sim.plant(format!("{DIR}/partition.metadata"), id.as_bytes());
}

#[test]
fn a_compacted_kafka_folder_is_read_and_goes_on() {
    let sim = Sim::from_seed(1);
    kafka_folder(&sim);
    for clean in [true, false] {
        let io = sim.restart();
        let orders = open(&sim, &io, LogConfig::default(), clean);
        let offsets = orders.offsets();
        assert_eq!(
            (offsets.log_start, offsets.log_end),
            (Offset(0), Offset(27))
        );
        sim.run(async {
            // An offset that is gone is answered with what comes next.
            for (from, first) in [(0, 0), (1, 0), (2, 5), (6, 5), (7, 20), (19, 20), (23, 25)] {
                for bytes_max in [1, 200, 10_000] {
                    let records = fetch(&orders, Offset(from), bytes_max).await.unwrap();
                    assert_eq!(records[0].0, first, "from {from}");
                }
            }
            let all = fetch(&orders, Offset(0), 10_000).await.unwrap();
            let told: Vec<i64> = all.iter().map(|r| r.0).collect();
            assert_eq!(told, [0, 1, 5, 6, 20, 21, 25, 26]);
            for (ts, offset) in [(0, 0), (1002, 5), (1006, 6), (1007, 20), (1026, 26)] {
                let found = orders.offset_at_or_after(TimestampMs(ts)).await.unwrap();
                assert_eq!(found.unwrap().offset, Offset(offset), "at {ts}");
            }
        });
        assert_eq!(orders.epoch_of(Offset(5)), LeaderEpoch(3));
    }
}

#[test]
fn kafkas_producer_snapshot_is_not_ours_and_the_state_is_rebuilt() {
    let sim = Sim::from_seed(2);
    kafka_folder(&sim);
    let io = sim.io();
    let orders = sim
        .run(open_at_epoch(&io, LogConfig::default(), false, 4))
        .unwrap();
    let send = |sequence: i32| {
        let retry = BatchBuilder::new(Codec::None)
            .producer(ProducerId(42), ProducerEpoch(0), sequence)
            .record(TimestampMs(1), None, Some(b"a"))
            .record(TimestampMs(1), None, Some(b"b"));
        orders.append(&retry.finish())
    };
    // Both batches that are in the log are known, though Kafka's file has one of them.
    for (sequence, offset) in [(0, 20), (2, 25)] {
        let appended = send(sequence).unwrap();
        assert!(appended.duplicate);
        assert_eq!(appended.base_offset, Offset(offset));
    }
    assert!(matches!(
        send(7),
        Err(AppendError::Sequence(SequenceError::OutOfOrderSequence {
            expected: 4,
            ..
        }))
    ));
    let fresh = send(4).unwrap();
    assert_eq!((fresh.base_offset, fresh.duplicate), (Offset(27), false));
    sim.run(orders.acknowledged(fresh.next_offset)).unwrap();
    assert_eq!(orders.epoch_of(Offset(27)), LeaderEpoch(4));
}

/// What cannot be read is not cut: of a folder that is not ours nothing is known of what
/// was committed.
#[test]
fn a_log_of_message_format_1_is_refused_and_left_as_it_is() {
    let sim = Sim::from_seed(3);
    let mut old = stored(0, 1, None);
    old[16] = 1;
    sim.plant(path(0, "log"), &old);
    let refused = sim
        .run(open_on(&sim.io(), LogConfig::default(), true))
        .err()
        .expect("refused");
    assert!(refused.to_string().contains("damaged at byte"), "{refused}");
    assert_eq!(sim.read_stable(path(0, "log")), Some(old));
}

#[test]
fn a_gap_at_the_end_of_a_segment_is_no_end_of_the_log() {
    let sim = Sim::from_seed(4);
    kafka_folder(&sim);
    let io = sim.io();
    let orders = open(&sim, &io, LogConfig::default(), true);
    sim.run(async {
        orders.delete_records(Offset(10)).await.unwrap();
        assert!(matches!(
            orders.read(Offset(6), 100, true).await,
            Err(ReadError::OutOfRange { .. })
        ));
        let records = fetch(&orders, Offset(10), 10_000).await.unwrap();
        assert_eq!(records[0].0, 20);
    });
}
