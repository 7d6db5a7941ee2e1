//! Docs: what each route is for, in one table per subject, from which `openapi.json` and docs/api.md are made.
//!
//! Why: a page with a private API keeps users from what it can do; a document beside the code is wrong within a month.
//! How: a [`Doc`] has the fields that the route reads and an example. Tests (`tests/docs.rs`) run each example, and
//! compare the fields that the handler asked for with those that are told; another one runs the lines of docs/api.md
//! with curl against a server.
//! Invariants: each route under `/api/v1` has one row; the rows of a subject stand in the order in which their examples
//! work, behind those of `SETUP`.

mod alarms;
mod hosts;
mod jobs;
#[cfg(test)]
mod markdown;
pub mod openapi;
mod people;
mod probes;
mod rules;
mod series;

/// A route, as its users are told of it.
#[derive(Clone, Copy, Debug)]
pub struct Doc {
    /// Method and path, as the router has them.
    pub line: &'static str,
    pub text: &'static str,
    pub access: Access,
    pub fields: &'static [Field],
    /// Whether `page`, `limit` and `sort` choose a part of the answer.
    pub is_list: bool,
    pub example: Example,
    /// The answer to the example, or the begin of it.
    pub answer: &'static str,
}

/// Callers of a route; who may change what others made is in docs/compat.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Anybody,
    User,
    Admin,
}

/// A field of the query or of the body.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    pub is_required: bool,
    pub text: &'static str,
}

/// Kinds of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Int,
    Number,
    /// 0 or 1, false or true.
    Flag,
    Texts,
    Ints,
    Object,
}

/// A request that works on the site of `SETUP`.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// Path and query; "" is the path of the route.
    pub path: &'static str,
    /// JSON; "" is no body.
    pub body: &'static str,
    /// Whether the answer goes on for ever.
    pub is_stream: bool,
}

/// Subjects in the order of the document, each with its rows.
pub const SUBJECTS: [(&str, &[Doc]); 10] = [
    ("Users and sessions", people::USERS),
    ("Tokens and the record of changes", people::TOKENS),
    ("Teams", people::TEAMS),
    ("Templates, strategies, expressions", rules::DOCS),
    ("Hosts, groups, aggregators, nodata", hosts::DOCS),
    ("Probes", probes::DOCS),
    ("Jobs", jobs::DOCS),
    ("Series and charts", series::DOCS),
    ("Alarms", alarms::DOCS),
    ("Logging out", people::LOGOUT),
];

/// Requests that make the things that the examples delete; each is the first of its kind.
#[cfg(test)]
pub const SETUP: &[(&str, &str)] = &[
    ("POST /user/create", r#"{"name":"bob","password":"bob-secret","cnname":"Bob","email":"bob@example.com"}"#),
    ("POST /token", r#"{"name":"old","scopes":["read"]}"#),
    ("POST /team", r#"{"team_name":"old","users":[2]}"#),
    ("POST /template", r#"{"name":"old"}"#),
    (
        "POST /strategy",
        r#"{"tpl_id":1,"metric":"old","func":"all(#3)","op":">","right_value":"1","max_step":3,"priority":4}"#,
    ),
    ("POST /exception", r#"{"strategy_id":1,"kind":"host","target":"old-01","pause":1}"#),
    (
        "POST /expression",
        r#"{"expression":"each(metric=old srv=x)","func":"all(#3)","op":">","right_value":"1","max_step":3,"priority":4,"action":{"uic":["old"]}}"#,
    ),
    ("POST /hostgroup", r#"{"name":"old"}"#),
    ("POST /hostgroup/host", r#"{"hostgroup_id":1,"hosts":["old-01","old-02"]}"#),
    ("POST /plugin", r#"{"hostgroup_id":1,"dir_path":"old"}"#),
    (
        "POST /aggregator",
        r##"{"hostgroup_id":1,"numerator":"$(qps)","denominator":"$#","endpoint":"old","metric":"qps.avg","step":60}"##,
    ),
    (
        "POST /nodata/",
        r#"{"name":"old","obj":"old-01","obj_type":"host","metric":"agent.alive","dstype":"GAUGE","step":60,"mock":-1}"#,
    ),
    ("POST /probe", r#"{"name":"old","kind":"icmp","target":"10.0.0.1","pause":1}"#),
    ("POST /job", r#"{"name":"old","period":86400,"grace":3600}"#),
    ("POST /dashboard/screen", r#"{"name":"old"}"#),
    ("POST /dashboard/graph", r#"{"screen_id":1,"title":"old","endpoints":["web-01"],"counters":["cpu.idle"]}"#),
];

/// Fields that lists have.
pub const LIST_FIELDS: [Field; 3] = [
    may("page", Kind::Int, "page from 1 on; needs `limit`"),
    may("limit", Kind::Int, "rows of a page"),
    may("sort", Kind::Text, "a field of the rows, `-` in front for the reverse"),
];

/// Whether the route `line` reads a field of this name, whose case does not matter.
pub fn reads(line: &str, name: &str) -> bool {
    let doc = SUBJECTS.iter().flat_map(|(_, docs)| docs.iter()).find(|doc| doc.line == line);
    let name = name.strip_suffix("[]").unwrap_or(name);
    doc.is_some_and(|doc| doc.all_fields().any(|field| field.name.eq_ignore_ascii_case(name)))
}

/// All rows.
#[cfg(test)]
pub fn all() -> impl Iterator<Item = &'static Doc> {
    SUBJECTS.iter().flat_map(|(_, docs)| docs.iter())
}

const fn doc(line: &'static str, text: &'static str) -> Doc {
    let example = Example { path: "", body: "", is_stream: false };
    Doc { line, text, access: Access::User, fields: &[], is_list: false, example, answer: "" }
}

const fn need(name: &'static str, kind: Kind, text: &'static str) -> Field {
    Field { name, kind, is_required: true, text }
}

const fn may(name: &'static str, kind: Kind, text: &'static str) -> Field {
    Field { name, kind, is_required: false, text }
}

impl Doc {
    const fn open(self) -> Doc {
        Doc { access: Access::Anybody, ..self }
    }

    const fn admin(self) -> Doc {
        Doc { access: Access::Admin, ..self }
    }

    const fn list(self) -> Doc {
        Doc { is_list: true, ..self }
    }

    const fn stream(self) -> Doc {
        Doc { example: Example { is_stream: true, ..self.example }, ..self }
    }

    const fn fields(self, fields: &'static [Field]) -> Doc {
        Doc { fields, ..self }
    }

    /// Path and query of the example.
    const fn at(self, path: &'static str) -> Doc {
        Doc { example: Example { path, ..self.example }, ..self }
    }

    const fn body(self, body: &'static str) -> Doc {
        Doc { example: Example { body, ..self.example }, ..self }
    }

    const fn answer(self, answer: &'static str) -> Doc {
        Doc { answer, ..self }
    }

    /// The method.
    pub fn method(&self) -> &'static str {
        self.line.split_once(' ').map_or("", |(method, _)| method)
    }

    /// The path with its parameters.
    pub fn path(&self) -> &'static str {
        self.line.split_once(' ').map_or("", |(_, path)| path)
    }

    /// Path and query of the example.
    pub fn example_path(&self) -> &'static str {
        if self.example.path.is_empty() { self.path() } else { self.example.path }
    }

    /// All fields, with those of lists.
    pub fn all_fields(&self) -> impl Iterator<Item = &Field> {
        let of_list: &'static [Field] = if self.is_list { &LIST_FIELDS } else { &[] };
        self.fields.iter().chain(of_list)
    }
}
