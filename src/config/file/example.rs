//! The text that `mailtwin init` writes.

use super::Role;

/// Lines that begin with `master:` or `slave:` are of one role only.
const TEXT: &str = include_str!("example.toml");

/// A configuration to begin with: everything in it is a comment but what holds on any host.
pub fn example(role: Role) -> String {
    let (own, others) = match role {
        Role::Master => ("master:", "slave:"),
        Role::Slave => ("slave:", "master:"),
    };
    let lines = TEXT.lines().filter(|line| !line.starts_with(others));
    lines.map(|line| format!("{}\n", line.strip_prefix(own).unwrap_or(line))).collect()
}
