//! The scheduler beside a model that goes through time minute by minute, and beside clocks that nobody should trust.

use super::*;
use crate::config::file::{Rate, Weekdays, Window};
use jiff::civil::{Weekday, date, time};
use jiff::{ToSpan, Zoned};
use proptest::prelude::*;
use std::time::Duration;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).expect("tests need tzdata")
}

fn schedule(jobs: &[(Job, &str)], zone_name: &str) -> Schedule {
    let jobs = jobs.iter().map(|(job, text)| (*job, Cron::parse(text).expect("a cron expression")));
    Schedule {
        jobs: jobs.collect(),
        timezone: zone(zone_name),
        jitter: Duration::ZERO,
        quiet: Vec::new(),
        bandwidth: Vec::new(),
    }
}

fn window(from: (i8, i8), to: (i8, i8)) -> Window {
    Window { from: time(from.0, from.1, 0, 0), to: time(to.0, to.1, 0, 0), days: Weekdays::ALL }
}

/// One slave with this schedule.
struct One<'a> {
    schedule: &'a Schedule,
    memory: Memory,
    running: BTreeSet<String>,
}

impl<'a> One<'a> {
    /// Seen first at this moment.
    fn new(schedule: &'a Schedule, now: Timestamp) -> Self {
        let mut one = Self { schedule, memory: Memory::default(), running: BTreeSet::new() };
        assert_eq!(one.agenda(now).due, [], "nothing is due that was never seen");
        one
    }

    fn set(&self) -> Scheduled<'a> {
        Scheduled { set: "mail", role: Role::Slave, schedule: self.schedule }
    }

    fn agenda(&mut self, now: Timestamp) -> Agenda {
        agenda(&[self.set()], &mut self.memory, &self.running, now)
    }

    /// Begins what is due, and ends it in the same moment; again, until nothing is.
    fn work(&mut self, now: Timestamp) -> Vec<(Job, Timestamp)> {
        let mut done = Vec::new();
        while let Some(due) = self.agenda(now).due.first() {
            self.memory.begin(due);
            self.memory.end(&self.set(), due.job, now);
            done.push((due.job, due.slot));
        }
        done
    }
}

/// All slots between two moments.
fn slots(text: &str, zone_name: &str, from: &str, to: &str) -> Vec<String> {
    let (cron, zone) = (Cron::parse(text).expect("a cron expression"), zone(zone_name));
    let slots = std::iter::successors(cron.after(at(from), &zone), |slot| cron.after(*slot, &zone));
    slots.take_while(|slot| *slot <= at(to)).map(|slot| slot.to_string()).collect()
}

#[test]
fn an_hour_that_is_left_out_is_made_up_for_once_and_one_that_comes_twice_counts_once() {
    // 2026-03-29: 02:00 CET is 03:00 CEST, 01:00 UTC. 2026-10-25: 03:00 CEST is 02:00 CET, 01:00 UTC.
    let gap = |text| slots(text, "Europe/Berlin", "2026-03-28T23:30:00Z", "2026-03-29T12:00:00Z");
    let fold = |text| slots(text, "Europe/Berlin", "2026-10-24T22:30:00Z", "2026-10-25T12:00:00Z");
    assert_eq!(gap("30 2 * * *"), ["2026-03-29T01:00:00Z"]);
    assert_eq!(gap("0,30 2 * * *"), ["2026-03-29T01:00:00Z"], "both are made up for at once");
    assert_eq!(gap("30 2,5 * * *"), ["2026-03-29T01:00:00Z", "2026-03-29T03:30:00Z"]);
    assert_eq!(fold("30 2 * * *"), ["2026-10-25T00:30:00Z"]);
    assert_eq!(fold("30 2,5 * * *"), ["2026-10-25T00:30:00Z", "2026-10-25T04:30:00Z"]);
    assert_eq!(fold("30 2-3 * * *"), ["2026-10-25T00:30:00Z", "2026-10-25T02:30:00Z"]);
    let hourly = fold("0 * * * *");
    assert_eq!(hourly.len(), 14, "every hour that there is: {hourly:?}");
}

#[test]
fn a_zone_that_leaves_out_a_day_does_not_end_a_job() {
    let days = slots("0 12 * * *", "Pacific/Apia", "2011-12-28T00:00:00Z", "2012-01-03T00:00:00Z");
    assert_eq!(days.len(), 5, "29, 30 (UTC) is left out, and on it goes: {days:?}");
}

