//! A simulated machine with one partition on it, in few words for the stories.

use klamm_engine::batch::{BatchBuilder, Batches};
use klamm_engine::codec::Codec;
use klamm_engine::config::LogConfig;
use klamm_engine::error::{Offline, ReadError};
use klamm_engine::io::Io;
use klamm_engine::io::sim::{Sim, SimIo};
use klamm_engine::partition::{OpenOptions, Partition};
use klamm_engine::segment::file_name;
use klamm_engine::tail::TailCache;
use klamm_engine::units::{LeaderEpoch, Offset, TimestampMs};
use std::path::PathBuf;
use std::rc::Rc;

pub const DIR: &str = "/data/orders-0";

pub fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 16 << 10,
        index_interval_bytes: 512,
        ..LogConfig::default()
    }
}

/// The path of the segment that begins at `base`.
pub fn log_path(base: i64) -> String {
    format!("{DIR}/{}", file_name(Offset(base), "log"))
}

pub async fn open_on<I: Io>(
    io: &I,
    config: LogConfig,
    clean: bool,
) -> Result<Rc<Partition<I>>, Offline> {
    open_at_epoch(io, config, clean, 0).await
}

pub async fn open_at_epoch<I: Io>(
    io: &I,
    config: LogConfig,
    clean: bool,
    leader_epoch: i32,
) -> Result<Rc<Partition<I>>, Offline> {
    let options = OpenOptions {
        clean,
        leader_epoch: LeaderEpoch(leader_epoch),
    };
    Partition::open(
        io.clone(),
        PathBuf::from(DIR),
        config,
        options,
        TailCache::new(64 << 10),
    )
    .await
}

pub fn open(sim: &Sim, io: &SimIo, config: LogConfig, clean: bool) -> Rc<Partition<SimIo>> {
    sim.run(open_on(io, config, clean)).expect("opens")
}

/// One batch of records whose values are given.
pub fn batch(values: &[Vec<u8>], timestamp: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Codec::None);
    for value in values {
        builder = builder.record(TimestampMs(timestamp), None, Some(value));
    }
    builder.finish()
}

/// A value that says which record it is, padded to `len`.
pub fn value(number: u64, len: usize) -> Vec<u8> {
    let mut value = number.to_be_bytes().to_vec();
    value.resize(len.max(8), number as u8);
    value
}

/// Everything from `from` to the high watermark, fetch by fetch: (offset, value).
pub async fn read_all<I: Io>(
    partition: &Rc<Partition<I>>,
    from: Offset,
    mut bytes_max: impl FnMut() -> usize,
) -> Result<Vec<(i64, Vec<u8>)>, ReadError> {
    let mut next = from;
    let mut records = Vec::new();
    while next < partition.offsets().high_watermark {
        let fetched = fetch(partition, next, bytes_max()).await?;
        assert!(
            !fetched.is_empty(),
            "a fetch at {next} below the high watermark gives something"
        );
        for (offset, value) in fetched {
            if offset >= next.0 {
                assert_eq!(offset, next.0, "the next record");
                next = next.plus(1);
                records.push((offset, value));
            }
        }
    }
    Ok(records)
}

/// One fetch, with its batches' CRCs checked.
pub async fn fetch<I: Io>(
    partition: &Rc<Partition<I>>,
    from: Offset,
    bytes_max: usize,
) -> Result<Vec<(i64, Vec<u8>)>, ReadError> {
    let slice = partition.read(from, bytes_max, true).await?;
    let bytes = slice.load().await?.concat();
    assert_eq!(bytes.len(), slice.bytes);
    let mut records = Vec::new();
    let mut batches = 0;
    for batch in Batches::new(&bytes) {
        let batch = batch.expect("whole batches");
        batch.verify_crc().expect("as it was appended");
        batches += 1;
        let unpacked = batch.records_unpacked(32 << 20).expect("unpacks");
        for record in batch.records(&unpacked) {
            let record = record.expect("a record");
            let offset = batch.header().base_offset().0 + i64::from(record.offset_delta);
            records.push((offset, record.value.unwrap_or_default().to_vec()));
        }
    }
    assert!(
        batches <= 1 || bytes.len() <= bytes_max,
        "only the first batch may exceed the bound"
    );
    Ok(records)
}
