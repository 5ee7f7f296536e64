//! What lies on the disk is not what was written: it is said, with the file and the byte,
//! and nothing is cut or skipped.

use crate::world::*;
use klamm_engine::config::LogConfig;
use klamm_engine::error::Offline;
use klamm_engine::io::Io;
use klamm_engine::io::sim::{PowerCut, Sim, SimIo};
use klamm_engine::mark;
use klamm_engine::partition::Partition;
use klamm_engine::units::{Offset, TimestampMs};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Batches of one record of 100 bytes, each acknowledged, and an idle while at the end.
async fn fill(io: &SimIo, orders: &Rc<Partition<SimIo>>, numbers: std::ops::Range<u64>) {
    for n in numbers {
        let appended = orders.append(&batch(&[value(n, 100)], n as i64)).unwrap();
        orders.acknowledged(appended.next_offset).await.unwrap();
    }
    io.sleep(Duration::from_secs(5)).await;
}

fn refusal(sim: &Sim, io: &SimIo, config: LogConfig, clean: bool) -> Option<Offline> {
    sim.run(open_on(io, config, clean)).err()
}

#[test]
fn a_log_that_was_recovered_tells_later_damage_from_a_torn_tail() {
    let sim = Sim::from_seed(1);
    let orders = open(&sim, &sim.io(), LogConfig::default(), false);
    sim.run(async {
        for n in 0..10 {
            let appended = orders.append(&batch(&[value(n, 100)], 5)).unwrap();
            orders.acknowledged(appended.next_offset).await.unwrap();
        }
    });
    // Whatever the mark says by now: it is of before this recovery, which commits all.
    sim.power_cut_how(PowerCut::LoseAll);
    let io = sim.restart();
    let orders = open(&sim, &io, LogConfig::default(), false);
    let end = orders.size_bytes();
    assert_eq!(orders.offsets().log_end, Offset(10));
    sim.power_cut();
    sim.flip_bit(log_path(0), end - 20);
    let io = sim.restart();
    let refused = refusal(&sim, &io, LogConfig::default(), false).expect("damaged");
    assert!(refused.to_string().contains("damaged at byte"), "{refused}");
}

#[test]
fn an_idle_log_is_committed_to_its_last_byte() {
    let sim = Sim::from_seed(2);
    let io = sim.io();
    let orders = open(&sim, &io, LogConfig::default(), false);
    sim.run(fill(&io, &orders, 0..10));
    let end = orders.size_bytes();
    sim.power_cut_how(PowerCut::LoseAll);
    sim.flip_bit(log_path(0), end - 20);
    let io = sim.restart();
    let refused = refusal(&sim, &io, LogConfig::default(), false).expect("damaged");
    assert!(refused.to_string().contains("damaged at byte"), "{refused}");
}

/// A base offset is not under the batch's CRC: only its neighbours show that it is wrong.
#[test]
fn a_flipped_base_offset_is_found_wherever_it_is() {
    for number in 0..10 {
        for byte in 0..8 {
            for clean in [false, true] {
                let sim = Sim::from_seed(3);
                let io = sim.io();
                let orders = open(&sim, &io, LogConfig::default(), false);
                sim.run(fill(&io, &orders, 0..10));
                let size = orders.size_bytes() / 10;
                sim.run(orders.close()).unwrap();
                sim.power_cut();
                sim.flip_bit(log_path(0), number * size + byte);
                let io = sim.restart();
                let told = sim.run(async {
                    match open_on(&io, LogConfig::default(), clean).await {
                        Err(offline) => offline.to_string(),
                        Ok(orders) => match read_all(&orders, Offset(0), || 300).await {
                            Err(error) => error.to_string(),
                            Ok(records) => panic!("batch {number} byte {byte}: {records:?}"),
                        },
                    }
                });
                assert!(told.contains("is damaged at byte"), "{told}");
            }
        }
    }
}

