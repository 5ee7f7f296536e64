//! A partition that is open already leads on in a newer epoch, and one that is given up
//! and taken back.

use crate::world::*;
use futures_util::future::{join, join3};
use klamm_engine::batch::Batches;
use klamm_engine::config::LogConfig;
use klamm_engine::io::Io;
use klamm_engine::io::sim::{OpKind, PowerCut, Sim, SimIo, When};
use klamm_engine::partition::Partition;
use klamm_engine::store::{Entry, PartitionSpec, Store};
use klamm_engine::units::{LeaderEpoch, Offset, PartitionId, TopicId};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

const EPOCHS: &str = "/data/orders-0/leader-epoch-checkpoint";

fn spec(leader_epoch: i32) -> PartitionSpec {
    PartitionSpec {
        id: PartitionId {
            topic: TopicId([7; 16]),
            index: 0,
        },
        topic: "orders".to_owned(),
        leader_epoch: LeaderEpoch(leader_epoch),
        config: LogConfig::default(),
    }
}

fn store(io: SimIo, clean: bool) -> Rc<Store<SimIo>> {
    Store::new(io, PathBuf::from("/data"), clean, 64 << 10)
}

fn online(entry: Entry<SimIo>) -> Rc<Partition<SimIo>> {
    match entry {
        Entry::Online(partition) => partition,
        Entry::Offline(offline) => panic!("{offline}"),
    }
}

async fn put(orders: &Rc<Partition<SimIo>>, number: u64) -> Offset {
    let appended = orders.append(&batch(&[value(number, 50)], 5)).unwrap();
    orders.acknowledged(appended.next_offset).await.unwrap();
    appended.base_offset
}

/// The base offset and epoch of every batch, as they are stored.
async fn stamps(orders: &Rc<Partition<SimIo>>) -> Vec<(i64, i32)> {
    let mut stamps = Vec::new();
    let mut next = Offset(0);
    while next < orders.offsets().high_watermark {
        let slice = orders.read(next, 1 << 20, true).await.unwrap();
        let bytes = slice.load().await.unwrap().concat();
        for batch in Batches::new(&bytes) {
            let header = *batch.unwrap().header();
            stamps.push((header.base_offset().0, header.leader_epoch().0));
            next = header.next_offset();
        }
    }
    stamps
}

fn epoch_end(orders: &Rc<Partition<SimIo>>, epoch: i32) -> Option<(i32, i64)> {
    let end = orders.end_offset_for_epoch(LeaderEpoch(epoch));
    end.map(|(epoch, offset)| (epoch.0, offset.0))
}

#[test]
fn a_partition_that_is_open_leads_on_in_the_newer_epoch() {
    let sim = Sim::from_seed(1);
    let orders = store(sim.io(), false);
    sim.run(async {
        let log = online(orders.open_partition(spec(4)).await);
        put(&log, 0).await;
        // The session was lost (5: nobody leads) and is back.
        let again = online(orders.open_partition(spec(6)).await);
        assert!(Rc::ptr_eq(&log, &again), "it stays open");
        assert_eq!(log.offsets().leader_epoch, LeaderEpoch(6));
        let checkpoint = sim.read_committed(EPOCHS).unwrap();
        assert_eq!(checkpoint, b"0\n2\n4 0\n6 1\n", "as opening writes it");
        put(&log, 1).await;
        // What is late, or the same again, changes nothing.
        for epoch in [5, 4, 6, -1] {
            orders.open_partition(spec(epoch)).await;
        }
        put(&log, 2).await;
    });
    let told = |log: &Rc<Partition<SimIo>>| {
        assert_eq!(log.offsets().leader_epoch, LeaderEpoch(6));
        assert_eq!(sim.run(stamps(log)), [(0, 4), (1, 6), (2, 6)]);
        assert_eq!(epoch_end(log, 3), Some((3, 0)));
        assert_eq!(epoch_end(log, 4), Some((4, 1)));
        assert_eq!(epoch_end(log, 5), Some((4, 1)));
        assert_eq!(epoch_end(log, 6), Some((6, 3)));
        assert_eq!(epoch_end(log, 7), None);
        assert_eq!(log.epoch_of(Offset(0)), LeaderEpoch(4));
        assert_eq!(log.epoch_of(Offset(1)), LeaderEpoch(6));
    };
    told(&online(orders.get(&spec(0).id).unwrap()));
    sim.power_cut();
    let orders = store(sim.restart(), false);
    told(&online(sim.run(orders.open_partition(spec(6)))));
}

#[test]
fn an_epoch_in_which_nothing_was_written_leaves_no_trace() {
    let sim = Sim::from_seed(2);
    let orders = store(sim.io(), false);
    sim.run(async {
        let log = online(orders.open_partition(spec(0)).await);
        put(&log, 0).await;
        for epoch in [2, 4] {
            orders.open_partition(spec(epoch)).await;
        }
        put(&log, 1).await;
        assert_eq!(stamps(&log).await, [(0, 0), (1, 4)]);
        assert_eq!(epoch_end(&log, 2), Some((0, 1)));
    });
    assert_eq!(sim.read_committed(EPOCHS).unwrap(), b"0\n2\n0 0\n4 1\n");
}