#[test]
fn what_was_missed_is_caught_up_once_and_a_full_is_a_differential_too() {
    let schedule = schedule(&[(Job::Full, "0 3 * * 0"), (Job::Differential, "0 3 * * *")], "UTC");
    let mut one = One::new(&schedule, at("2026-11-20T12:00:00Z"));
    assert_eq!(one.work(at("2026-11-21T03:00:00Z")), [(Job::Differential, at("2026-11-21T03:00:00Z"))]);
    assert_eq!(one.work(at("2026-11-22T03:00:00Z")), [(Job::Full, at("2026-11-22T03:00:00Z"))], "and no differential");
    assert_eq!(one.agenda(at("2026-11-22T03:01:00Z")).wake, Some(at("2026-11-23T03:00:00Z")));
    // Three weeks without power.
    assert_eq!(one.work(at("2026-12-15T10:00:00Z")), [(Job::Full, at("2026-12-13T03:00:00Z"))]);
    assert_eq!(one.work(at("2026-12-15T10:00:00Z")), []);
    assert_eq!(one.work(at("2026-12-16T03:00:01Z")), [(Job::Differential, at("2026-12-16T03:00:00Z"))]);
}

#[test]
fn nothing_is_begun_while_something_is_done_and_what_passes_meanwhile_is_its_own() {
    let schedule = schedule(&[(Job::Verify, "0 * * * *"), (Job::Expire, "30 3 * * *")], "UTC");
    let mut one = One::new(&schedule, at("2026-11-20T02:30:00Z"));
    let due = one.agenda(at("2026-11-20T03:00:00Z")).due.remove(0);
    one.memory.begin(&due);
    one.running.insert("mail".to_owned());
    assert_eq!(one.agenda(at("2026-11-20T05:10:00Z")).due, []);
    one.running.clear();
    one.memory.end(&one.set(), Job::Verify, at("2026-11-20T05:10:00Z"));
    let expire = [(Job::Expire, at("2026-11-20T03:30:00Z"))];
    assert_eq!(one.work(at("2026-11-20T05:10:00Z")), expire, "verify was busy at 4 and at 5");
    assert_eq!(one.work(at("2026-11-20T06:00:00Z")), [(Job::Verify, at("2026-11-20T06:00:00Z"))]);
}

#[test]
fn quiet_hours_put_off_what_may_wait() {
    let jobs = [(Job::Differential, "0 9 * * *"), (Job::Verify, "0 10 * * *")];
    let mut schedule = schedule(&jobs, "Europe/Berlin");
    schedule.quiet = vec![window((8, 0), (12, 0)), window((11, 30), (18, 0))];
    let mut one = One::new(&schedule, at("2026-11-20T05:00:00Z"));
    assert_eq!(one.work(at("2026-11-20T08:00:00Z")), [(Job::Differential, at("2026-11-20T08:00:00Z"))]);
    let agenda = one.agenda(at("2026-11-20T09:00:00Z"));
    assert_eq!((agenda.due, agenda.wake), (vec![], Some(at("2026-11-20T17:00:00Z"))), "18:00 in Berlin");
    assert_eq!(one.work(at("2026-11-20T17:00:00Z")), [(Job::Verify, at("2026-11-20T09:00:00Z"))]);
}

#[test]
fn jitter_is_the_same_each_time_and_within_its_bounds() {
    let mut schedule = schedule(&[(Job::Full, "0 3 * * 0"), (Job::Differential, "0 3 * * *")], "UTC");
    schedule.jitter = Duration::from_secs(3600);
    let mut one = One::new(&schedule, at("2026-11-20T12:00:00Z"));
    let mut late = BTreeSet::new();
    for day in 21..30 {
        let slot = date(2026, 11, day).at(3, 0, 0, 0).to_zoned(TimeZone::UTC).expect("a time").timestamp();
        let wake = one.agenda(slot - 1.second()).wake.expect("it comes");
        assert!((slot..=slot + 1.hour()).contains(&wake), "{wake}");
        assert_eq!(one.agenda(slot).wake, Some(wake), "asked again");
        assert_eq!(one.work(wake - 1.second()), []);
        let job = if slot.to_zoned(TimeZone::UTC).weekday() == Weekday::Sunday { Job::Full } else { Job::Differential };
        assert_eq!(one.work(wake), [(job, slot)], "a full and a differential are late together");
        late.insert(wake.duration_since(slot));
    }
    assert!(late.len() > 3, "each slot has its own: {late:?}");
}

