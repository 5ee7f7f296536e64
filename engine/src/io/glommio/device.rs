//! Opening files so that glommio 0.9.0 neither panics nor draws the wrong conclusion.
//!
//! Two things in its `DmaFile::open` are in the way:
//!
//! - After it opened the path it looks at the path again, twice, and panics where the
//!   name is gone by then. So we open the file, and glommio opens
//!   `/proc/self/fd/N`, a name that stays as long as we hold the file.
//! - It finds out once a thread and device whether the device can be polled for
//!   completions, by reading the first block of whatever file is opened first. Where
//!   that file is empty the read never gets to the device, the answer is yes, and from
//!   then on every read and write of that device fails with EOPNOTSUPP. So the first
//!   file that it sees of a device is one of ours that has a block with data in it.

use super::{GlommioIo, io_error};
use crate::io::BLOCK;
use glommio::io::{DmaFile, OpenOptions};
use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Result, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

thread_local! {
    /// The devices that glommio has the right idea of, on this thread, as it keeps it.
    static LEARNT: RefCell<HashSet<u64>> = RefCell::default();
}

pub(super) async fn open_held(held: &File) -> Result<DmaFile> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
        .dma_open(format!("/proc/self/fd/{}", held.as_raw_fd()))
        .await
        .map_err(io_error)
}

/// Has glommio look at the device of `held`, which is open at `path`, where it has not.
pub(super) async fn learn(io: &GlommioIo, held: &File, path: &Path) -> Result<()> {
    let device = held.metadata()?.dev();
    if LEARNT.with_borrow(|learnt| learnt.contains(&device)) {
        return Ok(());
    }
    let beside = path.to_owned();
    let own = held.try_clone()?;
    let with_data = io.blocking(move || file_with_data(&beside, own)).await?;
    open_held(&with_data)
        .await?
        .close()
        .await
        .map_err(io_error)?;
    LEARNT.with_borrow_mut(|learnt| learnt.insert(device));
    Ok(())
}

/// A file on the same device, in no folder, one block long. On a disk that is full it is
/// the opened file itself, where that has data.
fn file_with_data(path: &Path, own: File) -> Result<File> {
    let no_name = unnamed_file(path.parent().unwrap_or(Path::new("/"))).and_then(|mut file| {
        file.write_all(&[0xa5; BLOCK])?;
        // On the disk, not in the page cache only.
        file.sync_data()?;
        Ok(file)
    });
    no_name.or_else(|e| {
        let mut first = [0; BLOCK];
        match own.read_exact_at(&mut first, 0) {
            Ok(()) if first.iter().any(|b| *b != 0) => Ok(own),
            _ => Err(e),
        }
    })
}

fn unnamed_file(dir: &Path) -> Result<File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true);
    match options.custom_flags(libc::O_TMPFILE).open(dir) {
        // Some file systems have no files without a name.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let path = dir.join(format!(".klamm-device-{}", std::process::id()));
            let file = options
                .custom_flags(0)
                .create(true)
                .truncate(true)
                .open(&path)?;
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(file),
            }
        }
        other => other,
    }
}
