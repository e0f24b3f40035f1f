//! The process that keeps running: what it watches, and when it acts.
//!
//! Layer 7.

pub mod watch;