/// Recovery takes a batch of another epoch than the checkpoint's for damage: so whatever a
/// crash leaves of a log that changed its epoch under load must agree.
#[test]
fn a_crash_while_the_epoch_changes_under_load_leaves_log_and_checkpoint_agreed() {
    for seed in 0..400 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        let orders = store(io.clone(), false);
        let log = online(sim.run(orders.open_partition(spec(0))));
        let how = match seed % 3 {
            0 => PowerCut::LoseAll,
            _ => PowerCut::Random,
        };
        let when = match seed % 2 {
            0 => When::Before,
            _ => When::After,
        };
        sim.crash_at_sync_how(sim.sync_points() + 1 + seed % 25, when, how);
        let acknowledged = std::cell::Cell::new(0);
        let _ = sim.try_run(async {
            let load = async {
                for n in 0..40 {
                    log.append(&batch(&[value(n, 700)], 5)).unwrap();
                    if n % 3 == 0 {
                        log.acknowledged(Offset(n as i64 + 1)).await.unwrap();
                        acknowledged.set(n as i64 + 1);
                    }
                }
            };
            let change = async {
                for epoch in [2, 4, 6] {
                    io.sleep(Duration::from_micros(80 * (1 + seed % 7))).await;
                    orders.open_partition(spec(epoch)).await;
                }
            };
            let upkeep = async { log.delete_records(Offset(0)).await.map(drop) };
            let (_, _, _) = join3(load, change, upkeep).await;
            io.sleep(Duration::from_secs(2)).await;
        });
        let orders = store(sim.restart(), false);
        sim.run(async {
            let log = online(orders.open_partition(spec(8)).await);
            let end = log.offsets().log_end;
            assert!(end >= Offset(acknowledged.get()), "seed {seed}: {end}");
            for (offset, epoch) in stamps(&log).await {
                let known = log.epoch_of(Offset(offset));
                assert_eq!(known, LeaderEpoch(epoch), "seed {seed}, offset {offset}");
            }
            let begun = put(&log, 99).await;
            assert_eq!(log.epoch_of(begun), LeaderEpoch(8), "seed {seed}");
        });
    }
}

#[test]
fn what_came_before_the_change_is_of_the_old_epoch_and_all_is_acknowledged() {
    for seed in 0..100 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        let orders = store(io.clone(), false);
        sim.run(async {
            let log = online(orders.open_partition(spec(0)).await);
            let load = async {
                for n in 0..60 {
                    log.append(&batch(&[value(n, 3000)], 5)).unwrap();
                    io.sleep(Duration::from_micros(10)).await;
                }
                log.acknowledged(Offset(60)).await.unwrap();
            };
            let change = async {
                io.sleep(Duration::from_micros(200)).await;
                orders.open_partition(spec(2)).await;
            };
            join(load, change).await;
            let stamps = stamps(&log).await;
            assert_eq!(stamps.len(), 60, "seed {seed}");
            let old = stamps.iter().take_while(|s| s.1 == 0).count();
            assert!((1..60).contains(&old), "seed {seed}: {old}");
            assert!(stamps[old..].iter().all(|s| s.1 == 2), "seed {seed}");
            assert_eq!(epoch_end(&log, 0), Some((0, old as i64)), "seed {seed}");
        });
    }
}

#[test]
fn a_checkpoint_that_cannot_be_written_takes_the_partition_offline() {
    let sim = Sim::from_seed(3);
    let orders = store(sim.io(), false);
    sim.run(async {
        let log = online(orders.open_partition(spec(0)).await);
        put(&log, 0).await;
        sim.fail(OpKind::Name, "/data/orders-0", 0);
        orders.open_partition(spec(2)).await;
        let told = log.offline().expect("nobody knows which epoch it is in");
        assert!(told.to_string().contains("leader-epoch"), "{told}");
        assert!(log.append(&batch(&[value(1, 50)], 5)).is_err());
        assert!(log.close().await.is_err());
    });
    let orders = store(sim.restart(), false);
    let log = online(sim.run(orders.open_partition(spec(2))));
    assert_eq!(log.offsets().log_end, Offset(1));
}

// -- given up and taken back

