//! One open partition's part in its shard's journal.

use crate::appender::{Appender, Settling};
use crate::io::Io;
use crate::units::{Offset, PartitionId};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

pub struct Member<I: Io> {
    pub id: PartitionId,
    /// Its folder in DATA.
    pub folder: Rc<str>,
    /// Below it everything is synced in the partition's own segments. Never falls.
    settled: Cell<Offset>,
    /// Its folder was removed, and that is committed: nothing of it is to be kept.
    gone: Cell<bool>,
    /// It waits in the shard's backlog (backlog.rs).
    pub(super) waits: Cell<bool>,
    appender: RefCell<Weak<Appender<I>>>,
}

impl<I: Io> Member<I> {
    /// `settled`: the end of the log as it was opened, all of it synced.
    pub fn new(id: PartitionId, folder: &str, settled: Offset) -> Rc<Member<I>> {
        Rc::new(Member {
            id,
            folder: folder.into(),
            settled: Cell::new(settled),
            gone: Cell::new(false),
            waits: Cell::new(false),
            appender: RefCell::default(),
        })
    }

    pub(crate) fn appended_by(&self, appender: &Rc<Appender<I>>) {
        *self.appender.borrow_mut() = Rc::downgrade(appender);
    }

    pub fn settled(&self) -> Offset {
        self.settled.get()
    }

    /// What is below `upto` was synced in its segments.
    pub(crate) fn note_settled(&self, upto: Offset) {
        self.settled.set(self.settled.get().max(upto));
    }

    pub(crate) fn note_gone(&self) {
        self.gone.set(true);
    }

    pub(super) fn is_settled(&self, upto: Offset) -> bool {
        self.gone.get() || self.settled.get() >= upto
    }

    /// Has the partition place and sync what is below `upto`, unless it did. One that is
    /// offline can't.
    pub(super) async fn settle(&self, upto: Offset) {
        if let Some(appender) = self.unsettled(upto) {
            appender.settle(upto).await;
        }
    }

    /// The same up to the sync, which is the caller's.
    pub(super) async fn begin_settling(&self, upto: Offset) -> Option<Settling<I>> {
        self.unsettled(upto)?.begin_settling(upto).await
    }

    /// The same up to where the segment has it.
    pub(super) async fn place_below(&self, upto: Offset) {
        if let Some(appender) = self.unsettled(upto)
            && appender.placed().offset < upto
        {
            self.place().await;
        }
    }

    fn unsettled(&self, upto: Offset) -> Option<Rc<Appender<I>>> {
        let appender = self.appender.borrow().upgrade();
        appender.filter(|_| !self.is_settled(upto))
    }

    /// Has the partition write to its segment what only the journal has. Where that fails
    /// its log is latched.
    pub(super) async fn place(&self) {
        let appender = self.appender.borrow().upgrade();
        if let Some(appender) = appender {
            let _ = appender.place().await;
        }
    }
}
