//! Medians, and the Markdown that goes into the README.

use std::fmt::Write as _;

/// The measured values of one kind, of several runs.
#[derive(Clone, Default)]
pub struct Series(Vec<f64>);

impl Series {
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    pub fn median(&self) -> Option<f64> {
        let middle = self.0.len() / 2;
        match self.0.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(self.0[middle]),
            _ => Some((self.0[middle - 1] + self.0[middle]) / 2.0),
        }
    }

    /// Median, smallest and largest.
    pub fn cell(&self, unit: Unit) -> String {
        let (Some(median), Some(least), Some(most)) = (self.median(), self.0.first(), self.0.last()) else {
            return "-".to_owned();
        };
        let (median, least, most) = (unit.show(median), unit.show(*least), unit.show(*most));
        if least == most { median } else { format!("{median} ({least} to {most})") }
    }

    /// How many times larger this is.
    pub fn ratio(&self, other: &Self) -> String {
        match (self.median(), other.median()) {
            (Some(ours), Some(theirs)) if theirs > 0.0 && ours / theirs >= 9.95 => {
                format!("{:.0} ×", ours / theirs)
            }
            (Some(ours), Some(theirs)) if theirs > 0.0 => format!("{:.2} ×", ours / theirs),
            _ => "-".to_owned(),
        }
    }
}

#[derive(Clone, Copy)]
pub enum Unit {
    Seconds,
    Bytes,
}

impl Unit {
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Seconds if value < 1.0 => format!("{:.0} ms", value * 1_000.0),
            Self::Seconds => format!("{value:.1} s"),
            Self::Bytes if value < 10_000.0 => format!("{value:.0} B"),
            Self::Bytes if value < 1e6 => format!("{:.0} KB", value / 1e3),
            Self::Bytes if value < 1e7 => format!("{:.1} MB", value / 1e6),
            Self::Bytes => format!("{:.0} MB", value / 1e6),
        }
    }
}

/// 1000000 as 1,000,000.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let lead = digits.len() % 3;
    let mut text = digits[..lead].to_owned();
    for three in digits.as_bytes()[lead..].chunks(3) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(std::str::from_utf8(three).expect("digits are ASCII"));
    }
    text
}

/// One table of the report.
#[derive(Default)]
pub struct Table {
    pub title: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(title: &str, head: &[&str]) -> Self {
        Self { title: title.to_owned(), head: head.iter().map(|cell| (*cell).to_owned()).collect(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn markdown(&self) -> String {
        let mut text = format!("**{}**\n\n", self.title);
        let mut line = |cells: &[String]| writeln!(text, "| {} |", cells.join(" | "));
        let rule = vec!["---".to_owned(); self.head.len()];
        let lines = [&self.head, &rule].into_iter().chain(&self.rows);
        lines.into_iter().try_for_each(|cells| line(cells)).expect("a string takes what is written");
        text
    }
}

/// Everything that was measured, and what was wrong with it.
#[derive(Default)]
pub struct Report {
    pub tables: Vec<Table>,
    pub notes: Vec<String>,
    pub complaints: Vec<String>,
}

impl Report {
    /// A result that may not be believed: it is printed, and the exit code says so.
    pub fn complain(&mut self, work: &str, what: impl std::fmt::Display) {
        self.complaints.push(format!("{work}: {what}"));
    }

    pub fn markdown(&self) -> String {
        let mut text: String = self.tables.iter().map(|table| table.markdown() + "\n").collect();
        self.notes.iter().for_each(|note| text += &format!("{note}\n\n"));
        self.complaints.iter().for_each(|complaint| text += &format!("WRONG: {complaint}\n"));
        text
    }
}
