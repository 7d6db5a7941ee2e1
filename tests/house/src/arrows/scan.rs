//! Scan: the modules, `use`s and paths of one file, as they are written.
//!
//! How: a walk over token trees. Comments are no tokens, texts are literals and are passed over, the arguments of
//! macros are read like any other code.

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
        match &tokens[at] {
            TokenTree::Ident(word) if word == "pub" => {
                at + 1 + usize::from(group(tokens.get(at + 1), Delimiter::Parenthesis).is_some())
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
        if segments.len() > 1 && !goes_on {
            self.paths.push(Path { module: module.clone(), segments, line: line_of(&tokens[start]) });
        }
        at
    }
}

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

fn ident(token: &TokenTree) -> Option<String> {
    if let TokenTree::Ident(ident) = token { Some(ident.to_string()) } else { None }
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
