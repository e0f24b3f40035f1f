//! mailtwin keeps a second mail server ready.
//!
//! Thousands of organisations run their own Postfix and Dovecot with Maildir, on a master and a slave. This
//! crate follows the Maildir trees of the master as they change, ships every change to the slave, and keeps
//! there a mirror that a mail server can be started on, and restore points.
//!
//! # The flow
//!
//! ```text
//!  master                                              slave
//!  ------                                              -----
//!  catalogue::scan   what differs from the record
//!       |
//!  sync::plan        in which order it must be done
//!       |
//!  sync::guard       does it look like an accident?
//!       |
//!  sync::read        read, hash, pack (threads)
//!       |
//!  sync::sender ==== wire::message over transport ====> sync::receiver
//!       |                                                    |
//!       |                                               sync::staging   contents, checked, beside the mirror
//!       |                                                    |
//!       |                                               log::segment    durable
//!       |  <==================== acknowledged ===============|
//!       |                                                    |
//!  catalogue::edit   the same changes on both ends      catalogue::edit, sync::apply   record and mirror
//! ```
//!
//! [`sync::cycle`] drives the left side; the slave uses it too, to hold its mirror against its own catalogue
//! before each session. When both ends' root digests are equal they are in sync.
//!
//! Restore points are made of the log, on the slave alone:
//!
//! ```text
//!  log::history      closed segments, from the first backup on
//!       |
//!  repository::view  a full, the differential over it, the log up to a moment
//!       |
//!       |----> backup     repository::cut: a point, a manifest and hard links to segments
//!       |----> restore    a view, or part of one, put in place by the hand of replication: sync::apply; on another
//!       |                 host with restore::remote ==== wire::message over transport ====> sync::receiver
//!       |----> export     a view, or part of one, for other programs: tar, mbox
//!       |----> repository::event    what happened to messages while a view followed the log: gone, timeline
//!       |----> mount      views as directories, read when they are looked at
//!       '----> cli        ls, find, cat: what there was, without restoring it
//! ```
//!
//! The first full alone is read from the mirror, since no segment has its contents.
//!
//! # Layers
//!
//! A module imports only from a lower layer or its own folder; `tests/tidy.rs` proves it.
//!
//! | layer | modules |
//! |---|---|
//! | 8 | [`cli`]: one file per command, errors into sentences and exit codes, the terminal |
//! | 7 | [`node`]: the process that keeps running: which folders changed; what is due, and when |
//! | 6 | [`config`]: what was typed, and what stands in the configuration, into what it means; [`drill`]: a restore for practice |
//! | 5 | [`backup`]: a full, or a differential; [`restore`]: a set, or part of one, as it was; [`export`]: the same for other programs; [`mount`]: all points as a file system |
//! | 4 | [`sync`]: one cycle, in the order in which it happens; [`repository`]: restore points |
//! | 3 | [`catalogue`]: what a set looks like; [`log`]: what was received; [`peer`]: other hosts, their keys and what each may ask |
//! | 2 | [`disk`]: the only door to files; [`transport`]: ways to the other end |
//! | 1 | [`maildir`]: what a mailbox means; [`delta`]: rolling hashes; [`wire`]: the protocol; [`moment`]: times as people type them |
//! | 0 | [`id`], [`path`], [`monitor`] |
//!
//! # Invariants, and where they are kept
//!
//! * What is acknowledged is durable: `sync::receiver` syncs log and contents, then acknowledges, then applies.
//! * After recovery every folder is at a batch boundary: a batch holds the whole of a folder's change, and
//!   `sync::apply` does it under the folder's lock; what a crash interrupts is done again from the log.
//! * No message is lost because a scan missed it: `sync::cycle` removes only what was in no folder of the
//!   mailbox at one instant.
//! * Bytes are believed when their BLAKE3 matches: `sync::staging`.
//! * No name leads outside the set: [`path::TreePath`] by construction, [`disk::Root`] by `openat2`.
//! * Work is proportional to what changed: an unchanged folder costs a `statx` for each directory and control
//!   file, and reads no message's entry.
//! * Catalogues can be lost: they are rebuilt by comparing, and no content is sent for that.
//! * A restore point is there whole or not at all: `repository::layout` renames it to its label at the end.
//! * A restore gives what was, or names what is damaged: `repository::contents` hands out no content as whole whose digest is not
//!   right.
//! * Restoring into a mailbox in use touches nothing that is there, and twice is once: `restore::in_place`.
//!
//! # Deliberately absent
//!
//! No global state but the fault hook; no printing outside `cli`; no clock or path looked up where a value can
//! be handed down; no writing to the source, not even access times.

pub mod backup;
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod delta;
pub mod disk;
pub mod drill;
pub mod export;
pub mod id;
pub mod log;
pub mod maildir;
pub mod moment;
pub mod monitor;
pub mod mount;
pub mod node;
pub mod path;
pub mod peer;
pub mod repository;
pub mod restore;
pub mod sync;
pub mod transport;
pub mod wire;
