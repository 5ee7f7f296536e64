//! Names and small files, by the system calls of a blocking thread: io_uring or glommio
//! lack them. [`open_dir`] is what a partition's opening needs of its folder in one visit;
//! each visit costs two switches between threads.

use super::device::Held;
use crate::io::{BLOCK, Entry, Open, OpenedDir, OpenedFile, Want};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Result, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub(super) fn open_dir(
    path: &Path,
    want: impl FnOnce(&[Entry]) -> Vec<(String, Want)>,
) -> Result<OpenedDir<Held>> {
    let entries = read_dir(path)?;
    let wanted = want(&entries);
    let (mut bytes, mut files) = (HashMap::new(), HashMap::new());
    for (name, want) in wanted {
        let path = path.join(&name);
        match want {
            Want::Bytes => {
                bytes.insert(name, fs::read(path));
            }
            Want::File { front } => {
                files.insert(name, open_file(&path, front));
            }
        }
    }
    Ok(OpenedDir {
        entries,
        bytes,
        files,
    })
}

fn open_file(path: &Path, front: usize) -> Result<OpenedFile<Held>> {
    let held = Held::open(path, Open::Existing)?;
    held.settle()?;
    let len = held.file.metadata()?.len();
    Ok(OpenedFile {
        len,
        data_end: data_end(&held.file)?,
        front: read_front(&held.file, front)?,
        file: held,
    })
}

/// Past the page cache where the file is opened so, which asks for memory at a block's edge.
pub(super) fn read_front(file: &File, len: usize) -> Result<Vec<u8>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    let room = len.next_multiple_of(BLOCK);
    let mut memory = vec![0; room + BLOCK];
    let skip = memory.as_ptr().align_offset(BLOCK);
    let blocks = &mut memory[skip..skip + room];
    let mut has = 0;
    while has < room {
        match file.read_at(&mut blocks[has..], has as u64) {
            Ok(0) => break,
            Ok(n) => has += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if !has.is_multiple_of(BLOCK) {
            break;
        }
    }
    Ok(blocks[..has.min(len)].to_vec())
}

/// See [`crate::io::File::data_end`].
pub(super) fn data_end(file: &File) -> Result<u64> {
    let len = file.metadata()?.len();
    let mut at = 0;
    while at < len {
        let data = match seek(file, at, libc::SEEK_DATA) {
            Ok(data) => data,
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Ok(at),
            // It can't tell.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => return Ok(len),
            Err(e) => return Err(e),
        };
        at = seek(file, data, libc::SEEK_HOLE)?;
    }
    Ok(len)
}

fn seek(file: &File, at: u64, whence: libc::c_int) -> Result<u64> {
    let at = libc::off_t::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open; its own position, which this moves, is used by nobody.
    let found = unsafe { libc::lseek(file.as_raw_fd(), at, whence) };
    u64::try_from(found).map_err(|_| io::Error::last_os_error())
}

pub(super) fn sync_dir(path: &Path) -> Result<()> {
    fs::File::open(path)?.sync_all()
}

pub(super) fn read_dir(path: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| {
            let whole: PathBuf = path.join(name);
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{}: a name that is not UTF-8; move it away",
                    whole.display()
                ),
            )
        })?;
        entries.push(Entry {
            name,
            is_dir: entry.file_type()?.is_dir(),
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

pub(super) fn replace_file(path: &Path, beside: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs::File::create(beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(beside, path)?;
    sync_dir(
        path.parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new(".")),
    )
}
