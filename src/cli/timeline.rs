//! `mailtwin timeline`: the life of a message.

use super::error::{print, say};
use super::standby::{Failure, Standby, run as running, shown};
use crate::maildir::name;
use crate::moment;
use crate::path::{TreePath, escape};
use crate::repository::event::{Event, Happened, folder_of};
use crate::repository::timeline::{self, Moment};
use serde_json::{Value, json};

/// Options of `timeline`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Where
    #[command(flatten)]
    pub standby: Standby,

    /// The message's Message-ID
    #[arg(value_name = "MESSAGE-ID")]
    pub message_id: String,

    /// Print one list of objects on standard output
    #[arg(long)]
    pub json: bool,
}

/// Tells a message's life, and gives the exit code.
pub fn run(arguments: &Arguments) -> u8 {
    running(|| {
        let repository = arguments.standby.open()?;
        let id = arguments.message_id.trim_matches(['<', '>']);
        let mut moments = Vec::new();
        let problems = timeline::of(&repository, id, |moment| moments.push(moment))?;
        problems.iter().for_each(|problem| say(problem));
        let is_seen = |moment: &Moment| match moment {
            Moment::Point { paths, .. } => !paths.is_empty(),
            Moment::Event(_) => true,
            Moment::Gap(..) => false,
        };
        if !moments.iter().any(is_seen) {
            let shown = escape(id.as_bytes());
            let sentence = format!("neither a restore point nor the log has a message with the Message-ID {shown}");
            return Err(Failure(sentence, 1));
        }
        match arguments.json {
            true => print(&Value::from_iter(moments.iter().map(object)).to_string()),
            false => moments.iter().for_each(|moment| print(&line(moment))),
        }
        Ok(if problems.is_empty() { 0 } else { 23 })
    })
}

fn line(moment: &Moment) -> String {
    match moment {
        Moment::Point { label, moment, paths } => {
            let paths: Vec<String> = paths.iter().map(|path| escape(path.as_bytes())).collect();
            let paths = if paths.is_empty() { "not there".to_owned() } else { paths.join("\n    ") };
            let label = label.map_or_else(|| "now".to_owned(), |label| label.to_string());
            format!("{}  {label}\n    {paths}", shown(*moment))
        }
        Moment::Event(happened) => {
            let batch = happened.position.map_or_else(|| "on the mirror".to_owned(), |at| format!("batch {at}"));
            let path = escape(happened.record.path.as_bytes());
            format!("{}  {batch}: {}\n    {path}", shown(happened.moment), words(happened))
        }
        Moment::Gap(after, before) => {
            let before = before.map_or_else(|| "now".to_owned(), |label| label.to_string());
            format!("-  the log from {after} to {before} is not kept: single events are not known")
        }
    }
}

fn words(happened: &Happened) -> String {
    let Facts { word, from, flags, .. } = facts(happened);
    let letters = |flags: &str| if flags.is_empty() { "none".to_owned() } else { flags.to_owned() };
    let flags = flags.map(|(before, after)| format!("flags {} to {}", letters(&before), letters(&after)));
    match (word, from) {
        ("flags", _) => flags.unwrap_or_else(|| "taken from new to cur".to_owned()),
        (word, Some(from)) => {
            let flags = flags.map_or_else(String::new, |flags| format!(", {flags}"));
            format!("{word} from {}{flags}", escape(from.as_bytes()))
        }
        (word, None) => word.to_owned(),
    }
}

/// An event in words of its own.
struct Facts<'a> {
    word: &'static str,
    /// Where the message was, or what it is a copy of.
    from: Option<&'a TreePath>,
    /// Its flags before and after, where they are not the same.
    flags: Option<(String, String)>,
}

fn facts(happened: &Happened) -> Facts<'_> {
    let path = &happened.record.path;
    let (word, from) = match &happened.event {
        Event::Delivered => ("delivered", None),
        Event::Copied(from) => ("copied", Some(from)),
        Event::Renamed { from, .. } if folder_of(from) != folder_of(path) => ("moved", Some(from)),
        Event::Renamed { from, .. } if name::base(from.name()) != name::base(path.name()) => ("renamed", Some(from)),
        Event::Renamed { from, .. } => ("flags", Some(from)),
        Event::Replaced => ("replaced", None),
        Event::Removed => ("removed", None),
    };
    let flags = from.filter(|_| word != "copied").map(|from| (letters(from), letters(path)));
    Facts { word, from, flags: flags.filter(|(before, after)| before != after) }
}

/// The flags in the name of a message.
fn letters(path: &TreePath) -> String {
    let info = &path.name()[name::base(path.name()).len()..];
    escape(info.strip_prefix(b":2,").unwrap_or(info))
}

fn object(moment: &Moment) -> Value {
    let label = |label: &Option<_>| label.as_ref().map_or_else(|| "now".to_owned(), ToString::to_string);
    match moment {
        Moment::Point { label: point, moment, paths } => {
            let paths: Vec<String> = paths.iter().map(|path| escape(path.as_bytes())).collect();
            json!({ "point": label(point), "moment": moment::rfc3339(*moment), "paths": paths })
        }
        Moment::Event(happened) => {
            let Facts { word, from, flags } = facts(happened);
            json!({
                "event": word,
                "moment": moment::rfc3339(happened.moment),
                "position": happened.position.map(|position| position.to_string()),
                "path": escape(happened.record.path.as_bytes()),
                "from": from.map(|from| escape(from.as_bytes())),
                "flags": flags.map(|(before, after)| [before, after]),
            })
        }
        Moment::Gap(after, before) => json!({ "gap": [after.to_string(), label(before)] }),
    }
}
