//! Turning what was planned and read into changes, in order: each is made in the catalogue and goes into the batch.
//!
//! The tree and the catalogue may have moved on since the plan: what no longer fits is left to the next cycle.

use super::{Cycle, Pending, Result};
use crate::catalogue::scan::{Found, mark};
use crate::disk::{self, DiskError};
use crate::maildir::change::{Change, Source};
use crate::maildir::entry::{File, Kind, Known, Meta};
use crate::maildir::folder;
use crate::monitor::Event;
use crate::path::TreePath;
use crate::sync::plan::{self, Step};
use crate::sync::read::{Answer, Content, Outcome, Output, Shipped, WHOLE_MAX};
use crate::sync::{SyncError, staging};
use crate::wire::block::{self, Block, Piece};
use std::collections::VecDeque;

impl Cycle<'_, '_> {
    pub(super) fn finish_oldest(&mut self) -> Result<()> {
        let Some(pending) = self.pending.pop_front() else { return Ok(()) };
        let Pending { steps, shipment, answers } = pending;
        let mut read = self.take_answers(answers)?;
        let mut changes = Vec::with_capacity(steps.len());
        for step in steps {
            self.finish_step(step, &mut read, &mut changes)?;
        }
        for (path, local) in shipment.learned {
            self.edit.note(&path, local)?;
        }
        for (path, look) in shipment.looks {
            self.edit.looked(&path, Some(look))?;
        }
        for path in std::mem::take(&mut self.unread) {
            // What could not be read now is looked for again, though its directory does not change.
            self.edit.looked(&path.parent(), None)?;
        }
        self.edit.flush()?;
        self.in_flight -= shipment.bytes;
        let messages = changes.iter().filter(|change| self.is_new_message(change)).count() as u64;
        self.monitor.event(Event::Done { messages, bytes: shipment.bytes });
        match changes.is_empty() {
            true => Ok(()),
            false => self.sink.batch(&changes),
        }
    }

    fn is_new_message(&self, change: &Change) -> bool {
        matches!(change, Change::Put { path, .. } if folder::is_message(self.options.rules.kind, path))
    }

    /// Sends the blocks on, and collects what became of each file.
    fn take_answers(&mut self, answers: Vec<Answer>) -> Result<VecDeque<(Found, Outcome)>> {
        let mut read = VecDeque::new();
        for answer in answers {
            loop {
                match answer.recv() {
                    Ok(Output::Block(payload)) => self.sink.block(payload)?,
                    Ok(Output::Outcomes(outcomes)) => {
                        read.extend(outcomes);
                        break;
                    }
                    Err(_) => return Err(SyncError::Failed("a thread that reads files ended early".into())),
                }
            }
        }
        Ok(read)
    }

    fn finish_step(
        &mut self,
        step: Step,
        read: &mut VecDeque<(Found, Outcome)>,
        changes: &mut Vec<Change>,
    ) -> Result<()> {
        match step {
            Step::Change(change) => self.settle_change(change, changes),
            Step::Content(found) if found.target.is_some() => self.finish_symlink(found, changes),
            Step::Content(found) if self.options.plans_only => self.finish_planned(found, changes),
            Step::Content(_) => match read.pop_front() {
                Some((found, outcome)) => self.finish_content(found, outcome, changes),
                None => Err(SyncError::Failed("a file was planned and not read".into())),
            },
            Step::Linked(found) => self.finish_linked(found, changes),
            Step::Gone(path, known) => self.finish_gone(path, &known, changes),
        }
    }

