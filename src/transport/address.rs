//! Where a host is in the network: a name or an address, and a port.

use std::fmt;
use std::net::Ipv6Addr;

/// Longest name in the DNS.
const LONGEST: usize = 253;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Its name, or its address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Address {
    /// `host`, `host:port`, `[address]:port`, or an IPv6 address alone; `None` where it is none of them.
    pub fn parse(text: &str, default: u16) -> Option<Self> {
        if text.parse::<Ipv6Addr>().is_ok() {
            return Some(Self { host: text.to_owned(), port: default });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (text, default),
        };
        let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => return inner.parse::<Ipv6Addr>().ok().map(|_| Self { host: inner.to_owned(), port }),
            None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
        };
        let is_host = is_host && (1..=LONGEST).contains(&host.len()) && !host.starts_with('-');
        is_host.then(|| Self { host: host.to_owned(), port })
    }
}

/// As it is read again.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_with_and_without_a_port() {
        let at = |text: &str| Address::parse(text, 7);
        for (typed, host, port) in [
            ("mx2", "mx2", 7),
            ("mx2:99", "mx2", 99),
            ("[::1]:99", "::1", 99),
            ("[::1]", "::1", 7),
            ("2001:db8::1", "2001:db8::1", 7),
            ("192.0.2.1:1", "192.0.2.1", 1),
        ] {
            let address = Address { host: host.to_owned(), port };
            assert_eq!(at(typed).as_ref(), Some(&address), "{typed}");
            assert_eq!(at(&address.to_string()), Some(address), "{typed}");
        }
        let long = "a".repeat(254);
        for wrong in
            ["", ":1", "mx2:", "mx2:x", "mx2:99999", "-x", "a b", "mx2/x", "a:b:c", "[mx2]:1", "mx2%x", "[::1", &long]
        {
            assert_eq!(at(wrong), None, "{wrong}");
        }
    }
}
