//! Putting a damaged point right: what its segments have lost is looked for in the mirror, and in other points.
//!
//! Nothing that is there is changed, since other points and the log link to the same files. What is left of a damaged
//! segment and what was found elsewhere goes into a new segment of the point's own; a new manifest, in which the records
//! lead there, takes the old one's place by a rename. Killed anywhere, the point is the old one or the new one. The new
//! segment stands at the end of the list of segments, so that a differential's places still mean what they meant; one
//! that has records of its own in the damaged segment is mended by itself.
//!
//! A content is known by its length and by the first eight bytes of its BLAKE3, as records are; whatever has the same is
//! believed to be the same, and nothing else is.

use super::contents::{ContentError, Contents};
use super::label::{PointKind, PointLabel};
use super::layout::{Repository, RepositoryError};
use super::manifest::{Header, Manifest, SegmentRef, Writer};
use super::own::{OwnSegment, Ticket};
use super::record::{Place, Record, What};
use super::verify::{self, Report, Wanted};
use super::view::{At, Renumbering, View};
use crate::disk::{FileKind, Root};
use crate::id::Digest;
use crate::log::history::History;
use crate::maildir::{folder, name};
use crate::path::TreePath;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;

type Result<T> = std::result::Result<T, RepositoryError>;

/// What was put right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mended {
    /// Contents that were damaged or missing, and are there again.
    pub contents: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Contents that were whole in a damaged segment, and now lie in one that is.
    pub moved: u64,
}

impl Mended {
    /// Adds what was put right later.
    pub fn add(&mut self, other: Mended) {
        self.contents += other.contents;
        self.bytes += other.bytes;
        self.moved += other.moved;
    }
}

/// Mends a point, and before it the full that it needs. The repository's lock must be held.
///
/// # Errors
/// Where the point cannot be read, or the disk refuses; the point is as it was then.
pub fn run(repository: &Repository, mirror: &Root, label: &PointLabel) -> Result<Mended> {
    let mut mended = Mended::default();
    if label.kind() == PointKind::Differential {
        mended.add(run(repository, mirror, &label.full_label())?);
    }
    tidy(repository, label)?;
    let report = verify::run(repository, label, None)?;
    if !report.is_whole() {
        mended.add(Mending::open(repository, mirror, label, &report)?.run()?);
    }
    Ok(mended)
}

const DRAFT: &str = "manifest.new";

/// Removes what a killed mending left: a draft, and a segment that the manifest does not name.
fn tidy(repository: &Repository, label: &PointLabel) -> Result<()> {
    let manifest = repository.manifest(label)?;
    let (root, directory) = repository.place(label);
    for entry in root.list(&directory, 64)?.0.entries {
        let name = std::str::from_utf8(entry.name.as_bytes()).unwrap_or_default();
        let number = u64::from_str_radix(name, 16).ok().filter(|number| OwnSegment::is_own(*number));
        let is_named = |number| manifest.header().segments.iter().any(|segment| segment.number == number);
        if name == DRAFT || number.is_some_and(|number| name.len() == 16 && !is_named(number)) {
            root.remove(&directory.join(&entry.name))?;
        }
    }
    Ok(())
}

/// A content that a point needs, and that lies in a damaged segment, or nowhere.
type Key = (Option<Place>, u64, [u8; 8]);

/// Messages by base name.
type Messages = HashMap<Vec<u8>, Vec<TreePath>>;

/// A point that is being mended.
struct Mending<'a> {
    repository: &'a Repository,
    mirror: &'a Root,
    label: &'a PointLabel,
    report: &'a Report,
    view: View,
    manifest: Manifest,
    renumbering: Renumbering,
    /// Files that bear the number of a broken segment elsewhere: with another point, or in the log.
    siblings: Contents,
    /// Which of them stand for which segment of the view.
    sibling_of: Vec<(u32, u32)>,
    /// Where messages of a mailbox of the mirror are, by base name.
    mailbox: Option<(TreePath, Messages)>,
}

impl<'a> Mending<'a> {
    fn open(repository: &'a Repository, mirror: &'a Root, label: &'a PointLabel, report: &'a Report) -> Result<Self> {
        let view = View::open(repository, &At::Point(*label))?;
        let manifest = repository.manifest(label)?;
        let renumbering = match label.kind() {
            PointKind::Full => Renumbering::default(),
            PointKind::Differential => {
                let full = repository.manifest(&label.full_label())?;
                Renumbering::of(&manifest.header().segments, &full.header().segments)
            }
        };
        let (siblings, sibling_of) = siblings(repository, &view, label, report)?;
        let mailbox = None;
        Ok(Self { repository, mirror, label, report, view, manifest, renumbering, siblings, sibling_of, mailbox })
    }

