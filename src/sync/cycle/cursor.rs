//! Goes through the catalogue's rows in the order of the walk.

use super::{ROWS_AHEAD, Result};
use crate::catalogue::directory::{self, Row};
use crate::catalogue::edit::Edit;
use crate::catalogue::scan::UnitRows;
use crate::maildir::folder::SetKind;
use std::collections::VecDeque;

/// Goes through the catalogue's rows in order, some read ahead.
#[derive(Default)]
pub(super) struct Cursor {
    ahead: VecDeque<(Vec<u8>, Row)>,
    /// The catalogue has no more rows behind those read ahead.
    exhausted: bool,
    /// Rows were renamed or removed: what was read ahead may be wrong.
    pub(super) stale: bool,
}

impl Cursor {
    /// The rows of the unit with this key, that comes after all that were asked for before.
    pub(super) fn unit(&mut self, key: &[u8], kind: SetKind, edit: &mut Edit<'_>) -> Result<UnitRows> {
        let directory = self.take(key, edit)?;
        let mut parts = [None, None, None];
        if directory.is_some() && kind == SetKind::Maildir {
            let mut key = key.to_vec();
            let length = key.len();
            // In the catalogue's order the parts stand right behind their folder: cur, new, tmp.
            for (slot, part) in [(1, "cur"), (0, "new"), (2, "tmp")] {
                key.truncate(length);
                directory::push_key(&mut key, part.as_bytes());
                parts[slot] = self.take(&key, edit)?;
            }
        }
        Ok(UnitRows { directory, parts })
    }

    /// The row with this key, of a directory that comes after all that were asked for before.
    fn take(&mut self, key: &[u8], edit: &mut Edit<'_>) -> Result<Option<Row>> {
        if self.stale {
            *self = Self::default();
        }
        loop {
            while self.ahead.front().is_some_and(|(front, _)| front.as_slice() < key) {
                self.ahead.pop_front();
            }
            match self.ahead.front() {
                Some((front, _)) if front == key => return Ok(self.ahead.pop_front().map(|(_, row)| row)),
                Some(_) => return Ok(None),
                None if self.exhausted => return Ok(None),
                None => self.fill(key, edit)?,
            }
        }
    }

    fn fill(&mut self, from: &[u8], edit: &mut Edit<'_>) -> Result<()> {
        edit.flush()?;
        let rows = edit.rows_from(from, ROWS_AHEAD)?;
        self.exhausted = rows.len() < ROWS_AHEAD;
        self.ahead = rows.into();
        Ok(())
    }
}
