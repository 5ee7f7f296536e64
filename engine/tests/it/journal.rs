//! What a shard's journal is for, and what it leaves behind.

use crate::world::*;
use klamm_engine::config::LogConfig;
use klamm_engine::error::Offline;
use klamm_engine::io::sim::{Faults, OpKind, PowerCut, Sim, SimIo, When};
use klamm_engine::io::{Buf, File, Io, Open};
use klamm_engine::journal::layout::Header;
use klamm_engine::journal::{self, JournalConfig, ReplayConfig};
use klamm_engine::partition::Partition;
use klamm_engine::store::{Entry, PartitionSpec, Store};
use klamm_engine::units::{LeaderEpoch, Offset, PartitionId, ShardId, TopicId};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

const DATA: &str = "/data";
const FILE: &str = "/data/journal/0-0.journal";

fn small() -> JournalConfig {
    JournalConfig {
        file_bytes: 32 << 10,
        grow_bytes: 8 << 10,
        entry_bytes_max: 4 << 10,
        ..JournalConfig::default()
    }
}

fn one_by_one(clean: bool) -> ReplayConfig {
    ReplayConfig {
        clean,
        sync_all_from: usize::MAX,
    }
}

async fn start(io: &SimIo, config: JournalConfig) -> Result<Rc<Store<SimIo>>, Offline> {
    start_on(io, (ShardId(0), 1), config).await
}

/// The store of one shard of several.
async fn start_on(
    io: &SimIo,
    (shard, shards): (ShardId, usize),
    config: JournalConfig,
) -> Result<Rc<Store<SimIo>>, Offline> {
    let replayed = journal::replay(io, Path::new(DATA), shards, one_by_one(false)).await?;
    assert_eq!(replayed.committed, None);
    let store = Store::new(io.clone(), PathBuf::from(DATA), false, 64 << 10);
    store.note_replayed(replayed);
    store.use_journal(shard, config).await?;
    Ok(store)
}

async fn open_in(
    store: &Rc<Store<SimIo>>,
    topic: &str,
    id: u8,
    index: i32,
) -> Result<Rc<Partition<SimIo>>, Offline> {
    open_with(store, topic, id, index, LogConfig::default()).await
}

async fn open_with(
    store: &Rc<Store<SimIo>>,
    topic: &str,
    id: u8,
    index: i32,
    config: LogConfig,
) -> Result<Rc<Partition<SimIo>>, Offline> {
    let spec = PartitionSpec {
        id: PartitionId {
            topic: TopicId([id; 16]),
            index,
        },
        topic: topic.to_owned(),
        leader_epoch: LeaderEpoch(0),
        config,
    };
    match store.open_partition(spec).await {
        Entry::Online(partition) => Ok(partition),
        Entry::Offline(offline) => Err(offline),
    }
}

/// Appends a record, and waits until it is acknowledged.
async fn put(partition: &Rc<Partition<SimIo>>, number: u64) -> Result<(), Offline> {
    let appended = partition
        .append(&batch(&[value(number, 300)], 5))
        .expect("taken");
    partition.acknowledged(appended.next_offset).await
}

async fn numbers(partition: &Rc<Partition<SimIo>>) -> Vec<(i64, Vec<u8>)> {
    read_all(partition, partition.offsets().log_start, || 4000)
        .await
        .expect("reads")
}

#[test]
fn many_partitions_that_are_written_at_once_share_a_sync() {
    let sim = Sim::from_seed(1);
    let io = sim.io();
    let partitions = sim.run(async {
        let store = start(&io, JournalConfig::default()).await.unwrap();
        let mut partitions = Vec::new();
        for index in 0..50 {
            partitions.push(open_in(&store, "orders", 7, index).await.unwrap());
        }
        partitions
    });
    for round in 0..4 {
        let before = sim.sync_points();
        sim.run(async {
            let upto: Vec<_> = partitions
                .iter()
                .map(|p| {
                    p.append(&batch(&[value(round, 300)], 5))
                        .unwrap()
                        .next_offset
                })
                .collect();
            for (partition, upto) in partitions.iter().zip(upto) {
                partition.acknowledged(upto).await.unwrap();
            }
        });
        let syncs = sim.sync_points() - before;
        // The first round makes the file; each may take a few groups, for the segments'
        // room is reserved at different times.
        let most = if round == 0 { 16 } else { 4 };
        assert!(
            syncs <= most,
            "round {round}: {syncs} syncs for 50 partitions"
        );
    }
    sim.power_cut();
    let io = sim.restart();
    sim.run(async {
        let store = start(&io, JournalConfig::default()).await.unwrap();
        for index in 0..50 {
            let orders = open_in(&store, "orders", 7, index).await.unwrap();
            let all: Vec<_> = (0..4).map(|n| (n as i64, value(n, 300))).collect();
            assert_eq!(numbers(&orders).await, all, "partition {index}");
        }
    });
}

