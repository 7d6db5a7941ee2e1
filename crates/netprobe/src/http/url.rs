//! URL: where an HTTP probe goes, and where a redirect sends it.
//!
//! Why not the usual crate: it brings tables for names in all scripts, which are a tenth of an agent; a definition has
//! such a name in its ASCII form.
//! How: the library's `Uri` takes the text apart; a relative `Location` is resolved as RFC 3986 §5.2 says.

use crate::fault::short;
use crate::place::{Place, host_of};
use hyper::Uri;

/// Scheme, place and path of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub is_tls: bool,
    pub place: Place,
    /// Path and query, beginning with `/`.
    pub path: String,
}

impl Url {
    /// Reads an absolute URL; what follows a `#` is not sent, and left out.
    pub fn parse(text: &str) -> Result<Url, String> {
        let want = "give one like https://shop.example/health";
        let text = text.split('#').next().unwrap_or_default();
        let uri: Uri = text.parse().map_err(|_| format!("{:?} is no URL in ASCII: {want}", short(text)))?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{:?} does not begin with http:// or https://: {want}", short(text))),
        };
        let authority = uri.authority().ok_or_else(|| format!("{:?} has no host: {want}", short(text)))?;
        if authority.as_str().contains('@') {
            return Err("has a user before the host: give it in the header Authorization instead".to_string());
        }
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, digits)) if !digits.ends_with(']') => uri.port_u16().filter(|port| *port != 0),
            _ => Some(if is_tls { 443 } else { 80 }),
        };
        let port = port.ok_or_else(|| format!("{:?} has no port from 1 to 65535: {want}", short(text)))?;
        let host = host_of(authority.host())?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        Ok(Url { is_tls, place: Place { host, port }, path })
    }

    /// Where a `Location` leads from here.
    pub fn join(&self, location: &str) -> Result<Url, String> {
        let location = location.trim().split('#').next().unwrap_or_default();
        let scheme = if self.is_tls { "https" } else { "http" };
        if let Some(rest) = location.strip_prefix("//") {
            return Url::parse(&format!("{scheme}://{rest}"));
        }
        let before_colon = location.split(['/', '?']).next().unwrap_or_default();
        if before_colon.contains(':') {
            return Url::parse(location);
        }
        let (own_path, own_query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let path = match location.as_bytes().first() {
            None if own_query.is_empty() => own_path.to_string(),
            None => self.path.clone(),
            Some(b'/') => without_dots(location),
            Some(b'?') => format!("{own_path}{location}"),
            Some(_) => {
                let folder = own_path.rfind('/').map_or("/", |end| &own_path[..=end]);
                without_dots(&format!("{folder}{location}"))
            }
        };
        Url::parse(&format!("{scheme}://{}{path}", self.place))
    }

    /// The whole text, without the port that goes without saying.
    pub fn to_text(&self) -> String {
        format!("{}://{}{}", if self.is_tls { "https" } else { "http" }, self.authority(), self.path)
    }

    /// Host and port as the header `Host` has them.
    pub fn authority(&self) -> String {
        let text = self.place.to_string();
        let usual = if self.is_tls { ":443" } else { ":80" };
        text.strip_suffix(usual).map_or(text.clone(), str::to_string)
    }
}

/// A path without its `.` and `..`; the query is left alone.
fn without_dots(text: &str) -> String {
    let (path, query) = text.split_at(text.find('?').unwrap_or(text.len()));
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            part => kept.push(part),
        }
    }
    format!("/{}{query}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Url::parse(text).unwrap_or_else(|error| panic!("{error}")).to_text(), expected);
        };
        check("https://Shop.Example/a?b=c,d#e", "https://shop.example/a?b=c,d");
        check("http://a:8080", "http://a:8080/");
        check("http://a?b", "http://a/?b");
        check("https://[::1]:443/", "https://[::1]/");
        check("http://[::1]/x", "http://[::1]/x");
    }

    #[test]
    fn what_is_none_is_told_with_the_fix() {
        for text in [
            "shop.example/a",
            "ftp://a/",
            "http://",
            "http://a:0/",
            "http://a:99999/",
            "http://u:p@a/",
            "http://a b/",
            "/a",
            "http://münchen.de/",
        ] {
            assert!(Url::parse(text).is_err_and(|error| error.contains("give")), "{text}");
        }
    }

    /// Whatever a redirect says, what comes of it reads back as the same URL.
    #[test]
    fn no_location_ends_it() {
        let url = Url::parse("https://a.example:8443/one/two?q=1").expect("a URL");
        for sound in ["http://b.example:80/x/../y?z#a", "//[::1]:443/x", "../../x/./y?a=b", "?z"] {
            crate::tests::world::broken_forms(sound.as_bytes(), |bytes| {
                if let Ok(joined) = url.join(&String::from_utf8_lossy(bytes)) {
                    assert_eq!(Url::parse(&joined.to_text()), Ok(joined));
                }
            });
        }
    }

    #[test]
    fn locations() {
        let check = |location: &str, expected: &str| {
            let url = Url::parse("https://a.example:8443/one/two?q=1").expect("a URL");
            assert_eq!(url.join(location).unwrap_or_else(|error| panic!("{error}")).to_text(), expected);
        };
        check("http://b.example/x", "http://b.example/x");
        check("//b.example/x", "https://b.example/x");
        check("/x?y", "https://a.example:8443/x?y");
        check("x", "https://a.example:8443/one/x");
        check("../x", "https://a.example:8443/x");
        check("../../../x/./y/..", "https://a.example:8443/x/");
        check("?z", "https://a.example:8443/one/two?z");
        check("", "https://a.example:8443/one/two?q=1");
        check("x?to=http://c/", "https://a.example:8443/one/x?to=http://c/");
        check("/a/../b?c=/../d", "https://a.example:8443/b?c=/../d");
        let url = Url::parse("http://a/").expect("a URL");
        assert!(url.join("javascript:alert(1)").is_err() && url.join("file:///etc/passwd").is_err());
    }
}
