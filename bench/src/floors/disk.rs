//! The disk's floor: the same bytes by bare io_uring writes and syncs, nothing else.
//!
//! ```text
//!   one at a time   | write | fdatasync | write | fdatasync | ...
//!   overlapped      | write | fdatasync |
//!                      | write | fdatasync |           IN_FLIGHT under way, each request
//!                         | write | fdatasync |        safe once its own sync has ended
//!
//!   growing         a new file, longer with every write
//!   preallocated    a new file that has its length, and nothing was ever written
//!   written         the growing one, a second time
//! ```
//!
//! Through the door that the broker itself writes through (engine/src/io.rs), direct,
//! from one executor on the server's core. What a broker adds (sockets, checks, copies)
//! is not in it: it can come near this and, with the same file and as many in flight,
//! not above.

use super::{Floor, Site};
use crate::noise::noise;
use crate::process::Cpu;
use crate::{Outcome, measurement};
use futures_util::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use klamm_engine::io::glommio::GlommioIo;
use klamm_engine::io::glommio::runtime::{self, RuntimeConfig};
use klamm_engine::io::{BLOCK, Buf, File, Io, Open};
use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Requests under way where syncs overlap writes: while one is written, the others' syncs
/// may run, be merged, or wait their turn.
pub const IN_FLIGHT: usize = 4;

/// Paced requests go round in a file of this length.
const PACED_FILE_BYTES: u64 = 16 << 20;

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Growing,
    Preallocated,
    Written,
}

const VARIANTS: [(&str, &str, Place, usize); 6] = [
    (
        "disk_growing",
        "disk: growing file, a sync after each write",
        Place::Growing,
        1,
    ),
    (
        "disk_written",
        "disk: file written before, the same",
        Place::Written,
        1,
    ),
    (
        "disk_written_overlapped",
        "disk: file written before, 4 in flight",
        Place::Written,
        IN_FLIGHT,
    ),
    (
        "disk_growing_overlapped",
        "disk: growing file, 4 in flight",
        Place::Growing,
        IN_FLIGHT,
    ),
    (
        "disk_preallocated",
        "disk: preallocated file, a sync after each write",
        Place::Preallocated,
        1,
    ),
    (
        "disk_preallocated_overlapped",
        "disk: preallocated file, 4 in flight",
        Place::Preallocated,
        IN_FLIGHT,
    ),
];

/// Every variant, with requests of the site's length.
pub fn floors(site: &Site<'_>) -> Outcome<Vec<Floor>> {
    let request = site.request_bytes.next_multiple_of(BLOCK);
    let requests = site.bytes.div_ceil(request as u64).max(1);
    let path = site.folder.join("disk");
    on_executor(site, path, move |io, path| async move {
        let mut floors = Vec::new();
        for (id, label, place, in_flight) in VARIANTS {
            let file = open(&io, &path, place, requests * request as u64).await?;
            let (before, began) = (cpu()?, Instant::now());
            write(&io, &file, request, requests, in_flight).await?;
            floors.push(Floor {
                id,
                label,
                bytes: requests * request as u64,
                wall: began.elapsed(),
                cpu: cpu()? - before,
            });
        }
        io.remove_file(&path).await?;
        Ok(floors)
    })
}

/// How long one block takes from its write to the end of its sync, in a file that was
/// written before: what a lone small request has to wait for.
pub fn sync_latency(site: &Site<'_>, times: u64) -> Outcome<Histogram<u64>> {
    let path = site.folder.join("sync");
    on_executor(site, path, move |io, path| async move {
        let file = open(&io, &path, Place::Growing, 0).await?;
        write(&io, &file, BLOCK, times, 1).await?;
        let latency = write(&io, &file, BLOCK, times, 1).await?;
        io.remove_file(&path).await?;
        Ok(latency)
    })
}