#[test]
fn what_was_interrupted_is_done_once_more_and_no_oftener() {
    let schedule = schedule(&[(Job::Full, "0 3 * * 0")], "UTC");
    let mut one = One::new(&schedule, at("2026-11-20T12:00:00Z"));
    let now = at("2026-11-22T03:00:00Z");
    for _ in 0..2 {
        let due = one.agenda(now).due.remove(0);
        one.memory.begin(&due);
        // Killed: all that is left is what was written down.
        let written = serde_json::to_string(&one.memory).expect("it can be written");
        one.memory = serde_json::from_str(&written).expect("and read");
        one.memory.restart();
    }
    assert_eq!(one.work(now), [], "it may be what kills the process");
    assert_eq!(one.work(at("2026-11-29T03:00:00Z")), [(Job::Full, at("2026-11-29T03:00:00Z"))]);
    let due = Due { set: "mail".into(), job: Job::Full, slot: at("2026-12-06T03:00:00Z"), with: None };
    one.memory.begin(&due);
    one.memory.end(&one.set(), Job::Full, at("2026-12-06T04:00:00Z"));
    one.memory.restart();
    assert_eq!(one.work(at("2026-12-06T05:00:00Z")), [], "what had ended was not interrupted");
}

#[test]
fn a_clock_that_was_ten_years_ahead_does_not_end_a_job() {
    let schedule = schedule(&[(Job::Differential, "0 3 * * *")], "UTC");
    let mut one = One::new(&schedule, at("2026-11-20T12:00:00Z"));
    assert_eq!(one.work(at("2026-11-21T04:00:00Z")).len(), 1);
    assert_eq!(one.work(at("2036-11-21T04:00:00Z")).len(), 1, "ten years are caught up once");
    assert_eq!(one.work(at("2026-11-21T05:00:00Z")), []);
    assert_eq!(one.agenda(at("2026-11-21T05:00:00Z")).wake, Some(at("2026-11-22T03:00:00Z")));
    assert_eq!(one.work(at("2026-11-22T03:00:00Z")).len(), 1);
    // And for one that was first seen then.
    let mut one = One::new(&schedule, at("2036-11-20T12:00:00Z"));
    assert_eq!(one.work(at("2026-11-21T05:00:00Z")), []);
    assert_eq!(one.work(at("2026-11-22T03:00:00Z")).len(), 1);
}

#[test]
fn bandwidth_goes_by_the_hour_and_the_first_that_fits_counts() {
    let mut schedule = schedule(&[], "Europe/Berlin");
    let rate = |window, rate| Rate { window, rate };
    let week = [Weekday::Monday, Weekday::Tuesday].into_iter().fold(Weekdays::NONE, Weekdays::with);
    schedule.bandwidth = vec![
        rate(Window { days: week, ..window((22, 0), (6, 0)) }, None),
        rate(window((8, 0), (18, 0)), Some(1000)),
        rate(window((0, 0), (0, 0)), Some(5000)),
    ];
    let rate_at = |text| pace(&schedule, Some(7), at(text)).rate;
    assert_eq!(rate_at("2026-11-23T22:00:00Z"), None, "Monday, 23:00");
    assert_eq!(rate_at("2026-11-25T04:59:00Z"), None, "Wednesday, 5:59, is Tuesday's night");
    assert_eq!(rate_at("2026-11-25T05:00:00Z"), Some(5000));
    assert_eq!(rate_at("2026-11-25T07:00:00Z"), Some(1000));
    assert_eq!(rate_at("2026-11-25T22:00:00Z"), Some(5000), "Wednesday's night");
    assert_eq!(pace(&schedule, None, at("2026-11-25T07:00:00Z")).until, Some(at("2026-11-25T17:00:00Z")));
    schedule.bandwidth.clear();
    assert_eq!(pace(&schedule, Some(7), at("2026-11-25T07:00:00Z")), Pace { rate: Some(7), until: None });
}

// ---- the model

/// A cron expression of which the model knows what it means, without a library.
#[derive(Clone, Debug)]
struct Simple {
    minutes: Vec<i8>,
    /// Empty for every hour.
    hours: Vec<i8>,
    /// From Sunday, as cron counts them. Empty for every day.
    weekdays: Vec<i8>,
}

