//! What the comparisons are made of: trees of mail, tools to run on them, and a table.
//!
//! `random` `prose` `attachment` `mail` make messages; `tree` files them as Dovecot does; `folder` changes them;
//! `ground` keeps the disk; `tools` `memory` `compare` run and check; `options` `machine` `table` say what was asked for, where, and what came out.

pub mod attachment;
pub mod compare;
pub mod folder;
pub mod ground;
pub mod machine;
pub mod mail;
pub mod memory;
pub mod options;
pub mod prose;
pub mod random;
pub mod table;
pub mod tools;
pub mod tree;

use std::error::Error;
use std::fmt::Display;

/// A measurement either succeeds or ends the comparison with a sentence.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Puts what was being done before the bare error of the system.
pub trait Doing<T> {
    fn doing(self, what: impl Display) -> Outcome<T>;
}

impl<T, E: Display> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Display) -> Outcome<T> {
        self.map_err(|error| format!("{what}: {error}").into())
    }
}

/// Says on standard error what is going on; standard output is for the table.
#[allow(clippy::print_stderr, reason = "a benchmark is a program: it speaks to whoever started it")]
pub fn say(what: impl Display) {
    eprintln!("{}: {what}", env!("CARGO_CRATE_NAME"));
}
