//! What a day does to a tree of mail: some messages come, some change their flags, some go.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::support::folder::{self, Folder};
use crate::support::mail::{Key, MailMaker};
use crate::support::random::Random;
use crate::support::tree::{self, ARCHIVE, FOLDERS, SEED, Shape, Texture};
use crate::support::{Doing, Outcome};

/// What comes arrived behind everything that the tree began with.
const ARRIVAL: u64 = 1_795_000_000;

/// Changes one tree, again and again.
pub struct Turnover {
    maker: MailMaker,
    texture: Texture,
    homes: Vec<Home>,
}

/// A folder, and whose it is.
pub struct Home {
    pub folder: Folder,
    user: u64,
    number: u64,
}

/// A message in `cur`: the number of its folder, and its name.
pub type Message = (usize, String);

impl Turnover {
    pub fn new(root: &Path, shape: &Shape) -> Self {
        let home = |user: u64, number: usize, name: &str| Home {
            folder: Folder::new(tree::maildir(root, user).join(name)),
            user,
            number: number as u64,
        };
        let names = &FOLDERS[..shape.folders as usize];
        let of_user = |user| names.iter().enumerate().map(move |(number, name)| home(user, number, name));
        let mut homes: Vec<Home> = (0..shape.users).flat_map(of_user).collect();
        if shape.archive > 0 {
            homes.push(home(shape.users, 1, ARCHIVE));
        }
        Self { maker: MailMaker::new(SEED), texture: shape.texture, homes }
    }

    /// All messages in `cur`.
    pub fn messages(&self) -> Outcome<Vec<Message>> {
        let mut messages = Vec::new();
        for (at, home) in self.homes.iter().enumerate() {
            messages.extend(home.folder.names("cur")?.into_iter().map(|name| (at, name)));
        }
        Ok(messages)
    }

    /// One in a hundred: of these a third goes, a third changes its flags, and in place of the last third new ones come.
    pub fn one_in_a_hundred(&self, round: usize) -> Outcome<usize> {
        let mut random = Random::of(&[SEED, 9, round as u64]);
        let mut messages = self.messages()?;
        let third = messages.len().div_ceil(300);
        let chosen = random.sample(&mut messages, 3 * third);
        let (gone, rest) = chosen.split_at(third);
        let (flagged, come) = rest.split_at(third);
        self.change_flags(flagged, &mut random)?;
        let mut folders: BTreeMap<usize, (Vec<String>, usize)> = BTreeMap::new();
        gone.iter().for_each(|(at, name)| folders.entry(*at).or_default().0.push(name.clone()));
        come.iter().for_each(|(at, _)| folders.entry(*at).or_default().1 += 1);
        for (at, (gone, come)) in folders {
            self.homes[at].change(self, &gone, come)?;
        }
        Ok(3 * third)
    }

    pub fn change_flags(&self, messages: &[Message], random: &mut Random) -> Outcome<()> {
        for (at, name) in messages {
            self.homes[*at].folder.change_flags(name, random)?;
        }
        Ok(())
    }
}

impl Home {
    fn change(&self, turnover: &Turnover, gone: &[String], come: usize) -> Outcome<()> {
        for name in gone {
            let path = self.folder.path.join("cur").join(name);
            fs::remove_file(&path).doing(path.display())?;
        }
        let come: Vec<String> = self.keys(come)?.map(|key| self.deliver(turnover, key)).collect::<Outcome<_>>()?;
        self.folder.edit_uidlist(gone, &come)
    }

    /// A key is never used again: it is made of the UID, far behind those that the tree began with.
    fn keys(&self, count: usize) -> Outcome<impl Iterator<Item = Key> + use<>> {
        let path = self.folder.path.join("dovecot-uidlist");
        let list = fs::read_to_string(&path).doing(path.display())?;
        let (user, folder, first) = (self.user, self.number, 1_000_000 + folder::next_uid(&list));
        Ok((first..).take(count).map(move |number| Key { user, folder, number }))
    }

    fn deliver(&self, turnover: &Turnover, key: Key) -> Outcome<String> {
        let arrival = ARRIVAL + key.number % 300_000;
        let mut bytes = Vec::new();
        match turnover.texture {
            Texture::Small => turnover.maker.small(key, &mut bytes),
            Texture::Real => turnover.maker.real(key, arrival, &mut bytes),
        }
        put_new(&self.folder.path, key, arrival, &bytes)
    }
}

/// Files a message in `new`, as it is delivered; its name.
pub fn put_new(folder: &Path, key: Key, arrival: u64, bytes: &[u8]) -> Outcome<String> {
    let mut random = Random::of(&[SEED, 10, key.user, key.folder, key.number]);
    let microseconds = random.below(1_000_000) as u64;
    let name = tree::base_name(arrival, microseconds, random.between(1_000, 60_000), bytes);
    let path: PathBuf = folder.join("new").join(&name);
    let mut file = fs::File::create_new(&path).doing(path.display())?;
    file.write_all(bytes).doing(path.display())?;
    let time = UNIX_EPOCH + Duration::from_micros(arrival * 1_000_000 + microseconds);
    file.set_modified(time).doing(path.display())?;
    Ok(name)
}
