//! Secrets in the URLs of callbacks, and in URLs and headers of probes: what a file of rules shows of them.
//!
//! How: the password of a URL (`http://user:password@host/`) and the values of parameters and headers whose names speak
//! of secrets (`?token=…`, `Authorization`) are written as `***`. A file that has a URL or a header as it was written
//! means the one that is there.
//! Invariants: a secret that a path, another parameter, a body or an argument hides cannot be known, and is written;
//! docs/as-code.md says so.

use serde_json::{Map, Value};

/// Text that stands for a secret.
const MASK: &str = "***";
/// Parts of the names of parameters that are secrets.
const NAMES: [&str; 8] = ["token", "secret", "passw", "pwd", "key", "sig", "authorization", "credential"];
/// Words of such names, which are parts of others (`author`, `bypass`).
const WORDS: [&str; 3] = ["auth", "pass", "pw"];

/// The URL as files show it.
pub fn masked(url: &str) -> String {
    let (base, query) = url.split_once('?').map_or((url, None), |(base, query)| (base, Some(query)));
    let base = masked_user(base);
    let Some(query) = query else { return base };
    let parameters: Vec<String> = query
        .split('&')
        .map(|parameter| match parameter.split_once('=') {
            Some((name, value)) if !value.is_empty() && is_secret(name) => format!("{name}={MASK}"),
            _ => parameter.to_string(),
        })
        .collect();
    format!("{base}?{}", parameters.join("&"))
}

fn masked_user(base: &str) -> String {
    let Some((scheme, rest)) = base.split_once("://") else { return base.to_string() };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
        Some((user, host)) => format!("{scheme}://{user}:{MASK}@{host}{path}"),
        None => base.to_string(),
    }
}

fn is_secret(name: &str) -> bool {
    let is_word = |word: &str| WORDS.iter().any(|own| word.eq_ignore_ascii_case(own));
    // `user_pass`, `x-auth`, and `basicAuth`.
    let ends = |word: &str| WORDS.iter().any(|own| word.ends_with(&(own[..1].to_ascii_uppercase() + &own[1..])));
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    if words.any(|word| is_word(word) || ends(word)) {
        return true;
    }
    let name = name.to_ascii_lowercase();
    NAMES.iter().any(|part| name.contains(part))
}

/// The URL that the key `url` of a file means by `written`, where the action had `old`. An error where a secret is not
/// known.
pub fn meant(written: &str, old: &str) -> Result<String, String> {
    meant_by("url", written, old)
}

fn meant_by(key: &str, written: &str, old: &str) -> Result<String, String> {
    if !old.is_empty() && written == masked(old) {
        return Ok(old.to_string());
    }
    if written.contains(MASK) && masked(written) == written {
        return Err(format!("{key}: {MASK} stands for a secret that is not known here: write the whole URL once"));
    }
    Ok(written.to_string())
}

/// The value of a header as it is shown.
pub fn masked_header(name: &str, value: &str) -> String {
    let is_shown = value.is_empty() || !is_secret_header(name);
    if is_shown { value.to_string() } else { MASK.to_string() }
}

fn is_secret_header(name: &str) -> bool {
    is_secret(name) || name.to_ascii_lowercase().contains("cookie")
}

/// Masks the secrets in an object of headers.
pub fn mask_headers(headers: &mut Map<String, Value>) {
    for (name, value) in headers {
        if let Value::String(text) = value {
            *text = masked_header(name, text);
        }
    }
}

/// Masks the secrets in the keys of a probe's definition.
pub fn mask_probe(keys: &mut Map<String, Value>) {
    if let Some(Value::String(target)) = keys.get_mut("target") {
        *target = masked(target);
    }
    if let Some(Value::Object(headers)) = keys.get_mut("headers") {
        mask_headers(headers);
    }
}

/// Puts the secrets of the definition `old` where `keys` have them masked. Errors, each with its key, where one is not
/// known.
pub fn unmask_probe(keys: &mut Map<String, Value>, old: &Map<String, Value>) -> Vec<String> {
    let mut faults = Vec::new();
    if let Some(Value::String(target)) = keys.get_mut("target") {
        match meant_by("target", target, old.get("target").and_then(Value::as_str).unwrap_or_default()) {
            Ok(meant) => *target = meant,
            Err(fault) => faults.push(fault),
        }
    }
    let known = old.get("headers").and_then(Value::as_object);
    let Some(Value::Object(headers)) = keys.get_mut("headers") else { return faults };
    for (name, value) in headers.iter_mut().filter(|(name, value)| *value == MASK && is_secret_header(name)) {
        let same = known.and_then(|known| known.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)));
        match same {
            Some((_, secret)) => *value = secret.clone(),
            None => faults.push(format!(
                "headers: {MASK} stands for a secret, and none is known here of {name:?}: write its value once"
            )),
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let check = |url: &str, expected: &str| assert_eq!(masked(url), expected);
        check("http://h:80/x?a=1", "http://h:80/x?a=1");
        check("http://u:p@h/x", "http://u:***@h/x");
        check("http://u@h/x", "http://u@h/x");
        check("http://h/x?access_token=abc&a=1&Sig=2", "http://h/x?access_token=***&a=1&Sig=***");
        for name in
            ["authorization", "auth", "Auth", "pass", "pw", "pwd", "credential", "credentials", "db_pass", "x-auth"]
        {
            check(&format!("http://h/x?{name}=abc&a=1"), &format!("http://h/x?{name}=***&a=1"));
        }
        check("http://h/x?basicAuth=abc&auth_code=1", "http://h/x?basicAuth=***&auth_code=***");
        check("http://h/x?author=wang&bypass=1&passive=2", "http://h/x?author=wang&bypass=1&passive=2");
        check("", "");
        check("http://h/a@b:c", "http://h/a@b:c");
    }

    #[test]
    fn what_is_masked_means_what_is_there() {
        assert_eq!(meant("http://u:***@h/", "http://u:p@h/").as_deref(), Ok("http://u:p@h/"));
        assert_eq!(meant("http://u:q@h/", "http://u:p@h/").as_deref(), Ok("http://u:q@h/"));
        assert_eq!(meant("http://h/", "").as_deref(), Ok("http://h/"));
        assert!(
            meant("http://u:***@other/", "http://u:p@h/").is_err_and(|error| error.contains("write the whole URL"))
        );
        assert!(meant("http://h/?token=***", "").is_err());
    }

    #[test]
    fn secrets_of_probes_are_masked_and_meant() {
        let object = |value: Value| value.as_object().cloned().expect("an object");
        let own = object(serde_json::json!({
            "target": "https://h/x?token=abc", "body": "x",
            "headers": { "Authorization": "Bearer x", "X-Api-Key": "k", "Cookie": "a=b", "Accept": "*/*" },
        }));
        let mut shown = own.clone();
        mask_probe(&mut shown);
        let expected = object(serde_json::json!({
            "target": "https://h/x?token=***", "body": "x",
            "headers": { "Authorization": "***", "X-Api-Key": "***", "Cookie": "***", "Accept": "*/*" },
        }));
        assert_eq!(shown, expected);
        let mut meant = shown.clone();
        assert_eq!(unmask_probe(&mut meant, &own), Vec::<String>::new());
        assert_eq!(meant, own);
        let faults = unmask_probe(&mut shown, &Map::new());
        assert_eq!(faults.len(), 4, "{faults:?}");
        assert!(faults[0].starts_with("target: ***") && faults[1].starts_with("headers: ***"), "{faults:?}");
    }
}
