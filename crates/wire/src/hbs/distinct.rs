//! Distinct rules: one `Arc` for all texts that mean the same rule.
//!
//! How: a rule is found by the digest of its text without being read; only a text never seen is read. The key is the
//! text as Go writes it. Another spelling (blanks, other escapes) is remembered beside as an alias.
//! Memory: 32 bytes per rule besides the rule itself, 48 per alias.
//! [`AnswerLimits::distinct_bytes`](super::AnswerLimits) bounds what one pass has; while rules change, those in effect
//! are held besides.

use super::digest::digest;
use super::rule_text::{BadRule, RuleText};
use crate::json::Scratch;
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes for which an alias counts against the limit: more than it takes.
const ALIAS_BYTES: usize = 64;

pub(super) struct Distinct<T> {
    by_digest: HashMap<u128, Known<T>>,
    /// Digest of another spelling → digest of Go's.
    aliases: HashMap<u128, Alias>,
    pass: u32,
    /// Bytes of the distinct texts that this pass has, and [`ALIAS_BYTES`] for each alias.
    bytes: usize,
    scratch: Scratch,
    text: String,
}

struct Known<T> {
    rule: Arc<T>,
    bytes: u32,
    /// The last pass that had the rule. The number may wrap: it is compared with the pass before only.
    pass: u32,
}

struct Alias {
    digest: u128,
    pass: u32,
}

/// Reason for which a text gave no rule.
pub(super) enum Missed {
    Bad(BadRule),
    /// The distinct texts would have more than the bytes allowed.
    Full,
}

impl<T: RuleText> Distinct<T> {
    pub fn new() -> Distinct<T> {
        Distinct {
            by_digest: HashMap::new(),
            aliases: HashMap::new(),
            pass: 0,
            bytes: 0,
            scratch: Scratch::new(),
            text: String::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.by_digest.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the rules, the two tables, and buffers.
    pub fn memory_bytes(&self) -> usize {
        /// Size of the two counts before the value of an `Arc`.
        const ARC_BYTES: usize = 16;
        let rules: usize = self.by_digest.values().map(|known| known.rule.memory_bytes() + ARC_BYTES).sum();
        let aliases = table_bytes::<u128, Alias>(self.aliases.capacity());
        let buffers = self.text.capacity() + self.scratch.capacity();
        rules + table_bytes::<u128, Known<T>>(self.by_digest.capacity()) + aliases + buffers
    }

    pub fn begin(&mut self) {
        self.pass = self.pass.wrapping_add(1);
        self.bytes = 0;
    }

    /// The rule that `text` means and the digest of its usual spelling.
    pub fn rule(&mut self, text: &[u8], bytes_max: usize) -> Result<(u128, Arc<T>), Missed> {
        let spelled = digest(text);
        if let Some(rule) = self.known(spelled, bytes_max)? {
            return Ok((spelled, rule));
        }
        let usual = match self.alias(spelled, bytes_max)? {
            Some(usual) => usual,
            None => return self.read(text, spelled, bytes_max),
        };
        match self.known(usual, bytes_max)? {
            Some(rule) => Ok((usual, rule)),
            None => self.read(text, spelled, bytes_max),
        }
    }

    fn known(&mut self, digest: u128, bytes_max: usize) -> Result<Option<Arc<T>>, Missed> {
        let Some(known) = self.by_digest.get_mut(&digest) else { return Ok(None) };
        if known.pass != self.pass {
            known.pass = self.pass;
            charge(&mut self.bytes, known.bytes as usize, bytes_max)?;
        }
        Ok(Some(known.rule.clone()))
    }

    fn alias(&mut self, spelled: u128, bytes_max: usize) -> Result<Option<u128>, Missed> {
        let Some(alias) = self.aliases.get_mut(&spelled) else { return Ok(None) };
        if alias.pass != self.pass {
            alias.pass = self.pass;
            charge(&mut self.bytes, ALIAS_BYTES, bytes_max)?;
        }
        Ok(Some(alias.digest))
    }

    /// The rule of a text that was never seen.
    fn read(&mut self, text: &[u8], spelled: u128, bytes_max: usize) -> Result<(u128, Arc<T>), Missed> {
        let rule = T::read(text, &mut self.scratch).map_err(Missed::Bad)?;
        self.text.clear();
        rule.push_json(&mut self.text);
        let usual = digest(self.text.as_bytes());
        if usual != spelled {
            charge(&mut self.bytes, ALIAS_BYTES, bytes_max)?;
            self.aliases.insert(spelled, Alias { digest: usual, pass: self.pass });
        }
        if let Some(rule) = self.known(usual, bytes_max)? {
            return Ok((usual, rule));
        }
        let bytes = self.text.len();
        charge(&mut self.bytes, bytes, bytes_max)?;
        let rule = Arc::new(rule);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.by_digest.insert(usual, Known { rule: rule.clone(), bytes, pass: self.pass });
        Ok((usual, rule))
    }

    /// Forgets the rules that nobody holds, and the spellings that this pass did not have; all of these when it failed.
    pub fn sweep(&mut self, finished: bool) {
        self.by_digest.retain(|_, known| Arc::strong_count(&known.rule) > 1);
        let pass = self.pass;
        self.aliases.retain(|_, alias| finished && alias.pass == pass && self.by_digest.contains_key(&alias.digest));
        // After a change the size of the answer the tables must not keep the room of both.
        if self.by_digest.capacity() > 4 * self.by_digest.len() {
            self.by_digest.shrink_to_fit();
        }
    }
}

/// Bytes of a hash map of the standard library: an eighth of its places stays empty, each has a byte beside it.
pub(super) fn table_bytes<K, V>(capacity: usize) -> usize {
    if capacity == 0 { 0 } else { (capacity * 8 / 7).next_power_of_two() * (size_of::<(K, V)>() + 1) }
}

fn charge(bytes: &mut usize, more: usize, bytes_max: usize) -> Result<(), Missed> {
    if *bytes + more > bytes_max {
        return Err(Missed::Full);
    }
    *bytes += more;
    Ok(())
}
