//! Roots: where `/proc` and `/sys` are, and how their files are read.
//!
//! Compat: the prefix is the original's `NUX_ROOTFS` (a container sees the host's root under, say, `/rootfs`). Each
//! process sees mounts and `net/*` its own way, and `/proc/mounts` and `/proc/net` lead to those of whoever reads:
//! below a prefix, to the container's. The host's are those of its first process; the original reads the container's.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Bytes of a file that is read whole: `/proc/net/dev` with 30,000 interfaces has this size, and no other file comes
/// near.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// The directories under which `/proc` and `/sys` are found.
#[derive(Clone, Debug)]
pub struct Roots {
    pub prefix: PathBuf,
    pub proc: PathBuf,
    pub sys: PathBuf,
}

impl Roots {
    /// `prefix` is `/` unless the host's root is mounted elsewhere.
    pub fn new(prefix: impl Into<PathBuf>) -> Roots {
        let prefix = prefix.into();
        Roots { proc: prefix.join("proc"), sys: prefix.join("sys"), prefix }
    }

    pub(crate) fn read_proc(&self, name: &str) -> Result<TextFile, ProbeError> {
        TextFile::read(self.proc.join(name))
    }

    /// A file of the network of the host.
    pub(crate) fn net(&self, name: &str) -> PathBuf {
        let name = Path::new("net").join(name);
        self.of_first_process(&name).unwrap_or_else(|| self.proc.join(&name))
    }

    pub(crate) fn read_net(&self, name: &str) -> Result<TextFile, ProbeError> {
        TextFile::read(self.net(name))
    }

    /// The list of mounts as the first process calls it, or else `own`, and where the mount points in it begin.
    pub(crate) fn mounts(&self, name: &str, own: &str) -> (PathBuf, &Path) {
        match self.of_first_process(Path::new(name)) {
            Some(file) => (file, &self.prefix),
            None => (self.proc.join(own), Path::new("/")),
        }
    }

    /// A file as the first process of the host has it; none without a prefix, or where a host lets nobody look.
    fn of_first_process(&self, name: &Path) -> Option<PathBuf> {
        let file = self.proc.join("1").join(name);
        (self.prefix != Path::new("/") && File::open(&file).is_ok()).then_some(file)
    }
}

/// Reason for which a collector has no (or not all) readings, with the name of its file.
#[derive(Debug)]
pub enum ProbeError {
    Unreadable { file: PathBuf, error: io::Error },
    TooLong { file: PathBuf },
    Malformed { file: PathBuf, missing: &'static str },
}

impl ProbeError {
    /// File that could not be read or understood.
    pub fn file(&self) -> &Path {
        match self {
            ProbeError::Unreadable { file, .. } | ProbeError::TooLong { file } | ProbeError::Malformed { file, .. } => {
                file
            }
        }
    }
}

impl ProbeError {
    /// Whether there is no such file.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, ProbeError::Unreadable { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file().display();
        match self {
            ProbeError::Unreadable { error, .. } => write!(f, "cannot read {file}: {error}"),
            ProbeError::TooLong { .. } => write!(f, "cannot read {file}: longer than {FILE_BYTES_MAX} bytes"),
            ProbeError::Malformed { missing, .. } => write!(f, "cannot understand {file}: no {missing} in it"),
        }
    }
}

impl std::error::Error for ProbeError {}

/// A file's text together with its path, so that whoever misses something in it can say where.
pub(crate) struct TextFile {
    pub file: PathBuf,
    pub text: String,
}

impl TextFile {
    pub fn read(file: PathBuf) -> Result<TextFile, ProbeError> {
        let mut bytes = Vec::new();
        read_into(&file, &mut bytes)?;
        // Mount points and process names may be any bytes; a strange one must not hide the others.
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
        };
        Ok(TextFile { file, text })
    }

    pub fn missing(&self, what: &'static str) -> ProbeError {
        ProbeError::Malformed { file: self.file.clone(), missing: what }
    }
}

/// Replaces `out` by the file's bytes.
pub(crate) fn read_into(file: &Path, out: &mut Vec<u8>) -> Result<(), ProbeError> {
    out.clear();
    let read = File::open(file).and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(out));
    match read {
        Ok(_) if out.len() as u64 > FILE_BYTES_MAX => Err(ProbeError::TooLong { file: file.to_path_buf() }),
        Ok(_) => Ok(()),
        Err(error) => Err(ProbeError::Unreadable { file: file.to_path_buf(), error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_file() {
        let roots = Roots::new("/nowhere");
        let Err(error) = roots.read_proc("stat") else { panic!("there is no such file") };
        assert_eq!(error.file(), Path::new("/nowhere/proc/stat"));
        assert!(error.to_string().starts_with("cannot read /nowhere/proc/stat: "), "{error}");
    }

    #[test]
    fn endless_files_are_refused() {
        let mut bytes = Vec::new();
        let error = read_into(Path::new("/dev/zero"), &mut bytes).expect_err("endless");
        assert!(matches!(error, ProbeError::TooLong { .. }), "{error}");
    }
}
