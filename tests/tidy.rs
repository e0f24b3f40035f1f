//! The house rules, held against the sources: layers, headers, bans, lengths, references.
//!
//! What the compiler and clippy can hold is in `Cargo.toml`; here is what they cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules of the crate's root from the ground up. A module imports from rows above its own, and from its own folder.
///
/// `wire` stands above `maildir`: a message is made of changes and entries, and whoever lists what a mailbox means first
/// need not know that it travels.
const LAYERS: [&[&str]; 10] = [
    &["id", "path", "monitor"],
    &["maildir", "delta"],
    &["wire", "moment"],
    &["disk", "transport"],
    &["catalogue", "log"],
    &["sync", "repository"],
    &["backup", "restore", "export"],
    &["config", "drill"],
    &["node"],
    &["cli"],
];

/// More lines than this are two things in one file.
const LONGEST: usize = 1000;

/// What must not be in the library: the word, and what to do in its place.
const BANNED: [(&str, &str); 10] = [
    ("println!", "the library tells a Monitor; the command line has cli::error::print"),
    ("eprintln!", "the library tells a Monitor; the command line has cli::error::say"),
    ("print!", "as println!"),
    ("eprint!", "as eprintln!"),
    ("dbg!", "take it out"),
    ("todo!", "do it"),
    ("unimplemented!", "do it"),
    (".unwrap()", "give the error on, with what it is about"),
    (".expect(", "give the error on, with what it is about"),
    ("panic!", "give the error on: a panic in a thread hangs a run"),
];

/// What changes a disk, outside `disk.rs`: no test could make it fail.
const DOORS: [&str; 14] = [
    "rustix::fs",
    "File::create",
    "OpenOptions",
    "fs::write",
    "fs::copy",
    "fs::rename",
    "fs::hard_link",
    "fs::remove_",
    "fs::create_dir",
    "fs::set_permissions",
    "fs::soft_link",
    "unix::fs::symlink",
    "unix::fs::chown",
    "set_times(",
];

/// A Rust file: its path from the project's root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The module of the crate's root that it belongs to; `lib` and `main` are none.
    fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?;
        let module = below.split('/').next()?.trim_end_matches(".rs");
        (module != "lib" && module != "main").then_some(module)
    }

    /// Numbered lines without comments and without what only tests compile.
    fn code(&self) -> Vec<(usize, String)> {
        if self.path.ends_with("/tests.rs") {
            return Vec::new();
        }
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = lines.windows(2).position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod tests"));
        let lines = lines[..tests.unwrap_or(lines.len())].iter();
        (1..).zip(lines.map(|line| without_comment(line))).collect()
    }
}

/// The line up to `//`, unless that stands in a string.
fn without_comment(line: &str) -> String {
    let is_code = |at: &usize| line[..*at].matches('"').count().is_multiple_of(2);
    let end = line.match_indices("//").map(|(at, _)| at).find(is_code);
    line[..end.unwrap_or(line.len())].to_owned()
}

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &str) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(project().join(directory)).sort_by_file_name().into_iter();
    entries
        .map(|entry| entry.expect("the sources are readable"))
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| entry.into_path())
        .collect()
}

fn sources(directory: &str) -> Vec<Source> {
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        path: path.strip_prefix(project()).expect("below the root").display().to_string(),
    };
    files_below(directory).into_iter().filter(is_rust).map(read).collect()
}

fn all_sources() -> Vec<Source> {
    ["src", "tests", "benches", "fuzz/targets"].into_iter().flat_map(sources).collect()
}

#[track_caller]
fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

fn layers() -> BTreeMap<&'static str, usize> {
    let rows = LAYERS.iter().enumerate();
    rows.flat_map(|(layer, modules)| modules.iter().map(move |module| (*module, layer))).collect()
}

#[test]
fn every_module_has_a_layer() {
    let text = fs::read_to_string(project().join("src/lib.rs")).expect("lib.rs");
    let declared = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    assert_eq!(declared.collect::<BTreeSet<_>>(), layers().into_keys().collect());
    let there = sources("src");
    assert_eq!(there.iter().filter_map(Source::module).collect::<BTreeSet<_>>(), layers().into_keys().collect());
}

#[test]
fn imports_point_down() {
    let layers = layers();
    let mut found = Vec::new();
    for source in sources("src") {
        let Some(module) = source.module() else { continue };
        for (number, line) in source.code() {
            for other in imported(&line).into_iter().filter(|other| other != module) {
                let allowed = layers.get(other.as_str()).is_some_and(|layer| *layer < layers[module]);
                if !allowed {
                    found.push(format!("{}:{number}: {module} imports {other}", source.path));
                }
            }
        }
    }
    assert_none("a module imports from a lower layer or its own folder", &found);
}

/// The modules of the root that a line names: `crate::x`, each of `crate::{x, y}`.
fn imported(line: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
    let mut modules = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => modules.extend(list.split(',').map(|item| word(item.trim_start()))),
            None => modules.push(word(rest)),
        }
    }
    modules
}

