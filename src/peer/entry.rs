//! Writing down who was paired: a `[[peer]]` of the configuration file.
//!
//! The rest of the file stays as it is, comments and all. A host that is there already gets its new key; its address stays,
//! because somebody may have chosen it with care.

use super::exchange::Introduction;
use super::{names, undo};
use crate::disk::{DiskError, Root, stat_file};
use crate::maildir::entry::Meta;
use crate::path::{TreePath, escape};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

/// The name of the file in [`super::DIRECTORY`].
pub const NAME: &str = "mailtwin.toml";

/// Longest configuration file that is read.
const LONGEST: u64 = 4 << 20;

/// Why a host was not written down.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// What is in it.
    #[error("{0}: {1}")]
    Content(String, String),
    /// Its owner could not be kept.
    #[error("{0} belongs to another user")]
    Owner(String),
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Noted {
    /// The host is new.
    Added,
    /// It was there, with another key.
    Changed,
    /// It was there as it is.
    Known,
}

type Result<T> = std::result::Result<T, EntryError>;

/// The lines of a host, for somebody to add.
pub fn lines(other: &Introduction) -> String {
    let mut peers = ArrayOfTables::new();
    peers.push(table(other));
    let mut document = DocumentMut::new();
    document.insert("peer", Item::ArrayOfTables(peers));
    document.to_string()
}

fn table(other: &Introduction) -> Table {
    let mut table = Table::new();
    table.insert("name", value(&other.name));
    if let Some(address) = &other.address {
        table.insert("address", value(address));
    }
    table.insert("key", value(other.key.to_string()));
    table
}

/// Puts a host into the text of a configuration file.
///
/// # Errors
/// Where the text is no TOML, or `peer` is something else in it.
pub fn put(text: &str, other: &Introduction) -> std::result::Result<(String, Noted), String> {
    let parse = |text: &str| text.parse::<DocumentMut>().map_err(|error| error.to_string());
    let mut document = parse(text)?;
    let key = other.key.to_string();
    if let Some(peers) = document.get_mut("peer") {
        let peers = peers.as_array_of_tables_mut().ok_or("peer is there, but is no [[peer]]")?;
        let place = peers.iter().position(|peer| peer.get("name").and_then(Item::as_str) == Some(&other.name));
        if let Some(peer) = place.and_then(|place| peers.get_mut(place)) {
            if peer.get("key").and_then(Item::as_str) == Some(&key) {
                return Ok((text.to_owned(), Noted::Known));
            }
            peer.insert("key", value(key));
            return Ok((document.to_string(), Noted::Changed));
        }
    }
    // At the end, behind comments that belong to nothing yet.
    let gap = if text.trim().is_empty() { "" } else { "\n\n" };
    let added = format!("{}{gap}{}", text.trim_end(), lines(other));
    parse(&added)?;
    Ok((added, Noted::Added))
}

