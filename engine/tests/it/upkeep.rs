//! Retention, DeleteRecords, closing and removing, while others read and append.

use crate::world::*;
use futures_util::future::{join, join3};
use klamm_engine::batch::BatchBuilder;
use klamm_engine::codec::Codec;
use klamm_engine::config::LogConfig;
use klamm_engine::error::ReadError;
use klamm_engine::io::Io;
use klamm_engine::io::sim::{OpKind, PowerCut, Sim, When};
use klamm_engine::store::{Entry, PartitionSpec, Store};
use klamm_engine::units::{
    LeaderEpoch, Offset, PartitionId, ProducerEpoch, ProducerId, TimestampMs, TopicId,
};
use std::path::PathBuf;
use std::time::Duration;

fn kept_small() -> LogConfig {
    LogConfig {
        retention_bytes_max: Some(20 << 10),
        retention_age_max: None,
        ..small_segments()
    }
}

#[test]
fn a_reader_that_retention_overtakes_is_told_that_it_is_out_of_range() {
    for seed in 0..300 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        let orders = open(&sim, &io, kept_small(), false);
        sim.run(async {
            for n in 0..200 {
                orders.append(&batch(&[value(n, 700)], n as i64)).unwrap();
            }
            orders.close().await.unwrap();
        });
        let io = sim.restart();
        let orders = open(&sim, &io, kept_small(), true);
        sim.run(async {
            let read = async {
                for from in [0, 10, 30, 60, 90, 120] {
                    match fetch(&orders, Offset(from), 5000).await {
                        Ok(records) => assert_eq!(records[0].0, from, "seed {seed}"),
                        Err(ReadError::OutOfRange { .. }) => {}
                        Err(error) => panic!("seed {seed}: {error}"),
                    }
                }
            };
            let look = async {
                for ts in [0, 50, 100] {
                    let found = orders.offset_at_or_after(TimestampMs(ts)).await;
                    let found = found.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                    assert!(found.is_some_and(|f| f.offset >= Offset(ts)), "seed {seed}");
                }
            };
            let upkeep = async { orders.housekeep().await.unwrap() };
            join3(read, look, upkeep).await;
            let appended = orders.append(&batch(&[value(200, 700)], 200)).unwrap();
            orders.acknowledged(appended.next_offset).await.unwrap();
        });
        let logs: Vec<_> = sim.list(DIR);
        let named = |ext: &str| logs.iter().filter(|n| n.ends_with(ext)).count();
        assert!(
            named(".index") <= named(".log") && named(".timeindex") <= named(".log"),
            "seed {seed}: {logs:?}"
        );
    }
}

#[test]
fn the_larger_of_two_delete_records_wins_and_a_crash_keeps_it() {
    for seed in 0..300 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        let orders = open(&sim, &io, small_segments(), false);
        sim.run(async {
            for n in 0..100 {
                orders.append(&batch(&[value(n, 700)], n as i64)).unwrap();
            }
            orders.acknowledged(Offset(100)).await.unwrap();
            let (far, near) = join(
                orders.delete_records(Offset(50)),
                orders.delete_records(Offset(30)),
            )
            .await;
            assert_eq!(far.unwrap(), Offset(50), "seed {seed}");
            assert!(near.unwrap() >= Offset(30), "seed {seed}");
        });
        sim.power_cut();
        let io = sim.restart();
        let orders = open(&sim, &io, small_segments(), false);
        assert_eq!(orders.offsets().log_start, Offset(50), "seed {seed}");
    }
}

#[test]
fn a_power_cut_during_retention_leaves_no_hole() {
    for seed in 0..400 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        let orders = open(&sim, &io, kept_small(), false);
        sim.run(async {
            for n in 0..200 {
                orders.append(&batch(&[value(n, 700)], n as i64)).unwrap();
            }
            orders.acknowledged(Offset(200)).await.unwrap();
        });
        let next = sim.sync_points() + 1 + seed % 4;
        sim.crash_at_sync_how(next, When::Before, PowerCut::Random);
        let _ = sim.try_run(async {
            let _ = orders.housekeep().await;
            io.sleep(Duration::from_secs(10)).await;
            let appended = orders.append(&batch(&[value(200, 700)], 200)).unwrap();
            let _ = orders.acknowledged(appended.next_offset).await;
            let _ = orders.close().await;
        });
        let io = sim.restart();
        let orders = open(&sim, &io, kept_small(), false);
        let start = orders.offsets().log_start;
        let records = sim.run(read_all(&orders, start, || 5000)).unwrap();
        assert!(records.len() as i64 + start.0 >= 200, "seed {seed}");
    }
}

