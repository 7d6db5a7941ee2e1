//! Paging, the order, and the `q` regular expression of lists.
//!
//! How: `sort` names a field of the rows (of a sample of them, so that it is refused in an empty list, too), or of an
//! object within them, as `-tpl_name` does for the reverse; rows that are alike there stay in their own order. Each row
//! is made JSON for a moment, to find that field.
//! Compat: `page` without `limit` is refused, `limit` without `page` means nothing, both must be positive. `q` is
//! searched without case (the collation of the original's columns); a `q` that does not compile finds nothing, with
//! 200.
//! Memory: a compiled expression is bounded by [`REGEX_BYTES`]; the crate's matching time is linear, so no text of a
//! user can hold a processor, as it can in MySQL's REGEXP.

use super::body::{Fields, parse_int};
use super::error::ApiError;
use regex::{Regex, RegexBuilder};
use serde::Serialize;
use serde_json::{Map, Value};
use std::cmp::Ordering;

/// Bytes of a compiled expression; the crate's default is 10 MiB, and `q` is a few words.
const REGEX_BYTES: usize = 1 << 20;

/// Characters of the longest name in `sort`, with room.
const SORT_MAX: usize = 64;

/// A part of a list; the whole list without `limit`.
#[derive(Clone, Debug, PartialEq)]
pub struct Paging {
    pub offset: usize,
    pub limit: Option<usize>,
    pub sort: Option<Sort>,
}

/// An order of a list, by a field of its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Sort {
    pub field: String,
    pub is_reverse: bool,
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
        let sort = Sort::of(fields)?;
        match (number("page")?, number("limit")?) {
            (None, _) => Ok(Paging { offset: 0, limit: None, sort }),
            (Some(_), None) => Err(ApiError::bad("You set page but skip limit params, please check your input")),
            (Some(page), Some(limit)) if page > 0 && limit > 0 => {
                let (page, limit) = (page as usize, limit as usize);
                Ok(Paging { offset: (page - 1).saturating_mul(limit), limit: Some(limit), sort })
            }
            _ => Err(ApiError::bad("limit or page can not set to 0 or less than 0")),
        }
    }

    /// As [`Paging::of`] for lists that are Hawkeye's own: `limit` without `page` is the first page.
    pub fn from_first(fields: &Fields) -> Result<Paging, ApiError> {
        let Fields::Form(pairs) = fields else { return Paging::of(fields) };
        let mut pairs = pairs.clone();
        // In front, where the first of a name counts.
        if fields.has("limit") && fields.text("page", usize::MAX)?.is_empty() {
            pairs.insert(0, ("page".to_string(), "1".to_string()));
        }
        Paging::of(&Fields::Form(pairs))
    }

    /// Keeps the part of `list` that is asked for, in the order that it has.
    pub fn cut<T>(&self, list: impl Iterator<Item = T>) -> Vec<T> {
        list.skip(self.offset).take(self.limit.unwrap_or(usize::MAX)).collect()
    }

    /// Whether a list that goes by the time in `field`, newest first, is to be the other way round.
    pub fn oldest_first(&self, field: &str) -> Result<bool, ApiError> {
        match &self.sort {
            None => Ok(false),
            Some(sort) if sort.field == field => Ok(!sort.is_reverse),
            Some(_) => Err(ApiError::bad(format!("sort: give {field}, or -{field} for the newest first"))),
        }
    }

    /// Keeps the part of `list` that is asked for, in the order that is asked for.
    pub fn rows<T: Serialize + Default>(&self, list: impl Iterator<Item = T>) -> Result<Vec<T>, ApiError> {
        self.rows_like(&T::default(), list)
    }

    /// As [`Paging::rows`], of rows that have the fields of `sample`, by which an order is refused that they do not
    /// have, also where the list is empty.
    pub fn rows_like<T: Serialize>(
        &self,
        sample: &impl Serialize,
        list: impl Iterator<Item = T>,
    ) -> Result<Vec<T>, ApiError> {
        match &self.sort {
            None => Ok(self.cut(list)),
            Some(sort) => Ok(self.cut(sort.sorted_like(sample, list)?.into_iter())),
        }
    }
}