    /// Puts a change into the batch, if it fits the catalogue as it is now.
    fn settle_change(&mut self, change: Change, changes: &mut Vec<Change>) -> Result<()> {
        let is_moot = match &change {
            // Its directory has been removed or renamed since; the next cycle sees what became of it.
            Change::Put { path, .. } | Change::Symlink { path, .. } | Change::Link { path, .. }
                if self.edit.directory(&path.parent())?.is_none() =>
            {
                true
            }
            Change::MakeDirectory { path, .. } if !path.is_root() => self.edit.directory(&path.parent())?.is_none(),
            Change::Rename { from, to, .. } => {
                self.edit.known(from)?.is_none() || self.edit.directory(&to.parent())?.is_none()
            }
            Change::SetMeta { path, .. } | Change::Forget { path } | Change::Remove { path, .. } => {
                self.edit.known(path)?.is_none()
            }
            _ => false,
        };
        if is_moot {
            return Ok(());
        }
        let is_new = match &change {
            Change::MakeDirectory { path, .. } => self.edit.directory(path)?.is_none(),
            Change::Put { path, .. } | Change::Symlink { path, .. } => self.edit.known(path)?.is_none(),
            _ => true,
        };
        if let Change::RemoveDirectory { path } = &change {
            self.count_removed_directory(&path.clone())?;
            self.cursor.stale = true;
        }
        self.edit.apply(&change)?;
        self.count(&change, is_new);
        changes.push(change);
        Ok(())
    }

    fn finish_symlink(&mut self, found: Found, changes: &mut Vec<Change>) -> Result<()> {
        let local = self.scanner.local(&found.path, &found.stat);
        let target = found.target.unwrap_or_default();
        let path = found.path;
        let before = found.known.map(|known| known.entry);
        let is_same = before.as_ref().is_some_and(|entry| entry.kind == Kind::Symlink(target.clone()));
        if !is_same {
            self.settle_change(Change::Symlink { path: path.clone(), meta: found.meta, target }, changes)?;
        } else if before.is_some_and(|entry| entry.meta != found.meta) {
            self.settle_change(Change::SetMeta { path: path.clone(), meta: found.meta, group: 0 }, changes)?;
        }
        Ok(self.edit.note(&path, local)?)
    }

    /// A dry run: what a file will become, as far as can be said without reading it all.
    fn finish_planned(&mut self, found: Found, changes: &mut Vec<Change>) -> Result<()> {
        if self.is_unchanged(&found) {
            return Ok(());
        }
        let file = File { size: found.stat.size, ..File::default() };
        let source = Source::Shipped(0);
        self.counters.bytes_content += found.stat.size;
        self.settle_change(Change::Put { path: found.path, meta: found.meta, file, source }, changes)
    }

    /// Whether a file of which only the change time moved has the content that is recorded.
    fn is_unchanged(&self, found: &Found) -> bool {
        let Some(known) = found.known.as_ref().filter(|known| known.entry.mark() == mark(&found.stat)) else {
            return false;
        };
        let digest = match &found.captured {
            Some(bytes) => Some(crate::id::Digest::of(bytes)),
            None => self.options.root.open_file(&found.path).ok().and_then(|mut file| staging::hash(&mut file).ok()),
        };
        digest.is_some() && known.entry.file().map(|file| file.digest) == digest
    }

    fn finish_content(&mut self, found: Found, outcome: Outcome, changes: &mut Vec<Change>) -> Result<()> {
        match outcome {
            Outcome::Read(content) => self.finish_read(found, *content, changes),
            // Expunged since it was seen: the next cycle finds its folder changed.
            Outcome::Gone => Ok(()),
            Outcome::Restless => {
                self.unread.push(found.path.clone());
                let reason = "it changed while it was read; the next run tries again".to_owned();
                self.problem(self.options.root.show(&found.path), reason);
                Ok(())
            }
            Outcome::Failed(error) => {
                self.unread.push(found.path);
                self.problem(error.path.clone(), format!("{}: {}", error.operation, error.source));
                Ok(())
            }
        }
    }

