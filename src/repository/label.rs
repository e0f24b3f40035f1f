//! The names of restore points, which are pgBackRest's.
//!
//! A full is `20261122-030000F`; a differential names the full that it needs first:
//! `20261122-030000F_20261123-030000D`. Times are UTC, so that no change to daylight saving makes two points one.
//! Sorted as text, a full comes before its differentials and these by age.

use crate::maildir::entry::Time;
use crate::moment::{self, Second};
use crate::path::escape;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// What a restore point needs besides itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointKind {
    /// Nothing.
    Full,
    /// Its full, and nothing else.
    Differential,
}

impl fmt::Display for PointKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Differential => "differential",
        })
    }
}

/// Names one restore point of a repository. Ordered by the time of creation, then by kind.
///
/// A label holds whole seconds and must be its point's alone. Whoever makes a point takes the present or, where that is
/// not behind the newest point that there is, the next second that is free ([`PointLabel::after`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PointLabel {
    full: Second,
    /// When the differential was made: later than its full.
    differential: Option<Second>,
}

/// Why there is no such label.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// It is written otherwise than labels are, or names a day that there is not.
    #[error(
        "\"{0}\" is no restore point's label: those look like 20261122-030000F or 20261122-030000F_20261123-030000D"
    )]
    Form(String),
    /// A differential that is no younger than its full.
    #[error("a differential of {full} cannot be of {moment}: it must be younger than its full")]
    Order {
        /// The full.
        full: PointLabel,
        /// When the differential was to be made, as RFC 3339.
        moment: String,
    },
    /// A differential needs a full, and not another differential.
    #[error("{0} is a differential, and a differential needs a full")]
    NotFull(PointLabel),
    /// Labels have four figures for the year.
    #[error("{0} lies outside the years that a restore point's label can have: is the clock right?")]
    Year(String),
}

impl PointLabel {
    /// The label of a full that is made at `time`; what is less than a second is dropped.
    ///
    /// # Errors
    /// [`LabelError::Year`] outside the years 0 to 9999.
    pub fn full(time: Time) -> Result<Self, LabelError> {
        Ok(Self { full: second(time)?, differential: None })
    }

    /// The label of a differential that is made at `time` and needs this full; what is less than a second is dropped.
    ///
    /// # Errors
    /// Where this is no full, where `time` is not in a later second than the full's, or outside the years 0 to 9999.
    pub fn differential(&self, time: Time) -> Result<Self, LabelError> {
        if self.kind() != PointKind::Full {
            return Err(LabelError::NotFull(*self));
        }
        let made = second(time)?;
        if made <= self.full {
            return Err(LabelError::Order { full: *self, moment: moment::rfc3339(time) });
        }
        Ok(Self { full: self.full, differential: Some(made) })
    }

    /// Full or differential.
    pub fn kind(&self) -> PointKind {
        self.differential.map_or(PointKind::Full, |_| PointKind::Differential)
    }

    /// The full that this point needs: itself, where it is one.
    pub fn full_label(&self) -> Self {
        Self { full: self.full, differential: None }
    }

    /// The second in which it was made, by the clock of whoever made it.
    pub fn moment(&self) -> Time {
        self.made().time()
    }

    /// The first second that is free behind this point. With `newest` the newest point of the repository, a new one is
    /// made at `now.max(newest.after())`: that leaves it alone in its second where two are made in one, and in its
    /// order where the clock has gone back.
    pub fn after(&self) -> Time {
        let moment = self.moment();
        Time { seconds: moment.seconds.saturating_add(1), ..moment }
    }

    fn made(&self) -> Second {
        self.differential.unwrap_or(self.full)
    }
}

fn second(time: Time) -> Result<Second, LabelError> {
    Second::of(time).ok_or_else(|| LabelError::Year(moment::rfc3339(time)))
}

impl Ord for PointLabel {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |label: &Self| (label.made(), label.kind(), label.full);
        rank(self).cmp(&rank(other))
    }
}

impl PartialOrd for PointLabel {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PointLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}F", self.full)?;
        self.differential.map_or(Ok(()), |made| write!(f, "_{made}D"))
    }
}

impl FromStr for PointLabel {
    type Err = LabelError;

