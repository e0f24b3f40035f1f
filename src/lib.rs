//! mailtwin keeps a second mail server ready.
pub mod delta;
pub mod disk;
pub mod id;
pub mod maildir;
pub mod monitor;
pub mod path;
pub mod wire;
