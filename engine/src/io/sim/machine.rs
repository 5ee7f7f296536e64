//! The machine's side of the world: `Io` as the engine sees it.
//!
//! An operation is put on the agenda with its effect, and takes effect at the instant
//! at which it completes. A future that is dropped before takes it along by a coin.

use super::disk::{self, Ino};
use super::executor::{EventKey, Mailbox, deliver, mailbox, receive};
use super::faults::{OpKind, PlannedFault, eio, enospc};
use super::{Shared, World};
use crate::io::{BLOCK, Buf, Entry, File, Io, Open, SECTOR};
use crate::units::{Nanos, TimestampMs};
use std::future::{Future, pending};
use std::io::{self, Result};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// One life of the machine. After a crash its operations never answer.
#[derive(Clone)]
pub struct SimIo {
    shared: Rc<Shared>,
    life: u64,
}

pub struct SimFile {
    io: SimIo,
    ino: Ino,
    /// As it was opened: for planned faults.
    path: PathBuf,
}

pub struct SimBuf(Vec<u8>);

pub struct SimRead(Vec<u8>);

/// Waits for an operation that is under way.
struct Ticket<T> {
    io: SimIo,
    key: EventKey,
    mailbox: Mailbox<T>,
    done: bool,
}

impl<T> Future for Ticket<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let poll = receive(&self.mailbox, cx);
        self.done = poll.is_ready();
        poll
    }
}

impl<T> Drop for Ticket<T> {
    fn drop(&mut self) {
        if !self.done && self.io.is_alive() {
            let mut world = self.io.shared.world.borrow_mut();
            if world.rng.coin() {
                let event = world.agenda.cancel(self.key);
                drop(world);
                drop(event);
            }
        }
    }
}

impl SimIo {
    pub(super) fn new(shared: Rc<Shared>) -> SimIo {
        SimIo {
            life: shared.life.get(),
            shared,
        }
    }

    fn is_alive(&self) -> bool {
        self.life == self.shared.life.get()
    }

    /// Under way from the first poll on; `effect` is what it does when it completes.
    async fn op<T: 'static>(&self, effect: impl FnOnce(&mut World) -> T + 'static) -> T {
        if !self.is_alive() {
            return pending().await;
        }
        let delay = {
            let World { rng, faults, .. } = &mut *self.shared.world.borrow_mut();
            faults.delay(rng)
        };
        self.due(delay, effect).await
    }

    fn due<T: 'static>(
        &self,
        delay: Duration,
        effect: impl FnOnce(&mut World) -> T + 'static,
    ) -> Ticket<T> {
        let mailbox = mailbox();
        let to = mailbox.clone();
        let event = Box::new(move |world: &mut World| {
            let result = effect(world);
            // An effect that brought the machine down is not told to it.
            if world.down.is_some() {
                None
            } else {
                deliver(&to, result)
            }
        });
        let key = self.shared.world.borrow_mut().plan(delay, event);
        Ticket {
            io: self.clone(),
            key,
            mailbox,
            done: false,
        }
    }

    /// `effect` on a path, or EIO.
    async fn path_op<T: 'static>(
        &self,
        kind: OpKind,
        path: &Path,
        effect: impl FnOnce(&mut World, &Path) -> Result<T> + 'static,
    ) -> Result<T> {
        let path = path.to_owned();
        self.op(move |world| {
            world.fail(kind, &path)?;
            effect(world, &path)
        })
        .await
    }

    /// What [`Io::replace_file`] begins with.
    async fn write_beside(&self, path: &Path, bytes: &[u8]) -> Result<SimFile> {
        let beside = super::super::beside(path)?;
        let ino = self
            .path_op(OpKind::Open, &beside, |world, beside| {
                if world.disk.find_file(beside).is_ok() {
                    // Left over from a crash.
                    world.disk.remove_file(beside)?;
                }
                let ino = world.disk.create_file(beside)?;
                world.disk.hold(ino);
                Ok(ino)
            })
            .await?;
        let file = SimFile {
            io: self.clone(),
            ino,
            path: beside,
        };
        file.put(0, bytes, Take::All).await?;
        Ok(file)
    }

    /// Takes part in the count of syncs. `sees` runs at the start: what is written after
    /// that is not this sync's to commit.
    async fn sync(
        &self,
        kind: OpKind,
        path: PathBuf,
        of: impl FnOnce(&World) -> Result<Ino>,
        commit: impl FnOnce(&mut World, Ino, u64, bool) + 'static,
    ) -> Result<()> {
        if !self.is_alive() {
            return pending().await;
        }
        let started = {
            let mut world = self.shared.world.borrow_mut();
            if world.down.is_some() {
                None
            } else {
                let ino = of(&world)?;
                let crash = world.sync_point();
                // The power may have gone just before this one.
                world
                    .down
                    .is_none()
                    .then(|| (ino, world.disk.newest(), crash))
            }
        };
        let Some((ino, upto, crash)) = started else {
            return pending().await;
        };
        self.op(move |world| {
            let failed = world.fail(kind, &path);
            commit(world, ino, upto, failed.is_ok());
            world.down = world.down.or(crash);
            if kind == OpKind::SyncAll {
                // One that is under way beside a failing one may have had its bytes
                // forgotten by that one.
                world.sync_all_failed |= failed.is_err();
                if world.sync_all_failed {
                    return Err(eio());
                }
            }
            failed
        })
        .await
    }
}