#[test]
fn what_a_deleted_topic_left_in_the_journal_is_not_its_namesakes() {
    for seed in 0..50 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        sim.run(async {
            let store = start(&io, small()).await.unwrap();
            let old = open_in(&store, "orders", 7, 0).await.unwrap();
            let other = open_in(&store, "payments", 8, 0).await.unwrap();
            for n in 0..5 {
                put(&old, 100 + n).await.unwrap();
                put(&other, n).await.unwrap();
            }
            let id = PartitionId {
                topic: TopicId([7; 16]),
                index: 0,
            };
            store.remove_partition(&id, "orders").await.unwrap();
            let new = open_in(&store, "orders", 9, 0).await.unwrap();
            put(&new, 1).await.unwrap();
        });
        sim.power_cut();
        let io = sim.restart();
        sim.run(async {
            let store = start(&io, small()).await.unwrap();
            let new = open_in(&store, "orders", 9, 0).await.unwrap();
            assert_eq!(numbers(&new).await, [(0, value(1, 300))], "seed {seed}");
            let other = open_in(&store, "payments", 8, 0).await.unwrap();
            assert_eq!(numbers(&other).await.len(), 5, "seed {seed}");
        });
    }
}

#[test]
fn a_partition_that_goes_offline_loses_nothing_and_stops_nobody() {
    for seed in 0..20 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        sim.run(async {
            let store = start(&io, small()).await.unwrap();
            let bad = open_in(&store, "orders", 7, 0).await.unwrap();
            let good = open_in(&store, "payments", 8, 0).await.unwrap();
            for n in 0..3 {
                put(&bad, n).await.unwrap();
            }
            // The first sync of its segment is when the journal's file is full.
            sim.fail(OpKind::Sync, "/data/orders-0/00000000000000000000.log", 0);
            for n in 0..60 {
                put(&good, n).await.unwrap();
            }
            assert!(bad.offline().is_some(), "seed {seed}");
        });
        assert!(
            sim.list("/data/journal").len() > 2,
            "seed {seed}: another file takes its place: {:?}",
            sim.list("/data/journal")
        );
        sim.power_cut();
        let io = sim.restart();
        sim.run(async {
            let store = start(&io, small()).await.unwrap();
            let bad = open_in(&store, "orders", 7, 0).await.unwrap();
            let good = open_in(&store, "payments", 8, 0).await.unwrap();
            assert_eq!(numbers(&bad).await.len(), 3, "seed {seed}");
            assert_eq!(numbers(&good).await.len(), 60, "seed {seed}");
        });
    }
}

#[test]
fn a_journal_that_fails_acknowledges_nothing_more() {
    for op in [OpKind::Sync, OpKind::Write] {
        let sim = Sim::from_seed(2);
        let io = sim.io();
        sim.run(async {
            let store = start(&io, small()).await.unwrap();
            let orders = open_in(&store, "orders", 7, 0).await.unwrap();
            let payments = open_in(&store, "payments", 8, 0).await.unwrap();
            put(&orders, 0).await.unwrap();
            put(&payments, 0).await.unwrap();
            sim.fail(op, FILE, 0);
            let told = put(&orders, 1).await.unwrap_err();
            assert!(told.to_string().contains("0-0.journal"), "{told}");
            put(&payments, 1).await.unwrap_err();
        });
        sim.power_cut();
        let io = sim.restart();
        sim.run(async {
            let store = start(&io, small()).await.unwrap();
            let orders = open_in(&store, "orders", 7, 0).await.unwrap();
            assert!(!numbers(&orders).await.is_empty());
        });
    }
}