#[test]
fn a_partition_that_is_closed_is_kept_and_goes_on_when_it_is_opened_again() {
    for clean in [false, true] {
        let sim = Sim::from_seed(4);
        let orders = store(sim.io(), clean);
        sim.run(async {
            let log = online(orders.open_partition(spec(0)).await);
            put(&log, 0).await;
            // Not acknowledged yet: closing in order writes it.
            let appended = log.append(&batch(&[value(1, 50)], 5)).unwrap();
            let acknowledged = log.acknowledged(appended.next_offset);
            orders.close_partition(&spec(0).id).await;
            acknowledged.await.unwrap();
            assert!(orders.get(&spec(0).id).is_none());
            assert!(log.offline().expect("closed").is_closed());
            assert!(sim.list("/data").contains(&"orders-0".to_owned()));
            // Once more, or one that never was open: nothing to do.
            orders.close_partition(&spec(0).id).await;

            let again = online(orders.open_partition(spec(3)).await);
            assert!(!Rc::ptr_eq(&log, &again));
            put(&again, 2).await;
            assert_eq!(stamps(&again).await, [(0, 0), (1, 0), (2, 3)]);
            orders.close_all().await.unwrap();
        });
        let orders = store(sim.restart(), true);
        let log = online(sim.run(orders.open_partition(spec(3))));
        assert_eq!(sim.run(stamps(&log)), [(0, 0), (1, 0), (2, 3)]);
    }
}

#[test]
fn whoever_opens_or_stops_waits_for_a_close_that_is_under_way() {
    for seed in 0..100 {
        let sim = Sim::from_seed(seed);
        let orders = store(sim.io(), false);
        let opened = sim.run(async {
            let log = online(orders.open_partition(spec(0)).await);
            for n in 0..20 {
                log.append(&batch(&[value(n, 700)], 5)).unwrap();
            }
            let id = spec(0).id;
            let close = orders.close_partitions(vec![id]);
            let reopen = async {
                let log = online(orders.open_partition(spec(2)).await);
                assert!(log.offline().is_none(), "seed {seed}");
                put(&log, 20).await;
                log.offsets().log_end
            };
            join(close, reopen).await.1
        });
        assert_eq!(opened, Offset(21), "seed {seed}");
        sim.run(async {
            let id = spec(0).id;
            let (_, all) = join(orders.close_partition(&id), orders.close_all()).await;
            all.unwrap();
            assert!(orders.get(&id).is_none());
        });
        // All of it is closed when close_all says so, whoever did it.
        sim.power_cut_how(PowerCut::LoseAll);
        let orders = store(sim.restart(), true);
        let log = online(sim.run(orders.open_partition(spec(2))));
        assert_eq!(sim.run(stamps(&log)).len(), 21, "seed {seed}");
    }
}

#[test]
fn a_partition_that_is_not_closed_in_order_is_not_opened_again() {
    let sim = Sim::from_seed(5);
    let orders = store(sim.io(), true);
    sim.run(async {
        let log = online(orders.open_partition(spec(0)).await);
        put(&log, 0).await;
        sim.fail(OpKind::Sync, "/data/orders-0", 0);
        orders.close_partition(&spec(0).id).await;
        let Some(Entry::Offline(told)) = orders.get(&spec(0).id) else {
            panic!("its disk failed");
        };
        assert!(!told.is_closed(), "{told}");
        let again = orders.open_partition(spec(2)).await;
        assert!(matches!(again, Entry::Offline(_)));
        assert!(orders.close_all().await.is_err(), "not all is in order");
    });
}

#[test]
fn an_epoch_that_changes_while_it_is_closed_or_removed_harms_nothing() {
    for seed in 0..200 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        let orders = store(io.clone(), false);
        sim.run(async {
            let log = online(orders.open_partition(spec(0)).await);
            for n in 0..10 {
                log.append(&batch(&[value(n, 700)], 5)).unwrap();
            }
            let change = async {
                io.sleep(Duration::from_micros(seed % 20 * 20)).await;
                let _ = log.begin_epoch(LeaderEpoch(2)).await;
            };
            let end = async {
                io.sleep(Duration::from_micros(seed % 7 * 60)).await;
                match seed % 2 {
                    0 => orders.close_partition(&spec(0).id).await,
                    _ => orders
                        .remove_partition(&spec(0).id, "orders")
                        .await
                        .unwrap(),
                }
            };
            join(change, end).await;
            assert!(orders.get(&spec(0).id).is_none(), "seed {seed}");
            let log = online(orders.open_partition(spec(4)).await);
            let kept = if seed % 2 == 0 { 10 } else { 0 };
            assert_eq!(log.offsets().log_end, Offset(kept), "seed {seed}");
        });
    }
}

/// Who changes the epoch gives up half-way: what was stamped with it is never acknowledged.
#[test]
fn a_change_that_is_given_up_half_way_takes_the_partition_offline() {
    let sim = Sim::from_seed(6);
    let io = sim.io();
    let orders = store(io.clone(), false);
    sim.run(async {
        let log = online(orders.open_partition(spec(0)).await);
        put(&log, 0).await;
        {
            let change = std::pin::pin!(log.begin_epoch(LeaderEpoch(2)));
            let late = std::pin::pin!(io.sleep(Duration::from_nanos(1)));
            futures_util::future::select(change, late).await;
            assert_eq!(log.offsets().leader_epoch, LeaderEpoch(2));
        }
        assert!(log.append(&batch(&[value(1, 50)], 5)).is_err());
        assert!(log.close().await.is_err());
    });
    let orders = store(sim.restart(), false);
    let log = online(sim.run(orders.open_partition(spec(4))));
    assert_eq!(sim.run(stamps(&log)), [(0, 0)]);
}
