//! Paging and the `q` regular expression of lists.
//!
//! Compat: `page` without `limit` is refused, `limit` without `page` means nothing, both must be positive. `q` is
//! searched without case (the collation of the original's columns); a `q` that does not compile finds nothing, with
//! 200.
//! Memory: a compiled expression is bounded by [`REGEX_BYTES`]; the crate's matching time is linear, so no text of a
//! user can hold a processor, as it can in MySQL's REGEXP.

use super::body::{Fields, parse_int};
use super::error::ApiError;
use regex::{Regex, RegexBuilder};

/// Bytes of a compiled expression; the crate's default is 10 MiB, and `q` is a few words.
const REGEX_BYTES: usize = 1 << 20;

/// A part of a list; the whole list without `limit`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paging {
    pub offset: usize,
    pub limit: Option<usize>,
}

/// The names that the field `q` finds.
pub enum Search {
    Everything,
    Regex(Regex),
    Nothing,
}

impl Paging {
    /// Reads `page` and `limit`; errors have the original's texts.
    pub fn of(fields: &Fields) -> Result<Paging, ApiError> {
        let number = |name| match fields {
            Fields::Json(_) if !fields.has(name) => Ok::<_, ApiError>(None),
            Fields::Json(_) => fields.int(name).map(Some),
            Fields::Form(_) => match fields.text(name, 20)? {
                text if text.is_empty() => Ok(None),
                text => parse_int(name, &text).map(Some),
            },
        };
        match (number("page")?, number("limit")?) {
            (None, _) => Ok(Paging { offset: 0, limit: None }),
            (Some(_), None) => Err(ApiError::bad("You set page but skip limit params, please check your input")),
            (Some(page), Some(limit)) if page > 0 && limit > 0 => {
                let (page, limit) = (page as usize, limit as usize);
                Ok(Paging { offset: (page - 1).saturating_mul(limit), limit: Some(limit) })
            }
            _ => Err(ApiError::bad("limit or page can not set to 0 or less than 0")),
        }
    }

    /// Keeps the part of `list` that is asked for.
    pub fn cut<T>(self, list: impl Iterator<Item = T>) -> Vec<T> {
        list.skip(self.offset).take(self.limit.unwrap_or(usize::MAX)).collect()
    }
}

impl Search {
    /// Reads `q`.
    pub fn of(fields: &Fields) -> Result<Search, ApiError> {
        // A thousand characters hold a list of fifty host names joined by `|`.
        Ok(Search::new(&fields.text("q", 1000)?))
    }

    /// A search by a regular expression without case; one that cannot be read finds nothing.
    pub fn new(pattern: &str) -> Search {
        if pattern.is_empty() || pattern == ".+" {
            return Search::Everything;
        }
        match RegexBuilder::new(pattern).case_insensitive(true).size_limit(REGEX_BYTES).build() {
            Ok(regex) => Search::Regex(regex),
            Err(_) => Search::Nothing,
        }
    }

    /// Whether a name is found.
    pub fn finds(&self, text: &str) -> bool {
        match self {
            Search::Everything => true,
            Search::Regex(regex) => regex.is_match(text),
            Search::Nothing => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::body::parse_form;

    fn page(query: &str) -> Result<Paging, ApiError> {
        Paging::of(&Fields::Form(parse_form(query.as_bytes())))
    }

    #[test]
    fn pages() {
        let check = |query: &str, expected: &[u32]| {
            let list = page(query).expect(query).cut([1, 2, 3, 4, 5].into_iter());
            assert_eq!(list, expected, "{query}");
        };
        check("", &[1, 2, 3, 4, 5]);
        check("limit=2", &[1, 2, 3, 4, 5]);
        check("page=1&limit=2", &[1, 2]);
        check("page=3&limit=2", &[5]);
        check("page=9223372036854775807&limit=9223372036854775807", &[]);
        for wrong in ["page=2", "page=0&limit=1", "page=1&limit=-1", "page=x&limit=1"] {
            assert!(page(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn searches() {
        let check = |pattern: &str, text: &str, found: bool| {
            assert_eq!(Search::new(pattern).finds(text), found, "{pattern:?} in {text:?}");
        };
        check("", "any", true);
        check("^WEB", "web-01", true);
        check("0[12]$", "web-02", true);
        check("db", "web-01", false);
        check("(", "(", false);
        check(&"(a{1000}){1000}".repeat(3), "a", false);
    }
}
