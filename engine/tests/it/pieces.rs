//! What a socket is given of a log, on a real disk: the very bytes that were appended,
//! whatever part of them lies in memory, in the page cache or on the disk, and while the
//! last block of the open segment is written again and again.

use crate::world::{batch, value};
use klamm_engine::batch::stamp;
use klamm_engine::config::LogConfig;
use klamm_engine::io::glommio::GlommioIo;
use klamm_engine::io::glommio::probe;
use klamm_engine::io::glommio::runtime::{self, RuntimeConfig};
use klamm_engine::partition::{OpenOptions, Partition};
use klamm_engine::slice::{Piece, Slice};
use klamm_engine::tail::TailCache;
use klamm_engine::units::{LeaderEpoch, Offset};
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// xorshift64: a seed that fails is a test.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

fn on_shard(story: impl AsyncFnOnce(GlommioIo, PathBuf) + Clone + Send + 'static) {
    if let Err(reason) = probe::io_uring() {
        eprintln!("skipped: {reason}");
        return;
    }
    // On the disk that the build is on: /tmp may be memory.
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let room = tempfile::tempdir_in(target).unwrap();
    let dir = room.path().to_owned();
    let config = RuntimeConfig {
        cores: 1,
        pin: false,
        ..RuntimeConfig::default()
    };
    let ended = runtime::run(
        &config,
        async |_, _| Ok::<(), std::convert::Infallible>(()),
        async move |_, io| story(io, dir).await,
    );
    ended.unwrap();
}

async fn open(io: &GlommioIo, dir: &Path, clean: bool) -> Rc<Partition<GlommioIo>> {
    let config = LogConfig {
        segment_bytes: 3 << 20,
        ..LogConfig::default()
    };
    let options = OpenOptions {
        clean,
        leader_epoch: LeaderEpoch(0),
    };
    // So little that nearly all reads are of files.
    let cache = TailCache::new(64 << 10);
    let opened = Partition::open(io.clone(), dir.join("orders-0"), config, options, cache);
    opened.await.expect("opens")
}

#[derive(Default)]
struct Seen {
    memory: usize,
    file: usize,
    loaded: usize,
}

/// What a client would get.
async fn bytes(io: &GlommioIo, slice: &Slice<GlommioIo>, seen: &mut Seen) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in slice.pieces(io).await.expect("no damage") {
        match piece {
            Piece::Memory { chunk, from, to } => {
                all.extend_from_slice(chunk.slice(from, to));
                seen.memory += 1;
            }
            Piece::Bytes(bytes) => {
                all.extend_from_slice(&bytes);
                seen.loaded += 1;
            }
            Piece::File(piece) => {
                assert!(piece.from < piece.to && piece.to <= piece.settled);
                let from = all.len();
                all.resize(from + (piece.to - piece.from) as usize, 0);
                let n = piece.file.read(piece.from, &mut all[from..]).unwrap();
                assert_eq!(n as u64, piece.to - piece.from);
                seen.file += 1;
            }
        }
    }
    assert_eq!(all.len(), slice.bytes);
    all
}

/// What was appended, batch by batch: base offset and bytes as they were stamped.
type Appended = Vec<(Offset, Vec<u8>)>;

fn append(partition: &Rc<Partition<GlommioIo>>, random: &mut Random, log: &mut Appended) {
    let len = match random.below(10) {
        0..=5 => random.below(300),
        6..=8 => random.below(9000),
        _ => random.below(200_000),
    };
    let number = log.len() as u64;
    let plain = batch(&[value(number, len as usize)], 1_000);
    let appended = partition.append(&plain).expect("taken");
    let mut stamped = plain.clone();
    stamp(&mut stamped, appended.base_offset, LeaderEpoch(0));
    log.push((appended.base_offset, stamped));
}

