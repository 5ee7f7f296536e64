//! System calls of a server while something is done, and how many of them drive its ring.
//!
//! ```text
//!   perf stat -e raw_syscalls:sys_enter,syscalls:sys_enter_io_uring_enter -p PID
//!   strace -c -f -p PID                                where perf may not
//!        | attached | ... the load, all of it ... | SIGINT | -> counts
//! ```
//!
//! In a round of its own that is not timed: perf costs a server little, strace a lot.
//! Calls that a thread is in when it is attached to count with neither.

use crate::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const ALL: &str = "raw_syscalls:sys_enter";
const RING: &str = "syscalls:sys_enter_io_uring_enter";

const ATTACH_WITHIN: Duration = Duration::from_secs(10);
const ASK_EVERY: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub all: u64,
    pub io_uring_enter: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Perf,
    Strace,
}

/// What `load` gives, and the calls that `pid` made meanwhile; by perf, else by strace.
pub fn during<T>(pid: u32, mut load: impl FnMut() -> Outcome<T>) -> Outcome<(T, Calls, By)> {
    let mut refused = Vec::new();
    for by in [By::Perf, By::Strace] {
        let watcher = match Watcher::attach(by, pid) {
            Ok(watcher) => watcher,
            Err(why) => {
                refused.push(why);
                continue;
            }
        };
        let loaded = load();
        let counted = watcher.detach();
        let loaded = loaded?;
        match counted {
            Ok(calls) => return Ok((loaded, calls, by)),
            Err(why) => refused.push(why),
        }
    }
    Err(format!(
        "system calls can't be counted here: {}; perf needs CAP_PERFMON or \
         kernel.perf_event_paranoid <= -1, strace the right to trace (ptrace_scope)",
        refused.join("; ")
    ))
}

struct Watcher {
    by: By,
    child: Child,
}

impl Watcher {
    fn attach(by: By, pid: u32) -> Outcome<Watcher> {
        let pid = pid.to_string();
        let mut command = match by {
            By::Perf => {
                let mut perf = Command::new("perf");
                perf.args([
                    "stat",
                    "-x",
                    ",",
                    "-e",
                    &format!("{ALL},{RING}"),
                    "-p",
                    &pid,
                ]);
                perf
            }
            By::Strace => {
                let mut strace = Command::new("strace");
                strace.args(["-c", "-f", "-U", "calls,name", "-p", &pid]);
                strace
            }
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Or numbers come as the shell's language has them.
            .env("LC_ALL", "C")
            .spawn()
            .map_err(|e| format!("{} can't be started: {e}", by.name()))?;
        let mut watcher = Watcher { by, child };
        let deadline = Instant::now() + ATTACH_WITHIN;
        while !watcher.is_attached(&pid) {
            let gone = watcher.child.try_wait().map_err(|e| e.to_string())?;
            if gone.is_some() || Instant::now() > deadline {
                let said = watcher.end();
                return Err(format!("{} does not attach: {}", by.name(), said.trim()));
            }
            thread::sleep(ASK_EVERY);
        }
        Ok(watcher)
    }

    fn is_attached(&self, pid: &str) -> bool {
        match self.by {
            // Its counters are open.
            By::Perf => {
                let fds = fs::read_dir(format!("/proc/{}/fd", self.child.id()));
                let links = fds.into_iter().flatten().flatten();
                links
                    .filter_map(|fd| fs::read_link(fd.path()).ok())
                    .any(|link| link.to_string_lossy().contains("perf_event"))
            }
            By::Strace => fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| {
                let tracer = status.lines().find_map(|l| l.strip_prefix("TracerPid:"));
                tracer.is_some_and(|tracer| tracer.trim() == self.child.id().to_string())
            }),
        }
    }

    fn detach(mut self) -> Outcome<Calls> {
        let said = self.end();
        let counted = match self.by {
            By::Perf => of_perf(&said),
            By::Strace => of_strace(&said),
        };
        counted.ok_or_else(|| format!("{} does not count: {}", self.by.name(), said.trim()))
    }

    /// What it prints when it is told to end.
    fn end(&mut self) -> String {
        if let Ok(None) = self.child.try_wait()
            && let Some(pid) = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(0))
        {
            // One that is gone meanwhile has said what it had to say.
            let _ = kill_process(pid, Signal::INT);
        }
        let mut said = String::new();
        if let Some(stderr) = &mut self.child.stderr {
            let _ = stderr.read_to_string(&mut said);
        }
        let _ = self.child.wait();
        said
    }
}

/// No watcher is left on a server.
impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

impl By {
    pub fn name(self) -> &'static str {
        match self {
            By::Perf => "perf",
            By::Strace => "strace",
        }
    }
}

/// `12345,,raw_syscalls:sys_enter,...`, or `<not counted>` where the number is.
fn of_perf(text: &str) -> Option<Calls> {
    let count = |event: &str| {
        let line = text.lines().find(|line| line.contains(event))?;
        line.split(',').next()?.parse::<u64>().ok()
    };
    Some(Calls {
        all: count(ALL)?,
        io_uring_enter: count(RING)?,
    })
}

/// `12345 io_uring_enter` lines between dashes, and a `total`.
fn of_strace(text: &str) -> Option<Calls> {
    let count = |name: &str| {
        let line = text
            .lines()
            .find(|line| line.split_whitespace().last() == Some(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Calls {
        all: count("total")?,
        io_uring_enter: count("io_uring_enter").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perf_says_a_number_or_why_not() {
        let text = "# started\n\n88,,raw_syscalls:sys_enter,1000,100.00,,\n\
                    21,,syscalls:sys_enter_io_uring_enter,1000,100.00,,\n";
        let calls = Calls {
            all: 88,
            io_uring_enter: 21,
        };
        assert_eq!(of_perf(text), Some(calls));
        assert_eq!(of_perf(&text.replace("88", "<not counted>")), None);
        assert_eq!(of_perf("Access to performance monitoring is limited"), None);
    }

    #[test]
    fn strace_has_a_table() {
        let text = "strace: Process 7 attached\n    calls syscall\n--------- ----------------\n\
                    \x20      21 io_uring_enter\n       60 sendmsg\n--------- ----------------\n\
                    \x20      81 total\n";
        let calls = Calls {
            all: 81,
            io_uring_enter: 21,
        };
        assert_eq!(of_strace(text), Some(calls));
        assert_eq!(of_strace("attach: ptrace: Operation not permitted"), None);
    }

    /// Where the machine allows either; where not, the reason is said.
    #[test]
    fn calls_are_those_of_the_one_who_is_watched() {
        let mut child = Command::new("sh")
            .args(["-c", "while read -r line; do :; done"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let counted = during(child.id(), || {
            use std::io::Write;
            for _ in 0..50 {
                stdin.write_all(b"line\n").unwrap();
            }
            // Read to the last byte: the pipe is empty again.
            while rustix::io::ioctl_fionread(&stdin).unwrap_or(0) > 0 {
                thread::sleep(ASK_EVERY);
            }
            Ok(())
        });
        drop(stdin);
        child.wait().unwrap();
        match counted {
            // A shell reads a byte at a time.
            Ok(((), calls, _)) => assert!(calls.all >= 200, "{calls:?}"),
            Err(why) => assert!(why.contains("perf") && why.contains("strace"), "{why}"),
        }
    }
}
