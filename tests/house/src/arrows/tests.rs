use super::{arrows, module_of};

/// Arrows of a made-up crate as `file:line from -> to`, for all that leave their module.
fn check(files: &[(&str, &str)], expected: &[&str]) {
    let files: Vec<_> = files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect();
    let found = arrows("own", &files).expect("the made-up crate is Rust");
    let found: Vec<String> = found
        .iter()
        .filter(|arrow| arrow.from != arrow.to)
        .map(|one| format!("{}:{} {} -> {}", one.file, one.line, one.from.join("::"), one.to.join("::")))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn files_are_modules() {
    assert_eq!(module_of("main.rs"), Vec::<String>::new());
    assert_eq!(module_of("a.rs"), ["a"]);
    assert_eq!(module_of("a/mod.rs"), ["a"]);
    assert_eq!(module_of("a/b.rs"), ["a", "b"]);
}

#[test]
fn uses_are_arrows() {
    check(
        &[
            ("main.rs", "mod a;\nmod b;\nmod c;"),
            ("a.rs", "use crate::b::Thing;\nuse crate::{b, c::{self, D as E}};\nuse crate::c::*;\nuse std::b::X;"),
            ("b.rs", "use ::c::Thing;"),
            ("c.rs", ""),
        ],
        &["a.rs:1 a -> b", "a.rs:2 a -> b", "a.rs:2 a -> c", "a.rs:2 a -> c", "a.rs:3 a -> c"],
    );
}

#[test]
fn paths_in_the_code_are_arrows() {
    let code =
        "fn f(x: &crate::b::X) -> u8 {\n    log!(\"{}\", crate::b::y());\n    Vec::<crate::b::Z>::new();\n    7\n}";
    let expected = ["a.rs:1 a -> b", "a.rs:2 a -> b", "a.rs:3 a -> b"];
    check(&[("main.rs", ""), ("a.rs", code), ("b.rs", "")], &expected);
}

#[test]
fn super_leads_up() {
    check(
        &[
            ("main.rs", ""),
            ("a/mod.rs", "mod b;"),
            ("a/b.rs", "use super::super::c::X;\nmod inner {\n    fn f() { super::super::super::c::f() }\n}"),
            ("c.rs", ""),
        ],
        &["a/b.rs:1 a::b -> c", "a/b.rs:3 a::b::inner -> c"],
    );
}

#[test]
fn a_name_that_a_use_brought_in_is_followed() {
    check(
        &[
            ("lib.rs", "mod b;\npub use b::Error;\nuse self::b as other;"),
            ("a.rs", "use crate::Error;\nuse super::other;\nfn f() { other::g() }\nfn g() { own::b::h() }"),
            ("b.rs", ""),
        ],
        &["lib.rs:2  -> b", "lib.rs:3  -> b", "a.rs:1 a -> b", "a.rs:2 a -> b", "a.rs:3 a -> b", "a.rs:4 a -> b"],
    );
}

#[test]
fn what_stands_in_the_root_itself_is_an_arrow_to_the_root() {
    check(&[("main.rs", "pub struct Top;"), ("a.rs", "use crate::Top;")], &["a.rs:1 a -> "]);
}

#[test]
fn aliases_in_a_circle_end() {
    check(&[("main.rs", ""), ("a.rs", "use self::x as y;\nuse self::y as x;\nfn f() { x::g() }")], &[]);
}

#[test]
fn tests_comments_and_texts_are_no_arrows() {
    let code = "// crate::b::x\n/// [`crate::b`]\nfn f() { g(\"crate::b::x\") }\n\
        #[cfg(test)]\nmod tests {\n    use crate::b::X;\n}\n\
        #[cfg(test)]\n#[allow(unused)]\nuse crate::b::{X, Y};\n\
        #[cfg(all(test, unix))]\npub(crate) fn g(x: crate::b::X) { crate::b::x() }\n\
        #[cfg(test)]\npub(crate) mod harness;\n\
        struct S {\n    #[cfg(test)]\n    x: crate::b::X,\n    y: crate::c::Y,\n}\n\
        #[cfg(unix)]\nuse crate::c::Z;";
    check(
        &[
            ("main.rs", ""),
            ("a.rs", code),
            ("a/harness.rs", "use crate::b::X;"),
            ("a/harness/deep.rs", "use crate::b::X;"),
            ("a/tests.rs", "use crate::b::X;"),
            ("a/tests/more.rs", "use crate::b::X;"),
            ("b.rs", "#![cfg(test)]\nuse crate::c::X;"),
            ("c.rs", ""),
        ],
        &["a.rs:18 a -> c", "a.rs:21 a -> c"],
    );
}

#[test]
fn what_is_no_rust_is_said() {
    let error = arrows("own", &[("a.rs".to_string(), "fn f( {".to_string())]).expect_err("a brace is missing");
    assert!(error.starts_with("a.rs: no Rust"), "{error}");
}
