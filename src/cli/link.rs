//! The way to another host: its options.

use crate::config::TypedLink;

/// Options of commands that talk to another host.
#[derive(Clone, Debug, clap::Args)]
pub struct Way {
    /// Send at most so much a second: KiB, or with a suffix K, M or G
    #[arg(long, value_name = "RATE")]
    pub bwlimit: Option<String>,

    /// The program that reaches the other host [default: ssh]
    #[arg(short = 'e', long, value_name = "COMMAND")]
    pub rsh: Option<String>,

    /// mailtwin on the other host [default: mailtwin]
    #[arg(long, value_name = "PROGRAM")]
    pub remote_path: Option<String>,

    /// Give up when the other end says nothing for so many seconds; 0 never [default: 60]
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u64>,

    /// zstd level from 1 to 19, 0 for none [default: 4 to another host, 0 on this one]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(0..=19))]
    pub compress_level: Option<i32>,

    /// Show progress; on by default on a terminal
    #[arg(long, overrides_with = "no_progress")]
    pub progress: bool,

    /// Show no progress
    #[arg(long)]
    pub no_progress: bool,
}

impl Way {
    /// What was typed of the way.
    pub fn typed(&self) -> TypedLink {
        TypedLink {
            bwlimit: self.bwlimit.clone(),
            rsh: self.rsh.clone(),
            remote_path: self.remote_path.clone(),
            timeout: self.timeout,
            level: self.compress_level,
        }
    }

    /// Whether progress is to be shown, where it is or is not by default.
    pub fn shows_progress(&self, default: bool) -> bool {
        (self.progress || default) && !self.no_progress
    }
}
