//! Ctrl-C and SIGTERM: a run that is broken off leaves nothing behind either.
//!
//! ```text
//!   Server: started(pid) ... ended(pid)     DataFolder: filled(path) ... emptied(path)
//!               \                               /
//!                 what there is to be undone <-- signal: kill them, remove it, exit 128 + n
//! ```
//!
//! Only SIGKILL leaves servers and data, of which the next run removes the data.

use crate::data_folder;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

static UNDO: Mutex<Undo> = Mutex::new(Undo {
    servers: Vec::new(),
    folders: Vec::new(),
});

struct Undo {
    servers: Vec<u32>,
    folders: Vec<PathBuf>,
}

/// From here on a signal ends the run by way of this module.
pub fn catch() -> io::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        let (mut come, handler) = UnixStream::pair()?;
        pipe::register(signal, handler)?;
        thread::spawn(move || {
            if come.read_exact(&mut [0]).is_ok() {
                eprintln!("klamm-bench: broken off; what was started is ended");
                // Held until the exit: nothing new is begun.
                undo(&lock());
                process::exit(128 + signal);
            }
        });
    }
    Ok(())
}

fn lock() -> MutexGuard<'static, Undo> {
    UNDO.lock().unwrap_or_else(PoisonError::into_inner)
}

fn undo(what: &Undo) {
    for pid in &what.servers {
        if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    for folder in &what.folders {
        // A server that has just been killed may still be writing a last file.
        let gone = data_folder::remove(folder).or_else(|_| data_folder::remove(folder));
        if let Err(message) = gone {
            eprintln!("klamm-bench: {message}");
        }
    }
}

/// Starts a process, of which a signal knows from its first moment on.
pub fn starting<E>(start: impl FnOnce() -> Result<process::Child, E>) -> Result<process::Child, E> {
    let mut undo = lock();
    let child = start()?;
    undo.servers.push(child.id());
    Ok(child)
}

/// Before it is waited for: a process that was not waited for keeps its number.
pub fn ending(pid: u32) {
    lock().servers.retain(|server| *server != pid);
}

pub fn filled(folder: &Path) {
    lock().folders.push(folder.to_path_buf());
}

pub fn emptied(folder: &Path) {
    lock().folders.retain(|path| path != folder);
}
