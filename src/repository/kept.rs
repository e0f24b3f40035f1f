//! Of which time the repository tells: the points that can be read, and what the log still has.

use super::label::{PointKind, PointLabel};
use super::layout::{Repository, RepositoryError};
use crate::log::history::History;
use crate::maildir::entry::Time;

type Result<T> = std::result::Result<T, RepositoryError>;

/// A point, as far as it matters for the order of things.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its label.
    pub label: PointLabel,
    /// When it was made.
    pub moment: Time,
    /// The last segment of the log that it has seen.
    pub reached: u64,
}

/// The points that can be read, oldest first, and what is wrong with the others.
///
/// # Errors
/// Where the disk refuses.
pub fn points(repository: &Repository) -> Result<(Vec<Known>, Vec<String>)> {
    let (mut known, mut wrong) = (Vec::new(), Vec::new());
    for label in repository.labels()? {
        let full = match label.kind() {
            PointKind::Full => Ok(()),
            PointKind::Differential => repository.manifest(&label.full_label()).map(drop),
        };
        match full.and_then(|()| repository.manifest(&label)) {
            Ok(manifest) => {
                let header = manifest.header();
                known.push(Known { label, moment: header.moment, reached: header.reached });
            }
            Err(error) => wrong.push(error.to_string()),
        }
    }
    Ok((known, wrong))
}

/// Why nothing is known of a moment before all points.
pub fn before_the_first(oldest: Option<PointLabel>) -> RepositoryError {
    RepositoryError::Failed(match oldest {
        Some(oldest) => format!("there is no restore point from before that moment; the oldest is {oldest}"),
        None => "there is no restore point yet: mailtwin backup makes one".to_owned(),
    })
}

/// Which closed segments there are.
pub struct Log {
    numbers: Vec<u64>,
}

impl Log {
    /// Of a repository.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn of(repository: &Repository) -> Result<Self> {
        Ok(Self { numbers: repository.history.as_ref().map_or(Ok(Vec::new()), History::segments)? })
    }

    /// Whether it has every segment behind this one, up to `last`; without that, up to the newest.
    pub fn has_all_behind(&self, reached: u64, last: Option<u64>) -> bool {
        let last = last.or(self.numbers.last().copied()).unwrap_or(0);
        let behind = self.numbers.iter().filter(|number| (reached + 1..=last).contains(*number)).count() as u64;
        behind == last.saturating_sub(reached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_leads_on_where_no_segment_is_missing() {
        let log = Log { numbers: vec![3, 4, 7, 8] };
        assert!(log.has_all_behind(6, None) && log.has_all_behind(8, None) && log.has_all_behind(9, None));
        assert!(!log.has_all_behind(5, None) && !log.has_all_behind(2, None));
        assert!(log.has_all_behind(2, Some(4)) && !log.has_all_behind(1, Some(4)) && !log.has_all_behind(2, Some(5)));
        assert!(log.has_all_behind(1, Some(1)));
        let none = Log { numbers: Vec::new() };
        assert!(none.has_all_behind(0, None) && none.has_all_behind(5, None) && !none.has_all_behind(4, Some(5)));
    }
}
