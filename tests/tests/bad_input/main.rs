//! What a client may send that it should not, each with the answer that it gets: the
//! broker's promise to those who share it with such a client.
//!
//! ```text
//!   frames     lengths, headers, counts that lie         closed, and nothing allocated
//!   batches    records that are not what they claim      refused, and nothing appended
//!   cluster    names, numbers, settings                  refused with a reason
//!   groups     members that are none                     refused
//!   load       too much of what is right                 bounded
//! ```

mod batches;
mod cluster;
mod frames;
mod groups;
mod load;
