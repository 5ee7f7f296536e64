//! A folder of any bytes is opened, read to its end, written to, closed, opened again.
//!
//! ```text
//!   any folder --open--> offline: nothing of the newest segment was cut
//!                   \--> a log:   reads end, and what they give is sound
//!                                 an append is there after a stop
//! ```

use super::Folder;
use crate::batch::{BatchBuilder, Batches};
use crate::codec::Codec;
use crate::config::LogConfig;
use crate::error::{Offline, ReadError};
use crate::io::Io;
use crate::io::sim::{Sim, SimIo};
use crate::partition::{AppendError, OpenOptions, Partition};
use crate::tail::TailCache;
use crate::units::{LeaderEpoch, Offset, TimestampMs};
use std::path::Path;
use std::rc::Rc;

const DIR: &str = "/data/orders-0";

/// See [`Folder`] for what the bytes mean.
pub fn recovery(bytes: &[u8]) {
    let folder = Folder::parse(bytes);
    let sim = Sim::from_seed(0);
    folder.plant(&sim, Path::new(DIR));
    let newest = newest_log(&sim);
    let io = sim.io();
    match sim.run(open(&io, &folder, folder.clean)) {
        // Where there was none, one may have been made.
        Err(_) if newest.is_none() => {}
        Err(_) => assert_eq!(newest_log(&sim), newest, "offline, and something was cut"),
        Ok(partition) => {
            if let Some(end) = sim.run(live(&io, &folder, &partition)) {
                let again = sim.run(open(&io, &folder, true));
                // Damage of an older segment may be found by either.
                if let Ok(again) = again {
                    assert_eq!(again.offsets().log_end, end, "a clean stop keeps all");
                    sim.run(read_all(&again));
                    // Its outcome is the disk's affair, which here has no faults.
                    let _ = sim.run(again.close());
                }
            }
        }
    }
    sim.kill();
}

async fn open(io: &SimIo, folder: &Folder, clean: bool) -> Result<Rc<Partition<SimIo>>, Offline> {
    let config = LogConfig {
        segment_bytes: 16 << 10,
        index_interval_bytes: 512,
        flush_messages: (!folder.unsynced).then_some(1),
        ..LogConfig::default()
    };
    let options = OpenOptions {
        clean,
        leader_epoch: LeaderEpoch(i32::from(folder.leader_epoch)),
    };
    Partition::open(
        io.clone(),
        DIR.into(),
        config,
        options,
        TailCache::new(64 << 10),
    )
    .await
}

/// What a broker does with an open log. The log's end if it was closed in order.
async fn live(io: &SimIo, folder: &Folder, partition: &Rc<Partition<SimIo>>) -> Option<Offset> {
    read_all(partition).await;
    let offsets = partition.offsets();
    assert!(offsets.log_start <= offsets.high_watermark);
    assert!(offsets.high_watermark <= offsets.log_end);
    for time in [i64::MIN, 0, io.wall().0, i64::MAX] {
        if let Ok(Some(found)) = partition.offset_at_or_after(TimestampMs(time)).await {
            assert!((offsets.log_start..offsets.log_end).contains(&found.offset));
        }
    }
    let _ = partition.latest_timestamp().await;
    partition.epoch_of(offsets.log_end);
    partition.end_offset_for_epoch(LeaderEpoch(i32::from(folder.leader_epoch)));
    append(io, partition).await;
    // Each may find damage, and then the log is offline, as a read would have it.
    let _ = partition
        .delete_records(Offset(offsets.log_start.0 + 3))
        .await;
    let _ = partition.housekeep().await;
    append(io, partition).await;
    read_all(partition).await;
    let end = partition.offsets().log_end;
    partition.close().await.ok().map(|()| end)
}

async fn append(io: &SimIo, partition: &Rc<Partition<SimIo>>) {
    let batch = BatchBuilder::new(Codec::None)
        .record(io.wall(), Some(b"key"), Some(b"value"))
        .finish();
    match partition.append(&batch) {
        Ok(appended) => {
            let acknowledged = partition.acknowledged(appended.next_offset).await;
            if acknowledged.is_ok() {
                assert!(partition.offsets().high_watermark >= appended.next_offset);
            }
        }
        Err(AppendError::Offline(_)) => assert!(partition.offline().is_some()),
        Err(other) => panic!("a sound batch is refused: {other}"),
    }
}

/// Reads until the end or until damage is found; what comes is checked batch by batch.
async fn read_all(partition: &Rc<Partition<SimIo>>) {
    let mut from = partition.offsets().log_start;
    let end = partition.offsets().high_watermark;
    while from < end {
        let slice = match partition.read(from, 3000, true).await {
            Ok(slice) => slice,
            Err(ReadError::Offline(_)) => return,
            Err(other) => panic!("{from} of {end}: {other}"),
        };
        let Ok(parts) = slice.load().await else {
            assert!(partition.offline().is_some(), "damage is remembered");
            return;
        };
        let bytes = parts.concat();
        assert_eq!(bytes.len(), slice.bytes);
        if bytes.is_empty() {
            // All that is left may be a gap, as compaction makes them; then there is
            // nothing up to the end, from wherever one asks.
            let last = Offset(end.0 - 1);
            if let Ok(slice) = partition.read(last, 3000, true).await {
                assert!(slice.is_empty(), "a reader stands still at {from} of {end}");
            }
            return;
        }
        let mut first = true;
        for batch in Batches::new(&bytes) {
            let batch = batch.expect("whole batches");
            batch
                .verify_crc()
                .expect("the CRC of a batch that is given out");
            assert!(
                batch.last_offset() >= from,
                "the first batch holds {from} or what is behind"
            );
            assert!(first || batch.base_offset() >= from, "offsets rise");
            from = batch.next_offset();
            first = false;
        }
    }
}

/// The bytes of the newest segment, which is the only one that recovery may cut.
fn newest_log(sim: &Sim) -> Option<(String, Vec<u8>)> {
    let names = sim.list(DIR);
    let newest = names.into_iter().rfind(|name| name.ends_with(".log"))?;
    let bytes = sim.read_stable(Path::new(DIR).join(&newest))?;
    Some((newest, bytes))
}
