//! A first look at the tree while the slave still looks at its mirror: which units nobody touched.

use super::{Cursor, Result};
use crate::catalogue::directory;
use crate::catalogue::edit::Edit;
use crate::catalogue::scan::sketch::{Draft, Shelf, Sketch};
use crate::catalogue::scan::{Rules, Scanner};
use crate::catalogue::store::Catalogue;
use crate::disk::{Near, Root};
use crate::path::TreePath;
use std::collections::HashSet;

/// Which units were as they are recorded, at one time each.
#[derive(Debug, Default)]
pub struct Glance {
    untouched: HashSet<Vec<u8>>,
    /// Every unit was.
    pub all: bool,
}

impl Glance {
    /// Looks at each unit of a catalogue.
    ///
    /// # Errors
    /// Where the catalogue cannot be read.
    pub fn at(root: &Root, rules: &Rules, catalogue: &Catalogue, edit: &mut Edit<'_>) -> Result<Self> {
        if rules.restat || rules.checksum || edit.is_empty()? {
            return Ok(Self::default());
        }
        let scanner = Scanner::new(root, rules);
        let shelf = Shelf::of(catalogue, &scanner, edit);
        if let Some(glance) = shelf.as_ref().and_then(Shelf::read).and_then(|sketch| Self::of(&sketch, &scanner)) {
            return Ok(glance);
        }
        let mut draft = Draft::default();
        let glance = Self::by_rows(&scanner, edit, &mut draft)?;
        if let (Some(shelf), true) = (shelf, glance.all) {
            shelf.keep(&draft);
        }
        Ok(glance)
    }

    /// By what an earlier run looked for.
    fn of(sketch: &Sketch, scanner: &Scanner<'_>) -> Option<Self> {
        let mut glance = Self { all: true, ..Self::default() };
        let note = |path: &TreePath, is_met: bool| {
            glance.all &= is_met;
            if is_met {
                glance.untouched.insert(directory::key(path));
            }
        };
        sketch.look(scanner, note)?;
        Some(glance)
    }

    fn by_rows(scanner: &Scanner<'_>, edit: &mut Edit<'_>, draft: &mut Draft) -> Result<Self> {
        let mut glance = Self { all: true, ..Self::default() };
        let mut near = Near::new(scanner.root);
        let mut cursor = Cursor::default();
        let mut stack = vec![TreePath::root()];
        while let Some(path) = stack.pop() {
            let key = directory::key(&path);
            let rows = cursor.unit(&key, scanner.rules.kind, edit)?;
            match scanner.checks(&path, &rows).filter(|checks| scanner.all_meet(&mut near, &path, checks)) {
                Some(checks) => {
                    draft.unit(&path, &checks);
                    glance.untouched.insert(key);
                }
                None => glance.all = false,
            }
            stack.extend(scanner.recorded_below(&path, &rows).into_iter().rev());
        }
        Ok(glance)
    }

    /// Whether the unit with this key was as recorded.
    pub fn has(&self, key: &[u8]) -> bool {
        self.untouched.contains(key)
    }
}