    fn finish_read(&mut self, found: Found, content: Content, changes: &mut Vec<Change>) -> Result<()> {
        let Content { stat, xattrs, digest, shipped, signature } = content;
        let path = found.path.clone();
        let mut meta = found.meta.clone();
        meta.xattrs = xattrs;
        meta.mtime = Some(stat.mtime);
        let before = found.known.as_ref().and_then(|known| known.entry.file());
        let group = match (stat.links > 1, before) {
            (false, _) => 0,
            // On a mirror the groups are those that the master gave; its inode numbers are its own.
            (true, Some(before)) if self.options.rules.trust_names && before.group != 0 => before.group,
            (true, _) => group_of(&stat),
        };
        let file = File { size: stat.size, digest, group };
        let local = self.scanner.local(&path, &stat);
        if shipped == Shipped::Same {
            let was_linked =
                found.known.as_ref().and_then(|known| known.entry.file()).is_some_and(|file| file.group != 0);
            let is_another =
                found.known.as_ref().is_some_and(|known| known.local.ino != 0 && known.local.ino != stat.ino);
            if is_another && (was_linked || self.moved.contains(&path)) {
                // The same bytes in a file of its own: what it is a link of on the mirror, since it was recorded or in this
                // cycle, must not change with it.
                let source = Source::Copied(path.clone());
                self.settle_change(Change::Put { path: path.clone(), meta, file, source }, changes)?;
                return Ok(self.edit.note(&path, local)?);
            }
            let before = found.known.as_ref().map(|known| (&known.entry.meta, known.entry.file()));
            if before != Some((&meta, Some(&file))) {
                let change = Change::SetMeta { path: path.clone(), meta, group };
                self.settle_change(change, changes)?;
            }
            return Ok(self.edit.note(&path, local)?);
        }
        let source = match shipped {
            Shipped::Delta(bytes) => {
                self.counters.bytes_content += bytes;
                Source::Delta(found.number)
            }
            Shipped::Known => match self.edit.find_content(&digest, &path)? {
                Some((original, _)) => Source::Copied(original),
                None => return self.ship_now(found, meta, group, changes),
            },
            Shipped::Whole(bytes) => {
                self.counters.bytes_content += bytes;
                Source::Shipped(found.number)
            }
            Shipped::Same | Shipped::Nothing => Source::Shipped(0),
        };
        self.settle_change(Change::Put { path: path.clone(), meta, file, source }, changes)?;
        self.edit.note(&path, local)?;
        if let Some(signature) = signature {
            self.edit.set_signature(&path, &digest, &signature)?;
        }
        Ok(())
    }

    /// Reads a small file on this thread and ships it raw: where a shortcut turned out not to lead anywhere.
    /// A large one goes to the readers, which take no shortcut for it.
    fn ship_now(&mut self, mut found: Found, mut meta: Meta, group: u64, changes: &mut Vec<Change>) -> Result<()> {
        use std::io::Read;
        use std::os::fd::AsFd;
        if found.stat.size > WHOLE_MAX {
            let request = self.request(&mut found)?;
            let answer = self.pool.submit(vec![request]);
            let read = self.take_answers(vec![answer])?;
            for (found, outcome) in read {
                self.finish_content(found, outcome, changes)?;
            }
            return Ok(());
        }
        let path = found.path.clone();
        let mut bytes = Vec::new();
        let opened = self.options.root.open_file(&path);
        let read = opened.and_then(|file| {
            let failed = |source| DiskError { operation: "cannot read", path: self.options.root.show(&path), source };
            meta.xattrs = disk::read_xattrs(file.as_fd()).map_err(failed)?;
            file.take(2 * WHOLE_MAX).read_to_end(&mut bytes).map_err(failed)
        });
        if let Err(error) = read {
            self.unread.push(path);
            if !error.is_not_found() {
                self.problem(error.path.clone(), format!("{}: {}", error.operation, error.source));
            }
            return Ok(());
        }
        self.next_number += 1;
        found.number = self.next_number;
        let digest = crate::id::Digest::of(&bytes);
        self.ship_pieces(found.number, &bytes, digest)?;
        self.counters.bytes_content += bytes.len() as u64;
        let file = File { size: bytes.len() as u64, digest, group };
        let source = Source::Shipped(found.number);
        let local = self.scanner.local(&path, &found.stat);
        self.settle_change(Change::Put { path: path.clone(), meta, file, source }, changes)?;
        Ok(self.edit.note(&path, local)?)
    }

