//! Attaching to the kernel: the only place that mounts and unmounts.
//!
//! Who may mount does so by himself, anybody else by way of `fusermount3`, which is set-uid root and hands over the
//! device that it opened. fuser has code for both, and unmounts on its way out what lies beneath a mount that somebody
//! else has unmounted already; so it gets a device that is mounted, and what is unmounted here is looked at before.

use super::MountError;
use crate::disk::{Root, open_device};
use crate::path::escape;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{getgid, getuid};
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

type Result<T> = std::result::Result<T, MountError>;

const DEVICE: &str = "/dev/fuse";

/// The program that mounts for users who may not.
const HELPER: &str = "fusermount3";

/// The file system's name in the system's table of mounts.
const TYPE: &str = "fuse.mailtwin";

/// How it is mounted. It is always read only, and no set-uid bit and no device in it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Users other than the one who mounts may look into it, as far as permissions and owners let them.
    pub allow_other: bool,
    /// Permissions and owners count for the user who mounts, too.
    pub default_permissions: bool,
    /// Programs in it can be run.
    pub exec: bool,
    /// What the table of mounts shows for its source.
    pub source: OsString,
}

impl Options {
    /// The usual ones.
    pub fn new(source: &OsStr) -> Self {
        Self { allow_other: false, default_permissions: false, exec: true, source: source.to_owned() }
    }

    /// Takes one of `-o`; gives it back where it is none.
    ///
    /// # Errors
    /// Why it cannot be had.
    pub fn set(&mut self, option: &str) -> std::result::Result<(), String> {
        match option {
            // So it is.
            "ro" | "nosuid" | "nodev" | "noatime" => {}
            "allow_other" => self.allow_other = true,
            "default_permissions" => self.default_permissions = true,
            "exec" => self.exec = true,
            "noexec" => self.exec = false,
            "rw" | "suid" | "dev" => return Err(format!("-o {option}: restore points are mounted ro,nosuid,nodev")),
            other => match other.strip_prefix("fsname=") {
                Some(source) => self.source = source.into(),
                None => {
                    let known = "allow_other, default_permissions, exec, noexec, fsname=NAME";
                    return Err(format!("-o {}: not known; there are {known}", escape(other.as_bytes())));
                }
            },
        }
        Ok(())
    }

    /// What the kernel checks by itself.
    fn of_the_kernel(&self) -> String {
        let mut options = String::new();
        if self.allow_other {
            options.push_str(",allow_other");
        }
        // What others may see must be what they might have seen then.
        if self.allow_other || self.default_permissions {
            options.push_str(",default_permissions");
        }
        options
    }
}

/// A mount of ours.
#[derive(Debug)]
pub struct Attached {
    mountpoint: PathBuf,
    /// Tells it from any other mount at the same place.
    device: Option<String>,
    by_helper: bool,
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// What lies in the standby would become part of its mirror, and a restore point of itself; what lies above it would
/// hide it. `places` are the standby's.
///
/// # Errors
/// Where it does, or one of them cannot be looked at.
pub(super) fn apart(places: &[&Path], mountpoint: &Path) -> Result<()> {
    let above = opened(mountpoint)?.ancestry()?;
    for place in places {
        let above_place = Root::open(place)?.ancestry()?;
        let contains =
            |above: &[(u64, u64)], beneath: &[(u64, u64)]| above.first().is_some_and(|it| beneath.contains(it));
        let how = match (contains(&above_place, &above), contains(&above, &above_place)) {
            (true, _) => "lies in the standby",
            (_, true) => "has the standby in it",
            _ => continue,
        };
        return Err(MountError::Failed(format!("{} {how}: choose a directory elsewhere", shown(mountpoint))));
    }
    Ok(())
}

fn opened(mountpoint: &Path) -> Result<Root> {
    Root::open(mountpoint).map_err(|error| match error.source.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::NOENT) => {
            MountError::Failed(format!("{} is not there: make the directory first", shown(mountpoint)))
        }
        Some(Errno::NOTDIR) => MountError::Failed(format!("{} is not a directory", shown(mountpoint))),
        Some(Errno::NOTCONN) => MountError::Failed(format!(
            "{} has a mount whose process has died: unmount it first, with umount or {HELPER} -u",
            shown(mountpoint)
        )),
        _ => error.into(),
    })
}

