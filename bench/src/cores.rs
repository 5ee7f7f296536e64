//! Which processors are the server's and which the client's, and how many files are.
//!
//! ```text
//!   apart:     | server | client |        a server on one core, its client on another
//!   together:  | both   | both   |        as on a machine where nobody cares
//! ```
//!
//! A process begins where the thread that starts it may run: so a server is put onto
//! its core by starting it from there.

use crate::{Outcome, process};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity, set_current_timer_slack};
use std::num::NonZeroU64;

pub struct Cores {
    server: CpuSet,
    client: CpuSet,
}

impl Cores {
    /// The first `count` for the server and the last for the client; None where there
    /// are not so many.
    pub fn apart(count: usize) -> Outcome<Option<Cores>> {
        let all = sched_getaffinity(None).map_err(|e| format!("processors: {e}"))?;
        let allowed = numbers(&all);
        if allowed.len() <= count {
            return Ok(None);
        }
        let (mut server, mut client) = (CpuSet::new(), CpuSet::new());
        allowed[..count].iter().for_each(|&n| server.set(n));
        client.set(allowed[allowed.len() - 1]);
        Ok(Some(Cores { server, client }))
    }

    /// These for the server and those for the client, by their numbers.
    pub fn named(server: &[usize], client: &[usize]) -> Outcome<Cores> {
        Ok(Cores {
            server: set(server)?,
            client: set(client)?,
        })
    }

    /// The numbers of the server's.
    pub fn of_server(&self) -> Vec<usize> {
        numbers(&self.server)
    }

    /// The numbers of the client's.
    pub fn of_client(&self) -> Vec<usize> {
        numbers(&self.client)
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

fn numbers(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::MAX_CPU).filter(|&n| set.is_set(n)).collect()
}

fn set(numbers: &[usize]) -> Outcome<CpuSet> {
    let mut set = CpuSet::new();
    for &n in numbers {
        if n >= CpuSet::MAX_CPU {
            return Err(format!("there is no processor {n}"));
        }
        set.set(n);
    }
    Ok(set)
}

/// Puts the calling thread onto this processor, if one is named, and has the kernel wake
/// it when it asked for and not up to 50 us later.
pub fn pin_this_thread(processor: Option<usize>) -> Outcome {
    if let Some(n) = processor {
        let failed = |e| format!("processor {n}: {e}; name another with --client-cores");
        sched_setaffinity(None, &set(&[n])?).map_err(failed)?;
    }
    set_current_timer_slack(Some(NonZeroU64::MIN)).map_err(|e| format!("the timer's slack: {e}"))
}

/// Of these processors (none named: of all that this thread may use), those where some
/// thread of a process may run too.
pub fn shared_with(pid: u32, processors: &[usize]) -> Outcome<Vec<usize>> {
    let ours = match processors {
        [] => sched_getaffinity(None).map_err(|e| format!("processors: {e}"))?,
        named => set(named)?,
    };
    let mut shared = CpuSet::new();
    for task in process::tasks(pid)? {
        let task = i32::try_from(task).ok().and_then(Pid::from_raw);
        // A thread that has ended meanwhile runs nowhere.
        let Ok(theirs) = sched_getaffinity(task) else {
            continue;
        };
        (0..CpuSet::MAX_CPU)
            .filter(|&n| ours.is_set(n) && theirs.is_set(n))
            .for_each(|n| shared.set(n));
    }
    Ok(numbers(&shared))
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
            assert_eq!(cores.of_client().len(), 1);
        }
        assert!(Cores::apart(CpuSet::MAX_CPU).unwrap().is_none());
    }

    #[test]
    fn processors_by_number() {
        let cores = Cores::named(&[0], &[1, 3]).unwrap();
        assert_eq!(cores.of_client(), [1, 3]);
        assert!(Cores::named(&[0], &[CpuSet::MAX_CPU]).is_err());
    }

    #[test]
    fn a_process_shares_its_own_processors() {
        let ours = numbers(&sched_getaffinity(None).unwrap());
        assert_eq!(shared_with(std::process::id(), &[]).unwrap(), ours);
        let other = CpuSet::MAX_CPU - 1;
        assert!(
            shared_with(std::process::id(), &[other])
                .unwrap()
                .is_empty()
        );
    }
}
