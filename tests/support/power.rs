//! What the tests of durability share:
//! * `record`: a session as it was on the wire, and what the mirror must hold after each of its batches;
//! * `disk`: file systems whose power can be cut;
//! * `trace`: system calls as strace saw them;
//! * `durable`: which of them a power cut may still undo;
//! * `order`: the rules that an order of calls must keep.

#![allow(dead_code, reason = "a part may have more verbs than one test needs")]

#[path = "power/disk.rs"]
mod disk;
#[path = "power/durable.rs"]
mod durable;
#[path = "power/order.rs"]
mod order;
#[path = "power/record.rs"]
mod record;
#[path = "power/trace.rs"]
mod trace;

pub use disk::*;
pub use durable::*;
pub use order::*;
pub use record::*;
pub use trace::*;
