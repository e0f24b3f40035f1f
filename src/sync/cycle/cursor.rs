//! Goes through the catalogue's rows in the order of the walk.

use super::{ROWS_AHEAD, Result};
use crate::catalogue::directory::{self, Row};
use crate::catalogue::edit::Edit;
use crate::path::TreePath;
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
    /// The row of a directory that comes after all that were asked for before.
    pub(super) fn take(&mut self, path: &TreePath, edit: &mut Edit<'_>) -> Result<Option<Row>> {
        let key = directory::key(path);
        if self.stale {
            *self = Self::default();
        }
        loop {
            while self.ahead.front().is_some_and(|(front, _)| *front < key) {
                self.ahead.pop_front();
            }
            match self.ahead.front() {
                Some((front, _)) if *front == key => return Ok(self.ahead.pop_front().map(|(_, row)| row)),
                Some(_) => return Ok(None),
                None if self.exhausted => return Ok(None),
                None => self.fill(&key, edit)?,
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
