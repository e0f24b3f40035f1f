//! What is mounted, as a tree of numbered nodes: the operations of a file system, and nothing of FUSE.
//!
//! ```text
//!  /                      the points, by label
//!  /latest                a link to the newest
//!  /now                   the newest moment that the log has
//!  /20261122-030000F/...  the set, as the point has it
//! ```
//!
//! What is beneath a point never changes. What is at the top does, and what is beneath `now`.

use super::file::{Cache, OpenFile};
use super::nodes::{LATEST, Node, Nodes, ROOT};
use super::views::{Opened, ViewError, Views, Which};
use crate::disk;
use crate::id::Digest;
use crate::maildir::entry::{Meta, Time};
use crate::monitor::{Event, Monitor, Problem};
use crate::path::{Name, TreePath};
use crate::repository::label::PointLabel;
use crate::repository::layout::RepositoryError;
use crate::repository::record::What;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

/// Why an operation is refused; each is one error of the system's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing has this name.
    #[error("nothing has this name")]
    Missing,
    /// It was there, and its point has gone.
    #[error("its restore point has gone")]
    Stale,
    /// It is no directory.
    #[error("it is no directory")]
    NotADirectory,
    /// It is no file.
    #[error("it is a directory")]
    IsADirectory,
    /// It is no symbolic link.
    #[error("it is no symbolic link")]
    NotALink,
    /// It has no such attribute.
    #[error("it has no such attribute")]
    NoAttribute,
    /// It cannot be read; why has been said.
    #[error("it is damaged")]
    Damaged,
}

type Result<T> = std::result::Result<T, Refusal>;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
}

/// For how long what was told of a node is true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// As long as the mount.
    Always,
    /// Until somebody makes or expires a point, or the log grows.
    AWhile,
    /// It was a guess: whoever wants it looks it up.
    Not,
}

/// What `stat` tells of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Its number.
    pub number: u64,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, without those to write.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Names of a file. 1 for a directory, which says nothing of how many directories are in it.
    pub links: u32,
    /// Modification time; that of the moment where none is kept.
    pub mtime: Time,
    /// For how long this is so.
    pub lasting: Lasting,
}

/// A name in a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// What it is.
    pub attributes: Attributes,
    group: u64,
}

/// The names in a directory.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// What is there.
    pub entries: Vec<Entry>,
    /// Part of it could not be read: what is there is not all.
    pub is_damaged: bool,
    /// Which directory it is; `None` at the top.
    directory: Option<(Which, TreePath)>,
}

impl Listing {
    /// What the name of an entry means; `None` for the link at the top.
    fn node(&self, entry: &Entry) -> Option<Node> {
        match &self.directory {
            Some((which, directory)) => {
                let path = directory.join(&Name::new(&entry.name).ok()?);
                Some(Node { which: *which, path, group: entry.group })
            }
            None => Which::named(&entry.name).map(Node::top),
        }
    }
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in files.
    pub bytes: u64,
    /// Files and directories.
    pub files: u64,
}

/// What a number stands for.
enum Meant {
    Root,
    Latest,
    Node(Node),
}

/// Complaints that are remembered, so that each is made once.
const SAID_MAX: usize = 10_000;

/// The tree of all points.
pub struct Tree {
    views: Views,
    nodes: Nodes,
    contents: Cache,
    monitor: Arc<dyn Monitor>,
    /// What was said already.
    said: Mutex<HashSet<Digest>>,
    owner: (u32, u32),
    began: Time,
}

impl Tree {
    /// The tree of what a repository has; its top belongs to `owner`. What is damaged is told the monitor, once.
    pub fn new(views: Views, owner: (u32, u32), monitor: Arc<dyn Monitor>) -> Self {
        let (nodes, contents) = (Nodes::default(), Cache::default());
        Self { views, nodes, contents, monitor, said: Mutex::default(), owner, began: disk::now() }
    }

    /// The points and their views.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// What the kernel knows.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    // ---- operations ----

