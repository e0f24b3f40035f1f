//! A first look at the tree while the slave still looks at its mirror: which units nobody touched.

use super::{Cursor, Result};
use crate::catalogue::directory;
use crate::catalogue::edit::Edit;
use crate::catalogue::scan::{Rules, Scanner};
use crate::disk::Root;
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
    /// Goes through the catalogue and looks at each unit in it.
    ///
    /// # Errors
    /// Where the catalogue cannot be read.
    pub fn at(root: &Root, rules: &Rules, edit: &mut Edit<'_>) -> Result<Self> {
        if rules.restat || rules.checksum || edit.is_empty()? {
            return Ok(Self::default());
        }
        let scanner = Scanner::new(root, rules);
        let mut glance = Self { all: true, ..Self::default() };
        let mut cursor = Cursor::default();
        let mut stack = vec![TreePath::root()];
        while let Some(path) = stack.pop() {
            let key = directory::key(&path);
            let rows = cursor.unit(&key, rules.kind, edit)?;
            match scanner.as_recorded(&path, &rows, false) {
                Some(below) => {
                    glance.untouched.insert(key);
                    stack.extend(below.into_iter().rev());
                }
                None => {
                    glance.all = false;
                    stack.extend(scanner.recorded_below(&path, &rows).into_iter().rev());
                }
            }
        }
        Ok(glance)
    }

    /// Whether the unit with this key was as recorded.
    pub fn has(&self, key: &[u8]) -> bool {
        self.untouched.contains(key)
    }
}
