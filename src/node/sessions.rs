//! The sessions in which this host is the slave, by set: what is done to a mirror by itself waits until there is none, and
//! none begins meanwhile. Masters come again.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::AbortHandle;

/// How long a session may take to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Sessions(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    sets: Mutex<BTreeMap<String, State>>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many want to be alone.
    alone: usize,
    next: u64,
    open: BTreeMap<u64, AbortHandle>,
}

/// A session, until it is dropped.
#[derive(Debug)]
pub struct Session {
    sessions: Sessions,
    set: String,
    number: u64,
}

/// Nobody comes in, until it is dropped.
#[derive(Debug)]
pub struct Alone {
    sessions: Sessions,
    set: String,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        self.0.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session of a set; `hang_up` ends it. `None` where somebody is alone with the set.
    pub fn begin(&self, set: &str, hang_up: AbortHandle) -> Option<Session> {
        let mut sets = self.lock();
        let state = sets.entry(set.to_owned()).or_default();
        if state.alone > 0 {
            return None;
        }
        state.next += 1;
        state.open.insert(state.next, hang_up);
        Some(Session { sessions: self.clone(), set: set.to_owned(), number: state.next })
    }

    /// Ends a set's sessions and waits until they have; `None` where one does not.
    pub fn alone(&self, set: &str) -> Option<Alone> {
        let until = Instant::now() + PATIENCE;
        let alone = Alone { sessions: self.clone(), set: set.to_owned() };
        let mut sets = self.lock();
        sets.entry(set.to_owned()).or_default().alone += 1;
        while let Some(state) = sets.get(set).filter(|state| !state.open.is_empty()) {
            state.open.values().for_each(AbortHandle::abort);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(sets);
                return None;
            }
            sets = self.0.changed.wait_timeout(sets, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(sets);
        Some(alone)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(state) = self.sessions.lock().get_mut(&self.set) {
            state.open.remove(&self.number);
        }
        self.sessions.0.changed.notify_all();
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(state) = self.sessions.lock().get_mut(&self.set) {
            state.alone = state.alone.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_to_be_alone_waits_for_sessions_to_end_and_nobody_comes_in_meanwhile() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let sessions = Sessions::default();
        let hanging = runtime.spawn(std::future::pending::<()>());
        let other = runtime.spawn(std::future::pending::<()>());
        let session = sessions.begin("mail", hanging.abort_handle()).expect("begins");
        let elsewhere = sessions.begin("other", other.abort_handle()).expect("begins");
        std::thread::scope(|scope| {
            let alone = scope.spawn(|| sessions.alone("mail"));
            // The session hears that it is over, and only then ends.
            assert!(runtime.block_on(hanging).expect_err("hung up").is_cancelled());
            assert!(sessions.begin("mail", other.abort_handle()).is_none());
            drop(session);
            let alone = alone.join().expect("no panic").expect("alone");
            assert!(sessions.begin("mail", other.abort_handle()).is_none());
            drop(alone);
        });
        assert!(sessions.begin("mail", other.abort_handle()).is_some());
        assert!(!other.is_finished());
        drop(elsewhere);
    }
}
