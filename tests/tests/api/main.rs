//! The APIs that the clients' matrix does not reach, or not at every version: over
//! the wire, against the real binary, with restarts in between.

mod cluster;
mod groups;
