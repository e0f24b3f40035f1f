//! What people type, as tables; the clock and the zone of each row are those of its test.

use super::*;
use proptest::prelude::*;

/// A moment in Berlin, by the clock on the wall there.
fn berlin(at: &str) -> Zoned {
    format!("{at}[Europe/Berlin]").parse().expect("a moment in Berlin")
}

/// Saturday, winter time.
fn now() -> Zoned {
    berlin("2026-11-21T14:05:30")
}

/// What is meant by `typed` at `now`, in UTC.
#[track_caller]
fn utc(typed: &str, now: &Zoned) -> String {
    rfc3339(parse(typed, now).unwrap_or_else(|error| panic!("{error}")))
}

/// What is meant by `typed` at `now`, by the clock on the wall.
#[track_caller]
fn wall(typed: &str, now: &Zoned) -> String {
    show(parse(typed, now).unwrap_or_else(|error| panic!("{error}")), now.time_zone())
}

#[test]
fn asctime_is_that_of_c_in_utc() {
    let shown = |seconds| asctime(Time { seconds, nanos: 999_999_999 });
    assert_eq!(shown(1_795_337_998), "Sun Nov 22 08:59:58 2026");
    assert_eq!(shown(1_793_494_800), "Sun Nov  1 01:00:00 2026");
    assert_eq!(shown(-1), "Wed Dec 31 23:59:59 1969");
    assert_eq!(shown(i64::MAX), "Thu Jan  1 00:00:00 1970");
}

#[test]
fn dates_and_times_are_those_of_the_local_zone() {
    for (typed, meant) in [
        ("2026-11-20 14:05", "2026-11-20 14:05:00"),
        ("2026-11-20 14:05:30", "2026-11-20 14:05:30"),
        ("2026-11-20T14:05", "2026-11-20 14:05:00"),
        ("2026-11-20 9:05", "2026-11-20 09:05:00"),
        ("2026-11-20 9pm", "2026-11-20 21:00:00"),
        ("2026-11-20", "2026-11-20 00:00:00"),
        ("2030-01-01", "2030-01-01 00:00:00"),
        ("now", "2026-11-21 14:05:30"),
    ] {
        assert_eq!(wall(typed, &now()), meant, "{typed}");
    }
    assert_eq!(utc("2026-11-20 14:05", &now()), "2026-11-20T13:05:00Z");
    assert_eq!(utc("2026-07-20 14:05", &now()), "2026-07-20T12:05:00Z");
}

#[test]
fn what_names_its_zone_is_of_that_zone() {
    for (typed, meant) in [
        ("2026-11-21T14:05:00Z", "2026-11-21T14:05:00Z"),
        ("2026-11-21t14:05:00z", "2026-11-21T14:05:00Z"),
        ("2026-11-21 14:05Z", "2026-11-21T14:05:00Z"),
        ("2026-11-21T14:05:00+05:30", "2026-11-21T08:35:00Z"),
        ("2026-11-21T14:05:00.25-01:00", "2026-11-21T15:05:00.25Z"),
        ("@1795269900", "2026-11-21T14:05:00Z"),
        ("@0", "1970-01-01T00:00:00Z"),
        ("@-1", "1969-12-31T23:59:59Z"),
    ] {
        assert_eq!(utc(typed, &now()), meant, "{typed}");
    }
}

#[test]
fn a_time_of_day_is_the_latest_that_is_not_after_now() {
    for (typed, meant) in [
        ("14:05", "2026-11-21 14:05:00"),
        ("14:05:30", "2026-11-21 14:05:30"),
        ("14:05:31", "2026-11-20 14:05:31"),
        ("14:06", "2026-11-20 14:06:00"),
        ("0:00", "2026-11-21 00:00:00"),
        ("9am", "2026-11-21 09:00:00"),
        ("9:30pm", "2026-11-20 21:30:00"),
        ("12am", "2026-11-21 00:00:00"),
        ("12pm", "2026-11-21 12:00:00"),
        ("12:30AM", "2026-11-21 00:30:00"),
    ] {
        assert_eq!(wall(typed, &now()), meant, "{typed}");
    }
}

#[test]
fn days_have_names() {
    for (typed, meant) in [
        ("today", "2026-11-21 00:00:00"),
        ("yesterday", "2026-11-20 00:00:00"),
        ("yesterday 9am", "2026-11-20 09:00:00"),
        ("  Yesterday   21:30 ", "2026-11-20 21:30:00"),
        ("today 14:05", "2026-11-21 14:05:00"),
        ("today 23:00", "2026-11-21 23:00:00"),
        ("monday 9am", "2026-11-16 09:00:00"),
        ("sun", "2026-11-15 00:00:00"),
        ("friday 23:59", "2026-11-20 23:59:00"),
        ("saturday", "2026-11-21 00:00:00"),
        ("saturday 14:05", "2026-11-21 14:05:00"),
        ("saturday 14:06", "2026-11-14 14:06:00"),
    ] {
        assert_eq!(wall(typed, &now()), meant, "{typed}");
    }
}

