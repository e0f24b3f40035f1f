//! The man pages are what the command line is: pages of section 1 are made from it, and kept equal here.
//!
//! With `MAILTWIN_BLESS=1` they are written anew; what clap does not know is in `man/*.inc`.

use mailtwin::maildir::folder::LEFT_OUT;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Of the last change of the pages, by hand: a page that shows the day of its making never stays equal.
const DATE: &str = "2026-11-22";

/// What roff needs before a straight quote is typeset as one.
const QUOTES: &str = ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n";

/// Every exit code and what it means; the README has the same words.
const EXIT_CODES: [(u8, &str); 7] = [
    (0, "Done: everything that was seen is on the standby, durably."),
    (1, "Failed; the message says why. Nothing that was acknowledged is lost, and the next run goes on from there."),
    (2, "Wrong usage; nothing was done."),
    (10, "Another run holds the lock of this pair, or of this mirror."),
    (20, "Refused: the standby follows a newer epoch, and this master is stale."),
    (23, "Done, but some files could not be read or written; each is named."),
    (26, "Stopped by the guard: additions and changes are mirrored, removals are not."),
];

/// Every field of the JSON object, in the order of the page.
const JSON_FIELDS: [(&str, &str); 23] = [
    ("messages_added", "Messages that the standby did not have."),
    (
        "messages_renamed",
        "Messages with other flags, from new/ to cur/, or in another folder; no content is sent for them.",
    ),
    ("messages_linked", "Messages that are hard links of others, as an IMAP COPY makes them; no content is sent."),
    ("messages_removed", "Messages removed."),
    ("files_added", "Other files that the standby did not have."),
    ("files_patched", "Other files of which only the differences were sent."),
    ("files_replaced", "Other files sent whole in the place of an older version."),
    ("files_removed", "Other files removed."),
    ("symlinks_changed", "Symbolic links made or changed."),
    ("metadata_changed", "Files and directories of which only permissions, owners, times or attributes changed."),
    ("directories_added", "Directories made."),
    ("directories_renamed", "Directories renamed with all that is in them."),
    ("directories_removed", "Directories removed."),
    ("directories_read", "Directories of the source that were listed, each time that they were."),
    ("special_files_left_out", "Sockets, FIFOs and devices left out."),
    (
        "removals_waiting",
        "Names whose removal waits for the next run, because messages were on the move in their mailbox all the time.",
    ),
    ("bytes_content", "Bytes of contents and of deltas that were sent, before compression."),
    ("bytes_sent", "Bytes that went to the slave, all told."),
    ("bytes_received", "Bytes that came from it."),
    ("position", "The last batch that the slave has: epoch and sequence number, as text (\"1-42\")."),
    (
        "in_sync",
        "Whether the catalogues of both ends have the same root digest. A removal that waits for the next run is in neither. Always false in a dry run.",
    ),
    ("problems", "What could not be done: a list of objects with a subject (mostly a path) and a reason."),
    ("elapsed_seconds", "How long it took, with its fraction."),
];

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The pages of section 1 by name, as the command line is now.
fn pages() -> BTreeMap<String, String> {
    let mut whole = mailtwin::cli::command();
    whole.build();
    let mut pages = BTreeMap::from([("mailtwin".to_owned(), page("mailtwin", &whole))]);
    for command in whole.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("mailtwin-{}", command.get_name());
        pages.insert(name.clone(), page(&name, command));
    }
    pages
}

fn page(name: &str, command: &clap::Command) -> String {
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    let command = command.clone().display_name(name.to_owned()).override_usage(usage);
    let source = format!("mailtwin {}", env!("CARGO_PKG_VERSION"));
    let man = clap_mangen::Man::new(command)
        .title(name.to_uppercase())
        .section("1")
        .date(DATE)
        .source(source)
        .manual("mailtwin");
    let mut made = Vec::new();
    man.render_title(&mut made).expect("memory takes it");
    man.render_name_section(&mut made).expect("memory takes it");
    man.render_synopsis_section(&mut made).expect("memory takes it");
    man.render_description_section(&mut made).expect("memory takes it");
    man.render_options_section(&mut made).expect("memory takes it");
    // Each section begins with the same definition, and some lines end in a blank.
    let made = String::from_utf8(made).expect("text").replace(QUOTES, "");
    let made: String = made.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    let header = ".\\\" Made from the command line and from man/*.inc by tests/man.rs; see there before editing.\n";
    format!("{header}{QUOTES}{made}{}", rest(name))
}

