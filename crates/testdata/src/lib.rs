//! Recordings for tests: the files of the repository's folder `testdata/`, by their names in that folder.
//!
//! Why: compatibility with Open-Falcon is pinned by what its programs sent. Tests of five crates read those 4 MB; one
//! place knows where they lie and what happens when one is missing.
//! How: paths are built from the place of this crate's manifest, so the working folder of a test does not matter.
//! Invariants: a missing or unreadable recording is a panic that names the file; no test passes without having compared
//! anything. Only `[dev-dependencies]` name this crate.

use flate2::read::GzDecoder;
use std::fs;
use std::path::{Path, PathBuf};

/// Path of a file or folder in `testdata/`; panics where there is none.
pub fn path(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name);
    assert!(path.exists(), "the recording {} is missing; restore it: git checkout -- testdata", path.display());
    path
}

/// Content of a recording.
pub fn bytes(name: &str) -> Vec<u8> {
    let path = path(name);
    fs::read(&path).unwrap_or_else(|error| panic!("cannot read the recording {}: {error}", path.display()))
}

/// Content of a recording that is text.
pub fn text(name: &str) -> String {
    String::from_utf8(bytes(name)).unwrap_or_else(|error| panic!("the recording testdata/{name} is no text: {error}"))
}

/// Content of a recorded text that is packed with gzip.
pub fn gunzip(name: &str) -> String {
    let packed = bytes(name);
    std::io::read_to_string(GzDecoder::new(&packed[..]))
        .unwrap_or_else(|error| panic!("cannot unpack the recording testdata/{name}: {error}"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_missing_recording_is_named() {
        let panic = std::panic::catch_unwind(|| super::bytes("gob/no-such.bin")).expect_err("there is no such file");
        let text = panic.downcast_ref::<String>().expect("a formatted text");
        assert!(text.contains("testdata/gob/no-such.bin is missing"), "{text}");
    }
}
