//! Shelf: the directory of programs that were taken, and what became of them.
//!
//! Why: a program that dies at its start cannot put its predecessor back. Who counts its starts must be another one:
//! the program that root installed, which stays as it is and begins each start (`launch`).
//! How: each program is a file with its signature beside it, both verified at each start again. `tried` has the version
//! that was started last and how often, `proven` the one that hbs has heard, which is counted no more; `refused` has a
//! line per version that is not tried again. A program on its way is a `.part`, which a cut connection leaves to go on
//! from.
//! Invariants: the signature is in its place before its program, the start is written before it is made; what cannot
//! be written is not started. Names come from [`Release`] alone. Files here are for one process at a time.
//! Memory: a chunk of the file that is read; the notes have at most [`NOTE_MAX`] bytes.

use crate::release::{PROGRAM_MAX, Release, SIGNATURE_MAX, Version};
use crate::signature::{PublicKey, sha256_of};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use stdx::small_file;

/// Starts that a program has to be heard by hbs: one may end with the host, two with the host and a fault. With that of
/// the program before they are four within the ten seconds in which systemd gives up after five.
pub const STARTS_MAX: u32 = 3;
/// Versions that are remembered as refused; the oldest are older than what runs.
const REFUSED_MAX: usize = 16;
/// Bytes of a note: 16 lines of 300.
const NOTE_MAX: u64 = 8 << 10;
/// Bytes of a reason that are kept.
const REASON_BYTES: usize = 250;
/// Files of the directory that are looked at: two programs, their signatures, the notes, and as many again.
const FILES_MAX: usize = 64;

const TRIED: &str = "tried";
const PROVEN: &str = "proven";
const REFUSED: &str = "refused";

/// A program that hbs offers: verified by its signature, not yet here.
#[derive(Clone, Debug, PartialEq)]
pub struct Offer {
    pub release: Release,
    /// Bytes of the program.
    pub size: u64,
    /// Digest of the program, in lower-case hexadecimal.
    pub sha256: String,
    /// Base64 of the signature.
    pub signature: String,
}

/// The directory of programs.
#[derive(Clone, Debug)]
pub struct Shelf {
    dir: PathBuf,
}

impl Shelf {
    /// A shelf in `dir`, which is made when something is put there.
    pub fn new(dir: &Path) -> Shelf {
        Shelf { dir: dir.to_path_buf() }
    }

    /// The file that says which versions are not tried again.
    pub fn refused_path(&self) -> PathBuf {
        self.dir.join(REFUSED)
    }

