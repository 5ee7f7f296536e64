//! The simulator is held to what it says of itself; `io/contract.rs` holds it to `Io`.

use super::*;
use crate::io::{BLOCK, Buf, File, Io, Open, SECTOR};
use std::collections::BTreeSet;

const FILE: &str = "/data/f";

fn filled(io: &SimIo, byte: u8, blocks: usize) -> Rc<SimBuf> {
    let mut buf = io.alloc(blocks * BLOCK);
    buf.as_mut().fill(byte);
    Rc::new(buf)
}

/// A file of zeros whose name, length and bytes are all committed.
async fn committed_file(io: &SimIo, blocks: u64) -> SimFile {
    let file = io.open(Path::new(FILE), Open::New).await.unwrap();
    file.allocate(blocks * BLOCK as u64).await.unwrap();
    file.fdatasync().await.unwrap();
    io.sync_dir(Path::new(DATA)).await.unwrap();
    file
}

#[test]
fn the_same_seed_is_the_same_run_and_another_is_not() {
    let fingerprint = |seed| {
        let sim = Sim::from_seed(seed);
        sim.faults(Faults {
            short_write: 0.2,
            slow: 0.1,
            ..Faults::default()
        });
        let io = sim.io();
        sim.run(async {
            let file = Rc::new(committed_file(&io, 8).await);
            for i in 0..8u8 {
                let (io2, file) = (io.clone(), file.clone());
                io.spawn(async move {
                    file.write_at(filled(&io2, i, 1), u64::from(i) * BLOCK as u64)
                        .await
                        .unwrap();
                    file.fdatasync().await.unwrap();
                });
            }
            io.sleep(Duration::from_secs(60)).await;
        });
        (sim.fingerprint(), sim.read_committed(FILE), sim.now())
    };
    assert_eq!(fingerprint(1), fingerprint(1));
    assert_ne!(fingerprint(1).0, fingerprint(2).0);
}

/// What was written elsewhere before waits on, as on a disk that has a cache.
#[test]
fn a_synced_write_commits_itself_and_nothing_else() {
    for seed in 0..20 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        sim.run(async {
            let file = committed_file(&io, 3).await;
            let block = BLOCK as u64;
            file.write_at(filled(&io, 1, 3), 0).await.unwrap();
            file.write_synced_at(filled(&io, 2, 1), block)
                .await
                .unwrap();
            file.write_synced_at(filled(&io, 3, 1), 5 * block)
                .await
                .unwrap();
        });
        let committed = |sim: &Sim| -> Vec<u8> {
            let bytes = sim.read_committed(FILE).unwrap();
            bytes.chunks(BLOCK).map(|block| block[0]).collect()
        };
        assert_eq!(committed(&sim), [0, 2, 0, 0, 0, 3]);
        let io = sim.io();
        sim.run(async {
            let file = io.open(Path::new(FILE), Open::Existing).await.unwrap();
            file.fdatasync().await.unwrap();
        });
        assert_eq!(committed(&sim), [1, 2, 1, 0, 0, 3]);
    }
}

#[test]
fn tasks_start_in_call_order_and_completions_come_in_any() {
    let mut orders = BTreeSet::new();
    for seed in 0..50 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        let (started, ended) = (Rc::new(RefCell::new(vec![])), Rc::new(RefCell::new(vec![])));
        sim.run(async {
            let file = Rc::new(committed_file(&io, 4).await);
            for i in 0..4u64 {
                let (io2, file) = (io.clone(), file.clone());
                let (started, ended) = (started.clone(), ended.clone());
                io.spawn(async move {
                    started.borrow_mut().push(i);
                    file.write_at(filled(&io2, 1, 1), i * BLOCK as u64)
                        .await
                        .unwrap();
                    ended.borrow_mut().push(i);
                });
            }
            io.sleep(Duration::from_secs(1)).await;
        });
        assert_eq!(*started.borrow(), [0, 1, 2, 3], "seed {seed}");
        orders.insert(ended.take());
    }
    assert!(
        orders.len() > 10,
        "only {} orders in 50 seeds",
        orders.len()
    );
}

#[test]
fn no_real_time_passes_in_a_sleep() {
    let sim = Sim::from_seed(1);
    let io = sim.io();
    let (before, wall) = (io.now(), io.wall());
    sim.run(io.sleep(Duration::from_secs(86_400)));
    assert!(io.now() >= before.plus(Duration::from_secs(86_400)));
    assert!(io.wall().0 - wall.0 >= 86_400_000);
    sim.jump_wall(-3_600_000);
    assert!(io.wall().0 - wall.0 < 86_400_000);
}