#[test]
fn a_start_of_many_partitions_syncs_once_and_what_it_served_outlives_the_power() {
    for seed in 0..20 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        sim.run(async {
            let store = start(&io, JournalConfig::default()).await.unwrap();
            for index in 0..40 {
                let orders = open_in(&store, "orders", 7, index).await.unwrap();
                for n in 0..3 {
                    put(&orders, n).await.unwrap();
                }
            }
        });
        sim.kill();
        let io = sim.restart();
        let before = sim.sync_points();
        let opened = sim.run(async {
            let config = ReplayConfig {
                clean: false,
                sync_all_from: 40,
            };
            let replayed = journal::replay(&io, Path::new(DATA), 1, config).await;
            let store = Store::new(io.clone(), PathBuf::from(DATA), false, 64 << 10);
            store.note_replayed(replayed.unwrap());
            store
                .use_journal(ShardId(0), JournalConfig::default())
                .await
                .unwrap();
            let mut opened = Vec::new();
            for index in 0..40 {
                let orders = open_in(&store, "orders", 7, index).await.unwrap();
                opened.push(numbers(&orders).await);
            }
            opened
        });
        let syncs = sim.sync_points() - before;
        assert!(syncs < 10, "seed {seed}: {syncs} syncs for 40 partitions");
        sim.power_cut();
        let io = sim.restart();
        sim.run(async {
            let store = start(&io, JournalConfig::default()).await.unwrap();
            for (index, served) in (0..).zip(opened) {
                let orders = open_in(&store, "orders", 7, index).await.unwrap();
                let all: Vec<_> = (0..3).map(|n| (n as i64, value(n, 300))).collect();
                assert_eq!(served, all, "seed {seed}, partition {index}");
                assert_eq!(
                    numbers(&orders).await,
                    all,
                    "seed {seed}, partition {index}"
                );
            }
        });
    }
}

#[test]
fn a_file_is_retired_as_soon_as_it_is_settled() {
    let sim = Sim::from_seed(5);
    let io = sim.io();
    sim.run(async {
        let store = start(&io, small()).await.unwrap();
        let orders = open_in(&store, "orders", 7, 0).await.unwrap();
        // A file of 32 KiB takes seven groups of a block.
        for n in 0..40 {
            put(&orders, n).await.unwrap();
        }
        io.sleep(Duration::from_secs(10)).await;
    });
    sim.power_cut();
    let names = sim.list("/data/journal");
    assert_eq!(names.len(), 2, "both were in use");
    let used = names.iter().filter(|name| {
        let bytes = sim.read_stable(format!("/data/journal/{name}")).unwrap();
        Header::decode(&bytes[..4096])
            .unwrap()
            .is_some_and(|h| h.used)
    });
    assert_eq!(used.count(), 1, "only the one that is being written");
    let io = sim.restart();
    sim.run(async {
        let store = start(&io, small()).await.unwrap();
        let orders = open_in(&store, "orders", 7, 0).await.unwrap();
        let all: Vec<_> = (0..40).map(|n| (n as i64, value(n, 300))).collect();
        assert_eq!(numbers(&orders).await, all);
    });
}

#[test]
fn a_stop_in_order_leaves_nothing_to_replay() {
    let sim = Sim::from_seed(3);
    let io = sim.io();
    sim.run(async {
        let store = start(&io, small()).await.unwrap();
        let orders = open_in(&store, "orders", 7, 0).await.unwrap();
        for n in 0..40 {
            put(&orders, n).await.unwrap();
        }
        store.close_all().await.unwrap();
    });
    sim.power_cut();
    for name in sim.list("/data/journal") {
        let bytes = sim.read_stable(format!("/data/journal/{name}")).unwrap();
        let header = Header::decode(&bytes[..4096]).unwrap();
        assert!(
            header.as_ref().is_none_or(|h| !h.used),
            "{name}: {header:?}"
        );
    }
    let io = sim.restart();
    let before = sim.sync_points();
    sim.run(journal::replay(&io, Path::new(DATA), 1, one_by_one(true)))
        .unwrap();
    assert_eq!(sim.sync_points(), before, "nothing was written");
}

