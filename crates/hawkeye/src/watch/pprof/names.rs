//! Names: what the linker calls a function, as people read it and as `go tool pprof` leaves it.
//!
//! Why: the demangled name of one function in a layered program is a screen long, since each type in it is written with
//! its whole path and all that it is made of. And pprof has rules of its own for names, made for C++, Java and Go.
//! How: one pass over the text. The path of the function and the type that it belongs to stay whole; what stands in
//! angle brackets behind them is cut to last names, and what stands in brackets within these is left out:
//! `<store::Log as Sink<alloc::vec::Vec<u8>>>::put` becomes `<store::Log as Sink<Vec>>::put`. Both ways in which rustc
//! writes names (legacy and v0) come to one, `store::Arena::take::{closure}`.
//! What pprof does: its graph writes `store::hot::Arena::take` as `Arena::take`, which is well, and drops what is
//! behind it, so that a closure would look like the function that it is in, and a call like a recursion. Such a type
//! goes into brackets, `<store::hot::Arena>::take::{closure}`, and the name stays whole (its `ShortenFunctionName`).
//! Memory: none but the answer.

/// The name of a function as a profile shows it, from its demangled name without the hash. A name that is not Rust's
/// comes back as it is.
pub fn readable(demangled: &str) -> String {
    keep_whole(without_brackets(shortened(demangled)))
}

/// What a pair of brackets around a part of a name says of the part.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// The type that the function belongs to, at the beginning: `<store::Log as …>`. Its path stays.
    Owner,
    /// The trait behind `as`.
    Trait,
    /// What a type, a trait or a function is made with: `Vec<u8>`; and `<impl Trait for Type>`.
    Arguments,
}

fn shortened(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut parts: Vec<Part> = Vec::new();
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let is_arrow = c == '>' && out.ends_with('-');
        let is_left_out = parts.iter().filter(|part| **part == Part::Arguments).count() > 1;
        let after = &rest[c.len_utf8()..];
        rest = after;
        match c {
            '<' => {
                parts.push(if out.trim_start_matches('<').is_empty() { Part::Owner } else { Part::Arguments });
                // A function's own arguments stand behind a `::` in v0, and behind nothing in the legacy way.
                if !after.starts_with("impl ") && out.ends_with("::") {
                    out.truncate(out.len() - 2);
                }
                if parts.iter().filter(|part| **part == Part::Arguments).count() <= 1 {
                    out.push('<');
                }
            }
            '>' if !is_arrow => {
                parts.pop();
                if !is_left_out {
                    out.push('>');
                }
            }
            _ if is_left_out => {}
            ' ' if after.starts_with("as ") && parts.last() == Some(&Part::Owner) => {
                parts.pop();
                parts.push(Part::Trait);
                out.push(' ');
            }
            ':' if after.starts_with(':') => {
                rest = &after[1..];
                let is_path_kept = parts.last().is_none_or(|part| *part == Part::Owner) || rest.starts_with('{');
                let begin = out.trim_end_matches(is_of_a_segment).len();
                if is_path_kept || begin == out.len() {
                    out.push_str("::");
                } else {
                    out.truncate(begin);
                }
            }
            // `{{closure}}` and `{closure#0}` are two ways to write one thing; a number says nothing to people.
            '{' if after.starts_with('{') => {}
            '}' if after.starts_with('}') => {}
            '#' if is_number_of_a_closure(after) => rest = after.trim_start_matches(|c: char| c.is_ascii_digit()),
            _ => out.push(c),
        }
    }
    out
}

fn is_of_a_segment(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '{' | '}')
}

fn is_number_of_a_closure(after: &str) -> bool {
    let behind = after.trim_start_matches(|c: char| c.is_ascii_digit());
    behind.len() < after.len() && behind.starts_with('}')
}

/// Takes the brackets off a type with a path that has no trait: v0 writes `<store::Arena>::take`.
fn without_brackets(name: String) -> String {
    let Some(inner) = name.strip_prefix('<') else { return name };
    let mut open = 1;
    let end = inner.char_indices().find(|(at, c)| {
        match c {
            '<' => open += 1,
            '>' if !inner[..*at].ends_with('-') => open -= 1,
            _ => {}
        }
        open == 0
    });
    let Some((end, _)) = end else { return name };
    let (owner, method) = (&inner[..end], &inner[end + 1..]);
    if owner.starts_with(is_of_a_segment) && !owner.contains(' ') { format!("{owner}{method}") } else { name }
}

