//! One shard's partitions: which are open, where their folders are, and their upkeep.
//!
//! ```text
//!   DATA/orders-0/           a partition's folder: its log, indexes, checkpoints
//!        orders-0/partition.metadata      which topic it is of (Kafka's file)
//!        orders-1.<topic id>-delete/      deleted; removed in the background or at start
//! ```
//!
//! A folder whose topic id is another than asked for belongs to a topic that was
//! deleted, and goes. A partition that can't be opened stays known, with the reason.

use crate::config::LogConfig;
use crate::error::{Offline, OfflineReason};
use crate::io::Io;
use crate::journal::{Journal, JournalConfig, KnownFolder, Replayed};
use crate::partition::{OpenOptions, Partition, Surroundings};
use crate::profile::{LogProfile, StoreProfile};
use crate::recovery;
use crate::sealed_text;
use crate::signal::Signal;
use crate::tail::TailCache;
use crate::units::{BytePos, LeaderEpoch, PartitionId, ShardId, TopicId};
use futures_util::stream::{self, StreamExt};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Partitions come in the same order in each run, so that a simulated one comes again. Their
/// ids are made here, by chance: nobody outside chooses which of them meet in a bucket.
type SameOrder = BuildHasherDefault<DefaultHasher>;

pub(crate) const METADATA_FILE_NAME: &str = "partition.metadata";
pub const DELETED_SUFFIX: &str = "-delete";

/// What file systems take as a name.
const NAME_BYTES_MAX: usize = 255;

/// Partitions opened or closed at a time: enough to keep the disk busy.
const CONCURRENT: usize = 32;

pub struct Store<I: Io> {
    io: I,
    data: PathBuf,
    clean: bool,
    tail_cache: Rc<TailCache<I>>,
    profile: Option<Rc<StoreProfile>>,
    /// None: each partition syncs for itself.
    journal: RefCell<Option<Rc<Journal<I>>>>,
    partitions: RefCell<HashMap<PartitionId, Entry<I>, SameOrder>>,
    /// See [`Before::committed`].
    found_committed: Cell<Option<u64>>,
    /// What the journals' replay has seen of folders that are not open yet.
    known: RefCell<HashMap<PartitionId, KnownFolder<I>, SameOrder>>,
    opening: RefCell<HashSet<PartitionId>>,
    opened: Rc<Signal>,
    /// A sync of DATA itself that failed. Nobody knows which names it left out, and the
    /// next sync would not say; so no partition is opened any more before a restart.
    data_failed: RefCell<Option<Offline>>,
}

/// A partition as it is to be served.
pub enum Entry<I: Io> {
    Online(Rc<Partition<I>>),
    /// It could not be opened; every request for it is told why.
    Offline(Offline),
}

impl<I: Io> Clone for Entry<I> {
    fn clone(&self) -> Self {
        match self {
            Entry::Online(partition) => Entry::Online(partition.clone()),
            Entry::Offline(offline) => Entry::Offline(offline.clone()),
        }
    }
}

/// What a partition is opened with.
#[derive(Clone, Debug)]
pub struct PartitionSpec {
    pub id: PartitionId,
    /// A legal topic name: it becomes part of a folder's.
    pub topic: String,
    pub leader_epoch: LeaderEpoch,
    pub config: LogConfig,
}

impl PartitionSpec {
    pub fn folder_name(&self) -> String {
        format!("{}-{}", self.topic, self.id.index)
    }
}

/// A partition that is being opened or closed. A caller that gives up opening half-way lets
/// the next one try; closing is not given up but with the whole process.
struct Opening<'a, I: Io> {
    store: &'a Store<I>,
    id: PartitionId,
}

impl<I: Io> Drop for Opening<'_, I> {
    fn drop(&mut self) {
        self.store.opening.borrow_mut().remove(&self.id);
        self.store.opened.wake();
    }
}

impl<I: Io> Store<I> {
    /// `clean`: the broker that used DATA before stopped in order.
    pub fn new(io: I, data: PathBuf, clean: bool, tail_bytes: usize) -> Rc<Store<I>> {
        Store::profiled(io, data, clean, tail_bytes, None)
    }

    /// The same, with something that the partitions report into.
    pub fn profiled(
        io: I,
        data: PathBuf,
        clean: bool,
        tail_bytes: usize,
        profile: Option<Rc<StoreProfile>>,
    ) -> Rc<Store<I>> {
        Rc::new(Store {
            io,
            data,
            clean,
            tail_cache: TailCache::new(tail_bytes),
            profile,
            journal: RefCell::default(),
            partitions: RefCell::default(),
            found_committed: Cell::new(None),
            known: RefCell::default(),
            opening: RefCell::default(),
            opened: Signal::new(),
            data_failed: RefCell::default(),
        })
    }

