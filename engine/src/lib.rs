//! Klamm's storage engine.
//!
//! ```text
//!  one shard (one core, one thread, nothing shared)
//!
//!  bytes of a record batch                          offset asked for
//!     |                                                  |
//!  batch      checked view, CRC-32C                      |
//!     |                                                  |
//!  partition  fences the producer, assigns offsets ----  clamps to the high watermark
//!     |                                                  |
//!  log        which segment; rolls, retains -----------  which segment, which byte
//!     |                                                  |
//!  appender   aligned chunks, group commit               reader   tail chunks | file ranges
//!     |                                                  |
//!  io         the one door to disk, clock and tasks  ----+
//! ```
//!
//! An appended byte is *dirty* (in memory), then *stable* (written), then
//! *committed* (synced). docs/format.md has every byte on disk.

pub mod appender;
pub mod batch;
pub mod checkpoint;
pub mod codec;
pub mod config;
pub mod crc;
pub mod data_folder;
pub mod epochs;
pub mod error;
pub mod fuzzing;
pub mod index;
mod index_files;
pub mod io;
pub mod journal;
mod leadership;
mod lookup;
pub mod mark;
mod marker;
pub mod partition;
pub mod producer;
pub mod profile;
pub mod reader;
pub mod record;
pub mod recovery;
mod retention;
pub mod scan;
pub mod sealed_text;
pub mod segment;
pub mod shard;
pub mod signal;
pub mod slice;
pub mod store;
pub mod tail;
pub mod units;
