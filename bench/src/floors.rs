//! `floors`: what this machine does with the same bytes when nothing else is in the way.
//!
//! ```text
//!   floors/disk      bare io_uring writes and syncs           <- the server's core
//!   floors/loopback  one bare connection, with and without CRC   server's and client's
//!   floors/sendfile  a cold file to a socket                     server's and client's
//!   floors/control   plain writes, buffered and direct        <- the server's core
//!        |
//!      Floors --> the lower one: disk at its best, or loopback + CRC --> ratio
//! ```
//!
//! A broker that does all of it at once can at best come near the slowest part. The
//! disk's floor is its best variant: whatever files and however many writes in flight a
//! broker has chosen, that choice is part of what is measured.

mod control;
mod disk;
mod loopback;
mod sendfile;

use crate::cores::Cores;
use crate::data_folder::DataFolder;
use crate::measurement::Measurement;
use crate::process::Cpu;
use crate::report::{Figure, Report};
use crate::{Common, Outcome};
use hdrhistogram::Histogram;
use std::path::Path;
use std::time::Duration;

/// The machine's own rates: disk, loopback, sendfile, and a control.
///
/// Each floor moves --mib in requests of --request-bytes, on the same cores as a broker
/// and its client would be (the server's parts on the first, the client's on the last).
/// CPU is of the server's part, user and system apart. The disk is written by bare
/// io_uring, each request followed by a sync; the control by plain write calls.
#[derive(clap::Args)]
pub struct Args {
    /// How much each floor moves.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    mib: u32,

    /// Bytes of a request: a write and its sync, a send.
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(1..=16 << 20))]
    request_bytes: u32,
}

/// Where floors are measured, and with what.
pub struct Site<'a> {
    pub folder: &'a Path,
    pub cores: &'a Cores,
    pub bytes: u64,
    pub request_bytes: usize,
}

/// What one of them has shown.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// What it is called in JSON.
    pub id: &'static str,
    pub label: &'static str,
    pub bytes: u64,
    pub wall: Duration,
    /// The server's part.
    pub cpu: Cpu,
}

impl Floor {
    /// MB (10^6 bytes) a second.
    pub fn mb_per_second(&self) -> f64 {
        self.bytes as f64 / 1e6 / self.wall.as_secs_f64()
    }

    /// CPU seconds for each GB (10^9 bytes): user, system.
    pub fn cpu_per_gb(&self) -> (f64, f64) {
        let gb = self.bytes as f64 / 1e9;
        (self.cpu.user_s / gb, self.cpu.system_s / gb)
    }
}

/// All that were taken, in the order of the table.
#[derive(Clone, Debug, Default)]
pub struct Floors {
    pub all: Vec<Floor>,
}

/// Which floors a figure needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Plain writes.
    Control,
    /// Control, disk, loopback into the server.
    Produce,
    /// Loopback out of the server, and sendfile.
    Consume,
    All,
}

impl Floors {
    pub fn take(site: &Site<'_>, which: Which) -> Outcome<Floors> {
        let mut all = Vec::new();
        if which != Which::Consume {
            all.extend(control::floors(site)?);
        }
        if matches!(which, Which::Produce | Which::All) {
            all.extend(disk::floors(site)?);
        }
        if which != Which::Control {
            all.extend(loopback::floors(site)?);
        }
        if matches!(which, Which::Consume | Which::All) {
            all.extend(sendfile::floors(site)?);
        }
        Ok(Floors { all })
    }

    fn best(&self, of: impl Fn(&str) -> bool) -> Option<Floor> {
        let all = self.all.iter().filter(|floor| of(floor.id)).copied();
        all.max_by(|a, b| f64::total_cmp(&a.mb_per_second(), &b.mb_per_second()))
    }

    /// The disk at its best in a file of which nothing was written before.
    pub fn disk_preallocated(&self) -> Option<Floor> {
        self.best(|id| id.starts_with("disk_preallocated"))
    }

    /// The disk at its best.
    pub fn disk(&self) -> Option<Floor> {
        self.best(|id| id.starts_with("disk_"))
    }

    /// The loopback into the server, with CRC-32C.
    pub fn inward(&self) -> Option<Floor> {
        self.best(|id| id == "loopback_in_crc")
    }

    /// What a produce is held against: the slower of disk and loopback + CRC.
    pub fn produce(&self) -> Option<Floor> {
        let (disk, socket) = (self.disk()?, self.inward()?);
        let slower = disk.mb_per_second() < socket.mb_per_second();
        Some(if slower { disk } else { socket })
    }

    /// What a read of recent records is held against.
    pub fn recent(&self) -> Option<Floor> {
        self.best(|id| id == "loopback_out")
    }

    /// What a cold read is held against: sendfile's own rate, the better way to ask.
    pub fn cold(&self) -> Option<Floor> {
        self.best(|id| id.starts_with("sendfile_cold"))
    }

