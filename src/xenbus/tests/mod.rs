//! Whole sessions of either end, and of both.

mod back;
pub mod fake;
mod front;
mod pair;
mod watches;
mod world;