    /// Programs for `arch` that are newer than `than` and not refused, the newest first.
    pub fn newer(&self, than: Version, arch: &str) -> Vec<Release> {
        let refused = self.refused();
        let is_wanted = |release: &Release| {
            release.arch() == arch
                && release.version > than
                && refused.iter().all(|(version, _)| *version != release.version)
        };
        let mut found: Vec<Release> =
            self.names().iter().filter_map(|name| Release::of_name(name)).filter(is_wanted).collect();
        found.sort_by_key(|release| std::cmp::Reverse(release.version));
        found
    }

    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        entries.take(FILES_MAX).filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
    }

    /// The path of a program that is what `key` has signed.
    pub fn verified(&self, release: &Release, key: &PublicKey) -> Result<PathBuf, String> {
        let path = self.dir.join(release.file_name());
        let signature = small_file::read(&self.dir.join(release.signature_name()), SIGNATURE_MAX);
        let signature = signature.map_err(|error| format!("{} has no signature: {error}", path.display()))?;
        let (sha256, _) = File::open(&path)
            .and_then(sha256_of)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        key.verify(release, &sha256, &String::from_utf8_lossy(&signature))?;
        Ok(path)
    }

    /// Takes a program away that is not what its signature says.
    pub fn discard(&self, release: &Release) {
        for name in [release.file_name(), release.signature_name()] {
            // What is not there is gone, and what cannot be removed is verified again.
            let _ = fs::remove_file(self.dir.join(name));
        }
    }

    /// Notes that a program is started now; answers how many starts it has had since it was taken, this one included,
    /// and 0 for one that is proven.
    pub fn begin(&self, version: Version) -> io::Result<u32> {
        if self.is_proven(version) {
            return Ok(0);
        }
        let tried = self.note(TRIED).and_then(|text| {
            let (tried, starts) = text.trim_end().split_once(' ')?;
            (tried.parse() == Ok(version)).then(|| starts.parse().ok())?
        });
        let starts = tried.unwrap_or(0_u32).saturating_add(1);
        self.write_note(TRIED, &format!("{version} {starts}\n"))?;
        Ok(starts)
    }

    /// Whether hbs has heard this version on this host.
    pub fn is_proven(&self, version: Version) -> bool {
        self.note(PROVEN).is_some_and(|text| text.trim_end().parse() == Ok(version))
    }

    /// Notes that hbs has heard this version.
    pub fn prove(&self, version: Version) -> io::Result<()> {
        self.write_note(PROVEN, &format!("{version}\n"))
    }

    /// Notes that this version is not tried again, and why.
    pub fn refuse(&self, version: Version, why: &str) -> io::Result<()> {
        let mut refused = self.refused();
        refused.retain(|(known, _)| *known != version);
        refused.push((version, one_line(why)));
        let first = refused.len().saturating_sub(REFUSED_MAX);
        let lines: Vec<String> = refused[first..].iter().map(|(version, why)| format!("{version} {why}\n")).collect();
        self.write_note(REFUSED, &lines.concat())
    }

    /// Versions that are not tried again, with the reasons.
    pub fn refused(&self) -> Vec<(Version, String)> {
        let text = self.note(REFUSED).unwrap_or_default();
        let read = |line: &str| {
            let (version, why) = line.split_once(' ').unwrap_or((line, ""));
            Some((version.parse().ok()?, why.to_string()))
        };
        text.lines().filter_map(read).collect()
    }

    /// Bytes of an offer's program that are here; a part that is longer than the whole is begun anew.
    pub fn bytes_of(&self, offer: &Offer) -> io::Result<u64> {
        self.make_dir()?;
        match fs::metadata(self.part(offer)) {
            Ok(found) if found.is_file() && found.len() <= offer.size => Ok(found.len()),
            Ok(_) => fs::remove_file(self.part(offer)).map(|()| 0),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Appends the bytes at `offset` of an offer's program.
    pub fn append(&self, offer: &Offer, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.part(offer))?;
        let written = file.metadata()?.len();
        if written != offset {
            return Err(io::Error::other(format!(
                "the part has {written} bytes, want {offset}: another process writes it"
            )));
        }
        let result = file.write_all(bytes);
        if result.is_err() {
            // A full disk takes some of the bytes: without them the next try goes on from here.
            let _ = file.set_len(offset);
        }
        result
    }

    /// The path of a program that is here as a whole, and can be run to look at it. One that is not what was signed is
    /// removed.
    pub fn complete(&self, offer: &Offer) -> Result<PathBuf, String> {
        let path = self.part(offer);
        let looked = || -> io::Result<(String, u64)> {
            let file = File::open(&path)?;
            file.sync_all()?;
            let found = sha256_of(&file)?;
            fs::set_permissions(&path, Permissions::from_mode(0o700))?;
            Ok(found)
        };
        let (sha256, bytes) = looked().map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        if (sha256.as_str(), bytes) != (offer.sha256.as_str(), offer.size) {
            let _ = fs::remove_file(&path);
            return Err(format!(
                "hbs sent {bytes} bytes with digest {sha256} for {}, want {} with {}",
                offer.release.file_name(),
                offer.size,
                offer.sha256
            ));
        }
        Ok(path)
    }

    /// Puts a program that is complete into its place, from which the next start takes it.
    pub fn put(&self, offer: &Offer) -> io::Result<()> {
        self.write_note(&offer.release.signature_name(), &format!("{}\n", offer.signature.trim()))?;
        fs::rename(self.part(offer), self.dir.join(offer.release.file_name()))?;
        self.sync_dir()
    }

    /// Removes what no start will want: parts but that of `wanted`, and programs that are neither newer than
    /// `installed` nor `running`.
    pub fn tidy(&self, installed: Version, running: Version, wanted: Option<&Offer>) {
        let part = wanted.and_then(|offer| self.part(offer).file_name()?.to_str().map(str::to_string));
        let is_old = |name: &str| {
            let program = name.strip_suffix(".sig").unwrap_or(name);
            Release::of_name(program).is_some_and(|release| release.version < running || release.version <= installed)
        };
        for name in self.names() {
            let is_left = name.ends_with(".part") && part.as_deref() != Some(&name);
            if is_left || name.ends_with(".new") || is_old(&name) {
                let _ = fs::remove_file(self.dir.join(name));
            }
        }
    }

    fn part(&self, offer: &Offer) -> PathBuf {
        let begin = offer.sha256.get(..16).unwrap_or(&offer.sha256);
        self.dir.join(format!("{}-{begin}.part", offer.release.file_name()))
    }

    fn make_dir(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)
    }

    fn note(&self, name: &str) -> Option<String> {
        String::from_utf8(small_file::read(&self.dir.join(name), NOTE_MAX).ok()?).ok()
    }

    fn write_note(&self, name: &str, text: &str) -> io::Result<()> {
        self.make_dir()?;
        let (path, new) = (self.dir.join(name), self.dir.join(format!("{name}.new")));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(new, path)?;
        self.sync_dir()
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

/// The begin of a reason, on one line.
fn one_line(why: &str) -> String {
    let mut end = why.len().min(REASON_BYTES);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    why[..end].replace(char::is_control, " ")
}

/// Checks what hbs says of a program: whether this host can take it, is older than it, and the operator has signed it.
pub fn check_offer(offer: &Offer, own: Version, arch: &str, key: &PublicKey) -> Result<(), String> {
    let (release, name) = (&offer.release, offer.release.file_name());
    if release.arch() != arch {
        return Err(format!("hbs offers {name}, and this is {arch}"));
    }
    if release.version <= own {
        return Err(format!("hbs offers {name}, which is not newer than {own}: agents are never downgraded"));
    }
    if !(1..=PROGRAM_MAX).contains(&offer.size) {
        return Err(format!("hbs offers {name} with {} bytes, want 1 to {PROGRAM_MAX}", offer.size));
    }
    let is_digest =
        offer.sha256.len() == 64 && offer.sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !is_digest {
        return Err(format!(
            "hbs offers {name} with the digest {:?}, want 64 hexadecimal digits",
            one_line(&offer.sha256)
        ));
    }
    if offer.signature.len() as u64 > SIGNATURE_MAX {
        return Err(format!("hbs offers {name} with a signature of {} bytes", offer.signature.len()));
    }
    key.verify(release, &offer.sha256, &offer.signature)
}