    /// Has the partitions that are opened from now on share one sync. After
    /// [`crate::journal::replay`], and before any of them is open.
    pub async fn use_journal(&self, shard: ShardId, config: JournalConfig) -> Result<(), Offline> {
        assert!(
            self.partitions.borrow().is_empty(),
            "the journal comes first"
        );
        let journal = Journal::open(self.io.clone(), &self.data, shard, config).await?;
        *self.journal.borrow_mut() = Some(journal);
        Ok(())
    }

    /// Of the file system `device` everything that was found was synced as a whole, after the
    /// journals' replay: partitions that are opened from now on need not do it.
    pub fn note_committed(&self, device: Option<u64>) {
        self.found_committed.set(device);
    }

    /// The same, on the shard that has replayed the journals: the folders that were looked
    /// into for it are not looked into again. To be called before any partition is opened.
    pub fn note_replayed(&self, replayed: Replayed<I>) {
        self.note_committed(replayed.committed);
        self.known.borrow_mut().extend(replayed.into_looks());
    }

    pub fn io(&self) -> &I {
        &self.io
    }

    pub fn tail_cache(&self) -> &Rc<TailCache<I>> {
        &self.tail_cache
    }

    pub fn profile(&self) -> Option<&Rc<StoreProfile>> {
        self.profile.as_ref()
    }

    pub fn get(&self, id: &PartitionId) -> Option<Entry<I>> {
        self.partitions.borrow().get(id).cloned()
    }

    pub fn ids(&self) -> Vec<PartitionId> {
        self.partitions.borrow().keys().copied().collect()
    }

    /// Every partition that is open.
    pub fn online(&self) -> Vec<(PartitionId, Rc<Partition<I>>)> {
        let partitions = self.partitions.borrow();
        let online = partitions.iter().filter_map(|(id, entry)| match entry {
            Entry::Online(partition) => Some((*id, partition.clone())),
            Entry::Offline(_) => None,
        });
        online.collect()
    }

    /// Opens many partitions, some at a time. One that fails is kept with its reason; one
    /// that is open takes over what is new.
    pub async fn open_partitions(self: &Rc<Self>, specs: Vec<PartitionSpec>) {
        stream::iter(specs)
            .for_each_concurrent(CONCURRENT, |spec| async move {
                self.open_partition(spec).await;
            })
            .await;
        // The others are of topics that are gone: their files are not kept open.
        self.known.borrow_mut().clear();
    }

    /// Opens a partition, or makes it. One that is open takes over the settings, and the
    /// leader epoch where it is newer: this broker leads it again, or goes on leading it.
    pub async fn open_partition(self: &Rc<Self>, spec: PartitionSpec) -> Entry<I> {
        // A second caller waits for the first one's result.
        let id = spec.id;
        self.settled(id).await;
        match self.get(&id) {
            Some(Entry::Online(partition)) => {
                partition.configure(spec.config);
                if let Err(offline) = partition.begin_epoch(spec.leader_epoch).await {
                    // The partition says so itself, to everyone who asks from now on.
                    log::debug!("{}: {offline}", partition.dir().display());
                }
                return Entry::Online(partition);
            }
            Some(offline) => return offline,
            None => {}
        }
        let opening = self.begin_opening(id);
        let opened = self.open_folder(&spec).await;
        // Another one's sync may have failed beside ours, and taken our folder's name along.
        let opened =
            self.note_data_failed(opened)
                .and_then(|partition| match &*self.data_failed.borrow() {
                    Some(offline) => Err(offline.clone()),
                    None => Ok(partition),
                });
        let entry = match opened {
            Ok(partition) => Entry::Online(partition),
            Err(offline) => {
                log::error!("partition {}: {offline}; it is offline", spec.folder_name());
                Entry::Offline(offline)
            }
        };
        self.partitions.borrow_mut().insert(id, entry.clone());
        drop(opening);
        entry
    }

    fn note_data_failed<T>(&self, result: Result<T, Offline>) -> Result<T, Offline> {
        if let Err(offline) = &result
            && let OfflineReason::Failed {
                doing: "sync",
                file,
                ..
            } = &*offline.0
            && *file == self.data
        {
            self.data_failed
                .borrow_mut()
                .get_or_insert_with(|| offline.clone());
        }
        result
    }

    /// Resolves once nobody is opening or closing the partition.
    async fn settled(self: &Rc<Self>, id: PartitionId) {
        let this = self.clone();
        self.opened
            .until(move || (!this.opening.borrow().contains(&id)).then_some(()))
            .await;
    }

