//! Records into columns.

use super::column::{Dictionary, Packer, Words, push_varint, zigzag};
use super::name::{self, HOLES};
use super::range::{expected_piece, form};
use crate::maildir::entry::Meta;
use crate::path::TreePath;
use crate::repository::envelope::Envelope;
use crate::repository::record::{Place, Record, What};
use std::io;

/// The numbers at one place in names, and beside each the size and the time of its file.
#[derive(Default)]
struct Hole {
    numbers: Vec<u64>,
    sizes: Vec<u64>,
    seconds: Vec<u64>,
}

/// Records on their way into a range.
#[derive(Default)]
pub(super) struct Columns {
    forms: Vec<u8>,
    directories: Dictionary,
    directory: Vec<u64>,
    shapes: Dictionary,
    shape: Vec<u64>,
    owners: Dictionary,
    owner: Vec<u64>,
    sizes: Vec<u64>,
    seconds: Vec<u64>,
    holes: [Hole; HOLES],
    nanos: Vec<u64>,
    /// The microseconds in names, as nanoseconds: where the file's time is what its name was made of.
    named_nanos: Vec<u64>,
    targets: Words,
    checks: Vec<u8>,
    groups: Vec<u64>,
    segments: Vec<u64>,
    offsets: Vec<u64>,
    pieces: Vec<u64>,
    place: Option<Place>,
    ids: Words,
    domains: Dictionary,
    domain: Vec<u64>,
    addresses: Dictionary,
    from: Vec<u64>,
    to: Vec<u64>,
    subjects: Words,
    dates: Vec<u64>,
    /// The modification time of each message that has a date.
    dated: Vec<u64>,
}

impl Columns {
    pub(super) fn len(&self) -> usize {
        self.forms.len()
    }

    /// Takes a record; that it is in order and not too heavy has been seen to.
    pub(super) fn push(&mut self, record: &Record) {
        let (directory, name) = directory_and_name(&record.path);
        let directory = self.directories.number(directory);
        self.directory.push(directory);
        let Some((meta, what)) = &record.state else {
            self.forms.push(form::GONE);
            self.push_name(name, 0, 0);
            return;
        };
        let owner = self.owners.number(&owner(meta));
        self.owner.push(owner);
        let size = if let What::File { size, .. } = what { *size } else { 0 };
        let seconds = meta.mtime.map_or(0, |mtime| mtime.seconds.cast_unsigned());
        let micros = self.push_name(name, size, seconds);
        let mut form = 0;
        if let Some(mtime) = meta.mtime {
            form |= form::MTIME;
            self.seconds.push(seconds);
            self.nanos.push(u64::from(mtime.nanos));
            self.named_nanos.push(micros.wrapping_mul(1000));
        }
        form |= self.push_what(what, seconds);
        self.forms.push(form);
    }

    /// Takes a name and gives its second number: in a message's the microseconds.
    fn push_name(&mut self, name: &[u8], size: u64, seconds: u64) -> u64 {
        let (shape, numbers) = name::split(name);
        let shape = self.shapes.number(&shape);
        self.shape.push(shape);
        for (hole, &number) in self.holes.iter_mut().zip(&numbers) {
            hole.numbers.push(number);
            hole.sizes.push(size);
            hole.seconds.push(seconds);
        }
        numbers.get(1).copied().unwrap_or_default()
    }

    fn push_what(&mut self, what: &What, seconds: u64) -> u8 {
        match what {
            What::Directory => form::DIRECTORY,
            What::Symlink(target) => {
                self.targets.push(target);
                form::SYMLINK
            }
            What::File { size, group, check, place, envelope } => {
                self.sizes.push(*size);
                self.checks.extend_from_slice(check);
                let mut form = form::FILE;
                if *group != 0 {
                    form |= form::GROUP;
                    self.groups.push(*group);
                }
                if let Some(place) = place {
                    form |= form::PLACE;
                    self.push_place(*place);
                }
                if let Some(envelope) = envelope {
                    form |= self.push_envelope(envelope, seconds);
                }
                form
            }
        }
    }

