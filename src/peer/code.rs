//! The short code that one person carries from one screen to the other.

use std::fmt;
use std::str::FromStr;

/// Digits of a code. Whoever stands between the two hosts may guess once; then there is another code.
const DIGITS: usize = 8;

/// A code that is used once.
#[derive(Clone, PartialEq, Eq)]
pub struct Code([u8; DIGITS]);

/// What was typed is no code.
#[derive(Debug, thiserror::Error)]
#[error("a code has {DIGITS} digits, as in 1234-5678: type it as the other host shows it")]
pub struct CodeError;

impl Code {
    /// Draws a new code.
    ///
    /// # Errors
    /// When the kernel has no randomness to give.
    pub fn fresh() -> std::io::Result<Self> {
        let mut digits = [0; DIGITS];
        for digit in &mut digits {
            *digit = fresh_digit()?;
        }
        Ok(Self(digits))
    }

    /// The digits, for the key exchange.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Each digit is as likely as any other: bytes from 250 on are drawn again.
fn fresh_digit() -> std::io::Result<u8> {
    loop {
        let mut byte = [0];
        getrandom::fill(&mut byte).map_err(std::io::Error::other)?;
        if byte[0] < 250 {
            return Ok(b'0' + byte[0] % 10);
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, digit) in self.0.iter().enumerate() {
            let dash = if place == DIGITS / 2 { "-" } else { "" };
            write!(f, "{dash}{}", char::from(*digit))?;
        }
        Ok(())
    }
}

/// A code belongs on one screen, and in no log.
impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code")
    }
}

impl FromStr for Code {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let bytes: Vec<u8> = text.bytes().filter(|byte| !b" -\t\r\n".contains(byte)).collect();
        let digits: [u8; DIGITS] = bytes.try_into().map_err(|_| CodeError)?;
        match digits.iter().all(u8::is_ascii_digit) {
            true => Ok(Self(digits)),
            false => Err(CodeError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_it_is_shown_and_as_people_type_it() {
        let code = Code::fresh().expect("a code");
        let shown = code.to_string();
        assert_eq!(shown.len(), 9);
        let spaced = shown.replace('-', " ");
        for typed in [shown.clone(), shown.replace('-', ""), format!(" {spaced}\n")] {
            assert_eq!(typed.parse::<Code>().expect("reads"), code);
        }
        for wrong in ["", "1234-567", "1234-56789", "1234-567x"] {
            assert!(wrong.parse::<Code>().is_err(), "{wrong}");
        }
        assert!(!format!("{code:?}").contains(&shown));
    }

    #[test]
    fn every_digit_comes() {
        let codes: Vec<Code> = (0..200).map(|_| Code::fresh().expect("a code")).collect();
        for digit in b'0'..=b'9' {
            assert!(codes.iter().any(|code| code.0.contains(&digit)), "{digit}");
        }
    }
}