/// `super` of a file at the root, and `super::super` of one below it, is the root: an import past the table above.
#[test]
fn nothing_climbs_to_the_root_by_super() {
    let mut found = Vec::new();
    for source in sources("src").into_iter().filter(|source| source.module().is_some()) {
        let depth = source.path.matches('/').count() - usize::from(source.path.ends_with("/mod.rs"));
        let climb = "super::".repeat(depth);
        let climbs =
            |line: &str| line.starts_with(&format!("use {climb}")) || line.starts_with(&format!("pub use {climb}"));
        let lines = source.code().into_iter().filter(|(_, line)| climbs(line));
        found.extend(lines.map(|(number, line)| format!("{}:{number}: {line}", source.path)));
    }
    assert_none("name the module by crate::", &found);
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let silent = |source: &Source| !source.text.starts_with("//! ");
    let found: Vec<String> = all_sources().into_iter().filter(silent).map(|source| source.path).collect();
    assert_none("a file begins with //! and a sentence", &found);
}

#[test]
fn no_file_is_longer_than_a_thousand_lines() {
    let count = |source: Source| (source.text.lines().count(), source.path);
    let long = all_sources().into_iter().map(count).filter(|(lines, _)| *lines > LONGEST);
    let found: Vec<String> = long.map(|(lines, path)| format!("{path}: {lines} lines")).collect();
    assert_none("too long: split it where it is two things", &found);
}

#[test]
fn the_library_holds_no_banned_word() {
    let mut found = Vec::new();
    for source in sources("src") {
        for (number, line) in source.code() {
            let banned = BANNED.iter().filter(|(word, _)| has_word(&line, word));
            found.extend(banned.map(|(word, reason)| format!("{}:{number}: {word} ({reason})", source.path)));
        }
    }
    assert_none("banned", &found);
}

/// Whether the line has this text, and not at the end of a longer word.
fn has_word(line: &str, word: &str) -> bool {
    let begins = |at: usize| !line[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_');
    line.match_indices(word).any(|(at, _)| word.starts_with('.') || begins(at))
}

#[test]
fn only_disk_changes_files() {
    let mut found = Vec::new();
    for source in sources("src").into_iter().filter(|source| source.module() != Some("disk")) {
        for (number, line) in source.code() {
            let doors = DOORS.iter().filter(|door| has_word(&line, door));
            found.extend(doors.map(|door| format!("{}:{number}: {door}", source.path)));
        }
    }
    assert_none("disk.rs is the only door to files", &found);
}

#[test]
fn unsafe_code_is_forbidden() {
    let manifest = fs::read_to_string(project().join("Cargo.toml")).expect("Cargo.toml");
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    let mut found = Vec::new();
    for source in sources("src") {
        let lines =
            source.code().into_iter().filter(|(_, line)| has_word(line, "unsafe ") || line.contains("allow(unsafe"));
        found.extend(lines.map(|(number, _)| format!("{}:{number}", source.path)));
    }
    assert_none("unsafe", &found);
}

/// `mailtwin-wire(7)` and the like, wherever they are named, are pages that there are.
#[test]
fn every_man_page_that_is_named_is_there() {
    let mut texts: Vec<(String, String)> = all_sources().into_iter().map(|source| (source.path, source.text)).collect();
    for name in ["README.md", "CHANGELOG.md"] {
        texts.push((name.to_owned(), fs::read_to_string(project().join(name)).expect(name)));
    }
    let mut found = Vec::new();
    for (path, text) in texts {
        for page in pages_named(&text) {
            if !project().join("man").join(&page).is_file() {
                found.push(format!("{path}: {page}"));
            }
        }
    }
    assert_none("no such page in man/", &found);
}

/// The files that references such as `mailtwin-wire(7)` mean.
fn pages_named(text: &str) -> BTreeSet<String> {
    let page = |(at, _): (usize, &str)| {
        let rest = &text[at..];
        let end = rest.find(|letter: char| !letter.is_ascii_lowercase() && letter != '-')?;
        let section = rest[end..].strip_prefix('(')?.chars().next().filter(char::is_ascii_digit)?;
        Some(format!("{}.{section}", &rest[..end]))
    };
    text.match_indices("mailtwin").filter_map(page).collect()
}

#[test]
fn the_list_of_needs_is_sorted_and_names_nothing_twice() {
    let text = fs::read_to_string(project().join("tests/needs.txt")).expect("needs.txt");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.is_sorted_by(|one, next| one < next), "{lines:?}");
    assert!(lines.iter().all(|line| !line.is_empty() && !line.contains(char::is_whitespace)), "{lines:?}");
}

/// The rules themselves must be able to see: a check that finds nothing in anything proves nothing.
#[test]
fn the_checks_see_what_they_look_for() {
    assert_eq!(imported("use crate::{id::Digest, sync}; crate::disk::step()"), ["id", "sync", "disk"]);
    assert!(has_word("    println!(\"x\")", "println!") && !has_word("eprintln!(\"x\")", "println!"));
    assert!(has_word("std::fs::write(x)", "fs::write") && has_word("x.unwrap()", ".unwrap()"));
    assert_eq!(without_comment("let x = 1; // crate::cli"), "let x = 1; ");
    assert_eq!(without_comment("let x = \"http://y\";"), "let x = \"http://y\";");
    assert_eq!(
        pages_named("see mailtwin-wire(7), mailtwin(1)"),
        ["mailtwin-wire.7", "mailtwin.1"].map(String::from).into()
    );
}
