//! Which processors are the server's and which the client's, and how many files are.
//!
//! ```text
//!   apart:     | server | client |        a server on one core, its client on another
//!   together:  | both   | both   |        as on a machine where nobody cares
//! ```
//!
//! A process begins where the thread that starts it may run: so a server is put onto
//! its core by starting it from there.

use crate::Outcome;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

pub struct Cores {
    server: CpuSet,
    client: CpuSet,
}

impl Cores {
    /// The first `count` for the server and the last for the client; None where there
    /// are not so many.
    pub fn apart(count: usize) -> Outcome<Option<Cores>> {
        let all = sched_getaffinity(None).map_err(|e| format!("processors: {e}"))?;
        let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&n| all.is_set(n)).collect();
        if allowed.len() <= count {
            return Ok(None);
        }
        let (mut server, mut client) = (CpuSet::new(), CpuSet::new());
        allowed[..count].iter().for_each(|&n| server.set(n));
        client.set(allowed[allowed.len() - 1]);
        Ok(Some(Cores { server, client }))
    }

    /// Whatever this process may use, for both.
    pub fn together() -> Outcome<Cores> {
        let all = sched_getaffinity(None).map_err(|e| format!("processors: {e}"))?;
        Ok(Cores {
            server: all,
            client: all,
        })
    }

    /// What is started meanwhile runs on the server's; this thread then on the client's.
    pub fn start<T>(&self, start: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let put = |set| sched_setaffinity(None, set).map_err(|e| format!("processors: {e}"));
        put(&self.server)?;
        let started = start();
        put(&self.client)?;
        started
    }
}

/// As many open files as this process and those it starts may have; how many.
pub fn raise_open_files() -> Outcome<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).map_err(|e| format!("the limit of open files: {e}"))?;
    Ok(maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_is_the_servers_or_the_clients() {
        if let Some(cores) = Cores::apart(1).unwrap() {
            assert_eq!((cores.server.count(), cores.client.count()), (1, 1));
            assert_ne!(cores.server, cores.client);
        }
        assert!(Cores::apart(CpuSet::MAX_CPU).unwrap().is_none());
    }
}
