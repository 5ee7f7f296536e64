//! A partition that is open leads on in a newer epoch.
//!
//! ```text
//!   append    a  b  c  |  d  e  f              of epoch 4 | of epoch 6, which begins at d
//!   writes    a  b ....|............ c d e f   a round that is under way goes on, the next
//!   checkpoint         4 0, 6 3 -->|           one waits until this is written and synced
//! ```
//!
//! - The checkpoint is on the disk before the first batch of its epoch is: recovery takes
//!   a batch of another epoch than the checkpoint's for damage.
//! - No append is refused. What came too late for a round is acknowledged later, by the
//!   write of one small file.
//! - A crash may leave the checkpoint ahead of the log, with an epoch that begins behind
//!   its end; recovery drops that epoch.
//! - The epoch never falls: what is late, or older than what the folder knows, is ignored.

use crate::error::Offline;
use crate::io::Io;
use crate::partition::{Partition, write_epochs};
use crate::units::LeaderEpoch;

impl<I: Io> Partition<I> {
    /// Stamps with `epoch` from now on, where it is newer. Resolves once the checkpoint
    /// says so. One that can't be written takes the partition offline.
    pub async fn begin_epoch(&self, epoch: LeaderEpoch) -> Result<(), Offline> {
        // Most often it is a setting that changed: then there is nothing to wait for.
        if epoch <= self.offsets().leader_epoch {
            return Ok(());
        }
        let _turn = self.turn().await;
        self.check_online()?;
        let before = self.offsets().leader_epoch;
        if epoch <= before {
            return Ok(());
        }
        // In one stretch: no round can begin that has a batch of the new epoch.
        let held = self.appender().hold();
        self.stamp_with(epoch);
        let epochs = self.epochs();
        if let Err(offline) = write_epochs(&self.io, &self.dir, &epochs).await {
            let told = self.noted(offline.clone());
            // Also where it is being closed: what has gathered must not follow.
            self.appender().latch(offline);
            return Err(told);
        }
        held.let_go();
        log::debug!(
            "{}: leads in epoch {epoch}, after {before}",
            self.dir.display()
        );
        Ok(())
    }
}
