//! Tables: what is known, and how bad that is.

use super::*;
use crate::config::file::Cron;
use crate::disk::Fullness;
use crate::repository::layout::Drilled;
use jiff::tz::TimeZone;

const NOW: i64 = 1_800_000_000;
const HOUR: i64 = 3600;

fn limit(critical: f64) -> Limit {
    Limit { warning: None, critical, asked: false }
}

fn limits() -> Limits {
    let (point_age, verify_age) = (limit(26.0 * 3600.0), limit(8.0 * 86_400.0));
    Limits { lag: limit(60.0), point_age, verify_age, disk: Limit { warning: Some(80.0), ..limit(90.0) } }
}

fn schedule(jobs: &[Job]) -> Schedule {
    let cron = |job: &Job| (*job, Cron::parse("0 3 * * *").expect("an expression"));
    Schedule {
        jobs: jobs.iter().map(cron).collect(),
        timezone: TimeZone::UTC,
        jitter: std::time::Duration::ZERO,
        quiet: Vec::new(),
        bandwidth: Vec::new(),
    }
}

fn status() -> Status {
    Status { version: 1, host: "mx1".into(), pid: 7, since: NOW - 1000, written: NOW - 2, ..Status::default() }
}

fn set(role: &str, peer: PeerStatus) -> SetStatus {
    SetStatus { role: role.into(), peers: [("mx2".to_owned(), peer)].into(), ..SetStatus::default() }
}

fn peer(state: &str) -> PeerStatus {
    PeerStatus { state: state.into(), since: NOW - 100, durable_at: Some(NOW - 5), ..PeerStatus::default() }
}

fn kept() -> Kept {
    Kept {
        points: 2,
        first: Some(NOW - 40 * HOUR),
        last: Some(("20270115-080000F".into(), NOW - HOUR)),
        verified: Some(NOW - 20 * HOUR),
        ..Kept::default()
    }
}

#[track_caller]
fn assert_judged(judgement: &Judgement, level: Level, sentence: &str) {
    assert_eq!(judgement.level(), level, "{judgement:?}");
    let findings = judgement.findings.iter().filter(|finding| finding.level == level);
    let said: Vec<&str> = match level {
        Level::Ok => judgement.fine.iter().map(String::as_str).collect(),
        _ => findings.map(|finding| finding.sentence.as_str()).collect(),
    };
    assert!(said.iter().any(|said| said.contains(sentence)), "{sentence:?} is not in {said:?}");
}

#[test]
fn each_state_of_a_peer_is_judged() {
    let waiting = PeerStatus { error: Some("refused".into()), ..peer("waiting") };
    let behind = |lag_seconds| PeerStatus { folders_waiting: 3, lag_seconds, ..peer("following") };
    let long_ago = PeerStatus { durable_at: Some(NOW - 61), ..waiting.clone() };
    let never = PeerStatus { durable_at: None, ..waiting.clone() };
    let in_sync = PeerStatus { in_sync_at: Some(NOW - 10), ..long_ago.clone() };
    let idle = PeerStatus { durable_at: Some(NOW - 9000), ..peer("following") };
    let stopped = PeerStatus { stopped: Some("stopped by the guard".into()), ..peer("following") };
    let rows = [
        ("master", peer("following"), Level::Ok, "mx2 has everything"),
        ("master", idle, Level::Ok, "mx2 has everything"),
        // What was written two seconds ago has waited for two seconds more.
        ("master", behind(58.0), Level::Ok, "mx2 is 3 folders behind, for 60 s"),
        ("master", behind(58.5), Level::Critical, "mx2 is 3 folders behind, for 60 s"),
        ("master", waiting, Level::Ok, "mx2 (waiting) may lack the last 5 s: refused"),
        ("master", long_ago, Level::Critical, "mx2 (waiting) may lack the last 61 s: refused"),
        ("master", in_sync, Level::Ok, "mx2 (waiting) may lack the last 10 s: refused"),
        ("master", never, Level::Critical, "mx2 (waiting) never had everything: refused"),
        ("master", stopped.clone(), Level::Critical, "mx2: stopped by the guard"),
        ("slave", PeerStatus { state: "serving".into(), ..stopped }, Level::Critical, "mx2: stopped by the guard"),
        ("slave", peer("serving"), Level::Ok, "a master is connected"),
        ("slave", peer("gone"), Level::Critical, "no master has been connected for 100 s"),
        ("slave", PeerStatus { since: NOW - 60, ..peer("gone") }, Level::Ok, "no master has been connected for 60 s"),
    ];
    for (role, peer, level, sentence) in rows {
        let (status, set, schedule) = (status(), set(role, peer), schedule(&[]));
        let facts = Facts { schedule: &schedule, status: Some(&status), set: Some(&set), kept: None, now: NOW };
        assert_judged(&judge(&facts, &limits()), level, sentence);
    }
}

