//! Ctrl-C and SIGTERM as a flag, looked at where the command waits.
//!
//! The first one asks the command to end in order: consume commits and leaves its
//! group, produce waits for what it has sent. A second one ends the process at
//! once, as if nothing had been caught.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static ENDING: AtomicBool = AtomicBool::new(false);

/// From here on signals set the flag instead of killing the process.
pub fn catch() -> std::io::Result<()> {
    let flag = FLAG.get_or_init(|| Arc::new(AtomicBool::new(false)));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: what checks the flag runs before what sets it, so only
        // the second signal finds it set.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, flag.clone())?;
        signal_hook::flag::register(signal, flag.clone())?;
    }
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
