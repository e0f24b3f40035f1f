//! A damaged database shows itself late: in the middle of a run, by an error or by a panic of the library that
//! reads it. Either becomes one error here, and the file goes: it can be made anew by comparing (I9).

use super::store::{Catalogue, CatalogueError, remove};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

thread_local! {
    /// This thread's last panic began in the database, and has not been caught.
    static IN_DATABASE: Cell<bool> = const { Cell::new(false) };
    /// This thread is within [`caught`].
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    /// The state directory of the catalogue that this thread uses.
    static IN_USE: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// Runs what reads the database in this state directory; a panic of the database is an error, where the process's
/// panic hook asks [`panicked`]. Any other goes on.
///
/// # Errors
/// What `run` gives, and [`CatalogueError::Damaged`].
pub fn caught<T, E: From<CatalogueError>>(state: Option<&Path>, run: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let is_within = CATCHES.replace(true);
    let outer = IN_USE.replace(state.map(Path::to_owned));
    // What was half changed is dropped with its transaction.
    let ran = catch_unwind(AssertUnwindSafe(run));
    if is_within {
        // The outer run goes on to catch, and to use its own.
        IN_USE.replace(outer);
    } else {
        // The catalogue stays in use: it is yet to be closed.
        CATCHES.set(false);
    }
    match ran {
        Ok(ran) => ran,
        Err(_) if IN_DATABASE.take() => Err(CONTRADICTS.into()),
        Err(panic) => resume_unwind(panic),
    }
}

const CONTRADICTS: CatalogueError = CatalogueError::Damaged("its pages contradict each other");

/// What a panic is to the catalogue.
pub enum Panic {
    /// None of its own.
    Elsewhere,
    /// The database's, and [`caught`] makes an error of it.
    Caught,
    /// The database's, while it is being closed: nobody will hear of it, the process is about to end.
    Last(CatalogueError),
}

/// To be called by the process's panic hook.
pub fn panicked(panic: &std::panic::PanicHookInfo<'_>) -> Panic {
    if !panic.location().is_some_and(|at| at.file().contains("redb")) {
        IN_DATABASE.set(false);
        return Panic::Elsewhere;
    }
    match IN_DATABASE.replace(true) || !CATCHES.get() {
        false => Panic::Caught,
        true => {
            let removed = IN_USE.take().map(|state| removed(&state, &CONTRADICTS));
            Panic::Last(removed.unwrap_or(CONTRADICTS))
        }
    }
}

/// Takes a damaged catalogue away.
fn removed(state: &Path, damage: &CatalogueError) -> CatalogueError {
    match remove(state) {
        Ok(file) => CatalogueError::Removed { file, damage: damage.to_string() },
        Err(error) => error.into(),
    }
}

impl Catalogue {
    /// Runs what uses the catalogue. One that shows itself damaged is removed.
    ///
    /// # Errors
    /// What `run` gives; [`CatalogueError::Removed`] in the place of damage.
    pub fn contain<T, E>(&self, run: impl FnOnce() -> Result<T, E>) -> Result<T, E>
    where
        E: From<CatalogueError> + AsCatalogueError,
    {
        caught(self.state(), run).map_err(|error| match (error.as_catalogue_error(), self.state()) {
            (Some(damage), Some(state)) if damage.is_damage() => removed(state, damage).into(),
            _ => error,
        })
    }
}

/// An error that may be the catalogue's.
pub trait AsCatalogueError {
    /// The catalogue's part of it.
    fn as_catalogue_error(&self) -> Option<&CatalogueError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_within_another_leaves_the_outer_as_it_was() {
        let in_use = || IN_USE.with_borrow(Clone::clone);
        let ran: Result<(), CatalogueError> = caught(Some(Path::new("outer")), || {
            let within = caught(None, || Ok::<_, CatalogueError>(in_use()))?;
            assert_eq!(within, None);
            assert!(CATCHES.get());
            assert_eq!(in_use(), Some(PathBuf::from("outer")));
            Ok(())
        });
        ran.expect("runs");
        assert!(!CATCHES.get());
    }
}
