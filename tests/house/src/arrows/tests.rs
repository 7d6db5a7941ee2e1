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

/// Wants what the file a.rs is refused for, by how each complaint begins.
fn refuse(text: &str, begins: &[&str]) {
    let found = match arrows("own", &[("a.rs".to_string(), text.to_string())]) {
        Ok(_) => Vec::new(),
        Err(found) => found,
    };
    let fits = found.len() == begins.len() && found.iter().zip(begins).all(|(one, begin)| one.starts_with(begin));
    assert!(fits, "{found:#?}");
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
    refuse("fn f( {", &["a.rs: no Rust"]);
}

#[test]
fn a_super_behind_self_goes_up() {
    check(
        &[("main.rs", ""), ("a.rs", ""), ("b.rs", "use self::super::a::X;\nfn f() { self::super::a::f() }")],
        &["b.rs:1 b -> a", "b.rs:2 b -> a"],
    );
}

#[test]
fn a_path_that_a_macro_puts_together_is_refused() {
    let cut = "a path that a macro puts together";
    refuse("macro_rules! m { ($r:ident) => { crate::$r::X } }", &[&format!("a.rs:1: {cut}")]);
    refuse("macro_rules! m { ($r:ident) => {\n super::b::$r() } }", &[&format!("a.rs:2: {cut}")]);
    refuse("m!(crate);\nm!(super, b);\nm!(self::$x)", &["a.rs:1", "a.rs:2", "a.rs:3"]);
    refuse("macro_rules! m { ($r:expr) => { $crate::b::f($r); self.x $r; $r::X } }\npub(crate) fn f() {}", &[]);
}

#[test]
fn a_public_field_of_two_parts_is_no_scope() {
    let code =
        "struct S(pub (crate::b::W, u8));\npub(in crate::b) struct T(pub(crate) u8, pub(super) u8, pub (u8, u8));";
    check(&[("main.rs", ""), ("a.rs", code), ("b.rs", "")], &["a.rs:1 a -> b"]);
}

#[test]
fn a_second_name_of_a_crate_is_refused() {
    refuse("extern crate self as me;\nextern crate alloc;", &["a.rs:1: `extern crate`", "a.rs:2: `extern crate`"]);
    refuse("extern \"C\" fn f() {}", &[]);
}

#[test]
fn code_of_a_file_elsewhere_is_refused() {
    refuse("#[path = \"b/x.rs\"]\nmod x;", &["a.rs:1: code of a file elsewhere"]);
    refuse("#[cfg_attr(unix, path = \"x.rs\")]\nmod x;", &["a.rs:1: code of a file elsewhere"]);
    refuse("include!(\"x.rs\");", &["a.rs:1: code of a file elsewhere"]);
    refuse("#[cfg(test)]\n#[path = \"a/tests.rs\"]\nmod tests;\nconst A: &str = include_str!(\"a.txt\");", &[]);
}

#[test]
fn a_module_called_tests_is_one_of_tests() {
    refuse("mod tests;", &["a.rs:1: a module called tests"]);
    refuse("pub(crate) mod r#tests { }", &["a.rs:1: a module called tests"]);
    refuse("#[cfg(test)]\nmod tests;", &[]);
}

#[test]
fn texts_in_attributes_that_name_code_are_arrows() {
    let code = "struct S {\n    #[serde(default = \"crate::b::up\")]\n    x: u8,\n    \
        #[cfg_attr(unix, serde(deserialize_with = r\"super::c::read\", rename = \"a-b\"))]\n    y: u8,\n}\n\
        /// crate::c::Y\n#[deprecated = \"it isn't (right\"]\nstruct T;";
    check(&[("main.rs", ""), ("a.rs", code), ("b.rs", ""), ("c.rs", "")], &["a.rs:2 a -> b", "a.rs:4 a -> c"]);
}
