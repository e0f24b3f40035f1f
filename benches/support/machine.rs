//! The line under the table: on what it was measured.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Cores, memory, file system, kernel and versions.
pub fn describe(place: &Path, versions: &[String]) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let cpu = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".to_owned());
    let memory = field("/proc/meminfo", "MemTotal").and_then(|total| total.strip_suffix(" kB")?.parse::<u64>().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let system = field("/etc/os-release", "PRETTY_NAME").unwrap_or_else(|| "unknown system".to_owned());
    format!(
        "Measured on {cores} cores ({cpu}), {} GB of memory, {}, Linux {}, {system}; {}. Medians, in brackets smallest to largest; caches warm.",
        memory.unwrap_or(0) / 1_000_000,
        file_system(place),
        kernel.trim(),
        versions.join(", "),
    )
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
}

/// Kind of the file system that holds `place`: the longest mount point above it.
fn file_system(place: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let above = fields.filter(|fields| fields.len() > 2 && place.starts_with(fields[1]));
    above.max_by_key(|fields| fields[1].len()).map_or("unknown file system".to_owned(), |fields| fields[2].to_owned())
}

/// What a program says of its version, in the words that count.
pub fn version(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().next().unwrap_or_default().split("  protocol").next().unwrap_or_default().replace("  ", " ")
}
