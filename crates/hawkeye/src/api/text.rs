//! Texts: what a field of one line is like before it is saved.
//!
//! Why: a blank behind a team's name, the line end of a list that was typed on Windows, or a character that nobody sees
//! makes a text that equals no other, and so never finds its host, team or metric.
//! How: white space at the ends is taken away, everywhere. A character inside that does not show, that changes the
//! order in which others are shown, or that a form's bytes in another encoding became, is refused by name.
//! Invariants: a saved text of one line shows all that it has.

use super::body::{Fields, check_length};
use super::error::ApiError;
use stdx::{is_direction, is_hidden};

impl Fields {
    /// A text of one line of at most `max` characters, without white space at its ends; "" when absent.
    pub fn line(&self, name: &str, max: usize) -> Result<String, ApiError> {
        line(name, &self.text(name, usize::MAX)?, max)
    }

    /// A text as by [`Fields::line`], but not an empty one.
    pub fn required_line(&self, name: &str, max: usize) -> Result<String, ApiError> {
        let text = self.line(name, max)?;
        if text.is_empty() {
            return Err(ApiError::bad(format!("{name} is required")));
        }
        Ok(text)
    }

    /// A list of texts as by [`Fields::line`], none of them empty. None when absent.
    pub fn lines(&self, name: &str, max: usize) -> Result<Option<Vec<String>>, ApiError> {
        let Some(texts) = self.texts(name, usize::MAX)? else { return Ok(None) };
        let one = |(index, text): (usize, &String)| {
            let name = format!("{name}[{index}]");
            match line(&name, text, max)? {
                text if text.is_empty() => Err(ApiError::bad(format!("{name} is empty"))),
                text => Ok(text),
            }
        };
        texts.iter().enumerate().map(one).collect::<Result<_, _>>().map(Some)
    }

    /// Receivers, joined by commas as Open-Falcon's sites write several into one field, of at most `max` characters.
    /// Each must be what `is_one` takes; `example` shows one.
    pub fn receivers(
        &self,
        name: &str,
        max: usize,
        is_one: impl Fn(&str) -> bool,
        example: &str,
    ) -> Result<String, ApiError> {
        let text = self.line(name, max)?;
        let all: Vec<&str> = text.split(',').map(str::trim).filter(|one| !one.is_empty()).collect();
        if let Some(wrong) = all.iter().find(|one| !is_one(one)) {
            return Err(ApiError::bad(format!(
                "{name}: {wrong:?} is not like {example}; several are joined by commas"
            )));
        }
        Ok(all.join(","))
    }
}

/// The text of the field `name` without white space at its ends, if it is one of one line.
pub fn line(name: &str, text: &str, max: usize) -> Result<String, ApiError> {
    // Windows' line ends, and the mark with which its editors begin a file, are at the ends.
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    check_visible(name, text)?;
    check_length(name, text, max)?;
    Ok(text.to_string())
}

/// Refuses a text with a character that does not show, or not where it stands.
pub fn check_visible(name: &str, text: &str) -> Result<(), ApiError> {
    let mut before = ' ';
    let hidden = text.chars().enumerate().find(|(_, c)| {
        let previous = std::mem::replace(&mut before, *c);
        is_hidden(*c) && !is_emoji_variant(previous, *c)
    });
    let Some((at, c)) = hidden else { return Ok(()) };
    let (what, at) = (describe(c), at + 1);
    Err(ApiError::bad(format!("{name} has {what} as character {at} (U+{:04X}): take it out", u32::from(c))))
}