#[test]
fn an_active_segment_of_expired_records_goes_too() {
    let sim = Sim::from_seed(1);
    let io = sim.io();
    let config = LogConfig {
        retention_age_max: Some(Duration::from_secs(60)),
        ..LogConfig::default()
    };
    let orders = open(&sim, &io, config.clone(), false);
    sim.run(async {
        let now = io.wall().0;
        for n in 0..10 {
            let appended = orders.append(&batch(&[value(n, 700)], now)).unwrap();
            orders.acknowledged(appended.next_offset).await.unwrap();
        }
        orders.housekeep().await.unwrap();
        assert_eq!(orders.offsets().log_start, Offset(0));
        io.sleep(Duration::from_secs(61)).await;
        orders.housekeep().await.unwrap();
        let offsets = orders.offsets();
        assert_eq!(
            (offsets.log_start, offsets.log_end),
            (Offset(10), Offset(10))
        );
        assert_eq!(orders.size_bytes(), 0);
        assert!(fetch(&orders, Offset(10), 100).await.unwrap().is_empty());
        let appended = orders
            .append(&batch(&[value(10, 10)], io.wall().0))
            .unwrap();
        assert_eq!(appended.base_offset, Offset(10));
        orders.acknowledged(appended.next_offset).await.unwrap();
        let records = fetch(&orders, Offset(10), 1000).await.unwrap();
        assert_eq!(records, [(10, value(10, 10))]);
    });
    sim.power_cut();
    let io = sim.restart();
    let orders = open(&sim, &io, config.clone(), false);
    assert_eq!(orders.offsets().log_start, Offset(10));
    assert_eq!(orders.offsets().log_end, Offset(11));
    // And once more up to a stop in order, with nothing in the active one.
    sim.run(async {
        io.sleep(Duration::from_secs(100)).await;
        orders.housekeep().await.unwrap();
        orders.close().await.unwrap();
    });
    let io = sim.restart();
    let orders = open(&sim, &io, config, true);
    assert_eq!(orders.offsets().log_start, Offset(11));
    assert_eq!(orders.offsets().log_end, Offset(11));
}

#[test]
fn the_latest_timestamp_is_of_a_visible_record() {
    let sim = Sim::from_seed(2);
    let io = sim.io();
    let orders = open(&sim, &io, LogConfig::default(), false);
    sim.run(async {
        assert_eq!(orders.latest_timestamp().await.unwrap(), None);
        for (n, ts) in [(0, 10), (1, 50), (2, 30)] {
            let appended = orders.append(&batch(&[value(n, 50)], ts)).unwrap();
            orders.acknowledged(appended.next_offset).await.unwrap();
        }
        // Not acknowledged, so not there for anyone.
        orders.append(&batch(&[value(3, 50)], 99)).unwrap();
        let latest = orders.latest_timestamp().await.unwrap().unwrap();
        assert_eq!(
            (latest.timestamp, latest.offset),
            (TimestampMs(50), Offset(1))
        );
        orders.acknowledged(Offset(4)).await.unwrap();
        let latest = orders.latest_timestamp().await.unwrap().unwrap();
        assert_eq!(
            (latest.timestamp, latest.offset),
            (TimestampMs(99), Offset(3))
        );
        orders.delete_records(Offset(2)).await.unwrap();
        let latest = orders.latest_timestamp().await.unwrap().unwrap();
        assert_eq!(latest.offset, Offset(3));
    });
}

