//! ZooKeeper's client protocol.
//!
//! ```text
//!  server      listens on shard 0, sweeps out those whose time is up
//!  connection  one client: receives into a shared buffer, sends what is committed
//!  frame       the 4-byte length and what follows it
//!  requests    all frames of one receive -> the state machine, in one go
//!  outbox      answers and events in order, each behind the change it rests on
//!  front       what connections share: the state machine, who is there, who waits
//!  jute        the encoding        records  the protocol's records, both ways
//!  limits      what one client, and all of them together, may hold
//!  stats       figures for the words
//!  client      the other side: a broker whose cluster is kept by an ensemble
//! ```
//!
//! and by kind, what is asked: `session` (connect, ping, close), `reads`, `writes`,
//! `multi`, `watches`, `auth`, and the four-letter `words`.
//!
//! The state changes when a request is read; its answer, and the events that it fires,
//! leave when the changelog has it. Whoever reads meanwhile waits for the same.

pub mod client;
pub mod frame;
pub mod front;
pub mod fuzzing;
pub mod jute;
pub mod limits;
pub mod outbox;
pub mod records;
pub mod server;
pub mod stats;
pub mod words;

mod auth;
mod connection;
mod multi;
mod reads;
mod requests;
mod session;
mod watches;
mod writes;

#[cfg(test)]
mod testing;
