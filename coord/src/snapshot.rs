//! The files that keep the changelog short.
//!
//! ```text
//!   DATA/coordinator/snapshot.<zxid, 16 hex digits>        the state after that change
//!
//!   older   newest                     changelog
//!   |-------|--------------------------->
//!   ^ the changelog is kept from here: were the newest one unreadable, the older one
//!     and the changelog still make the state
//! ```
//!
//! A snapshot is written beside its name and renamed when it is whole, and only of
//! changes that are committed in the changelog. The last two are kept.

use crate::core::Zxid;
use klamm_engine::io::Io;
use std::io::{ErrorKind, Result};
use std::path::{Path, PathBuf};

/// How many are kept.
const KEPT: usize = 2;

/// Where a snapshot of that zxid lies.
#[must_use]
pub fn path(dir: &Path, zxid: Zxid) -> PathBuf {
    dir.join(format!("snapshot.{:016x}", zxid.0))
}

/// The snapshots that there are, the newest first.
pub async fn list<I: Io>(io: &I, dir: &Path) -> Result<Vec<Zxid>> {
    let entries = match io.read_dir(dir).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let zxid_of = |name: &str| {
        let digits = name.strip_prefix("snapshot.").filter(|d| d.len() == 16)?;
        i64::from_str_radix(digits, 16).ok().map(Zxid)
    };
    let mut found: Vec<Zxid> = entries
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| zxid_of(&entry.name))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// Puts a snapshot in place and removes those that are no longer kept. Returns the
/// oldest one that is: the changelog is needed from the change behind it on.
pub async fn write<I: Io>(io: &I, dir: &Path, zxid: Zxid, bytes: Vec<u8>) -> Result<Zxid> {
    io.replace_file(&path(dir, zxid), bytes).await?;
    let found = list(io, dir).await?;
    let (kept, gone) = found.split_at(found.len().min(KEPT));
    for zxid in gone {
        io.remove_file(&path(dir, *zxid)).await?;
    }
    if !gone.is_empty() {
        io.sync_dir(dir).await?;
    }
    // With one snapshot there is nothing older to fall back to but the whole log.
    Ok(if kept.len() < KEPT {
        Zxid::ZERO
    } else {
        kept[KEPT - 1]
    })
}
