//! Small file: one that a configuration names, read whole.
//!
//! Why: a named pipe, a device or a directory in its place must not hold up who reads it, and a file of another kind
//! not fill the memory.
//! Invariants: nothing but a regular file is opened; opening does not wait for another process; no more than the bytes
//! that are asked for, and one, are read.

use rustix::fs::OFlags;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What some editors begin a text with, which is none of it.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The content of a regular file of at most `bytes_max` bytes, without a byte order mark.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    // Looked at before, for opening a device may do something; and after, for it may be another by then.
    regular(&fs::metadata(path)?)?;
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    regular(&file.metadata()?)?;
    let mut bytes = Vec::new();
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes")));
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(bytes)
}

fn regular(found: &fs::Metadata) -> io::Result<()> {
    match found.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::InvalidInput, "it is no regular file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn only_regular_and_small_files_are_read() {
        let dir = std::env::temp_dir().join(format!("small_file-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("room");
        let (file, pipe) = (dir.join("file"), dir.join("pipe"));
        fs::write(&file, "\u{feff}seven b").expect("room");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        assert_eq!(read(&file, 10).expect("a file"), b"seven b");
        let error = |path: &Path| read(path, 9).expect_err("of no use").to_string();
        assert_eq!(error(&file), "it has more than 9 bytes");
        for path in [&pipe, &dir, Path::new("/dev/null"), Path::new("/dev/zero")] {
            assert_eq!(error(path), "it is no regular file", "{}", path.display());
        }
        fs::remove_dir_all(&dir).expect("it was made here");
    }
}