    fn ship_pieces(&mut self, number: u64, bytes: &[u8], digest: crate::id::Digest) -> Result<()> {
        let mut offset = 0;
        loop {
            let end = (offset + block::TARGET).min(bytes.len());
            let last = (end == bytes.len()).then_some(digest);
            let length = (end - offset) as u32;
            let piece = Piece { number, offset: offset as u64, length, last, sparse: false };
            let block = Block { pieces: vec![piece], data: bytes[offset..end].to_vec() };
            let failed = |error: std::io::Error| SyncError::Failed(format!("a block cannot be packed: {error}"));
            self.sink.block(block.encode(self.options.level).map_err(failed)?)?;
            offset = end;
            if last.is_some() {
                return Ok(());
            }
        }
    }

    fn finish_linked(&mut self, found: Found, changes: &mut Vec<Change>) -> Result<()> {
        let Some((existing, known)) = self.original(&found)? else {
            if let Some(known) = self.edit.known(&found.path)?
                && (known.local.ino, known.entry.mark()) == (found.stat.ino, mark(&found.stat))
            {
                // The inode is known by this name alone, and nothing about it changed.
                return Ok(self.edit.note(&found.path, self.scanner.local(&found.path, &found.stat))?);
            }
            if self.options.plans_only {
                return self.finish_planned(found, changes);
            }
            let group = if found.stat.links > 1 { group_of(&found.stat) } else { 0 };
            let meta = found.meta.clone();
            return self.ship_now(found, meta, group, changes);
        };
        let was = known.entry.file().map_or(0, |file| file.group);
        let before = found.known.as_ref().and_then(|known| known.entry.file());
        if was != 0 && before == known.entry.file() {
            // Both names are links of each other already.
            return Ok(self.edit.note(&found.path, self.scanner.local(&found.path, &found.stat))?);
        }
        let group = if found.stat.links > 1 { group_of(&found.stat) } else { was };
        let path = found.path.clone();
        if found.stat.links == 1 {
            self.moved.insert(existing.clone());
        }
        // The group of the existing name may change, in a directory whose row was read ahead.
        self.cursor.stale = self.cursor.stale || was != group;
        let link = Change::Link { path: path.clone(), existing, group, mark: known.entry.mark() };
        self.settle_change(link, changes)?;
        if found.meta.mode != known.entry.meta.mode
            || (found.meta.uid, found.meta.gid) != (known.entry.meta.uid, known.entry.meta.gid)
        {
            let meta = Meta { xattrs: known.entry.meta.xattrs.clone(), ..found.meta.clone() };
            self.settle_change(Change::SetMeta { path: path.clone(), meta, group }, changes)?;
        }
        Ok(self.edit.note(&path, self.scanner.local(&path, &found.stat))?)
    }

    fn finish_gone(&mut self, path: TreePath, known: &Known, changes: &mut Vec<Change>) -> Result<()> {
        let is_there = match known.entry.kind {
            Kind::Directory => self.edit.directory(&path)?.is_some(),
            _ => self.edit.known(&path)?.is_some_and(|now| now.entry.mark() == known.entry.mark()),
        };
        match is_there {
            true => self.settle_change(plan::removal(path, known), changes),
            false => Ok(()),
        }
    }
}

/// The hard-link group of an inode: never 0, and the same for each of its names.
fn group_of(stat: &crate::disk::Stat) -> u64 {
    let hash = crate::id::Digest::of(&[stat.device.to_le_bytes(), stat.ino.to_le_bytes()].concat());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.0[..8]);
    u64::from_le_bytes(first).max(1)
}
