//! Columns into records: nothing in them is believed.

use super::column::{Input, Malformed, Vocabulary, zagzig};
use super::key;
use super::name::{self, HOLES};
use super::range::{MOST, WEIGHT_MAX, expected_piece, form};
use crate::maildir::entry::{Meta, Time, Xattr};
use crate::path::TreePath;
use crate::repository::envelope::Envelope;
use crate::repository::record::{Place, Record, What, xattr_weight};
use std::vec::IntoIter;

type Result<T> = std::result::Result<T, Malformed>;

/// The records of a range.
pub(super) fn records(payload: &[u8]) -> Result<Vec<Record>> {
    let mut input = Input::new(payload);
    let forms = forms(&mut input)?;
    let mut columns = Columns::read(&mut input, &forms)?;
    input.finish()?;
    let mut records: Vec<Record> = Vec::with_capacity(forms.len());
    let (mut weight, mut last) = (0, None);
    for form in forms {
        let record = columns.record(form)?;
        weight += record.weight();
        if weight > WEIGHT_MAX {
            return Err(Malformed("its records are too long"));
        }
        let key = key(&record.path);
        if last.is_some_and(|last| last >= key) {
            return Err(Malformed("its records are not in order"));
        }
        last = Some(key);
        records.push(record);
    }
    Ok(records)
}

fn forms(input: &mut Input<'_>) -> Result<Vec<u8>> {
    let count = input.count()?;
    let forms = input.section()?;
    if count == 0 || count > MOST || forms.len() != count {
        return Err(Malformed("the number of its records is wrong"));
    }
    match forms.iter().all(|&form| form::is_known(form)) {
        true => Ok(forms),
        false => Err(Malformed("a record is of an unknown form")),
    }
}

/// How many records have all of these bits.
fn number_of(forms: &[u8], bits: u8) -> usize {
    forms.iter().filter(|&&form| form & bits == bits).count()
}

/// One value for each record: the next of the column where the record has it, and 0 where not.
fn spread(forms: &[u8], bits: u8, column: &[u64]) -> Vec<u64> {
    let mut column = column.iter().copied();
    let value = |form: &u8| if form & bits == bits { column.next() } else { None };
    forms.iter().map(value).map(Option::unwrap_or_default).collect()
}

/// The values of the records that have all of these bits.
fn gathered(forms: &[u8], bits: u8, values: &[u64]) -> Vec<u64> {
    forms.iter().zip(values).filter(|(form, _)| **form & bits == bits).map(|(_, value)| *value).collect()
}

/// What is left of each column.
struct Columns {
    directories: Vocabulary,
    directory: IntoIter<u64>,
    names: Names,
    owners: Vec<Meta>,
    owner: IntoIter<u64>,
    sizes: IntoIter<u64>,
    seconds: IntoIter<u64>,
    nanos: IntoIter<u64>,
    targets: IntoIter<Vec<u8>>,
    checks: IntoIter<[u8; 8]>,
    groups: IntoIter<u64>,
    places: Places,
    envelopes: Envelopes,
}

fn next<T>(column: &mut IntoIter<T>) -> Result<T> {
    column.next().ok_or(Malformed("a column ends before its records"))
}

fn fits<T: TryFrom<u64>>(number: u64) -> Result<T> {
    T::try_from(number).map_err(|_| Malformed("a number is too large"))
}

impl Columns {
    fn read(input: &mut Input<'_>, forms: &[u8]) -> Result<Self> {
        let files = number_of(forms, form::FILE);
        let live = forms.iter().filter(|&&form| form != form::GONE).count();
        let directories = input.dictionary(forms.len())?;
        let directory = input.numbers(forms.len(), &[])?.into_iter();
        let shapes = input.dictionary(forms.len())?;
        let shape = input.numbers(forms.len(), &[])?;
        let owners = owners(&input.dictionary(live)?)?;
        let owner = input.numbers(live, &[])?.into_iter();
        let sizes = input.numbers(files, &[])?;
        let seconds = input.numbers(number_of(forms, form::MTIME), &[])?;
        let size_of = spread(forms, form::FILE, &sizes);
        let seconds_of = spread(forms, form::MTIME, &seconds);
        let names = Names::read(input, shapes, shape, &size_of, &seconds_of)?;
        let named_nanos = gathered(forms, form::MTIME, &names.nanos());
        Ok(Self {
            directories,
            directory,
            names,
            owners,
            owner,
            sizes: sizes.into_iter(),
            nanos: input.numbers(seconds.len(), &[&named_nanos])?.into_iter(),
            seconds: seconds.into_iter(),
            targets: targets(input, forms)?,
            checks: checks(input, files)?.into_iter(),
            groups: input.numbers(number_of(forms, form::GROUP), &[])?.into_iter(),
            places: Places::read(input, number_of(forms, form::PLACE))?,
            envelopes: Envelopes::read(input, forms, &seconds_of)?,
        })
    }

