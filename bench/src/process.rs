//! What the kernel says about a process and about the machine, from /proc.
//!
//! ```text
//!   /proc/PID/stat     PID (name) S ... utime stime ...   fields 14 and 15, in ticks
//!   /proc/PID/task/*/schedstat   time on a processor, in ns, of each thread
//!   /proc/PID/status   VmRSS, VmHWM                       in KiB
//!   /proc/PID/task/*/status      context switches of each thread, since it began
//!   /proc/loadavg      runnable tasks over the last minute, 5, 15
//! ```
//!
//! See proc(5).

use crate::Outcome;
use std::fs;
use std::io;
use std::ops::Sub;
use std::process;
use std::time::Duration;

/// USER_HZ: 100 in every Linux ABI that io_uring's brokers run on (x86-64, AArch64,
/// RISC-V), whatever the kernel's own tick. One tick is 10 ms: over 10 s, 0.1 % of a core.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time of a process, all its threads together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    pub user_s: f64,
    pub system_s: f64,
}

impl Cpu {
    pub fn of(pid: u32) -> Outcome<Cpu> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).map_err(|e| format!("{path} can't be read: {e}"))?;
        Cpu::parse(&stat).ok_or_else(|| format!("{path} is not as proc(5) has it: {stat}"))
    }

    pub fn of_this_process() -> Outcome<Cpu> {
        Cpu::of(process::id())
    }

    /// The name may have spaces and brackets in it: fields count from the last ')'.
    fn parse(stat: &str) -> Option<Cpu> {
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ').skip(11);
        let mut seconds = || Some(fields.next()?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Cpu {
            user_s: seconds()?,
            system_s: seconds()?,
        })
    }

    pub fn total_s(self) -> f64 {
        self.user_s + self.system_s
    }
}

/// Time on a processor of all threads that there are now: for a few milliseconds, which
/// are less than a tick. What a thread used that has ended meanwhile is not in it.
pub fn on_processor(pid: u32) -> Outcome<Duration> {
    let path = format!("/proc/{pid}/task");
    let failed = |e: io::Error| format!("{path} can't be read: {e}");
    let mut ns = 0;
    for task in fs::read_dir(&path).map_err(failed)? {
        // One that ends between the two is none to count.
        let Ok(stat) = fs::read_to_string(task.map_err(failed)?.path().join("schedstat")) else {
            continue;
        };
        let first = stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
        ns += first.ok_or_else(|| format!("a schedstat is not as the kernel has it: {stat}"))?;
    }
    Ok(Duration::from_nanos(ns))
}

impl Sub for Cpu {
    type Output = Cpu;
    fn sub(self, before: Cpu) -> Cpu {
        Cpu {
            user_s: self.user_s - before.user_s,
            system_s: self.system_s - before.system_s,
        }
    }
}

/// Memory that a process holds and has held at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub resident_bytes: u64,
    pub resident_bytes_max: u64,
}

impl Memory {
    pub fn of(pid: u32) -> Outcome<Memory> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read_to_string(&path).map_err(|e| format!("{path} can't be read: {e}"))?;
        Memory::parse(&status).ok_or_else(|| format!("{path} has no VmRSS and VmHWM"))
    }

    fn parse(status: &str) -> Option<Memory> {
        let bytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib = line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?;
            Some(kib * 1024)
        };
        Some(Memory {
            resident_bytes: bytes("VmRSS:")?,
            resident_bytes_max: bytes("VmHWM:")?,
        })
    }
}

/// Context switches of all threads that there are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// It waited for something.
    pub voluntary: u64,
    /// Another was to run.
    pub involuntary: u64,
}

impl Switches {
    pub fn of(pid: u32) -> Outcome<Switches> {
        let mut all = Switches::default();
        for task in tasks(pid)? {
            let path = format!("/proc/{pid}/task/{task}/status");
            // One that ends between the two is none to count.
            let Ok(status) = fs::read_to_string(&path) else {
                continue;
            };
            let one = Switches::parse(&status)
                .ok_or_else(|| format!("{path} has no context switches in it"))?;
            all.voluntary += one.voluntary;
            all.involuntary += one.involuntary;
        }
        Ok(all)
    }

    fn parse(status: &str) -> Option<Switches> {
        let count = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().parse().ok()
        };
        Some(Switches {
            voluntary: count("voluntary_ctxt_switches:")?,
            involuntary: count("nonvoluntary_ctxt_switches:")?,
        })
    }
}

/// The ids of a process's threads.
pub fn tasks(pid: u32) -> Outcome<Vec<u32>> {
    let path = format!("/proc/{pid}/task");
    let failed = |e: io::Error| format!("{path} can't be read: {e}");
    let mut tasks = Vec::new();
    for task in fs::read_dir(&path).map_err(failed)? {
        let name = task.map_err(failed)?.file_name();
        let id = name.to_str().and_then(|name| name.parse().ok());
        tasks.push(id.ok_or_else(|| format!("{path} has {name:?} in it"))?);
    }
    Ok(tasks)
}

/// Tasks that ran or wanted to, on average over the last minute.
pub fn load() -> Outcome<f64> {
    let text = fs::read_to_string("/proc/loadavg")
        .map_err(|e| format!("/proc/loadavg can't be read: {e}"))?;
    let first = text.split(' ').next().and_then(|load| load.parse().ok());
    first.ok_or_else(|| format!("/proc/loadavg is not as proc(5) has it: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_brackets_moves_no_field() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194560 9 0 0 0 250 75 3 4 20 0 3 0 100 0 0";
        assert_eq!(
            Cpu::parse(stat),
            Some(Cpu {
                user_s: 2.5,
                system_s: 0.75
            })
        );
        assert_eq!(Cpu::parse("17 (klamm) S 1 17"), None);
    }

    #[test]
    fn memory_is_in_bytes() {
        let status = "Name:\tklamm\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let memory = Memory {
            resident_bytes: 1 << 20,
            resident_bytes_max: 2 << 20,
        };
        assert_eq!(Memory::parse(status), Some(memory));
        assert_eq!(Memory::parse("Name:\tklamm\n"), None);
    }

    #[test]
    fn switches_are_told_apart() {
        let status = "Name:\tklamm\nvoluntary_ctxt_switches:\t17\nnonvoluntary_ctxt_switches:\t4\n";
        let switches = Switches {
            voluntary: 17,
            involuntary: 4,
        };
        assert_eq!(Switches::parse(status), Some(switches));
        assert_eq!(Switches::parse("Name:\tklamm\n"), None);
    }

    #[test]
    fn this_process_and_this_machine_can_be_asked() {
        assert!(Cpu::of_this_process().unwrap().total_s() >= 0.0);
        assert!(Memory::of(process::id()).unwrap().resident_bytes > 0);
        assert!(load().unwrap() >= 0.0);
        let before = Switches::of(process::id()).unwrap();
        std::thread::sleep(Duration::from_millis(1));
        assert!(Switches::of(process::id()).unwrap().voluntary > before.voluntary);
        assert!(on_processor(process::id()).unwrap() > Duration::ZERO);
    }
}
