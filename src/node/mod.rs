//! The process that keeps running: what it watches, what it has to do and when, and what it tells of itself.
//!
//! Layer 7. `schedule` is pure: what is due is a value, and whoever keeps running does it. `health` is pure,
//! too: it judges what `status` and `kept` tell.

pub mod control;
pub mod follow;
pub mod health;
pub mod jobs;
pub mod journal;
pub mod kept;
pub mod run;
pub mod schedule;
pub mod serve;
pub mod sessions;
pub mod status;
pub mod watch;
pub mod way;
