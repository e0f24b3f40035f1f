//! The process that keeps running: what it watches, what it has to do and when, and what it tells of itself.
//!
//! Layer 7. `schedule` is pure: what is due is a value, and whoever keeps running does it.

pub mod control;
pub mod follow;
pub mod jobs;
pub mod journal;
pub mod run;
pub mod schedule;
pub mod serve;
pub mod sessions;
pub mod status;
pub mod watch;
pub mod way;
