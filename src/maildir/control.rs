//! Dovecot's control files, as far as replication must understand them.
//!
//! `dovecot-uidlist` version 3: a header `3 V<uidvalidity> N<next uid> G<guid>`, then `<uid> [fields] :<base name>`
//! with ascending UIDs. Dovecot unlinks a file that breaks these rules and renumbers everything, so one is
//! installed only when it is whole (DOVECOT.md section 2).

/// Why a uidlist is not whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UidlistError {
    /// The file is empty or its first line is not a version 3 header with V, N and G.
    #[error("its header is not whole")]
    Header,
    /// A line is no record.
    #[error("line {0} is not a record")]
    Record(usize),
    /// UIDs do not ascend.
    #[error("the UID in line {0} does not ascend")]
    Order(usize),
    /// The last line is cut.
    #[error("its last line is cut")]
    Cut,
}

/// What identifies a folder: when one of these differs, it is another folder under the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderId {
    /// UIDVALIDITY.
    pub validity: u32,
    /// The mailbox GUID in hexadecimal; empty where there is none.
    pub guid: Vec<u8>,
}

/// Validates a uidlist completely and tells which folder it is of.
///
/// # Errors
/// [`UidlistError`] names the first thing that is wrong. Versions other than 3 are refused as a header.
pub fn check_uidlist(bytes: &[u8]) -> Result<FolderId, UidlistError> {
    let body = bytes.strip_suffix(b"\n").ok_or(match bytes.is_empty() {
        true => UidlistError::Header,
        false => UidlistError::Cut,
    })?;
    let mut lines = body.split(|&byte| byte == b'\n');
    let folder = lines.next().and_then(header).ok_or(UidlistError::Header)?;
    let mut last = 0;
    for (number, line) in (2..).zip(lines) {
        let uid = record(line).ok_or(UidlistError::Record(number))?;
        if uid <= last {
            return Err(UidlistError::Order(number));
        }
        last = uid;
    }
    Ok(folder)
}

fn header(line: &[u8]) -> Option<FolderId> {
    let mut fields = line.trim_ascii_end().split(|&byte| byte == b' ');
    if fields.next() != Some(b"3") {
        return None;
    }
    let (mut validity, mut next, mut guid) = (None, None, Vec::new());
    for field in fields {
        match field.split_first() {
            Some((b'V', digits)) => validity = number(digits),
            Some((b'N', digits)) => next = number(digits),
            Some((b'G', digits)) => guid = digits.to_vec(),
            _ => {}
        }
    }
    next.filter(|&next| next > 0)?;
    let validity = validity.filter(|&validity| validity > 0)?;
    Some(FolderId { validity, guid })
}

fn record(line: &[u8]) -> Option<u32> {
    let end = line.iter().position(|&byte| byte == b' ')?;
    line[end..].windows(2).position(|pair| pair == b" :")?;
    number(&line[..end])
}

fn number(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The keywords that a `dovecot-keywords` file defines, by letter.
pub fn keyword_names(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let lines = bytes.split(|&byte| byte == b'\n');
    let named = lines.filter_map(|line| {
        let space = line.iter().position(|&byte| byte == b' ')?;
        let number: u8 = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
        (number < 26).then(|| (b'a' + number, line[space + 1..].to_vec()))
    });
    named.collect()
}

/// The keyword letters that a `dovecot-keywords` file defines, as a bit set (bit 0 is `a`).
/// Lines are `<number> <name>`; letters beyond `z` cannot stand in a file name.
pub fn defined_keywords(bytes: &[u8]) -> u32 {
    bytes
        .split(|&byte| byte == b'\n')
        .filter_map(|line| {
            let end = line.iter().position(|&byte| byte == b' ')?;
            number(&line[..end]).filter(|&index| index < 26)
        })
        .fold(0, |letters, index| letters | 1 << index)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"3 V1795340985 N5 Gd89da52fb9ba026b1576000083ecc375\n\
        1 :1795340985.M799384P30229.vm,S=365,W=377\n\
        3 G1795340985.M799384P30229.vm W12 :1795340997.M405181P30381.vm,S=365\n";

    #[test]
    fn a_whole_uidlist_tells_its_folder() {
        let folder = check_uidlist(GOOD).expect("whole");
        assert_eq!(folder.validity, 1_795_340_985);
        assert_eq!(folder.guid, b"d89da52fb9ba026b1576000083ecc375");
    }

    #[test]
    fn no_prefix_of_a_uidlist_but_whole_lines_is_accepted() {
        let lines: Vec<usize> = (0..GOOD.len()).filter(|&at| GOOD[at] == b'\n').collect();
        for end in 0..GOOD.len() {
            let whole = lines.contains(&end.wrapping_sub(1));
            assert_eq!(check_uidlist(&GOOD[..end]).is_ok(), whole, "{end}");
        }
    }

    #[test]
    fn a_uid_that_comes_twice_is_refused() {
        let bad = b"3 V1 N5 G00\n2 :a\n2 :b\n";
        assert_eq!(check_uidlist(bad), Err(UidlistError::Order(3)));
        assert_eq!(check_uidlist(b"3 V1 N5\n2 a\n"), Err(UidlistError::Record(2)));
        assert_eq!(check_uidlist(b"1 5 6\n"), Err(UidlistError::Header));
    }

    #[test]
    fn keyword_files_define_letters() {
        assert_eq!(defined_keywords(b"0 $Forwarded\n2 work\n30 beyond\n"), 0b101);
        assert_eq!(defined_keywords(b""), 0);
    }
}
