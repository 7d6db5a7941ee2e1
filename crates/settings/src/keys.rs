//! Keys: a configuration of a few keys, which the tests of this crate read.

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Keys {
    pub a: i64,
    pub text: String,
    pub list: Vec<i64>,
    pub tags: BTreeMap<String, String>,
    pub b: Section,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Section {
    pub c: u16,
    pub d: bool,
}