    fn begin_opening(&self, id: PartitionId) -> Opening<'_, I> {
        let first = self.opening.borrow_mut().insert(id);
        assert!(first, "one opens or closes a partition at a time");
        Opening { store: self, id }
    }

    async fn open_folder(&self, spec: &PartitionSpec) -> Result<Rc<Partition<I>>, Offline> {
        let name = spec.folder_name();
        assert!(
            name.is_ascii() && !name.contains(['/', '\0']) && !name.starts_with('.'),
            "a legal topic name"
        );
        let dir = self.data.join(&name);
        let replayed = self.known.borrow_mut().remove(&spec.id);
        let (mut found, known) = match replayed.filter(|known| *known.name == *name) {
            Some(folder) => {
                let known = (spec.id.topic, folder.sealed_id);
                (Some(folder.look), Some(known))
            }
            None => {
                let mut found = recovery::look(&self.io, &dir, self.clean).await?;
                let known = match &mut found {
                    Some(found) => topic_id(&dir, found.bytes.remove(METADATA_FILE_NAME))?,
                    None => None,
                };
                (found, known)
            }
        };
        if let Some((other, _)) = known.filter(|(id, _)| *id != spec.id.topic) {
            log::info!(
                "{}: of topic id {other}, which is gone; removed",
                dir.display()
            );
            self.remove_folder(&dir, other).await?;
            found = None;
        }
        let options = OpenOptions {
            clean: self.clean,
            leader_epoch: spec.leader_epoch,
        };
        let journal = self.journal.borrow().clone();
        let around = Surroundings {
            id: spec.id,
            tail_cache: self.tail_cache.clone(),
            profile: LogProfile::new(self.profile.clone()),
            journal,
            committed: self.found_committed.get(),
        };
        let partition = Partition::open_in(
            self.io.clone(),
            dir.clone(),
            spec.config.clone(),
            options,
            around,
            found,
        )
        .await?;
        if known != Some((spec.id.topic, true)) {
            let path = dir.join(METADATA_FILE_NAME);
            let text = format!("version: 0\ntopic_id: {}\n", spec.id.topic);
            self.io
                .replace_file(&path, sealed_text::seal(&text))
                .await
                .map_err(|e| Offline::failed("write", path, e))?;
        }
        Ok(partition)
    }

    /// Closes many partitions, some at a time; see [`Store::close_partition`].
    pub async fn close_partitions(self: &Rc<Self>, ids: Vec<PartitionId>) {
        stream::iter(ids)
            .for_each_concurrent(CONCURRENT, |id| async move {
                self.close_partition(&id).await;
            })
            .await;
    }

    /// Lets go of a partition that is not served here any more. Its folder stays as it is,
    /// and it may be opened again.
    ///
    /// One that could not be closed in order stays known, with the reason: what is on its
    /// disk is only found out by a start that trusts nothing.
    pub async fn close_partition(self: &Rc<Self>, id: &PartitionId) {
        self.settled(*id).await;
        let Some(Entry::Online(partition)) = self.get(id) else {
            return;
        };
        // It stays in the map meanwhile, where close_all finds it and waits for it.
        let closing = self.begin_opening(*id);
        let closed = partition.close().await;
        match closed {
            Ok(()) => {
                log::info!("{}: closed, and kept", partition.dir().display());
                self.partitions.borrow_mut().remove(id);
            }
            Err(offline) => {
                log::error!(
                    "{}: not closed in order: {offline}",
                    partition.dir().display()
                );
                self.keep_offline(id, offline);
            }
        }
        drop(closing);
    }

    /// In the place of the partition, unless close_all has taken it out meanwhile.
    fn keep_offline(&self, id: &PartitionId, offline: Offline) {
        if let Some(entry) = self.partitions.borrow_mut().get_mut(id) {
            *entry = Entry::Offline(offline);
        }
    }

    /// Stops a partition and removes its folder, in the background once its name is
    /// free for a topic of the same name.
    pub async fn remove_partition(
        self: &Rc<Self>,
        id: &PartitionId,
        topic: &str,
    ) -> Result<(), Offline> {
        self.settled(*id).await;
        let entry = self.partitions.borrow_mut().remove(id);
        if let Some(Entry::Online(partition)) = &entry {
            partition.abandon().await;
        }
        let dir = self.data.join(format!("{topic}-{}", id.index));
        self.remove_folder(&dir, id.topic).await?;
        if let Some(Entry::Online(partition)) = &entry {
            partition.appender().note_gone();
        }
        Ok(())
    }

    async fn remove_folder(&self, dir: &Path, id: TopicId) -> Result<(), Offline> {
        let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        self.known
            .borrow_mut()
            .retain(|_, known| *known.name != *name);
        let gone = self.data.join(deleted_name(name, id));
        match self.io.rename(dir, &gone).await {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Offline::failed("rename", dir, e)),
        }
        let synced = self.io.sync_dir(&self.data).await;
        self.note_data_failed(synced.map_err(|e| Offline::failed("sync", &self.data, e)))?;
        let io = self.io.clone();
        self.io.spawn(async move {
            if let Err(e) = io.remove_dir_all(&gone).await {
                // It is tried again at the next start.
                log::warn!("could not remove {}: {e}", gone.display());
            }
        });
        Ok(())
    }

    /// Removes what deleted partitions have left in DATA. To be called once, by one
    /// shard, before partitions are opened.
    pub async fn remove_leftovers(&self) -> Result<(), Offline> {
        let entries = self
            .io
            .read_dir(&self.data)
            .await
            .map_err(|e| Offline::failed("list", &self.data, e))?;
        for entry in entries {
            if entry.is_dir && entry.name.ends_with(DELETED_SUFFIX) && entry.name.contains('.') {
                let path = self.data.join(entry.name);
                self.io
                    .remove_dir_all(&path)
                    .await
                    .map_err(|e| Offline::failed("remove", path, e))?;
            }
        }
        Ok(())
    }

    /// Retention and upkeep, every `interval`, for as long as the shard runs.
    pub async fn housekeep_every(self: Rc<Self>, interval: Duration) {
        loop {
            self.io.sleep(interval).await;
            for (_, partition) in self.online() {
                match partition.housekeep().await {
                    Ok(()) => {}
                    Err(offline) if offline.is_closed() => {}
                    Err(offline) => log::error!("{}: {offline}", partition.dir().display()),
                }
            }
        }
    }

    /// Takes the checkpoints that are due, some at a time, every `interval`, for as long as
    /// the shard runs.
    pub async fn checkpoint_every(self: Rc<Self>, interval: Duration) {
        loop {
            self.io.sleep(interval).await;
            // Under load each waits for a round: one after another would take the longer the
            // more there are.
            stream::iter(self.online())
                .for_each_concurrent(CONCURRENT, |(_, partition)| async move {
                    match partition.checkpoint_if_due().await {
                        Ok(()) => {}
                        Err(offline) if offline.is_closed() => {}
                        // Only the next start is slower for it.
                        Err(offline) => log::warn!(
                            "{}: no checkpoint was taken: {offline}",
                            partition.dir().display()
                        ),
                    }
                })
                .await;
        }
    }

    /// Closes every partition. Ok: all of them may be opened without a scan.
    pub async fn close_all(&self) -> Result<(), Offline> {
        let partitions: Vec<_> = self.partitions.borrow_mut().drain().collect();
        let results: Vec<Result<(), Offline>> = stream::iter(partitions)
            .map(|(_, entry)| async move {
                match entry {
                    Entry::Online(partition) => partition.close().await,
                    Entry::Offline(offline) => Err(offline),
                }
            })
            .buffer_unordered(CONCURRENT)
            .collect()
            .await;
        results.into_iter().collect::<Result<(), Offline>>()?;
        let journal = self.journal.borrow().clone();
        match journal {
            Some(journal) => journal.close().await,
            None => Ok(()),
        }
    }
}

