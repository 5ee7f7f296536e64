//! Crashes at every sync point.

use crate::world::*;
use klamm_engine::config::LogConfig;
use klamm_engine::io::Io;
use klamm_engine::io::sim::{PowerCut, Sim, SimIo};
use klamm_engine::units::Offset;
use std::cell::Cell;
use std::rc::Rc;

/// Appends a few batches from two producers, and notes what was acknowledged.
async fn produce(io: SimIo, acknowledged: Rc<Cell<i64>>, batches: u64) {
    let Ok(orders) = open_on(&io, small_segments(), false).await else {
        return;
    };
    for n in 0..batches {
        let appended = orders.append(&batch(&[value(n, 900)], n as i64)).unwrap();
        if n % 3 != 0 {
            continue; // the next one goes in the same round
        }
        if orders.acknowledged(appended.next_offset).await.is_err() {
            return;
        }
        acknowledged.set(appended.next_offset.0);
    }
    io.sleep(std::time::Duration::from_millis(20)).await;
    if orders.close().await.is_ok() {
        acknowledged.set(batches as i64);
    }
}

#[test]
fn every_sync_point_may_be_the_last() {
    let points = {
        let sim = Sim::from_seed(0);
        sim.run(produce(sim.io(), Rc::default(), 60));
        sim.sync_points()
    };
    for seed in 0..20 {
        for point in 1..=points {
            let sim = Sim::from_seed(seed * 1000 + point);
            let acknowledged = Rc::new(Cell::new(0));
            sim.crash_at_sync(point);
            let _ = sim.try_run(produce(sim.io(), acknowledged.clone(), 60));
            let io = sim.restart();
            let orders = match sim.run(open_on(&io, small_segments(), false)) {
                Ok(orders) => orders,
                Err(offline) => panic!("seed {seed} point {point}: {offline}"),
            };
            let records = sim.run(read_all(&orders, Offset(0), || 2000)).unwrap();
            assert!(
                records.len() as i64 >= acknowledged.get(),
                "seed {seed} point {point}"
            );
            for (offset, read) in records {
                assert_eq!(read, value(offset as u64, 900), "seed {seed} point {point}");
            }
            sim.run(async {
                let appended = orders.append(&batch(&[value(0, 10)], 0)).unwrap();
                orders.acknowledged(appended.next_offset).await.unwrap();
            });
        }
    }
}

/// One that is larger than a round, whose end alone is written by the last one: that one's
/// sync is for all of it.
#[test]
fn a_batch_of_several_rounds_is_committed_whole() {
    let config = LogConfig {
        batch_bytes_max: 32 << 20,
        ..LogConfig::default()
    };
    for beyond in [0, 10_000, 900_000, 1_500_000] {
        let len = (17 << 20) + beyond;
        let sim = Sim::from_seed(beyond as u64);
        let orders = open(&sim, &sim.io(), config.clone(), false);
        sim.run(async {
            let appended = orders.append(&batch(&[value(0, len)], 0)).unwrap();
            orders.acknowledged(appended.next_offset).await.unwrap();
        });
        drop(orders);
        sim.power_cut_how(PowerCut::LoseAll);
        let orders = open(&sim, &sim.restart(), config.clone(), false);
        let records = sim.run(fetch(&orders, Offset(0), 64 << 20)).unwrap();
        assert!(
            records == [(0, value(0, len))],
            "{len} bytes: {} records are left",
            records.len()
        );
    }
}
