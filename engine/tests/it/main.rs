//! The engine under the simulator.

mod crashes;
mod damage;
mod journal;
mod leading;
mod model;
mod pieces;
mod simulation;
mod stories;
mod takeover;
mod upkeep;
mod world;