impl Sort {
    /// Reads `sort`; None when it is not there.
    pub fn of(fields: &Fields) -> Result<Option<Sort>, ApiError> {
        let text = fields.text("sort", SORT_MAX)?;
        let (field, is_reverse) = text.strip_prefix('-').map_or((text.as_str(), false), |field| (field, true));
        Ok((!field.is_empty()).then(|| Sort { field: field.to_string(), is_reverse }))
    }

    /// Puts `list` into this order, if rows like `sample` have it.
    pub fn sorted_like<T: Serialize>(
        &self,
        sample: &impl Serialize,
        list: impl Iterator<Item = T>,
    ) -> Result<Vec<T>, ApiError> {
        self.value_in(sample)?;
        let mut rows = Vec::new();
        for row in list {
            rows.push((self.value_in(&row)?, row));
        }
        rows.sort_by(|(a, _), (b, _)| if self.is_reverse { compare(b, a) } else { compare(a, b) });
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    fn value_in(&self, row: &impl Serialize) -> Result<Value, ApiError> {
        let Ok(Value::Object(mut row)) = serde_json::to_value(row) else {
            return Err(ApiError::bad("sort: the rows of this list have no fields: leave it out"));
        };
        if let Some(value) = row.remove(&self.field) {
            return Ok(value);
        }
        let within = row.values_mut().find_map(|value| value.as_object_mut()?.remove(&self.field));
        within.ok_or_else(|| self.unknown(&row))
    }

    fn unknown(&self, row: &Map<String, Value>) -> ApiError {
        let within = row.values().filter_map(Value::as_object).flat_map(Map::keys);
        let plain = row.iter().filter(|(_, value)| !value.is_object() && !value.is_array()).map(|(key, _)| key);
        let names: Vec<&str> = plain.chain(within).map(String::as_str).collect();
        ApiError::bad(format!("sort is {:?}: give {}, with - in front for the reverse", self.field, names.join(", ")))
    }
}

/// Numbers by their size, texts without case first. What has no value comes before all that has one; lists and objects
/// stay where they are.
fn compare(a: &Value, b: &Value) -> Ordering {
    let kind = |value: &Value| match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) | Value::Object(_) => 4,
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        (Value::String(a), Value::String(b)) => a.to_lowercase().cmp(&b.to_lowercase()).then_with(|| a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => kind(a).cmp(&kind(b)),
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
    fn orders() {
        let rows = || {
            let row = |name: &str, id: i64| serde_json::json!({ "id": id, "inner": { "name": name }, "list": [1] });
            [row("b", 1), row("A", 2), row("c", 10)].into_iter()
        };
        let sample = rows().next().expect("a row");
        let check = |query: &str, expected: &[i64]| {
            let rows = page(query).and_then(|page| page.rows_like(&sample, rows())).expect(query);
            assert_eq!(rows.iter().map(|row| row["id"].as_i64().expect("a number")).collect::<Vec<_>>(), expected);
        };
        check("", &[1, 2, 10]);
        check("sort=-id", &[10, 2, 1]);
        check("sort=name", &[2, 1, 10]);
        check("sort=-name&page=2&limit=2", &[2]);
        for list in [rows().collect(), Vec::new()] {
            let error = page("sort=colour").and_then(|page| page.rows_like(&sample, list.into_iter()));
            let error = error.expect_err("no such field");
            assert_eq!(error.text(), "sort is \"colour\": give id, name, with - in front for the reverse");
        }
    }

    #[test]
    fn what_has_no_value_comes_first() {
        let row = |id: i64, at: serde_json::Value| serde_json::json!({ "id": id, "at": at });
        let rows = || [row(1, 5.into()), row(2, ().into()), row(3, 3.into()), row(4, ().into())].into_iter();
        let ids = |query: &str| {
            let rows = page(query).and_then(|page| page.rows_like(&row(0, 0.into()), rows())).expect(query);
            rows.iter().map(|row| row["id"].as_i64().expect("a number")).collect::<Vec<_>>()
        };
        assert_eq!((ids("sort=at"), ids("sort=-at")), (vec![2, 4, 3, 1], vec![1, 3, 2, 4]));
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
