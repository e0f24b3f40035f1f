//! Gathering what differs into shipments, and having their contents read while the walk goes on.

use super::{Cycle, Pending, Result};
use crate::catalogue::scan::{Diff, Found, mark};
use crate::disk::FileKind;
use crate::maildir::entry::Known;
use crate::maildir::folder;
use crate::monitor::Event;
use crate::path::TreePath;
use crate::sync::plan::Step;
use crate::sync::read::{self, Answer, Request};
use crate::wire::block;
use std::collections::HashSet;

/// A batch is closed at so many bytes of content, or so many steps.
const BATCH_BYTES: u64 = 4 << 20;
const BATCH_STEPS: usize = 512;

/// Bytes of content that may be waiting between reading and sending.
const IN_FLIGHT: u64 = 24 << 20;

/// Batches that may be waiting there.
const PENDING: usize = 12;

impl Cycle<'_, '_> {
    pub(super) fn gather(&mut self, diff: Diff) -> Result<()> {
        if diff.is_empty() {
            self.gathered.looks.extend(diff.looks);
            self.gathered.learned.extend(diff.learned);
        } else {
            let mut linked = Vec::with_capacity(diff.files.len() + diff.messages.len());
            for found in diff.files.iter().chain(&diff.messages) {
                linked.push(self.is_linked(found)?);
            }
            let by_path: HashSet<TreePath> = diff
                .files
                .iter()
                .chain(&diff.messages)
                .zip(linked)
                .filter(|&(_found, linked)| linked)
                .map(|(found, _linked)| found.path.clone())
                .collect();
            self.gathered.add(diff, |found| by_path.contains(&found.path));
        }
        let notes = self.gathered.looks.len() + self.gathered.learned.len();
        if self.gathered.bytes >= BATCH_BYTES || self.gathered.steps.len() >= BATCH_STEPS || notes >= 4 * BATCH_STEPS {
            self.close()?;
        }
        Ok(())
    }

    /// Whether a file that appeared is one that is recorded, or on its way, under another name.
    fn is_linked(&mut self, found: &Found) -> Result<bool> {
        // A name that is recorded becomes a link only where it leads to another inode than it did.
        let leads_elsewhere =
            found.known.as_ref().is_none_or(|known| known.local.ino != 0 && known.local.ino != found.stat.ino);
        if found.stat.kind != FileKind::File {
            return Ok(false);
        }
        if found.stat.links > 1 && !self.on_the_way.insert(found.stat.ino) {
            return Ok(true);
        }
        Ok(leads_elsewhere && self.original(found)?.is_some())
    }

    pub(super) fn original(&mut self, found: &Found) -> Result<Option<(TreePath, Known)>> {
        Ok(self.edit.find_inode(found.stat.ino, mark(&found.stat), &found.path)?)
    }

    /// Closes the gathered shipment and has its contents read.
    pub(super) fn close(&mut self) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut shipment = std::mem::take(&mut self.gathered);
        let mut steps = std::mem::take(&mut shipment.steps);
        let answers = if self.options.plans_only { Vec::new() } else { self.submit(&mut steps)? };
        self.in_flight += shipment.bytes;
        let messages = steps.iter().filter(|step| self.is_message_content(step)).count() as u64;
        self.monitor.event(Event::Planned { messages, bytes: shipment.bytes });
        self.pending.push_back(Pending { steps, shipment, answers });
        // What waits for no content goes at once, so that the slave is at work meanwhile.
        let is_ready = |oldest: &Pending| oldest.answers.is_empty();
        while self.in_flight > IN_FLIGHT || self.pending.len() > PENDING || self.pending.front().is_some_and(is_ready) {
            self.finish_oldest()?;
        }
        Ok(())
    }

    fn is_message_content(&self, step: &Step) -> bool {
        matches!(step, Step::Content(found) if folder::is_message(self.options.rules.kind, &found.path))
    }

    /// Cuts the contents of a shipment into jobs, each about a block.
    fn submit(&mut self, steps: &mut [Step]) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        let (mut job, mut bytes) = (Vec::new(), 0);
        for step in steps {
            let Step::Content(found) = step else { continue };
            if found.target.is_some() {
                continue;
            }
            let size = found.stat.size;
            if bytes > 0 && bytes + size > block::TARGET as u64 {
                answers.push(self.pool.submit(std::mem::take(&mut job)));
                bytes = 0;
            }
            bytes += size.max(1);
            let request = self.request(found)?;
            job.push(request);
        }
        if !job.is_empty() {
            answers.push(self.pool.submit(job));
        }
        Ok(answers)
    }

    pub(super) fn request(&mut self, found: &mut Found) -> Result<Request> {
        let is_message = folder::is_message(self.options.rules.kind, &found.path);
        let sign = self.options.ships && read::is_worth_signing(&found.path, is_message, found.stat.size);
        let before = found.known.as_ref().and_then(|known| known.entry.file()).map(|file| file.digest);
        let signature = match before {
            Some(digest) if self.options.ships => self.edit.signature(&found.path, &digest)?,
            _ => None,
        };
        self.next_number += 1;
        let mut taken = Found { number: self.next_number, captured: None, ..found.clone() };
        taken.captured = found.captured.take();
        Ok(Request { found: taken, signature, sign })
    }

    pub(super) fn drain(&mut self) -> Result<()> {
        self.close()?;
        while !self.pending.is_empty() {
            self.finish_oldest()?;
        }
        self.edit.flush()?;
        Ok(())
    }
}
