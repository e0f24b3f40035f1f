//! The head of an entry: a ustar header, and before it a pax header with what that has no room for.
//!
//! Rules: POSIX.1-2024, pax, "ustar Interchange Format" and "pax Header"; `SCHILY.xattr.*` and `SCHILY.acl.*` as star
//! began them and GNU tar and bsdtar write and read them.

use super::acl;
use crate::maildir::entry::{Meta, Time, Xattr};
use ::tar::{EntryType, Header};

/// Bytes of a block.
const BLOCK: usize = 512;

/// What stands behind the last entry.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Largest numbers that the fields of a ustar header hold: eleven octal digits, and seven.
const LONG_MAX: u64 = 0o777_7777_7777;
const SHORT_MAX: u32 = 0o777_7777;

/// The record by which the others of a header are bytes.
const BINARY: &[u8] = b"21 hdrcharset=BINARY\n";

/// What an entry is.
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A file with so many bytes.
    File(u64),
    /// One more name of a file that is in the archive already.
    Link(&'a [u8]),
    /// A symbolic link and where it points.
    Symlink(&'a [u8]),
}

/// Zeros that fill the last block of a content.
pub fn padding(size: u64) -> &'static [u8] {
    let over = (size % BLOCK as u64) as usize;
    &END[..(BLOCK - over) % BLOCK]
}

