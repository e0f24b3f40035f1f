//! Which source of events suits a tree: what its file system tells, what this process may ask for, what is mounted in it.

use super::WatchKind;
use super::fanotify::FileSystem;
use super::inotify::Watches;
use super::scope::{Scope, Source};
use crate::disk::Root;
use crate::path::TreePath;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

/// A source, and what is to be said about why it is this one.
pub(super) struct Choice {
    pub(super) source: Box<dyn Source>,
    pub(super) notice: Option<String>,
}

/// The best source that works here, of the kind that is wished or one that asks for less.
pub(super) fn choose(root: &Root, scope: &Arc<Scope>, kind: WatchKind, most: Option<usize>) -> Choice {
    let is_shared = root.is_shared(&TreePath::root()).unwrap_or(false);
    let mut notice = None;
    if matches!(kind, WatchKind::Fanotify) || kind == WatchKind::Auto && !is_shared && mounts_beneath(root).is_empty() {
        match FileSystem::mark(root.again(), scope.clone()) {
            Ok(source) => return Choice { source: Box::new(source), notice },
            Err(error) if kind == WatchKind::Fanotify => {
                notice = Some(format!("fanotify cannot be used here ({error}): directories are watched one by one"));
            }
            Err(_) => {}
        }
    }
    if kind == WatchKind::Inotify || kind != WatchKind::Poll && !is_shared {
        match Watches::inotify(root.again(), scope.clone(), most) {
            Ok(source) => return Choice { source: Box::new(source), notice },
            Err(error) => {
                notice = Some(format!(
                    "inotify cannot be used ({error}): directories are looked at in turn; more queues are allowed with: \
                     sysctl fs.inotify.max_user_instances=1024"
                ));
            }
        }
    } else if is_shared && kind == WatchKind::Auto {
        notice = Some(format!(
            "{} is on a file system that other hosts may change: directories are looked at in turn",
            root.show(&TreePath::root())
        ));
    }
    Choice { source: Box::new(Watches::poll(root.again(), scope.clone())), notice }
}

/// What is mounted beneath the root, where that can be known.
pub(super) fn mounts_beneath(root: &Root) -> Vec<PathBuf> {
    let (Ok(top), Ok(table)) = (std::fs::canonicalize(root.path()), std::fs::read("/proc/self/mountinfo")) else {
        return Vec::new();
    };
    let points = table.split(|&byte| byte == b'\n').filter_map(|line| line.split(|&byte| byte == b' ').nth(4));
    let points = points.map(|point| PathBuf::from(OsString::from_vec(unescaped(point))));
    points.filter(|point| *point != top && point.starts_with(&top)).collect()
}

/// Becomes readable as an exception when something is mounted or unmounted (proc(5)).
pub(super) fn mount_changes() -> Option<File> {
    File::open("/proc/self/mountinfo").ok()
}

/// A name as the kernel writes it: blanks, backslashes and the like as three octal figures.
fn unescaped(point: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(point.len());
    let mut rest = point;
    while let Some((&first, after)) = rest.split_first() {
        let figures = after.get(..3).filter(|_| first == b'\\').and_then(|figures| std::str::from_utf8(figures).ok());
        match figures.and_then(|figures| u8::from_str_radix(figures, 8).ok()) {
            Some(byte) => {
                name.push(byte);
                rest = &after[3..];
            }
            None => {
                name.push(first);
                rest = after;
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_mount_points_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescaped(br"/a\040b\134c"), br"/a b\c");
        assert_eq!(unescaped(br"/a\"), br"/a\");
    }
}