#[test]
fn ago_counts_days_by_the_calendar_and_hours_by_the_clock() {
    for (typed, meant) in [
        ("2h ago", "2026-11-21 12:05:30"),
        ("90m ago", "2026-11-21 12:35:30"),
        ("45 seconds ago", "2026-11-21 14:04:45"),
        ("1 hour ago", "2026-11-21 13:05:30"),
        ("3 days ago", "2026-11-18 14:05:30"),
        ("1w ago", "2026-11-14 14:05:30"),
        ("2 weeks ago", "2026-11-07 14:05:30"),
    ] {
        assert_eq!(wall(typed, &now()), meant, "{typed}");
    }
    let monday = berlin("2026-03-30T12:00:00");
    assert_eq!(wall("2 days ago", &monday), "2026-03-28 12:00:00");
    assert_eq!(wall("48h ago", &monday), "2026-03-28 11:00:00");
}

/// In Berlin the clocks went from 02:00 to 03:00 on 2026-03-29.
#[test]
fn a_time_that_daylight_saving_skipped_is_taken_later_by_what_was_skipped() {
    let noon = berlin("2026-03-29T12:00:00");
    assert_eq!(utc("2026-03-29 02:30", &noon), "2026-03-29T01:30:00Z");
    assert_eq!(wall("2026-03-29 02:30", &noon), "2026-03-29 03:30:00");
    assert_eq!(wall("02:30", &noon), "2026-03-29 03:30:00");
    assert_eq!(wall("02:30", &berlin("2026-03-29T03:10:00")), "2026-03-28 02:30:00");
    assert_eq!(wall("1 day ago", &berlin("2026-03-30T02:30:00")), "2026-03-29 03:30:00");
}

/// In Berlin the clocks went from 03:00 to 02:00 on 2026-10-25.
#[test]
fn of_a_time_that_daylight_saving_repeated_the_first_is_taken() {
    let noon = berlin("2026-10-25T12:00:00");
    for typed in ["2026-10-25 02:30", "today 02:30", "sunday 2:30am", "02:30"] {
        assert_eq!(utc(typed, &noon), "2026-10-25T00:30:00Z", "{typed}");
    }
    assert_eq!(utc("2026-10-25T02:30:00+01:00", &noon), "2026-10-25T01:30:00Z");
    assert_eq!(utc("2026-10-25 03:00", &noon), "2026-10-25T02:00:00Z");
    assert_eq!(wall("24h ago", &noon), "2026-10-24 13:00:00");
}

/// Samoa left out 2011-12-30.
#[test]
fn a_time_of_day_is_not_after_now_where_a_whole_day_was_left_out() {
    let now = "2011-12-31T00:30:00[Pacific/Apia]".parse().expect("a moment in Samoa");
    assert_eq!(wall("23:00", &now), "2011-12-29 23:00:00");
}

#[test]
fn what_is_no_time_is_named_and_better_is_shown() {
    for typed in [
        "",
        " ",
        "soon",
        "ago",
        "h ago",
        "1 2h ago",
        "1.5h ago",
        "-2h ago",
        "+2h ago",
        "3 months ago",
        "99999999999999999999 days ago",
        "9",
        "13pm",
        "0am",
        "24:00",
        "14:60",
        "14:5",
        "2026-02-30",
        "2026-2-3",
        "2026-11-21 soon",
        "2026-11-21T",
        "2026-11-21T14:05:00+99:00",
        "yesterday yesterday",
        "9am yesterday",
        "tomorrow",
        "@",
        "@now",
        "@9999999999999999",
        "12026-11-21",
    ] {
        let error = parse(typed, &now()).expect_err(typed).to_string();
        assert!(error.starts_with(&format!("\"{typed}\" is no time: write ")), "{error}");
    }
    assert_eq!(
        parse("so\non", &now()).expect_err("no time").to_string(),
        "\"so\\x0aon\" is no time: write \"2026-11-21 14:05\", \"yesterday 9am\", \"monday 14:05\", \"2h ago\", \
         14:05, 2026-11-21T14:05:00Z or now"
    );
}

/// The sentence must not send anybody astray.
#[test]
fn what_the_sentences_propose_is_understood() {
    let sentence = MomentError::Moment(String::new()).to_string();
    let proposed = sentence.split_once("write ").expect("proposes").1.replace(" or ", ", ");
    assert_eq!(proposed.split(", ").count(), 7);
    for typed in proposed.split(", ") {
        utc(typed.trim_matches('"'), &now());
    }
    let sentence = MomentError::Duration(String::new()).to_string();
    let proposed = sentence.split_once("write ").expect("proposes").1.replace(" or ", ", ");
    assert!(proposed.split(", ").all(|typed| duration(typed).is_ok()), "{proposed}");
}

