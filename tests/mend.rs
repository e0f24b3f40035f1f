//! Verifying mends: what a damaged segment has lost comes back from the mirror, every byte by its digest; what does not
//! is named, and nothing that other points link to is changed.

#[path = "support/points.rs"]
mod points;
#[path = "support/tree.rs"]
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use points::*;
use serde_json::Value;
use tree::*;

/// A standby with a full, two differentials, and another full of the same segments; what each of them is.
struct Kept {
    pair: Pair,
    made: Vec<(String, Tree)>,
}

impl Kept {
    fn new() -> Self {
        let pair = Pair::new();
        make_scenario(&pair.source);
        let mut now = sync_and_remember(&pair);
        let mut made = vec![(backup(&pair, &[]), now.tree.clone())];
        for round in 0..2 {
            change_scenario(&pair.source, round);
            now = sync_and_remember(&pair);
            made.push((backup(&pair, &["--diff"]), now.tree.clone()));
        }
        made.push((backup(&pair, &["--full"]), now.tree));
        Self { pair, made }
    }

    fn confirm(&self, standby: &Path) {
        for (label, tree) in &self.made {
            assert_point(standby, label, tree);
        }
    }
}

/// A mailbox and a full of it.
fn mailbox() -> (Pair, String, Tree) {
    let pair = Pair::new();
    make_mailbox(&pair.source, 1);
    let remembered = sync_and_remember(&pair);
    let label = backup(&pair, &[]);
    (pair, label, remembered.tree)
}

fn verify(standby: &Path, options: &[&str]) -> Run {
    run("verify", standby, &[&["--json"], options].concat())
}

/// The object of each point that was verified.
fn verified(run: &Run) -> BTreeMap<String, Value> {
    let list: Vec<Value> = serde_json::from_slice(&run.stdout).unwrap_or_else(|_| panic!("{}", run.story()));
    list.into_iter().map(|point| (point["label"].as_str().expect("a label").to_owned(), point)).collect()
}

/// The segments in a point's directory.
fn segments_of(standby: &Path, label: &str) -> Vec<PathBuf> {
    let directory = points_of(standby).join(label);
    names_in(&directory).into_iter().filter(|name| name.len() == 16).map(|name| directory.join(name)).collect()
}

/// Every segment of every point.
fn all_segments(kept: &Kept, standby: &Path) -> Vec<PathBuf> {
    kept.made.iter().flat_map(|(label, _)| segments_of(standby, label)).collect()
}

fn flip(path: &Path, percent: usize) {
    let mut bytes = fs::read(path).expect("the file");
    let at = bytes.len() * percent / 100;
    bytes[at] ^= 0x10;
    fs::write(path, bytes).expect("written");
}

type Damage = fn(&Path);

/// Ways in which a segment is spoiled.
const DAMAGES: [(&str, Damage); 4] = [
    ("a bit", |path| flip(path, 50)),
    ("the first bytes", |path| flip(path, 0)),
    ("cut", |path| {
        let file = fs::File::options().write(true).open(path).expect("opens");
        file.set_len(file.metadata().expect("its length").len() / 3).expect("cut");
    }),
    ("missing", |path| fs::remove_file(path).expect("removed")),
];

fn files_beneath(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = walkdir::WalkDir::new(directory).into_iter().filter_map(Result::ok);
    let files = files.filter(|entry| entry.file_type().is_file());
    files.map(|entry| (entry.path().to_owned(), fs::read(entry.path()).expect("read"))).collect()
}

#[test]
fn looking_only_mends_nothing() {
    let (pair, label, _) = mailbox();
    flip(&segments_of(&pair.mirror, &label)[0], 50);
    let before = files_beneath(&points_of(&pair.mirror));
    let run = verify(&pair.mirror, &["--no-mend"]).ended_with(23);
    assert_eq!(files_beneath(&points_of(&pair.mirror)), before);
    let object = &verified(&run)[&label];
    assert_eq!(object["mended"], 0);
    assert!(!object["hit"].as_array().expect("a list").is_empty(), "{object}");
    assert_eq!(object["mailboxes"], serde_json::json!(["."]));
}

