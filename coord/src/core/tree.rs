//! The znode tree.

pub use ops::{Event, EventKind, MultiError, Op, OpResult, TreeError};

mod ops;
