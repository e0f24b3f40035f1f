//! The system's log, for a process that has no terminal.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Where the system's log listens.
pub const SOCKET: &str = "/dev/log";

/// Facility `mail`, severity `err`.
const PRIORITY: u8 = 2 << 3 | 3;

/// Writes a line to the log that listens at a socket.
///
/// # Errors
/// Where none does.
pub fn write(socket: &Path, line: &str) -> io::Result<()> {
    let own = UnixDatagram::unbound()?;
    // A log that does not keep up loses the line, and holds up nobody.
    own.set_nonblocking(true)?;
    let message = format!("<{PRIORITY}>mailtwin[{}]: {line}", std::process::id());
    own.send_to(message.as_bytes(), socket).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reaches_the_log_with_its_priority() {
        let home = tempfile::tempdir().expect("a directory");
        let socket = home.path().join("log");
        assert!(write(&socket, "nobody listens").is_err());
        let log = UnixDatagram::bind(&socket).expect("listens");
        write(&socket, "a content is damaged").expect("writes");
        let mut message = [0; 100];
        let length = log.recv(&mut message).expect("receives");
        let wanted = format!("<19>mailtwin[{}]: a content is damaged", std::process::id());
        assert_eq!(message[..length], *wanted.as_bytes());
    }
}