    pub fn report(&self, to: &mut Report) {
        for floor in &self.all {
            let (user, system) = floor.cpu_per_gb();
            to.add(Figure::new(
                floor.id,
                floor.label,
                floor.mb_per_second(),
                "MB/s",
            ));
            let cpu = |of: &str| format!("{}_cpu_{of}", floor.id);
            to.add(Figure::new(cpu("user"), "  CPU, user", user, "s/GB"));
            to.add(Figure::new(cpu("system"), "  CPU, system", system, "s/GB"));
        }
    }
}

/// p50 and p99 of one block's write and sync, of `times` in a row.
pub fn sync_latency(site: &Site<'_>, times: u64) -> Outcome<[Duration; 2]> {
    let latency = disk::sync_latency(site, times)?;
    Ok([50.0, 99.0].map(|at| Duration::from_nanos(latency.value_at_percentile(at))))
}

/// The latency of the disk alone where it gets what a round gave the broker: as many requests
/// a second, as many bytes each, one after another.
pub fn latency_beside(site: &Site<'_>, measured: &Measurement) -> Outcome<Histogram<u64>> {
    let requests = measured.requests.max(1);
    let request_bytes = usize::try_from(measured.bytes / requests).expect("a request's bytes");
    let site = Site {
        request_bytes: request_bytes.max(1),
        ..*site
    };
    let per_second = requests as f64 / measured.wall.as_secs_f64();
    disk::paced_latency(&site, per_second, requests)
}

const SYNCS: u64 = 1000;

pub fn run(args: &Args, common: &Common) -> Outcome<Report> {
    let workload = format!(
        "{} MiB each, {} bytes a request",
        args.mib, args.request_bytes
    );
    let mut report = Report::new("floors", workload, None)?;
    let cores = Cores::for_load(common.cores.unwrap_or(1), &mut report)?;
    let folder = DataFolder::make(&common.data)?;
    let folder = folder.join("floors");
    std::fs::create_dir_all(&folder)
        .map_err(|e| format!("{} can't be made: {e}", folder.display()))?;
    let site = Site {
        folder: &folder,
        cores: &cores,
        bytes: u64::from(args.mib) << 20,
        request_bytes: args.request_bytes as usize,
    };
    let floors = Floors::take(&site, Which::All)?;
    floors.report(&mut report);
    let [p50, p99] = sync_latency(&site, SYNCS)?.map(|time| time.as_secs_f64() * 1e6);
    let label = "disk: 4 KiB write and sync, file written before";
    report.add(Figure::new("sync_p50", format!("{label}, p50"), p50, "us"));
    report.add(Figure::new("sync_p99", format!("{label}, p99"), p99, "us"));
    if let Some(lower) = floors.produce() {
        report.add(Figure::new(
            "floor_produce",
            format!("the lower floor of a produce ({})", lower.label),
            lower.mb_per_second(),
            "MB/s",
        ));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;

    fn floor(id: &'static str, mb_per_second: u64) -> Floor {
        Floor {
            id,
            label: id,
            bytes: mb_per_second * 1_000_000,
            wall: Duration::from_secs(1),
            cpu: Cpu::default(),
        }
    }

    #[test]
    fn a_produce_is_held_against_the_slower_of_the_best_disk_and_the_loopback_with_crc() {
        let with = |disk, crc| Floors {
            all: vec![
                floor("control_buffered", 9000),
                floor("disk_growing", 100),
                floor("disk_written", disk),
                floor("loopback_in", 5000),
                floor("loopback_in_crc", crc),
            ],
        };
        assert_eq!(with(900, 2000).produce().unwrap().id, "disk_written");
        assert_eq!(with(900, 800).produce().unwrap().id, "loopback_in_crc");
        assert!(Floors::default().produce().is_none());
        assert!(with(1, 1).cold().is_none());
    }

    #[test]
    fn every_floor_is_measured_and_nothing_stays() {
        // Beside the test's own binary: /tmp is often a tmpfs.
        let folder = std::env::current_exe()
            .unwrap()
            .with_file_name(format!("floors-{}", process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let cores = Cores::together().unwrap();
        let site = Site {
            folder: &folder,
            cores: &cores,
            bytes: 3 << 20,
            request_bytes: 1 << 20,
        };
        let floors = Floors::take(&site, Which::All).unwrap();
        assert_eq!(floors.all.len(), 2 + 6 + 3 + 3);
        for floor in &floors.all {
            assert_eq!(floor.bytes, 3 << 20, "{}", floor.label);
            assert!(!floor.wall.is_zero(), "{}", floor.label);
        }
        assert!(floors.produce().is_some() && floors.recent().is_some());
        let [p50, p99] = sync_latency(&site, 10).unwrap();
        assert!(p50 <= p99 && !p50.is_zero());
        let paced = disk::paced_latency(&site, 1000.0, 10).unwrap();
        assert!(paced.len() == 10 && paced.min() > 0);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::remove_dir(&folder).unwrap();
    }
}