    fn from_str(text: &str) -> Result<Self, LabelError> {
        let form = || LabelError::Form(escape(text.as_bytes()));
        let stamp = |part: &str, kind: char| part.strip_suffix(kind).and_then(Second::parse).ok_or_else(form);
        let Some((full, differential)) = text.split_once('_') else {
            return Ok(Self { full: stamp(text, 'F')?, differential: None });
        };
        let full = Self { full: stamp(full, 'F')?, differential: None };
        full.differential(stamp(differential, 'D')?.time())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn label(text: &str) -> PointLabel {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    /// 2026-11-22 03:00:00 UTC, and so many seconds.
    fn at(seconds: i64) -> Time {
        Time { seconds: 1_795_316_400 + seconds, nanos: 999_999_999 }
    }

    #[test]
    fn labels_are_pgbackrests() {
        let full = PointLabel::full(at(0)).expect("a full");
        let differential = full.differential(at(86_400)).expect("a differential");
        assert_eq!(full.to_string(), "20261122-030000F");
        assert_eq!(differential.to_string(), "20261122-030000F_20261123-030000D");
        assert_eq!(label("20261122-030000F_20261123-030000D"), differential);
        assert_eq!((full.kind(), differential.kind()), (PointKind::Full, PointKind::Differential));
        assert_eq!((full.full_label(), differential.full_label()), (full, full));
        assert_eq!(differential.moment(), Time { nanos: 0, ..at(86_400) });
    }

    #[test]
    fn labels_are_ordered_by_time_then_kind() {
        let ordered = [
            "20261122-030000F",
            "20261122-030000F_20261123-030000D",
            "20261123-030001F",
            "20261122-030000F_20261123-030001D",
            "20261123-030000F_20261123-030001D",
            "20261124-030000F",
        ];
        let labels = ordered.map(label);
        assert!(labels.is_sorted() && labels.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn the_next_second_is_free_whatever_the_clock_says() {
        let newest = PointLabel::full(at(0)).expect("a full");
        for now in [at(-3600), at(0)] {
            let next = newest.differential(now.max(newest.after())).expect("a differential");
            assert_eq!(next.to_string(), "20261122-030000F_20261122-030001D");
        }
        let next = PointLabel::full(at(2).max(newest.after())).expect("a full");
        assert_eq!(next.to_string(), "20261122-030002F");
    }

    #[test]
    fn a_differential_is_younger_than_its_full_and_needs_no_other() {
        let full = PointLabel::full(at(0)).expect("a full");
        assert_eq!(
            full.differential(at(0)).expect_err("the same second").to_string(),
            "a differential of 20261122-030000F cannot be of 2026-11-22T03:00:00.999999999Z: it must be younger than its full"
        );
        let differential = full.differential(at(1)).expect("a differential");
        assert_eq!(
            differential.differential(at(2)).expect_err("needs a full").to_string(),
            "20261122-030000F_20261122-030001D is a differential, and a differential needs a full"
        );
        let error = "20261122-030000F_20261122-030000D".parse::<PointLabel>().expect_err("the same second");
        assert!(matches!(error, LabelError::Order { .. }));
    }

    #[test]
    fn a_clock_that_is_far_off_makes_no_label() {
        let error = PointLabel::full(Time { seconds: i64::MAX, nanos: 0 }).expect_err("no such year");
        assert_eq!(
            error.to_string(),
            "@9223372036854775807 lies outside the years that a restore point's label can have: is the clock right?"
        );
    }

    #[test]
    fn what_is_no_label_is_refused_by_name() {
        for text in [
            "",
            "F",
            "latest",
            "20261122-030000",
            "20261122-030000f",
            "20261122-030000D",
            "20261122-030000I",
            "20261122-030000F_",
            "20261122-030000F_20261123-030000",
            "20261122-030000F_20261123-030000F",
            "20261122-030000F_20261123-030000I",
            "20261122-030000F_20261123-030000D_20261124-030000D",
            "20261122-030000F ",
            "20261122-030000FF",
            "20261332-030000F",
            "../20261122-030000F",
        ] {
            let error = text.parse::<PointLabel>().expect_err(text).to_string();
            let form = "those look like 20261122-030000F or 20261122-030000F_20261123-030000D";
            assert_eq!(error, format!("\"{text}\" is no restore point's label: {form}"));
        }
    }

    proptest! {
        #[test]
        fn a_label_is_read_as_it_was_written(full in 0..200_000_000_000_i64, later in prop::option::of(1..1_000_000_000_i64)) {
            let at = |seconds| Time { seconds, nanos: 0 };
            let whole = PointLabel::full(at(full)).expect("a full");
            let made = later.map_or(whole, |later| whole.differential(at(full + later)).expect("a differential"));
            prop_assert_eq!(made.to_string().parse(), Ok(made));
            prop_assert_eq!(made.moment(), at(full + later.unwrap_or(0)));
        }

        #[test]
        fn whatever_is_read_as_a_label_is_written_so(text in "[0-9]{8}-[0-2][0-9][0-5][0-9][0-6][0-9]F(_2[0-9]{7}-[0-9]{6}D)?|.{0,40}") {
            if let Ok(label) = text.parse::<PointLabel>() {
                prop_assert_eq!(label.to_string(), text);
            }
        }
    }
}
