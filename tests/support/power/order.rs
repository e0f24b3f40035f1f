//! The rules that the order of a slave's calls must keep, so that no power cut takes what was promised.
//!
//! 1. Before an acknowledgement: the log and every name above it are durable, and it holds the batch; each content that
//!    the batch refers to is in the log, or staged and durable with its name.
//! 2. Before the catalogue changes its head: everything that this process, and those before it, did to the mirror.
//! 3. Before a log is removed: mirror and catalogue are durable, and the catalogue has been committed since the log's
//!    last batch.
//! 4. Before the slave says that all is done, and at a good end: mirror and catalogue are durable.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::{Call, Durability, Promise, Session, Unsynced, What};

/// Where the slave keeps what.
#[derive(Clone, Debug)]
pub struct Places {
    /// The mirror.
    pub mirror: PathBuf,
    /// The slave's state: log and catalogue.
    pub state: PathBuf,
    /// The staged contents.
    pub staging: PathBuf,
}

impl Places {
    /// The state is in the mirror.
    pub fn within(mirror: &Path) -> Self {
        let state = mirror.join(".mailtwin");
        Self { mirror: mirror.to_owned(), staging: state.join("staging"), state }
    }

    fn segment(&self) -> PathBuf {
        self.state.join("segment")
    }

    fn catalogue(&self) -> PathBuf {
        self.state.join("catalogue")
    }
}

/// How often each rule was held against something; a check of nothing proves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Acknowledgements.
    pub acknowledgements: usize,
    /// Batches that they were about.
    pub batches: usize,
    /// Contents that were in the log.
    pub logged: usize,
    /// Contents that were staged and durable.
    pub staged: usize,
    /// Changes of the catalogue's head.
    pub commits: usize,
    /// Changes of the mirror that a sync made durable before such a change.
    pub changes: usize,
    /// Logs removed.
    pub removals: usize,
    /// Times that the slave said all is done.
    pub ends: usize,
}

/// Follows the calls of one process.
struct Watch<'a> {
    places: &'a Places,
    session: &'a Session,
    durability: &'a mut Durability,
    checked: Checked,
    /// Bytes that were written to the other end.
    said: u64,
    promises: usize,
    /// Frames of the log, by their checks.
    logged: HashSet<[u8; 8]>,
    /// Those of them that a sync made durable.
    durable: HashSet<[u8; 8]>,
    /// The log was opened: before that no head of the catalogue claims anything.
    has_opened_log: bool,
    /// Something was logged since the catalogue was committed last.
    is_ahead: bool,
    violations: Vec<String>,
}

/// Holds a trace against the rules. What it finds, and how much it looked at.
pub fn check(
    calls: &[Call],
    session: &Session,
    places: &Places,
    durability: &mut Durability,
) -> (Checked, Vec<String>) {
    let mut watch = Watch {
        places,
        session,
        durability,
        checked: Checked::default(),
        said: 0,
        promises: 0,
        logged: HashSet::new(),
        durable: HashSet::new(),
        has_opened_log: false,
        is_ahead: false,
        violations: Vec::new(),
    };
    let mut moments: BTreeMap<(usize, bool, usize), &Call> = BTreeMap::new();
    for (number, call) in calls.iter().enumerate() {
        moments.insert((call.begin, false, number), call);
        moments.insert((call.end, true, number), call);
    }
    for ((_, is_end, _), call) in moments {
        match is_end {
            false => watch.begins(call),
            true => watch.ends(call),
        }
    }
    (watch.checked, watch.violations)
}