    /// The next record, which is of this form.
    fn record(&mut self, form: u8) -> Result<Record> {
        let path = self.path()?;
        if form == form::GONE {
            return Ok(Record { path, state: None });
        }
        let meta = self.meta(form)?;
        let what = match form & form::WHAT {
            form::DIRECTORY => What::Directory,
            form::SYMLINK => What::Symlink(next(&mut self.targets)?),
            _ => self.file(form)?,
        };
        Ok(Record { path, state: Some((meta, what)) })
    }

    fn path(&mut self) -> Result<TreePath> {
        let directory = self.directories.word(next(&mut self.directory)?)?;
        let mut path = Vec::with_capacity(directory.len() + 64);
        path.extend_from_slice(directory);
        if !directory.is_empty() {
            path.push(b'/');
        }
        let begin = path.len();
        self.names.push(&mut path)?;
        if path.get(begin..).unwrap_or_default().contains(&b'/') {
            return Err(Malformed("a name holds a slash"));
        }
        TreePath::new(&path).map_err(|_| Malformed("a path leads out of the set"))
    }

    fn meta(&mut self, form: u8) -> Result<Meta> {
        let number: usize = fits(next(&mut self.owner)?)?;
        let mut meta = self.owners.get(number).cloned().ok_or(Malformed("an owner is not in its dictionary"))?;
        if form & form::MTIME != 0 {
            let mtime = Time { seconds: next(&mut self.seconds)?.cast_signed(), nanos: fits(next(&mut self.nanos)?)? };
            meta.mtime = Some(mtime).filter(Time::is_valid);
            meta.mtime.ok_or(Malformed("a time has too many nanoseconds"))?;
        }
        Ok(meta)
    }

    fn file(&mut self, form: u8) -> Result<What> {
        let group = if form & form::GROUP != 0 { next(&mut self.groups)? } else { 0 };
        let place = if form & form::PLACE != 0 { Some(self.places.next()?) } else { None };
        let envelope = match form & form::ENVELOPE != 0 {
            true => Some(Box::new(self.envelopes.next(form & form::DATE != 0)?)),
            false => None,
        };
        Ok(What::File { size: next(&mut self.sizes)?, group, check: next(&mut self.checks)?, place, envelope })
    }
}

fn targets(input: &mut Input<'_>, forms: &[u8]) -> Result<IntoIter<Vec<u8>>> {
    let count = forms.iter().filter(|&&form| form & form::WHAT == form::SYMLINK).count();
    let targets: Vec<Vec<u8>> = input.words(count)?.iter().map(<[u8]>::to_vec).collect();
    Ok(targets.into_iter())
}

fn checks(input: &mut Input<'_>, files: usize) -> Result<Vec<[u8; 8]>> {
    let bytes = input.section()?;
    let (checks, rest) = bytes.as_chunks::<8>();
    match checks.len() == files && rest.is_empty() {
        true => Ok(checks.to_vec()),
        false => Err(Malformed("the number of checks is not that of files")),
    }
}

// ---- owners ----

fn owners(vocabulary: &Vocabulary) -> Result<Vec<Meta>> {
    let mut allowed = WEIGHT_MAX;
    vocabulary.iter().map(|word| owner(word, &mut allowed)).collect()
}

fn owner(word: &[u8], allowed: &mut usize) -> Result<Meta> {
    let mut input = Input::new(word);
    let (mode, uid, gid) = (fits(input.varint()?)?, fits(input.varint()?)?, fits(input.varint()?)?);
    let mut meta = Meta { mode, uid, gid, ..Meta::default() };
    while !input.is_empty() {
        let mut bytes = || -> Result<Vec<u8>> {
            let length = input.count()?;
            Ok(input.bytes(length)?.to_vec())
        };
        let xattr = Xattr { name: bytes()?, value: bytes()? };
        *allowed = allowed.checked_sub(xattr_weight(&xattr)).ok_or(Malformed("its attributes are too long"))?;
        meta.xattrs.push(xattr);
    }
    Ok(meta)
}

// ---- names ----

/// The names of the records: shapes, and the numbers in them.
struct Names {
    shapes: Vocabulary,
    shape: IntoIter<u64>,
    /// How many numbers each name has.
    wanted: Vec<usize>,
    holes: [IntoIter<u64>; HOLES],
}