impl Simple {
    fn text(&self) -> String {
        let list = |values: &[i8]| match values {
            [] => "*".to_owned(),
            _ => values.iter().map(i8::to_string).collect::<Vec<_>>().join(","),
        };
        format!("{} {} * * {}", list(&self.minutes), list(&self.hours), list(&self.weekdays))
    }

    fn has(&self, date: jiff::civil::Date, hour: i8, minute: i8) -> bool {
        let is_in = |values: &[i8], value| values.is_empty() || values.contains(&value);
        let weekday = date.weekday().to_sunday_zero_offset();
        self.minutes.contains(&minute) && is_in(&self.hours, hour) && is_in(&self.weekdays, weekday)
    }

    /// Whether it fires in the minute that begins with `now`, where `before` is the minute before.
    fn fires(&self, before: &Zoned, now: &Zoned) -> bool {
        let passed = before.datetime() + 1.minute();
        if now.datetime() < passed && !self.hours.is_empty() {
            return false;
        }
        if !self.hours.is_empty() && self.is_again(now) {
            return false;
        }
        // What the clock on the wall stepped over, where it did.
        let mut minute = if self.hours.is_empty() { now.datetime() } else { passed.min(now.datetime()) };
        while minute <= now.datetime() {
            if self.has(minute.date(), minute.hour(), minute.minute()) {
                return true;
            }
            minute += 1.minute();
        }
        false
    }

    /// Whether the clock on the wall showed the same an hour or so before.
    fn is_again(&self, now: &Zoned) -> bool {
        let both = now.time_zone().to_ambiguous_zoned(now.datetime());
        both.is_ambiguous() && both.earlier().is_ok_and(|earlier| earlier < *now)
    }
}

fn simple() -> impl Strategy<Value = Simple> {
    let minutes = prop_oneof![Just(vec![0]), Just(vec![30]), Just(vec![0, 30]), Just(vec![15]), Just(vec![5, 59])];
    let hours =
        prop_oneof![Just(vec![]), Just(vec![2]), Just(vec![1, 2]), Just(vec![3]), Just(vec![0, 23]), Just(vec![2, 12])];
    let weekdays = prop_oneof![Just(vec![]), Just(vec![0]), Just(vec![0, 6]), Just(vec![1, 2, 3])];
    (minutes, hours, weekdays).prop_map(|(minutes, hours, weekdays)| Simple { minutes, hours, weekdays })
}

/// Zones, and a moment shortly before the clock is changed there.
const CHANGES: [(&str, &str); 7] = [
    ("Europe/Berlin", "2026-03-27T20:00:00Z"),
    ("Europe/Berlin", "2026-10-23T20:00:00Z"),
    ("America/New_York", "2026-03-06T20:00:00Z"),
    ("America/New_York", "2026-10-30T20:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-03T20:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-02T20:00:00Z"),
    ("UTC", "2026-12-30T20:00:00Z"),
];

const JOBS: [Job; 4] = [Job::Full, Job::Differential, Job::Expire, Job::Verify];

/// Minutes that are gone through: three days and a half, so that a change lies within them.
const MINUTES: i64 = 84 * 60;

#[derive(Clone, Debug)]
struct Case {
    place: usize,
    jobs: Vec<Simple>,
    quiet: bool,
    /// Minutes that a job takes.
    takes: i64,
    /// The process is not there from the first minute up to the second.
    away: (i64, i64),
}

fn case() -> impl Strategy<Value = Case> {
    let away = (0..MINUTES, 0..MINUTES).prop_map(|(one, other)| (one.min(other), one.max(other)));
    let away = prop_oneof![Just((0, 0)), away];
    (0..CHANGES.len(), proptest::collection::vec(simple(), JOBS.len()), any::<bool>(), 0..200_i64, away)
        .prop_map(|(place, jobs, quiet, takes, away)| Case { place, jobs, quiet, takes, away })
}

