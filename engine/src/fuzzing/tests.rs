//! The corpus through the doors that the fuzzers use; and where its seeds come from.

use super::*;
use crate::batch::BatchBuilder;
use crate::config::LogConfig;
use crate::io::sim::{Rng, Sim};
use crate::partition::{OpenOptions, Partition};
use crate::tail::TailCache;
use crate::units::{ProducerEpoch, ProducerId};
use std::path::PathBuf;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target)
}

/// Each input as it is, cut short, and changed a little: KLAMM_FUZZ_ROUNDS times, from a
/// seed. Says which input broke a promise, and leaves it in the temporary folder.
fn replay(target: &str, door: fn(&[u8])) {
    let rounds = std::env::var("KLAMM_FUZZ_ROUNDS").ok();
    let rounds = rounds.map_or(20, |n| n.parse().expect("KLAMM_FUZZ_ROUNDS is a number"));
    let mut rng = Rng::from_seed(rounds);
    let mut inputs: Vec<_> = std::fs::read_dir(corpus(target))
        .expect("the corpus")
        .map(|entry| entry.expect("the corpus").path())
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 10, "a corpus of {}", inputs.len());
    for path in inputs {
        let bytes = std::fs::read(&path).expect("an input");
        let attempt = |bytes: &[u8], how: &str| {
            if std::panic::catch_unwind(|| door(bytes)).is_err() {
                let kept = std::env::temp_dir().join(format!("klamm-{target}-broken"));
                std::fs::write(&kept, bytes).expect("keep the input");
                panic!("{}, {how}: kept as {}", path.display(), kept.display());
            }
        };
        attempt(&bytes, "as it is");
        for cut in [1, 7, 64, 500] {
            attempt(&bytes[..bytes.len().saturating_sub(cut)], "cut short");
        }
        for round in 0..rounds {
            let mut changed = bytes.clone();
            for _ in 0..=rng.below(4) {
                change(&mut changed, &mut rng);
            }
            attempt(&changed, &format!("change {round}"));
        }
    }
}

/// What fuzzers do to bytes.
fn change(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.index(bytes.len());
    let to = at + rng.index((bytes.len() - at).min(64));
    match rng.below(6) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.index(5)],
        2 => bytes[at] = bytes[at].wrapping_add(1),
        3 => drop(bytes.drain(at..to)),
        4 => bytes[at..to].fill(0),
        _ => {
            let piece = bytes[at..to].to_vec();
            let into = rng.index(bytes.len());
            bytes.splice(into..into, piece);
        }
    }
}

#[test]
fn the_corpus_of_record_batches() {
    replay("record_batch", record_batch);
}

#[test]
fn the_corpus_of_small_files() {
    replay("small_files", small_files);
}

#[test]
fn the_corpus_of_folders() {
    replay("recovery", recovery);
}

#[test]
fn a_folder_comes_back_from_its_bytes() {
    let folder = written(true, 60, false);
    assert!(folder.files.len() > 4);
    assert_eq!(Folder::parse(&folder.encode()), folder);
}

// -- seeds

fn sample(codec: Codec, records: usize, len: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    for n in 0..records {
        let value = vec![n as u8; len];
        builder = builder.record(
            TimestampMs(1_700_000_000_000 + n as i64),
            Some(b"key"),
            Some(&value),
        );
    }
    builder.finish()
}

/// `cargo test -p klamm-engine seeds_of -- --ignored` after a change of a format.
#[test]
#[ignore = "writes the seeds of the corpus"]
fn seeds_of_the_corpus_are_written() {
    let write = |target: &str, name: String, bytes: &[u8]| {
        std::fs::create_dir_all(corpus(target)).expect("the corpus");
        std::fs::write(corpus(target).join(name), bytes).expect("a seed");
    };
    let codecs = [
        Codec::None,
        Codec::Gzip,
        Codec::Snappy,
        Codec::Lz4,
        Codec::Zstd,
    ];
    for codec in codecs {
        write("record_batch", format!("{codec}-3"), &sample(codec, 3, 10));
        let two = [sample(codec, 1, 40), sample(codec, 2, 5)].concat();
        write("record_batch", format!("{codec}-two-batches"), &two);
        let packed = codec::compress(codec, &[b'a'; 300]);
        let packed = [&[codec.id()][..], &packed].concat();
        write("record_batch", format!("{codec}-packed"), &packed);
    }
    let idempotent = BatchBuilder::new(Codec::None)
        .producer(ProducerId(7), ProducerEpoch(1), 40)
        .record(TimestampMs(5), None, None)
        .finish();
    write("record_batch", "idempotent".into(), &idempotent);

    for (name, clean, snapshots, unsynced) in [
        ("clean", true, 12, false),
        ("killed", false, 12, false),
        ("long", false, 60, false),
        ("long-clean", true, 60, false),
        ("unsynced", false, 30, true),
        ("empty", false, 0, false),
        ("empty-clean", true, 0, false),
    ] {
        let mut folder = written(clean, snapshots, unsynced);
        write("recovery", name.into(), &folder.encode());
        folder.mend = true;
        write("recovery", format!("{name}-mended"), &folder.encode());
        for file in &folder.files {
            let (door, head) = match file.kind() {
                1 => (0, [0, 255, 255, 255]),
                2 => (1, [0, 255, 255, 255]),
                3 => (2, [0; 4]),
                4 => (4, [0; 4]),
                5 => (3, [0; 4]),
                6 => (5, [0; 4]),
                _ => continue,
            };
            let bytes = [&[door][..], &head, file.bytes()].concat();
            write("small_files", format!("{name}-{}", file.name()), &bytes);
        }
    }
}

/// A folder that a partition has written, as a stop or a crash leaves it.
fn written(clean: bool, batches: usize, unsynced: bool) -> Folder {
    let sim = Sim::from_seed(1);
    let io = sim.io();
    let dir = PathBuf::from("/data/orders-0");
    let config = LogConfig {
        segment_bytes: 4 << 10,
        index_interval_bytes: 512,
        flush_messages: (!unsynced).then_some(1),
        ..LogConfig::default()
    };
    let options = OpenOptions {
        clean: false,
        leader_epoch: LeaderEpoch(3),
    };
    sim.run(async {
        let partition = Partition::open(
            io.clone(),
            dir.clone(),
            config,
            options,
            TailCache::new(64 << 10),
        );
        let partition = partition.await.expect("a new partition");
        for n in 0..batches {
            let batch = BatchBuilder::new(Codec::None)
                .producer(
                    ProducerId(9),
                    ProducerEpoch(0),
                    i32::try_from(n).expect("few"),
                )
                .record(
                    TimestampMs(1_700_000_000_000 + n as i64),
                    None,
                    Some(&[n as u8; 100]),
                )
                .finish();
            let appended = partition.append(&batch).expect("appended");
            partition
                .acknowledged(appended.next_offset)
                .await
                .expect("acknowledged");
        }
        if batches > 20 {
            partition.delete_records(Offset(4)).await.expect("deleted");
        }
        if clean {
            partition.close().await.expect("closed");
        }
    });
    let files = sim.list(&dir).into_iter().filter_map(|name| {
        let bytes = sim.read_stable(dir.join(&name)).expect("it is listed");
        Folder::file(&name, &bytes)
    });
    Folder {
        clean,
        unsynced,
        leader_epoch: 3,
        files: files.collect(),
        mend: false,
    }
}