impl Names {
    fn read(
        input: &mut Input<'_>,
        shapes: Vocabulary,
        shape: Vec<u64>,
        sizes: &[u64],
        seconds: &[u64],
    ) -> Result<Self> {
        let wanted = shape.iter().map(|&number| name::holes(shapes.word(number)?)).collect::<Result<Vec<_>>>()?;
        let mut holes: [IntoIter<u64>; HOLES] = Default::default();
        for (hole, numbers) in holes.iter_mut().enumerate() {
            let with = |values: &[u64]| -> Vec<u64> {
                wanted.iter().zip(values).filter(|(wanted, _)| **wanted > hole).map(|(_, value)| *value).collect()
            };
            let (sizes, seconds) = (with(sizes), with(seconds));
            *numbers = input.numbers(sizes.len(), &[&sizes, &seconds])?.into_iter();
        }
        Ok(Self { shapes, shape: shape.into_iter(), wanted, holes })
    }

    /// The second number of each name, in a message's the microseconds, as nanoseconds; 0 where there is none.
    fn nanos(&self) -> Vec<u64> {
        let mut micros = self.holes.get(1).map(IntoIter::as_slice).unwrap_or_default().iter();
        let nanos =
            |wanted: &usize| if *wanted > 1 { micros.next().map(|micros| micros.wrapping_mul(1000)) } else { None };
        self.wanted.iter().map(nanos).map(Option::unwrap_or_default).collect()
    }

    /// Puts the next name behind what `path` has.
    fn push(&mut self, path: &mut Vec<u8>) -> Result<()> {
        let shape = self.shapes.word(next(&mut self.shape)?)?;
        name::join(path, shape, self.holes.iter_mut().filter_map(Iterator::next));
        Ok(())
    }
}

// ---- places ----

struct Places {
    segments: IntoIter<u64>,
    offsets: IntoIter<u64>,
    pieces: IntoIter<u64>,
    last: Option<Place>,
}

impl Places {
    fn read(input: &mut Input<'_>, count: usize) -> Result<Self> {
        Ok(Self {
            segments: input.numbers(count, &[])?.into_iter(),
            offsets: input.numbers(count, &[])?.into_iter(),
            pieces: input.numbers(count, &[])?.into_iter(),
            last: None,
        })
    }

    fn next(&mut self) -> Result<Place> {
        let (segment, offset) = (fits(next(&mut self.segments)?)?, next(&mut self.offsets)?);
        let expected = expected_piece(self.last, segment, offset);
        let piece = fits(expected.wrapping_add(zagzig(next(&mut self.pieces)?)))?;
        Ok(*self.last.insert(Place { segment, offset, piece }))
    }
}

// ---- envelopes ----

struct Envelopes {
    ids: IntoIter<Vec<u8>>,
    domains: Vocabulary,
    domain: IntoIter<u64>,
    addresses: Vocabulary,
    from: IntoIter<u64>,
    to: IntoIter<u64>,
    subjects: IntoIter<Vec<u8>>,
    dates: IntoIter<u64>,
}

impl Envelopes {
    fn read(input: &mut Input<'_>, forms: &[u8], seconds: &[u64]) -> Result<Self> {
        let count = number_of(forms, form::ENVELOPE);
        let words = |input: &mut Input<'_>| -> Result<IntoIter<Vec<u8>>> {
            Ok(input.words(count)?.iter().map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter())
        };
        let dated = gathered(forms, form::DATE, seconds);
        Ok(Self {
            ids: words(input)?,
            domains: input.dictionary(count)?,
            domain: input.numbers(count, &[])?.into_iter(),
            addresses: input.dictionary(2 * count)?,
            from: input.numbers(count, &[])?.into_iter(),
            to: input.numbers(count, &[])?.into_iter(),
            subjects: words(input)?,
            dates: input.numbers(dated.len(), &[&dated])?.into_iter(),
        })
    }

    fn next(&mut self, has_date: bool) -> Result<Envelope> {
        let mut id = next(&mut self.ids)?;
        id.extend_from_slice(self.domains.word(next(&mut self.domain)?)?);
        let date = if has_date { Some(next(&mut self.dates)?.cast_signed()) } else { None };
        Ok(Envelope {
            message_id: text(id)?,
            from: text(self.addresses.word(next(&mut self.from)?)?.to_vec())?,
            to: text(self.addresses.word(next(&mut self.to)?)?.to_vec())?,
            subject: text(next(&mut self.subjects)?)?,
            date,
        })
    }
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Malformed("a text is not UTF-8"))
}
