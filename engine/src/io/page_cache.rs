//! A file as the kernel's page cache has it: what `sendfile` sends from.
//!
//! ```text
//!   blocking thread   load(range)         pages come from the disk
//!   reactor           is_resident(range)  are they there? then sendfile does not wait
//! ```
//!
//! Segments are written past the page cache. The kernel throws away the cached pages that
//! a direct write touches, so what is read here is what is on the disk; but bytes that
//! are still being written are better not read here at all: see [`crate::slice`].
//!
//! A handle may go to another shard: it is a descriptor of its own, and stays readable
//! when the file is removed. How long pages stay is left to the kernel: many consumers
//! read the same ones.

use std::fs;
use std::io::{Error, ErrorKind, Result};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

/// The kernel's page, in which it counts.
static PAGE: LazyLock<u64> = LazyLock::new(|| {
    // SAFETY: sysconf takes no memory.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(bytes).expect("pages have a size")
});

/// How far apart [`CachedFile::load`] touches the file. A page that is touched brings
/// those around it: the kernel reads ahead of a reader that goes forward, 128 KiB as
/// shipped and twice that here, and begins the next such piece when its mark in the one
/// before is touched. Longer steps miss the marks, and then the disk idles between pieces.
const TOUCH_EVERY: u64 = 16 << 10;

/// A file that is read through the page cache.
#[derive(Clone, Debug)]
pub struct CachedFile(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    number: u64,
    file: fs::File,
    path: PathBuf,
}

impl CachedFile {
    /// `file` is open for reading, without O_DIRECT; `path` is what people know it by.
    pub fn new(file: fs::File, path: PathBuf) -> CachedFile {
        // Twice the kernel's read-ahead, which takes its pages in larger pieces, too. Only a
        // hint: where it is not taken, reads are slower and as right.
        // SAFETY: the descriptor is open; posix_fadvise takes no memory.
        unsafe {
            libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_SEQUENTIAL);
        }
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        CachedFile(Arc::new(Opened { number, file, path }))
    }

    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Of all that this process opened. To remember a file by it does not keep it open: one
    /// that was removed takes its room as long as it is.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Whether the range can be sent without waiting for the disk. Pages may go, or be on
    /// their way: all must be in the cache, and the first and last filled. Two or three
    /// system calls, none of which waits; but who finds nothing may have begun to read.
    pub fn is_resident(&self, range: Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        let ends = [range.start, range.end - 1];
        let filled = |at: u64| self.read_resident(at, &mut [0]) == Some(1);
        ends.into_iter().all(filled) && self.all_cached(range)
    }

    /// Reads, waiting for the disk where it must. Shorter only at the file's end.
    pub fn read(&self, at: u64, into: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self
                .0
                .file
                .read_at(&mut into[filled..], at + filled as u64)?
            {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    /// Reads without waiting for the disk; None where that can't be done whole.
    pub fn read_resident(&self, at: u64, into: &mut [u8]) -> Option<usize> {
        let offset = libc::off_t::try_from(at).ok()?;
        let part = libc::iovec {
            iov_base: into.as_mut_ptr().cast(),
            iov_len: into.len(),
        };
        // SAFETY: the descriptor is open as long as `self`; `part` names `into`, which is
        // exclusively ours until the call returns, and preadv2 only writes it.
        let n = unsafe {
            libc::preadv2(
                self.0.file.as_raw_fd(),
                &raw const part,
                1,
                offset,
                libc::RWF_NOWAIT,
            )
        };
        usize::try_from(n).ok().filter(|n| *n == into.len())
    }

    /// Waits for the disk: for a blocking thread. An error where the file ends within.
    pub fn load(&self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            self.touch(at)?;
            at = (at / TOUCH_EVERY + 1) * TOUCH_EVERY;
        }
        match range.end.checked_sub(1) {
            Some(last) if last >= range.start => self.touch(last),
            _ => Ok(()),
        }
    }

    fn touch(&self, at: u64) -> Result<()> {
        match self.0.file.read_at(&mut [0], at)? {
            0 => Err(Error::new(
                ErrorKind::UnexpectedEof,
                format!("{}: ends before byte {at}", self.0.path.display()),
            )),
            _ => Ok(()),
        }
    }

    /// By cachestat (Linux 6.5); where the kernel has none, the ends speak for the rest.
    fn all_cached(&self, range: Range<u64>) -> bool {
        #[repr(C)]
        struct Asked {
            offset: u64,
            len: u64,
        }
        #[repr(C)]
        #[derive(Default)]
        struct Told {
            cached: u64,
            dirty: u64,
            writeback: u64,
            evicted: u64,
            recently_evicted: u64,
        }
        /// The same number on every architecture.
        const CACHESTAT: libc::c_long = 451;
        let page = *PAGE;
        let first = range.start / page;
        let pages = range.end.div_ceil(page) - first;
        let asked = Asked {
            offset: first * page,
            len: pages * page,
        };
        let mut told = Told::default();
        // SAFETY: the descriptor is open as long as `self`; both structs have the layout
        // that the kernel documents, and live until the call returns.
        let done = unsafe {
            libc::syscall(
                CACHESTAT,
                self.0.file.as_raw_fd(),
                &raw const asked,
                &raw mut told,
                0,
            )
        };
        done != 0 || told.cached >= pages
    }
}

impl AsFd for CachedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::{Duration, Instant};

    /// On the disk and not in the cache.
    fn cold(len: usize) -> (tempfile::NamedTempFile, CachedFile) {
        // Beside the build: /tmp may be memory, which is never cold.
        let mut file = tempfile::NamedTempFile::new_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all(&vec![7; len]).unwrap();
        file.as_file().sync_all().unwrap();
        let cached = CachedFile::new(file.reopen().unwrap(), file.path().to_owned());
        let until = Instant::now() + Duration::from_secs(30);
        // It may leave pages alone that something else has in hand.
        while cached.is_resident(0..len as u64) {
            assert!(Instant::now() < until, "the pages stay");
            // SAFETY: the descriptor is open; posix_fadvise takes no memory.
            let dropped = unsafe {
                libc::posix_fadvise(file.as_file().as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED)
            };
            assert_eq!(dropped, 0);
        }
        (file, cached)
    }

    #[test]
    fn pages_are_there_once_they_were_loaded() {
        let (_file, cached) = cold((3 << 20) + 10);
        cached.load(5000..(3 << 20) + 10).unwrap();
        assert!(cached.is_resident(5000..(3 << 20) + 10));
        let mut some = [0; 8];
        assert_eq!(cached.read_resident(2 << 20, &mut some), Some(8));
        assert_eq!(some, [7; 8]);
    }

    #[test]
    fn what_is_not_of_the_file_is_never_there() {
        let (file, cached) = cold(10_000);
        let beyond = cached.load(0..10_001).unwrap_err();
        assert_eq!(beyond.kind(), ErrorKind::UnexpectedEof);
        assert!(beyond.to_string().contains("byte 10000"), "{beyond}");
        cached.load(0..10_000).unwrap();
        assert!(cached.is_resident(0..10_000));
        assert!(!cached.is_resident(0..10_001));
        assert!(cached.is_resident(10_000..10_000), "nothing is there");
        file.as_file().set_len(5000).unwrap();
        assert!(!cached.is_resident(0..10_000));
        assert!(cached.load(4000..6000).is_err());
    }
}