/// Puts the type into brackets where pprof's graph would drop what stands behind its method.
fn keep_whole(name: String) -> String {
    let is_plain = |segment: &str| segment.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_type = |segment: &str| segment.trim_start_matches('_').starts_with(|c: char| c.is_ascii_uppercase());
    let is_method = |segment: &str| segment.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let segments: Vec<&str> = name.split("::").collect();
    let plain = segments.iter().take_while(|segment| is_plain(segment)).count();
    let is_owner = |at: &usize| is_type(segments[*at]) && segments.get(at + 1).copied().is_some_and(is_method);
    let Some(owner) = (1..plain).rev().find(is_owner) else { return name };
    let method = segments[owner + 1..].join("::");
    if method.contains(['{', ':']) { format!("<{}>::{method}", segments[..=owner].join("::")) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_rustc_come_to_one() {
        let check = |legacy: &str, v0: &str, expected: &str| {
            assert_eq!((readable(legacy), readable(v0)), (expected.into(), expected.into()), "{legacy} {v0}");
        };
        check("store::hot::arena::Arena::take", "<store::hot::arena::Arena>::take", "store::hot::arena::Arena::take");
        check("stdx::crc::sum", "stdx::crc::sum", "stdx::crc::sum");
        check(
            "store::hot::arena::Arena::take::{{closure}}::{{closure}}",
            "<store::hot::arena::Arena>::take::{closure#0}::{closure#12}",
            "<store::hot::arena::Arena>::take::{closure}::{closure}",
        );
        check("hawkeye::role::run::{{closure}}", "hawkeye::role::run::{closure#0}", "hawkeye::role::run::{closure}");
        check(
            "<store::log::Log as core::ops::drop::Drop>::drop",
            "<store::log::Log as core::ops::drop::Drop>::drop",
            "<store::log::Log as Drop>::drop",
        );
        check(
            "core::ptr::drop_in_place<alloc::vec::Vec<alloc::string::String>>",
            "core::ptr::drop_in_place::<alloc::vec::Vec<alloc::string::String>>",
            "core::ptr::drop_in_place<Vec>",
        );
        check(
            "core::ops::FnOnce::call_once{{vtable.shim}}",
            "<core::ops::FnOnce>::call_once{vtable.shim}",
            "<core::ops::FnOnce>::call_once{vtable.shim}",
        );
    }

    #[test]
    fn generics_are_short_and_nothing_else_is() {
        let check = |name: &str, expected: &str| assert_eq!(readable(name), expected, "{name}");
        check("alloc::vec::Vec<T,A>::push", "alloc::vec::Vec<T,A>::push");
        check("<alloc::vec::Vec<core::option::Option<u8>>>::push", "alloc::vec::Vec<Option>::push");
        check("core::slice::<impl [T]>::iter", "core::slice::<impl [T]>::iter");
        check("<[u8]>::iter", "<[u8]>::iter");
        check("a::b::<impl core::fmt::Display for a::b::C>::fmt", "a::b::<impl Display for C>::fmt");
        check(
            "<F as axum::handler::Handler<(M,T1),S>>::call::{{closure}}",
            "<F as Handler<(M,T1),S>>::call::{closure}",
        );
        check("<a::B<a::c::D<a::E>> as a::F<a::G<a::H>>>::i", "<a::B<D> as F<G>>::i");
        check("<<a::B as tower::Service<a::R>>::Future as a::F>::poll", "<<a::B as Service<R>>::Future as F>::poll");
        check("a::map<fn(a::B) -> alloc::vec::Vec<a::C>, a::D>", "a::map<fn(B) -> Vec, D>");
        check("a::poll::<a::b::c::{closure#3}, alloc::sync::Arc<a::H>>", "a::poll<c::{closure}, Arc>");
        check("<dyn a::B<C = a::D> + core::marker::Send>::e", "<dyn a::B<C = D> + core::marker::Send>::e");
        for other in ["sqlite3VdbeExec", "_rjem_je_malloc", "memcpy.part.0", "", "<", ">", "::", "a#b", "{}", "main"] {
            check(other, other);
        }
    }

    /// The rule of pprof's graph for C++: from `a::b::C::d` on, `C::d` is shown, with arguments right behind it, and
    /// nothing else. None where the rule leaves a name alone.
    fn label(name: &str) -> Option<String> {
        let rule = r"^(?:[_a-zA-Z]\w*::)+(_*[A-Z]\w*::~?[_a-zA-Z]\w*(?:<.*>)?)";
        let found = regex::Regex::new(rule).expect("a pattern").captures(name)?;
        Some(found[1].to_string())
    }

    #[test]
    fn no_two_functions_look_alike_in_the_graph() {
        let names = [
            "store::hot::Arena::take",
            "store::hot::Arena::take::{{closure}}",
            "store::hot::Arena::take::inner",
            "store::hot::Arena::take::{{vtable.shim}}",
            "store::hot::Arena::take::<u8>",
            "store::hot::Arena::take::<u8>::{closure#0}",
            "store::hot::Arena::take::Inner::new",
            "store::hot::Arena::take::Inner::new::{{closure}}",
            "store::hot::take",
            "store::hot::take::{{closure}}",
            "Arena::give",
            "Arena::give::{{closure}}",
        ];
        let labels = names.map(|name| label(&readable(name)).unwrap_or_else(|| readable(name)));
        let distinct: std::collections::BTreeSet<&String> = labels.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{labels:?}");
        assert_eq!(labels[0], "Arena::take");
        assert_eq!(label("store::hot::Arena::take::{closure}").as_deref(), Some("Arena::take"), "what is avoided");
    }
}
