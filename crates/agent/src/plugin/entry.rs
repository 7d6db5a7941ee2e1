//! Entry: what hbs says of a plugin, as a path below the plugin directory and arguments.
//!
//! How: `sys/ntp` (a directory), `sys/ntp/60_ntp.py` (a file), or `sys/ntp/60_ntp.py(a, "b c", 'd\,e')`: the path ends
//! at the last `(` that has a `)` behind it.
//! Invariants: a path is relative, its parts are joined by one `/`, none is `..` or `.git`: whoever may bind a plugin
//! in the portal chooses among the files of the repository, and among no others.
//! Compat: docs/open-falcon/agent.md §5. Arguments are split at `,`, `\,` is a comma in one; from each piece between
//! those go blanks at its ends, then `"`, then `'`; an empty last one of several is none. The original
//! leaves `..` in, and gives `a\,b` as two arguments where it is the first.

/// Bytes of a path and its arguments together: both become tags of `agent.plugin.*`, and a counter has 510 bytes.
pub const ENTRY_BYTES_MAX: usize = 400;
/// The longest cycle, a month: nothing is watched more seldom, and a longer one is a date taken for a cycle.
const CYCLE_MAX_S: i64 = 31 * 86_400;

/// A directory or file that hbs has bound to this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Path below the plugin directory.
    pub path: String,
    /// Text between the parentheses; "" where there are none.
    pub args: String,
}

impl Entry {
    /// Reads an entry, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Entry, &'static str> {
        if text.len() > ENTRY_BYTES_MAX {
            return Err("it is longer than 400 bytes: give a shorter path, or fewer arguments");
        }
        if text.chars().any(char::is_control) {
            return Err("it has a control character: give a path without");
        }
        let (path, args) = split(text);
        Ok(Entry { path: relative(path)?, args: args.to_string() })
    }
}

/// Path and arguments.
fn split(text: &str) -> (&str, &str) {
    let Some(close) = text.rfind(')') else { return (text, "") };
    let Some(open) = text[..close].rfind('(') else { return (text, "") };
    (&text[..open], &text[open + 1..close])
}

fn relative(path: &str) -> Result<String, &'static str> {
    let parts: Vec<&str> = path.trim().split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() {
        return Err("it names the plugin directory itself: give a directory or file in it, like sys/ntp");
    }
    if parts.contains(&"..") {
        return Err("it leads out of the plugin directory: give a path without ..");
    }
    if parts.contains(&".git") {
        return Err("it leads into the repository's own files: give a path without .git");
    }
    Ok(parts.join("/"))
}

/// Seconds between two runs of a file of this name, or what is wrong with it.
pub fn cycle_of(name: &str) -> Result<i64, &'static str> {
    let digits = name.split('_').next().unwrap_or_default();
    let cycle: i64 = digits.parse().map_err(|_| "its name does not begin with a cycle: give one like 60_ntp.py")?;
    match (1..=CYCLE_MAX_S).contains(&cycle) {
        true => Ok(cycle),
        false => Err("its cycle is out of range: give 1 to 2678400 seconds"),
    }
}

/// Arguments of a text between parentheses.
pub fn arguments(text: &str) -> Vec<String> {
    if text.is_empty() {
        return Vec::new();
    }
    let mut args = vec![String::new()];
    for (index, between) in text.split("\\,").enumerate() {
        for (place, piece) in between.split(',').enumerate() {
            let piece = piece.trim_matches(' ').trim_matches('"').trim_matches('\'');
            let last = args.last_mut().expect("begun with one");
            match (index, place) {
                (0, 0) => last.push_str(piece),
                (_, 0) => last.extend([",", piece]),
                _ => args.push(piece.to_string()),
            }
        }
    }
    if args.len() > 1 && args.last().is_some_and(String::is_empty) {
        args.pop();
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_arguments() {
        let check = |text: &str, path: &str, args: &str| {
            let entry = Entry::parse(text).expect(text);
            assert_eq!((entry.path.as_str(), entry.args.as_str()), (path, args), "{text}");
        };
        check("sys/ntp", "sys/ntp", "");
        check("/sys//ntp/", "sys/ntp", "");
        check("./sys/./ntp ", "sys/ntp", "");
        check("web/5_args.sh(a, \"b c\")", "web/5_args.sh", "a, \"b c\"");
        check("5_a.sh()", "5_a.sh", "");
        check("a(b)(c)x", "a(b)", "c");
        check("a(b)c(d", "a", "b");
        check("a)b(", "a)b(", "");
        check("a(b", "a(b", "");
        check("5_a.sh(../x)", "5_a.sh", "../x");
        check("系统/60_时间.py(北京)", "系统/60_时间.py", "北京");
    }

    #[test]
    fn what_leads_elsewhere_is_refused_with_the_fix() {
        let long = "a".repeat(401);
        for text in ["", "/", ".", "()", "..", "../x", "a/../../b", "a/..", ".git/hooks", "a\nb", "a\0b", &long] {
            let fault = Entry::parse(text).expect_err(text);
            assert!(fault.contains("give "), "{text:?}: {fault}");
        }
    }

    #[test]
    fn arguments_as_the_original_splits_them() {
        let check = |text: &str, expected: &[&str]| assert_eq!(arguments(text), expected, "{text}");
        check("", &[]);
        check("a", &["a"]);
        check("a, \"b c\", 'd\\,e'", &["a", "b c", "d,e"]);
        check("a,b", &["a", "b"]);
        check(" a , b ", &["a", "b"]);
        check("\"'a'\"", &["a"]);
        check("'\"a\"'", &["\"a\""]);
        check("a,,b", &["a", "", "b"]);
        check("a,", &["a"]);
        check(",", &[""]);
        check(",a", &["", "a"]);
        check(" ", &[""]);
        check("x, a\\,b", &["x", "a,b"]);
        check("x,a \\, b,c", &["x", "a,b", "c"]);
        check("a\\b", &["a\\b"]);
    }

    /// Where the original splits at a comma that is escaped.
    #[test]
    fn an_escaped_comma_is_one_wherever_it_stands() {
        let check = |text: &str, expected: &[&str]| assert_eq!(arguments(text), expected, "{text}");
        check("a\\,b", &["a,b"]);
        check("a\\,b\\,c", &["a,b,c"]);
        check("x,a\\,b\\,c,d", &["x", "a,b,c", "d"]);
        check("x,\\,a", &["x", ",a"]);
    }

    #[test]
    fn cycles() {
        let check = |name: &str, cycle: Option<i64>| assert_eq!(cycle_of(name).ok(), cycle, "{name}");
        check("60_ntp.py", Some(60));
        check("60", Some(60));
        check("+5_a", Some(5));
        check("060_a_b", Some(60));
        check("2678400_month", Some(2_678_400));
        check("2678401_longer", None);
        check("0_a", None);
        check("-5_a", None);
        check("ntp.py", None);
        check("5s_a", None);
        check("99999999999999999999_a", None);
        check("", None);
    }
}
