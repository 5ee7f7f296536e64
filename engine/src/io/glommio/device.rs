//! The devices that files are on: what glommio must know of one before it opens a file
//! there, and how everything on one is synced.
//!
//! Opening is done so that glommio 0.9.0 neither panics nor draws the wrong conclusion. Two
//! things in its `DmaFile::open` are in the way:
//!
//! - After it opened the path it looks at the path again, twice, and panics where the
//!   name is gone by then. So we open the file, and glommio opens
//!   `/proc/self/fd/N`, a name that stays as long as we hold the file.
//! - It finds out once a thread and device whether the device can be polled for
//!   completions, by reading the first block of whatever file is opened first. Where
//!   that file is empty the read never gets to the device, the answer is yes, and from
//!   then on every read and write of that device fails with EOPNOTSUPP. So the first
//!   file that it sees of a device is one of ours that has a block with data in it.
//!
//! That file is kept open for [`Device::sync_all`], which syncs its file system, and then
//! the file. The second is for the disk's own cache: `syncfs` of ext4 without a journal
//! flushes it before the last metadata is written, and that of XFS only where its log has
//! something to write; an fsync of a file flushes it in both, and in btrfs.

use super::folder::read_front;
use super::{GlommioIo, io_error};
use crate::io::{BLOCK, Open};
use glommio::io::{DmaFile, OpenOptions};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Result, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

thread_local! {
    /// The devices that glommio has the right idea of, on this thread, as it keeps it.
    static LEARNT: RefCell<HashMap<u64, Learnt>> = RefCell::default();
}

struct Learnt {
    device: Arc<Device>,
    /// Our file as glommio has opened it. None where the device's file is not ours.
    pattern: Option<DmaFile>,
    /// Whether that is open for direct I/O: in memory there is none.
    direct: bool,
}

/// A file that is open, before glommio has it.
pub(super) struct Held {
    pub file: File,
    device: u64,
    direct: bool,
}

impl Held {
    pub(super) fn open(path: &Path, mode: Open) -> Result<Held> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true);
        let file = options.create_new(mode == Open::New).open(path)?;
        Held::of(file)
    }

    /// The file that a descriptor is of, so that each write to it is committed when it is
    /// done. By the descriptor, as the name may be gone by now; and opened anew, since
    /// Linux does not let O_DSYNC be set on what is open.
    pub(super) fn open_synced(held: &impl AsRawFd) -> Result<Held> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DSYNC);
        let name = format!("/proc/self/fd/{}", held.as_raw_fd());
        Held::of(options.open(name)?)
    }

    fn of(file: File) -> Result<Held> {
        Ok(Held {
            device: file.metadata()?.dev(),
            direct: set_direct(&file)?,
            file,
        })
    }

    /// Waits for direct writes that a killed process had under way. To ask for blocks does,
    /// and the first one is there.
    pub(super) fn settle(&self) -> Result<()> {
        let (file, keep) = (self.file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE);
        if self.file.metadata()?.len() == 0 {
            return Ok(());
        }
        // SAFETY: the descriptor is open, and fallocate takes nothing else.
        match unsafe { libc::fallocate(file, keep, 0, 1) } {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                // Without fallocate, or with a hole in front and no room: as it was.
                e if e.kind() == io::ErrorKind::Unsupported => Ok(()),
                e if e.kind() == io::ErrorKind::StorageFull => Ok(()),
                e => Err(e),
            },
        }
    }
}

/// False where the file system has no direct I/O.
fn set_direct(file: &File) -> Result<bool> {
    // SAFETY: the descriptor is open, and fcntl is asked for its flags and given some.
    let set = unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        match flags {
            -1 => -1,
            flags => libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags | libc::O_DIRECT),
        }
    };
    match set {
        -1 => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            e => Err(e),
        },
        _ => Ok(true),
    }
}

/// Gives a file to glommio. Its own way takes an open by io_uring, for which the kernel
/// starts a thread, and four more calls; so a copy of a file that it has opened on the same
/// device, with all that it knows of that device, is made to refer to this one.
pub(super) async fn take(io: &GlommioIo, held: Held, path: &Path) -> Result<DmaFile> {
    learn(io, &held, path).await?;
    let copy = LEARNT.with_borrow(|learnt| {
        let learnt = learnt.get(&held.device)?;
        let pattern = learnt.pattern.as_ref()?;
        (learnt.direct == held.direct).then(|| pattern.dup().map_err(io_error))
    });
    let Some(copy) = copy else {
        return open_held(&held.file).await;
    };
    let copy = copy?;
    let (from, to) = (held.file.as_raw_fd(), copy.as_raw_fd());
    // SAFETY: both descriptors are open; what `to` referred to is closed by it, which is the
    // copy's own reference to our file and used by nobody.
    match unsafe { libc::dup3(from, to, libc::O_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(copy),
    }
}

/// A file system that is in use, for this thread: the kernel tells of a write that failed
/// behind everyone's back once for each open file, so each shard needs one of its own.
pub(super) struct Device {
    /// Ours, without a name. None where the disk had no room for it.
    file: Option<File>,
    /// What a sync of everything came to, if not well. Locked while one is under way: of two
    /// at once only one is told of a failure.
    failed: Mutex<Option<i32>>,
}

/// File systems whose `syncfs`, and then an fsync, are known to leave nothing behind. FUSE's
/// does not ask the file system's process at all.
const SYNCED_WHOLE: [i64; 4] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs, where nothing is ever committed
];

