//! Release: which agent a program file is, and the text that its signature is over.
//!
//! Why: the server, the operator who signs and the agent that takes a program must mean the same by a name.
//! How: `hawkeye-agent-<version>-<arch>` is a file's name; beside it `….sig` has the signature, base64 of an ed25519
//! signature over [`Release::signed_text`], which names version and machine: a signature of one program is none of
//! another, nor of the same bytes under a newer version.
//! Invariants: a version is three numbers, compared as numbers; nothing that a name holds can leave its directory.

use std::fmt;
use std::str::FromStr;

/// What names of program files begin with.
const PREFIX: &str = "hawkeye-agent-";
/// Characters of the longest name of a machine; those of Linux have at most eleven.
const ARCH_MAX: usize = 16;
/// Bytes of the largest program that is taken or offered; the agent has 5 MB.
pub const PROGRAM_MAX: u64 = 32 << 20;
/// Bytes of a signature's file: 88 characters, and room for an end of line.
pub const SIGNATURE_MAX: u64 = 128;
/// The machine that this program is for, as `uname -m` calls it.
pub const ARCH: &str = std::env::consts::ARCH;

/// A version: three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// The version of this program.
    pub fn own() -> Version {
        env!("CARGO_PKG_VERSION").parse().expect("the version in Cargo.toml is three numbers")
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Version, String> {
        let fault = || format!("{text:?} is no version: give three numbers, like \"1.2.3\"");
        // `+1` and `01` are numbers to Rust, and would be second names of one version.
        let number = |part: &str| {
            let is_plain = part == "0" || part.starts_with(|c: char| ('1'..='9').contains(&c));
            part.parse().ok().filter(|_| is_plain)
        };
        let mut parts = text.split('.').map(number);
        let mut next = || parts.next().flatten();
        let (major, minor, patch) = (next(), next(), next());
        match (major, minor, patch, parts.next()) {
            (Some(major), Some(minor), Some(patch), None) => Ok(Version { major, minor, patch }),
            _ => Err(fault()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { major, minor, patch } = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// An agent's program for one kind of machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    pub version: Version,
    arch: String,
}

impl Release {
    /// A release for a machine as `uname -m` calls it; the error says what a name is like.
    pub fn new(version: Version, arch: &str) -> Result<Release, String> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if arch.is_empty() || arch.len() > ARCH_MAX || !arch.bytes().all(is_plain) {
            return Err(format!("{arch:?} is no machine: give what `uname -m` says, like \"x86_64\""));
        }
        Ok(Release { version, arch: arch.to_string() })
    }

    /// The release that a file's name says.
    pub fn of_name(name: &str) -> Option<Release> {
        let (version, arch) = name.strip_prefix(PREFIX)?.split_once('-')?;
        Release::new(version.parse().ok()?, arch).ok()
    }

    /// The machine, as `uname -m` calls it.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// The name of the program's file.
    pub fn file_name(&self) -> String {
        format!("{PREFIX}{}-{}", self.version, self.arch)
    }

    /// The name of the signature's file.
    pub fn signature_name(&self) -> String {
        format!("{}.sig", self.file_name())
    }

    /// The text that is signed; `sha256` is that of the program's file, in lower-case hexadecimal.
    pub fn signed_text(&self, sha256: &str) -> String {
        format!("hawkeye-agent\n{}\n{}\n{sha256}\n", self.version, self.arch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().expect(text)
    }

    #[test]
    fn versions_are_numbers() {
        let older = |a: &str, b: &str| assert!(version(a) < version(b), "{a} < {b}");
        older("1.2.3", "1.2.4");
        older("1.2.9", "1.2.10");
        older("1.9.0", "1.10.0");
        older("9.9.9", "10.0.0");
        older("0.0.4294967295", "0.1.0");
        assert_eq!(version("1.2.3").to_string(), "1.2.3");
        let check = |text: &str| assert!(text.parse::<Version>().is_err(), "{text:?}");
        for text in
            ["", "1", "1.2", "1.2.3.4", "1.2.3-rc1", "v1.2.3", "1.2.03", "1.2.+3", "1.2.-3", "1.2.4294967296", "1..3"]
        {
            check(text);
        }
        assert!(Version::own() > version("0.0.0"));
    }

    #[test]
    fn names_are_read_strictly() {
        let release = Release::of_name("hawkeye-agent-1.2.3-x86_64").expect("a name");
        assert_eq!((release.version, release.arch()), (version("1.2.3"), "x86_64"));
        assert_eq!(release.file_name(), "hawkeye-agent-1.2.3-x86_64");
        assert_eq!(release.signature_name(), "hawkeye-agent-1.2.3-x86_64.sig");
        let check = |name: &str| assert_eq!(Release::of_name(name), None, "{name:?}");
        for name in [
            "",
            "hawkeye-agent",
            "hawkeye-agent-1.2.3",
            "hawkeye-agent-1.2.3-",
            "hawkeye-agent-1.2.3-x86_64.sig",
            "hawkeye-agent-1.2.3-../../x",
            "hawkeye-agent-1.2.3-x86/64",
            "hawkeye-agent-1.2-x86_64",
            "../hawkeye-agent-1.2.3-x86_64",
            "hawkeye-agent-1.2.3-X86_64",
        ] {
            check(name);
        }
        assert!(Release::new(version("1.2.3"), ARCH).is_ok(), "{ARCH}");
    }

    #[test]
    fn the_text_that_is_signed_says_all() {
        let release = Release::of_name("hawkeye-agent-1.2.3-x86_64").expect("a name");
        assert_eq!(release.signed_text("ab"), "hawkeye-agent\n1.2.3\nx86_64\nab\n");
    }
}
