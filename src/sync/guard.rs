//! Stops, by name, on a plan that looks like an accident.
//!
//! Pure. An unmounted disk looks like an empty tree, and a wrong path like a mass delete: rsync --delete
//! empties the standby then. Here the mirror stays as it is until somebody confirms.

/// How much may be removed in one cycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Limit {
    /// More than half, from 32 files on, is an accident; so is a root that became empty.
    #[default]
    Default,
    /// At most so many.
    Count(u64),
    /// At most so many of a hundred.
    Percent(u8),
}

impl Limit {
    /// Reads `N` or `P%`.
    ///
    /// # Errors
    /// A sentence for the person who typed it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is neither a number of files nor a share such as 20%");
        match text.strip_suffix('%') {
            Some(share) => match share.parse() {
                Ok(share @ 0..=100) => Ok(Self::Percent(share)),
                _ => Err(wrong()),
            },
            None => text.parse().map(Self::Count).map_err(|_| wrong()),
        }
    }
}

/// What a cycle is about to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Removal {
    /// Messages and files that would go.
    pub files: u64,
    /// Messages and files that the slave has.
    pub of: u64,
    /// The root of the source holds nothing any more.
    pub root_is_empty: bool,
    /// The root is another directory than last time: another disk is mounted there, perhaps.
    pub root_is_another: bool,
}

/// Fewer removals than this are nobody's accident by share.
const FEW: u64 = 32;

/// The sentence with which the guard stops, if it does.
pub fn stop(removal: Removal, limit: Limit, source: &str, standby: &str) -> Option<String> {
    let Removal { files, of, root_is_empty, root_is_another } = removal;
    if files == 0 && !root_is_empty {
        return None;
    }
    let allowed = match limit {
        Limit::Default if root_is_empty && of > 0 => {
            return Some(format!(
                "stopped by the guard: {source} is empty, and the standby {standby} has {of} files; is its disk mounted? \
                 Nothing was removed. If it is meant, run again with --max-delete 100%"
            ));
        }
        Limit::Default if root_is_another => of / 2,
        Limit::Default => (of / 2).max(FEW),
        Limit::Count(count) => count,
        Limit::Percent(100) => u64::MAX,
        Limit::Percent(share) => (u128::from(of) * u128::from(share)).div_ceil(100) as u64,
    };
    (files > allowed).then(|| {
        format!(
            "stopped by the guard: {files} of the {of} files on the standby {standby} are gone from {source}, and at most {allowed} may be \
             removed in one run. Nothing was removed. If it is meant, run again with --max-delete {files}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(files: u64, of: u64, limit: Limit) -> bool {
        stop(Removal { files, of, ..Removal::default() }, limit, "/var/vmail", "mx2").is_some()
    }

    #[test]
    fn a_mass_delete_is_stopped_and_daily_work_is_not() {
        assert!(!stops(1, 1, Limit::Default));
        assert!(!stops(32, 40, Limit::Default));
        assert!(!stops(5000, 10_000, Limit::Default));
        assert!(stops(5001, 10_000, Limit::Default));
        assert!(stops(33, 40, Limit::Default));
    }

    #[test]
    fn a_limit_that_was_set_is_kept() {
        assert!(stops(11, 10_000, Limit::Count(10)));
        assert!(!stops(10, 10, Limit::Count(10)));
        assert!(stops(3, 10, Limit::Percent(20)));
        assert!(!stops(10, 10, Limit::Percent(100)));
        assert!(stops(1, 10, Limit::Count(0)));
    }

    #[test]
    fn an_emptied_root_stops_whatever_its_size() {
        let removal = Removal { files: 1, of: 1, root_is_empty: true, ..Removal::default() };
        let sentence = stop(removal, Limit::Default, "/var/vmail", "mx2").expect("stops");
        assert!(sentence.contains("/var/vmail") && sentence.contains("--max-delete 100%"));
        assert!(stop(removal, Limit::Percent(100), "/var/vmail", "mx2").is_none());
    }

    #[test]
    fn another_directory_in_the_place_of_the_root_stops_even_a_few() {
        let removal = Removal { files: 6, of: 10, root_is_another: true, ..Removal::default() };
        assert!(stop(removal, Limit::Default, "/var/vmail", "mx2").is_some());
        assert!(stop(Removal { root_is_another: false, ..removal }, Limit::Default, "/var/vmail", "mx2").is_none());
    }

    #[test]
    fn limits_are_read_as_people_write_them() {
        assert_eq!(Limit::parse("20%"), Ok(Limit::Percent(20)));
        assert_eq!(Limit::parse("300"), Ok(Limit::Count(300)));
        assert!(Limit::parse("101%").is_err() && Limit::parse("many").is_err());
    }
}
