//! One open partition's part in its shard's journal.

use crate::appender::Appender;
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

    /// Has the partition sync what is below `upto`, unless it did. One that is offline
    /// can't.
    pub(super) async fn settle(&self, upto: Offset) {
        if self.is_settled(upto) {
            return;
        }
        let appender = self.appender.borrow().upgrade();
        if let Some(appender) = appender {
            appender.settle(upto).await;
        }
    }
}