#[test]
fn a_power_cut_keeps_any_sectors_of_what_was_not_synced_and_all_of_what_was() {
    let mut kept = BTreeSet::new();
    for seed in 0..300 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        sim.run(async {
            let file = committed_file(&io, 2).await;
            file.write_at(filled(&io, 1, 1), 0).await.unwrap();
            file.fdatasync().await.unwrap();
            file.write_at(filled(&io, 2, 1), BLOCK as u64)
                .await
                .unwrap();
        });
        assert_eq!(sim.read_stable(FILE).unwrap()[BLOCK..], [2; BLOCK]);
        sim.power_cut();
        let bytes = sim.read_stable(FILE).unwrap();
        assert_eq!(
            bytes[..BLOCK],
            [1; BLOCK],
            "seed {seed}: committed bytes were lost"
        );
        let sectors: Vec<u8> = bytes[BLOCK..]
            .chunks(SECTOR)
            .map(|sector| {
                assert!(
                    sector.iter().all(|b| *b == sector[0]),
                    "seed {seed}: a sector is torn"
                );
                sector[0]
            })
            .collect();
        kept.insert(sectors);
    }
    assert!(kept.contains(&vec![0; 8]) && kept.contains(&vec![2; 8]) && kept.len() > 30);
}

#[test]
fn the_kinds_of_power_cut_do_what_they_say() {
    for (how, first, second) in [
        (
            PowerCut::LoseAll,
            Some([0; 2 * BLOCK]),
            Some([0; 2 * BLOCK]),
        ),
        (
            PowerCut::KeepAll,
            Some([1; 2 * BLOCK]),
            Some([2; 2 * BLOCK]),
        ),
        (PowerCut::TearLast, Some([1; 2 * BLOCK]), None),
    ] {
        for seed in 0..20 {
            let sim = Sim::from_seed(seed);
            let io = sim.io();
            sim.run(async {
                let file = committed_file(&io, 4).await;
                file.write_at(filled(&io, 1, 2), 0).await.unwrap();
                file.write_at(filled(&io, 2, 2), 2 * BLOCK as u64)
                    .await
                    .unwrap();
            });
            sim.power_cut_how(how);
            let bytes = sim.read_committed(FILE).unwrap();
            if let Some(first) = first {
                assert_eq!(bytes[..2 * BLOCK], first, "{how:?}");
            }
            match second {
                Some(second) => assert_eq!(bytes[2 * BLOCK..], second, "{how:?}"),
                None => assert_ne!(bytes[2 * BLOCK..], [2; 2 * BLOCK], "{how:?}"),
            }
        }
    }
}

#[test]
fn names_that_were_not_synced_may_be_lost_and_the_others_not() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let sim = Sim::from_seed(seed);
        sim.plant("/data/old", b"o");
        sim.plant("/data/moved", b"m");
        let io = sim.io();
        sim.run(async {
            io.open(Path::new("/data/synced"), Open::New).await.unwrap();
            io.sync_dir(Path::new(DATA)).await.unwrap();
            io.open(Path::new("/data/new"), Open::New).await.unwrap();
            io.remove_file(Path::new("/data/old")).await.unwrap();
            io.rename(Path::new("/data/moved"), Path::new("/data/to"))
                .await
                .unwrap();
        });
        sim.power_cut();
        let names = sim.list(DATA);
        assert!(names.contains(&"synced".into()), "seed {seed}: {names:?}");
        let moved = ["moved", "to"]
            .iter()
            .filter(|n| names.contains(&(**n).into()))
            .count();
        assert_eq!(
            moved, 1,
            "seed {seed}: a rename is whole or not at all: {names:?}"
        );
        outcomes.insert(names);
    }
    assert_eq!(
        outcomes.len(),
        8,
        "each of three changes is lost or kept: {outcomes:?}"
    );
}

#[test]
fn a_folder_that_was_not_synced_takes_what_is_in_it_along() {
    let mut lost = 0;
    for seed in 0..50 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        sim.run(async {
            let dir = Path::new("/data/t-0");
            io.create_dir_all(dir).await.unwrap();
            let file = io.open(&dir.join("log"), Open::New).await.unwrap();
            file.write_at(filled(&io, 1, 1), 0).await.unwrap();
            file.fdatasync().await.unwrap();
            io.sync_dir(dir).await.unwrap();
        });
        sim.power_cut();
        match sim.read_committed("/data/t-0/log") {
            Some(bytes) => assert_eq!(bytes, [1; BLOCK]),
            None => lost += 1,
        }
    }
    assert!((10..40).contains(&lost), "lost {lost} times of 50");
}