    fn push_place(&mut self, place: Place) {
        self.segments.push(u64::from(place.segment));
        self.offsets.push(place.offset);
        let expected = expected_piece(self.place, place.segment, place.offset);
        self.pieces.push(zigzag(u64::from(place.piece).wrapping_sub(expected)));
        self.place = Some(place);
    }

    fn push_envelope(&mut self, envelope: &Envelope, seconds: u64) -> u8 {
        let id = envelope.message_id.as_bytes();
        let at = id.iter().rposition(|&byte| byte == b'@').unwrap_or(id.len());
        let (local, domain) = id.split_at(at);
        self.ids.push(local);
        let domain = self.domains.number(domain);
        self.domain.push(domain);
        let (from, to) = (envelope.from.as_bytes(), envelope.to.as_bytes());
        let (from, to) = (self.addresses.number(from), self.addresses.number(to));
        self.from.push(from);
        self.to.push(to);
        self.subjects.push(envelope.subject.as_bytes());
        match envelope.date {
            Some(date) => {
                self.dates.push(date.cast_unsigned());
                self.dated.push(seconds);
                form::ENVELOPE | form::DATE
            }
            None => form::ENVELOPE,
        }
    }

    /// The payload of the range.
    ///
    /// # Errors
    /// When zstd fails, which means no memory.
    pub(super) fn encode(&self) -> io::Result<Vec<u8>> {
        let mut packer = Packer::new()?;
        packer.varint(self.forms.len() as u64);
        packer.section(&self.forms)?;
        packer.dictionary(&self.directories)?;
        packer.numbers(&self.directory, &[])?;
        packer.dictionary(&self.shapes)?;
        packer.numbers(&self.shape, &[])?;
        packer.dictionary(&self.owners)?;
        packer.numbers(&self.owner, &[])?;
        packer.numbers(&self.sizes, &[])?;
        packer.numbers(&self.seconds, &[])?;
        for hole in &self.holes {
            packer.numbers(&hole.numbers, &[&hole.sizes, &hole.seconds])?;
        }
        packer.numbers(&self.nanos, &[&self.named_nanos])?;
        packer.words(&self.targets)?;
        packer.raw(&self.checks);
        packer.numbers(&self.groups, &[])?;
        self.encode_places(&mut packer)?;
        self.encode_envelopes(&mut packer)?;
        Ok(packer.finish())
    }

    fn encode_places(&self, packer: &mut Packer) -> io::Result<()> {
        packer.numbers(&self.segments, &[])?;
        packer.numbers(&self.offsets, &[])?;
        packer.numbers(&self.pieces, &[])
    }

    fn encode_envelopes(&self, packer: &mut Packer) -> io::Result<()> {
        packer.words(&self.ids)?;
        packer.dictionary(&self.domains)?;
        packer.numbers(&self.domain, &[])?;
        packer.dictionary(&self.addresses)?;
        packer.numbers(&self.from, &[])?;
        packer.numbers(&self.to, &[])?;
        packer.words(&self.subjects)?;
        packer.numbers(&self.dates, &[&self.dated])
    }
}

fn directory_and_name(path: &TreePath) -> (&[u8], &[u8]) {
    let bytes = path.as_bytes();
    match bytes.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (bytes.get(..at).unwrap_or_default(), path.name()),
        None => (&[], bytes),
    }
}

/// Permissions, owners and attributes as a word of a dictionary: files that have the same are many.
fn owner(meta: &Meta) -> Vec<u8> {
    let mut word = Vec::with_capacity(12);
    for number in [u64::from(meta.mode), meta.uid.into(), meta.gid.into()] {
        push_varint(&mut word, number);
    }
    for bytes in meta.xattrs.iter().flat_map(|xattr| [&xattr.name, &xattr.value]) {
        push_varint(&mut word, bytes.len() as u64);
        word.extend_from_slice(bytes);
    }
    word
}
