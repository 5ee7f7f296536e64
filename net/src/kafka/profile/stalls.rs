//! How late this shard is: a task that is due every so often, and looks at the clock.
//!
//! ```text
//!   due --timer--> woken: a task that can run at once is made --turn--> it runs
//! ```
//!
//! `timer`: the reactor had no look at the ring, or the core was another process's.
//! `turn`: tasks that were ready before it had their turns first.

use super::Recorder;
use klamm_engine::io::Io;
use std::rc::Rc;
use std::time::Duration;

/// Often enough to see in minutes what happens every few seconds, and no stall of more
/// than this is missed; ten wake-ups a second are not felt, on an idle shard neither.
const EVERY: Duration = Duration::from_millis(100);

/// For as long as the shard runs.
pub async fn watch_stalls<I: Io>(recorder: Rc<Recorder<I>>) {
    if !recorder.settings.histograms {
        return;
    }
    loop {
        let due = recorder.io.now().plus(EVERY);
        recorder.io.sleep(EVERY).await;
        let woken = recorder.io.now();
        let late = woken.0.saturating_sub(due.0);
        recorder.timer.borrow_mut().record(late);
        let of_turn = recorder.clone();
        recorder.io.spawn(async move {
            let waited = of_turn.io.now().0 - woken.0;
            of_turn.turn.borrow_mut().record(waited);
        });
    }
}
