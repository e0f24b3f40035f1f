//! Contents that are known to be right before a byte of them is handed on.

use super::{ExportError, Result};
use crate::id::Digest;
use crate::repository::contents::ContentError;
use crate::repository::record::{Place, Record, What};
use crate::repository::view::View;
use std::io::Write;

/// Contents up to this length are held in memory, so that they are read once; longer ones are read twice.
const HELD: u64 = 4 << 20;

/// What there is in the place of another content.
const OTHER: &str = "the repository has another content in its place";

/// A content that was found right.
pub(super) enum Content {
    /// It is here.
    Held(Vec<u8>),
    /// It was read, and can be read again.
    Lying(Place),
}

impl Content {
    /// Finds the content of a file, and reads it.
    ///
    /// # Errors
    /// A sentence where it is damaged.
    pub fn of(view: &View, record: &Record) -> std::result::Result<Self, String> {
        match &record.state {
            Some((_, What::File { place: Some(place), size, check, .. }))
                if *size > HELD && !view.is_patched(&record.path) =>
            {
                read(view, *place, *size, *check, |_| {}).map(|()| Self::Lying(*place))
            }
            _ => whole(view, record).map(Self::Held),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// Where the output does not take it, or where a disk fails that gave it a moment ago.
    pub fn write(&self, view: &View, output: &mut dyn Write) -> Result<()> {
        match self {
            Self::Held(bytes) => Ok(output.write_all(bytes)?),
            Self::Lying(place) => {
                let copied = view.contents.read(*place, |_, bytes| output.write_all(bytes).map_err(ExportError::from));
                copied.map(drop)
            }
        }
    }
}

/// A content in memory.
///
/// # Errors
/// A sentence where it is damaged.
pub(super) fn whole(view: &View, record: &Record) -> std::result::Result<Vec<u8>, String> {
    let Some((_, What::File { size, check, place, .. })) = &record.state else {
        return Err(ContentError::Nowhere.to_string());
    };
    if view.is_patched(&record.path) {
        let (bytes, digest) = view.patch(record).map_err(|error| error.to_string())?;
        let is_meant = bytes.len() as u64 == *size && digest.0[..8] == *check;
        return if is_meant { Ok(bytes) } else { Err(OTHER.to_owned()) };
    }
    let place = place.ok_or_else(|| ContentError::Nowhere.to_string())?;
    let mut bytes = Vec::new();
    read(view, place, *size, *check, |piece| bytes.extend_from_slice(piece))?;
    Ok(bytes)
}

/// Reads a content to its end; what was handed over is of no worth where it fails.
fn read(
    view: &View,
    place: Place,
    size: u64,
    check: [u8; 8],
    mut each: impl FnMut(&[u8]),
) -> std::result::Result<(), String> {
    let mut length = 0;
    let read: std::result::Result<Digest, Fault> = view.contents.read(place, |_, bytes| {
        length += bytes.len() as u64;
        if length > size {
            return Err(Fault(OTHER.to_owned()));
        }
        each(bytes);
        Ok(())
    });
    match read {
        Ok(digest) if length == size && digest.0[..8] == check => Ok(()),
        Ok(_) => Err(OTHER.to_owned()),
        Err(Fault(sentence)) => Err(sentence),
    }
}

/// Why a content is not right.
struct Fault(String);

impl From<ContentError> for Fault {
    fn from(error: ContentError) -> Self {
        Self(error.to_string())
    }
}