/// What clap does not know of a page.
fn rest(name: &str) -> String {
    let item = |(term, words): (String, &str)| format!(".TP\n.B {term}\n{words}\n");
    let exits: String = EXIT_CODES.map(|(code, words)| item((code.to_string(), words))).concat();
    let fields: String = JSON_FIELDS.map(|(field, words)| item((field.to_owned(), words))).concat();
    text(&format!("man/{name}.inc"))
        .replace("@LEFT_OUT@", &LEFT_OUT.join("\n").replace("\n.", "\n\\&."))
        .replace("@EXIT@\n", &exits)
        .replace(".PP\n@JSON@\n", &fields)
}

#[test]
fn the_pages_of_section_1_are_what_the_command_line_is() {
    for (name, wanted) in pages() {
        let path = format!("man/{name}.1");
        if std::env::var_os("MAILTWIN_BLESS").is_some() {
            fs::write(project(&path), &wanted).expect("writes");
        }
        let there = fs::read_to_string(project(&path)).unwrap_or_default();
        assert!(there == wanted, "{path} is not what the command line is: run MAILTWIN_BLESS=1 cargo test --test man");
    }
}

#[test]
fn every_page_is_clean_by_mandoc() {
    let mut seen = 0;
    for entry in fs::read_dir(project("man")).expect("man/ is there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "inc") {
            continue;
        }
        seen += 1;
        let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning"]).arg(&path).output();
        let lint = lint.unwrap_or_else(|error| panic!("mandoc: {error}; install the package mandoc"));
        let said = String::from_utf8_lossy(&lint.stdout);
        // That is how clap_mangen sets a list of possible values.
        let said: Vec<&str> = said.lines().filter(|line| !line.contains("skipping paragraph macro")).collect();
        assert!(said.is_empty(), "{}:\n{}", path.display(), said.join("\n"));
    }
    assert_eq!(seen, 30, "twenty-five pages of section 1, one of section 5 and four of section 7");
}

#[test]
fn every_option_of_every_command_is_explained() {
    let mut whole = mailtwin::cli::command();
    whole.build();
    for command in whole.get_subcommands().filter(|command| command.get_name() != "help") {
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
        }
    }
}

/// The rows of a table of the README whose first cell is a number: the number, and the second cell.
fn numbered_rows(markdown: &str) -> Vec<(u8, String)> {
    let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let row = |line: &str| {
        let cells = cells(line);
        Some((cells.get(1)?.parse().ok()?, cells.get(2)?.clone()))
    };
    markdown.lines().filter_map(row).collect()
}

#[test]
fn the_readme_and_the_page_give_the_same_exit_codes() {
    let wanted: Vec<(u8, String)> = EXIT_CODES.map(|(code, words)| (code, words.to_owned())).into();
    assert_eq!(numbered_rows(&text("README.md")), wanted);
    let page = text("man/mailtwin-sync.1");
    for (code, words) in wanted {
        assert!(page.contains(&format!(".B {code}\n{words}\n")), "{code} is not in mailtwin-sync(1)");
    }
}

#[test]
fn every_field_of_the_json_object_is_explained_and_no_other() {
    let home = tempfile::tempdir().expect("a directory");
    fs::create_dir(home.path().join("source")).expect("a source");
    let run = Command::new(env!("CARGO_BIN_EXE_mailtwin"))
        .args(["sync", "--json"])
        .arg(home.path().join("source"))
        .arg(home.path().join("mirror"))
        .env("MAILTWIN_STATE", home.path().join("state"))
        .output()
        .expect("runs");
    let object: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&run.stdout).expect("an object");
    let printed: BTreeSet<&str> = object.keys().map(String::as_str).collect();
    assert_eq!(printed, JSON_FIELDS.map(|(field, _)| field).into());
}
