//! Looks at the memory of a run's processes while they run. Each keeps its own peak (VmHWM), so that a look every few
//! milliseconds misses only what is taken in the last of them.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::process::{Child, ExitStatus};
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(4);

/// Largest resident memory of a process at either end, in bytes.
#[derive(Clone, Copy, Default)]
pub struct Peaks {
    pub near: u64,
    pub far: u64,
}

/// Waits for `child`, which is `/usr/bin/time`: its child is the near end, everything below that the far end.
pub fn watch(child: &mut Child) -> io::Result<(ExitStatus, Peaks)> {
    let mut near: HashMap<u32, u64> = HashMap::new();
    let mut far: HashMap<u32, u64> = HashMap::new();
    loop {
        if let Some(status) = child.try_wait()? {
            let largest = |peaks: &HashMap<u32, u64>| peaks.values().copied().max().unwrap_or(0);
            return Ok((status, Peaks { near: largest(&near), far: largest(&far) }));
        }
        for process in children(child.id()) {
            note(&mut near, process);
            descend(process, &mut far);
        }
        std::thread::sleep(EVERY);
    }
}

fn descend(process: u32, peaks: &mut HashMap<u32, u64>) {
    for child in children(process) {
        note(peaks, child);
        descend(child, peaks);
    }
}

/// A process between fork and exec still carries the peak of its parent's image, so the last reading counts, not the largest.
fn note(peaks: &mut HashMap<u32, u64>, process: u32) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    if let Some(kibibytes) = peak {
        peaks.insert(process, kibibytes * 1_024);
    }
}

/// A child belongs to the thread that started it.
fn children(process: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return Vec::new();
    };
    let lists = threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}
