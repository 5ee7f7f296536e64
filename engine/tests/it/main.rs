//! The engine under the simulator.

mod crashes;
mod damage;
mod simulation;
mod stories;
mod takeover;
mod upkeep;
mod world;
