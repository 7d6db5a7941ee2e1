//! Passwords: how they are hashed, checked and carried over from an Open-Falcon database.
//!
//! Why: the original keeps `md5hex(salt + password)` with an empty salt by default. Here a password is kept as bcrypt;
//! a row of an old installation still lets its user in, and is rewritten by that login.
//! How: bcrypt costs tens of milliseconds of CPU on purpose, so it runs on a blocking thread, at most
//! [`HASHES_AT_ONCE`] at a time: a flood of logins cannot take the processors from ingest and judging.
//! Invariants: a password never reaches a log or an error text; nothing is cut to fit bcrypt's 71 bytes, it is refused.

use anyhow::{Context, Result, bail};
use md5::{Digest, Md5};
use rand::TryRng;
use rand::rngs::SysRng;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;

/// The most bytes of a password: bcrypt takes 72 into account, the end mark included, and would cut a longer one
/// silently.
pub const PASSWORD_MAX: usize = 71;
/// bcrypt's cost: 2^10 rounds, about 50 ms of one core; the least that OWASP recommends. Tests use the cheapest.
const COST: u32 = if cfg!(test) { 4 } else { 10 };
/// Passwords hashed at a time: leaves at least half of a two-core machine to ingest; a guess.
const HASHES_AT_ONCE: usize = 1;

static TURNS: Semaphore = Semaphore::const_new(HASHES_AT_ONCE);

/// Result of comparing a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// Right, but the row holds the original's md5: the caller should store a new [`hash`].
    RightAndOld,
    Wrong,
}

/// The text for the column `user.passwd` (60 characters of its 64).
pub async fn hash(password: &str) -> Result<String> {
    if password.len() > PASSWORD_MAX {
        bail!("password is longer than {PASSWORD_MAX} bytes: choose a shorter one");
    }
    let password = password.to_string();
    let _turn = TURNS.acquire().await.context("never closed")?;
    tokio::task::spawn_blocking(move || bcrypt::non_truncating_hash(password, COST))
        .await
        .context("hashing a password")?
        .context("cannot hash the password")
}

/// Compares `password` with the column's text; `salt` is what an old installation had in its `salt` setting.
pub async fn verify(password: &str, stored: &str, salt: &str) -> Result<Verdict> {
    if is_md5(stored) {
        // Compared in constant time: how long the answer takes says nothing about the stored digest.
        let right = md5_hex(&[salt, password]).as_bytes().ct_eq(stored.to_ascii_lowercase().as_bytes());
        return Ok(if right.into() { Verdict::RightAndOld } else { Verdict::Wrong });
    }
    // A row without any password (an empty column) ends here too, and matches nothing.
    if password.len() > PASSWORD_MAX || !stored.starts_with("$2") {
        return Ok(Verdict::Wrong);
    }
    let (password, stored) = (password.to_string(), stored.to_string());
    let _turn = TURNS.acquire().await.context("never closed")?;
    let right = tokio::task::spawn_blocking(move || bcrypt::non_truncating_verify(password, &stored))
        .await
        .context("checking a password")?;
    // An unreadable hash matches nothing; it must not turn every login of that user into a server error.
    Ok(if right.unwrap_or(false) { Verdict::Right } else { Verdict::Wrong })
}

/// 24 letters and digits from the operating system: 140 bits, and no characters that look alike.
pub fn random_password() -> Result<String> {
    const LETTERS: &[u8; 57] = b"23456789abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ";
    let mut password = String::with_capacity(24);
    while password.len() < 24 {
        // 57 × 4 = 228: bytes above would make the first letters likelier than the others.
        let byte = random_bytes::<1>()?[0];
        if byte < 228 {
            password.push(char::from(LETTERS[usize::from(byte % 57)]));
        }
    }
    Ok(password)
}

/// A session's secret: 32 hex digits from the operating system. The original's was a UUIDv1, made of clock and MAC
/// address.
pub fn random_sig() -> Result<String> {
    Ok(hex::encode(random_bytes::<16>()?))
}

fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).context("the operating system gives no random numbers")?;
    Ok(bytes)
}

fn is_md5(stored: &str) -> bool {
    stored.len() == 32 && stored.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// MD5 of texts one after the other, as 32 hexadecimal digits.
pub(super) fn md5_hex(parts: &[&str]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    hex::encode(md5.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_hash_matches_its_password_only() -> Result<()> {
        let stored = hash("secret").await?;
        assert!(stored.len() <= 64, "must fit the column: {stored}");
        assert_eq!(verify("secret", &stored, "").await?, Verdict::Right);
        assert_eq!(verify("Secret", &stored, "").await?, Verdict::Wrong);
        assert_eq!(verify("", &stored, "").await?, Verdict::Wrong);
        assert_ne!(stored, hash("secret").await?, "two hashes of one password have different salts");
        Ok(())
    }

    #[tokio::test]
    async fn old_rows_match() -> Result<()> {
        // md5("secret") and md5("saltsecret")
        let plain = "5ebe2294ecd0e0f08eab7690d2a6ee69";
        assert_eq!(verify("secret", plain, "").await?, Verdict::RightAndOld);
        assert_eq!(verify("secret", plain, "salt").await?, Verdict::Wrong);
        assert_eq!(verify("secret", &md5_hex(&["salt", "secret"]), "salt").await?, Verdict::RightAndOld);
        assert_eq!(verify("other", plain, "").await?, Verdict::Wrong);
        Ok(())
    }

    #[tokio::test]
    async fn odd_rows_match_nothing() -> Result<()> {
        for stored in ["", "secret", "$2b$04$broken", "$2"] {
            assert_eq!(verify(stored, stored, "").await?, Verdict::Wrong, "{stored:?}");
        }
        let long = "x".repeat(PASSWORD_MAX + 1);
        assert!(hash(&long).await.is_err());
        assert_eq!(verify(&long, &hash(&long[1..]).await?, "").await?, Verdict::Wrong);
        Ok(())
    }

    #[test]
    fn random_texts_have_their_form() -> Result<()> {
        let (a, b) = (random_password()?, random_password()?);
        assert_eq!(a.len(), 24);
        assert!(a.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{a}");
        assert_ne!(a, b);
        let sig = random_sig()?;
        assert!(is_md5(&sig), "{sig}");
        Ok(())
    }
}