#[test]
fn a_disk_without_room_for_a_journal_still_syncs() {
    let sim = Sim::from_seed(4);
    let io = sim.io();
    sim.run(async {
        let store = start(&io, JournalConfig::default()).await.unwrap();
        let orders = open_in(&store, "orders", 7, 0).await.unwrap();
        // Room for a segment of a few blocks, and not for a journal's first step.
        sim.capacity(Some(sim.used() + (300 << 10)));
        for n in 0..20 {
            put(&orders, n).await.unwrap();
        }
    });
    sim.power_cut();
    let io = sim.restart();
    sim.run(async {
        let store = start(&io, small()).await.unwrap();
        let orders = open_in(&store, "orders", 7, 0).await.unwrap();
        assert_eq!(numbers(&orders).await.len(), 20);
    });
}

#[test]
fn damage_inside_a_journal_is_told_and_nothing_is_opened() {
    let sim = Sim::from_seed(5);
    let io = sim.io();
    sim.run(async {
        let store = start(&io, small()).await.unwrap();
        let orders = open_in(&store, "orders", 7, 0).await.unwrap();
        for n in 0..3 {
            put(&orders, n).await.unwrap();
        }
        assert_eq!(orders.offsets().log_end, Offset(3));
    });
    sim.power_cut();
    // The second group, of three.
    sim.flip_bit(FILE, 2 * 4096 + 200);
    let io = sim.restart();
    for _ in 0..2 {
        let told = sim.run(start(&io, small())).err().expect("it is damaged");
        let told = told.to_string();
        assert!(
            told.contains("0-0.journal is damaged at byte 8192"),
            "{told}"
        );
    }
    // Whoever gives up what it has moves it away.
    sim.run(async {
        io.rename(Path::new(FILE), Path::new("/data/journal.removed"))
            .await
            .unwrap();
        let store = start(&io, small()).await.unwrap();
        open_in(&store, "orders", 7, 0).await.map(|_| ()).ok();
    });
}

/// A record for the journal, one that is too large for it and so syncs the segment, and
/// three more for the journal. Where the second and the third one begin.
async fn fill(orders: &Rc<Partition<SimIo>>) -> [u64; 2] {
    put(orders, 0).await.unwrap();
    let second = orders.size_bytes();
    let large = batch(&[value(1, 5000)], 5);
    let appended = orders.append(&large).expect("taken");
    orders.acknowledged(appended.next_offset).await.unwrap();
    let third = orders.size_bytes();
    for n in 2..5 {
        put(orders, n).await.unwrap();
    }
    [second, third]
}

