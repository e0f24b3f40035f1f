//! What a person sees while a run goes on: a listener of the event stream.

use super::error::{print, say};
use crate::monitor::{Event, Monitor, Phase, Problem};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Mutex;
use std::time::Duration;

/// How much is shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    /// Notes.
    pub verbose: bool,
    /// Not even warnings.
    pub quiet: bool,
    /// A bar.
    pub progress: bool,
    /// Items go to standard error, because standard output is for JSON.
    pub json: bool,
}

/// The listener.
pub struct Terminal {
    shown: Shown,
    bar: ProgressBar,
    messages: Mutex<Messages>,
    problems: Mutex<Vec<Problem>>,
}

#[derive(Default)]
struct Messages {
    done: u64,
    planned: u64,
}

impl Terminal {
    /// A listener that shows so much.
    pub fn new(shown: Shown) -> Self {
        let bar = match shown.progress {
            true => ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(8)),
            false => ProgressBar::hidden(),
        };
        let form = "{spinner} {msg}  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style);
        }
        if shown.progress {
            bar.enable_steady_tick(Duration::from_millis(250));
        }
        Self { shown, bar, messages: Mutex::default(), problems: Mutex::default() }
    }

    /// Ends the bar and gives the problems heard.
    pub fn finish(&self) -> Vec<Problem> {
        self.bar.finish_and_clear();
        std::mem::take(&mut *lock(&self.problems))
    }

    fn line(&self, line: &str, is_item: bool) {
        self.bar.suspend(|| match is_item && !self.shown.json {
            true => print(line),
            false => say(line),
        });
    }

    fn count(&self, planned: u64, done: u64) {
        let mut messages = lock(&self.messages);
        messages.planned += planned;
        messages.done += done;
        self.bar.set_message(format!("{} of {} messages", messages.done, messages.planned));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

impl Monitor for Terminal {
    fn event(&self, event: Event) {
        match event {
            Event::Note(note) if self.shown.verbose => self.line(&note, false),
            Event::Note(_) => {}
            Event::Warning(warning) if !self.shown.quiet => self.line(&warning, false),
            Event::Warning(_) => {}
            Event::Problem(problem) => {
                self.line(&format!("{}: {}", problem.subject, problem.reason), false);
                lock(&self.problems).push(problem);
            }
            Event::Item(item) => self.line(&item, true),
            Event::Phase(phase) => self.bar.set_message(match phase {
                Phase::Connect => "connecting",
                Phase::Compare => "comparing",
                Phase::Send => "looking",
                Phase::Finish => "waiting for the other end",
            }),
            Event::Planned { messages, bytes } => {
                self.bar.inc_length(bytes);
                self.count(messages, 0);
            }
            Event::Done { messages, bytes } => {
                self.bar.inc(bytes);
                self.count(0, messages);
            }
        }
    }
}