impl Io for SimIo {
    type File = SimFile;
    type Buf = SimBuf;

    fn alloc(&self, len: usize) -> SimBuf {
        assert!(
            len > 0 && len.is_multiple_of(BLOCK),
            "a buffer of {len} bytes is not of blocks"
        );
        // Never zeros: who relies on them writes what was there before.
        SimBuf(vec![0xA7; len])
    }

    async fn open(&self, path: &Path, mode: Open) -> Result<SimFile> {
        let ino = self
            .path_op(OpKind::Open, path, move |world, path| {
                let ino = match mode {
                    Open::Existing => world.disk.find_file(path)?,
                    Open::New => world.disk.create_file(path)?,
                };
                // Held here, so that a removal before the caller runs again leaves it.
                world.disk.hold(ino);
                Ok(ino)
            })
            .await?;
        Ok(SimFile {
            io: self.clone(),
            ino,
            path: path.to_owned(),
        })
    }

    async fn create_dir_all(&self, path: &Path) -> Result<()> {
        let above: Vec<&Path> = path.ancestors().collect();
        for dir in above.into_iter().rev() {
            self.path_op(OpKind::Name, dir, |world, dir| {
                match world.disk.find_dir(dir) {
                    Ok(_) => Ok(()),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        world.disk.create_dir(dir).map(|_| ())
                    }
                    Err(e) => Err(e),
                }
            })
            .await?;
        }
        Ok(())
    }

    async fn sync_dir(&self, path: &Path) -> Result<()> {
        self.sync(
            OpKind::SyncDir,
            path.to_owned(),
            |world| world.disk.find_dir(path),
            |World { disk, rng, .. }, ino, upto, well| match well {
                true => disk.commit_names(ino, upto),
                false => disk.fail_commit_names(ino, upto, rng),
            },
        )
        .await
    }

    async fn sync_all(&self, path: &Path) -> Result<()> {
        let (known, failed) = {
            let world = self.shared.world.borrow();
            (world.knows_sync_all, world.sync_all_failed)
        };
        if !known && self.is_alive() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.sync(
            OpKind::SyncAll,
            path.to_owned(),
            |world| match failed {
                true => Err(eio()),
                false => world.disk.find(path),
            },
            |World { disk, rng, .. }, _, upto, well| match well {
                true => disk.commit_all(upto),
                false => disk.fail_commit_all(upto, rng),
            },
        )
        .await
    }

    async fn read_dir(&self, path: &Path) -> Result<Vec<Entry>> {
        self.path_op(OpKind::Look, path, |world, path| {
            let names = world.disk.list(path)?;
            Ok(names
                .into_iter()
                .map(|(name, is_dir)| Entry { name, is_dir })
                .collect())
        })
        .await
    }

    async fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let to = to.to_owned();
        self.path_op(OpKind::Name, from, move |world, from| {
            world.disk.rename(from, &to)
        })
        .await
    }

    async fn remove_file(&self, path: &Path) -> Result<()> {
        self.path_op(OpKind::Name, path, |world, path| {
            world.disk.remove_file(path)
        })
        .await
    }

    async fn remove_dir_all(&self, path: &Path) -> Result<()> {
        // One name after the other, as it is on a real disk: a crash leaves a part.
        for entry in self.read_dir(path).await? {
            let below = path.join(entry.name);
            match entry.is_dir {
                true => Box::pin(self.remove_dir_all(&below)).await?,
                false => self.remove_file(&below).await?,
            }
        }
        self.path_op(OpKind::Name, path, |world, path| {
            world.disk.remove_empty_dir(path)
        })
        .await
    }

    async fn read_file(&self, path: &Path) -> Result<Vec<u8>> {
        self.path_op(OpKind::Read, path, |world, path| {
            let ino = world.disk.find_file(path)?;
            Ok(world.disk.read(ino, 0, world.disk.len(ino) as usize))
        })
        .await
    }

    async fn replace_file(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        let file = self.write_beside(path, &bytes).await?;
        file.fdatasync().await?;
        let beside = file.path.clone();
        drop(file);
        self.rename(&beside, path).await?;
        self.sync_dir(path.parent().unwrap_or(Path::new("/"))).await
    }

    async fn replace_file_unsynced(&self, path: &Path, bytes: Vec<u8>) -> Result<()> {
        let beside = self.write_beside(path, &bytes).await?.path.clone();
        self.rename(&beside, path).await
    }

    fn now(&self) -> Nanos {
        self.shared.world.borrow().now
    }

    fn wall(&self) -> TimestampMs {
        let world = self.shared.world.borrow();
        TimestampMs((world.now.0 / 1_000_000) as i64 + world.wall_shift_ms)
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        let io = self.clone();
        // From the call on, not from the first poll: that is what a deadline means.
        let until = io.now().plus(duration);
        async move {
            if !io.is_alive() {
                return pending().await;
            }
            let left = Duration::from_nanos(until.0.saturating_sub(io.now().0));
            io.due(left, |_| ()).await;
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if self.is_alive() {
            self.shared.tasks.spawn(task);
        }
    }
}