/// Writes a host into the configuration file, which must be there.
///
/// # Errors
/// Where it is not there, cannot be read or written, or is no configuration file. It is then as it was.
pub fn note(path: &Path, other: &Introduction) -> Result<Noted> {
    let missing = |source| DiskError { operation: "cannot read", path: escape(path.as_os_str().as_bytes()), source };
    // Where the file is a link into a directory that is kept elsewhere, that one is meant.
    let path = std::fs::canonicalize(path).map_err(missing)?;
    let show = escape(path.as_os_str().as_bytes());
    let Some((directory, name, draft)) = names(&path) else {
        return Err(EntryError::Content(show, "no name of a file".to_owned()));
    };
    let root = Root::open(directory)?;
    let file = root.open_file(&name)?;
    let failed = |source| DiskError { operation: "cannot read", path: show.clone(), source };
    let stat = stat_file(&file).map_err(failed)?;
    let mut text = String::new();
    (&file).take(LONGEST).read_to_string(&mut text).map_err(failed)?;
    let (text, noted) = put(&text, other).map_err(|error| EntryError::Content(show.clone(), error))?;
    if noted == Noted::Known {
        return Ok(noted);
    }
    let busy = || EntryError::Content(show.clone(), "another run is writing it: run this again".to_owned());
    let mut writer = root.draft(&draft)?.ok_or_else(busy)?;
    let xattrs = root.xattrs(&name)?;
    let meta = Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: None, xattrs };
    undo(&root, &draft, writer.write(text.as_bytes()))?;
    if !undo(&root, &draft, root.set_meta(&draft, &meta))? {
        root.remove(&draft)?;
        return Err(EntryError::Owner(show));
    }
    undo(&root, &draft, writer.sync())?;
    undo(&root, &draft, root.rename(&draft, &name))?;
    root.sync_directory(&TreePath::root())?;
    Ok(noted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::key::PeerKey;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    fn host(name: &str, seed: u8) -> Introduction {
        Introduction { name: name.into(), address: Some(format!("{name}.example.org:8946")), key: PeerKey([seed; 32]) }
    }

    const BEFORE: &str = "# Ours.\n[[set]]\nname = \"mail\" # all of it\npath=\"/var/vmail\"\n# That is all.\n";

    #[test]
    fn a_host_is_added_behind_what_is_there_and_its_key_is_changed_in_place() {
        let (once, noted) = put(BEFORE, &host("mx2", 1)).expect("puts");
        let lines = lines(&host("mx2", 1));
        assert_eq!((once.as_str(), noted), (format!("{BEFORE}\n{lines}").as_str(), Noted::Added));
        assert_eq!(put(&once, &host("mx2", 1)).expect("puts"), (once.clone(), Noted::Known));
        let (two, _) = put(&once, &host("mx3", 3)).expect("puts");
        let two = two.replace("mx2.example.org:8946\"", "192.0.2.2:9000\" # by hand");
        let (changed, noted) = put(&two, &host("mx2", 2)).expect("puts");
        let keys = [1, 2].map(|seed| PeerKey([seed; 32]).to_string());
        assert_eq!((changed, noted), (two.replace(&keys[0], &keys[1]), Noted::Changed));
    }

    #[test]
    fn the_lines_alone_are_a_configuration_that_can_be_read() {
        let lines = lines(&host("mx2", 1));
        assert_eq!(put("", &host("mx2", 1)).expect("puts"), (lines.clone(), Noted::Added));
        assert!(lines.starts_with("[[peer]]\nname = \"mx2\"\naddress = \"mx2.example.org:8946\"\nkey = \"sha256:"));
        assert!(put("peer = 1", &host("mx2", 1)).is_err() && put("[[peer", &host("mx2", 1)).is_err());
    }

    #[test]
    fn the_file_keeps_its_mode_and_its_place_and_is_never_made() {
        let home = tempfile::tempdir().expect("a directory");
        let (real, link) = (home.path().join("real.toml"), home.path().join("mailtwin.toml"));
        std::fs::write(&real, BEFORE).expect("writes");
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).expect("chmod");
        symlink("real.toml", &link).expect("links");
        assert_eq!(note(&link, &host("mx2", 1)).expect("notes"), Noted::Added);
        assert_eq!(std::fs::metadata(&real).expect("is there").mode() & 0o7777, 0o640);
        assert!(std::fs::symlink_metadata(&link).expect("is there").is_symlink());
        assert!(std::fs::read_to_string(&real).expect("reads").starts_with(BEFORE));
        assert!(note(&home.path().join("none.toml"), &host("mx2", 1)).is_err());
        std::fs::write(&real, "[[peer").expect("writes");
        assert!(matches!(note(&link, &host("mx2", 1)), Err(EntryError::Content(..))));
        assert_eq!(std::fs::read(&real).expect("reads"), b"[[peer");
        assert_eq!(std::fs::read_dir(home.path()).expect("lists").count(), 2, "no draft is left");
    }
}