#[test]
fn what_deleted_records_had_is_not_the_latest_timestamp() {
    let sim = Sim::from_seed(3);
    let io = sim.io();
    let orders = open(&sim, &io, LogConfig::default(), false);
    sim.run(async {
        for (n, ts) in [(0, 10), (1, 50), (2, 30)] {
            let appended = orders.append(&batch(&[value(n, 50)], ts)).unwrap();
            orders.acknowledged(appended.next_offset).await.unwrap();
        }
        orders.delete_records(Offset(2)).await.unwrap();
        let latest = orders.latest_timestamp().await.unwrap().unwrap();
        assert_eq!(
            (latest.timestamp, latest.offset),
            (TimestampMs(30), Offset(2))
        );
    });
}

// -- the store

fn spec(topic: &str, id: u8) -> PartitionSpec {
    PartitionSpec {
        id: PartitionId {
            topic: TopicId([id; 16]),
            index: 0,
        },
        topic: topic.to_owned(),
        leader_epoch: LeaderEpoch(0),
        config: small_segments(),
    }
}

fn online<I: Io>(entry: Entry<I>) -> std::rc::Rc<klamm_engine::partition::Partition<I>> {
    match entry {
        Entry::Online(partition) => partition,
        Entry::Offline(offline) => panic!("{offline}"),
    }
}

#[test]
fn a_flipped_topic_id_does_not_delete_a_partition() {
    for byte in 0..60 {
        let sim = Sim::from_seed(4);
        let store = Store::new(sim.io(), PathBuf::from("/data"), false, 64 << 10);
        sim.run(async {
            let orders = online(store.open_partition(spec("orders", 7)).await);
            let appended = orders.append(&batch(&[value(0, 50)], 5)).unwrap();
            orders.acknowledged(appended.next_offset).await.unwrap();
        });
        sim.kill();
        let path = "/data/orders-0/partition.metadata";
        if byte >= sim.read_stable(path).unwrap().len() as u64 {
            break;
        }
        sim.flip_bit(path, byte);
        let io = sim.restart();
        let store = Store::new(io, PathBuf::from("/data"), false, 64 << 10);
        sim.run(async {
            match store.open_partition(spec("orders", 7)).await {
                Entry::Online(orders) => assert_eq!(orders.offsets().log_end, Offset(1)),
                Entry::Offline(told) => {
                    assert!(told.to_string().contains("partition.metadata"), "{told}");
                }
            }
        });
        assert!(
            sim.list("/data").contains(&"orders-0".to_owned()),
            "byte {byte}"
        );
    }
}

#[test]
fn a_topic_with_the_longest_name_can_be_deleted() {
    let name = "n".repeat(249);
    let sim = Sim::from_seed(5);
    let store = Store::new(sim.io(), PathBuf::from("/data"), false, 64 << 10);
    sim.run(async {
        let spec = spec(&name, 7);
        online(store.open_partition(spec.clone()).await);
        // The folder is only renamed at first; its name must be one that a file system takes.
        sim.fail(OpKind::Name, format!("/data/{name}-0"), 1);
        store.remove_partition(&spec.id, &name).await.unwrap();
    });
    for name in sim.list("/data") {
        assert!(name.len() <= 255, "{} characters: {name}", name.len());
    }
}

#[test]
fn a_topic_of_the_same_name_begins_empty_while_the_old_one_still_goes() {
    for seed in 0..300 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        let store = Store::new(io.clone(), PathBuf::from("/data"), false, 64 << 10);
        sim.run(async {
            let old = online(store.open_partition(spec("orders", 7)).await);
            for n in 0..100 {
                old.append(&batch(&[value(n, 700)], n as i64)).unwrap();
            }
            old.acknowledged(Offset(100)).await.unwrap();
            let trim = async {
                let _ = old.delete_records(Offset(90)).await;
            };
            let replace = async {
                let id = spec("orders", 7).id;
                store.remove_partition(&id, "orders").await.unwrap();
                let new = online(store.open_partition(spec("orders", 8)).await);
                assert_eq!(new.offsets().log_end, Offset(0), "seed {seed}");
                let appended = new.append(&batch(&[value(0, 50)], 5)).unwrap();
                new.acknowledged(appended.next_offset).await.unwrap();
            };
            join(trim, replace).await;
            io.sleep(Duration::from_secs(1)).await;
        });
        sim.kill();
        let io = sim.restart();
        let store = Store::new(io, PathBuf::from("/data"), false, 64 << 10);
        sim.run(async {
            store.remove_leftovers().await.unwrap();
            let new = online(store.open_partition(spec("orders", 8)).await);
            let offsets = new.offsets();
            assert_eq!(
                (offsets.log_start, offsets.log_end),
                (Offset(0), Offset(1)),
                "seed {seed}"
            );
        });
    }
}

