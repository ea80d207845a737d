//! The main job as its users run it: the built program, its options, its output.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod domains;
mod endings;
mod files;
mod formats;
mod options;
mod replay;
mod run;
mod streams;
mod threads;
