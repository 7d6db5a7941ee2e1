//! Scan: the modules, `use`s and paths of one file, as they are written.
//!
//! How: a walk over token trees. Comments are no tokens, texts are literals and are passed over, the arguments of
//! macros are read like any other code. Texts in attributes are read as code: serde and its like call what they name.

use std::str::FromStr;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

use super::Module;

/// A path with at least one `::`, or a whole `use`.
pub struct Path {
    pub module: Module,
    pub segments: Vec<String>,
    pub line: usize,
}

/// A name that a `use` brings into a module.
pub struct Alias {
    pub module: Module,
    pub name: String,
    pub segments: Vec<String>,
}

/// What a file says.
#[derive(Default)]
pub struct Scan {
    pub paths: Vec<Path>,
    pub aliases: Vec<Alias>,
    /// Modules written in braces, without those of tests.
    pub inline_modules: Vec<Module>,
    /// Modules of other files that are compiled for tests only.
    pub test_modules: Vec<Module>,
    /// Lines with what this walk cannot follow, and what to write instead.
    pub refused: Vec<(usize, &'static str)>,
}

/// Reads the text of the file that is `module`.
pub fn scan(module: Module, text: &str) -> Result<Scan, String> {
    let tokens = TokenStream::from_str(text).map_err(|error| format!("no Rust: {error}"))?;
    let mut scan = Scan::default();
    scan.block(&module, tokens);
    Ok(scan)
}

impl Scan {
    /// Reads what stands between two braces, or a whole file.
    fn block(&mut self, module: &Module, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.step(module, &tokens, at);
        }
    }

    /// Reads what begins at `at`; answers where the next thing begins.
    fn step(&mut self, module: &Module, tokens: &[TokenTree], at: usize) -> usize {
        if is_punct(tokens.get(at), '#') && is_punct(tokens.get(at + 1), '!') && is_test_attribute(tokens.get(at + 2)) {
            return tokens.len();
        }
        if is_punct(tokens.get(at), '#') && is_test_attribute(tokens.get(at + 1)) {
            return self.test_item(module, tokens, at + 2);
        }
        if is_punct(tokens.get(at), '#')
            && let Some(attribute) = group(tokens.get(at + 1), Delimiter::Bracket)
        {
            self.attribute(module, attribute);
            return at + 2;
        }
        match &tokens[at] {
            TokenTree::Ident(word) if word == "pub" => at + 1 + usize::from(is_scope(tokens.get(at + 1))),
            TokenTree::Ident(word) if word == "extern" && is_word(tokens.get(at + 1), "crate") => {
                self.refused.push((line_of(&tokens[at]), EXTERN_CRATE));
                at + 2
            }
            TokenTree::Ident(word) if word == "include" && is_punct(tokens.get(at + 1), '!') => {
                self.refused.push((line_of(&tokens[at]), ELSEWHERE));
                at + 2
            }
            TokenTree::Ident(word) if word == "use" && !is_punct(tokens.get(at + 1), '<') => {
                self.use_item(module, tokens, at + 1)
            }
            TokenTree::Ident(word) if word == "mod" => self.mod_item(module, tokens, at),
            TokenTree::Ident(_) => self.path(module, tokens, at),
            TokenTree::Group(group) => {
                self.block(module, group.stream());
                at + 1
            }
            _ => at + 1,
        }
    }

    /// Reads an attribute as code, and the texts in it; comments are attributes called `doc`.
    fn attribute(&mut self, module: &Module, attribute: &Group) {
        let tokens: Vec<TokenTree> = attribute.stream().into_iter().collect();
        if is_word(tokens.first(), "doc") {
            return;
        }
        if moves_a_module(&tokens) {
            self.refused.push((attribute.span().start().line, ELSEWHERE));
        }
        self.texts(module, attribute.stream());
        self.block(module, attribute.stream());
    }

    /// Reads the texts among these tokens as code, where they are code.
    fn texts(&mut self, module: &Module, tokens: TokenStream) {
        for token in tokens {
            match &token {
                TokenTree::Group(group) => self.texts(module, group.stream()),
                TokenTree::Literal(literal) => self.text(module, &literal.to_string(), line_of(&token)),
                _ => {}
            }
        }
    }