#[test]
fn a_kill_keeps_what_was_written_but_commits_none_of_it() {
    let sim = Sim::from_seed(3);
    let io = sim.io();
    sim.run(async {
        let file = committed_file(&io, 1).await;
        file.write_at(filled(&io, 1, 1), 0).await.unwrap();
    });
    sim.kill();
    let io = sim.restart();
    let read = sim.run(async {
        let file = io.open(Path::new(FILE), Open::Existing).await.unwrap();
        file.read_at(0, BLOCK).await.unwrap().to_vec()
    });
    assert_eq!(read, [1; BLOCK]);
    assert_eq!(sim.read_committed(FILE).unwrap(), [0; BLOCK]);
    sim.power_cut_how(PowerCut::LoseAll);
    assert_eq!(sim.read_stable(FILE).unwrap(), [0; BLOCK]);
}

#[test]
fn after_a_failed_sync_the_next_one_says_ok_and_the_bytes_are_gone() {
    let (mut lost, mut seen_though_lost) = (0, 0);
    for seed in 0..100 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        sim.fail(OpKind::Sync, FILE, 1);
        sim.run(async {
            let file = committed_file(&io, 1).await;
            file.write_at(filled(&io, 1, 1), 0).await.unwrap();
            assert_eq!(
                file.fdatasync().await.unwrap_err().raw_os_error(),
                Some(libc::EIO)
            );
            file.fdatasync().await.unwrap();
        });
        if sim.read_committed(FILE).unwrap() != [1; BLOCK] {
            lost += 1;
            if sim.read_stable(FILE).unwrap() == [1; BLOCK] {
                seen_though_lost += 1;
            }
        }
    }
    assert!(lost > 50, "lost {lost} times of 100");
    assert!(seen_though_lost > 10, "{seen_though_lost}");
}

#[test]
fn each_sync_point_can_be_crashed_at_before_and_after() {
    let story = async |io: &SimIo| {
        let file = committed_file(io, 1).await;
        file.write_at(filled(io, 1, 1), 0).await.unwrap();
        file.fdatasync().await.unwrap();
    };
    let sim = Sim::from_seed(5);
    let io = sim.io();
    sim.run(story(&io));
    assert_eq!(sim.sync_points(), 3);
    for when in [When::Before, When::After] {
        let sim = Sim::from_seed(5);
        sim.crash_at_sync_how(3, when, PowerCut::LoseAll);
        let io = sim.io();
        let ended = sim.try_run(story(&io));
        assert_eq!(ended, Err(Crashed::Power(PowerCut::LoseAll)));
        let expected = if when == When::After { 1 } else { 0 };
        assert_eq!(
            sim.read_committed(FILE).unwrap(),
            [expected; BLOCK],
            "{when:?}"
        );
    }
}

#[test]
fn tasks_of_a_machine_that_went_down_are_dropped_and_its_handles_dead() {
    struct OnDrop(Rc<Cell<bool>>, SimIo);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.set(true);
            self.1
                .spawn(async { panic!("nothing starts on a dead machine") });
        }
    }
    let sim = Sim::from_seed(1);
    let io = sim.io();
    let dropped = Rc::new(Cell::new(false));
    let witness = OnDrop(dropped.clone(), io.clone());
    sim.run(async {
        io.spawn(async move {
            let witness = witness;
            witness.1.sleep(Duration::from_secs(1000)).await;
            panic!("it slept through its own end");
        });
        io.sleep(Duration::from_millis(1)).await;
    });
    sim.power_cut();
    assert!(dropped.get());
    let next = sim.restart();
    sim.run(async {
        let old = async {
            io.create_dir_all(Path::new("/data/ghost")).await.unwrap();
            panic!("a dead machine answered");
        };
        let new = next.sleep(Duration::from_secs(2000));
        futures_util::future::select(Box::pin(old), Box::pin(new)).await;
    });
    assert!(sim.list(DATA).is_empty());
}

