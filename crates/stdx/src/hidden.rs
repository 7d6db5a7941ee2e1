//! Hidden: characters that do not show, or not where they stand.
//!
//! Why: a name with one equals no other, and a text of strangers with one says another thing to people than to
//! programs.
//! How: by the tables of Unicode (Default_Ignorable_Code_Point, Bidi_Control). Joiners inside words (U+200C, U+200D)
//! are letters of some languages, and show.

/// True for what does not show, or not where it stands; control characters and line ends among them, and what stands
/// for bytes that were no UTF-8.
pub fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffd}') || is_ignorable(c) || is_direction(c)
}

/// True for what changes the direction of the text behind it.
pub fn is_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// True for what Unicode's property Default_Ignorable_Code_Point names (but joiners) and its interlinear marks.
fn is_ignorable(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_and_what_does_not() {
        for c in ['\n', '\u{7f}', '\u{ad}', '\u{200b}', '\u{202e}', '\u{2028}', '\u{feff}', '\u{fffd}', '\u{e0041}'] {
            assert!(is_hidden(c), "{c:?}");
        }
        for c in ['a', ' ', '中', 'é', '\u{200c}', '\u{200d}', '⚠'] {
            assert!(!is_hidden(c), "{c:?}");
        }
        assert!(is_direction('\u{202e}') && !is_direction('\u{200b}'));
    }
}
