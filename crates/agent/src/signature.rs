//! Signature: whether a program is what the operator signed (ed25519).
//!
//! Why: a server that was taken must not own its fleet. The private key is on the operator's machine alone
//! (`hawkeye agent-key`), each agent has the public one in its own file.
//! Invariants: what is verified is the text of [`Release::signed_text`], with its digest of the whole file.

use crate::release::Release;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{Context, SHA256};
use ring::signature::{ED25519, UnparsedPublicKey};
use std::fmt;
use std::fmt::Write;
use std::io::{self, Read};
use std::str::FromStr;

/// Bytes of an ed25519 key.
const KEY_BYTES: usize = 32;
/// Bytes of a file that are read at once for its digest.
const CHUNK_BYTES: usize = 32 << 10;

/// The key that the operator's signatures are verified with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_BYTES]);

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<PublicKey, String> {
        let bytes = BASE64_STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(PublicKey).ok_or_else(|| {
            "is no public key: give the 44 characters that `hawkeye agent-key new` printed, like \"mA3…=\"".to_string()
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl PublicKey {
    /// The key of these bytes.
    pub fn of_bytes(bytes: &[u8]) -> Option<PublicKey> {
        bytes.try_into().ok().map(PublicKey)
    }

    /// Verifies `signature` (base64) of the program with this `sha256` (lower-case hexadecimal).
    pub fn verify(&self, release: &Release, sha256: &str, signature: &str) -> Result<(), String> {
        let signature =
            BASE64_STANDARD.decode(signature.trim()).map_err(|_| "the signature is no base64".to_string())?;
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(release.signed_text(sha256).as_bytes(), &signature)
            .map_err(|_| format!("the signature of {} is not by this agent's upgrade.public_key", release.file_name()))
    }
}

/// The SHA-256 of what `from` has, in lower-case hexadecimal, and how many bytes that was.
pub fn sha256_of(mut from: impl Read) -> io::Result<(String, u64)> {
    let (mut context, mut chunk, mut bytes) = (Context::new(&SHA256), vec![0; CHUNK_BYTES], 0);
    loop {
        let read = from.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        context.update(&chunk[..read]);
        bytes += read as u64;
    }
    let mut text = String::with_capacity(64);
    for byte in context.finish().as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok((text, bytes))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    /// An operator's key, the same in each run.
    pub fn signer(seed: u8) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("any seed is one")
    }

    pub fn public_key(signer: &Ed25519KeyPair) -> PublicKey {
        PublicKey::of_bytes(signer.public_key().as_ref()).expect("32 bytes")
    }

    /// The signature of a program with this content.
    pub fn signed(signer: &Ed25519KeyPair, name: &str, program: &[u8]) -> String {
        let (sha256, _) = sha256_of(program).expect("in memory");
        let text = Release::of_name(name).expect(name).signed_text(&sha256);
        BASE64_STANDARD.encode(signer.sign(text.as_bytes()))
    }

    #[test]
    fn only_the_operators_word_for_these_bytes_counts() {
        let (own, foreign) = (signer(1), signer(2));
        let key = public_key(&own);
        let name = "hawkeye-agent-1.2.3-x86_64";
        let verify = |name: &str, program: &[u8], signature: &str| {
            let (sha256, _) = sha256_of(program).expect("in memory");
            key.verify(&Release::of_name(name).expect(name), &sha256, signature)
        };
        let signature = signed(&own, name, b"program");
        assert_eq!(verify(name, b"program", &signature), Ok(()));
        assert_eq!(verify(name, b"program", &format!("{signature}\n")), Ok(()));
        let check = |name: &str, program: &[u8], signature: &str| {
            assert!(verify(name, program, signature).is_err(), "{name} {program:?} {signature}");
        };
        check(name, b"Program", &signature);
        check(name, b"", &signature);
        check("hawkeye-agent-1.2.4-x86_64", b"program", &signature);
        check("hawkeye-agent-1.2.3-aarch64", b"program", &signature);
        check(name, b"program", &signed(&foreign, name, b"program"));
        check(name, b"program", "");
        check(name, b"program", "no base64");
        check(name, b"program", &signature[4..]);
    }

    #[test]
    fn keys_are_read_strictly() {
        let text = public_key(&signer(1)).to_string();
        assert_eq!(text.parse::<PublicKey>().expect("its own text").to_string(), text);
        for text in
            ["", "abc", "AAAA", &text[..40], &format!("{text}A"), "********************************************"]
        {
            assert!(text.parse::<PublicKey>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn digests_are_those_of_sha256sum() {
        let check = |bytes: &[u8], expected: (&str, u64)| {
            let (text, count) = sha256_of(bytes).expect("in memory");
            assert_eq!((text.as_str(), count), expected);
        };
        check(b"", ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0));
        check(b"abc", ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3));
    }
}
