//! How long to wait before the next try: longer with each failure, and never in step with others.
//!
//! Pure: neither clock nor chance is in here. The wait is drawn evenly from zero to a ceiling that doubles ("full
//! jitter"), so that a hundred slaves that lost one master do not come back to it in the same second.

use std::time::Duration;

/// The waits of one connection that is made again and again.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    lived: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits of at most `base` after the first failure, and of at most `cap` after many. A connection that lasted `lived`
    /// was a good one: the next failure counts as the first.
    pub fn new(base: Duration, cap: Duration, lived: Duration) -> Self {
        Self { base, cap: cap.max(base), lived, failures: 0 }
    }

    /// The longest wait that may follow now.
    pub fn ceiling(&self) -> Duration {
        let doublings = self.failures.min(31);
        self.base.saturating_mul(1 << doublings).min(self.cap)
    }

    /// A try has failed, or a connection that lasted `lasted` has ended. Gives the wait before the next try; `chance` is
    /// any number, drawn anew each time.
    pub fn after(&mut self, lasted: Duration, chance: u64) -> Duration {
        if lasted >= self.lived {
            self.failures = 0;
        }
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        ceiling.mul_f64(chance as f64 / u64::MAX as f64).min(ceiling)
    }

    /// What was asked for went well: the next failure counts as the first.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn backoff() -> Backoff {
        Backoff::new(SECOND, 60 * SECOND, 30 * SECOND)
    }

    #[test]
    fn the_ceiling_doubles_up_to_its_cap_and_no_number_of_failures_breaks_it() {
        let mut backoff = backoff();
        let ceilings: Vec<u64> = (0..9).map(|_| backoff.after(Duration::ZERO, u64::MAX).as_secs()).collect();
        assert_eq!(ceilings, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.after(Duration::ZERO, u64::MAX), 60 * SECOND);
    }

    #[test]
    fn a_wait_is_drawn_from_all_of_zero_to_the_ceiling() {
        let mut backoff = Backoff::new(8 * SECOND, 8 * SECOND, SECOND);
        assert_eq!(backoff.after(Duration::ZERO, 0), Duration::ZERO);
        assert_eq!(backoff.after(Duration::ZERO, u64::MAX / 2).as_secs_f64().round(), 4.0);
        for chance in (0..=u64::MAX).step_by(1 << 56) {
            assert!(backoff.after(Duration::ZERO, chance) <= 8 * SECOND);
        }
    }

    #[test]
    fn a_connection_that_lived_begins_anew_and_one_that_did_not_goes_on() {
        let mut backoff = backoff();
        for _ in 0..5 {
            backoff.after(29 * SECOND, 0);
        }
        assert_eq!(backoff.ceiling(), 32 * SECOND);
        assert_eq!(backoff.after(30 * SECOND, u64::MAX), SECOND);
        assert_eq!(backoff.ceiling(), 2 * SECOND);
        backoff.reset();
        assert_eq!(backoff.ceiling(), SECOND);
    }
}