    fn text(&mut self, module: &Module, literal: &str, line: usize) {
        let Some(Ok(code)) = quoted(literal).map(TokenStream::from_str) else { return };
        let mut inner = Scan::default();
        inner.block(module, code);
        self.paths.extend(inner.paths.into_iter().map(|path| Path { line, ..path }));
    }

    /// Passes over an item of tests; notes the file where it is `mod name;`.
    fn test_item(&mut self, module: &Module, tokens: &[TokenTree], start: usize) -> usize {
        let mut at = start;
        while is_punct(tokens.get(at), '#') {
            at += 2;
        }
        let bare = tokens[at..].iter().filter(|token| group(Some(token), Delimiter::Parenthesis).is_none());
        let words: Vec<String> = bare.map_while(ident).collect();
        if let Some(mod_at) = words.iter().position(|word| word == "mod")
            && let Some(name) = words.get(mod_at + 1)
        {
            self.test_modules.push([module.as_slice(), std::slice::from_ref(name)].concat());
        }
        let is_item = words.first().is_some_and(|word| ITEMS.contains(&word.as_str()));
        let is_use = words.iter().take(2).any(|word| word == "use");
        while let Some(token) = tokens.get(at) {
            at += 1;
            let ends = is_punct(Some(token), ';') || (!is_item && is_punct(Some(token), ','));
            if ends || (!is_use && group(Some(token), Delimiter::Brace).is_some()) {
                break;
            }
        }
        at
    }

    /// Reads `mod name { … }`; `mod name;` says nothing that the files do not.
    fn mod_item(&mut self, module: &Module, tokens: &[TokenTree], at: usize) -> usize {
        let Some(name) = tokens.get(at + 1).and_then(ident) else { return at + 1 };
        if name == "tests" {
            self.refused.push((line_of(&tokens[at]), TESTS));
        }
        let Some(body) = group(tokens.get(at + 2), Delimiter::Brace) else { return at + 2 };
        let inner = [module.as_slice(), &[name]].concat();
        self.inline_modules.push(inner.clone());
        self.block(&inner, body.stream());
        at + 3
    }

    /// Reads from behind `use` to behind its `;`.
    fn use_item(&mut self, module: &Module, tokens: &[TokenTree], start: usize) -> usize {
        let length = tokens[start..].iter().take_while(|token| !is_punct(Some(token), ';')).count();
        let tree = &tokens[start..start + length];
        if !is_punct(tree.first(), ':') {
            self.use_tree(module, tree, &[]);
        }
        start + length + 1
    }

    /// Reads one path of a `use` with all its branches.
    fn use_tree(&mut self, module: &Module, tokens: &[TokenTree], prefix: &[String]) {
        let mut segments = prefix.to_vec();
        let mut name = None;
        let mut line = 0;
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(word) if word == "as" => {
                    name = tokens.get(at + 1).and_then(ident);
                    break;
                }
                TokenTree::Ident(word) if word == "self" && !segments.is_empty() => line = line_of(token),
                TokenTree::Ident(word) => {
                    segments.push(word.to_string());
                    line = line_of(token);
                }
                TokenTree::Punct(star) if star.as_char() == '*' => {
                    return self.paths.push(Path { module: module.clone(), segments, line: line_of(token) });
                }
                TokenTree::Group(branches) => {
                    let branches: Vec<TokenTree> = branches.stream().into_iter().collect();
                    for branch in branches.split(|token| is_punct(Some(token), ',')).filter(|branch| !branch.is_empty())
                    {
                        self.use_tree(module, branch, &segments);
                    }
                    return;
                }
                _ => {}
            }
        }
        let name = name.or_else(|| segments.last().cloned()).unwrap_or_default();
        self.aliases.push(Alias { module: module.clone(), name, segments: segments.clone() });
        self.paths.push(Path { module: module.clone(), segments, line });
    }

    /// Reads `a::b::c`; a single name is none.
    fn path(&mut self, module: &Module, tokens: &[TokenTree], start: usize) -> usize {
        let mut segments = Vec::new();
        let mut at = start;
        while let Some(name) = tokens.get(at).and_then(ident) {
            segments.push(name);
            at += 1;
            if !(is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')) {
                break;
            }
            at += 2;
        }
        let goes_on = start >= 2 && is_punct(tokens.get(start - 1), ':') && is_punct(tokens.get(start - 2), ':');
        let is_rooted = matches!(segments[0].as_str(), "crate" | "self" | "super") && !goes_on;
        let is_cut = is_punct(tokens.get(at), '$') && is_punct(tokens.get(at - 1), ':');
        let is_bare = segments.len() == 1 && segments[0] != "self";
        if is_rooted && (is_cut || is_bare) {
            self.refused.push((line_of(&tokens[start]), CUT));
        }
        if segments.len() > 1 && !goes_on {
            self.paths.push(Path { module: module.clone(), segments, line: line_of(&tokens[start]) });
        }
        at
    }
}

