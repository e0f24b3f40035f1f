//! `--deleted-between`, of `find` and `restore`: messages that are gone, each as it last was.

use super::error::say;
use super::standby::{Failure, shown, time_of};
use crate::moment;
use crate::repository::gone::{self, Gone, Went};
use crate::repository::layout::Repository;
use serde_json::{Value, json};

/// Which messages that are gone are meant.
#[derive(Clone, Debug, clap::Args)]
pub struct Deleted {
    /// What was there at the time FROM or came later and is gone at the time TO, as it last was
    #[arg(long, value_names = ["FROM", "TO"], num_args = 2, conflicts_with_all = ["at", "point"])]
    pub deleted_between: Option<Vec<String>>,
}

impl Deleted {
    /// Finds them, where they are asked for. What limits the search is said.
    ///
    /// # Errors
    /// Where a time is none, or nothing is known of it.
    pub fn find(&self, repository: &Repository) -> Result<Option<Gone>, Failure> {
        let Some([from, to]) = self.deleted_between.as_deref() else { return Ok(None) };
        let (from, to) = (time_of(from)?, time_of(to)?);
        if to < from {
            return Err(Failure("--deleted-between: the first time lies behind the second".to_owned(), 2));
        }
        let gone = gone::between(repository, from, to)?;
        gone.notes.iter().for_each(|note| say(note));
        Ok(Some(gone))
    }
}

/// When a message went, for a person.
pub fn line(went: &Went) -> String {
    let by = if went.between.is_some() { "by " } else { "" };
    format!("went {by}{}", shown(went.moment))
}

/// Adds to an object when its message went.
pub fn add(object: &mut Value, went: &Went) {
    object["went"] = moment::rfc3339(went.moment).into();
    object["position"] = went.position.map(|position| position.to_string()).into();
    object["between"] = went.between.map_or(Value::Null, |(last, first)| json!([last.to_string(), first.to_string()]));
}
