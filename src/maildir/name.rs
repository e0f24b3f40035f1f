//! File names of messages: base name and flags.
//!
//! Rules: <https://cr.yp.to/proto/maildir.html> and Dovecot's Maildir page. The base name is everything
//! before the first `:`; what follows (`:2,` and letters) changes while the message lives.

/// The part of a message's file name that never changes while it lives in its folder.
pub fn base(name: &[u8]) -> &[u8] {
    let end = name.iter().position(|&byte| byte == b':');
    &name[..end.unwrap_or(name.len())]
}

/// The letters of a message's file name: flags, and keywords (`a` to `z`).
pub fn letters(name: &[u8]) -> &[u8] {
    let info = &name[base(name).len()..];
    let letters = info.strip_prefix(b":2,").unwrap_or(&[]);
    let end = letters.iter().position(|&byte| byte == b',');
    &letters[..end.unwrap_or(letters.len())]
}

/// The keyword letters (`a` to `z`) among the letters of a message's file name.
pub fn keywords(name: &[u8]) -> impl Iterator<Item = u8> + '_ {
    letters(name).iter().copied().filter(u8::is_ascii_lowercase)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_not_part_of_the_base_name() {
        assert_eq!(base(b"1.M2P3.host,S=4,W=5:2,Sab"), b"1.M2P3.host,S=4,W=5");
        assert_eq!(base(b"foreign"), b"foreign");
        assert_eq!(base(b":2,S"), b"");
    }

    #[test]
    fn keyword_letters_end_at_a_second_comma() {
        let letters: Vec<u8> = keywords(b"1.x:2,FSab,zz").collect();
        assert_eq!(letters, b"ab");
        assert_eq!(keywords(b"abc").count(), 0);
    }
}
