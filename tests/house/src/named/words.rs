//! Words: what a Markdown document puts into links, code spans and blocks of code.

/// A word that may name a path.
#[derive(Debug, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    pub line: usize,
    /// The target of a link, which must exist whatever it looks like.
    pub is_link: bool,
    /// Stands in a fenced block, where most words are no paths.
    pub is_command: bool,
}

/// All words of a document, without links to other sites and to places within the document.
pub fn words(text: &str) -> Vec<Word> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (at, line) in text.lines().enumerate() {
        let mut add = |text: &str, is_link, is_command| {
            let text = text.trim_end_matches(['.', ',', ':', ';']).trim_start_matches(['(', '"', '\'']);
            let text = text.trim_end_matches([')', '"', '\'']).to_string();
            if !text.is_empty() {
                found.push(Word { text, line: at + 1, is_link, is_command });
            }
        };
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            line.split(|sign: char| sign.is_whitespace() || sign == '=').for_each(|word| add(word, false, true));
        } else {
            let spans = line.split('`').skip(1).step_by(2);
            spans.flat_map(str::split_whitespace).for_each(|word| add(word, false, false));
            links(line).for_each(|target| add(target, true, false));
        }
    }
    found
}

/// Targets within this repository, without the place in the document.
fn links(line: &str) -> impl Iterator<Item = &str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
    let ours = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
    ours.map(|target| target.split('#').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn spans_links_and_blocks_are_told_apart() {
        let text = "See `a/b.rs`, `make c.txt` and [d](d.md#e), [f](https://g.example/h.md), [i](#j).\n```\nk/l.sh \
            --file=m.toml\n```\nn.rs";
        let found: Vec<_> = words(text).iter().map(|w| (w.text.clone(), w.line, w.is_link, w.is_command)).collect();
        let expected = [
            ("a/b.rs", 1, false, false),
            ("make", 1, false, false),
            ("c.txt", 1, false, false),
            ("d.md", 1, true, false),
            ("k/l.sh", 3, false, true),
            ("--file", 3, false, true),
            ("m.toml", 3, false, true),
        ];
        assert_eq!(found, expected.map(|(text, line, link, command)| (text.to_string(), line, link, command)));
    }
}
