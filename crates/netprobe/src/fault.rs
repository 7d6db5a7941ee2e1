//! Fault: what is wrong with a definition, as texts that name the key and the fix.

/// The beginning of a text that stands in a fault.
pub(crate) fn short(text: &str) -> &str {
    let end = text.char_indices().nth(80).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

/// Adds what is wrong with the value of a key.
pub(crate) fn note<T>(faults: &mut Vec<String>, key: &str, read: Result<T, String>) -> Option<T> {
    read.map_err(|error| faults.push(format!("{key}: {error}"))).ok()
}
