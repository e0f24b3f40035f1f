//! What a mailbox means, without I/O: names and flags, folders, control files, entries and changes.
//!
//! Layer 1.

pub mod change;
pub mod control;
pub mod entry;
pub mod folder;
pub mod name;