impl Device {
    fn new(file: Option<File>) -> Device {
        Device {
            file,
            failed: Mutex::new(None),
        }
    }

    /// See [`crate::io::Io::sync_all`]. Waits for the disk.
    pub(super) fn sync_all(&self) -> Result<()> {
        let file = self.file.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        if !SYNCED_WHOLE.contains(&kind(file)?) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(code) = *failed {
            return Err(io::Error::from_raw_os_error(code));
        }
        let result = sync_file_system(file).and_then(|()| file.sync_all());
        if let Err(e) = &result {
            *failed = Some(e.raw_os_error().unwrap_or(libc::EIO));
        }
        result
    }
}

fn sync_file_system(file: &File) -> Result<()> {
    // SAFETY: the descriptor is open, and syncfs takes nothing else.
    match unsafe { libc::syncfs(file.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The file system's magic number.
fn kind(file: &File) -> Result<i64> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open, and the kernel fills the struct that it is given.
    if unsafe { libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fstatfs has filled it.
    Ok(unsafe { stat.assume_init() }.f_type)
}

async fn open_held(held: &File) -> Result<DmaFile> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
        .dma_open(format!("/proc/self/fd/{}", held.as_raw_fd()))
        .await
        .map_err(io_error)
}

/// The device that `path` is on.
pub(super) async fn of(io: &GlommioIo, path: &Path) -> Result<Arc<Device>> {
    let (device, is_dir) = io
        .on_path(path, |path| {
            let metadata = fs::metadata(path)?;
            Ok((metadata.dev(), metadata.is_dir()))
        })
        .await?;
    let known =
        LEARNT.with_borrow(|learnt| learnt.get(&device).map(|learnt| learnt.device.clone()));
    if let Some(known) = known {
        return Ok(known);
    }
    // Nothing was opened there yet, and glommio need not know it.
    let dir = match is_dir {
        true => path,
        false => path.parent().unwrap_or(Path::new("/")),
    };
    let file = io.on_path(dir, unnamed_file).await.ok();
    Ok(Arc::new(Device::new(file)))
}

/// Has glommio look at the device of `held`, which is open at `path`, where it has not.
async fn learn(io: &GlommioIo, held: &Held, path: &Path) -> Result<()> {
    if LEARNT.with_borrow(|learnt| learnt.contains_key(&held.device)) {
        return Ok(());
    }
    let beside = path.to_owned();
    let own = held.file.try_clone()?;
    let found = io.blocking(move || file_with_data(&beside, own)).await?;
    let (WithData::Ours(file) | WithData::Given(file)) = &found;
    let opened = open_held(file).await?;
    let (file, pattern) = match found {
        WithData::Ours(file) => (Some(file), Some(opened)),
        WithData::Given(_) => {
            // Kept open, it would keep its room when it is removed.
            opened.close().await.map_err(io_error)?;
            (None, None)
        }
    };
    let direct = match &pattern {
        Some(pattern) => is_direct(pattern)?,
        None => false,
    };
    LEARNT.with_borrow_mut(|learnt| {
        // Another one may have been quicker, and a sync of its be under way.
        learnt.entry(held.device).or_insert_with(|| Learnt {
            device: Arc::new(Device::new(file)),
            pattern,
            direct,
        });
    });
    Ok(())
}

fn is_direct(file: &DmaFile) -> Result<bool> {
    // SAFETY: the descriptor is open, and fcntl is asked for its flags.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) } {
        -1 => Err(io::Error::last_os_error()),
        flags => Ok(flags & libc::O_DIRECT != 0),
    }
}

enum WithData {
    Ours(File),
    /// The one that is being opened.
    Given(File),
}

/// A file on the same device, in no folder, one block long. On a disk that is full it is
/// the opened file itself, where that has data.
fn file_with_data(path: &Path, own: File) -> Result<WithData> {
    let no_name = unnamed_file(path.parent().unwrap_or(Path::new("/"))).and_then(|mut file| {
        file.write_all(&[0xa5; BLOCK])?;
        // On the disk, not in the page cache only.
        file.sync_data()?;
        Ok(WithData::Ours(file))
    });
    no_name.or_else(|e| match read_front(&own, BLOCK) {
        Ok(first) if first.iter().any(|b| *b != 0) => Ok(WithData::Given(own)),
        _ => Err(e),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Without O_DSYNC nothing else would notice that a synced write is none.
    #[test]
    fn a_file_opened_anew_syncs_each_write() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
        let file = unnamed_file(&dir).unwrap();
        let held = Held::open_synced(&file).unwrap();
        // SAFETY: the descriptor is open, and fcntl is asked for its flags.
        let flags = unsafe { libc::fcntl(held.file.as_raw_fd(), libc::F_GETFL) };
        assert_eq!(flags & libc::O_DSYNC, libc::O_DSYNC);
        assert_eq!(flags & libc::O_DIRECT != 0, held.direct);
        assert_eq!(
            held.file.metadata().unwrap().ino(),
            file.metadata().unwrap().ino()
        );
    }
}
