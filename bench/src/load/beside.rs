//! What is measured beside a load, where it is wanted: the machine's floors, and the
//! server's system calls.
//!
//! ```text
//!   produce   disk at its best, loopback + CRC: the lower one      --> x
//!   consume   sendfile of a cold file, loopback                    --> x, x
//!   any       a round of its own, watched by perf or strace        --> calls a request
//! ```

use super::{Spec, Target, Workload};
use crate::application::Engine;
use crate::floors::{Floor, Floors, Site, Which};
use crate::measurement::Measurement;
use crate::report::{Figure, Report};
use crate::{Outcome, syscalls};
use std::time::Duration;

/// Beside the rate, and what it is of them.
pub fn floors(
    report: &mut Report,
    site: &Site<'_>,
    workload: Workload,
    measured: &Measurement,
) -> Outcome {
    let which = match workload {
        Workload::Produce => Which::Produce,
        Workload::Consume => Which::Consume,
        // At a rate, or of two minds: the rate is held against no floor.
        Workload::Tail | Workload::Mixed => return Ok(()),
    };
    let floors = Floors::take(site, which)?;
    floors.report(report);
    let mut ratio = |id: &str, floor: Option<Floor>| {
        if let Some(floor) = floor {
            let label = format!("throughput : {}", floor.label);
            let ratio = measured.mb_per_second() / floor.mb_per_second();
            report.add(Figure::new(id, label, ratio, "x"));
        }
    };
    match workload {
        Workload::Produce => ratio("to_lower_floor", floors.produce()),
        _ => {
            ratio("to_sendfile", floors.cold());
            ratio("to_loopback", floors.recent());
        }
    }
    Ok(())
}

/// Without a warm-up: all that the server does while it is watched is for requests that
/// count.
pub fn system_calls(report: &mut Report, engine: Engine, spec: &Spec, target: &Target) -> Outcome {
    let pid = target
        .pid
        .ok_or("--syscalls needs the server's process: name it with --server-pid")?;
    let mut spec = spec.clone();
    spec.warm_up = Duration::ZERO;
    let (measured, calls, by) = syscalls::during(pid, || engine.run_once(&spec, target))?;
    let each = match engine {
        Engine::Raw => "request",
        // Its requests are its own affair.
        Engine::Librdkafka => "record",
    };
    let label = format!("system calls a {each} ({})", by.name());
    let requests = measured.requests as f64;
    report.add(Figure::new(
        "syscalls",
        label,
        calls.all as f64 / requests,
        "calls",
    ));
    let ring = calls.io_uring_enter as f64 / requests;
    report.add(Figure::new(
        "syscalls_io_uring_enter",
        "  of them io_uring_enter",
        ring,
        "calls",
    ));
    Ok(())
}
