//! Restore points: how they are named.
//!
//! Layer 4.

pub mod label;
