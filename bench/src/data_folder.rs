//! The folder that a run may empty: one that it made itself.
//!
//! ```text
//!   FOLDER/klamm-bench    the mark: without it, a folder with something in it is
//!   FOLDER/...            somebody's, and stays as it is
//! ```

use crate::{Outcome, interrupt};
use std::fs;
use std::path::{Path, PathBuf};

const MARK: &str = "klamm-bench";

/// Empty but for its mark; removed at the end.
pub struct DataFolder {
    path: PathBuf,
}

impl DataFolder {
    pub fn make(path: &Path) -> Outcome<DataFolder> {
        let failed = |e| format!("the data folder {} can't be made: {e}", path.display());
        let taken = path
            .read_dir()
            .is_ok_and(|mut entries| entries.next().is_some());
        if taken && !path.join(MARK).is_file() {
            return Err(format!(
                "{} has something in it that klamm-bench did not put there; it would be emptied: \
                 name another folder with --data",
                path.display()
            ));
        }
        if taken {
            remove(path)?;
        }
        fs::create_dir_all(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        interrupt::filled(&path);
        fs::write(path.join(MARK), "Made by klamm-bench, which empties it.\n").map_err(failed)?;
        Ok(DataFolder { path })
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if let Err(message) = remove(&self.path) {
            eprintln!("klamm-bench: {message}");
        }
        interrupt::emptied(&self.path);
    }
}

/// A folder with all that is in it.
pub fn remove(path: &Path) -> Outcome {
    fs::remove_dir_all(path).map_err(|e| format!("{} can't be emptied: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("klamm-bench-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_folder_of_somebody_else_stays_as_it_is() {
        let path = fresh("theirs");
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("letter"), "dear").unwrap();
        let refused = DataFolder::make(&path).err().expect("refused");
        assert!(refused.contains("--data"), "{refused}");
        assert_eq!(fs::read_to_string(path.join("letter")).unwrap(), "dear");
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn what_a_run_left_is_emptied_and_goes_at_the_end() {
        let path = fresh("ours");
        let left = DataFolder::make(&path).unwrap();
        fs::write(left.join("segment"), "records").unwrap();
        std::mem::forget(left);
        let folder = DataFolder::make(&path).unwrap();
        assert!(!folder.join("segment").exists());
        drop(folder);
        assert!(!path.exists());
    }
}