/// | the flipped bit | what a start makes of it |
/// |---|---|
/// | in bytes that the journal holds | put right |
/// | below them, in a block that replay writes anew | told, with file and byte |
/// | below them, in another block | told, with file and byte |
///
/// Wherever the power goes meanwhile, others notice nothing, and with the bit put back
/// everything is there.
#[test]
fn a_flipped_bit_is_put_right_or_told_and_harms_nothing_else() {
    const LOG: &str = "/data/orders-0/00000000000000000000.log";
    let all: Vec<_> = (0..5)
        .map(|n| (n as i64, value(n, if n == 1 { 5000 } else { 300 })))
        .collect();
    let (keep, lose) = (PowerCut::KeepAll, PowerCut::LoseAll);
    type Byte = fn(u64) -> u64;
    // What the first power cut leaves of what the journal holds; the byte, by where the third
    // record begins; and whether the journal holds it.
    let cases: [(PowerCut, Byte, bool); 7] = [
        (keep, |_| 10, true),
        (lose, |_| 10, true),
        (keep, |third| third + 18, true),
        (keep, |_| 4000, false),
        (lose, |_| 4000, false),
        (keep, |_| 4200, false),
        (lose, |_| 4200, false),
    ];
    for (cut, byte, held) in cases {
        for crash in 1.. {
            let sim = Sim::from_seed(crash);
            let io = sim.io();
            let [second, third] = sim.run(async {
                let store = start(&io, small()).await.unwrap();
                let orders = open_in(&store, "orders", 7, 0).await.unwrap();
                let payments = open_in(&store, "payments", 8, 0).await.unwrap();
                put(&payments, 0).await.unwrap();
                fill(&orders).await
            });
            assert!(second < 4000 && 4200 < third && third < 2 * 4096);
            sim.power_cut_how(cut);
            let byte = byte(third);
            let before = sim.read_stable(LOG).unwrap()[byte as usize];
            sim.flip_bit(LOG, byte);
            let flipped = sim.read_stable(LOG).unwrap()[byte as usize];
            assert_ne!(before, flipped);

            let io = sim.restart();
            sim.crash_at_sync(sim.sync_points() + crash);
            let opened = sim.try_run(async {
                let store = start(&io, small()).await.unwrap();
                let payments = open_in(&store, "payments", 8, 0).await.unwrap();
                assert_eq!(numbers(&payments).await, [(0, value(0, 300))]);
                match open_in(&store, "orders", 7, 0).await {
                    Ok(orders) => Ok(numbers(&orders).await),
                    Err(offline) => Err(offline.to_string()),
                }
            });
            match &opened {
                Ok(Ok(records)) => assert!(held && *records == all, "byte {byte}"),
                Ok(Err(told)) => {
                    let place = format!("{LOG} is damaged at byte {second}:");
                    assert!(!held && told.contains(&place), "byte {byte}: {told}");
                }
                Err(_) => {}
            }
            sim.power_cut();
            // What the journal held may not have been in the file at all.
            if sim.read_stable(LOG).unwrap()[byte as usize] == flipped {
                assert!(
                    !held || opened.is_err(),
                    "byte {byte} is put right for good"
                );
                sim.flip_bit(LOG, byte);
            }
            let io = sim.restart();
            sim.run(async {
                let store = start(&io, small()).await.unwrap();
                let orders = open_in(&store, "orders", 7, 0).await.unwrap();
                assert_eq!(numbers(&orders).await, all, "byte {byte}");
            });
            if opened.is_ok() {
                assert!(crash > 5, "it was cut short at each sync before");
                break;
            }
        }
    }
}

/// A process that is killed leaves a group that was written and not synced. The start reads
/// it, and takes its records for committed: from then on they stay, wherever the power goes.
#[test]
fn a_group_that_a_killed_process_had_only_written_stays_or_was_never_there() {
    // How much of it was written when it was killed, and what the power cut keeps.
    for seed in 0..400 {
        let micros = seed % 20 * 20;
        for crash in 1.. {
            let sim = Sim::from_seed(seed);
            let io = sim.io();
            let killed = sim.try_run(async {
                let store = start(&io, small()).await.unwrap();
                let orders = open_in(&store, "orders", 7, 0).await.unwrap();
                put(&orders, 0).await.unwrap();
                orders.append(&batch(&[value(1, 300)], 5)).expect("taken");
                sim.kill_in(Duration::from_micros(micros));
                io.sleep(Duration::from_secs(1)).await;
            });
            assert!(killed.is_err(), "after {micros} us");

            let io = sim.restart();
            let at = sim.sync_points() + crash;
            sim.crash_at_sync_how(at, When::Before, PowerCut::Random);
            let seen = sim.try_run(async {
                let store = start(&io, small()).await.unwrap();
                let orders = open_in(&store, "orders", 7, 0).await.unwrap();
                numbers(&orders).await
            });
            sim.power_cut();
            let io = sim.restart();
            let left = sim.run(async {
                let store = start(&io, small()).await.unwrap();
                let orders = open_in(&store, "orders", 7, 0).await.unwrap();
                numbers(&orders).await
            });
            let all = [(0, value(0, 300)), (1, value(1, 300))];
            assert!(left == all || left == all[..1], "sync {crash}: {left:?}");
            if let Ok(seen) = seen {
                assert!(left.len() >= seen.len(), "sync {crash}: it was seen");
                break;
            }
        }
    }
}