const EXTERN_CRATE: &str = "`extern crate` gives a crate a second name: call it by its own";
const ELSEWHERE: &str = "code of a file elsewhere hides its arrows: give the file the place of its module";
const TESTS: &str = "a module called tests is left out of the layers: write `#[cfg(test)]` above it";
const CUT: &str = "a path that a macro puts together hides its arrow: hand the whole path to the macro";

/// Words that items begin with; what begins with another word is a field, a variant or an arm, and ends at its comma.
const ITEMS: [&str; 16] = [
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "let",
    "macro_rules",
    "mod",
    "pub",
    "static",
    "struct",
    "trait",
    "type",
    "unsafe",
    "use",
];

/// True for `[cfg(test)]` and `[cfg(all(…, test, …))]`.
fn is_test_attribute(token: Option<&TokenTree>) -> bool {
    let Some(attribute) = group(token, Delimiter::Bracket) else { return false };
    let tokens: Vec<TokenTree> = attribute.stream().into_iter().collect();
    tokens.first().and_then(ident).is_some_and(|word| word == "cfg") && demands_test(tokens.get(1))
}

fn demands_test(condition: Option<&TokenTree>) -> bool {
    let Some(condition) = group(condition, Delimiter::Parenthesis) else { return false };
    let tokens: Vec<TokenTree> = condition.stream().into_iter().collect();
    match tokens.first().and_then(ident).as_deref() {
        Some("test") => true,
        Some("all") => group(tokens.get(1), Delimiter::Parenthesis)
            .is_some_and(|all| all.stream().into_iter().any(|token| ident(&token).is_some_and(|word| word == "test"))),
        _ => false,
    }
}

/// True for what may stand behind `pub`: `(crate)`, `(self)`, `(super)`, `(in …)`; a type of two parts is none.
fn is_scope(token: Option<&TokenTree>) -> bool {
    let Some(scope) = group(token, Delimiter::Parenthesis) else { return false };
    let tokens: Vec<TokenTree> = scope.stream().into_iter().collect();
    let is_one = ["crate", "self", "super"].iter().any(|word| is_word(tokens.first(), word)) && tokens.len() == 1;
    is_one || is_word(tokens.first(), "in")
}

/// True for `path = …`, alone or in a `cfg_attr`.
fn moves_a_module(tokens: &[TokenTree]) -> bool {
    let sets_path = |tokens: &[TokenTree]| {
        tokens.windows(2).any(|pair| is_word(pair.first(), "path") && is_punct(pair.get(1), '='))
    };
    let condition = group(tokens.get(1), Delimiter::Parenthesis).filter(|_| is_word(tokens.first(), "cfg_attr"));
    let inner = condition.map(|group| group.stream().into_iter().collect::<Vec<_>>());
    sets_path(&tokens[..tokens.len().min(2)]) || inner.is_some_and(|inner| sets_path(&inner))
}

/// What stands between the quotes of a literal.
fn quoted(literal: &str) -> Option<&str> {
    let (_, rest) = literal.split_once('"')?;
    rest.rsplit_once('"').map(|(text, _)| text)
}

fn is_word(token: Option<&TokenTree>, wanted: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(word)) if word == wanted)
}

fn ident(token: &TokenTree) -> Option<String> {
    if let TokenTree::Ident(ident) = token {
        Some(ident.to_string().trim_start_matches("r#").to_string())
    } else {
        None
    }
}

fn is_punct(token: Option<&TokenTree>, sign: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

fn group(token: Option<&TokenTree>, delimiter: Delimiter) -> Option<&Group> {
    match token {
        Some(TokenTree::Group(group)) if group.delimiter() == delimiter => Some(group),
        _ => None,
    }
}

fn line_of(token: &TokenTree) -> usize {
    token.span().start().line
}