#[test]
fn a_segment_damaged_in_any_way_is_mended_from_the_mirror() {
    for (what, damage) in DAMAGES {
        let (pair, label, tree) = mailbox();
        let segment = segments_of(&pair.mirror, &label).remove(0);
        damage(&segment);
        let run = verify(&pair.mirror, &[]).ended_with(0);
        let object = &verified(&run)[&label];
        assert!(object["mended"].as_u64() > Some(0), "{what}: {}", run.story());
        assert!(
            object["found"][0].as_str().expect("words").contains(segment.to_str().expect("ours")),
            "{what}: {object}"
        );
        assert!(run.said().contains("mended"), "{what}: {}", run.story());
        assert_point(&pair.mirror, &label, &tree);
        verify(&pair.mirror, &["--no-mend"]).ended_with(0);
        assert_eq!(listed_as(&pair.mirror, &label)["verified_how"], "all of it");
    }
}

#[test]
fn a_sample_that_meets_damage_has_all_of_it_mended() {
    let (pair, label, tree) = mailbox();
    flip(&segments_of(&pair.mirror, &label)[0], 50);
    let part = verify(&pair.mirror, &["--sample", "1/1"]).ended_with(0);
    assert!(verified(&part)[&label]["mended"].as_u64() > Some(0), "{}", part.story());
    assert_point(&pair.mirror, &label, &tree);
    assert_eq!(listed_as(&pair.mirror, &label)["verified_how"], "all of it");
}

#[test]
fn every_point_that_shares_a_damaged_segment_is_mended_or_names_what_is_lost() {
    let kept = Kept::new();
    for number in 0..all_segments(&kept, &kept.pair.mirror).len() {
        let copy = copy_of(&kept.pair.mirror, "damaged");
        flip(&all_segments(&kept, &copy)[number], 60);
        let before: Vec<(PathBuf, Vec<u8>)> = files_beneath(&copy.join(".mailtwin"))
            .into_iter()
            .filter(|(path, _)| !path.ends_with("manifest"))
            .collect();
        let broken: Vec<&String> = kept
            .made
            .iter()
            .map(|(label, _)| label)
            .filter(|label| verify(&copy, &["--no-mend", "--point", label]).code() == Some(23))
            .collect();
        assert!(!broken.is_empty());
        let run = verify(&copy, &["--point", broken[0]]);
        let objects = verified(&run);
        for label in &broken {
            assert!(objects.contains_key(*label), "{label} shares it: {}", run.story());
        }
        for (label, tree) in &kept.made {
            let hit: Vec<String> = objects
                .get(label)
                .map(|object| object["hit"].as_array().expect("a list").iter())
                .into_iter()
                .flatten()
                .map(|path| path.as_str().expect("a path").to_owned())
                .collect();
            assert_restores_but_for(&copy, label, tree, &hit);
        }
        let after = files_beneath(&copy.join(".mailtwin"));
        for (path, bytes) in before.iter().filter(|(path, _)| !path.ends_with("about")) {
            assert!(after.get(path) == Some(bytes), "{} was changed", path.display());
        }
    }
}

/// Restores a point: all of it but these files.
fn assert_restores_but_for(standby: &Path, label: &str, tree: &Tree, hit: &[String]) {
    let (run, place) = try_restore(standby, &["--point", label]);
    let run = run.ended_with(if hit.is_empty() { 0 } else { 23 });
    let mut expected = tree.clone();
    expected.retain(|path, _| !hit.contains(&shown(path)));
    assert_eq!(expected.len() + hit.len(), tree.len(), "{hit:?}");
    let mut actual = restored_tree(&place, true);
    if !hit.is_empty() {
        for entry in expected.values_mut().chain(actual.values_mut()).filter(|entry| entry.kind == Kind::Directory) {
            entry.modified = None;
        }
    }
    let differing = differences(&expected, &actual);
    assert!(differing.is_empty(), "{}\n{}", run.story(), differing.join("\n"));
    fs::remove_dir_all(&place).expect("removed");
}

