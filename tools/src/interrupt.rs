//! Ctrl-C and SIGTERM as a flag, looked at where the command waits.
//!
//! The first one asks the command to end in order: consume commits and leaves its
//! group, produce waits for what it has sent. A second one ends the process at
//! once, as if nothing had been caught.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level::pipe};

/// timeout(1), and some shells, send one signal twice: to the process and to its
/// group. A person's second Ctrl-C comes later than this.
const SAME_SIGNAL: Duration = Duration::from_millis(300);

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static ENDING: AtomicBool = AtomicBool::new(false);

/// From here on signals set the flag instead of killing the process.
pub fn catch() -> io::Result<()> {
    let asked = FLAG.get_or_init(|| Arc::new(AtomicBool::new(false)));
    let armed = Arc::new(AtomicBool::new(false));
    let (mut first, come) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, armed.clone())?;
        flag::register(signal, asked.clone())?;
        pipe::register(signal, come.try_clone()?)?;
    }
    // Not the command itself: it may hang in a write that nobody takes, which is when
    // the second signal is needed.
    thread::spawn(move || {
        if first.read_exact(&mut [0]).is_ok() {
            thread::sleep(SAME_SIGNAL);
            armed.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// True once a signal came.
pub fn asked() -> bool {
    FLAG.get().is_some_and(|f| f.load(Ordering::Relaxed))
}

/// True where a wait should be broken off: a signal came, and the orderly end has
/// not begun yet.
pub fn now() -> bool {
    asked() && !ENDING.load(Ordering::Relaxed)
}

/// The orderly end talks to brokers too; its waits are not to be broken off.
pub fn begin_end() {
    ENDING.store(true, Ordering::Relaxed);
}