/// Mounts; gives the device on which the kernel asks.
///
/// # Errors
/// [`MountError`] says what is missing.
pub(super) fn attach(mountpoint: &Path, options: &Options) -> Result<(OwnedFd, Attached)> {
    opened(mountpoint)?;
    let cannot = |error: io::Error| MountError::Failed(format!("cannot look at {}: {error}", shown(mountpoint)));
    let mountpoint = std::fs::canonicalize(mountpoint).map_err(cannot)?;
    if at(&mountpoint).is_some_and(|mount| mount.kind == TYPE) {
        return Err(MountError::Failed(format!("{} has restore points mounted already", shown(&mountpoint))));
    }
    let (device, by_helper) = match directly(&mountpoint, options)? {
        Some(device) => (device, false),
        None => (by_helper(&mountpoint, options)?, true),
    };
    let number = at(&mountpoint).filter(|mount| mount.kind == TYPE).map(|mount| mount.device);
    Ok((device, Attached { mountpoint, device: number, by_helper }))
}

/// Mounts as root does; `None` where this process may not.
fn directly(mountpoint: &Path, options: &Options) -> Result<Option<OwnedFd>> {
    let device = match open_device(Path::new(DEVICE)) {
        Ok(device) => device,
        Err(error) if error.is_not_found() => {
            return Err(MountError::Failed(format!(
                "there is no {DEVICE}: load the kernel's module (modprobe fuse), or give the device to this container"
            )));
        }
        // The helper may open it.
        Err(_) if !getuid().is_root() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}{}",
        device.as_raw_fd(),
        getuid().as_raw(),
        getgid().as_raw(),
        options.of_the_kernel()
    );
    let data = CString::new(data).map_err(|error| MountError::Failed(error.to_string()))?;
    let mut flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    if !options.exec {
        flags |= MountFlags::NOEXEC;
    }
    match mount(options.source.as_os_str(), mountpoint, TYPE, flags, data.as_c_str()) {
        Ok(()) => Ok(Some(device)),
        Err(Errno::PERM) => Ok(None),
        Err(Errno::NODEV) => {
            Err(MountError::Failed("the kernel has no FUSE: load its module (modprobe fuse)".to_owned()))
        }
        Err(errno) => {
            Err(MountError::Failed(format!("cannot mount at {}: {}", shown(mountpoint), io::Error::from(errno))))
        }
    }
}

// ---- the helper ----

/// Lets the helper mount, and receives the device that it opened.
fn by_helper(mountpoint: &Path, options: &Options) -> Result<OwnedFd> {
    let failed = |error: io::Error| MountError::Failed(format!("cannot talk to {HELPER}: {error}"));
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    let mut words = OsString::from("ro,nosuid,nodev,subtype=mailtwin,fsname=");
    words.push(escaped(&options.source));
    words.push(options.of_the_kernel());
    if !options.exec {
        words.push(",noexec");
    }
    let mut command = Command::new(HELPER);
    command.arg("-o").arg(words).arg("--").arg(mountpoint);
    // The socket is its standard input: so no descriptor has to be kept open across exec.
    command.env("_FUSE_COMMFD", "0").stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::piped());
    let spawned = command.spawn();
    // The other end is the helper's alone: when that ends, so does the conversation.
    drop(command);
    let helper = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MountError::Failed(format!(
            "only root can mount without {HELPER}: install it (on Debian the package fuse3), or run as root"
        )),
        _ => failed(error),
    })?;
    let received = received(&ours);
    let ended = helper.wait_with_output().map_err(failed)?;
    match received.map_err(failed)? {
        Some(device) if ended.status.success() => Ok(device),
        _ => {
            let said = String::from_utf8_lossy(&ended.stderr);
            let said = escape(said.trim().trim_start_matches(HELPER).trim_start_matches(": ").as_bytes());
            // Where udev runs, everybody may open it.
            let is_closed = open_device(Path::new(DEVICE)).is_err();
            let hint = if is_closed { format!("; let users open it: chmod 666 {DEVICE}") } else { String::new() };
            Err(MountError::Failed(format!("{HELPER} does not mount: {said}{hint}")))
        }
    }
}