async fn check(
    io: &GlommioIo,
    partition: &Rc<Partition<GlommioIo>>,
    random: &mut Random,
    log: &Appended,
    seen: &mut Seen,
) {
    let end = partition.offsets().high_watermark.0 as u64;
    if end == 0 {
        return;
    }
    let from = Offset(random.below(end) as i64);
    let bytes_max = 1 + random.below(1_500_000) as usize;
    let slice = partition.read(from, bytes_max, true).await.unwrap();
    let came = bytes(io, &slice, seen).await;
    let mut at = 0;
    // A record a batch, so an offset is a batch's number.
    for (offset, bytes) in &log[from.0 as usize..] {
        if at == came.len() {
            break;
        }
        assert!(
            came[at..].starts_with(bytes),
            "batch {offset} of a read at {from}"
        );
        at += bytes.len();
    }
    assert!(
        at > 0 && at == came.len(),
        "whole batches, and at least one"
    );
}

#[test]
fn random_appends_and_reads_give_what_was_appended() {
    for seed in [1, 2, 3] {
        on_shard(async move |io, dir| {
            let mut random = Random(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed));
            let (mut log, mut seen) = (Appended::new(), Seen::default());
            for life in 0..3 {
                let partition = open(&io, &dir, life > 0).await;
                for _ in 0..300 {
                    for _ in 0..random.below(4) {
                        append(&partition, &mut random, &mut log);
                    }
                    match random.below(3) {
                        // With a round under way.
                        0 => check(&io, &partition, &mut random, &log, &mut seen).await,
                        1 => {
                            let end = partition.offsets().log_end;
                            partition.acknowledged(end).await.unwrap();
                            check(&io, &partition, &mut random, &log, &mut seen).await;
                        }
                        _ => {}
                    }
                }
                partition.close().await.unwrap();
            }
            let all = [seen.memory, seen.file, seen.loaded];
            assert!(all.iter().all(|n| *n > 10), "every way was taken: {all:?}");
        });
    }
}

/// Retention takes a segment that is being sent: its reader has it to the end.
#[test]
fn a_piece_outlives_the_name_of_its_file() {
    on_shard(async |io, dir| {
        let partition = open(&io, &dir, false).await;
        let mut random = Random(77);
        let mut log = Appended::new();
        while partition.size_bytes() < 8 << 20 {
            append(&partition, &mut random, &mut log);
        }
        let end = partition.offsets().log_end;
        partition.acknowledged(end).await.unwrap();
        let slice = partition.read(Offset(0), 1 << 20, true).await.unwrap();
        let pieces = slice.pieces(&io).await.unwrap();
        let [Piece::File(piece)] = &pieces[..] else {
            panic!("the first megabyte is of a file alone");
        };
        let path = piece.file.path().to_owned();
        std::fs::remove_file(&path).unwrap();
        let mut came = vec![0; (piece.to - piece.from) as usize];
        assert_eq!(piece.file.read(piece.from, &mut came).unwrap(), came.len());
        let expected: Vec<u8> = log.iter().flat_map(|(_, b)| b.clone()).collect();
        assert!(expected.starts_with(&came));
        // Not closed: its first file is gone.
        partition.abandon().await;
    });
}

/// A file that lost its end is damage, and told in place of an answer.
#[test]
fn a_file_that_lost_its_end_takes_the_partition_offline() {
    on_shard(async |io, dir| {
        let partition = open(&io, &dir, false).await;
        let mut random = Random(78);
        let mut log = Appended::new();
        while partition.size_bytes() < 8 << 20 {
            append(&partition, &mut random, &mut log);
        }
        let end = partition.offsets().log_end;
        partition.acknowledged(end).await.unwrap();
        let slice = partition.read(Offset(0), 1 << 20, true).await.unwrap();
        let first = dir.join("orders-0").join("00000000000000000000.log");
        let file = std::fs::File::options().write(true).open(&first).unwrap();
        file.set_len(100_000).unwrap();
        let Err(offline) = slice.pieces(&io).await else {
            panic!("bytes that are not there were found");
        };
        assert!(offline.to_string().contains("the file ends"), "{offline}");
        assert!(partition.offline().is_some());
        partition.abandon().await;
    });
}
