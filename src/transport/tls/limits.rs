//! What strangers may cost, and how much one peer may have. No clock is read here: moments are handed in.

use crate::transport::key::PeerKey;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Limits of a host that waits for others.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections whose handshake is under way. Where there are more the oldest is dropped: a handshake takes
    /// milliseconds, so that the oldest is hardly ever one that was meant.
    pub handshakes: usize,
    /// Connections that one peer may have.
    pub per_peer: usize,
    /// How long it may take from accepting a connection to the end of its handshake.
    pub handshake: Duration,
    /// How long it may take from there to the first message.
    pub first_message: Duration,
    /// How long a peer may say nothing at all; two signs of life come in ten seconds.
    pub silence: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 128,
            per_peer: 4,
            handshake: Duration::from_secs(10),
            first_message: Duration::from_secs(30),
            silence: Duration::from_secs(60),
        }
    }
}

/// How many connections each peer has.
#[derive(Clone, Default)]
pub struct Places(Arc<Mutex<HashMap<PeerKey, usize>>>);

/// A peer's place, given back when this is dropped.
pub struct Place {
    places: Places,
    key: PeerKey,
}

impl Places {
    /// A place for one more connection of a peer; `None` where it has `most` already.
    pub fn take(&self, key: PeerKey, most: usize) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(|poison| poison.into_inner());
        let count = taken.entry(key).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(|poison| poison.into_inner());
        if let Some(count) = taken.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

/// Lines that strangers may make us write in a minute.
const LINES: u32 = 20;
const MINUTE: Duration = Duration::from_secs(60);

/// Keeps strangers from filling the log.
#[derive(Default)]
pub struct Complaints {
    since: Option<Instant>,
    said: u32,
    kept_back: u64,
}

impl Complaints {
    /// Whether a complaint is written at this moment, and how many were not before it.
    pub fn may_say(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= MINUTE) {
            (self.since, self.said) = (Some(now), 0);
        }
        if self.said >= LINES {
            self.kept_back += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.kept_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_places_and_no_more_and_gets_them_back() {
        let (places, one, two) = (Places::default(), PeerKey([1; 32]), PeerKey([2; 32]));
        let first = places.take(one, 2);
        let second = places.take(one, 2);
        assert!(first.is_some() && second.is_some() && places.take(one, 2).is_none());
        assert!(places.take(two, 2).is_some(), "another peer has its own");
        drop(first);
        assert!(places.take(one, 2).is_some());
        drop(second);
        assert!(places.0.lock().expect("whole").is_empty(), "nothing is kept of who has gone");
    }

    #[test]
    fn only_so_many_complaints_are_written_in_a_minute_and_the_rest_are_counted() {
        let (mut complaints, now) = (Complaints::default(), Instant::now());
        assert_eq!((0..100).filter_map(|_| complaints.may_say(now)).count(), LINES as usize);
        assert_eq!(complaints.may_say(now + MINUTE / 2), None);
        assert_eq!(complaints.may_say(now + MINUTE), Some(81));
        assert_eq!(complaints.may_say(now + MINUTE), Some(0));
    }
}
