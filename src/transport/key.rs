//! A host's key, and how other hosts know it.
//!
//! A host is its key: what a certificate says beside it (names, dates) proves nothing here, because nobody else has
//! signed it. A key is shown as the SHA-256 of its public half as `SubjectPublicKeyInfo`, so that other programs can work
//! it out of a certificate:
//!
//! ```text
//! openssl x509 -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64
//! ```

use aws_lc_rs::digest;
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use std::fmt;
use std::str::FromStr;

/// What stands before the digits of a key, so that it can be told from anything else.
const PREFIX: &str = "sha256:";

/// What is wrong with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A public key's text.
    #[error("\"{0}\" is no key: one looks like {PREFIX} and 43 letters and digits, as mailtwin pair --show prints it")]
    Text(String),
    /// A certificate.
    #[error("what came is no certificate")]
    Certificate,
    /// A private key.
    #[error("no private key that can be used: {0}")]
    Private(String),
}

/// A host's public key, by its SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerKey(pub [u8; 32]);

impl PeerKey {
    /// The key in a certificate.
    ///
    /// # Errors
    /// Where it is none.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, KeyError> {
        let parsed = ParsedCertificate::try_from(certificate).map_err(|_| KeyError::Certificate)?;
        let digest = digest::digest(&digest::SHA256, &parsed.subject_public_key_info());
        digest.as_ref().try_into().map(Self).map_err(|_| KeyError::Certificate)
    }
}

impl fmt::Display for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", BASE64.encode(self.0))
    }
}

impl fmt::Debug for PeerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let wrong = || KeyError::Text(crate::path::escape(text.as_bytes()));
        let digits = text.trim().strip_prefix(PREFIX).ok_or_else(wrong)?;
        let bytes = BASE64.decode(digits.trim_end_matches('=')).map_err(|_| wrong())?;
        bytes.try_into().map(Self).map_err(|_| wrong())
    }
}

/// A host's own key, with the certificate that it shows.
pub struct HostKey {
    private: Vec<u8>,
    certificate: CertificateDer<'static>,
    public: PeerKey,
}

impl HostKey {
    /// Draws a new key (Ed25519). It is kept without its public half: so older versions of openssl can read it, too.
    ///
    /// # Errors
    /// Where the kernel has no randomness to give.
    pub fn fresh() -> Result<Self, KeyError> {
        let drawn = Ed25519KeyPair::generate().and_then(|pair| pair.to_pkcs8v1());
        let drawn = drawn.map_err(|_| KeyError::Private("none could be drawn".to_owned()))?;
        let der = PrivatePkcs8KeyDer::from(drawn.as_ref());
        Self::signed(&rcgen::KeyPair::try_from(&der).map_err(private)?)
    }

    /// Reads a key as [`HostKey::pem`] writes it: PKCS #8, in PEM.
    ///
    /// # Errors
    /// Where it is none.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::signed(&rcgen::KeyPair::from_pem(pem).map_err(private)?)
    }

    /// A key with a certificate that was made elsewhere. What the certificate says counts for nothing, but its key must
    /// be this one.
    ///
    /// # Errors
    /// Where one of them is none, or they do not belong together.
    pub fn with_certificate(pem: &str, certificate: Vec<u8>) -> Result<Self, KeyError> {
        let own = Self::from_pem(pem)?;
        let certificate = CertificateDer::from(certificate);
        match PeerKey::of_certificate(&certificate)? == own.public {
            true => Ok(Self { certificate, ..own }),
            false => Err(KeyError::Private("the certificate is of another key".to_owned())),
        }
    }

    /// The certificate is made anew each time: there is nothing in it that must be kept.
    fn signed(pair: &rcgen::KeyPair) -> Result<Self, KeyError> {
        let parameters = rcgen::CertificateParams::new(vec!["mailtwin".to_owned()]).map_err(private)?;
        let certificate = parameters.self_signed(pair).map_err(private)?.der().clone();
        let public = PeerKey::of_certificate(&certificate)?;
        Ok(Self { private: pair.serialize_der(), certificate, public })
    }

    /// The key as a file holds it.
    ///
    /// # Errors
    /// Where the key is of a kind that cannot be written.
    pub fn pem(&self) -> Result<String, KeyError> {
        let der = PrivatePkcs8KeyDer::from(self.private.as_slice());
        Ok(rcgen::KeyPair::try_from(&der).map_err(private)?.serialize_pem())
    }

    /// As other hosts know it.
    pub fn public(&self) -> PeerKey {
        self.public
    }

    /// What is shown to the other end.
    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(super) fn private(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.private.clone().into())
    }
}

/// Nothing of the private half is ever shown.
impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostKey({})", self.public)
    }
}

fn private(error: rcgen::Error) -> KeyError {
    KeyError::Private(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_comes_back_from_its_file_as_the_same_key() {
        let key = HostKey::fresh().expect("a key");
        let again = HostKey::from_pem(&key.pem().expect("writes")).expect("reads");
        assert_eq!(again.public(), key.public());
        assert_ne!(HostKey::fresh().expect("a key").public(), key.public());
        assert!(!format!("{key:?}").contains("PRIVATE"));
        assert!(HostKey::from_pem("").is_err());
    }

    #[test]
    fn a_public_key_is_read_as_it_is_written_and_nothing_else_is_one() {
        let key = HostKey::fresh().expect("a key").public();
        let text = key.to_string();
        assert_eq!(text.len(), PREFIX.len() + 43);
        assert_eq!(text.parse::<PeerKey>().expect("reads"), key);
        assert_eq!(format!(" {text}=\n").parse::<PeerKey>().expect("reads what openssl writes"), key);
        for wrong in ["", "sha256:", &text[1..], &text[..text.len() - 1], "sha256:\u{1b}[2J"] {
            let error = wrong.parse::<PeerKey>().expect_err(wrong).to_string();
            assert!(!error.contains('\u{1b}'), "{error}");
        }
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let (one, two) = (HostKey::fresh().expect("a key"), HostKey::fresh().expect("a key"));
        let pem = one.pem().expect("writes");
        assert!(HostKey::with_certificate(&pem, one.certificate().to_vec()).is_ok());
        assert!(HostKey::with_certificate(&pem, two.certificate().to_vec()).is_err());
        assert!(HostKey::with_certificate(&pem, b"no".to_vec()).is_err());
    }
}