/// Every byte of a sealed segment, one at a time: a reader that gets an answer gets the
/// right one.
#[test]
fn a_flipped_bit_in_a_sealed_segment_is_never_served() {
    let bytes = {
        let sim = Sim::from_seed(4);
        let io = sim.io();
        let orders = open(&sim, &io, small_segments(), false);
        sim.run(fill(&io, &orders, 0..200));
        sim.read_stable(log_path(0)).unwrap().len() as u64
    };
    for byte in (0..bytes).step_by(13) {
        let sim = Sim::from_seed(4);
        let io = sim.io();
        let orders = open(&sim, &io, small_segments(), false);
        sim.run(fill(&io, &orders, 0..200));
        sim.flip_bit(log_path(0), byte);
        sim.kill();
        let io = sim.restart();
        let outcome = sim.run(async {
            let orders = open_on(&io, small_segments(), false).await?;
            let mut records = Vec::new();
            for from in [0, 40, 80] {
                records.push(read_all(&orders, Offset(from), || 700).await?);
            }
            Ok::<_, klamm_engine::error::ReadError>(records)
        });
        match outcome {
            Ok(reads) => {
                for records in reads {
                    for (offset, read) in records {
                        assert_eq!(read, value(offset as u64, 100), "byte {byte}");
                    }
                }
            }
            Err(error) => assert!(
                error
                    .to_string()
                    .contains("00000000000000000000.log is damaged at byte"),
                "byte {byte}: {error}"
            ),
        }
    }
}

#[test]
fn a_flipped_bit_in_an_index_changes_no_answer() {
    let world = |sim: &Sim| {
        let io = sim.io();
        let config = LogConfig {
            index_interval_bytes: 300,
            ..small_segments()
        };
        let orders = open(sim, &io, config, false);
        sim.run(fill(&io, &orders, 0..200));
        orders
    };
    let files = {
        let sim = Sim::from_seed(5);
        let _orders = world(&sim);
        ["index", "timeindex"].map(|ext| {
            let path = log_path(0).replace("log", ext);
            let len = sim.read_stable(&path).unwrap().len() as u64;
            (path, len)
        })
    };
    for (path, len) in files {
        assert!(len > 200, "{path} has {len} bytes");
        for byte in 0..len {
            let sim = Sim::from_seed(5);
            drop(world(&sim));
            sim.kill();
            sim.flip_bit(&path, byte);
            let io = sim.restart();
            let orders = open(&sim, &io, small_segments(), false);
            sim.run(async {
                for from in [0, 17, 60, 90] {
                    for bytes_max in [200, 1000, 3000] {
                        let records = fetch(&orders, Offset(from), bytes_max).await.unwrap();
                        assert_eq!(records[0].0, from, "{path} byte {byte}");
                    }
                }
                for ts in [0, 1, 31, 62, 93, 150] {
                    let found = orders.offset_at_or_after(TimestampMs(ts)).await.unwrap();
                    let found = found.expect("there is one").offset;
                    assert_eq!(found, Offset(ts), "{path} byte {byte}");
                }
            });
        }
    }
}

/// The mark is a hint: with it gone or bad nothing is lost, and nothing is cut that could
/// have been committed.
#[test]
fn a_bad_mark_costs_nothing_but_certainty() {
    for byte in 0..44 {
        let sim = Sim::from_seed(6);
        let io = sim.io();
        let orders = open(&sim, &io, LogConfig::default(), false);
        sim.run(fill(&io, &orders, 0..10));
        sim.kill();
        sim.flip_bit(format!("{DIR}/{}", mark::FILE_NAME), byte);
        let io = sim.restart();
        let orders = open(&sim, &io, LogConfig::default(), false);
        assert_eq!(orders.offsets().log_end, Offset(10), "byte {byte}");
    }
}

#[test]
fn a_flipped_log_start_is_not_believed() {
    for byte in 0..3 {
        let sim = Sim::from_seed(7);
        let io = sim.io();
        let orders = open(&sim, &io, LogConfig::default(), false);
        sim.run(fill(&io, &orders, 0..100));
        sim.run(orders.delete_records(Offset(40))).unwrap();
        sim.kill();
        let path = format!("{DIR}/log-start-offset");
        let text = String::from_utf8(sim.read_stable(&path).unwrap()).unwrap();
        let at = text.find("40").expect("says the offset") as u64;
        sim.flip_bit(&path, if byte < 2 { at + byte } else { 0 });
        let io = sim.restart();
        match sim.run(open_on(&io, LogConfig::default(), false)) {
            Ok(orders) => assert_eq!(orders.offsets().log_start, Offset(40), "byte {byte}"),
            Err(refused) => assert!(
                refused.to_string().contains("log-start-offset"),
                "{refused}"
            ),
        }
    }
}

