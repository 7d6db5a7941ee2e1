//! Secret: a text that no log, error or debug output repeats.

use serde::Deserialize;
use std::fmt;

/// A secret; "" is none.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// A secret that was read from somewhere else than a configuration.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for whoever sends or compares it.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// What keeps the text from being a token, in words that do not repeat it; none for a good one.
    pub fn fault_as_token(&self) -> Option<String> {
        let count = self.0.chars().count();
        if self.0.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Some("has a blank or a control character: give a word without".to_string());
        }
        (count < TOKEN_CHARACTERS_MIN).then(|| {
            format!("has {count} characters: give at least {TOKEN_CHARACTERS_MIN}, like `openssl rand -hex 16` prints")
        })
    }
}

/// Characters of a token at least: nobody tries 16 of them through, at any rate.
const TOKEN_CHARACTERS_MIN: usize = 16;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_none() { "none" } else { "…" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_shows_it() {
        let secret = Secret::new("abcdefghijklmnop");
        assert_eq!((format!("{secret:?}"), format!("{:?}", Secret::default())), ("…".into(), "none".into()));
        assert_eq!(secret.fault_as_token(), None);
        for bad in ["short", "with a blank in it, and long", "newline-at-the-end\n"] {
            let fault = Secret::new(bad).fault_as_token().expect(bad);
            assert!(fault.contains("give ") && !fault.contains(bad), "{fault}");
        }
    }
}