/// Whether a write may be a short one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Take {
    Some,
    All,
}

impl SimFile {
    /// Writes bytes of any length, whole blocks or the end of a small file, or fewer.
    async fn put(&self, pos: u64, bytes: &[u8], take: Take) -> Result<usize> {
        let (ino, path, len) = (self.ino, self.path.clone(), bytes.len());
        let mut pieces = disk::pieces(pos, bytes);
        self.io
            .op(move |world| {
                let fault = world.fault(OpKind::Write, &path);
                if fault == Some(PlannedFault::Eio) {
                    disk::scatter(&mut pieces, &mut world.rng);
                    let end = world.disk.len(ino);
                    let within = pos + len as u64 <= end;
                    if within {
                        world.disk.write(ino, pieces, end);
                    }
                    return Err(eio());
                }
                let room = world
                    .disk
                    .reach(ino)
                    .max(world.disk.len(ino))
                    .saturating_sub(pos);
                let mut taken = len;
                if (len as u64) > room {
                    taken = room as usize / SECTOR * SECTOR;
                    if taken == 0 || take == Take::All {
                        return Err(enospc());
                    }
                }
                let sectors = taken / SECTOR;
                if fault == Some(PlannedFault::ShortWrite) && sectors > 1 && take == Take::Some {
                    taken = world.rng.between(1, sectors as u64 - 1) as usize * SECTOR;
                }
                if taken < len {
                    disk::shorten(&mut pieces, taken);
                }
                world.disk.write(ino, pieces, pos + taken as u64);
                Ok(taken)
            })
            .await
    }
}