/// The topic id of a folder whose file of it was read, and whether it is under a checksum.
/// None where there is no such file: then it is taken over, as Kafka does with
/// folders from before topic ids.
pub(crate) fn topic_id(
    dir: &Path,
    read: Option<std::io::Result<Vec<u8>>>,
) -> Result<Option<(TopicId, bool)>, Offline> {
    let path = dir.join(METADATA_FILE_NAME);
    let bytes = match read {
        None => return Ok(None),
        Some(Ok(bytes)) => bytes,
        Some(Err(e)) => return Err(Offline::failed("read", path, e)),
    };
    let damaged = |what: String| Err(Offline::corrupt(&path, BytePos::ZERO, what));
    let (text, sealed) = match sealed_text::open(&bytes) {
        Ok(opened) => opened,
        Err(what) => return damaged(what),
    };
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("topic_id: "))
        .and_then(|id| id.trim().parse().ok());
    match id {
        Some(id) => Ok(Some((id, sealed))),
        None => damaged("expected a line 'topic_id: ' with 22 characters of base64".to_owned()),
    }
}

/// `orders-1.<topic id>-delete`, the front cut where it would be too long, as Kafka does
/// (`LocalLog.logDeleteDirName`): the id keeps it apart from others.
fn deleted_name(folder: &str, id: TopicId) -> String {
    let suffix = format!(".{id}{DELETED_SUFFIX}");
    let keep = folder.len().min(NAME_BYTES_MAX - suffix.len());
    // A topic's name is ASCII.
    format!("{}{suffix}", &folder[..keep])
}
