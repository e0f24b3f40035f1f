//! Which mailboxes a view has.

use super::layout::RepositoryError;
use super::record::Record;
use super::view::View;
use crate::path::TreePath;

/// The mailboxes of a set: each is the topmost directory that has a `cur`, or the one that holds Maildir++ folders, where
/// it has none itself. A set without any is taken as one. With them what could not be read.
pub fn all(view: &View) -> (Vec<TreePath>, Vec<RepositoryError>) {
    let (mut all, mut unread): (Vec<TreePath>, _) = (Vec::new(), Vec::new());
    for record in view.beneath(&TreePath::root()) {
        match record {
            Ok(Record { path, .. }) if path.name() == b"cur" => {
                let folder = path.parent();
                let mailbox = if folder.name().starts_with(b".") { folder.parent() } else { folder };
                // What is beneath a directory follows it: folders of layout fs belong to the one above.
                if !all.last().is_some_and(|last| mailbox.is_within(last)) {
                    all.push(mailbox);
                }
            }
            Ok(_) => {}
            Err(error) => unread.push(error),
        }
    }
    if all.is_empty() {
        all.push(TreePath::root());
    }
    (all, unread)
}
