//! One cycle, in the order in which it happens.
//!
//! Layer 4. `cycle` walks the tree and holds it against the catalogue; `plan` (pure) orders what is to be
//! done; `guard` (pure) stops what looks like an accident; `read` reads, hashes and packs contents on other
//! threads; `sender` and `receiver` are the two ends of a session; `apply` is the one hand that changes a mirror.

pub mod apply;
pub mod cycle;
pub mod guard;
pub mod plan;
pub mod read;
pub mod receiver;
pub mod sender;
pub mod staging;
pub mod target;

use crate::catalogue::CatalogueError;
use crate::catalogue::damage::AsCatalogueError;
use crate::catalogue::filter::PatternError;
use crate::disk::DiskError;
use crate::log::segment::SegmentError;
use crate::transport::LinkError;
use crate::wire::message::{MessageError, Refusal};

/// Why a cycle ended early.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// A file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The catalogue.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// What the other end sent.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// The way to the other end.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A filter pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// The log.
    #[error(transparent)]
    Log(#[from] SegmentError),
    /// The other end does not go on; its own words.
    #[error("{}", .0.sentence)]
    Refused(Refusal),
    /// The guard stops the plan.
    #[error("{0}")]
    Guard(String),
    /// Another run holds the lock.
    #[error("{0}")]
    Locked(String),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Failed(String),
    /// The other end said something at the wrong time.
    #[error("the other end broke the protocol: {0}")]
    Protocol(&'static str),
}

impl SyncError {
    /// The exit code that belongs to it; mailtwin-sync(1) lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::Guard(_) => 26,
            Self::Locked(_) => 10,
            Self::Pattern(_) => 2,
            _ => 1,
        }
    }
}

impl AsCatalogueError for SyncError {
    fn as_catalogue_error(&self) -> Option<&CatalogueError> {
        match self {
            Self::Catalogue(error) => Some(error),
            _ => None,
        }
    }
}

/// Tells one running kernel from another; both ends use it to see whether they share their disks.
pub(crate) fn boot_id() -> crate::id::Digest {
    let id = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    crate::id::Digest::of(&id)
}
