//! The real `klamm` binary under test, and a wire to it that Klamm did not write.
//!
//! ```text
//!   tests/*.rs    one story a test
//!     |     \
//!   broker   wire      broker: build, start, stop, kill, restart on one data folder
//!     |       |        wire:   raw frames, and kafka-protocol's own encoding
//!   klamm serve  <---- loopback
//! ```

pub mod batch;
pub mod broker;
pub mod client;
pub mod fetch;
pub mod random;
pub mod wire;