    fn run(mut self) -> Result<Mended> {
        let (root, directory) = self.repository.place(self.label);
        let own = OwnSegment::create_in(root, &directory)?;
        let mended = self.put_together(own);
        if !matches!(mended, Ok(Some(_))) {
            // What stays where even this fails is removed by the next mending, unless the manifest names it.
            tidy(self.repository, self.label)?;
        }
        Ok(mended?.unwrap_or_default())
    }

    /// `None` where nothing could be had.
    fn put_together(&mut self, mut own: OwnSegment) -> Result<Option<Mended>> {
        let mut needed = self.needed()?;
        let mut found: BTreeMap<Key, Ticket> = BTreeMap::new();
        for (key, paths) in &needed {
            if let Some(ticket) = self.fetch(key, paths, &mut own)? {
                found.insert(*key, ticket);
            }
        }
        // What is the same content is one.
        let alike: HashMap<(u64, [u8; 8]), Ticket> =
            found.iter().map(|(key, ticket)| ((key.1, key.2), *ticket)).collect();
        let again = needed.keys().filter_map(|key| Some((*key, *alike.get(&(key.1, key.2))?)));
        for (key, ticket) in again.collect::<Vec<_>>() {
            found.entry(key).or_insert(ticket);
        }
        needed.retain(|key, _| !found.contains_key(key));
        self.take_from_other_points(needed.into_keys().collect(), &mut found, &mut own)?;
        let (segment, places) = own.finish()?;
        let places = self.read_again(&segment, &found, &places);
        if places.is_empty() {
            return Ok(None);
        }
        self.replace_manifest(segment, &places)?;
        let mut mended = Mended::default();
        for (place, size, check) in places.into_keys() {
            match place.is_some_and(|place| !self.report.bad.contains(&(place, size, check))) {
                true => mended.moved += 1,
                false => {
                    mended.contents += 1;
                    mended.bytes += size;
                }
            }
        }
        Ok(Some(mended))
    }

    /// What has to go into a new segment, and the paths that have it.
    fn needed(&self) -> Result<BTreeMap<Key, Vec<TreePath>>> {
        let mut needed: BTreeMap<Key, Vec<TreePath>> = BTreeMap::new();
        for record in self.manifest.records(&[]) {
            let mut record = record?;
            self.renumbering.renumber(&mut record);
            if let Some(key) = key(&record).filter(|key| self.is_needed(key)) {
                needed.entry(key).or_default().push(record.path);
            }
        }
        Ok(needed)
    }

    fn is_needed(&self, (place, ..): &Key) -> bool {
        place.is_none_or(|place| self.report.broken.contains(&place.segment))
    }

    /// Copies a content from where it is whole: its own place, another link of the segment, or the mirror.
    fn fetch(&mut self, key: &Key, paths: &[TreePath], own: &mut OwnSegment) -> Result<Option<Ticket>> {
        let (place, size, check) = *key;
        if let Some(place) = place.filter(|place| !self.report.bad.contains(&(*place, size, check))) {
            return copy(own, &self.view.contents, (place, size, check));
        }
        for &(of, sibling) in &self.sibling_of {
            if let Some(place) = place.filter(|place| place.segment == of)
                && let Some(ticket) = copy(own, &self.siblings, (Place { segment: sibling, ..place }, size, check))?
            {
                return Ok(Some(ticket));
            }
        }
        for path in paths {
            if let Some(ticket) = self.take_from_mirror(path, size, check, own)? {
                return Ok(Some(ticket));
            }
        }
        for path in paths {
            for other in self.namesakes(path) {
                if let Some(ticket) = self.take_from_mirror(&other, size, check, own)? {
                    return Ok(Some(ticket));
                }
            }
        }
        Ok(None)
    }

    /// Copies a file of the mirror if it has this content; read twice, so that nothing wrong is begun.
    fn take_from_mirror(
        &self,
        path: &TreePath,
        size: u64,
        check: [u8; 8],
        own: &mut OwnSegment,
    ) -> Result<Option<Ticket>> {
        let is_one = matches!(self.mirror.stat(path), Ok(stat) if stat.kind == FileKind::File && stat.size == size);
        if !is_one || self.read_mirror(path, |_| Ok(()))?.is_none_or(|digest| digest.0[..8] != check) {
            return Ok(None);
        }
        let ticket = own.begin();
        let digest = self.read_mirror(path, |bytes| own.feed(ticket, bytes))?;
        let Some(digest) = digest.filter(|digest| digest.0[..8] == check) else { return Ok(None) };
        own.end(ticket, digest)?;
        Ok(Some(ticket))
    }

