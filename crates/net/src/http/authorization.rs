//! Authorization: the secret that a request over HTTP shows, as a token or as the password of a user.
//!
//! Why both: scripts set `Authorization: Bearer`, while old tools know a user and a password only.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The token of `Bearer <token>`, or the password of `Basic <user:password>`, whoever the user is.
pub fn shown_secret(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, rest) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = STANDARD.decode(rest.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_passwords() {
        let check = |value: &str, secret: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().expect("a value"));
            assert_eq!(shown_secret(&headers).as_deref(), secret.map(str::as_bytes), "{value}");
        };
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        check("Basic dXNlcjphOmI=", Some("a:b"));
        check("Basic OmFiYw==", Some("abc"));
        check("Basic dXNlcg==", None);
        check("Basic !", None);
        check("Digest abc", None);
        check("abc", None);
        assert_eq!(shown_secret(&HeaderMap::new()), None);
    }
}
