//! One table of the file: hands out values, and notes what is wrong with each, and what nobody asked for.
//!
//! A table that is not there is read as an empty one, so that the same code asks for the same keys in every file: what was
//! asked is the list of all keys that there are.

use super::finding::{Finding, Severity};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// More alike than this is taken for a slip of the finger.
const ALIKE: f64 = 0.8;

/// What is wrong with a value, and what to do.
pub struct Wrong {
    pub what: String,
    pub hint: String,
}

impl Wrong {
    /// One, in words.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

/// What is noted while a file is read.
#[derive(Default)]
pub struct Notes {
    /// Everything wrong, in the order in which it was found.
    pub findings: RefCell<Vec<Finding>>,
    /// The line of each key and table that there is.
    pub lines: RefCell<BTreeMap<String, usize>>,
    /// Each key that was asked for.
    pub asked: RefCell<BTreeSet<String>>,
    /// Where each line of the text begins.
    starts: Vec<usize>,
}

impl Notes {
    /// Notes about a text.
    pub fn new(text: &str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { starts: std::iter::once(0).chain(ends).collect(), ..Self::default() }
    }

    /// The line in which a byte stands, from 1.
    pub fn line_of(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at)
    }

    /// Notes something wrong with a key.
    pub fn find(&self, severity: Severity, key: &str, wrong: Wrong) {
        let line = self.line(key);
        self.findings.borrow_mut().push(Finding {
            severity,
            line,
            key: key.to_owned(),
            what: wrong.what,
            hint: wrong.hint,
        });
    }

    /// The line of a key; of the table that it should stand in where it is not there.
    pub fn line(&self, key: &str) -> Option<usize> {
        line_of(&self.lines.borrow(), key)
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.lines.borrow().contains_key(key)
    }
}

/// A table that is being read.
pub struct Table<'t> {
    notes: &'t Notes,
    path: String,
    entries: Option<&'t DeTable<'t>>,
    asked: BTreeSet<&'static str>,
}

impl<'t> Table<'t> {
    /// The whole file.
    pub fn whole(notes: &'t Notes, entries: &'t DeTable<'t>) -> Self {
        Self { notes, path: String::new(), entries: Some(entries), asked: BTreeSet::new() }
    }

    /// A key's name with those of the tables around it.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Notes an error of one of its keys.
    pub fn wrong(&self, key: &str, wrong: Wrong) {
        self.notes.find(Severity::Error, &self.key(key), wrong);
    }

    /// Notes an error of the table itself.
    pub fn wrong_itself(&self, wrong: Wrong) {
        self.notes.find(Severity::Error, &self.path, wrong);
    }

    fn ask(&mut self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.asked.insert(key);
        self.notes.asked.borrow_mut().insert(self.key(key));
        let (name, value) = self.entries?.get_key_value(key)?;
        let line = self.notes.line_of(name.span().start);
        self.notes.lines.borrow_mut().insert(self.key(key), line);
        Some(value)
    }

    fn expected(&self, key: &str, value: &DeValue<'_>, hint: &str) {
        let what = match value {
            DeValue::String(_) => "it is a text",
            DeValue::Integer(_) | DeValue::Float(_) => "it is a number",
            DeValue::Boolean(_) => "it is true or false",
            DeValue::Datetime(_) => "it is a date or time",
            DeValue::Array(_) => "it is a list",
            DeValue::Table(_) => "it is a table",
        };
        self.wrong(key, Wrong::new(what, hint));
    }

