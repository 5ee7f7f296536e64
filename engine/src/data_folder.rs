//! The DATA folder as a whole: one process at a time, one broker, and whether the last
//! one stopped in order.
//!
//! | file | content |
//! |---|---|
//! | `.lock` | empty; locked (flock) by the process that serves from here |
//! | `meta.properties` | Kafka's file: `version=0`, `broker.id`, `cluster.id` |
//! | `.kafka_cleanshutdown` | Kafka's marker: there after a stop in order, taken away at start |
//!
//! It is opened before any shard runs, so it uses the blocking file system directly.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

const LOCK: &str = ".lock";
const META: &str = "meta.properties";
const CLEAN: &str = ".kafka_cleanshutdown";

/// DATA, locked for as long as this lives.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    _lock: File,
    /// The last broker here stopped in order.
    pub clean: bool,
    broker_id: i32,
    /// None: the folder is new, and [`DataFolder::join`] says whose it becomes.
    cluster_id: Option<String>,
}

#[derive(Debug)]
pub enum DataFolderError {
    InUse {
        path: PathBuf,
    },
    OtherBroker {
        path: PathBuf,
        is: String,
        asked: i32,
    },
    OtherCluster {
        path: PathBuf,
        is: String,
        found: String,
    },
    BadMeta {
        path: PathBuf,
        what: String,
    },
    Io {
        doing: &'static str,
        path: PathBuf,
        error: io::Error,
    },
}

impl fmt::Display for DataFolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataFolderError::InUse { path } => write!(
                f,
                "the data folder {} is in use by another process; stop that one, or choose another folder with --data",
                path.display()
            ),
            DataFolderError::OtherBroker { path, is, asked } => write!(
                f,
                "the data folder {} belongs to broker {is}, not {asked}; start with --broker-id {is}, or choose another folder with --data",
                path.display()
            ),
            DataFolderError::OtherCluster { path, is, found } => write!(
                f,
                "the data folder {} belongs to the cluster {is}, but the coordinator's is {found}; point the broker at the right coordinator, or choose another folder with --data",
                path.display()
            ),
            DataFolderError::BadMeta { path, what } => write!(
                f,
                "{} can't be understood: {what}; restore it, or choose another folder with --data",
                path.display()
            ),
            DataFolderError::Io { doing, path, error } => write!(
                f,
                "could not {doing} {}: {error}; check the folder's permissions and the disk, or choose another folder with --data",
                path.display()
            ),
        }
    }
}

impl std::error::Error for DataFolderError {}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataFolderError {
    let path = path.to_owned();
    move |error| DataFolderError::Io { doing, path, error }
}

impl DataFolder {
    /// Opens or makes DATA, and consumes the marker of a clean stop.
    pub fn open(path: &Path, broker_id: i32) -> Result<DataFolder, DataFolderError> {
        fs::create_dir_all(path).map_err(failed("create", path))?;
        let lock_path = path.join(LOCK);
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataFolderError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(e)) => return Err(failed("lock", &lock_path)(e)),
        }
        let cluster_id = read_meta(path, broker_id)?;
        let clean = take_marker(path)?;
        Ok(DataFolder {
            path: path.to_owned(),
            _lock: lock,
            clean,
            broker_id,
            cluster_id,
        })
    }

    /// Makes the folder the cluster's, or finds that it is another one's.
    pub fn join(&self, cluster_id: &str) -> Result<(), DataFolderError> {
        match &self.cluster_id {
            Some(is) if is == cluster_id => Ok(()),
            Some(is) => Err(DataFolderError::OtherCluster {
                path: self.path.clone(),
                is: is.clone(),
                found: cluster_id.to_owned(),
            }),
            None => write_meta(&self.path, self.broker_id, cluster_id),
        }
    }

    /// The cluster that the folder belongs to, once it belongs to one.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Says that everything below was closed in order. The last thing a broker does.
    pub fn mark_clean(&self) -> Result<(), DataFolderError> {
        let path = self.path.join(CLEAN);
        let marker = File::create(&path).map_err(failed("write", &path))?;
        marker.sync_all().map_err(failed("sync", &path))?;
        sync_dir(&self.path)
    }
}

