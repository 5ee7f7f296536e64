//! Files out of the page cache, so that a read of them is cold.
//!
//! ```text
//!   folder/**  --fadvise(DONTNEED)-->  clean pages are dropped; dirty ones are synced first
//! ```
//!
//! The kernel takes it as advice: pages that a process has mapped stay.

use crate::Outcome;
use rustix::fs::{Advice, fadvise};
use std::fs::{self, File};
use std::path::Path;

pub fn folder(path: &Path) -> Outcome {
    let failed =
        |e: std::io::Error| format!("{} can't be put out of the cache: {e}", path.display());
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            folder(&entry.path())?;
        } else if kind.is_file() {
            let file = File::open(entry.path()).map_err(failed)?;
            file.sync_data().map_err(failed)?;
            fadvise(&file, 0, None, Advice::DontNeed).map_err(|e| failed(e.into()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_out_is_still_there() {
        let path = std::env::temp_dir().join(format!("klamm-bench-evict-{}", std::process::id()));
        fs::create_dir_all(path.join("inner")).unwrap();
        fs::write(path.join("inner/segment"), vec![7; 100_000]).unwrap();
        folder(&path).unwrap();
        assert_eq!(
            fs::read(path.join("inner/segment")).unwrap(),
            vec![7; 100_000]
        );
        assert!(folder(&path.join("nowhere")).is_err());
        fs::remove_dir_all(&path).unwrap();
    }
}