#[test]
fn room_ends_with_a_short_write_then_enospc() {
    let sim = Sim::from_seed(1);
    sim.capacity(Some(3 * BLOCK as u64));
    let io = sim.io();
    sim.run(async {
        let file = io.open(Path::new(FILE), Open::New).await.unwrap();
        let full = |r: io::Error| r.raw_os_error() == Some(libc::ENOSPC);
        assert!(full(file.allocate(4 * BLOCK as u64).await.unwrap_err()));
        file.truncate(0).await.unwrap();
        assert_eq!(
            file.write_at(filled(&io, 1, 4), 0).await.unwrap(),
            3 * BLOCK
        );
        assert!(full(
            file.write_at(filled(&io, 1, 1), 3 * BLOCK as u64)
                .await
                .unwrap_err()
        ));
        assert_eq!(file.write_at(filled(&io, 2, 1), 0).await.unwrap(), BLOCK);
        assert!(full(
            io.open(Path::new("/data/g"), Open::New)
                .await
                .err()
                .unwrap()
        ));
        // A removed file keeps its room until it is closed.
        io.remove_file(Path::new(FILE)).await.unwrap();
        assert_eq!(file.read_at(0, 1).await.unwrap()[..], [2]);
        assert!(full(
            io.open(Path::new("/data/g"), Open::New)
                .await
                .err()
                .unwrap()
        ));
        io.sync_dir(Path::new(DATA)).await.unwrap();
        drop(file);
        io.open(Path::new("/data/g"), Open::New).await.unwrap();
    });
}

#[test]
fn short_writes_and_flipped_bits_happen_where_they_are_asked_for() {
    let sim = Sim::from_seed(9);
    let io = sim.io();
    sim.shorten_write(FILE, 1);
    sim.run(async {
        let file = committed_file(&io, 2).await;
        assert_eq!(
            file.write_at(filled(&io, 1, 2), 0).await.unwrap(),
            2 * BLOCK
        );
        let taken = file.write_at(filled(&io, 2, 2), 0).await.unwrap();
        assert!(taken < 2 * BLOCK && taken > 0 && taken.is_multiple_of(SECTOR));
        let read = file.read_at(0, 2 * BLOCK).await.unwrap();
        assert!(read[..taken].iter().all(|b| *b == 2) && read[taken..].iter().all(|b| *b == 1));
        file.fdatasync().await.unwrap();
    });
    let before = sim.read_committed(FILE).unwrap();
    sim.flip_bit(FILE, 77);
    let after = sim.read_committed(FILE).unwrap();
    let differ: Vec<_> = (0..before.len())
        .filter(|i| before[*i] != after[*i])
        .collect();
    assert_eq!(differ, [77]);
    sim.faults(Faults {
        bit_rot: 1.0,
        ..Faults::default()
    });
    let _io = sim.restart();
    assert_ne!(sim.read_committed(FILE).unwrap(), after);
}

/// What reads see and what a sync leaves on the disk are one file, damaged or not.
#[test]
fn a_flipped_bit_outlives_the_sync_of_what_was_written_before() {
    let sim = Sim::from_seed(10);
    let io = sim.io();
    sim.run(async {
        let file = committed_file(&io, 1).await;
        file.write_at(filled(&io, 2, 1), 0).await.unwrap();
    });
    sim.kill();
    sim.flip_bit(FILE, 77);
    let io = sim.restart();
    sim.run(async {
        let file = io.open(Path::new(FILE), Open::Existing).await.unwrap();
        assert_eq!(file.read_at(0, BLOCK).await.unwrap()[77], 3);
        file.fdatasync().await.unwrap();
    });
    sim.power_cut();
    assert_eq!(sim.read_stable(FILE).unwrap()[77], 3, "it is still flipped");
    sim.flip_bit(FILE, 77);
    assert_eq!(sim.read_stable(FILE).unwrap(), [2; BLOCK]);
}

#[test]
#[should_panic(expected = "not of whole blocks")]
fn a_write_that_is_not_aligned_is_a_mistake_of_ours() {
    let sim = Sim::from_seed(1);
    let io = sim.io();
    sim.run(async {
        let file = committed_file(&io, 1).await;
        let _ = file.write_at(filled(&io, 1, 1), 512).await;
    });
}

