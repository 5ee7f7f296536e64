//! The engine under the simulator.

mod crashes;
mod stories;
mod world;
