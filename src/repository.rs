//! Restore points: how they are named, and which of them stay.
//!
//! Layer 4.

pub mod label;
pub mod retention;
