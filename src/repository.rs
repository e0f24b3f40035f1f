//! The repository: restore points, and what each of them knows.
//!
//! A point is a manifest and links to the segments that it needs. The manifest has a record for each path, in an order
//! in which a mailbox is one stretch of it; a record says where its content begins, and of a message what a person
//! would know it by. mailtwin-repository(7) describes the files byte by byte.
//!
//! Layer 4: made of the log and the catalogue, and never of `sync`.

pub mod contents;
pub mod cut;
pub mod difference;
pub mod envelope;
pub mod event;
pub mod expire;
pub mod gone;
pub mod kept;
pub mod label;
pub mod layout;
pub mod mailbox;
pub mod manifest;
pub mod mend;
pub mod own;
mod press;
pub mod record;
pub mod reserve;
pub mod retention;
pub mod timeline;
pub mod verify;
pub mod view;
