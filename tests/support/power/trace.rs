//! System calls as `strace -f -y` writes them, put together again where another thread's came between.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Every call that changes a file system, makes it durable, or says something to the other end.
pub const TRACED: &str = "open,openat,openat2,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat,symlink,\
    symlinkat,unlink,unlinkat,rmdir,mknod,mknodat,write,writev,pwrite64,pwritev,pwritev2,truncate,ftruncate,\
    fallocate,copy_file_range,sendfile,splice,fsync,fdatasync,syncfs,sync,sync_file_range,chmod,fchmod,fchmodat,\
    chown,fchown,fchownat,lchown,utimensat,setxattr,lsetxattr,fsetxattr,removexattr,lremovexattr,fremovexattr,\
    io_uring_setup";

/// The command that traces another one into a file.
pub fn tracer(file: &Path) -> String {
    format!("strace -f -y -qq --seccomp-bpf --signal=none -s 64 -e trace={TRACED} -o {}", file.display())
}

/// One call of one thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: String,
    /// Its arguments, as they are shown.
    pub arguments: Vec<String>,
    /// What it returned, as it is shown; none when the process ended before.
    pub result: Option<String>,
    /// The line on which it began.
    pub begin: usize,
    /// The line on which it was over; beyond all lines when it never was.
    pub end: usize,
}

impl Call {
    /// Whether it did what it was asked to. One that was cut off may have.
    pub fn succeeded(&self) -> bool {
        self.result.as_ref().is_none_or(|result| !result.starts_with('-'))
    }

    /// Whether it has certainly done it.
    pub fn is_over(&self) -> bool {
        self.result.is_some() && self.succeeded()
    }

    /// The number that it returned.
    pub fn returned(&self) -> Option<u64> {
        let text = self.result.as_ref()?;
        text.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
    }

    /// The number of the descriptor that an argument is.
    pub fn descriptor(&self, index: usize) -> Option<u32> {
        self.arguments[index].split('<').next()?.parse().ok()
    }

    /// The path behind the descriptor that an argument is.
    pub fn open_path(&self, index: usize) -> PathBuf {
        let argument = &self.arguments[index];
        described(argument).unwrap_or_else(|| panic!("no path behind a descriptor: {self:?}"))
    }

    /// The path that two arguments give: a directory's descriptor, and a name beneath it.
    pub fn path_at(&self, index: usize) -> PathBuf {
        let name = PathBuf::from(String::from_utf8_lossy(&unquoted(&self.arguments[index + 1])).into_owned());
        match name.is_absolute() {
            true => name,
            false => tidy(&self.open_path(index).join(name)),
        }
    }

    /// The path that an argument is by itself.
    pub fn path(&self, index: usize) -> PathBuf {
        PathBuf::from(String::from_utf8_lossy(&unquoted(&self.arguments[index])).into_owned())
    }

    /// The bytes that an argument shows, as many as were asked for.
    pub fn bytes(&self, index: usize) -> Vec<u8> {
        unquoted(&self.arguments[index])
    }
}

/// Without `.` at its end, which a path has that was opened anew.
fn tidy(path: &Path) -> PathBuf {
    path.components().collect()
}

/// The path in `5</a/path>` or `5</a/path>(deleted)`.
fn described(text: &str) -> Option<PathBuf> {
    let (_, rest) = text.split_once('<')?;
    let path = rest.trim_end_matches("(deleted)").trim_end_matches('>');
    Some(PathBuf::from(String::from_utf8_lossy(&unescaped(path)).into_owned()))
}

/// What stands between the quotes of a string, which may have been cut short.
fn unquoted(text: &str) -> Vec<u8> {
    let inner = text.trim_end_matches("...").strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    unescaped(inner.unwrap_or_else(|| panic!("not a string: {text}")))
}

/// C's escapes taken back.
fn unescaped(text: &str) -> Vec<u8> {
    let mut rest = text.as_bytes();
    let mut bytes = Vec::with_capacity(rest.len());
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            bytes.push(*first);
            continue;
        }
        let digits = rest.iter().take(3).take_while(|digit| (b'0'..=b'7').contains(digit)).count();
        if digits > 0 {
            let value = rest[..digits].iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
            bytes.push(value as u8);
            rest = &rest[digits..];
            continue;
        }
        let Some((letter, after)) = rest.split_first() else { break };
        bytes.push(match letter {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'v' => 11,
            b'f' => 12,
            other => *other,
        });
        rest = after;
    }
    bytes
}