    /// Looks up a name in a directory. The kernel knows it from here on, until it is told to [`Nodes::forget`] it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn look_up(&self, parent: u64, name: &[u8]) -> Result<Attributes> {
        let node = match self.meant(parent)? {
            Meant::Latest => return Err(Refusal::NotADirectory),
            Meant::Root if name == LATEST_NAME => return self.latest().map(|label| self.link_to(&label)),
            Meant::Root => self.top_node(name)?,
            Meant::Node(node) => {
                let name = Name::new(name).map_err(|_| Refusal::Missing)?;
                Node { path: node.path.join(&name), group: 0, ..node }
            }
        };
        let (mut attributes, node) = self.look_at(node).map_err(|refusal| match refusal {
            Refusal::Stale => Refusal::Missing,
            other => other,
        })?;
        attributes.number = self.nodes.enter(node);
        Ok(attributes)
    }

    /// Looks up an entry of a listing, for a kernel that is given names and attributes at once.
    pub fn enter(&self, listing: &Listing, entry: &Entry) -> Attributes {
        let number = listing.node(entry).map_or(entry.attributes.number, |node| self.nodes.enter(node));
        Attributes { number, ..entry.attributes }
    }

    /// What a node is.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn attributes(&self, number: u64) -> Result<Attributes> {
        match self.meant(number)? {
            Meant::Root => Ok(self.root()),
            Meant::Latest => self.latest().map(|label| self.link_to(&label)),
            Meant::Node(node) => Ok(Attributes { number, ..self.look_at(node)?.0 }),
        }
    }

    /// What is in a directory, itself and the one above it left out.
    ///
    /// # Errors
    /// [`Refusal`]. Where part of it is damaged, the listing says so.
    pub fn list(&self, number: u64) -> Result<Listing> {
        match self.meant(number)? {
            Meant::Root => self.list_root(),
            Meant::Latest => Err(Refusal::NotADirectory),
            Meant::Node(node) => self.list_node(&node),
        }
    }

    /// Where a symbolic link points.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn read_link(&self, number: u64) -> Result<Vec<u8>> {
        match self.meant(number)? {
            Meant::Root => Err(Refusal::NotALink),
            Meant::Latest => Ok(self.latest()?.to_string().into_bytes()),
            Meant::Node(node) => match self.found(&node)? {
                (_, _, What::Symlink(target)) => Ok(target),
                _ => Err(Refusal::NotALink),
            },
        }
    }

    /// Opens a file.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn open(&self, number: u64) -> Result<(OpenFile, Lasting)> {
        let Meant::Node(node) = self.meant(number)? else { return Err(Refusal::IsADirectory) };
        let (opened, meta, what) = self.found(&node)?;
        let file = OpenFile::new(opened, node.path, meta, what).ok_or(Refusal::IsADirectory)?;
        Ok((file, lasting(node.which)))
    }

    /// Reads up to `length` bytes of an open file.
    ///
    /// # Errors
    /// [`Refusal::Damaged`] where the content is not what it was.
    pub fn read(&self, file: &OpenFile, offset: u64, length: usize) -> Result<Vec<u8>> {
        file.read(&self.contents, offset, length).map_err(|error| {
            self.complain(format!("{}/{}", file.which(), file.path()), error.to_string());
            Refusal::Damaged
        })
    }

    /// The names of a node's extended attributes, each with a zero behind it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn xattrs(&self, number: u64) -> Result<Vec<u8>> {
        let names = self.meta(number)?.xattrs.into_iter().flat_map(|xattr| xattr.name.into_iter().chain([0]));
        Ok(names.collect())
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn xattr(&self, number: u64, name: &[u8]) -> Result<Vec<u8>> {
        let xattrs = self.meta(number)?.xattrs;
        xattrs.into_iter().find(|xattr| xattr.name == name).map(|xattr| xattr.value).ok_or(Refusal::NoAttribute)
    }

    /// How much there is in the point that a node lies in; at the top and in `now`, in the newest point.
    pub fn usage(&self, number: u64) -> Usage {
        let label = match self.meant(number) {
            Ok(Meant::Node(Node { which: Which::Point(label), .. })) => Some(label),
            _ => self.latest().ok(),
        };
        let counts = label.and_then(|label| self.views.top(&label).ok()).unwrap_or_default().counts;
        Usage { bytes: counts.bytes, files: counts.files.saturating_add(counts.directories) }
    }

    // ---- the top ----

    fn root(&self) -> Attributes {
        self.at_the_top(ROOT, Kind::Directory, 0o555, 0, self.began)
    }

    fn link_to(&self, label: &PointLabel) -> Attributes {
        self.at_the_top(LATEST, Kind::Symlink, 0o777, label.to_string().len() as u64, label.moment())
    }

    fn at_the_top(&self, number: u64, kind: Kind, mode: u16, size: u64, mtime: Time) -> Attributes {
        let ((uid, gid), lasting) = (self.owner, Lasting::AWhile);
        Attributes { number, kind, mode, uid, gid, size, links: 1, mtime, lasting }
    }

    fn labels(&self) -> Result<Vec<PointLabel>> {
        self.views.labels().map_err(|error| self.unreadable("", &error))
    }

    fn latest(&self) -> Result<PointLabel> {
        self.labels()?.last().copied().ok_or(Refusal::Missing)
    }

    fn has_now(&self) -> Result<bool> {
        self.views.has_now().map_err(|error| self.unreadable("", &error))
    }

    fn top_node(&self, name: &[u8]) -> Result<Node> {
        let which = Which::named(name).ok_or(Refusal::Missing)?;
        let is_there = match which {
            Which::Point(label) => self.labels()?.contains(&label),
            Which::Now => self.has_now()?,
        };
        if is_there { Ok(Node::top(which)) } else { Err(Refusal::Missing) }
    }

    fn list_root(&self) -> Result<Listing> {
        let labels = self.labels()?;
        let mut listing = Listing::default();
        let mut push = |name: String, attributes: Attributes| {
            listing.entries.push(Entry { name: name.into_bytes(), attributes, group: 0 });
        };
        for label in &labels {
            let which = Which::Point(*label);
            // One that has gone since is not there any more.
            let Ok(meta) = self.top_of(which) else { continue };
            push(label.to_string(), self.describe(&Node::top(which), None, &meta, &What::Directory));
        }
        let Some(newest) = labels.last() else { return Ok(listing) };
        push("latest".to_owned(), self.link_to(newest));
        if self.has_now()?
            && let Ok(meta) = self.top_of(Which::Point(*newest))
        {
            // The log is not read for a listing.
            let guess = self.describe(&Node::top(Which::Now), None, &meta, &What::Directory);
            push("now".to_owned(), Attributes { lasting: Lasting::Not, ..guess });
        }
        Ok(listing)
    }

    /// What the root of a set is in a moment. Where that cannot be read, nobody but the owner may look into it.
    fn top_of(&self, which: Which) -> Result<Meta> {
        let found = match which {
            Which::Point(label) => self.views.top(&label),
            Which::Now => return self.found(&Node::top(which)).map(|(_, meta, _)| meta),
        };
        match found {
            Ok(top) => Ok(top.meta),
            Err(ViewError::Gone) => Err(Refusal::Stale),
            Err(ViewError::Repository(error)) => {
                self.unreadable(&which.to_string(), &error);
                Ok(Meta { mode: 0o500, uid: self.owner.0, gid: self.owner.1, ..Meta::default() })
            }
        }
    }

    // ---- beneath ----

    fn meant(&self, number: u64) -> Result<Meant> {
        match number {
            ROOT => Ok(Meant::Root),
            LATEST => Ok(Meant::Latest),
            number => self.nodes.get(number).map(Meant::Node).ok_or(Refusal::Stale),
        }
    }

    fn view(&self, which: Which) -> Result<Arc<Opened>> {
        let opened = self.views.view(which).map_err(|error| match error {
            ViewError::Gone => Refusal::Stale,
            ViewError::Repository(error) => self.unreadable(&which.to_string(), &error),
        })?;
        for problem in &opened.view.problems {
            self.complain(which.to_string(), problem.clone());
        }
        Ok(opened)
    }

    fn found(&self, node: &Node) -> Result<(Arc<Opened>, Meta, What)> {
        let opened = self.view(node.which)?;
        match opened.view.find(&node.path) {
            Ok(Some((meta, what))) => Ok((opened, meta, what)),
            Ok(None) if node.path.is_root() => Ok((opened, Meta { mode: 0o500, ..Meta::default() }, What::Directory)),
            Ok(None) => Err(Refusal::Missing),
            Err(error) => Err(self.unreadable(&format!("{}/{}", node.which, node.path), &error)),
        }
    }

    fn meta(&self, number: u64) -> Result<Meta> {
        match self.meant(number)? {
            Meant::Root | Meant::Latest => Ok(Meta::default()),
            Meant::Node(node) if node.path.is_root() => self.top_of(node.which),
            Meant::Node(node) => self.found(&node).map(|(_, meta, _)| meta),
        }
    }

    fn look_at(&self, node: Node) -> Result<(Attributes, Node)> {
        if node.path.is_root() {
            let meta = self.top_of(node.which)?;
            return Ok((self.describe(&node, None, &meta, &What::Directory), node));
        }
        let (opened, meta, what) = self.found(&node)?;
        let node = Node { group: group(&what), ..node };
        Ok((self.describe(&node, Some(&opened), &meta, &what), node))
    }

    fn list_node(&self, directory: &Node) -> Result<Listing> {
        let opened = self.view(directory.which)?;
        let place = (directory.which, directory.path.clone());
        let mut listing = Listing { directory: Some(place), ..Listing::default() };
        for record in opened.view.children(&directory.path) {
            match record {
                Ok(record) => {
                    let Some((meta, what)) = &record.state else { continue };
                    let name = record.path.name().to_vec();
                    let node = Node { which: directory.which, group: group(what), path: record.path };
                    let attributes = self.describe(&node, Some(&opened), meta, what);
                    listing.entries.push(Entry { name, attributes, group: node.group });
                }
                Err(error) => {
                    self.unreadable(&format!("{}/{}", directory.which, directory.path), &error);
                    listing.is_damaged = true;
                }
            }
        }
        if listing.entries.is_empty() && !listing.is_damaged {
            match self.found(directory)? {
                (_, _, What::Directory) => {}
                _ => return Err(Refusal::NotADirectory),
            }
        }
        Ok(listing)
    }

    fn describe(&self, node: &Node, opened: Option<&Opened>, meta: &Meta, what: &What) -> Attributes {
        let (kind, mode, size) = match what {
            What::Directory => (Kind::Directory, meta.mode & !0o222, 0),
            What::Symlink(target) => (Kind::Symlink, 0o777, target.len() as u64),
            What::File { size, .. } => (Kind::File, meta.mode & !0o222, *size),
        };
        let lasting = match node.path.is_root() {
            true => Lasting::AWhile,
            false => lasting(node.which),
        };
        let moment = match (node.which, opened) {
            (_, Some(opened)) => opened.view.moment,
            (Which::Point(label), None) => label.moment(),
            (Which::Now, None) => self.began,
        };
        Attributes {
            number: node.number(),
            kind,
            mode,
            uid: meta.uid,
            gid: meta.gid,
            size,
            links: opened.map_or(1, |opened| opened.links(node.group)),
            mtime: meta.mtime.unwrap_or(moment),
            lasting,
        }
    }

    // ---- complaints ----

    fn unreadable(&self, what: &str, error: &RepositoryError) -> Refusal {
        self.complain(what.to_owned(), error.to_string());
        Refusal::Damaged
    }

    /// Says what is wrong, once.
    fn complain(&self, subject: String, reason: String) {
        let digest = Digest::of(format!("{subject}\0{reason}").as_bytes());
        let is_new = {
            let mut said = self.said.lock().unwrap_or_else(|poison| poison.into_inner());
            said.len() < SAID_MAX && said.insert(digest)
        };
        if is_new {
            self.monitor.event(Event::Problem(Problem { subject, reason }));
        }
    }
}

const LATEST_NAME: &[u8] = b"latest";

fn lasting(which: Which) -> Lasting {
    match which {
        Which::Point(_) => Lasting::Always,
        Which::Now => Lasting::AWhile,
    }
}

fn group(what: &What) -> u64 {
    match what {
        What::File { group, .. } => *group,
        _ => 0,
    }
}
