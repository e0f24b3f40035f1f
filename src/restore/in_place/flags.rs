//! The flags of a message that is there, and that it had.

use crate::maildir::name;
use std::collections::BTreeSet;

/// Which flags a message keeps that is in its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Flags {
    /// Those that it has.
    #[default]
    Keep,
    /// Those that it had.
    Point,
    /// Both.
    Union,
}

/// The name under which a message has the right flags; `None` where it has them. `then` is what stood behind the base
/// name, its keyword letters being those of the folder as it is.
pub(super) fn renamed(name: &[u8], then: &[u8], flags: Flags) -> Option<Vec<u8>> {
    let base = name::base(name);
    let now = letters(&name[base.len()..]);
    let then = letters(then);
    let wanted: BTreeSet<u8> = match flags {
        Flags::Keep => return None,
        Flags::Point => then,
        Flags::Union => now.union(&then).copied().collect(),
    };
    (wanted != now).then(|| [base, b":2,", wanted.into_iter().collect::<Vec<u8>>().as_slice()].concat())
}

/// The letters of `:2,` flags, and none of a name that has no such.
fn letters(info: &[u8]) -> BTreeSet<u8> {
    info.strip_prefix(b":2,").unwrap_or_default().iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_kept_put_back_or_joined() {
        let name = |text: &str| Some(text.as_bytes().to_vec());
        let cases = [
            ("1.M2:2,S", ":2,FR", Flags::Keep, None),
            ("1.M2:2,S", ":2,FR", Flags::Point, name("1.M2:2,FR")),
            ("1.M2:2,S", ":2,FR", Flags::Union, name("1.M2:2,FRS")),
            ("1.M2:2,FS", ":2,S", Flags::Union, None),
            ("1.M2:2,FS", ":2,SF", Flags::Point, None),
            // One that was new is not made new again: a mail server moves it once.
            ("1.M2:2,S", "", Flags::Point, name("1.M2:2,")),
            ("1.M2", "", Flags::Point, None),
            ("1.M2", ":2,S", Flags::Union, name("1.M2:2,S")),
            ("1.M2:2,Sa", ":2,Tb", Flags::Union, name("1.M2:2,STab")),
        ];
        for (now, then, flags, wanted) in cases {
            assert_eq!(renamed(now.as_bytes(), then.as_bytes(), flags), wanted, "{now} {then} {flags:?}");
        }
    }
}