/// When which job is begun, minute after minute.
fn model(case: &Case, zone: &TimeZone, start: Timestamp) -> Vec<(i64, Job)> {
    let (mut waiting, mut begun): (BTreeSet<Job>, Vec<_>) = (BTreeSet::new(), Vec::new());
    let mut busy: Option<(Job, i64)> = None;
    let local = |minute: i64| (start + minute.minutes()).to_zoned(zone.clone());
    for minute in 1..MINUTES {
        let (before, now) = (local(minute - 1), local(minute));
        let firing = JOBS.iter().zip(&case.jobs).filter(|(_, simple)| simple.fires(&before, &now));
        waiting.extend(firing.map(|(job, _)| *job));
        let is_away = (case.away.0..case.away.1).contains(&minute);
        // It ends even so: what a process began before it went is of no matter here.
        if let Some((job, _)) = busy.filter(|(_, end)| *end <= minute && !is_away) {
            waiting.remove(&job);
            if job == Job::Full {
                waiting.remove(&Job::Differential);
            }
            busy = None;
        }
        while busy.is_none() && !is_away {
            let is_quiet = case.quiet && (6..22).contains(&now.hour());
            let next = waiting.iter().copied().find(|job| !is_quiet || !job.may_wait());
            let Some(job) = next else { break };
            waiting.remove(&job);
            if job == Job::Full {
                waiting.remove(&Job::Differential);
            }
            begun.push((minute, job));
            busy = (case.takes > 0).then_some((job, minute + case.takes));
        }
    }
    begun
}

/// The same by the scheduler, which is asked when it said that it wants to be, when a job ends, and when it is back.
fn scheduled(case: &Case, schedule: &Schedule, start: Timestamp) -> Vec<(i64, Job)> {
    let mut one = One::new(schedule, start);
    let mut begun = Vec::new();
    let mut busy: Option<(Job, i64)> = None;
    let mut minute = 0;
    loop {
        let now = start + minute.minutes();
        if let Some((job, _)) = busy.filter(|(_, end)| *end <= minute) {
            one.memory.end(&one.set(), job, now);
            one.running.clear();
            busy = None;
        }
        let agenda = one.agenda(now);
        let wake = agenda.wake.map(|wake| (wake.as_second() - start.as_second() + 59) / 60);
        let mut next = wake.unwrap_or(MINUTES);
        assert!(next > minute, "it wants to be asked at {next}, and it is {minute}");
        if let Some(due) = agenda.due.first() {
            one.memory.begin(due);
            begun.push((minute, due.job));
            one.running.insert("mail".to_owned());
            busy = Some((due.job, minute + case.takes));
        }
        next = busy.map_or(next, |(_, end)| end.min(next));
        minute = if (case.away.0..case.away.1).contains(&next) { case.away.1 } else { next };
        if minute >= MINUTES {
            return begun;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn jobs_are_begun_when_a_minute_by_minute_model_begins_them(case in case()) {
        let (name, start) = CHANGES[case.place];
        let texts: Vec<String> = case.jobs.iter().map(Simple::text).collect();
        let jobs: Vec<(Job, &str)> = JOBS.into_iter().zip(texts.iter().map(String::as_str)).collect();
        let mut schedule = schedule(&jobs, name);
        if case.quiet {
            schedule.quiet = vec![window((6, 0), (22, 0))];
        }
        prop_assert_eq!(scheduled(&case, &schedule, at(start)), model(&case, &schedule.timezone, at(start)), "{:?}", jobs);
    }

    /// Whatever the clock does, no slot is done twice; and once it goes right, the next slot is done.
    #[test]
    fn a_clock_that_jumps_neither_repeats_a_slot_nor_ends_a_job(
        jumps in proptest::collection::vec(-2_000_000_i64..2_000_000, 1..40),
        jitter in prop_oneof![Just(0_u64), 0..7200_u64],
    ) {
        let mut schedule = schedule(&[(Job::Differential, "0 3,15 * * *")], "Europe/Berlin");
        schedule.jitter = Duration::from_secs(jitter);
        let mut now = at("2026-11-20T12:00:00Z");
        let mut one = One::new(&schedule, now);
        let mut seen = BTreeSet::new();
        for jump in jumps {
            now += jump.seconds();
            for (_, slot) in one.work(now) {
                prop_assert!(slot <= now);
                prop_assert!(seen.insert(slot), "{slot} is done twice");
            }
            let wake = one.agenda(now).wake;
            prop_assert!(wake.is_some_and(|wake| wake > now), "{wake:?} at {now}");
        }
        let end = now + (60 * 24).hours();
        while now < end {
            now += 1.hour();
            seen.extend(one.work(now).into_iter().map(|(_, slot)| slot));
        }
        let newest = seen.iter().filter(|slot| **slot <= now).max().copied();
        prop_assert!(newest.is_some_and(|slot| slot + 15.hours() >= now), "{newest:?} at {now}");
    }
}
