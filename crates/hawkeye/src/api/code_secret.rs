//! Secrets in the URLs of callbacks: what a file of rules shows of them.
//!
//! How: the password of a URL (`http://user:password@host/`) and the values of parameters whose names speak of secrets
//! (`?token=…`) are written as `***`. A file that has a URL as it was written means the URL that is there.
//! Invariants: a secret that a path or another parameter hides cannot be known, and is written; docs/as-code.md says
//! so.

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

/// The URL that a file means by `written`, where the action had `old`. An error where a secret is not known.
pub fn meant(written: &str, old: &str) -> Result<String, String> {
    if !old.is_empty() && written == masked(old) {
        return Ok(old.to_string());
    }
    if written.contains(MASK) && masked(written) == written {
        return Err(format!("url: {MASK} stands for a secret that is not known here: write the whole URL once"));
    }
    Ok(written.to_string())
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
}