    /// A text, and what it means.
    pub fn value<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        match self.ask(key)?.get_ref() {
            DeValue::String(text) => match parse(text) {
                Ok(value) => Some(value),
                Err(wrong) => {
                    self.wrong(key, wrong);
                    None
                }
            },
            other => {
                self.expected(key, other, "write a text, in quotes");
                None
            }
        }
    }

    /// A text as it is.
    pub fn text(&mut self, key: &'static str) -> Option<String> {
        self.value(key, |text| match text.is_empty() {
            true => Err(Wrong::new("it is empty", "leave the line out, or say what it is to be")),
            false => Ok(text.to_owned()),
        })
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &'static str) -> Option<bool> {
        match self.ask(key)?.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            other => {
                self.expected(key, other, "write true or false, without quotes");
                None
            }
        }
    }

    /// A number, or a word that stands for none.
    pub fn number(&mut self, key: &'static str, range: RangeInclusive<u32>, word: Option<&str>) -> Option<Option<u32>> {
        let value = self.ask(key)?.get_ref();
        let words = word.map_or_else(String::new, |word| format!(", or \"{word}\""));
        let upto = if *range.end() == u32::MAX { String::new() } else { format!(" to {}", range.end()) };
        let hint = format!("write a whole number from {}{upto}, without quotes{words}", range.start());
        match value {
            DeValue::String(text) if word == Some(text) => Some(None),
            DeValue::Integer(number) => {
                let plain = (number.radix() == 10).then(|| number.as_str().parse().ok()).flatten();
                let found = plain.filter(|number| range.contains(number));
                if found.is_none() {
                    self.wrong(key, Wrong::new(format!("{} is out of range", number), hint));
                }
                found.map(Some)
            }
            other => {
                self.expected(key, other, &hint);
                None
            }
        }
    }

    /// A list of texts, and what each means.
    pub fn texts<T>(&mut self, key: &'static str, parse: impl Fn(&str) -> Result<T, Wrong>) -> Option<Vec<T>> {
        let hint = "write a list of texts, as [\"one\", \"two\"]";
        let DeValue::Array(items) = self.ask(key)?.get_ref() else {
            self.entries
                .and_then(|entries| entries.get(key))
                .inspect(|value| self.expected(key, value.get_ref(), hint));
            return None;
        };
        let mut found = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::String(text) => match parse(text) {
                    Ok(value) => found.push(value),
                    Err(wrong) => self.wrong(key, wrong),
                },
                _ => self.wrong(key, Wrong::new("something in it is no text", hint)),
            }
        }
        Some(found)
    }

    /// A command: a text for sh, or a list of program and arguments.
    pub fn command(&mut self, key: &'static str) -> Option<Vec<String>> {
        let is_list = self.entries.and_then(|entries| entries.get(key)).is_some_and(|value| value.get_ref().is_array());
        let command = match is_list {
            true => self.texts(key, |text| Ok(text.to_owned()))?,
            false => ["sh", "-c"].map(str::to_owned).into_iter().chain(self.text(key)).collect(),
        };
        match (is_list, command.len()) {
            (true, 0) => {
                self.wrong(key, Wrong::new("the list is empty", "name a program and its arguments"));
                None
            }
            // There is none, or what was wrong with it was noted.
            (false, ..3) => None,
            _ => Some(command),
        }
    }

    /// A table within it; an empty one where there is none.
    pub fn table(&mut self, key: &'static str) -> Table<'t> {
        let entries = match self.ask(key).map(|value| value.get_ref()) {
            Some(DeValue::Table(table)) => Some(table),
            Some(other) => {
                let hint = format!("write [{}] and its keys below", self.key(key));
                self.expected(key, other, &hint);
                None
            }
            None => None,
        };
        Table { notes: self.notes, path: self.key(key), entries, asked: BTreeSet::new() }
    }

    /// The tables within a table, by name.
    pub fn named(&mut self, key: &'static str) -> Vec<(String, Table<'t>)> {
        let within = self.table(key);
        let mut found = Vec::new();
        for (name, value) in within.entries.into_iter().flatten() {
            let path = within.key(name.get_ref());
            let line = self.notes.line_of(name.span().start);
            self.notes.lines.borrow_mut().insert(path.clone(), line);
            match value.get_ref() {
                DeValue::Table(table) => {
                    let table = Table { notes: self.notes, path, entries: Some(table), asked: BTreeSet::new() };
                    found.push((name.get_ref().to_string(), table));
                }
                other => {
                    let hint = format!("each has a table of its own: [{key}.NAME] and its keys below");
                    within.expected(name.get_ref(), other, &hint);
                }
            }
        }
        found
    }

    /// A list of tables, as `[{ from = "22:00", to = "06:00" }]`, and what each means.
    pub fn tables<T>(
        &mut self,
        key: &'static str,
        hint: &str,
        read: impl Fn(&mut Table<'t>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.ask(key)?.get_ref();
        let DeValue::Array(items) = value else {
            self.expected(key, value, hint);
            return None;
        };
        let mut found = Vec::new();
        for item in items {
            let DeValue::Table(entries) = item.get_ref() else {
                self.expected(key, item.get_ref(), hint);
                continue;
            };
            let path = self.key(key);
            // Those of the one before it have other lines.
            let below = format!("{path}.");
            self.notes.lines.borrow_mut().retain(|key, _| !key.starts_with(&below));
            let mut table = Table { notes: self.notes, path, entries: Some(entries), asked: BTreeSet::new() };
            found.extend(read(&mut table));
            table.finish();
        }
        Some(found)
    }

    /// Whether a key is there; it is not asked for.
    pub fn has(&self, key: &str) -> bool {
        self.entries.is_some_and(|entries| entries.contains_key(key))
    }

    /// Notes each key that nobody asked for.
    pub fn finish(self) {
        for (name, _) in self.entries.into_iter().flatten() {
            let key: &str = name.get_ref();
            if self.asked.contains(key) {
                continue;
            }
            let line = self.notes.line_of(name.span().start);
            self.notes.lines.borrow_mut().insert(self.key(key), line);
            let hint = match nearest(key, self.asked.iter().copied()) {
                Some(meant) => format!("did you mean {meant}?"),
                None => self.elsewhere(),
            };
            self.wrong(key, Wrong::new("there is no such key", hint));
        }
    }

    fn elsewhere(&self) -> String {
        let keys: Vec<&str> = self.asked.iter().copied().collect();
        match self.path.is_empty() {
            true => format!("the tables are {}", keys.join(", ")),
            false => format!("[{}] has {}", self.path, keys.join(", ")),
        }
    }
}

/// The line of a key; of the table that it should stand in where it is not there.
pub fn line_of(lines: &BTreeMap<String, usize>, mut key: &str) -> Option<usize> {
    loop {
        if let Some(line) = lines.get(key) {
            return Some(*line);
        }
        key = key.rsplit_once('.')?.0;
    }
}

/// The word that was meant, perhaps.
pub fn nearest<'a>(typed: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |word: &'a str| (strsim::jaro_winkler(typed, word), word);
    let best = words.map(likeness).max_by(|one, other| one.0.total_cmp(&other.0))?;
    (best.0 >= ALIKE).then_some(best.1)
}
