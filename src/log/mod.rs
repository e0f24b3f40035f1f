//! The log of a set: what was received, before anything of it is done.
//!
//! Layer 3. A segment is an append-only file of frames, the same frames that travelled: blocks, changes and
//! commits behind a header. mailtwin-segment(7) describes it byte by byte. A standby without restore points
//! keeps a segment no longer than recovery needs it.

pub mod history;
pub mod segment;
