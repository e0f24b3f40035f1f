//! `mailtwin pair`: two hosts learn each other's key.

use super::configured::Configured;
use super::error::{print, say, tell};
use crate::config::file::Host;
use crate::peer::code::Code;
use crate::peer::entry::{self, Noted};
use crate::peer::exchange::{Introduction, PairError};
use crate::peer::listen::{self, Heard, Listener};
use crate::peer::{call, host_key};
use crate::transport::address::Address;
use crate::transport::{runtime, tls};
use crate::wire::pairing::is_name;
use std::io::{BufRead, IsTerminal};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};

/// Codes that are shown before it ends: each can be guessed at once.
const CODES: u32 = 3;

/// Options of `pair`.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// The host that shows a code: a name or an address [default port: 8947]
    #[arg(value_name = "HOST[:PORT]", required_unless_present_any = ["listen", "show"])]
    pub host: Option<String>,

    /// Show a code, and wait for the host on which it is typed [default address: [::]:8947]
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "[::]:8947", conflicts_with_all = ["host", "show"])]
    pub listen: Option<String>,

    /// Print this host's name and key, and do nothing else
    #[arg(long, conflicts_with = "host")]
    pub show: bool,

    /// The code that the other host shows; otherwise it is asked for, or read from standard input
    #[arg(long, value_name = "CODE", conflicts_with_all = ["listen", "show"])]
    pub code: Option<String>,

    /// What this host is called by the other one [default: that of the configuration, or its host name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Where the other host is to reach this one later [default: where it was met, port 8946]
    #[arg(long, value_name = "HOST[:PORT]")]
    pub address: Option<String>,

    /// The file of this host's key; made where it is missing [default: that of the configuration, or /etc/mailtwin/key]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// The configuration file into which the other host is written, where there is one
    #[arg(skip)]
    pub config: PathBuf,

    /// With --listen: give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub wait: u64,
}

/// A sentence and an exit code.
type Failure = (String, u8);

/// What was written down of the other host, or is to be; and whether that failed.
#[derive(Default)]
struct Outcome {
    line: String,
    is_unwritten: bool,
}

fn failed(error: impl std::fmt::Display) -> Failure {
    (error.to_string(), 1)
}

fn wrong(sentence: String) -> Failure {
    (sentence, 2)
}

/// Pairs two hosts, or shows what this one is, and gives the exit code.
pub fn run(arguments: &Arguments, configured: &Configured) -> u8 {
    let arguments = Arguments { config: configured.file().to_owned(), ..arguments.clone() };
    match pair(&arguments, configured) {
        Ok(code) => code,
        Err((sentence, code)) => tell(&sentence, code),
    }
}

fn pair(arguments: &Arguments, configured: &Configured) -> Result<u8, Failure> {
    let host = || configured.host().map_err(|failure| (failure.0, failure.1));
    let (name, address) = (name(arguments, host)?, address(arguments)?);
    let target = arguments.host.as_deref().map(|host| split(host, listen::PORT)).transpose()?;
    let typed = match &arguments.code {
        Some(code) => Some(code.parse::<Code>().map_err(|error| wrong(format!("--code: {error}")))?),
        None => None,
    };
    let file = arguments.key.clone().map_or_else(|| Ok(host()?.key), Ok)?;
    let key = host_key::load_or_make(&file).map_err(failed)?.public();
    let me = Introduction { name, address, key };
    if arguments.show {
        print(&format!("{} {}", me.name, me.key));
        return Ok(0);
    }
    let runtime = runtime().map_err(failed)?;
    match (target, &arguments.listen) {
        (Some(place), _) => {
            let code = typed.map_or_else(|| ask_for_code(&place.host), Ok)?;
            ask(&runtime, arguments, &place, &code, &me)
        }
        (None, address) => wait(runtime.handle(), arguments, address.as_deref().unwrap_or_default(), &me),
    }
}

// ---- what was typed ----

fn name(arguments: &Arguments, host: impl FnOnce() -> Result<Host, Failure>) -> Result<String, Failure> {
    let name = arguments.name.clone().map_or_else(|| Ok(host()?.name), Ok)?;
    match is_name(&name) {
        true => Ok(name),
        false => {
            let shown = crate::path::escape(name.as_bytes());
            Err(wrong(format!("a host cannot be called \"{shown}\" here: name it with --name, in letters and digits")))
        }
    }
}

fn address(arguments: &Arguments) -> Result<Option<String>, Failure> {
    let Some(typed) = &arguments.address else { return Ok(None) };
    Ok(Some(split(typed, tls::PORT)?.to_string()))
}

fn split(typed: &str, default: u16) -> Result<Address, Failure> {
    Address::parse(typed, default).ok_or_else(|| {
        let shown = crate::path::escape(typed.as_bytes());
        wrong(format!("\"{shown}\" is no host: a name or an address, and a port if need be, as in mx2:{default}"))
    })
}