#[test]
fn a_differential_older_than_the_mending_of_its_full_means_what_it_meant() {
    let kept = Kept::new();
    let full = &kept.made[0].0;
    for segment in segments_of(&kept.pair.mirror, full) {
        fs::remove_file(segment).expect("removed");
    }
    // The second full and the log have other names of the segments: what the mirror has no more comes from there.
    verify(&kept.pair.mirror, &["--point", full]).ended_with(0);
    kept.confirm(&kept.pair.mirror);
    verify(&kept.pair.mirror, &["--all", "--no-mend"]).ended_with(0);
    change_scenario(&kept.pair.source, 2);
    let now = sync_and_remember(&kept.pair);
    for options in [["--diff"], ["--full"]] {
        assert_point(&kept.pair.mirror, &backup(&kept.pair, &options), &now.tree);
    }
    kept.confirm(&kept.pair.mirror);
}

#[test]
fn a_differential_on_a_mended_full_is_right_and_so_is_the_next_mending() {
    let pair = Pair::new();
    make_scenario(&pair.source);
    let tree = sync_and_remember(&pair).tree;
    let label = backup(&pair, &[]);
    flip(&segments_of(&pair.mirror, &label)[0], 50);
    verify(&pair.mirror, &[]).ended_with(0);
    change_scenario(&pair.source, 0);
    let now = sync_and_remember(&pair);
    let differential = backup(&pair, &["--diff"]);
    assert_point(&pair.mirror, &differential, &now.tree);
    for segment in segments_of(&pair.mirror, &label) {
        flip(&segment, 50);
    }
    let run = verify(&pair.mirror, &["--all"]);
    assert_point(&pair.mirror, &differential, &now.tree);
    let hit = verified(&run)[&label]["hit"].as_array().expect("a list").clone();
    let hit: Vec<String> = hit.iter().map(|path| path.as_str().expect("a path").to_owned()).collect();
    assert_restores_but_for(&pair.mirror, &label, &tree, &hit);
}

#[test]
fn a_message_is_found_by_its_base_name_wherever_it_is_in_its_mailbox() {
    let (pair, label, tree) = mailbox();
    let inbox = Folder(pair.mirror.clone());
    let [flagged, moved] = [0, 1].map(|index| inbox.messages()[index].clone());
    inbox.set_flags(&flagged, "FT");
    Folder::create(&pair.mirror.join(".Elsewhere")).move_in(&moved);
    for segment in segments_of(&pair.mirror, &label) {
        fs::remove_file(segment).expect("removed");
    }
    verify(&pair.mirror, &[]).ended_with(0);
    assert_point(&pair.mirror, &label, &tree);
}

#[test]
fn what_nobody_has_any_more_is_named_and_comes_back_when_somebody_has_it_again() {
    let (pair, label, tree) = mailbox();
    let lost = Folder(pair.mirror.clone()).messages().remove(0);
    let kept = fs::read(&lost).expect("read");
    // The same name and length, but another content, is not believed.
    let mut other = kept.clone();
    other[10] ^= 1;
    fs::write(&lost, other).expect("written");
    for segment in segments_of(&pair.mirror, &label) {
        fs::remove_file(segment).expect("removed");
    }
    let run = verify(&pair.mirror, &[]).ended_with(23);
    let object = &verified(&run)[&label];
    let name = shown(lost.strip_prefix(&pair.mirror).expect("below").as_os_str().as_encoded_bytes());
    assert_eq!(object["hit"], serde_json::json!([name.clone()]), "{}", run.story());
    assert!(run.said().contains(&name) && run.said().contains(&label), "{}", run.story());
    assert_restores_but_for(&pair.mirror, &label, &tree, &[name]);
    fs::write(&lost, kept).expect("written");
    let run = verify(&pair.mirror, &[]).ended_with(0);
    assert_eq!(verified(&run)[&label]["mended"], 1, "{}", run.story());
    assert_point(&pair.mirror, &label, &tree);
}

