//! mailtwin keeps a second mail server ready.
pub mod catalogue;
pub mod cli;
pub mod config;
pub mod delta;
pub mod disk;
pub mod id;
pub mod log;
pub mod maildir;
pub mod monitor;
pub mod path;
pub mod sync;
pub mod transport;
pub mod wire;
