//! The real `klamm` binary under test, and a wire to it that Klamm did not write.
//!
//! ```text
//!   tests/*.rs    one story a test
//!     |     \
//!   broker   wire      broker: build, start, stop, kill, restart on one data folder
//!     |       |        wire:   raw frames, and kafka-protocol's own encoding
//!   klamm serve  <---- loopback
//!
//!   zookeeper          the same for the coordinator's port: frames and records by hand
//!   apache_zookeeper   Apache's own server, where it can be had, to compare with
//!   ensemble           three of them that keep one tree
//!   coordinator        Klamm's, or Apache's in its place
//!   group              what members of librdkafka's hold
//!   cluster            several brokers that share one; its tree, as a tool reads it
//! ```

pub mod apache_zookeeper;
pub mod batch;
pub mod broker;
pub mod client;
pub mod cluster;
pub mod coordinator;
pub mod ensemble;
pub mod fetch;
pub mod group;
pub mod random;
pub mod wire;
pub mod zookeeper;