#[test]
fn a_large_content_is_mended_in_pieces() {
    let pair = Pair::of_files();
    fs::write(pair.source.join("large"), noise(1, 7_000_001)).expect("written");
    fs::write(pair.source.join("even"), noise(2, 2 << 20)).expect("written");
    fs::write(pair.source.join("empty"), b"").expect("written");
    let remembered = sync_and_remember(&pair);
    let label = backup(&pair, &[]);
    for percent in [5, 50, 95] {
        let copy = copy_of(&pair.mirror, "damaged");
        flip(&segments_of(&copy, &label)[0], percent);
        verify(&copy, &[]).ended_with(0);
        assert_restores(&copy, &["--point", &label], &remembered.tree, false);
    }
}

#[test]
fn a_manifest_that_is_damaged_is_not_mended_and_is_named() {
    let (pair, label, _) = mailbox();
    let manifest = points_of(&pair.mirror).join(&label).join("manifest");
    flip(&manifest, 30);
    let before = fs::read(&manifest).expect("read");
    let run = verify(&pair.mirror, &[]).ended_with(23);
    assert!(run.said().contains("manifest"), "{}", run.story());
    assert_eq!(fs::read(&manifest).expect("read"), before);
}

/// What lies in a point's directory is named by its manifest, or is what it was before.
fn assert_nothing_unfinished(standby: &Path, label: &str, before: usize) {
    let names = names_in(&points_of(standby).join(label));
    assert!(!names.iter().any(|name| name == "manifest.new"), "{names:?}");
    assert_eq!(segments_of(standby, label).len(), before + 1, "{names:?}");
}

#[test]
fn a_mending_killed_or_failed_anywhere_leaves_the_old_point_or_the_new_one() {
    let kept = Kept::new();
    let label = kept.made[0].0.clone();
    let damaged = copy_of(&kept.pair.mirror, "damaged");
    fs::remove_file(&segments_of(&damaged, &label)[0]).expect("removed");
    let before = segments_of(&damaged, &label).len();
    let options = ["--point", label.as_str()];
    let steps = steps_taken("verify", &copy_of(&damaged, "counted"), &options);
    assert!(steps > 15, "{steps} steps");
    for kind in ["kill@", "eio@", "enospc@+", "short@"] {
        for step in tree::points(steps, 12) {
            let fault = kind.replace('@', &format!("@{step}"));
            let copy = copy_of(&damaged, "struck");
            let run = struck_at("verify", &copy, &options, &fault);
            assert!(run.was_killed() || matches!(run.code(), Some(0 | 1 | 23)), "{fault}: {}", run.story());
            // Whatever it is now, restoring brings nothing wrong.
            for (label, tree) in &kept.made {
                let (_, place) = try_restore(&copy, &["--point", label]);
                for (path, entry) in restored_tree(&place, true) {
                    let right = tree.get(&path);
                    assert!(right.is_some_and(|right| right.kind == entry.kind), "{fault}: {}", shown(&path));
                }
                fs::remove_dir_all(&place).expect("removed");
            }
            verify(&copy, &options).ended_with(0);
            verify(&copy, &["--all"]).ended_with(0);
            kept.confirm(&copy);
            assert_nothing_unfinished(&copy, &label, before);
        }
    }
}

#[test]
fn mending_waits_for_whoever_changes_the_points() {
    let (pair, label, _) = mailbox();
    flip(&segments_of(&pair.mirror, &label)[0], 50);
    let before = files_beneath(&points_of(&pair.mirror));
    let mut held = std::process::Command::new("flock");
    held.arg(pair.mirror.join(".mailtwin/repository.lock")).arg(BINARY).arg("verify").arg(&pair.mirror);
    finish(&mut held).ended_with(10);
    assert_eq!(files_beneath(&points_of(&pair.mirror)), before);
}