#[test]
fn what_is_kept_is_judged_by_what_is_scheduled() {
    let all = [Job::Full, Job::Differential, Job::Verify];
    let none = Kept { points: 0, first: None, last: None, verified: None, ..kept() };
    let old = Kept { last: Some(("x".into(), NOW - 27 * HOUR)), ..kept() };
    let unverified = Kept { verified: None, ..kept() };
    let long_unverified = Kept { first: Some(NOW - 9 * 24 * HOUR), ..unverified.clone() };
    let full = |bytes, inodes| Kept { disk: Fullness { bytes, inodes }, ..kept() };
    let time = crate::maildir::entry::Time { seconds: NOW, nanos: 0 };
    let drill =
        Drilled { when: time, moment: time, mailboxes: 1, messages: 1, bytes: 1, milliseconds: 1, is_whole: false };
    let rows: [(&[Job], Kept, Level, &str); 13] = [
        (&all, kept(), Level::Ok, "the newest restore point is 60 min old"),
        (&all, none.clone(), Level::Warning, "there is no restore point yet"),
        (&[], none, Level::Ok, "the disk is 0% full"),
        (&all, old.clone(), Level::Critical, "the newest restore point is 27 h old"),
        (&[Job::Verify], old, Level::Ok, "the newest restore point is 27 h old"),
        (&all, unverified, Level::Ok, "the first of them 40 h old, were never verified"),
        (&all, long_unverified.clone(), Level::Critical, "the first of them 9 d old, were never verified"),
        (&[Job::Full], long_unverified, Level::Ok, "never verified"),
        (&all, full(80.5, 0.0), Level::Warning, "the disk is 80% full"),
        (&all, full(90.5, 0.0), Level::Critical, "the disk is 90% full"),
        (&all, full(0.0, 99.0), Level::Critical, "the table of inodes is 99% full"),
        (&all, Kept { wrong: vec!["torn".into()], ..kept() }, Level::Critical, "1 restore points cannot be read: torn"),
        (&all, Kept { drilled: Some(drill), ..kept() }, Level::Warning, "the last drill did not bring back everything"),
    ];
    for (jobs, kept, level, sentence) in rows {
        let (schedule, kept) = (schedule(jobs), Ok(kept));
        let facts = Facts { schedule: &schedule, status: None, set: None, kept: Some(&kept), now: NOW };
        assert_judged(&judge(&facts, &limits()), level, sentence);
    }
    let (schedule, kept) = (schedule(&all), Err("denied".to_owned()));
    let facts = Facts { schedule: &schedule, status: None, set: None, kept: Some(&kept), now: NOW };
    assert_judged(&judge(&facts, &limits()), Level::Unknown, "denied");
}

#[test]
fn a_limit_that_somebody_asks_for_counts_whatever_is_scheduled() {
    let (schedule, kept, asked) = (schedule(&[]), Ok(kept()), Limit { asked: true, ..limit(10.0) });
    let facts = Facts { schedule: &schedule, status: None, set: None, kept: Some(&kept), now: NOW };
    let judged = judge(&facts, &Limits { point_age: asked, ..limits() });
    assert_judged(&judged, Level::Critical, "the newest restore point is 60 min old");
    let judged = judge(&facts, &Limits { verify_age: asked, ..limits() });
    assert_judged(&judged, Level::Critical, "restore points were verified 20 h ago");
}

#[test]
fn a_job_that_failed_is_a_warning_and_one_that_found_another_at_work_is_not() {
    for (code, level) in [(Some(0), Level::Ok), (None, Level::Ok), (Some(10), Level::Ok), (Some(23), Level::Warning)] {
        let mut set = set("slave", peer("serving"));
        let job = super::super::status::JobStatus { code, said: "damaged".into(), ..Default::default() };
        set.jobs.insert("verify".into(), job);
        let (status, schedule) = (status(), schedule(&[]));
        let facts = Facts { schedule: &schedule, status: Some(&status), set: Some(&set), kept: None, now: NOW };
        let sentence =
            if level == Level::Ok { "connected" } else { "the last verify ended with exit code 23: damaged" };
        assert_judged(&judge(&facts, &limits()), level, sentence);
    }
}

#[test]
fn a_set_that_the_daemon_does_not_know_is_critical() {
    let (status, schedule) = (status(), schedule(&[]));
    let facts = Facts { schedule: &schedule, status: Some(&status), set: None, kept: None, now: NOW };
    assert_judged(&judge(&facts, &limits()), Level::Critical, "knows nothing of this set");
}

#[test]
fn the_daemon_runs_where_its_process_lives_and_writes() {
    assert_eq!(running(None, |_| true, NOW), Err("it has written no status".to_owned()));
    assert!(running(Some(&status()), |pid| pid == 7, NOW).is_ok());
    assert_eq!(running(Some(&status()), |_| false, NOW), Err("its process 7 is gone".to_owned()));
    let written = |written| Status { written, ..status() };
    assert!(running(Some(&written(NOW - SILENCE)), |_| true, NOW).is_ok());
    let silent = running(Some(&written(NOW - SILENCE - 1)), |_| true, NOW).map(|_| ());
    assert_eq!(silent, Err("its process 7 has written no status for 61 s".to_owned()));
    assert!(running(Some(&written(NOW + 9000)), |_| true, NOW).is_ok(), "a clock that went back");
}

#[test]
fn limits_are_one_figure_or_two() {
    let parse = |typed| Limit::parse(typed, seconds).map(|limit| (limit.warning, limit.critical));
    assert_eq!(parse("60s"), Ok((None, 60.0)));
    assert_eq!(parse("1m,1h"), Ok((Some(60.0), 3600.0)));
    for typed in ["", "soon", "1h,1m", "1m,", ",1m", "1m,2m,3m"] {
        assert!(parse(typed).is_err(), "{typed}");
    }
    assert_eq!((percent("90%"), percent("0.5")), (Ok(90.0), Ok(0.5)));
    for typed in ["101%", "-1%", "NaN", "full", "90%%"] {
        assert!(percent(typed).is_err(), "{typed}");
    }
}

#[test]
fn lengths_of_time_are_said_in_two_words_at_most() {
    let rows = [
        (-5, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (7199, "119 min"),
        (7200, "2 h"),
        (7260, "2 h 1 min"),
        (172_800, "2 d"),
        (180_000, "2 d 2 h"),
    ];
    for (seconds, words) in rows {
        assert_eq!(span(seconds), words);
    }
}
