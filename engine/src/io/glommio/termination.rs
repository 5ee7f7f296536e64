//! SIGINT and SIGTERM as something that any executor can wait for.
//!
//! ```text
//!   signal -> handler: one byte into a pipe -> a thread of its own -> wakes who waits
//! ```
//!
//! A handler may do next to nothing, and an executor does not look at other threads'
//! doings while it sleeps; a byte in a pipe and a thread that reads it serve both.

use std::collections::VecDeque;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    Terminate,
}

/// The signals that came and were not yet asked for. Clones share them.
#[derive(Clone)]
pub struct Termination(Arc<Mutex<Came>>);

#[derive(Default)]
struct Came {
    signals: VecDeque<Signal>,
    waiting: Vec<Waker>,
}

/// Where the handler writes. -1: nowhere yet.
static PIPE: AtomicI32 = AtomicI32::new(-1);

extern "C" fn handle(number: libc::c_int) {
    // SAFETY: write and __errno_location may be called in a signal handler; the byte
    // lives through the call, and the descriptor is never closed. errno is put back, for
    // the code that was interrupted may be about to read it. A full pipe (65,536 signals
    // that nobody read) loses this one, which then says nothing new.
    unsafe {
        let errno = *libc::__errno_location();
        let byte = number as u8;
        libc::write(PIPE.load(Ordering::Relaxed), (&raw const byte).cast(), 1);
        *libc::__errno_location() = errno;
    }
}

impl Termination {
    /// From here on SIGINT and SIGTERM no longer end the process: who calls this sees to
    /// that. The second call in a process returns what the first one made.
    pub fn listen() -> io::Result<Termination> {
        static LISTENING: OnceLock<Termination> = OnceLock::new();
        static MAKING: Mutex<()> = Mutex::new(());
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = LISTENING.get() {
            return Ok(made.clone());
        }
        let made = Termination::make()?;
        Ok(LISTENING.get_or_init(|| made).clone())
    }

    fn make() -> io::Result<Termination> {
        let (reader, writer) = io::pipe()?;
        set_nonblocking(&writer)?;
        let came = Arc::new(Mutex::new(Came::default()));
        let termination = Termination(came);
        let thread = termination.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || thread.read_all(File::from(std::os::fd::OwnedFd::from(reader))))?;
        PIPE.store(writer.into_raw_fd(), Ordering::Relaxed);
        for number in [libc::SIGINT, libc::SIGTERM] {
            install(number)?;
        }
        Ok(termination)
    }

    fn read_all(&self, mut pipe: File) {
        let mut byte = [0];
        // The writing end is never closed, so this ends with the process.
        while pipe.read_exact(&mut byte).is_ok() {
            let signal = match i32::from(byte[0]) {
                libc::SIGINT => Signal::Interrupt,
                _ => Signal::Terminate,
            };
            let waiting = {
                let mut came = self.lock();
                came.signals.push_back(signal);
                std::mem::take(&mut came.waiting)
            };
            waiting.into_iter().for_each(Waker::wake);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Came> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next signal that nobody has been given yet.
    pub fn next(&self) -> impl Future<Output = Signal> + 'static {
        let own = self.clone();
        poll_fn(move |cx| {
            let mut came = own.lock();
            match came.signals.pop_front() {
                Some(signal) => Poll::Ready(signal),
                None => {
                    if !came.waiting.iter().any(|w| w.will_wake(cx.waker())) {
                        came.waiting.push(cx.waker().clone());
                    }
                    Poll::Pending
                }
            }
        })
    }
}

fn set_nonblocking(pipe: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the descriptor is open, and F_SETFL takes an int.
    match unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn install(number: libc::c_int) -> io::Result<()> {
    // SAFETY: an all-zero sigaction is a valid one (no flags, an empty mask), and both it
    // and the handler, which is a function of the process, outlive the call.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(number, &action, std::ptr::null_mut())
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Keeps SIGINT and SIGTERM away from this thread, where another one takes them: a call
/// that waits for the disk need not be interrupted.
pub(super) fn leave_to_other_threads() {
    // SAFETY: the set is initialised by sigemptyset before it is read, and both pointers
    // are good for the calls. They fail only for a bad `how` or signal number.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGINT);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_given_to_who_waits_on_an_executor() {
        let termination = Termination::listen().unwrap();
        let executor = glommio::LocalExecutorBuilder::default()
            .io_memory(0)
            .make()
            .unwrap();
        let first = executor.run(async {
            let wait = termination.next();
            // SAFETY: raise has no conditions; our handler is installed.
            let sender = std::thread::spawn(|| unsafe { libc::raise(libc::SIGTERM) });
            let signal = wait.await;
            assert_eq!(sender.join().unwrap(), 0);
            signal
        });
        assert_eq!(first, Signal::Terminate);
        // One that came while nobody waited is kept.
        // SAFETY: as above.
        assert_eq!(unsafe { libc::raise(libc::SIGINT) }, 0);
        let second = executor.run(Termination::listen().unwrap().next());
        assert_eq!(second, Signal::Interrupt);
        // Ctrl-C ends the test run again.
        // SAFETY: signal has no conditions; SIG_DFL is a valid disposition.
        unsafe { libc::signal(libc::SIGINT, libc::SIG_DFL) };
    }
}
