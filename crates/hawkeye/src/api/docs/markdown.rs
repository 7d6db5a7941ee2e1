//! Markdown: docs/api.md, made of the table of routes.

use super::{Access, Doc, Field, SETUP, SUBJECTS};
use std::fmt::Write;

/// What stands before the routes.
const HEAD: &str = r#"# API

All routes of `listen.api` under `/api/v1`: Open-Falcon's 104, and Hawkeye's own. This file is made of the table in
`crates/hawkeye/src/api/docs/`; a test compares the two, and another one runs each line below against a server. The same as OpenAPI:
`GET /api/v1/openapi.json`. What differs from the original is in [compat.md](compat.md#different-on-purpose), who may change what in
[Who may change what](compat.md#who-may-change-what).

**Who asks** is said by one of: `Apitoken: {"name":"root","sig":"…"}`, which is what a login answers, or with a
[token](#tokens-and-the-record-of-changes) as the `sig`; `Authorization: Bearer hk_…`; or a token as the password of `Authorization: Basic`, with the name of
its user. A flag is 0 or 1, or false or true. **Fields** come from the query (GET), or from the body: JSON, or a
form. **Lists** take `page` with `limit`, and `sort`: a field of the rows, with `-` in front for the reverse. **Bodies** have at most 1 MiB.

**Answers** are JSON. Errors are `{"error":"…"}`, with the field and what to give:

| status | reason |
| --- | --- |
| 400 | a field is wrong, or the caller may not do this |
| 401 | no valid session or token |
| 403 | the token is not for this (its scopes) |
| 404 | no such route |
| 408, 413 | the body came too slowly, or is too long |
| 417 | refused, as the original does: a name that exists, a row that does not |
| 429 | too many wrong passwords |
| 500 | a mistake of the server's: its log says more |
| 503 | the portal is busy, its disk full, or too much is asked at once: try again |

## A site to try it on

A server that was started once and nothing else: the lines make and delete what has small ids, so do not run them against a site in use.
Series and alarms are there once something reports. `api` asks with a session of root's, whose password here is `root-secret` (`hawkeye passwd root`):

```sh
url=${url:-http://127.0.0.1:8080/api/v1}
login=$(curl -sf -d 'name=root&password=root-secret' $url/user/login)
api() { curl -sSf -w '\n' -X "$1" -H "Apitoken: $login" "$url$2" "${@:3}"; }
```

"#;

/// The whole document.
pub fn document() -> String {
    let mut text = HEAD.to_string();
    text += "Things that the examples below delete:\n\n```sh\n";
    for (line, body) in SETUP {
        let (method, path) = line.split_once(' ').unwrap_or_default();
        text += &curl(method, path, body, false);
    }
    text += "```\n";
    for (subject, docs) in SUBJECTS {
        let _ = write!(text, "\n## {subject}\n");
        for doc in docs {
            route(&mut text, doc);
        }
    }
    text
}

fn route(text: &mut String, doc: &Doc) {
    let access = match doc.access {
        Access::Anybody => " Anybody.",
        Access::User => "",
        Access::Admin => " Administrators.",
    };
    let _ = write!(text, "\n### {}\n\n{}{access}\n\n", doc.line, doc.text);
    let fields: Vec<&Field> = doc.fields.iter().collect();
    if !fields.is_empty() {
        text.push_str("| field | kind | |\n| --- | --- | --- |\n");
        for field in fields {
            let needed = if field.is_required { ", required" } else { "" };
            let kind = format!("{:?}", field.kind).to_lowercase();
            let _ = writeln!(text, "| `{}` | {kind}{needed} | {} |", field.name, field.text.replace('|', "\\|"));
        }
        text.push('\n');
    }
    if doc.is_list {
        text.push_str("A list: `page`, `limit`, `sort`.\n\n");
    }
    let line = curl(doc.method(), doc.example_path(), doc.example.body, doc.example.is_stream);
    let _ = write!(text, "```sh\n{line}```\n");
    if !doc.answer.is_empty() {
        let _ = write!(text, "\n```json\n{}\n```\n", doc.answer);
    }
}

fn curl(method: &str, path: &str, body: &str, is_stream: bool) -> String {
    let mut line = format!("api {method} '{path}'");
    if !body.is_empty() {
        let _ = write!(line, " -H 'Content-Type: application/json' -d '{body}'");
    }
    if is_stream {
        line.push_str(" -N --max-time 2 || test $? = 28");
    }
    line + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `UPDATE=1` the file is written.
    #[test]
    fn the_file_is_what_the_code_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md");
        let document = document();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &document).expect("the file can be written");
        }
        let file = std::fs::read_to_string(path).expect("docs/api.md is there");
        assert!(file == document, "docs/api.md is older than the code: UPDATE=1 cargo test -p hawkeye -- docs");
    }

    #[test]
    fn no_body_ends_its_quotes() {
        let bodies = super::super::all().map(|doc| doc.example.body).chain(SETUP.iter().map(|(_, body)| *body));
        assert!(bodies.into_iter().all(|body| !body.contains('\'')));
    }
}
