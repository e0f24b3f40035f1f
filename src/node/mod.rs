//! The process that keeps running.
//!
//! Layer 7. `schedule` is pure: what is due is a value, and whoever keeps running does it.

pub mod schedule;