/// A comma ends an option unless a backslash stands before it.
fn escaped(source: &OsStr) -> OsString {
    let escape = |byte: &u8| match byte {
        b',' | b'\\' => vec![b'\\', *byte],
        byte => vec![*byte],
    };
    OsString::from_vec(source.as_bytes().iter().flat_map(escape).collect())
}

/// The descriptor that comes through a socket; `None` where its other end was closed.
fn received(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::io::retry_on_intr(|| recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags))?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(descriptors.last())
}

// ---- unmounting ----

impl Attached {
    /// Unmounts, if it is still mounted. Who has something in it open keeps that until it is closed.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn detach(&self) -> Result<()> {
        let is_ours =
            |mount: &Mount| mount.kind == TYPE && self.device.as_ref().is_none_or(|ours| *ours == mount.device);
        if !at(&self.mountpoint).is_some_and(|mount| is_ours(&mount)) {
            return Ok(());
        }
        let failed = |what: String| MountError::Failed(format!("cannot unmount {}: {what}", shown(&self.mountpoint)));
        if !self.by_helper {
            let flags = UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
            return unmount(&self.mountpoint, flags).map_err(|errno| failed(io::Error::from(errno).to_string()));
        }
        let output = Command::new(HELPER).args(["-u", "-z", "--"]).arg(&self.mountpoint).stdin(Stdio::null()).output();
        let output = output.map_err(|error| failed(error.to_string()))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(failed(escape(output.stderr.trim_ascii()))),
        }
    }
}

/// A line of the system's table of mounts.
struct Mount {
    device: String,
    kind: String,
}

/// What is mounted at a path, on top of all else there.
fn at(mountpoint: &Path) -> Option<Mount> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    table.split(|byte| *byte == b'\n').rev().find_map(|line| mounted_at(line, mountpoint.as_os_str().as_bytes()))
}

fn mounted_at(line: &[u8], mountpoint: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    if unescaped(fields.get(4)?) != mountpoint {
        return None;
    }
    let behind = fields.iter().position(|field| *field == b"-")?;
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    Some(Mount { device: text(fields.get(2)?), kind: text(fields.get(behind + 1)?) })
}

/// The table has blanks and the like as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        let octal = behind.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| byte == b'\\') {
            Some(meant) => {
                plain.push(meant);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(byte);
                rest = behind;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_mounts_is_read_by_place() {
        let line = b"98 28 0:52 / /mnt/a\\040b\\134c ro,nosuid shared:7 - fuse.mailtwin /srv/mail ro,user_id=0";
        let mount = mounted_at(line, b"/mnt/a b\\c").expect("it is there");
        assert_eq!((mount.device.as_str(), mount.kind.as_str()), ("0:52", TYPE));
        assert!(mounted_at(line, b"/mnt/a").is_none());
        assert!(at(Path::new("/proc")).is_some_and(|mount| mount.kind == "proc"));
        assert!(at(Path::new("/proc/self")).is_none());
    }

    #[test]
    fn options_are_known_or_refused_by_name() {
        let mut options = Options::new(OsStr::new("/srv/mail"));
        for known in ["ro", "allow_other", "noexec", "fsname=a,b"] {
            options.set(known).expect("is known");
        }
        assert!(options.allow_other && !options.exec && options.source == "a,b");
        assert_eq!(options.of_the_kernel(), ",allow_other,default_permissions");
        assert_eq!(escaped(&options.source), "a\\,b");
        for unknown in ["rw", "suid", "nonsense", ""] {
            assert!(options.set(unknown).is_err_and(|why| why.contains(unknown)), "{unknown}");
        }
    }
}