impl Watch<'_> {
    fn begins(&mut self, call: &Call) {
        match call.name.as_str() {
            "write" if call.descriptor(0) == Some(1) => self.says(call),
            "pwrite64" if call.open_path(0) == self.places.catalogue() && call.arguments[3] == "0" => {
                self.commits(call);
            }
            "unlinkat" if call.path_at(0) == self.places.segment() => self.removes(call),
            "openat" | "openat2" if call.path_at(0) == self.places.segment() => self.has_opened_log = true,
            "writev" | "sendfile" | "splice" => panic!("its length is not shown: {call:?}"),
            _ => {}
        }
    }

    fn ends(&mut self, call: &Call) {
        if call.name == "write" && call.succeeded() {
            if call.descriptor(0) == Some(1) {
                self.said += call.returned().unwrap_or(0);
            } else if call.open_path(0) == self.places.segment() {
                self.logs(call);
            }
        }
        // One thread writes the log and syncs it: what is in it when a sync ends was there when it began.
        let syncs_log = ["fsync", "fdatasync"].contains(&call.name.as_str());
        if syncs_log && call.succeeded() && call.open_path(0) == self.places.segment() {
            self.durable.clone_from(&self.logged);
        }
        let before = self.of_the_mirror().len();
        self.durability.ended(call);
        if call.name == "syncfs" {
            self.checked.changes += before - self.of_the_mirror().len();
        }
    }

    /// Each append is one frame, and its header shows which.
    fn logs(&mut self, call: &Call) {
        let bytes = call.bytes(1);
        if let Some(check) = bytes.get(8..16).and_then(|check| check.try_into().ok()) {
            self.logged.insert(check);
            self.is_ahead |= self.session.batches.iter().any(|batch| batch.check == check);
        }
    }

    /// A write to the other end: whatever promise it brings to its last byte must be true already.
    fn says(&mut self, call: &Call) {
        let length: u64 = call.arguments[2].parse().unwrap_or_else(|_| panic!("how long is this? {call:?}"));
        let until = self.said + length;
        while let Some((end, promise)) = self.session.promises.get(self.promises)
            && *end <= until
        {
            let promise = *promise;
            self.promises += 1;
            match promise {
                Promise::Acknowledged(_) => self.acknowledges(call, promise),
                Promise::Done => {
                    self.checked.ends += 1;
                    self.is_at_rest(call, "all is said to be done");
                }
            }
        }
    }

    fn acknowledges(&mut self, call: &Call, promise: Promise) {
        let Promise::Acknowledged(last) = promise else { return };
        self.checked.acknowledgements += 1;
        let segment = self.places.segment();
        self.must_have_names(call, &segment, "the log");
        let earlier = self.session.promises[..self.promises - 1].iter().filter_map(|(_, promise)| match promise {
            Promise::Acknowledged(position) => Some(*position),
            Promise::Done => None,
        });
        let before = earlier.max().unwrap_or_default();
        let session = self.session;
        for batch in session.batches.iter().filter(|batch| batch.position > before && batch.position <= last) {
            self.checked.batches += 1;
            if !self.logged.contains(&batch.check) {
                self.wrong(call, &format!("{:?} is acknowledged and not in the log", batch.position));
            } else if !self.durable.contains(&batch.check) {
                // What follows may be in the log by now, and not be durable: the acknowledgement is written by a
                // thread of its own.
                self.wrong(
                    call,
                    &format!("the log is acknowledged, and bytes of {} are not synced", segment.display()),
                );
            }
            let numbers: BTreeSet<u64> = batch.contents().collect();
            numbers.into_iter().for_each(|number| self.is_kept(call, number));
        }
    }

    /// A content that is acknowledged: all of its blocks are logged, or it is staged for good.
    fn is_kept(&mut self, call: &Call, number: u64) {
        let blocks: HashMap<_, _> =
            self.session.blocks.iter().filter(|(_, numbers)| numbers.contains(&number)).collect();
        if !blocks.is_empty() && blocks.keys().all(|check| self.durable.contains(*check)) {
            self.checked.logged += 1;
            return;
        }
        self.checked.staged += 1;
        let staged = self.places.staging.join(number.to_string());
        self.must_be_durable(call, &staged, "a staged content");
    }

    fn must_be_durable(&mut self, call: &Call, path: &Path, what: &str) {
        // It may be applied already: an acknowledgement is written by a thread of its own.
        if !self.durability.has_content(&self.durability.place_of(path)) {
            self.wrong(call, &format!("{what} is acknowledged, and bytes of {} are not synced", path.display()));
        }
        self.must_have_names(call, path, what);
    }

    fn must_have_names(&mut self, call: &Call, path: &Path, what: &str) {
        for name in self.durability.names_at_risk(path) {
            self.wrong(call, &format!("{what} is acknowledged, and the name {} is not synced", name.display()));
        }
    }

    /// What in the mirror, apart from the slave's own, is not durable.
    fn of_the_mirror(&self) -> Vec<String> {
        self.of_the_mirror_by(|_| true)
    }

    fn of_the_mirror_by(&self, counts: impl Fn(&Unsynced) -> bool) -> Vec<String> {
        let own = self.places.mirror.join(".mailtwin");
        let changes = self.durability.unsynced_beneath(&self.places.mirror);
        let is_of_the_set = |path: &Path| !path.starts_with(&own) && !path.starts_with(&self.places.state);
        let foreign = changes.filter(|change| is_of_the_set(&change.path) && counts(change));
        foreign.map(|change| format!("{:?} of {}", change.what, change.path.display())).collect()
    }

    fn commits(&mut self, call: &Call) {
        self.checked.commits += 1;
        self.is_ahead = false;
        let left = match self.has_opened_log {
            true => self.of_the_mirror(),
            false => self.of_the_mirror_by(|change| !self.durability.is_inherited(change)),
        };
        if !left.is_empty() {
            self.wrong(call, &format!("the catalogue claims what is not synced: {}", left.join(", ")));
        }
    }

    fn removes(&mut self, call: &Call) {
        self.checked.removals += 1;
        if self.is_ahead {
            self.wrong(call, "the log is removed, and the catalogue was not committed after its last batch");
        }
        self.is_at_rest(call, "the log is removed");
    }

    fn is_at_rest(&mut self, call: &Call, when: &str) {
        let mut left = self.of_the_mirror();
        let catalogue = self.places.catalogue();
        let own = self.durability.unsynced_beneath(&catalogue).filter(|change| change.what != What::Metadata);
        left.extend(own.map(|change| format!("{:?} of {}", change.what, change.path.display())));
        let names = self.durability.names_at_risk(&catalogue);
        left.extend(names.into_iter().map(|name| format!("the name {}", name.display())));
        if !left.is_empty() {
            self.wrong(call, &format!("{when}, and this is not synced: {}", left.join(", ")));
        }
    }

    fn wrong(&mut self, call: &Call, what: &str) {
        self.violations.push(format!("line {}: {what}", call.begin + 1));
    }
}