fn sync_dir(path: &Path) -> Result<(), DataFolderError> {
    let dir = File::open(path).map_err(failed("open", path))?;
    dir.sync_all().map_err(failed("sync", path))
}

fn take_marker(path: &Path) -> Result<bool, DataFolderError> {
    let marker = path.join(CLEAN);
    match fs::remove_file(&marker) {
        Ok(()) => {
            // Gone for good before anything is changed: a crash from here on is no
            // clean stop.
            sync_dir(path)?;
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(failed("remove", &marker)(e)),
    }
}

fn read_meta(path: &Path, broker_id: i32) -> Result<Option<String>, DataFolderError> {
    let meta = path.join(META);
    let text = match fs::read_to_string(&meta) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed("read", &meta)(e)),
    };
    let value = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.split_once('=').filter(|(key, _)| key.trim() == name));
        line.map(|(_, value)| value.trim().to_owned())
    };
    let bad = |what: &str| DataFolderError::BadMeta {
        path: meta.clone(),
        what: what.to_owned(),
    };
    // Kafka calls it node.id in version 1, broker.id in version 0.
    let is = value("broker.id")
        .or_else(|| value("node.id"))
        .ok_or_else(|| bad("it has no broker.id"))?;
    if is != broker_id.to_string() {
        return Err(DataFolderError::OtherBroker {
            path: path.to_owned(),
            is,
            asked: broker_id,
        });
    }
    value("cluster.id")
        .map(Some)
        .ok_or_else(|| bad("it has no cluster.id"))
}

fn write_meta(path: &Path, broker_id: i32, cluster_id: &str) -> Result<(), DataFolderError> {
    let meta = path.join(META);
    let beside = path.join("meta.properties.tmp");
    let text = format!("version=0\nbroker.id={broker_id}\ncluster.id={cluster_id}\n");
    fs::write(&beside, text).map_err(failed("write", &beside))?;
    let file = File::open(&beside).map_err(failed("open", &beside))?;
    file.sync_all().map_err(failed("sync", &beside))?;
    fs::rename(&beside, &meta).map_err(failed("rename", &beside))?;
    sync_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path, broker_id: i32) -> Result<DataFolder, DataFolderError> {
        DataFolder::open(path, broker_id)
    }

    #[test]
    fn only_a_clean_stop_leaves_a_clean_folder_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), 1).unwrap();
        assert!(!first.clean);
        drop(first);
        let after_crash = open(dir.path(), 1).unwrap();
        assert!(!after_crash.clean);
        after_crash.mark_clean().unwrap();
        drop(after_crash);
        assert!(open(dir.path(), 1).unwrap().clean);
        assert!(!open(dir.path(), 1).unwrap().clean);
    }

    #[test]
    fn a_second_process_and_another_broker_are_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path(), 1).unwrap();
        let second = open(dir.path(), 1).unwrap_err().to_string();
        assert!(
            second.contains("in use") && second.contains("--data"),
            "{second}"
        );
        first.join("here").unwrap();
        drop(first);
        let back = open(dir.path(), 1).unwrap();
        back.join("here").unwrap();
        let elsewhere = back.join("elsewhere").unwrap_err().to_string();
        assert!(elsewhere.contains("cluster here"), "{elsewhere}");
        drop(back);
        let other = open(dir.path(), 2).unwrap_err().to_string();
        assert!(other.contains("--broker-id 1"), "{other}");
        fs::write(dir.path().join(META), "version=0\n").unwrap();
        assert!(matches!(
            open(dir.path(), 1),
            Err(DataFolderError::BadMeta { .. })
        ));
    }
}
