//! What happens to groups, told as stories in a `Room`.

mod joining;
mod leaving;
mod offsets;
mod restarting;
mod statics;
