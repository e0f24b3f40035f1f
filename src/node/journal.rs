//! What the daemon has to say while it runs. The library never prints: whoever runs it hands in a [`Journal`].

use crate::monitor::{Event, Monitor};
use std::sync::Arc;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For whoever looks for a fault.
    Debug,
    /// Something was done.
    Info,
    /// Something a person should know of.
    Warning,
    /// Something did not work.
    Error,
}

/// What a line is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// A set.
    pub set: Option<String>,
    /// Another host.
    pub peer: Option<String>,
}

/// Takes lines.
pub trait Journal: Send + Sync {
    /// Takes one; must not block for long.
    fn say(&self, level: Level, about: &About, sentence: &str);
}

/// A cycle's events as lines.
pub struct Lines {
    journal: Arc<dyn Journal>,
    about: About,
}

impl Lines {
    /// Of a set and another host.
    pub fn new(journal: Arc<dyn Journal>, set: Option<&str>, peer: Option<&str>) -> Self {
        Self { journal, about: About { set: set.map(str::to_owned), peer: peer.map(str::to_owned) } }
    }

    /// Says a sentence.
    pub fn say(&self, level: Level, sentence: &str) {
        self.journal.say(level, &self.about, sentence);
    }
}

impl Monitor for Lines {
    fn event(&self, event: Event) {
        match event {
            Event::Note(sentence) => self.say(Level::Debug, &sentence),
            Event::Warning(sentence) => self.say(Level::Warning, &sentence),
            Event::Problem(problem) => self.say(Level::Error, &format!("{}: {}", problem.subject, problem.reason)),
            Event::Item(_) | Event::Phase(_) | Event::Planned { .. } | Event::Done { .. } => {}
        }
    }
}
