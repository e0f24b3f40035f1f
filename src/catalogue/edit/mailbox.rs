//! Which directories belong to one user.

use super::{Edit, Result};
use crate::maildir::entry::Kind;
use crate::maildir::folder;
use crate::path::TreePath;

impl Edit<'_> {
    /// The directory within which a user's messages move: the topmost folder above `path`, or, where that has
    /// no folders of its own (layout fs without an INBOX around), the directory that holds it.
    ///
    /// # Errors
    /// Where a record cannot be read.
    pub fn mailbox_of(&self, path: &TreePath) -> Result<TreePath> {
        let mut above = vec![path.clone()];
        while let Some((parent, _)) = above.last().and_then(TreePath::split) {
            above.push(parent);
        }
        for at in above.into_iter().rev() {
            let Some(row) = self.row(&at)? else { continue };
            let directories = || {
                row.entries
                    .iter()
                    .filter(|known| known.entry.kind == Kind::Directory)
                    .map(|known| known.entry.name.as_bytes())
            };
            if directories().any(|name| name == b"cur") {
                let has_folders = directories().any(|name| !folder::is_part(name));
                return Ok(if has_folders { at } else { at.parent() });
            }
        }
        Ok(path.clone())
    }
}