/// What is not durable at the end of a good run, of mirror and catalogue.
pub fn unsynced_at_the_end(places: &Places, durability: &Durability) -> Vec<String> {
    let of_interest = |path: &Path| {
        let is_own = path.starts_with(&places.state) || path.starts_with(places.mirror.join(".mailtwin"));
        !is_own || path == places.catalogue()
    };
    let roots = [&places.mirror, &places.state];
    let left = roots.into_iter().flat_map(|root| durability.unsynced_beneath(root));
    let left = left.filter(|change| of_interest(&change.path));
    left.map(|change| format!("{:?} of {}", change.what, change.path.display())).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mailtwin::id::{Digest, Position};
    use mailtwin::maildir::change::{Change, Source};
    use mailtwin::maildir::entry::{File, Meta};
    use mailtwin::path::TreePath;

    use super::super::{Batch, read_trace};
    use super::*;

    /// A first copy of one message whose content is logged, done right.
    const LOGGED: &str = r#"1 mkdirat(3</h>, "m", 0700) = 0
1 fsync(3</h>) = 0
1 mkdirat(4</h/m>, ".mailtwin", 0700) = 0
1 fsync(4</h/m>) = 0
1 openat(5</h/m/.mailtwin>, "catalogue", O_RDWR|O_CREAT, 0600) = 8</h/m/.mailtwin/catalogue>
1 mkdirat(5</h/m/.mailtwin>, "staging", 0700) = 0
1 openat(5</h/m/.mailtwin>, "segment", O_RDWR|O_CREAT|O_EXCL, 0600) = 6</h/m/.mailtwin/segment>
1 fsync(5</h/m/.mailtwin>) = 0
2 openat(7</h/m/.mailtwin/staging>, "9", O_RDWR|O_CREAT|O_EXCL, 0600) = 9</h/m/.mailtwin/staging/9>
2 write(9</h/m/.mailtwin/staging/9>, "letter", 6) = 6
1 write(6</h/m/.mailtwin/segment>, "HHHHHHHHBLOCK-09letter", 22) = 22
1 write(6</h/m/.mailtwin/segment>, "HHHHHHHHCOMMIT-1x", 17) = 17
1 fdatasync(6</h/m/.mailtwin/segment>) = 0
3 write(1<pipe:[1]>, "ack", 100) = 100
1 mkdirat(4</h/m>, "cur", 0700) = 0
1 renameat(7</h/m/.mailtwin/staging>, "9", 10</h/m/cur>, "1:2,S") = 0
1 syncfs(4</h/m>) = 0
1 pwrite64(8</h/m/.mailtwin/catalogue>, "head", 4096, 0) = 4096
1 fdatasync(8</h/m/.mailtwin/catalogue>) = 0
1 unlinkat(5</h/m/.mailtwin>, "segment", 0) = 0
3 write(1<pipe:[1]>, "done", 100) = 100
"#;

    /// The same where the content is too large for the log.
    fn staged() -> String {
        let without_block: Vec<&str> = LOGGED.lines().filter(|line| !line.contains("BLOCK-09")).collect();
        let sync = "1 syncfs(4</h/m>) = 0\n1 fdatasync(6</h/m/.mailtwin/segment>)";
        without_block.join("\n").replace("1 fdatasync(6</h/m/.mailtwin/segment>)", sync)
    }

    fn session() -> Session {
        let position = Position { epoch: 1, sequence: 1 };
        let path = TreePath::new(b"cur/1:2,S").expect("a path");
        let file = File { size: 6, digest: Digest::of(b"letter"), group: 0 };
        let put = Change::Put { path, meta: Meta::default(), file, source: Source::Shipped(9) };
        Session {
            batches: vec![Batch { position, changes: vec![put], check: *b"COMMIT-1" }],
            blocks: [(*b"BLOCK-09", vec![9])].into(),
            promises: vec![(100, Promise::Acknowledged(position)), (200, Promise::Done)],
            ..Session::default()
        }
    }

    fn found(trace: &str) -> (Checked, Vec<String>) {
        let mut durability = Durability::before(BTreeSet::new(), Vec::new());
        let (checked, mut violations) =
            check(&read_trace(trace), &session(), &Places::within(Path::new("/h/m")), &mut durability);
        let left = unsynced_at_the_end(&Places::within(Path::new("/h/m")), &durability);
        violations.extend(left);
        (checked, violations)
    }

    #[test]
    fn calls_in_the_right_order_are_counted_and_found_right() {
        let (checked, violations) = found(LOGGED);
        assert_eq!(violations, Vec::<String>::new());
        let expected = Checked {
            acknowledgements: 1,
            batches: 1,
            logged: 1,
            staged: 0,
            commits: 1,
            // The directory, the message's name, and its bytes.
            changes: 3,
            removals: 1,
            ends: 1,
        };
        assert_eq!(checked, expected);
        let (checked, violations) = found(&staged());
        assert_eq!((violations, checked.logged, checked.staged), (Vec::new(), 0, 1));
    }

    /// Each sync is there for something: where it is missing or fails, that shows.
    #[test]
    fn no_sync_can_be_left_out_without_being_seen() {
        let staged = staged();
        let of_the_log: Vec<&str> = LOGGED.lines().filter(|line| line.contains("sync")).collect();
        assert_eq!(of_the_log.len(), 6);
        let logged = of_the_log.into_iter().map(|sync| (LOGGED, sync));
        // Before an acknowledgement of staged contents one sync takes along all that came before it.
        for (trace, sync) in logged.chain([(&*staged, "1 syncfs(4</h/m>) = 0")]) {
            let at = trace.find(sync).expect("it is there");
            for instead in ["1 sync_file_range(6</h/m>, 0, 0, 0) = 0", &sync.replace("= 0", "= -1 EIO (error)")] {
                let without = format!("{}{instead}{}", &trace[..at], &trace[at + sync.len()..]);
                let (_, violations) = found(&without);
                assert!(!violations.is_empty(), "not missed: {sync}");
            }
        }
    }

    #[test]
    fn an_acknowledgement_before_its_time_is_seen() {
        let ack = "3 write(1<pipe:[1]>, \"ack\", 100) = 100\n";
        let sync = "1 fdatasync(6</h/m/.mailtwin/segment>) = 0\n";
        let early = LOGGED.replace(ack, "").replace(sync, &format!("{ack}{sync}"));
        assert!(found(&early).1[0].contains("bytes of /h/m/.mailtwin/segment are not synced"));
        let during = LOGGED.replace(ack, "").replace(
            sync,
            &format!("1 fdatasync(6</h/m/.mailtwin/segment> <unfinished ...>\n{ack}1 <... fdatasync resumed>) = 0\n"),
        );
        assert!(found(&during).1[0].contains("bytes of /h/m/.mailtwin/segment are not synced"));
    }

    #[test]
    fn an_acknowledgement_of_what_is_not_kept_is_seen() {
        let without = |word: &str| -> String {
            LOGGED.lines().filter(|line| !line.contains(word)).map(|line| format!("{line}\n")).collect()
        };
        assert!(found(&without("COMMIT-1")).1.join("\n").contains("not in the log"));
        let unlogged = found(&without("BLOCK-09")).1.join("\n");
        assert!(unlogged.contains("bytes of /h/m/.mailtwin/staging/9 are not synced"), "{unlogged}");
        assert!(unlogged.contains("the name /h/m/.mailtwin/staging/9 is not synced"), "{unlogged}");
    }

    #[test]
    fn a_catalogue_or_log_that_is_ahead_of_its_time_is_seen() {
        let sync = "1 syncfs(4</h/m>) = 0\n";
        let head = "1 pwrite64(8</h/m/.mailtwin/catalogue>, \"head\", 4096, 0) = 4096\n";
        let early = LOGGED.replace(sync, "").replace(head, &format!("{head}{sync}"));
        assert!(found(&early).1[0].contains("the catalogue claims what is not synced"), "{:?}", found(&early));
        let never = LOGGED.replace(head, "");
        assert!(found(&never).1[0].contains("was not committed after its last batch"));
    }
}
