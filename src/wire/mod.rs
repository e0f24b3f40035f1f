//! The protocol, without I/O: frames and the messages in them.
//!
//! Layer 1. One frame format serves the wire, the log and the repository; mailtwin-wire(7) and
//! mailtwin-segment(7) describe it byte by byte.

pub mod attachment;
pub mod block;
pub mod frame;
pub mod message;
pub mod pairing;
pub mod share;
