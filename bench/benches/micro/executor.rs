//! Runs a measurement on the engine's own executors, and brings its time back.
//!
//! ```text
//!   criterion's thread        shard 0                         the others
//!   measure(n) ------------>  prepare | begin ... end | tidy   serve what comes
//!           <----- time -------------- took -----------------  until shard 0 has ended
//! ```
//!
//! A runtime is made for each sample: its start, tens of milliseconds, is outside of the
//! time that counts.

use klamm_engine::io::Io;
use klamm_engine::io::glommio::GlommioIo;
use klamm_engine::io::glommio::runtime::{self, RuntimeConfig};
use klamm_engine::io::shards::Shards;
use klamm_engine::units::ShardId;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// Runs `measure` on the first of so many shards, each on a processor of its own where
/// there are as many.
pub fn on_shards<M>(shards: usize, measure: M) -> Duration
where
    M: AsyncFnOnce(Shards<()>, GlommioIo) -> Duration + Clone + Send + 'static,
{
    let config = RuntimeConfig {
        cores: shards,
        ..RuntimeConfig::default()
    };
    let (tell, told) = mpsc::channel();
    let ran = runtime::run(
        &config,
        async |_, _| Ok::<(), String>(()),
        async move |shards, io| {
            if shards.here() == ShardId(0) {
                let took = measure(shards, io).await;
                tell.send(took).expect("the benchmark waits for it");
            }
        },
    );
    if let Err(error) = ran {
        panic!("the benchmark's executors: {error}");
    }
    told.recv().expect("shard 0 ended, and had measured")
}

/// A folder of this run below the target folder; empty.
pub async fn empty_folder<I: Io>(io: &I, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("micro")
        .join(name);
    remove_folder(io, &folder).await;
    io.create_dir_all(&folder)
        .await
        .unwrap_or_else(|e| panic!("{} can't be made: {e}", folder.display()));
    folder
}

pub async fn remove_folder<I: Io>(io: &I, folder: &Path) {
    match io.remove_dir_all(folder).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            panic!("{} can't be emptied: {e}", folder.display())
        }
        _ => {}
    }
}
