//! Two ends over a pipe in memory; and somebody between them.

use super::*;
use tokio::io::{DuplexStream, duplex};

fn host(name: &str, seed: u8) -> Introduction {
    Introduction { name: name.into(), address: None, key: PeerKey([seed; 32]) }
}

fn code(text: &str) -> Code {
    text.parse().expect("a code")
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}

async fn asking(mut stream: DuplexStream, typed: &str, me: Introduction) -> (Result<Introduction>, Vec<Introduction>) {
    let mut noted = Vec::new();
    let mut note = |other: &Introduction| {
        noted.push(other.clone());
        Ok(())
    };
    let asked = ask(&mut stream, &code(typed), &me, &mut note).await;
    (asked, noted)
}

async fn showing(mut stream: DuplexStream, shown: &str, me: Introduction) -> (Result<Introduction>, Vec<Introduction>) {
    let mut noted = Vec::new();
    let answered = async {
        let offer = hear_offer(&mut stream).await?;
        let mut note = |other: &Introduction| {
            noted.push(other.clone());
            Ok(())
        };
        answer(&mut stream, &offer, &code(shown), &me, &mut note).await
    };
    (answered.await, noted)
}

#[test]
fn who_knows_the_code_learns_the_others_key_and_both_note_it() {
    let (near, far) = duplex(4096);
    let (one, two) = (host("mx1", 1), Introduction { address: Some("mx2:8946".into()), ..host("mx2", 2) });
    let both = async { tokio::join!(asking(near, "1234-5678", one.clone()), showing(far, "12345678", two.clone())) };
    let ((asked, noted), (answered, noted_there)) = run(both);
    assert_eq!((asked.expect("pairs"), noted), (two.clone(), vec![two]));
    assert_eq!((answered.expect("pairs"), noted_there), (one.clone(), vec![one]));
}

#[test]
fn with_a_wrong_code_both_say_so_and_nobody_notes_anything() {
    let (near, far) = duplex(4096);
    let both =
        async { tokio::join!(asking(near, "1234-5678", host("mx1", 1)), showing(far, "1234-5679", host("mx2", 2))) };
    let ((asked, noted), (answered, noted_there)) = run(both);
    assert!(matches!(&asked, Err(PairError::Refused(words)) if words == "the code is wrong"), "{asked:?}");
    assert!(matches!(answered, Err(PairError::Code)));
    assert!(noted.is_empty() && noted_there.is_empty());
}

#[test]
fn one_host_cannot_be_paired_with_itself_or_with_its_namesake() {
    for (other, words) in [(host("mx2", 1), "same key"), (host("mx1", 2), "both hosts are called mx1")] {
        let (near, far) = duplex(4096);
        let both = async { tokio::join!(asking(near, "1234-5678", host("mx1", 1)), showing(far, "1234-5678", other)) };
        let ((asked, noted), (answered, noted_there)) = run(both);
        assert!(asked.expect_err("refused").to_string().contains(words));
        assert!(answered.expect_err("refused").to_string().contains(words));
        assert!(noted.is_empty() && noted_there.is_empty());
    }
}

#[test]
fn where_one_end_cannot_note_the_other_neither_does_and_both_know_why() {
    let (mut near, mut far) = duplex(4096);
    let both = async {
        let asked = async {
            ask(&mut near, &code("1234-5678"), &host("mx1", 1), &mut |_| panic!("the other end has not noted us")).await
        };
        let answered = async {
            let offer = hear_offer(&mut far).await?;
            let mut note = |_: &Introduction| Err("the disk is full".to_owned());
            answer(&mut far, &offer, &code("1234-5678"), &host("mx2", 2), &mut note).await
        };
        tokio::join!(asked, answered)
    };
    let (asked, answered) = run(both);
    assert!(asked.expect_err("refused").to_string().contains("the disk is full"));
    assert!(matches!(answered, Err(PairError::Note(_))));
}