impl File for SimFile {
    type Buf = SimBuf;
    type Read = SimRead;

    async fn write_at(&self, buf: Rc<SimBuf>, pos: u64) -> Result<usize> {
        let len = buf.len();
        assert!(
            len > 0 && len.is_multiple_of(BLOCK) && pos.is_multiple_of(BLOCK as u64),
            "{}: a write of {len} bytes at {pos} is not of whole blocks",
            self.path.display()
        );
        self.put(pos, &buf, Take::Some).await
    }

    async fn read_at(&self, pos: u64, len: usize) -> Result<SimRead> {
        let ino = self.ino;
        self.io
            .path_op(OpKind::Read, &self.path, move |world, _| {
                Ok(SimRead(world.disk.read(ino, pos, len)))
            })
            .await
    }

    async fn write_synced_at(&self, buf: Rc<SimBuf>, pos: u64) -> Result<usize> {
        let taken = self.write_at(buf, pos).await?;
        let (ino, end) = (self.ino, pos + taken as u64);
        self.io
            .sync(
                OpKind::Sync,
                self.path.clone(),
                |_| Ok(ino),
                move |World { disk, rng, .. }, ino, upto, well| match well {
                    // Nothing but this: who relies on more would be found out.
                    true => disk.commit_range(ino, upto, pos..end),
                    false => disk.fail_commit_file(ino, upto, rng),
                },
            )
            .await?;
        Ok(taken)
    }

    async fn fdatasync(&self) -> Result<()> {
        let ino = self.ino;
        self.io
            .sync(
                OpKind::Sync,
                self.path.clone(),
                |_| Ok(ino),
                |World { disk, rng, .. }, ino, upto, well| match well {
                    true => disk.commit_file(ino, upto),
                    false => disk.fail_commit_file(ino, upto, rng),
                },
            )
            .await
    }

    async fn allocate(&self, len: u64) -> Result<()> {
        let ino = self.ino;
        self.io
            .path_op(OpKind::Resize, &self.path, move |world, _| {
                let has = world.disk.len(ino);
                let reach = world.disk.reach(ino);
                if len > reach.max(has) {
                    // A real one may have taken a part of it by then.
                    if reach > has && world.rng.coin() {
                        world.disk.set_len(ino, reach);
                    }
                    return Err(enospc());
                }
                if len > has {
                    world.disk.set_len(ino, len);
                }
                Ok(())
            })
            .await
    }

    async fn truncate(&self, len: u64) -> Result<()> {
        let ino = self.ino;
        self.io
            .path_op(OpKind::Resize, &self.path, move |world, _| {
                world.disk.set_len(ino, len);
                Ok(())
            })
            .await
    }

    async fn len(&self) -> Result<u64> {
        let ino = self.ino;
        self.io
            .path_op(OpKind::Look, &self.path, move |world, _| {
                Ok(world.disk.len(ino))
            })
            .await
    }

    async fn data_end(&self) -> Result<u64> {
        let ino = self.ino;
        self.io
            .path_op(OpKind::Look, &self.path, move |world, _| {
                Ok(world.disk.data_end(ino))
            })
            .await
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if self.io.is_alive() {
            self.io.shared.world.borrow_mut().disk.release(self.ino);
        }
    }
}

impl Deref for SimBuf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Buf for SimBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn shrink(&mut self, len: usize) {
        assert!(
            len.is_multiple_of(BLOCK) && len <= self.0.len(),
            "{} bytes shrink to {len}, which is not fewer blocks",
            self.0.len()
        );
        self.0.truncate(len);
    }
}

impl Deref for SimRead {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