/// The blocks before the content of an entry. The path is empty for the root of the set.
pub fn encode(path: &[u8], meta: &Meta, mtime: Time, kind: &Kind<'_>) -> Vec<u8> {
    let name = match (path, kind) {
        ([], _) => b"./".to_vec(),
        (_, Kind::Directory) => [path, b"/"].concat(),
        _ => path.to_vec(),
    };
    let mut records = Vec::new();
    let mut header = Header::new_ustar();
    if !set_name(&mut header, &name) {
        path_record(&mut records, b"path", &name);
    }
    let (entry_type, target, size) = match kind {
        Kind::Directory => (EntryType::Directory, None, 0),
        Kind::File(size) => (EntryType::Regular, None, *size),
        Kind::Link(first) => (EntryType::Link, Some(*first), 0),
        Kind::Symlink(target) => (EntryType::Symlink, Some(*target), 0),
    };
    header.set_entry_type(entry_type);
    if let Some(target) = target
        && header.set_link_name_literal(target).is_err()
    {
        // Half a name beside the record: bsdtar takes a hard link without any for no link.
        set_beginning(&mut header.as_old_mut().linkname, target);
        path_record(&mut records, b"linkpath", target);
    }
    header.set_mode(u32::from(meta.mode));
    header.set_size(size);
    if size > LONG_MAX {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    header.set_uid(meta.uid.into());
    header.set_gid(meta.gid.into());
    for (key, id) in [(&b"uid"[..], meta.uid), (b"gid", meta.gid)] {
        if id > SHORT_MAX {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    let seconds = u64::try_from(mtime.seconds).ok().filter(|seconds| *seconds <= LONG_MAX);
    header.set_mtime(seconds.unwrap_or(0));
    if mtime.nanos != 0 || seconds.is_none() {
        record(&mut records, b"mtime", decimal(mtime).as_bytes());
    }
    // A link has the attributes of the file that it is a link of.
    if !matches!(kind, Kind::Link(_)) {
        attributes(&mut records, &meta.xattrs);
    }
    header.set_cksum();
    [extended(&records, &header), header.as_bytes().to_vec()].concat()
}

/// Whether the name has room in the header.
fn set_name(header: &mut Header, name: &[u8]) -> bool {
    let Some(ustar) = header.as_ustar_mut() else { return false };
    let (prefix, rest) = match name.len() <= ustar.name.len() {
        true => (&[][..], name),
        false => {
            // The first slash behind which the rest has room: the prefix is as short as it can be.
            let from = name.len() - ustar.name.len() - 1;
            let slash = name[from..name.len() - 1].iter().position(|&byte| byte == b'/').map(|at| from + at);
            match slash.filter(|&at| at > 0 && at <= ustar.prefix.len()) {
                Some(at) => (&name[..at], &name[at + 1..]),
                None => return set_beginning(&mut ustar.name, name),
            }
        }
    };
    ustar.prefix[..prefix.len()].copy_from_slice(prefix);
    ustar.name[..rest.len()].copy_from_slice(rest);
    true
}

/// What a program shows that knows no pax headers.
fn set_beginning(field: &mut [u8; 100], name: &[u8]) -> bool {
    let length = field.len();
    field.copy_from_slice(&name[..length]);
    false
}

/// A pax header with these records; nothing where there are none.
fn extended(records: &[u8], of: &Header) -> Vec<u8> {
    if records.is_empty() {
        return Vec::new();
    }
    let mut header = Header::new_ustar();
    set_name(&mut header, b"PaxHeaders");
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(of.mtime().unwrap_or(0));
    header.set_size(records.len() as u64);
    header.set_cksum();
    [header.as_bytes(), records, padding(records.len() as u64)].concat()
}

/// Appends a record: its own length in decimal, key and value.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + b" =\n".len();
    let mut length = rest + 1;
    while rest + length.to_string().len() > length {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    for part in [&b" "[..], key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// Appends a record whose value is a path. Records are UTF-8 unless they say otherwise: without that word bsdtar ends
/// with an error, and at it GNU tar says that it does not know it; both take the path as it is.
fn path_record(records: &mut Vec<u8>, key: &[u8], path: &[u8]) {
    if std::str::from_utf8(path).is_err() && !records.starts_with(BINARY) {
        records.extend_from_slice(BINARY);
    }
    record(records, key, path);
}

/// Seconds since 1970 with as many decimals as there are.
fn decimal(time: Time) -> String {
    // Nanoseconds count upwards, before 1970 too; the figures behind the sign do not.
    let (sign, seconds, nanos) = match (time.seconds < 0, time.nanos) {
        (false, nanos) => ("", time.seconds.unsigned_abs(), nanos),
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", time.seconds.unsigned_abs() - 1, 1_000_000_000_u32.saturating_sub(nanos)),
    };
    let decimals = format!("{nanos:09}");
    match decimals.trim_end_matches('0') {
        "" => format!("{sign}{seconds}"),
        decimals => format!("{sign}{seconds}.{decimals}"),
    }
}

/// Extended attributes, and of access control lists the text, too: each of the two tars reads one of both.
fn attributes(records: &mut Vec<u8>, xattrs: &[Xattr]) {
    for Xattr { name, value } in xattrs {
        let list = match name.as_slice() {
            b"system.posix_acl_access" => Some(&b"SCHILY.acl.access"[..]),
            b"system.posix_acl_default" => Some(&b"SCHILY.acl.default"[..]),
            _ => None,
        };
        if let Some((key, text)) = list.zip(acl::text(value)) {
            record(records, key, text.as_bytes());
        }
        record(records, &[b"SCHILY.xattr.", escaped(name).as_slice()].concat(), value);
    }
}

/// The name of an attribute as a key, in which no equals sign may stand: GNU tar's way.
fn escaped(name: &[u8]) -> Vec<u8> {
    let escape = |&byte: &u8| match byte {
        b'=' => b"%3D".to_vec(),
        b'%' => b"%25".to_vec(),
        other => vec![other],
    };
    name.iter().flat_map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_the_digits_of_its_own_length() {
        // POSIX's own example, and the lengths at which a digit more makes one more.
        let mut records = Vec::new();
        record(&mut records, b"ctime", b"1350244992.023960108");
        assert_eq!(records, b"30 ctime=1350244992.023960108\n");
        for length in 0..1200 {
            let mut records = Vec::new();
            record(&mut records, b"k", &vec![b'v'; length]);
            let said: usize =
                String::from_utf8_lossy(&records).split(' ').next().and_then(|it| it.parse().ok()).expect("a number");
            assert_eq!(said, records.len());
        }
    }

    #[test]
    fn paths_that_are_no_utf_8_are_said_to_be_bytes_once() {
        let long = |byte| vec![byte; 101];
        let encoded = |path: &[u8], target: &[u8]| {
            let blocks = encode(path, &Meta::default(), Time::default(), &Kind::Symlink(target));
            blocks.windows(BINARY.len()).filter(|window| *window == BINARY).count()
        };
        assert_eq!(encoded(&long(0xe9), &long(0xe9)), 1);
        assert_eq!(encoded(&long(b'x'), &long(0xe9)), 1);
        assert_eq!(encoded(&long(b'x'), &long(b'y')), 0);
        assert_eq!(encoded(b"\xe9", b"\xe9"), 0);
        let mut records = Vec::new();
        record(&mut records, b"hdrcharset", b"BINARY");
        assert_eq!(records, BINARY);
    }

    #[test]
    fn times_before_1970_have_figures_that_count_from_there() {
        let shown = |seconds, nanos| decimal(Time { seconds, nanos });
        assert_eq!(shown(0, 0), "0");
        assert_eq!(shown(1, 500_000_000), "1.5");
        assert_eq!(shown(-1, 0), "-1");
        assert_eq!(shown(-1, 250_000_000), "-0.75");
        assert_eq!(shown(-2, 1), "-1.999999999");
        assert_eq!(shown(i64::MIN, 999_999_999), "-9223372036854775807.000000001");
    }

    #[test]
    fn a_long_name_is_cut_at_a_slash_or_has_a_record() {
        let long = |first: usize, second: usize| [vec![b'a'; first], b"/".to_vec(), vec![b'b'; second]].concat();
        for (name, has_room) in [
            (vec![b'x'; 100], true),
            (vec![b'x'; 101], false),
            (long(155, 100), true),
            (long(156, 100), false),
            (long(100, 101), false),
            (long(1, 99), true),
            ([long(10, 100), b"/".to_vec()].concat(), false),
            ([long(10, 99), b"/".to_vec()].concat(), true),
        ] {
            let mut header = Header::new_ustar();
            assert_eq!(set_name(&mut header, &name), has_room, "{}", name.len());
            if has_room {
                assert_eq!(*header.path_bytes(), *name);
            }
        }
    }

    #[test]
    fn contents_end_with_a_block() {
        assert_eq!([0, 1, 511, 512, 513].map(|size| padding(size).len()), [0, 511, 1, 0, 511]);
    }
}
