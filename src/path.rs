//! Names and paths inside a set: bytes, validated once, never lossy.
//!
//! A [`TreePath`] that exists is harmless: relative, without `.`, `..`, empty components or NUL, and
//! outside the tool's own directory (I5). Decoding one from the wire or a file validates it again.
//!
//! Layer 0.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt;

/// The directory in a mirror's root that belongs to the tool; never part of a set.
pub const RESERVED: &[u8] = b".mailtwin";

/// Longest component: what Linux file systems take.
pub const NAME_MAX: usize = 255;

/// Longest path: deeper than `PATH_MAX`, which limits one call and not a tree; a bound against nonsense.
pub const PATH_MAX: usize = 64 * 1024;

/// Why bytes are not a path inside a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// An empty component, `.` or `..`, or a NUL.
    #[error("the name \"{0}\" is not allowed in a path")]
    Component(String),
    /// A component or the whole path is too long.
    #[error("a path of {0} bytes is too long")]
    Long(usize),
    /// The path leads into the tool's own directory.
    #[error("the name .mailtwin at the top of a set is reserved")]
    Reserved,
}

/// One component of a path: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Validates one component.
    ///
    /// # Errors
    /// [`PathError`] says which rule it breaks.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.len() > NAME_MAX {
            return Err(PathError::Long(bytes.len()));
        }
        let bad = bytes.is_empty() || bytes == b"." || bytes == b"..";
        if bad || bytes.iter().any(|&byte| byte == b'/' || byte == 0) {
            return Err(PathError::Component(escape(bytes)));
        }
        Ok(Self(bytes.into()))
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::borrow::Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// A path relative to the root of a set; empty for the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TreePath(Box<[u8]>);

impl TreePath {
    /// The root of the set.
    pub fn root() -> Self {
        Self::default()
    }

    /// Validates a path.
    ///
    /// # Errors
    /// [`PathError`] says which rule it breaks.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        if bytes.len() > PATH_MAX {
            return Err(PathError::Long(bytes.len()));
        }
        for component in bytes.split(|&byte| byte == b'/') {
            Name::new(component)?;
        }
        if bytes.split(|&byte| byte == b'/').next() == Some(RESERVED) {
            return Err(PathError::Reserved);
        }
        Ok(Self(bytes.into()))
    }

    /// The path of `name` in this directory. The name is one component, so the result is valid, except
    /// that the caller leaves out [`RESERVED`] at the root.
    pub fn join(&self, name: &Name) -> Self {
        if self.0.is_empty() {
            return Self(name.0.clone());
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.0.len());
        bytes.extend_from_slice(&self.0);
        bytes.push(b'/');
        bytes.extend_from_slice(&name.0);
        Self(bytes.into())
    }

    /// As [`TreePath::join`] for a name that is known to be good, such as `cur`.
    pub fn child(&self, name: &str) -> Self {
        debug_assert!(Name::new(name.as_bytes()).is_ok());
        self.join(&Name(name.as_bytes().into()))
    }

    /// The bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root of the set.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this path, and its name there; `None` for the root.
    pub fn split(&self) -> Option<(TreePath, Name)> {
        if self.is_root() {
            return None;
        }
        let (parent, name) = match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&[][..], &self.0[..]),
        };
        Some((Self(parent.into()), Name(name.into())))
    }

    /// The directory that holds this path; the root is its own parent.
    pub fn parent(&self) -> TreePath {
        self.split().map(|(parent, _)| parent).unwrap_or_default()
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|&byte| byte == b'/').next().unwrap_or(&[])
    }

    /// The components from the root down.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&byte| byte == b'/').filter(|component| !component.is_empty())
    }

    /// Whether this path is `directory` or lies below it.
    pub fn is_within(&self, directory: &TreePath) -> bool {
        directory.is_root()
            || self.0.starts_with(&directory.0) && matches!(self.0.get(directory.0.len()), None | Some(b'/'))
    }

    /// This path with the leading directory `from` replaced by `to`.
    pub fn moved(&self, from: &TreePath, to: &TreePath) -> Self {
        debug_assert!(self.is_within(from) && !from.is_root());
        let mut bytes = to.0.to_vec();
        bytes.extend_from_slice(&self.0[from.0.len()..]);
        Self(bytes.into())
    }
}

