//! POSIX access control lists: from the kernel's form into words, with numbers for users and groups.
//!
//! The kernel's form is that of `linux/posix_acl_xattr.h`: version 2, then eight bytes for each entry, all little-endian.

/// The version that there is.
const VERSION: [u8; 4] = [2, 0, 0, 0];

/// The list as acl(5) writes it in short: `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`. `None` where the
/// bytes are no list.
pub fn text(value: &[u8]) -> Option<String> {
    let body = value.strip_prefix(&VERSION)?;
    let (entries, rest) = body.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    let entries: Option<Vec<String>> = entries.iter().map(entry).collect();
    entries.map(|entries| entries.join(","))
}

fn entry(&[tag, high, bits, _, a, b, c, d]: &[u8; 8]) -> Option<String> {
    let id = u32::from_le_bytes([a, b, c, d]).to_string();
    let (kind, who) = match u16::from_le_bytes([tag, high]) {
        0x01 => ("user", ""),
        0x02 => ("user", id.as_str()),
        0x04 => ("group", ""),
        0x08 => ("group", id.as_str()),
        0x10 => ("mask", ""),
        0x20 => ("other", ""),
        _ => return None,
    };
    let bit = |bit: u8, letter: char| if bits & bit == 0 { '-' } else { letter };
    Some(format!("{kind}:{who}:{}{}{}", bit(4, 'r'), bit(2, 'w'), bit(1, 'x')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_put_into_words() {
        let entries: [(u8, u8, u32); 6] =
            [(1, 7, !0), (2, 4, 1000), (4, 5, !0), (8, 1, 70_000), (0x10, 6, !0), (0x20, 0, !0)];
        let list: Vec<u8> =
            entries.iter().flat_map(|(tag, bits, id)| [&[*tag, 0, *bits, 0][..], &id.to_le_bytes()].concat()).collect();
        let wanted = "user::rwx,user:1000:r--,group::r-x,group:70000:--x,mask::rw-,other::---";
        assert_eq!(text(&[&VERSION[..], &list].concat()).as_deref(), Some(wanted));
        assert_eq!(text(&[&VERSION[..], &list[1..]].concat()), None);
        assert_eq!(text(b"\x01\0\0\0"), None);
        assert_eq!(text(&[&VERSION[..], &[3; 8]].concat()), None);
    }
}
