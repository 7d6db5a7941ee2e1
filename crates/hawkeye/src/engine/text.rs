//! Texts: which endpoints and counters the original graph takes.
//!
//! Compat: docs/open-falcon/graph.md §3: no quotes, no `>`, and only what Unicode calls printable, with the one space
//! U+0020.

/// Whether the graph takes a text as an endpoint, a metric or a tag.
pub fn is_valid(text: &str) -> bool {
    text.chars().all(|c| match c {
        '\'' | '"' | '>' => false,
        ' '..='~' => true,
        c => !c.is_ascii() && is_printable(c),
    })
}

/// Whether Unicode calls a character printable. std knows the categories (letters, marks, numbers, punctuation,
/// symbols) but shows them only by what `escape_debug` escapes; marks are escaped only at the begin of a text, so the
/// character is looked at behind a letter.
fn is_printable(c: char) -> bool {
    let mut bytes = [b'a'; 5];
    let length = 1 + c.encode_utf8(&mut bytes[1..]).len();
    let text = std::str::from_utf8(&bytes[..length]).expect("two characters");
    text.escape_debug().nth(1) == Some(c)
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    #[test]
    fn texts() {
        let check = |text: &str, valid: bool| assert_eq!(is_valid(text), valid, "{text:?}");
        check("net.if.in.bytes/iface=eth0,a=b c", true);
        check("<&|\\`~", true);
        check("主机-01/城=北京,n=żółw,e=🚀,mark=e\u{301}", true);
        check("it's", false);
        check("a\"b", false);
        check("a>b", false);
        for c in ['\r', '\n', '\t', '\0', '\u{1a}', '\u{7f}', '\u{a0}', '\u{200b}', '\u{2028}', '\u{feff}', '\u{e000}']
        {
            check(&format!("a{c}"), false);
        }
    }
}