#[test]
fn a_caller_that_gives_up_leaves_the_partition_to_be_opened() {
    let sim = Sim::from_seed(6);
    let io = sim.io();
    let store = Store::new(io.clone(), PathBuf::from("/data"), false, 64 << 10);
    sim.run(async {
        let first = store.open_partition(spec("orders", 7));
        let gone = futures_util::future::select(
            Box::pin(first),
            Box::pin(io.sleep(Duration::from_micros(50))),
        );
        drop(gone.await);
        let second = store.open_partition(spec("orders", 7));
        let third = store.open_partition(spec("orders", 7));
        let (second, third) = join(second, third).await;
        assert!(std::rc::Rc::ptr_eq(&online(second), &online(third)));
    });
}

/// Two folders are made at once, and the sync of one of their names fails: what the disk
/// then says of the other is not to be believed.
#[test]
fn a_failed_sync_of_the_data_folder_is_everyones() {
    for seed in 0..200 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        let store = Store::new(io.clone(), PathBuf::from("/data"), false, 64 << 10);
        sim.fail(OpKind::SyncDir, "/data", seed % 3);
        let acknowledged = sim.run(async {
            let specs = [spec("orders", 7), spec("clicks", 8)];
            let opened = specs.map(|spec| store.open_partition(spec));
            let mut acknowledged = 0;
            for (n, entry) in futures_util::future::join_all(opened)
                .await
                .into_iter()
                .enumerate()
            {
                if let Entry::Online(log) = entry {
                    let appended = log.append(&batch(&[value(0, 50)], 5)).unwrap();
                    if log.acknowledged(appended.next_offset).await.is_ok() {
                        acknowledged |= 1 << n;
                    }
                }
            }
            acknowledged
        });
        sim.power_cut_how(PowerCut::LoseAll);
        let store = Store::new(sim.restart(), PathBuf::from("/data"), false, 64 << 10);
        sim.run(async {
            for (n, spec) in [spec("orders", 7), spec("clicks", 8)]
                .into_iter()
                .enumerate()
            {
                let end = online(store.open_partition(spec).await).offsets().log_end;
                assert!(end >= Offset(acknowledged >> n & 1), "seed {seed}");
            }
        });
    }
}

/// What is between an old snapshot and the first segment that is left is known to nobody.
#[test]
fn a_producer_is_forgotten_rather_than_taken_for_where_it_was() {
    let sim = Sim::from_seed(7);
    let io = sim.io();
    let orders = open(&sim, &io, small_segments(), false);
    let send = |orders: &std::rc::Rc<klamm_engine::partition::Partition<_>>, n: i32| {
        let batch = BatchBuilder::new(Codec::None)
            .producer(ProducerId(1), ProducerEpoch(0), n)
            .record(TimestampMs(5), None, Some(&value(0, 700)));
        orders.append(&batch.finish()).unwrap()
    };
    sim.run(async {
        for n in 0..90 {
            let appended = send(&orders, n);
            orders.acknowledged(appended.next_offset).await.unwrap();
        }
    });
    let mut snapshots = sim.list(DIR);
    snapshots.retain(|name| name.ends_with(".snapshot"));
    // All records are deleted, but a crash leaves their segments; and the newest snapshot
    // is bad.
    sim.crash_at_sync_how(sim.sync_points() + 3, When::Before, PowerCut::LoseAll);
    let _ = sim.try_run(orders.delete_records(Offset(90)));
    let newest = snapshots.last().expect("one a segment");
    sim.flip_bit(format!("{DIR}/{newest}"), 40);
    let io = sim.restart();
    let orders = open(&sim, &io, small_segments(), false);
    assert_eq!(orders.offsets().log_start, Offset(90));
    assert!(!send(&orders, 90).duplicate);
}
