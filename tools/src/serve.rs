//! `klamm serve`: the broker, wired together.
//!
//! ```text
//!   settings -> probe the machine -> lock DATA -> is the port free?
//!      -> a shard a core (broker.rs) -> SIGINT, SIGTERM -> drained, closed, marked clean
//! ```
//!
//! What can be known before a shard starts is found out before, so that the message
//! names the cause and not its consequence.

mod broker;
mod coordinator;
mod core_ports;
mod keeping;
mod logger;
mod profile;
mod settings;

use crate::output;
use klamm_engine::data_folder::DataFolder;
use klamm_engine::io::glommio::probe;
use klamm_engine::io::glommio::runtime::{self, RuntimeConfig};
use klamm_engine::io::glommio::termination::Termination;
pub use settings::Args;
use settings::Settings;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub fn run(args: Args) -> ExitCode {
    logger::install(args.log);
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            output::complain(false, "FAILED", &message);
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Args) -> Result<(), String> {
    let started = Instant::now();
    let settings = Settings::resolve(args).map_err(|e| e.to_string())?;
    let mut config = RuntimeConfig::default();
    if let Some(cores) = settings.cores {
        config.cores = cores;
    }
    let fit = probe::machine(&settings.data, config.cores, config.io_memory_bytes)
        .map_err(|e| e.to_string())?;
    config.io_memory_bytes = fit.io_memory_bytes;
    if fit.in_memory {
        log::warn!(
            "{} is in memory: nothing in it survives a restart of the machine",
            settings.data.display()
        );
    }
    let folder =
        DataFolder::open(&settings.data, settings.broker.broker_id).map_err(|e| e.to_string())?;
    let address = free_port(settings.listen, "--listen")?;
    let coordinator = match settings.coordinator.listen {
        Some(address) => Some(free_port(address, "--coordinator-listen")?),
        None => None,
    };
    let cores = config.cores;
    let core_ports = core_ports::free(&settings, cores, address, coordinator)?;
    let termination =
        Termination::listen().map_err(|e| format!("signals can't be listened to: {e}"))?;
    // Until the end: then its name goes.
    let (_door, asks) = profile::open(&settings.data);
    let plan = Arc::new(broker::Plan::new(
        settings,
        folder,
        broker::Addresses {
            all: address,
            core_ports,
            coordinator,
        },
        termination,
        asks,
        started,
    ));
    let (for_make, for_serve) = (plan.clone(), plan.clone());
    let ended = runtime::run(
        &config,
        async move |shards, io| Ok::<_, String>(broker::make(&for_make, shards, io)),
        async move |shards, io| broker::serve(&for_serve, shards, io).await,
    );
    ended.map_err(|e| e.to_string())?;
    plan.finish()
}

/// The kernel takes an io_uring apart after its process has ended, and the sockets that
/// it was accepting at stay open until then: a broker that was just stopped or killed
/// may hold its port for a moment.
const PORT_PATIENCE: Duration = Duration::from_secs(2);

/// `flag` is what to choose another address with.
fn free_port(address: SocketAddr, flag: &str) -> Result<SocketAddr, String> {
    let until = Instant::now() + PORT_PATIENCE;
    loop {
        match klamm_net::socket::probe(address) {
            Err(e) if e.kind() == ErrorKind::AddrInUse && Instant::now() < until => {
                // Nothing tells when a port becomes free.
                std::thread::sleep(Duration::from_millis(10));
            }
            tried => return tried.map_err(|e| cannot_listen(address, flag, &e)),
        }
    }
}

fn cannot_listen(address: SocketAddr, flag: &str, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => format!(
            "{address} is taken by another process; stop that one, or choose another port with {flag}"
        ),
        ErrorKind::PermissionDenied => format!(
            "{address} may not be listened at by this user; choose a port above 1023 with {flag}"
        ),
        _ => format!("{address} can't be listened at: {error}; choose another address with {flag}"),
    }
}
