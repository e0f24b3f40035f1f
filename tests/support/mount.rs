//! Restore points that are mounted, by whoever runs the test or by `nobody`, and never longer than the test.

#![allow(dead_code, reason = "every test target takes the part that it needs")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::points::*;
use super::tree::*;

/// How long something may take that the kernel and another process do.
pub const SOON: Duration = Duration::from_secs(30);

/// A mount. Dropped, it is unmounted.
pub struct Mount {
    /// Where it is.
    pub at: PathBuf,
    /// The process, where it stays in the foreground.
    pub process: Option<Started>,
    /// It belongs to a user who cannot unmount as root does.
    by_helper: bool,
}

impl Mount {
    /// Mounts a standby beside it; it must be mounted when the command has ended.
    pub fn new(standby: &Path, options: &[&str]) -> Self {
        let at = place(standby);
        let run = finish(&mut command("mount", standby, &words(&at, options))).ended_with(0);
        let mount = Self { at, process: None, by_helper: !am_root() };
        assert!(is_mounted(&mount.at), "{}", run.story());
        assert!(run.stdout.is_empty() && run.stderr.is_empty(), "{}", run.story());
        mount
    }

    /// The same in the foreground: what it says can be heard at its end.
    pub fn in_the_foreground(standby: &Path, options: &[&str]) -> Self {
        let at = place(standby);
        let options = [&["--foreground"], options].concat();
        let process = Started::new(&mut command("mount", standby, &words(&at, &options)));
        let mut mount = Self { at, process: Some(process), by_helper: !am_root() };
        let process = mount.process.as_mut().expect("it was started");
        eventually("it is mounted", SOON, || is_mounted(&mount.at) || !process.is_running());
        if !is_mounted(&mount.at) {
            panic!("{}", mount.end().story());
        }
        mount
    }

    /// A path in it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.at.join(path)
    }

    /// What is beneath a directory at its top.
    pub fn tree(&self, point: &str, mail: bool) -> Tree {
        restored_tree(&self.at.join(point), mail)
    }

    /// The names at its top, but for `latest` and `now`.
    pub fn labels(&self) -> Vec<String> {
        let names = names_in(&self.at).into_iter().map(|name| name.into_string().expect("a label"));
        names.filter(|name| name != "latest" && name != "now").collect()
    }

    /// Unmounts as its user would; nothing of it may be open.
    pub fn unmount(&self) {
        match self.by_helper {
            true => tool("fuse3", "fusermount3", &["-u".as_ref(), self.at.as_os_str()]),
            false => tool("mount", "umount", &[self.at.as_os_str()]),
        };
    }

    /// Waits for the end of the process in the foreground.
    pub fn end(&mut self) -> Run {
        decent(self.process.take().expect("it is in the foreground").end())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let mut unmount = Command::new(if self.by_helper { "fusermount3" } else { "umount" });
        unmount.args(if self.by_helper { &["-u", "-z"][..] } else { &["-l"] }).arg(&self.at);
        let _ = unmount.stderr(Stdio::null()).status();
    }
}

fn place(standby: &Path) -> PathBuf {
    let free = |number: &u32| !standby.with_file_name(format!("mounted{number}")).exists();
    let at = standby.with_file_name(format!("mounted{}", (0..).find(free).expect("a number")));
    fs::create_dir(&at).expect("a directory");
    at
}

fn words<'a>(at: &'a Path, options: &'a [&'a str]) -> Vec<&'a OsStr> {
    options.iter().map(OsStr::new).chain([at.as_os_str()]).collect()
}

/// Whether restore points are mounted there, by the kernel's word.
pub fn is_mounted(at: &Path) -> bool {
    mounts_at(at).iter().any(|kind| kind == "fuse.mailtwin")
}

/// What is mounted there, the topmost last.
pub fn mounts_at(at: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the table of mounts");
    let at = at.to_str().expect("a path of ours");
    let lines = table.lines().filter(|line| line.split(' ').nth(4) == Some(at));
    lines.filter_map(|line| Some(line.split_once(" - ")?.1.split(' ').next()?.to_owned())).collect()
}

/// The process that mounted there and went into the background, by its command line.
pub fn process_of(at: &Path) -> Option<u32> {
    let at = at.to_str().expect("a path of ours").as_bytes();
    let processes = fs::read_dir("/proc").expect("/proc is there").filter_map(Result::ok);
    let mut numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.find(|number| {
        let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == at)
            && line.split(|byte| *byte == 0).any(|word| word == b"--detached")
    })
}

/// Sends a signal.
pub fn signal(process: u32, name: &str) {
    tool("procps", "kill", &["-s".as_ref(), name.as_ref(), process.to_string().as_ref()]);
}

/// As a mount shows what a restore brings: nothing can be written.
pub fn read_only(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    tree.values_mut().for_each(|entry| entry.mode &= !0o222);
    tree
}

/// Gives a standby, and a directory to mount at, to a user without rights: as root that is `nobody`, for anyone else
/// who they are. Gives the directory.
pub fn give_away(pair: &Pair) -> PathBuf {
    let at = place(&pair.mirror);
    if am_root() {
        set_mode(pair.home(), 0o755);
        tool("coreutils", "cp", &[BINARY.as_ref(), pair.path("mailtwin").as_os_str()]);
        for entry in [&pair.mirror, &at].into_iter().flat_map(walkdir::WalkDir::new) {
            lchown(entry.expect("an entry").path(), Some(NOBODY), Some(NOBODY)).expect("chown");
        }
    }
    at
}

/// Runs a shell line in which `user` runs a command as the user without rights, `mailtwin` is the program, and STANDBY
/// and AT are what their names say.
///
/// As root it has a mount namespace of its own, with a device that all may open, as they may where udev runs.
pub fn as_a_user(pair: &Pair, at: &Path, line: &str) -> Run {
    let (program, user, begin) = match am_root() {
        true => (pair.path("mailtwin"), USER_OF_ROOT, DEVICE_FOR_ALL),
        false => (PathBuf::from(BINARY), "user() { \"$@\"; }", ""),
    };
    fs::create_dir_all(pair.path("device")).expect("a directory");
    let line = format!("set -e\n{user}\n{begin}\n{line}");
    let mut shell = match am_root() {
        true => Command::new("unshare"),
        false => Command::new("sh"),
    };
    shell.args(if am_root() { &["-m", "sh", "-c"][..] } else { &["-c"] }).arg(line);
    shell.env("mailtwin", program).env("STANDBY", &pair.mirror).env("AT", at).env("DEVICE", pair.path("device"));
    finish(shell.env_remove("MAILTWIN_STATE").env("LC_ALL", "C").current_dir("/"))
}

const USER_OF_ROOT: &str = r#"user() { setpriv --reuid 65534 --regid 65534 --clear-groups -- "$@"; }"#;

const DEVICE_FOR_ALL: &str = r#"mount -t tmpfs none "$DEVICE"
mknod -m 666 "$DEVICE/fuse" c 10 229
mount --bind "$DEVICE/fuse" /dev/fuse"#;

/// Whether the user without rights can open the kernel's device in `as_a_user`.
pub fn device_is_open() -> bool {
    am_root() || fs::File::options().read(true).write(true).open("/dev/fuse").is_ok()
}