/// Files that are settled one behind another hold the same partitions' segments.
#[test]
fn files_that_are_full_at_the_same_time_are_settled_one_after_the_other() {
    for seed in 0..60 {
        let sim = Sim::from_seed(seed);
        sim.faults(Faults {
            slow: 0.3,
            slow_max: Duration::from_millis(20),
            ..Faults::default()
        });
        let io = sim.io();
        sim.run(async {
            let config = JournalConfig {
                file_bytes: 4 * 4096,
                sync_all_from: 1,
                ..small()
            };
            let store = start(&io, config).await.unwrap();
            let writers = (0..6).map(async |index| {
                let orders = open_in(&store, "orders", 7, index).await.unwrap();
                for n in 0..40 {
                    put(&orders, n).await.unwrap();
                }
            });
            futures_util::future::join_all(writers).await;
        });
    }
}

/// A partition has lived on another shard, and that one's journal is back as it was: its
/// retiring was written and not synced when its process was killed, and then came the power
/// cut.
#[test]
fn a_journal_that_is_back_has_older_records_than_another_shards() {
    let sim = Sim::from_seed(1);
    let two = |shard| (ShardId(shard), 2);
    let config = || LogConfig {
        segment_bytes: 2 << 10,
        ..LogConfig::default()
    };
    let io = sim.io();
    sim.run(async {
        let store = start_on(&io, two(1), small()).await.unwrap();
        let orders = open_with(&store, "orders", 7, 0, config()).await.unwrap();
        for number in 0..3 {
            put(&orders, number).await.unwrap();
        }
    });
    sim.kill();
    let older = "/data/journal/1-0.journal";
    let as_it_was = sim.read_stable(older).expect("it was written");

    let io = sim.restart();
    sim.run(async {
        let store = start_on(&io, two(0), small()).await.unwrap();
        let orders = open_with(&store, "orders", 7, 0, config()).await.unwrap();
        for number in 3..13 {
            put(&orders, number).await.unwrap();
        }
        assert!(
            sim.list("/data/orders-0")
                .iter()
                .filter(|name| name.ends_with(".log"))
                .count()
                > 1
        );
    });
    sim.power_cut_how(PowerCut::LoseAll);
    sim.plant(older, &as_it_was);

    let io = sim.restart();
    let left = sim.run(async {
        let store = start_on(&io, two(0), small()).await.unwrap();
        let orders = open_with(&store, "orders", 7, 0, config()).await.unwrap();
        numbers(&orders).await
    });
    let all: Vec<_> = (0..13).map(|n| (n, value(n as u64, 300))).collect();
    assert_eq!(left, all);
}

/// A start syncs what a killed process has only written: that a file does not count.
#[test]
fn a_journal_that_was_retired_stays_so_whatever_the_power_does() {
    let sim = Sim::from_seed(1);
    let io = sim.io();
    let used = |sim: &Sim| {
        let bytes = sim.read_stable(FILE).expect("it is there");
        let header = Header::decode(&bytes[..4096]).expect("a header");
        header.is_some_and(|header| header.used)
    };
    sim.run(async {
        let store = start(&io, small()).await.unwrap();
        let orders = open_in(&store, "orders", 7, 0).await.unwrap();
        put(&orders, 0).await.unwrap();
    });
    assert!(used(&sim));
    // Killed between the write of its new header and the sync of that.
    let mut retired = sim.read_stable(FILE).expect("it is there");
    let header = Header {
        generation: 1,
        used: false,
        earlier: Vec::new(),
    };
    header.encode(&mut retired[..4096]);
    sim.kill();
    let io = sim.restart();
    sim.run(async {
        let file = io.open(Path::new(FILE), Open::Existing).await.unwrap();
        let mut block = io.alloc(4096);
        block.as_mut().copy_from_slice(&retired[..4096]);
        file.write_at(Rc::new(block), 0).await.unwrap();
    });
    sim.kill();
    assert!(!used(&sim));
    let io = sim.restart();
    sim.run(async {
        start(&io, small()).await.unwrap();
    });
    sim.power_cut_how(PowerCut::LoseAll);
    assert!(!used(&sim));
}
