//! A walk through some units only: those that a watcher says were touched.

use super::{Cursor, Cycle, Elsewhere, Result, Unit};
use crate::catalogue::directory;
use crate::path::TreePath;
use std::collections::BTreeMap;

/// How often what was touched meanwhile is looked at before removals; then everything is.
const MAX_ROUNDS: u32 = 8;

impl Cycle<'_, '_> {
    /// Looks at these units, and hands over what differs. Before anything is removed `elsewhere` is asked: where a message
    /// went was touched before it was missed (I3).
    ///
    /// # Errors
    /// As [`Cycle::run`].
    pub fn run_some(&mut self, units: &[Unit], elsewhere: &mut Elsewhere<'_>) -> Result<()> {
        self.walk_some(units)?;
        for round in 0.. {
            let held = self.held.len();
            if held == 0 {
                break;
            }
            match elsewhere().filter(|_| round < MAX_ROUNDS) {
                Some(more) => self.walk_some(&more)?,
                None => {
                    self.walk(TreePath::root())?;
                    break;
                }
            }
            // What was missed in this round may have gone elsewhere after the question.
            if self.held.len() <= held {
                break;
            }
        }
        self.settle()?;
        self.drain()
    }

    fn walk_some(&mut self, units: &[Unit]) -> Result<()> {
        self.cursor = Cursor::default();
        for (path, below) in self.known_above(units)?.into_values() {
            match below {
                true => {
                    self.walk(path)?;
                    self.cursor = Cursor::default();
                }
                false => {
                    // One unit after the other: no walk that could pass a directory of another name.
                    self.walked_from.clone_from(&path);
                    let found = self.visit(&path)?;
                    self.walk_new(found)?;
                }
            }
        }
        self.drain()
    }

    /// Directories that are not recorded yet are walked whole, though nobody named them.
    fn walk_new(&mut self, below: Vec<TreePath>) -> Result<()> {
        for path in below {
            if self.edit.row(&path)?.is_none() {
                self.walk(path)?;
                // The catalogue is read forwards, and what comes next may stand before what was walked.
                self.cursor = Cursor::default();
            }
        }
        Ok(())
    }

    /// The units, or what is recorded above them, each once, in the order of the catalogue.
    fn known_above(&self, units: &[Unit]) -> Result<BTreeMap<Vec<u8>, (TreePath, bool)>> {
        let mut known: BTreeMap<Vec<u8>, (TreePath, bool)> = BTreeMap::new();
        for unit in units {
            let (mut path, mut below) = (unit.path.clone(), unit.below);
            while !path.is_root() && self.edit.row(&path)?.is_none() {
                path = path.parent();
                below = false;
            }
            known.entry(directory::key(&path)).or_insert((path, false)).1 |= below;
        }
        Ok(known)
    }
}