/// Reads a trace, in the order in which the calls began.
pub fn read_trace(text: &str) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
    for (line, text) in text.lines().enumerate() {
        let (thread, rest) = text.split_once(' ').unwrap_or_else(|| panic!("not a call: {text}"));
        let rest = rest.trim_start();
        // The process ended before strace could see what these were.
        let is_unknown = ["???", "<... ???", "syscall_0x"].iter().any(|begin| rest.starts_with(begin));
        if rest.starts_with("+++") || rest.starts_with("---") || is_unknown {
            continue;
        }
        // A call that strace let go of ended with the process, if it ended at all.
        let detached = rest.strip_suffix("<detached ...>");
        if detached.is_some() && rest.starts_with("<... ") {
            continue;
        }
        if let Some(head) = rest.strip_suffix("<unfinished ...>").or(detached) {
            unfinished.insert(thread, (line, head.to_owned()));
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let (_, tail) = resumed.split_once(" resumed>").unwrap_or_else(|| panic!("not resumed: {text}"));
            let (begin, head) = unfinished.remove(thread).unwrap_or_else(|| panic!("never begun: {text}"));
            calls.push(call(&format!("{head}{tail}"), begin, line));
        } else {
            calls.push(call(rest, line, line));
        }
    }
    // The process was ended in the middle of these.
    calls.extend(unfinished.into_values().map(|(begin, head)| call(&format!("{head}) = ?"), begin, usize::MAX)));
    calls.sort_by_key(|call| call.begin);
    calls
}

fn call(text: &str, begin: usize, end: usize) -> Call {
    let (name, rest) = text.split_once('(').unwrap_or_else(|| panic!("not a call: {text}"));
    let (arguments, result) = split(rest).unwrap_or_else(|| panic!("not a whole call: {text}"));
    let arguments = arguments.iter().map(|argument| argument.trim().to_owned()).collect();
    let result = result.trim().strip_prefix('=').unwrap_or_else(|| panic!("no result: {text}")).trim();
    let is_known = !result.starts_with('?');
    Call {
        name: name.to_owned(),
        arguments,
        result: is_known.then(|| result.to_owned()),
        begin,
        end: if is_known { end } else { usize::MAX },
    }
}

/// The arguments, and what stands behind their closing bracket.
fn split(text: &str) -> Option<(Vec<String>, &str)> {
    let mut arguments = vec![String::new()];
    let (mut depth, mut in_string, mut in_path, mut is_escaped) = (0, false, false, false);
    for (at, letter) in text.char_indices() {
        let is_literal = in_string || in_path;
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' if is_literal => is_escaped = true,
            '"' if !in_path => in_string = !in_string,
            '<' if !in_string => in_path = true,
            '>' if in_path => in_path = false,
            '(' | '[' | '{' if !is_literal => depth += 1,
            ')' if !is_literal && depth == 0 => return Some((arguments, &text[at + 1..])),
            ')' | ']' | '}' if !is_literal => depth -= 1,
            ',' if !is_literal && depth == 0 => {
                arguments.push(String::new());
                continue;
            }
            _ => {}
        }
        arguments.last_mut()?.push(letter);
    }
    None
}

#[test]
fn calls_are_read_with_their_paths_and_bytes() {
    let calls = read_trace(
        "7 openat(5</a>, \"b:2,S\", O_RDWR|O_CREAT, 0600) = 6</a/b:2,S>\n\
         8 write(6</a/b:2,S>, \"\\0\\1x, )\\n\\377\"..., 900 <unfinished ...>\n\
         7 renameat(5</a>, \"b\", 9</c (x)>, \".\") = -1 ENOENT (No such file or directory)\n\
         8 <... write resumed>) = 900\n\
         7 fsync(5</a> <unfinished ...>\n\
         7 +++ killed by SIGKILL +++\n",
    );
    let names: Vec<(&str, usize, usize)> =
        calls.iter().map(|call| (call.name.as_str(), call.begin, call.end)).collect();
    assert_eq!(names, [("openat", 0, 0), ("write", 1, 3), ("renameat", 2, 2), ("fsync", 4, usize::MAX)]);
    assert_eq!(calls[0].path_at(0), Path::new("/a/b:2,S"));
    assert_eq!((calls[0].descriptor(0), calls[0].returned()), (Some(5), Some(6)));
    assert_eq!((calls[1].bytes(1), calls[1].returned()), (b"\0\x01x, )\n\xff".to_vec(), Some(900)));
    assert_eq!(calls[2].path_at(2), Path::new("/c (x)"));
    assert!(!calls[2].succeeded() && calls[3].succeeded() && !calls[3].is_over());
}
