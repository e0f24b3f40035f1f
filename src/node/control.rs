//! What the daemon's threads are told while they run: to end, or to compare everything.

use super::watch::Waker;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Told to one thread, or to all of them.
#[derive(Debug, Default)]
pub struct Control {
    ends: AtomicBool,
    compares: AtomicBool,
    waker: Mutex<Option<Waker>>,
    told: Condvar,
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(|poison| poison.into_inner())
    }

    fn wake(&self) {
        if let Some(waker) = &*self.lock() {
            waker.wake();
        }
        self.told.notify_all();
    }

    /// The thread is to end when what it has in hand is done.
    pub fn end(&self) {
        self.ends.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Every content is to be read and compared on both sides.
    pub fn compare(&self) {
        self.compares.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether it is to end.
    pub fn is_ending(&self) -> bool {
        self.ends.load(Ordering::SeqCst)
    }

    /// Whether a comparison is wanted.
    pub fn wants_comparison(&self) -> bool {
        self.compares.load(Ordering::SeqCst)
    }

    /// Whether a comparison is wanted; it is being made then.
    pub fn take_comparison(&self) -> bool {
        self.compares.swap(false, Ordering::SeqCst)
    }

    /// Who waits for a watcher is woken through it; `None` where nobody does any more.
    pub fn wake_by(&self, waker: Option<Waker>) {
        *self.lock() = waker;
    }

    /// Sleeps; shorter when something is told.
    pub fn sleep(&self, duration: Duration) {
        let until = Instant::now() + duration;
        let mut waker = self.lock();
        while !self.is_ending() && !self.wants_comparison() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.told.wait_timeout(waker, left);
            waker = waited.unwrap_or_else(|poison| poison.into_inner()).0;
        }
    }
}