#[test]
#[should_panic(expected = "everyone waits for no one")]
fn a_deadlock_is_said() {
    Sim::from_seed(1).run(std::future::pending::<()>());
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one_wherever_the_power_goes() {
    let path = Path::new("/data/checkpoint");
    let mut new_ones = 0;
    for seed in 0..400 {
        let sim = Sim::from_seed(seed);
        sim.plant(path, b"old");
        sim.power_cut_in(Duration::from_micros(seed));
        let io = sim.io();
        let ended = sim.try_run(io.replace_file(path, b"the new one".to_vec()));
        let io = sim.restart();
        let bytes = sim.run(io.read_file(path)).unwrap();
        match &bytes[..] {
            b"the new one" => new_ones += 1,
            b"old" => assert!(ended.is_err(), "seed {seed}: it said that it was replaced"),
            torn => panic!("seed {seed}: {torn:?}"),
        }
    }
    assert!((20..380).contains(&new_ones), "{new_ones}");
}

/// What a random workload leaves after a power cut, byte by byte: each sector is one
/// that was written there, and none older than the last sync.
#[test]
fn ten_thousand_worlds_keep_their_promises() {
    for seed in 0..10_000 {
        let sim = Sim::from_seed(seed);
        let mut plan = sim.rng();
        sim.power_cut_in(Duration::from_micros(plan.below(2_000)));
        let io = sim.io();
        // The stamp of the newest write that a finished sync covers.
        let committed = Rc::new(Cell::new(0u8));
        let ended = sim.try_run({
            let (io, committed) = (io.clone(), committed.clone());
            async move {
                let file = committed_file(&io, 4).await;
                committed.set(1);
                for stamp in 2..20u8 {
                    let (block, blocks) = match plan.below(3) {
                        0 => (plan.below(3), 2),
                        1 => (plan.below(2), 3),
                        _ => (plan.below(4), 1),
                    };
                    file.write_at(filled(&io, stamp, blocks), block * BLOCK as u64)
                        .await
                        .unwrap();
                    if plan.chance(0.3) {
                        file.write_at(filled(&io, stamp, 4), 0).await.unwrap();
                        file.fdatasync().await.unwrap();
                        committed.set(stamp);
                    }
                }
            }
        });
        if ended.is_ok() {
            sim.power_cut();
        }
        let committed = committed.get();
        let Some(bytes) = sim.read_committed(FILE) else {
            assert_eq!(committed, 0, "seed {seed}: a committed file is gone");
            continue;
        };
        for (i, sector) in bytes.chunks(SECTOR).enumerate() {
            assert!(
                sector.iter().all(|b| *b == sector[0]),
                "seed {seed}: sector {i} is torn"
            );
            let old = if committed > 1 { committed } else { 0 };
            assert!(
                sector[0] >= old,
                "seed {seed}: sector {i} is {}, synced {old}",
                sector[0]
            );
        }
    }
}

#[test]
fn a_sync_of_everything_commits_bytes_lengths_and_names_that_were_there() {
    for seed in 0..50 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        let file = sim.run(committed_file(&io, 1));
        sim.run(async {
            io.create_dir_all(Path::new("/data/d/e")).await.unwrap();
            let deep = io.open(Path::new("/data/d/e/f"), Open::New).await.unwrap();
            deep.write_at(filled(&io, 7, 2), 0).await.unwrap();
            file.write_at(filled(&io, 8, 1), 0).await.unwrap();
            io.sync_all(Path::new(DATA)).await.unwrap();
            file.write_at(filled(&io, 9, 1), 0).await.unwrap();
        });
        assert_eq!(sim.sync_points(), 3, "two of the file that was there");
        sim.power_cut_how(PowerCut::LoseAll);
        let _ = sim.restart();
        assert_eq!(sim.read_stable("/data/d/e/f"), Some(vec![7; 2 * BLOCK]));
        assert_eq!(sim.read_stable(FILE), Some(vec![8; BLOCK]));
    }
}

#[test]
fn a_sync_of_everything_that_failed_is_told_to_all_and_until_a_restart() {
    let mut lost = 0;
    for seed in 0..50 {
        let sim = Sim::from_seed(seed);
        let io = sim.io();
        let file = sim.run(committed_file(&io, 1));
        sim.fail(OpKind::SyncAll, DATA, 0);
        sim.run(async {
            file.write_at(filled(&io, 9, 1), 0).await.unwrap();
            let data = Path::new(DATA);
            let both = futures_util::future::join(io.sync_all(data), io.sync_all(data)).await;
            // The one that came to its end before may have gone well.
            assert!(both.0.is_err() || both.1.is_err());
            if let (Ok(()), _) | (_, Ok(())) = both {
                assert_eq!(sim.read_committed(FILE), Some(vec![9; BLOCK]));
            }
            assert!(io.sync_all(data).await.is_err());
        });
        sim.power_cut_how(PowerCut::LoseAll);
        let io = sim.restart();
        lost += u64::from(sim.read_stable(FILE) != Some(vec![9; BLOCK]));
        sim.run(async { io.sync_all(Path::new(DATA)).await })
            .unwrap();
    }
    assert!(lost > 5, "{lost} of 50");
}

#[test]
fn a_disk_without_a_sync_of_everything_says_so() {
    let sim = Sim::from_seed(1);
    sim.without_sync_all();
    let io = sim.io();
    let error = sim
        .run(async { io.sync_all(Path::new(DATA)).await })
        .unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    assert_eq!(sim.sync_points(), 0);
}