/// Shows bytes of a name so that a terminal, a log or JSON cannot be led astray by them: control
/// characters and invalid UTF-8 become `\xNN`, a backslash is doubled.
pub fn escape(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            push_escaped(&mut shown, character);
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// What [`escape`] makes this of; `None` where it makes it of nothing.
pub fn unescape(shown: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(shown.len());
    let mut rest = shown;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        match rest {
            [b'\\', after @ ..] => {
                bytes.push(b'\\');
                rest = after;
            }
            [b'x', high, low, after @ ..] => {
                let figure = |byte: u8| char::from(byte).to_digit(16);
                bytes.push((figure(*high)? * 16 + figure(*low)?) as u8);
                rest = after;
            }
            _ => return None,
        }
    }
    Some(bytes)
}

fn push_escaped(shown: &mut String, character: char) {
    // Besides the controls (C0, DEL, C1): what reorders or hides text on a terminal.
    let hides =
        matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    if character == '\\' {
        shown.push_str("\\\\");
    } else if character.is_control() || hides {
        let mut buffer = [0; 4];
        for byte in character.encode_utf8(&mut buffer).bytes() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    } else {
        shown.push(character);
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "." } else { "" })?;
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&serde_bytes::Bytes>::deserialize(deserializer)?;
        Self::new(bytes).map_err(D::Error::custom)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&serde_bytes::Bytes>::deserialize(deserializer)?;
        Self::new(bytes).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("a good path")
    }

    #[test]
    fn paths_that_could_leave_the_root_are_refused() {
        for bad in ["/etc", "a/../b", "..", ".", "a//b", "a/", "a\0b", ".mailtwin/log", ".mailtwin"] {
            assert!(TreePath::new(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(TreePath::new(&[b'a'; 256]).is_err());
        assert!(TreePath::new(b"a/.mailtwin").is_ok());
    }

    #[test]
    fn decoding_validates_again() {
        let hostile = postcard::to_stdvec(serde_bytes::Bytes::new(b"../x")).expect("encodes");
        assert!(postcard::from_bytes::<TreePath>(&hostile).is_err());
        assert!(postcard::from_bytes::<Name>(&hostile).is_err());
    }

    #[test]
    fn splitting_and_joining_are_inverse() {
        let (parent, name) = path("a/b/c").split().expect("not the root");
        assert_eq!((parent.as_bytes(), name.as_bytes()), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(parent.join(&name), path("a/b/c"));
        assert_eq!(path("a").parent(), TreePath::root());
    }

    #[test]
    fn a_sibling_with_the_same_beginning_is_not_within() {
        assert!(path("a/b").is_within(&path("a")));
        assert!(!path("ab").is_within(&path("a")));
        assert_eq!(path("a/b").moved(&path("a"), &path("x/y")), path("x/y/b"));
    }

    #[test]
    fn escaped_names_hold_no_control_characters() {
        assert_eq!(escape(b"a\x1b[2J\n\xff\\"), "a\\x1b[2J\\x0a\\xff\\\\");
        assert_eq!(escape("é\u{9b}".as_bytes()), "é\\xc2\\x9b");
    }

    #[test]
    fn what_no_name_is_shown_as_is_the_form_of_none() {
        for typed in ["\\", "a\\b", "\\x", "\\x1", "\\xg0", "\\x0g", "a\\\\\\"] {
            assert_eq!(unescape(typed.as_bytes()), None, "{typed}");
        }
        assert_eq!(unescape(b"plain \xff").as_deref(), Some(&b"plain \xff"[..]));
    }

    proptest::proptest! {
        #[test]
        fn every_name_can_be_given_as_it_is_shown(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
            proptest::prop_assert_eq!(unescape(escape(&bytes).as_bytes()), Some(bytes));
        }

        #[test]
        fn so_can_names_of_backslashes_and_text(name in "[\\\\x0-9a-f\u{7f}-\u{ff}\u{202e}]{0,40}") {
            let bytes = name.into_bytes();
            proptest::prop_assert_eq!(unescape(escape(&bytes).as_bytes()), Some(bytes));
        }
    }
}