/// The same for requests of the site's length that are due at a rate, each begun when it is
/// due or when the one before it ended, and its clock from when it was due: what a broker that
/// syncs before it answers can't be quicker than at that rate.
pub fn paced_latency(site: &Site<'_>, per_second: f64, times: u64) -> Outcome<Histogram<u64>> {
    let path = site.folder.join("paced");
    let request = site.request_bytes.next_multiple_of(BLOCK);
    let room = (PACED_FILE_BYTES / request as u64).max(1);
    on_executor(site, path, move |io, path| async move {
        let file = open(&io, &path, Place::Growing, 0).await?;
        write(&io, &file, request, room, IN_FLIGHT).await?;
        let buf = filled(&io, request);
        let mut latency = measurement::latencies();
        let began = Instant::now();
        for n in 0..times {
            let due = began + Duration::from_secs_f64(n as f64 / per_second);
            let early = due.saturating_duration_since(Instant::now());
            if !early.is_zero() {
                io.sleep(early).await;
            }
            write_and_sync(&file, buf.clone(), n % room * request as u64).await?;
            record(&mut latency, due.elapsed());
        }
        io.remove_file(&path).await?;
        Ok(latency)
    })
}

fn cpu() -> io::Result<Cpu> {
    // Of the process: what the kernel's own workers do for a ring is in it.
    Cpu::of_this_process().map_err(io::Error::other)
}

/// Runs `work` on an executor of the server's cores, and brings back what it says.
fn on_executor<T, W, F>(site: &Site<'_>, path: PathBuf, work: W) -> Outcome<T>
where
    T: Send + 'static,
    W: FnOnce(GlommioIo, PathBuf) -> F + Clone + Send + 'static,
    F: Future<Output = io::Result<T>>,
{
    let config = RuntimeConfig {
        cores: 1,
        // It is where the thread that starts it is.
        pin: false,
        ..RuntimeConfig::default()
    };
    let failed = format!(
        "direct writes of {}: the folder given with --data must be on a disk with direct I/O \
         (a tmpfs has none)",
        path.display()
    );
    let (tell, told) = mpsc::channel();
    site.cores.start(|| {
        runtime::run(
            &config,
            async move |_, io: GlommioIo| {
                let done = work(io, path).await.map_err(|e| format!("{failed}: {e}"))?;
                let _ = tell.send(done);
                Ok(())
            },
            async |_, _| {},
        )
        .map_err(|e: runtime::RuntimeError<String>| e.to_string())
    })?;
    told.recv()
        .map_err(|_| "the disk's floor ended without a word".to_owned())
}

async fn open<I: Io>(io: &I, path: &Path, place: Place, length: u64) -> io::Result<I::File> {
    if place == Place::Written {
        return io.open(path, Open::Existing).await;
    }
    match io.remove_file(path).await {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = io.open(path, Open::New).await?;
    if place == Place::Preallocated {
        file.allocate(length).await?;
    }
    file.fdatasync().await?;
    Ok(file)
}

/// How long each request took, from its write to the end of its sync.
async fn write<I: Io>(
    io: &I,
    file: &I::File,
    request: usize,
    requests: u64,
    in_flight: usize,
) -> io::Result<Histogram<u64>> {
    let buf = filled(io, request);
    let latency = RefCell::new(measurement::latencies());
    stream::iter(0..requests)
        .map(|n| {
            let (buf, latency) = (buf.clone(), &latency);
            async move {
                let began = Instant::now();
                write_and_sync(file, buf, n * request as u64).await?;
                record(&mut latency.borrow_mut(), began.elapsed());
                Ok::<_, io::Error>(())
            }
        })
        .buffer_unordered(in_flight)
        .try_collect::<()>()
        .await?;
    Ok(latency.into_inner())
}

fn filled<I: Io>(io: &I, request: usize) -> Rc<I::Buf> {
    let mut buf = io.alloc(request);
    buf.as_mut().copy_from_slice(&noise(request));
    Rc::new(buf)
}

async fn write_and_sync<F: File>(file: &F, buf: Rc<F::Buf>, at: u64) -> io::Result<()> {
    let request = buf.len();
    let taken = file.write_at(buf, at).await?;
    if taken < request {
        let what = format!("the disk took {taken} of {request} bytes");
        return Err(io::Error::new(io::ErrorKind::WriteZero, what));
    }
    file.fdatasync().await
}

fn record(into: &mut Histogram<u64>, took: Duration) {
    into.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
}