/// From the terminal, or from the first line of what is no terminal: then nothing is asked.
fn ask_for_code(host: &str) -> Result<Code, Failure> {
    let input = std::io::stdin();
    if input.is_terminal() {
        say(&format!("type the code that \"mailtwin pair --listen\" shows on {host}:"));
    }
    let mut line = String::new();
    std::io::Read::take(input.lock(), 1024).read_line(&mut line).map_err(failed)?;
    if line.trim().is_empty() {
        return Err(wrong(
            "no code: give the one that the other host shows with --code, or on standard input".to_owned(),
        ));
    }
    line.parse().map_err(|error: crate::peer::code::CodeError| wrong(error.to_string()))
}

// ---- the two ends ----

fn ask(
    runtime: &Runtime,
    arguments: &Arguments,
    place: &Address,
    code: &Code,
    me: &Introduction,
) -> Result<u8, Failure> {
    let mut done = Outcome::default();
    let mut note = |other: &Introduction| {
        done = note(&arguments.config, other, &place.host);
        Ok(())
    };
    let paired = call::call(runtime.handle(), &place.host, place.port, code, me, &mut note);
    let other = paired.map_err(|error| match error {
        PairError::Code | PairError::Refused(_) => {
            (format!("not paired with {place}: {error}. Start again with the code that it shows now"), 1)
        }
        PairError::Io(_) | PairError::Silence => (
            format!(
                "not paired with {place}: {error}. Is \"mailtwin pair --listen\" running there, and the port open?"
            ),
            1,
        ),
        error => (format!("not paired with {place}: {error}"), 1),
    })?;
    Ok(conclude(&other, &done))
}

fn wait(handle: &Handle, arguments: &Arguments, address: &str, me: &Introduction) -> Result<u8, Failure> {
    let place = split(address, listen::PORT)?.to_string();
    let unusable = |error| (format!("cannot wait at {place}: {error}: name another address with --listen"), 1);
    let mut listener = Listener::bind(handle, &place).map_err(unusable)?;
    let place = listener.address().map_err(failed)?;
    for left in (0..CODES).rev() {
        let code = Code::fresh().map_err(failed)?;
        show(&code, place, me);
        let mut done = Outcome::default();
        let mut note = |from: SocketAddr, other: &Introduction| {
            done = note(&arguments.config, other, &from.ip().to_canonical().to_string());
            Ok(())
        };
        match listener.wait(&code, me, Duration::from_secs(arguments.wait), &mut note).map_err(failed)? {
            Heard::Paired(_, other) => return Ok(conclude(&other, &done)),
            Heard::WrongCode(from) if left > 0 => say(&format!("{} gave a wrong code: here is another one", from.ip())),
            Heard::WrongCode(from) => {
                return Err((format!("{} gave a wrong code, and this was the last one: not paired", from.ip()), 1));
            }
            Heard::Failed(from, error) => return Err((format!("not paired with {}: {error}", from.ip()), 1)),
            Heard::Nobody => {
                return Err((format!("nobody came within {} seconds: not paired", arguments.wait), 1));
            }
        }
    }
    Ok(1)
}

fn show(code: &Code, place: SocketAddr, me: &Introduction) {
    let port = if place.port() == listen::PORT { String::new() } else { format!(":{}", place.port()) };
    print(&format!("code: {code}"));
    say(&format!("waiting at {place}: on the other host give \"mailtwin pair {}{port}\", and type this code", me.name));
}

// ---- writing it down ----

/// Writes the other host down, or gives the lines that somebody has to write. An address that it did not say is the one
/// where it was met.
fn note(config: &Path, other: &Introduction, met: &str) -> Outcome {
    let met = || Address { host: met.to_owned(), port: tls::PORT }.to_string();
    let other = Introduction { address: Some(other.address.clone().unwrap_or_else(met)), ..other.clone() };
    let (shown, name) = (crate::path::escape(config.as_os_str().as_bytes()), &other.name);
    if !config.exists() {
        let line = format!("# There is no {shown} yet: it needs these lines.\n{}", entry::lines(&other));
        return Outcome { line, is_unwritten: false };
    }
    let line = match entry::note(config, &other) {
        Ok(Noted::Added) => format!("{name} is now a peer in {shown}"),
        Ok(Noted::Changed) => format!("{name} has its new key in {shown}"),
        Ok(Noted::Known) => format!("{name} was in {shown} as it is"),
        Err(error) => {
            let line = format!("# Not written ({error}): {shown} needs these lines.\n{}", entry::lines(&other));
            return Outcome { line, is_unwritten: true };
        }
    };
    Outcome { line, is_unwritten: false }
}

fn conclude(other: &Introduction, done: &Outcome) -> u8 {
    say(&format!("paired with {}, whose key is {}", other.name, other.key));
    print(done.line.trim_end());
    if done.is_unwritten { 23 } else { 0 }
}

/// The defaults that the help names are those of the program.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_the_ports_and_places_that_are_used() {
        use clap::Args;
        let help = Arguments::augment_args(clap::Command::new("pair")).render_long_help().to_string();
        for word in
            [&format!("port: {}", listen::PORT), &format!("port {}", tls::PORT), &host_key::DEFAULT_FILE.to_owned()]
        {
            assert!(help.contains(word.as_str()), "{word}: {help}");
        }
    }
}