/// Carries messages one by one from one end to the other, and lets `change` see and alter each.
async fn between(mut from: DuplexStream, mut to: DuplexStream, mut change: impl FnMut(bool, Pairing) -> Pairing) {
    for towards_the_shower in [true, false, true, false, true, false] {
        let (source, target) = if towards_the_shower { (&mut from, &mut to) } else { (&mut to, &mut from) };
        let Ok(message) = receive(source).await else { return };
        if send(target, &change(towards_the_shower, message)).await.is_err() {
            return;
        }
    }
}

/// Every single byte that somebody between the two could change in what is proved ends it, and nobody notes anything.
#[test]
fn who_stands_between_can_change_nothing() {
    type Change = fn(&mut Proof);
    let changes: [Change; 5] = [
        |proof| proof.name = "mx9".into(),
        |proof| proof.address = Some("192.0.2.66:8946".into()),
        |proof| proof.key[31] ^= 1,
        |proof| proof.mac[0] ^= 1,
        |proof| (proof.name, proof.address) = ("m".into(), Some("x1".into())),
    ];
    for (direction, change) in [true, false].into_iter().flat_map(|side| changes.map(|change| (side, change))) {
        let ((near, left), (right, far)) = (duplex(4096), duplex(4096));
        let altered = move |towards: bool, message| match message {
            Pairing::Proof(mut proof) if towards == direction => {
                change(&mut proof);
                Pairing::Proof(proof)
            }
            message => message,
        };
        let all = async {
            tokio::join!(
                asking(near, "1234-5678", host("mx1", 1)),
                showing(far, "1234-5678", host("mx2", 2)),
                between(left, right, altered)
            )
        };
        let ((asked, noted), (answered, noted_there), ()) = run(all);
        assert!(asked.is_err() && answered.is_err(), "{direction}: {asked:?} {answered:?}");
        assert!(noted.is_empty() && noted_there.is_empty());
    }
}

/// One that speaks to both with a code of his own has guessed wrong on both sides.
#[test]
fn two_conversations_with_a_code_of_ones_own_pair_nobody() {
    let ((near, left), (right, far)) = (duplex(4096), duplex(4096));
    let all = async {
        tokio::join!(
            asking(near, "1234-5678", host("mx1", 1)),
            showing(left, "0000-0000", host("mx2", 9)),
            asking(right, "0000-0000", host("mx1", 9)),
            showing(far, "1234-5678", host("mx2", 2))
        )
    };
    let ((asked, noted), _, _, (answered, noted_there)) = run(all);
    assert!(asked.is_err() && answered.is_err() && noted.is_empty() && noted_there.is_empty());
}

#[test]
fn our_own_half_sent_back_is_refused_and_so_is_a_point_that_is_none() {
    let reflects = |theirs: [u8; ELEMENT]| {
        let mut back = theirs;
        back[0] = b'B';
        back
    };
    let nonsense = |_| [0xff; ELEMENT];
    for answer_with in [reflects as fn([u8; ELEMENT]) -> [u8; ELEMENT], nonsense] {
        let (near, mut far) = duplex(4096);
        let both = async {
            let other = async {
                let Ok(Pairing::Offer(theirs)) = receive(&mut far).await else { panic!("an offer") };
                send(&mut far, &Pairing::Offer(answer_with(theirs))).await.expect("sends");
                receive(&mut far).await
            };
            tokio::join!(asking(near, "1234-5678", host("mx1", 1)), other)
        };
        let ((asked, _), heard) = run(both);
        assert!(matches!(asked, Err(PairError::Protocol)), "{asked:?}");
        assert!(heard.is_err(), "nothing is proved to it");
    }
}

#[test]
fn an_end_that_falls_silent_or_hangs_up_is_given_up() {
    let (near, far) = duplex(4096);
    let (asked, _) = run(asking(near, "1234-5678", host("mx1", 1)));
    assert!(matches!(asked, Err(PairError::Silence)), "{asked:?}");
    drop(far);
    let (near, far) = duplex(4096);
    drop(far);
    assert!(matches!(run(asking(near, "1234-5678", host("mx1", 1))).0, Err(PairError::Io(_))));
}