/// The first of many names, for a text that people read.
pub fn named(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut text = names.iter().take(SHOWN).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

/// Whether `c` chooses between the two looks of the symbol before it, as in ⚠️.
fn is_emoji_variant(before: char, c: char) -> bool {
    matches!(c, '\u{fe0e}' | '\u{fe0f}') && !before.is_ascii() && !before.is_alphanumeric() && !is_hidden(before)
}

fn describe(c: char) -> &'static str {
    match c {
        '\n' | '\r' | '\u{2028}' | '\u{2029}' => "a line break",
        '\t' => "a tab",
        '\u{fffd}' => "something that was no UTF-8",
        c if is_direction(c) => "a mark that changes the direction of text",
        c if c.is_control() => "a control character",
        _ => "a character that does not show",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::body::parse_form;

    #[test]
    fn white_space_at_the_ends_goes() {
        for text in ["web 01", " web 01", "web 01\r\n", "\u{3000}web 01\u{a0}\t", "\u{feff}web 01"] {
            assert_eq!(line("f", text, 6).ok().as_deref(), Some("web 01"), "{text:?}");
        }
        for text in ["", " ", "\n", "\u{3000}"] {
            assert_eq!(line("f", text, 6).ok().as_deref(), Some(""), "{text:?}");
        }
        assert_eq!(line("f", "می\u{200c}خواهم", 20).ok().as_deref(), Some("می\u{200c}خواهم"));
    }

    #[test]
    fn what_does_not_show_is_named() {
        let check = |text: &str, expected: &str| {
            let error = line("f", text, 20).expect_err(text);
            assert_eq!(error.text(), format!("f has {expected}: take it out"));
        };
        check("a\nb", "a line break as character 2 (U+000A)");
        check("ab\tc", "a tab as character 3 (U+0009)");
        check("王\0b", "a control character as character 2 (U+0000)");
        check("a\u{85}b", "a control character as character 2 (U+0085)");
        check("a\u{202e}b", "a mark that changes the direction of text as character 2 (U+202E)");
        check("a\u{200b}b", "a character that does not show as character 2 (U+200B)");
        for hidden in [
            '\u{ad}',
            '\u{34f}',
            '\u{115f}',
            '\u{1160}',
            '\u{17b4}',
            '\u{180b}',
            '\u{180f}',
            '\u{2060}',
            '\u{206f}',
            '\u{3164}',
            '\u{fe00}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff0}',
            '\u{1bca3}',
            '\u{1d173}',
            '\u{e0001}',
            '\u{e0fff}',
        ] {
            let number = u32::from(hidden);
            check(&format!("a{hidden}b"), &format!("a character that does not show as character 2 (U+{number:04X})"));
        }
        assert_eq!(line("f", "⚠\u{fe0f} full", 20).ok().as_deref(), Some("⚠\u{fe0f} full"));
        check("⚠\u{fe0f}\u{fe0f}", "a character that does not show as character 3 (U+FE0F)");
        let form = Fields::Form(parse_form(b"f=%CD%F5"));
        let error = form.line("f", 20).expect_err("GBK");
        assert!(error.text().contains("something that was no UTF-8"), "{}", error.text());
        let error = line("f", "1234567", 6).expect_err("too long");
        assert_eq!(error.text(), "f is longer than 6 characters");
    }

    #[test]
    fn lists_name_the_element() {
        let fields = |json: serde_json::Value| match json {
            serde_json::Value::Object(map) => Fields::Json(map),
            _ => panic!("an object"),
        };
        let check = |list: serde_json::Value, expected: Result<&[&str], &str>| {
            let got = fields(serde_json::json!({ "l": list })).lines("l", 5);
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got.unwrap_or_default(), expected),
                (Err(error), Err(expected)) => assert!(error.text().starts_with(expected), "{}", error.text()),
                (got, expected) => panic!("{got:?}, want {expected:?}"),
            }
        };
        check(serde_json::json!(["a", " b\r"]), Ok(&["a", "b"]));
        check(serde_json::json!(["a", " \r"]), Err("l[1] is empty"));
        check(serde_json::json!(["a\nb"]), Err("l[0] has a line break"));
        check(serde_json::json!(["a", "123456"]), Err("l[1] is longer than 5"));
    }

    #[test]
    fn receivers_are_a_list() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let fields = Fields::Form(vec![("mail".to_string(), text.to_string())]);
            let got = fields.receivers("mail", 30, |one| one.contains('@'), "a@b");
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(error), Err(expected)) => assert!(error.text().contains(expected), "{}", error.text()),
                (got, expected) => panic!("{got:?}, want {expected:?}"),
            }
        };
        check("two@x,zwei@x", Ok("two@x,zwei@x"));
        check(" two@x , zwei@x, ", Ok("two@x,zwei@x"));
        check("", Ok(""));
        check("two@x,zwei", Err("mail: \"zwei\" is not like a@b"));
    }
}