#[test]
fn lengths_of_time_are_numbers_of_units() {
    for (typed, seconds) in [
        ("60s", 60),
        ("90m", 5400),
        ("26h", 93_600),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("2 Weeks", 1_209_600),
        ("0d", 0),
    ] {
        assert_eq!(duration(typed), Ok(Duration::from_secs(seconds)), "{typed}");
    }
    for typed in ["", "7", "d", "7x", "-7d", "1.5h", "7d 1h", "7d1h", "18446744073709551615w", "2h ago", "\u{662}h"] {
        let error = duration(typed).expect_err(typed).to_string();
        assert_eq!(error, format!("\"{typed}\" is no length of time: write 60s, 90m, 26h, 7d or 2w"));
    }
}

#[test]
fn moments_that_no_calendar_has_are_shown_as_seconds() {
    let never = Time { seconds: i64::MAX, nanos: 0 };
    assert_eq!(show(never, &TimeZone::UTC), "@9223372036854775807");
    assert_eq!(rfc3339(never), "@9223372036854775807");
    assert_eq!(Second::of(never), None);
}

#[test]
fn seconds_are_read_as_they_are_written_and_not_otherwise() {
    let second = Second::parse("20261122-030000").expect("a second");
    assert_eq!(rfc3339(second.time()), "2026-11-22T03:00:00Z");
    assert_eq!(second.to_string(), "20261122-030000");
    let within = Time { nanos: 999_999_999, ..second.time() };
    assert_eq!(Second::of(within), Some(second));
    for text in [
        "20261122-03000",
        "20261122-0300000",
        "2026112-0300000",
        "20261122030000",
        "20261131-030000",
        "20261122-240000",
        "20261122-030060",
        "2026112a-030000",
        "+2026112-030000",
        " 20261122-030000",
    ] {
        assert_eq!(Second::parse(text), None, "{text}");
    }
}

fn some_now() -> impl Strategy<Value = Zoned> {
    let zones = ["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Africa/Cairo", "Asia/Kathmandu"];
    let ends = [Timestamp::MIN.as_second(), Timestamp::MAX.as_second()];
    let seconds = prop_oneof![0..4_000_000_000_i64, ends[0]..ends[1], prop::sample::select(ends.to_vec())];
    (seconds, prop::sample::select(zones.to_vec())).prop_map(|(second, zone)| {
        let zone = TimeZone::get(zone).expect("the system knows the zone");
        Timestamp::from_second(second).expect("within range").to_zoned(zone)
    })
}

/// Pieces of what is understood, in any order.
fn nearly() -> impl Strategy<Value = String> {
    let pieces = [
        "now",
        "ago",
        "today",
        "yesterday",
        "monday",
        "sun",
        "9am",
        "12:30pm",
        "14:05",
        ":",
        "-",
        "@",
        "T",
        "t",
        "Z",
        "+01:00",
        "2026-11-21",
        "0000-01-01",
        "9999-12-31",
        "0",
        "9",
        "99",
        "99999999999999999999",
        "h",
        "days",
        "w",
        " ",
        " ",
        " ",
        "é",
        "\0",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn nonsense_is_refused_or_understood_and_never_more(typed in prop_oneof![nearly(), ".{0,40}"], now in some_now()) {
        if let Ok(time) = parse(&typed, &now) {
            prop_assert!(time.is_valid());
            show(time, now.time_zone());
        }
        let _ = (duration(&typed), Second::parse(&typed));
    }

    #[test]
    fn what_is_not_after_now_is_not_after_now(
        now in some_now(),
        day in prop::sample::select(vec!["", "monday ", "thu ", "sunday "]),
        clock in (0..24, 0..60),
    ) {
        let typed = format!("{day}{:02}:{:02}", clock.0, clock.1);
        if let Ok(time) = parse(&typed, &now) {
            let age = time.until(from_timestamp(now.timestamp())) / 1_000_000_000;
            prop_assert!((0..=22 * 86_400).contains(&age), "{} is {} s before", typed, age);
        }
    }

    #[test]
    fn what_is_written_is_read_again(seconds in -62_167_219_200..253_402_207_200_i64, nanos in 0..1_000_000_000_u32) {
        let time = Time { seconds, nanos };
        let whole = Time { seconds, nanos: 0 };
        let utc: Zoned = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
        prop_assert_eq!(parse(&rfc3339(time), &utc), Ok(time));
        prop_assert_eq!(parse(&show(time, &TimeZone::UTC), &utc), Ok(whole));
        let second = Second::of(time).expect("within the years");
        prop_assert_eq!(second.time(), whole);
        prop_assert_eq!(Second::parse(&second.to_string()), Some(second));
    }
}
