//! Which names belong to a set: gitignore-like globs, the last that matches decides.

use crate::maildir::folder::{self, LEFT_OUT, SetKind};
use crate::path::TreePath;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A pattern that is no glob.
#[derive(Debug, thiserror::Error)]
#[error("the pattern \"{pattern}\" is not a glob: {reason}")]
pub struct PatternError {
    /// As it was written.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The patterns of a set.
#[derive(Debug)]
pub struct Filter {
    own: Gitignore,
    left_out: Gitignore,
    kind: SetKind,
}

impl Filter {
    /// Compiles patterns, in gitignore's form: `!` in front takes something in again.
    ///
    /// # Errors
    /// [`PatternError`] names the pattern.
    pub fn new(kind: SetKind, lines: &[String]) -> Result<Self, PatternError> {
        let defaults: &[&str] = if kind == SetKind::Maildir { &LEFT_OUT } else { &[] };
        Ok(Self { own: compile(lines.iter().map(String::as_str))?, left_out: compile(defaults.iter().copied())?, kind })
    }

    /// Whether the path belongs to the set; its directory does.
    pub fn takes(&self, tree_path: &TreePath, is_directory: bool) -> bool {
        let path = Path::new(OsStr::from_bytes(tree_path.as_bytes()));
        let own = self.own.matched(path, is_directory);
        if own.is_none() {
            // The defaults are about the files beside messages: no message is lost for its name.
            if !is_directory && folder::is_message(self.kind, tree_path) {
                return true;
            }
            return !self.left_out.matched(path, is_directory).is_ignore();
        }
        own.is_whitelist()
    }

    /// Whether a pattern asks for what is in a folder's `tmp/`, which is left out otherwise.
    pub fn takes_from_tmp(&self, directory: &TreePath) -> bool {
        let inside = directory.child("1.M1P1.host");
        let path = Path::new(OsStr::from_bytes(inside.as_bytes()));
        self.own.matched(path, false).is_whitelist()
    }

    /// Whether message names need not be held against the patterns: there are none but the defaults, and
    /// those are about other files.
    pub fn takes_every_message(&self) -> bool {
        self.own.is_empty()
    }
}

fn compile<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Gitignore, PatternError> {
    let failed =
        |line: &str, error: ignore::Error| PatternError { pattern: line.to_owned(), reason: error.to_string() };
    let mut builder = GitignoreBuilder::new("");
    for line in lines {
        // gitignore takes an unclosed class for a name that never matches; here somebody mistyped.
        globset::Glob::new(line.trim_start_matches('!'))
            .map_err(|error| PatternError { pattern: line.to_owned(), reason: error.kind().to_string() })?;
        builder.add_line(None, line).map_err(|error| failed(line, error))?;
    }
    builder.build().map_err(|error| failed("", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(kind: SetKind, lines: &[&str], path: &str) -> bool {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let path = TreePath::new(path.as_bytes()).expect("a good path");
        Filter::new(kind, &lines).expect("compiles").takes(&path, false)
    }

    #[test]
    fn what_dovecot_rebuilds_is_left_out_and_can_be_taken_in() {
        let mail = SetKind::Maildir;
        for name in ["u/dovecot.index.log", "u/dovecot-uidlist.lock", "u/dovecot.list.index"] {
            assert!(!takes(mail, &[], name), "{name}");
            assert!(takes(SetKind::Files, &[], name), "{name}");
        }
        for name in ["u/dovecot-uidlist", "u/cur/1.x:2,", "u/dovecot-uidvalidity.1"] {
            assert!(takes(mail, &[], name), "{name}");
        }
        assert!(takes(mail, &["!dovecot.index*"], "u/dovecot.index.log"));
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let lines = ["*.log", "!keep.log"];
        assert!(takes(SetKind::Files, &lines, "a/keep.log"));
        assert!(!takes(SetKind::Files, &lines, "a/other.log"));
        assert!(!takes(SetKind::Files, &["/top"], "top"));
        assert!(takes(SetKind::Files, &["/top"], "a/top"));
    }
}
