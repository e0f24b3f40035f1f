//! Writing down who was paired: a `[peer.NAME]` of the configuration file.
//!
//! The rest of the file stays as it is, comments and all. A host that is there already gets its new key; its address stays,
//! because somebody may have chosen it with care.

use super::exchange::Introduction;
use super::{names, undo};
use crate::disk::{DiskError, Root, stat_file};
use crate::maildir::entry::Meta;
use crate::path::{TreePath, escape};
use crate::transport::address::Address;
use crate::transport::tls;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use toml_edit::{DocumentMut, Item, Table, TableLike, Value, value};

/// Longest configuration file that is read, here and elsewhere: a longer one is none that a person wrote.
pub const LONGEST: u64 = 1 << 20;

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
    let mut peers = Table::new();
    peers.set_implicit(true);
    peers.insert(&other.name, Item::Table(table(other)));
    let mut document = DocumentMut::new();
    document.insert("peer", Item::Table(peers));
    document.to_string()
}

fn table(other: &Introduction) -> Table {
    let mut table = Table::new();
    table.insert("transport", value("tls"));
    if let Some(address) = &other.address {
        table.insert("address", value(address));
    }
    table.insert("key", value(other.key.to_string()));
    table
}

/// Puts a host into the text of a configuration file.
///
/// # Errors
/// Where the text is no TOML, `peer` is something else in it, or the host is reached by ssh: what somebody has chosen is
/// not undone.
pub fn put(text: &str, other: &Introduction) -> std::result::Result<(String, Noted), String> {
    let parse = |text: &str| text.parse::<DocumentMut>().map_err(|error| error.to_string());
    let mut document = parse(text)?;
    if let Some(address) = other.address.as_ref().filter(|text| Address::parse(text, tls::PORT).is_none()) {
        return Err(format!("{} says that it is at {}, which is no host", other.name, escape(address.as_bytes())));
    }
    if let Some(peers) = document.get_mut("peer") {
        let peers = peers.as_table_like_mut().ok_or("peer is there, but is no [peer.NAME]")?;
        if let Some(peer) = peers.get_mut(&other.name) {
            let peer =
                peer.as_table_like_mut().ok_or_else(|| format!("peer.{} is there, but is no table", other.name))?;
            return Ok(match renew(peer, other)? {
                Noted::Known => (text.to_owned(), Noted::Known),
                noted => (document.to_string(), noted),
            });
        }
    }
    // At the end, behind comments that belong to nothing yet.
    let gap = if text.trim().is_empty() { "" } else { "\n\n" };
    let added = format!("{}{gap}{}", text.trim_end(), lines(other));
    parse(&added)?;
    Ok((added, Noted::Added))
}

/// Gives a host that is there the key that it has now.
fn renew(peer: &mut dyn TableLike, other: &Introduction) -> std::result::Result<Noted, String> {
    if peer.get("transport").and_then(Item::as_str) == Some("ssh") {
        return Err(format!(
            "{} is reached by ssh there: take [peer.{0}] out, where TLS is to take its place",
            other.name
        ));
    }
    let key = other.key.to_string();
    match peer.get_mut("key").and_then(Item::as_value_mut) {
        Some(old) if old.as_str().and_then(|old| old.parse().ok()) == Some(other.key) => return Ok(Noted::Known),
        // What stands beside it stays.
        Some(old) => {
            let decor = old.decor().clone();
            *old = Value::from(key);
            *old.decor_mut() = decor;
        }
        None => drop(peer.insert("key", value(key))),
    }
    Ok(Noted::Changed)
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
    if stat.size > LONGEST {
        return Err(EntryError::Content(show, "longer than 1 MiB: is it the right file?".to_owned()));
    }
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

    const BEFORE: &str = "# Ours.\n[set.mail] # all of it\npath=\"/var/vmail\"\n# That is all.\n";

    #[test]
    fn a_host_is_added_behind_what_is_there_and_its_key_is_changed_in_place() {
        let (once, noted) = put(BEFORE, &host("mx2", 1)).expect("puts");
        let lines = lines(&host("mx2", 1));
        assert_eq!((once.as_str(), noted), (format!("{BEFORE}\n{lines}").as_str(), Noted::Added));
        assert_eq!(put(&once, &host("mx2", 1)).expect("puts"), (once.clone(), Noted::Known));
        let (two, _) = put(&once, &host("mx3", 3)).expect("puts");
        let two = two
            .replace("mx2.example.org:8946\"", "192.0.2.2:9000\" # by hand")
            .replace(&format!("{}\"", host("mx2", 1).key), &format!("{}\" # new", host("mx2", 1).key));
        let (changed, noted) = put(&two, &host("mx2", 2)).expect("puts");
        let keys = [1, 2].map(|seed| PeerKey([seed; 32]).to_string());
        assert_eq!((changed, noted), (two.replace(&keys[0], &keys[1]), Noted::Changed));
    }

    #[test]
    fn the_lines_alone_are_a_configuration_that_can_be_read() {
        let lines = lines(&host("mx2", 1));
        assert_eq!(put("", &host("mx2", 1)).expect("puts"), (lines.clone(), Noted::Added));
        let wanted = "[peer.mx2]\ntransport = \"tls\"\naddress = \"mx2.example.org:8946\"\nkey = \"sha256:";
        assert!(lines.starts_with(wanted), "{lines}");
        let dotted = super::lines(&host("mx2.example.org", 1));
        assert!(dotted.starts_with("[peer.\"mx2.example.org\"]\n"), "{dotted}");
        for wrong in ["peer = 1", "[peer]\nmx2 = 1", "[[peer]]", "[[peer", "peer = { mx3 = { address = \"mx3\" } }"] {
            assert!(put(wrong, &host("mx2", 1)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_host_is_found_however_its_table_is_written_and_what_is_reached_by_ssh_stays_so() {
        let key = host("mx2", 1).key;
        for before in ["[peer.mx2]\nlevel = 3\n", "[peer]\nmx2.level = 3\n", "peer = { mx2 = { level = 3 } }\n"] {
            let (text, noted) = put(before, &host("mx2", 1)).expect(before);
            assert_eq!(noted, Noted::Changed, "{before}");
            let found = text.parse::<DocumentMut>().expect("reads");
            assert_eq!(found["peer"]["mx2"]["key"].as_str(), Some(key.to_string().as_str()), "{text}");
            assert_eq!(found["peer"]["mx2"]["level"].as_integer(), Some(3), "{text}");
        }
        let error =
            put("[peer.mx2]\ntransport = \"ssh\"\naddress = \"vmail@mx2\"\n", &host("mx2", 1)).expect_err("ssh");
        assert!(error.contains("reached by ssh"), "{error}");
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