/// After a kill only what came after the checkpoint is scanned: damage before it is found
/// by who reads it, damage behind it at the start.
#[test]
fn a_checkpointed_front_is_not_scanned_and_a_bad_checkpoint_is() {
    let opened = |flip: fn(&Sim, u64)| {
        let sim = Sim::from_seed(9);
        let io = sim.io();
        let orders = open(&sim, &io, LogConfig::default(), false);
        let at = sim.run(async {
            fill(&io, &orders, 0..100).await;
            orders.checkpoint().await.unwrap();
            let at = orders.size_bytes();
            fill(&io, &orders, 100..110).await;
            at
        });
        // It is not synced, so it outlives a kill only.
        sim.kill();
        flip(&sim, at);
        let io = sim.restart();
        let opened = sim.run(open_on(&io, LogConfig::default(), false));
        opened.map(|log| log.offsets().log_end)
    };
    assert_eq!(opened(|_, _| ()).unwrap(), Offset(110));
    let front = opened(|sim, _| sim.flip_bit(log_path(0), 300));
    assert_eq!(front.unwrap(), Offset(110), "not looked at");
    let behind = opened(|sim, at| sim.flip_bit(log_path(0), at + 300));
    assert!(behind.unwrap_err().to_string().contains("damaged at byte"));
    // What the checkpoint says of the last block is held against the log.
    let last = opened(|sim, at| sim.flip_bit(log_path(0), at - 20));
    assert!(last.unwrap_err().to_string().contains("damaged at byte"));
    // One that is damaged costs a scan, which sees the whole of it again.
    let bad = opened(|sim, _| sim.flip_bit(format!("{DIR}/checkpoint"), 90));
    assert_eq!(bad.unwrap(), Offset(110));
    let both = opened(|sim, _| {
        sim.flip_bit(format!("{DIR}/checkpoint"), 90);
        sim.flip_bit(log_path(0), 300);
    });
    assert!(both.unwrap_err().to_string().contains("damaged at byte"));
    let lost = opened(|sim, _| {
        sim.power_cut_how(PowerCut::LoseAll);
        sim.flip_bit(log_path(0), 300);
    });
    assert!(lost.unwrap_err().to_string().contains("damaged at byte"));
}

/// A checkpoint is believed where the log's last block is what it was taken of: not of a
/// segment that was cut, replaced by another, or never got its last bytes.
#[test]
fn a_checkpoint_of_another_end_is_not_believed() {
    let opened = |change: fn(&mut Vec<u8>, usize)| {
        let sim = Sim::from_seed(9);
        let io = sim.io();
        let orders = open(&sim, &io, LogConfig::default(), false);
        let at = sim.run(async {
            fill(&io, &orders, 0..100).await;
            orders.checkpoint().await.unwrap();
            orders.size_bytes()
        });
        sim.kill();
        let io = sim.restart();
        sim.run(async {
            let path = log_path(0);
            let mut bytes = io.read_file(Path::new(&path)).await.unwrap();
            bytes.truncate(at as usize);
            // The first batch is damaged, which only a scan sees.
            bytes[100] ^= 1;
            change(&mut bytes, at as usize);
            io.replace_file(Path::new(&path), bytes).await.unwrap();
        });
        let opened = sim.run(open_on(&io, LogConfig::default(), false));
        opened.map(|log| log.offsets().log_end)
    };
    assert_eq!(opened(|_, _| ()).unwrap(), Offset(100), "it is believed");
    let scanned = |change| {
        let refused = opened(change).unwrap_err().to_string();
        assert!(refused.contains("damaged at byte 0"), "{refused}");
    };
    scanned(|bytes, at| bytes.truncate(at - 1));
    scanned(|bytes, at| bytes.truncate(at / 4096 * 4096));
    scanned(|bytes, at| bytes[at / 4096 * 4096..].fill(0));
    scanned(|bytes, at| bytes[at - 1] ^= 1);
    scanned(|bytes, at| bytes[at / 4096 * 4096] ^= 1);
    scanned(|bytes, _| bytes.clear());
    // Another log, of the same length.
    scanned(|bytes, _| bytes.rotate_left(300));
}
