//! Whole sessions of either end, and of both.

mod back;
mod carrier;
pub mod fake;
mod front;
mod frontend;
mod lasting;
mod netback;
mod pair;
mod published;
mod round_trips;
mod watches;
mod world;