    /// Hands a file over, part by part; gives its digest, or nothing where it cannot be read.
    fn read_mirror(&self, path: &TreePath, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<Option<Digest>> {
        let Ok(mut file) = self.mirror.open_file(path) else { return Ok(None) };
        let (mut hasher, mut buffer) = (blake3::Hasher::new(), vec![0; 1 << 18]);
        loop {
            let Ok(length) = file.read(&mut buffer) else { return Ok(None) };
            if length == 0 {
                return Ok(Some(hasher.finalize().into()));
            }
            hasher.update(&buffer[..length]);
            each(&buffer[..length])?;
        }
    }

    /// Messages of the same base name in the mailbox, those in the same folder first.
    fn namesakes(&mut self, path: &TreePath) -> Vec<TreePath> {
        if !folder::holds_messages(path.parent().name()) {
            return Vec::new();
        }
        let home = path.parent().parent();
        let mailbox = self.mailbox_of(&home);
        if self.mailbox.as_ref().is_none_or(|(known, _)| *known != mailbox) {
            let mut messages = Messages::new();
            list_messages(self.mirror, &mailbox, &mut messages);
            self.mailbox = Some((mailbox, messages));
        }
        let known = self.mailbox.as_ref().and_then(|(_, messages)| messages.get(name::base(path.name())));
        let mut known = known.cloned().unwrap_or_default();
        known.sort_by_key(|other| !other.is_within(&home));
        known
    }

    /// The topmost folder above; or what holds it, where that is no folder itself.
    fn mailbox_of(&self, home: &TreePath) -> TreePath {
        let mut above = vec![home.clone()];
        while let Some((parent, _)) = above.last().and_then(TreePath::split) {
            above.push(parent);
        }
        let is_folder = |path: &&TreePath| matches!(self.mirror.stat_if_there(&path.child("cur")), Ok(Some(_)));
        match above.iter().rev().find(is_folder) {
            Some(top) if !top.name().starts_with(b".") => top.clone(),
            Some(top) => top.parent(),
            None if home.name().starts_with(b".") => home.parent(),
            None => home.clone(),
        }
    }

    /// What the mirror has no more may lie in another point, in a segment of that one's own.
    fn take_from_other_points(
        &self,
        mut lost: Vec<Key>,
        found: &mut BTreeMap<Key, Ticket>,
        own: &mut OwnSegment,
    ) -> Result<()> {
        for label in self.repository.labels()?.into_iter().rev().filter(|label| label != self.label) {
            if lost.is_empty() {
                return Ok(());
            }
            let Ok(view) = View::open(self.repository, &At::Point(label)) else { continue };
            let mut places: HashMap<(u64, [u8; 8]), Vec<Place>> = HashMap::new();
            let wanted: HashSet<(u64, [u8; 8])> = lost.iter().map(|(_, size, check)| (*size, *check)).collect();
            for record in view.beneath(&TreePath::root()).flatten() {
                if let Some((place, size, check)) =
                    verify::content(&record).filter(|one| wanted.contains(&(one.1, one.2)))
                {
                    places.entry((size, check)).or_default().push(place);
                }
            }
            let mut left = Vec::new();
            for key in lost {
                let mut ticket = None;
                for place in places.get(&(key.1, key.2)).into_iter().flatten() {
                    ticket = copy(own, &view.contents, (*place, key.1, key.2))?;
                    if ticket.is_some() {
                        break;
                    }
                }
                match ticket {
                    Some(ticket) => drop(found.insert(key, ticket)),
                    None => left.push(key),
                }
            }
            lost = left;
        }
        Ok(())
    }

    /// Where each content stands in the new segment: those that are right there, read from the disk.
    fn read_again(
        &self,
        segment: &SegmentRef,
        found: &BTreeMap<Key, Ticket>,
        places: &[(u64, u32)],
    ) -> BTreeMap<Key, (u64, u32)> {
        let (root, directory) = self.repository.place(self.label);
        let mut contents = Contents::default();
        contents.add(root, &directory.child(&History::name(segment.number)));
        let is_right = |(key, ticket): (&Key, &Ticket)| {
            let (offset, piece) = *places.get(*ticket)?;
            let mut length = 0;
            let read = contents.read(Place { segment: 0, offset, piece }, |_, bytes| {
                length += bytes.len() as u64;
                Ok::<_, ContentError>(())
            });
            let is_right = read.is_ok_and(|digest| digest.0[..8] == key.2) && length == key.1;
            is_right.then_some((*key, (offset, piece)))
        };
        found.iter().filter_map(is_right).collect()
    }

    fn replace_manifest(&self, segment: SegmentRef, places: &BTreeMap<Key, (u64, u32)>) -> Result<()> {
        let (root, directory) = self.repository.place(self.label);
        let (draft, manifest) = (directory.child(DRAFT), directory.child("manifest"));
        let before = self.manifest.header();
        let number = before.segments.len() as u32;
        let mut writer = Writer::new(root.create(&draft, 0o600)?);
        for record in self.manifest.records(&[]) {
            let mut record = record?;
            let mut renumbered = record.clone();
            self.renumbering.renumber(&mut renumbered);
            let new = key(&renumbered).and_then(|key| places.get(&key));
            if let (Some((offset, piece)), Some((_, What::File { place, .. }))) = (new, &mut record.state) {
                *place = Some(Place { segment: number, offset: *offset, piece: *piece });
            }
            writer.push(&record)?;
        }
        let mut segments = before.segments.clone();
        segments.push(segment);
        writer.finish(Header { segments, ..before.clone() })?;
        root.sync_directory(&directory)?;
        root.rename(&draft, &manifest)?;
        Ok(root.sync_directory(&directory)?)
    }
}

/// Where broken segments of a view lie elsewhere. What is one file is damaged there, too; a copy, or the rest of a link
/// that went, is not.
fn siblings(
    repository: &Repository,
    view: &View,
    label: &PointLabel,
    report: &Report,
) -> Result<(Contents, Vec<(u32, u32)>)> {
    let (mut contents, mut of) = (Contents::default(), Vec::new());
    let others: Vec<PointLabel> = repository.labels()?.into_iter().filter(|other| other != label).collect();
    for &index in &report.broken {
        let Some(segment) = view.segments.get(index as usize) else { continue };
        let path = TreePath::root().child(&History::name(segment.number));
        for other in &others {
            let (root, directory) = repository.place(other);
            let path = directory.child(&History::name(segment.number));
            if matches!(root.stat_if_there(&path), Ok(Some(_))) {
                of.push((index, contents.add(root, &path)));
            }
        }
        if let Some(history) = &repository.history
            && matches!(history.root().stat_if_there(&path), Ok(Some(_)))
        {
            of.push((index, contents.add(history.root(), &path)));
        }
    }
    Ok((contents, of))
}

fn key(record: &Record) -> Option<Key> {
    match &record.state {
        Some((_, What::File { place, size, check, .. })) => Some((*place, *size, *check)),
        _ => None,
    }
}

/// Why a content was not copied.
enum Uncopied {
    Damaged,
    Failed(RepositoryError),
}

impl From<ContentError> for Uncopied {
    fn from(_: ContentError) -> Self {
        Self::Damaged
    }
}

/// Copies a content; `None` where it is damaged there, too.
fn copy(own: &mut OwnSegment, from: &Contents, (place, size, check): Wanted) -> Result<Option<Ticket>> {
    let ticket = own.begin();
    let mut length = 0;
    let read = from.read(place, |_, bytes| {
        length += bytes.len() as u64;
        own.feed(ticket, bytes).map_err(Uncopied::Failed)
    });
    match read {
        Ok(digest) if digest.0[..8] == check && length == size => {
            own.end(ticket, digest)?;
            Ok(Some(ticket))
        }
        Ok(_) | Err(Uncopied::Damaged) => Ok(None),
        Err(Uncopied::Failed(error)) => Err(error),
    }
}

/// All messages beneath a directory of the mirror, by base name. What cannot be listed has none.
fn list_messages(mirror: &Root, directory: &TreePath, messages: &mut Messages) {
    let Ok((listing, _)) = mirror.list(directory, 1024) else { return };
    for entry in listing.entries {
        let path = directory.join(&entry.name);
        if folder::holds_messages(directory.name()) {
            messages.entry(name::base(entry.name.as_bytes()).to_vec()).or_default().push(path);
        } else if mirror.stat(&path).is_ok_and(|stat| stat.kind == FileKind::Directory) {
            list_messages(mirror, &path, messages);
        }
    }
}
