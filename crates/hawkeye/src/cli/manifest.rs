//! Manifest: which files a backup consists of, and what is in them.
//!
//! Why: a backup that was not finished, or that a disk has damaged, must be known before anything is restored from it.
//! How: `SHA256SUMS` in the backup's directory, in the form that `sha256sum -c` reads; comments say what it is. Written
//! last, under another name, synced and renamed: a directory with a manifest is a whole backup. docs/format/backup.md.
//! Invariants: a path leads nowhere but below the directory; the last line vouches for those before it.
//! Memory: a line per file, some hundreds; a buffer of [`BUFFER_BYTES`] for the files.

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

/// Name of the manifest.
pub const NAME: &str = "SHA256SUMS";
const TMP: &str = "SHA256SUMS.tmp";
const FIRST_LINE: &str = "# hawkeye backup 1";
const LAST_LINE: &str = "# end ";
/// A manifest of a million files; one of a server has hundreds.
const BYTES_MAX: u64 = 128 << 20;
const BUFFER_BYTES: usize = 1 << 20;

/// A file of a backup, by its path below the backup's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub path: PathBuf,
    /// SHA-256, in hex digits.
    pub sum: String,
}

/// Writes the manifest of `entries` into `dir`: from now on it is a whole backup. The files must be durable before.
pub fn write(dir: &Path, about: &str, entries: &[Entry]) -> Result<()> {
    let mut text = format!("{FIRST_LINE}\n# {about}\n");
    for entry in entries {
        text.push_str(&format!("{}  {}\n", entry.sum, entry.path.display()));
    }
    let sum = hex::encode(Sha256::digest(&text));
    text.push_str(&format!("{LAST_LINE}{sum}\n"));
    let (tmp, path) = (dir.join(TMP), dir.join(NAME));
    let mut file = File::create_new(&tmp).with_context(|| format!("cannot create {}", tmp.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", tmp.display()))?;
    file.sync_all().with_context(|| format!("cannot sync {}", tmp.display()))?;
    fs::rename(&tmp, &path).with_context(|| format!("cannot rename {}", tmp.display()))?;
    sync_dir(dir)
}

/// Reads the manifest in `dir`; an error for a directory that is no whole backup.
pub fn read(dir: &Path) -> Result<Vec<Entry>> {
    let path = dir.join(NAME);
    let file = match File::open(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(
            "{} has no file {NAME}: it is no backup, or one that was not finished, for that file is written last; delete it \
             and make another with `hawkeye backup`",
            dir.display()
        ),
        result => result.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is damaged: take another backup", path.display()))
}

fn parse(text: &str) -> Result<Vec<Entry>> {
    let first = text.lines().next().unwrap_or_default();
    if first != FIRST_LINE && first.starts_with("# hawkeye backup ") {
        bail!("it begins with {first:?}, and this program knows {FIRST_LINE:?}: use the program that wrote it");
    }
    ensure!(first == FIRST_LINE, "it does not begin with {FIRST_LINE:?}");
    let end = text.rfind(LAST_LINE).context("its last line is missing")?;
    let (vouched, last) = text.split_at(end);
    let sum = last[LAST_LINE.len()..].strip_suffix('\n').context("its last line is cut off")?;
    ensure!(sum == hex::encode(Sha256::digest(vouched)), "its own checksum is wrong");
    let lines = vouched.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| parse_line(line).with_context(|| format!("line {line:?}"))).collect()
}

fn parse_line(line: &str) -> Result<Entry> {
    let (sum, path) = line.split_once("  ").context("want a checksum, two blanks and a path")?;
    ensure!(sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit()), "want 64 hex digits");
    let path = PathBuf::from(path);
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
    ensure!(is_below && path.components().next().is_some(), "the path leads out of the directory");
    Ok(Entry { path, sum: sum.to_string() })
}

/// Reads each file of `entries` in `dir`, and fails for the first that is not what the manifest says.
pub fn verify(dir: &Path, entries: &[Entry]) -> Result<()> {
    for entry in entries {
        let path = dir.join(&entry.path);
        let mut file = File::open(&path).with_context(|| format!("cannot read {} of the backup", path.display()))?;
        let sum = pass_on(&mut file, u64::MAX, &mut std::io::sink());
        let sum = sum.with_context(|| format!("cannot read {} of the backup", path.display()))?;
        ensure!(sum == entry.sum, "{} is not as it was backed up: take another backup", path.display());
    }
    Ok(())
}

/// Copies up to `len` bytes, and answers their SHA-256 in hex digits.
pub fn pass_on(from: &mut impl Read, len: u64, to: &mut impl Write) -> std::io::Result<String> {
    let (mut sum, mut buffer, mut rest) = (Sha256::new(), vec![0; BUFFER_BYTES], from.take(len));
    loop {
        let count = match rest.read(&mut buffer) {
            Ok(0) => return Ok(hex::encode(sum.finalize())),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        sum.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
    }
}

/// Copies up to `len` bytes of `from` into the new file `to`, makes them durable, and answers their checksum.
pub fn copy(from: &mut File, len: u64, to: &Path) -> Result<String> {
    let mut file = File::create_new(to).with_context(|| format!("cannot create {}", to.display()))?;
    let sum = pass_on(from, len, &mut file).with_context(|| format!("cannot write {}", to.display()))?;
    file.sync_all().with_context(|| format!("cannot sync {}", to.display()))?;
    Ok(sum)
}

/// Makes the names in `dir` durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).with_context(|| format!("cannot sync {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(entries: &[Entry]) -> Result<String> {
        let dir = tempfile::tempdir()?;
        write(dir.path(), "of a test", entries)?;
        Ok(fs::read_to_string(dir.path().join(NAME))?)
    }

    fn entry(path: &str) -> Entry {
        Entry { path: path.into(), sum: "0123456789abcdef".repeat(4) }
    }

    #[test]
    fn what_was_written_is_read() -> Result<()> {
        for entries in [vec![], vec![entry("portal.db"), entry("store/log/00000001.log")]] {
            assert_eq!(parse(&written(&entries)?)?, entries);
        }
        Ok(())
    }

    /// Each byte cut off, and each byte changed.
    #[test]
    fn damage_is_noticed() -> Result<()> {
        let text = written(&[entry("portal.db")])?;
        for at in 0..text.len() {
            assert!(parse(&text[..at]).is_err(), "cut off at {at}");
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            assert!(parse(&String::from_utf8(bytes)?).is_err(), "changed at {at}");
        }
        let other = text.replace("backup 1", "backup 2");
        assert!(format!("{:#}", parse(&other).expect_err("another version")).contains("\"# hawkeye backup 2\""));
        Ok(())
    }

    #[test]
    fn paths_lead_nowhere_else() -> Result<()> {
        for path in ["../x", "/etc/passwd", "store/../../x", "", "store/./../../x"] {
            let error = format!("{:#}", parse(&written(&[entry(path)])?).expect_err(path));
            assert!(error.contains("leads out of the directory"), "{path:?}: {error}");
        }
        Ok(())
    }
}
