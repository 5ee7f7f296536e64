//! What the mirror does not know any more is read anew.
//!
//! ```text
//!   events, multis that were not done --> dirty paths --read--> nodes as they are
//!                                            ^                       |
//!                                            +-- below: children     v
//!                                                         the core reflects them
//! ```

use super::{CONSUMERS, Ensemble, Lost, MIRRORED, READ_AGAIN, Remote, now};
use crate::core::tree::{Seen, TreeError};
use crate::driver::Host;
use klamm_engine::io::Io;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A node that was read.
pub(super) struct Read {
    path: String,
    /// How many multis had been sent before.
    at: u64,
    seen: Option<Seen>,
    /// Where those were asked for too, and the node is there.
    children: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dirty {
    pub(super) path: String,
    /// And everything below it.
    pub(super) whole: bool,
}

impl<I: Io, H: Host, E: Ensemble> Remote<I, H, E> {
    /// Reads what has changed until nothing has.
    pub(super) fn read_dirty(self: &Rc<Self>) {
        if !self.dirty.borrow().is_empty() && !self.reading.replace(true) {
            self.io.spawn(self.clone().run_reads());
        }
    }

    /// What one change did is read together and shown together: a topic is not seen
    /// without its partitions.
    async fn run_reads(self: Rc<Self>) {
        while self.stopped.borrow().is_none() {
            let dirty: Vec<Dirty> = self.dirty.borrow_mut().drain(..).collect();
            if dirty.is_empty() {
                self.in_doubt.set(false);
                self.unread.set(false);
                self.core.borrow_mut().reflected(now(&self.io));
                if self.image_due.replace(false) {
                    let image = self.core.borrow_mut().image();
                    self.gathered.borrow_mut().image = Some(image);
                }
                self.collect();
                break;
            }
            match self.read_again(dirty).await {
                Ok(read) => self.take_over(read),
                Err(lost) => {
                    // Which of it was read does not matter: whoever reads next reads all,
                    // after the reconnection most likely.
                    log::debug!("not read: {}", lost.why);
                    *self.dirty.borrow_mut() = everything().collect();
                    if !self.unread.replace(true) {
                        self.io.spawn(self.clone().run_rereads());
                    }
                    break;
                }
            }
            self.collect();
        }
        self.reading.set(false);
        self.changed.wake();
    }

    /// Where it is not the connection that failed nobody says when to read again.
    async fn run_rereads(self: Rc<Self>) {
        loop {
            self.io.sleep(READ_AGAIN).await;
            if !self.unread.get() || self.stopped.borrow().is_some() {
                break;
            }
            self.read_everything_again();
        }
    }

    async fn read_again(self: &Rc<Self>, dirty: Vec<Dirty>) -> Result<Vec<Read>, Lost> {
        let (whole, single): (Vec<Dirty>, Vec<Dirty>) = dirty.into_iter().partition(|d| d.whole);
        let mut single: Vec<String> = single.into_iter().map(|d| d.path).collect();
        let mut known = HashSet::new();
        single.retain(|path| known.insert(path.clone()));
        let mut read = self.read(&single).await?;
        read.extend(self.read_whole(outermost(whole)).await?);
        Ok(read)
    }

    pub(super) async fn read_all(self: &Rc<Self>) -> Result<(), Lost> {
        let read = self.read_whole(MIRRORED.map(str::to_owned).into()).await?;
        self.take_over(read);
        let read = self.read(&[CONSUMERS.to_owned()]).await?;
        self.take_over(read);
        Ok(())
    }

    /// Reads nodes, all at once.
    async fn read(self: &Rc<Self>, paths: &[String]) -> Result<Vec<Read>, Lost> {
        let at = self.sent.get();
        let asked: Vec<_> = paths.iter().map(|path| self.ensemble.read(path)).collect();
        let mut read = Vec::with_capacity(paths.len());
        for (path, answer) in paths.iter().zip(asked) {
            let seen = match answer.await? {
                Ok(seen) => Some(seen),
                Err(TreeError::NoNode) => None,
                Err(error) => {
                    log::error!("{path} can't be read: {error}");
                    continue;
                }
            };
            read.push(Read {
                path: path.clone(),
                at,
                seen,
                children: None,
            });
        }
        Ok(read)
    }

    /// Reads nodes and all below them, those above first: level by level, as a server lets
    /// reads wait for the session's writes before them, which may be slow.
    pub(super) async fn read_whole(self: &Rc<Self>, roots: Vec<String>) -> Result<Vec<Read>, Lost> {
        let mut all = Vec::new();
        let mut level = roots;
        while !level.is_empty() {
            let lists: Vec<_> = level
                .iter()
                .map(|path| self.ensemble.children(path))
                .collect();
            let mut read = self.read(&level).await?;
            let mut children = HashMap::new();
            for (path, list) in level.drain(..).zip(lists) {
                children.insert(path, list.await?.unwrap_or_default());
            }
            for read in &mut read {
                let there = children.remove(&read.path).unwrap_or_default();
                level.extend(there.iter().map(|name| child(&read.path, name)));
                read.children = read.seen.is_some().then_some(there);
            }
            all.extend(read);
        }
        Ok(all)
    }

    /// Shows what was read, and forgets what is not there any more.
    pub(super) fn take_over(&self, read: Vec<Read>) {
        let touched = self.touched.borrow();
        // What was done after the read was sent is not in it; its own event is to come.
        let is_old = |path: &str, at: u64| touched.get(path).is_some_and(|later| *later > at);
        let mut core = self.core.borrow_mut();
        let mut seen = Vec::with_capacity(read.len());
        for Read {
            path,
            at,
            seen: what,
            children,
        } in read
        {
            if is_old(&path, at) {
                continue;
            }
            if let Some(there) = children {
                let here = core.tree().children(&path);
                let here: Vec<String> = here
                    .into_iter()
                    .flatten()
                    .map(|n| child(&path, n))
                    .collect();
                let there: HashSet<String> = there.iter().map(|n| child(&path, n)).collect();
                let gone = here
                    .into_iter()
                    .filter(|p| !there.contains(p) && !is_old(p, at));
                seen.extend(gone.map(|path| (path, None)));
            }
            seen.push((path, what));
        }
        core.reflect(&seen);
    }
}

/// Those that are below none of the others, each once.
pub(super) fn outermost(mut dirty: Vec<Dirty>) -> Vec<String> {
    dirty.sort_by_key(|d| d.path.len());
    let mut kept = HashSet::new();
    let mut paths = Vec::new();
    for Dirty { path, .. } in dirty {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        if above.chain([path.as_str()]).any(|p| kept.contains(p)) {
            continue;
        }
        kept.insert(path.clone());
        paths.push(path);
    }
    paths
}

pub(super) fn everything() -> impl Iterator<Item = Dirty> {
    MIRRORED.iter().map(|path| Dirty {
        path: (*path).to_owned(),
        whole: true,
    })
}

fn child(path: &str, name: &str) -> String {
    match path {
        "/" => format!("/{name}"),
        _ => format!("{path}/{name}"),
    }
}
