//! Fake disk: files in memory that lose, after a power cut, what was not synced; that run full; that die mid-write.
//!
//! Why: crash safety is a claim about every write position, and only a disk that stops at each of them can check it.
//! How: every file keeps what was synced, what a reader sees now, and the writes between the two. A power cut keeps
//! each of those writes whole, in part, or not at all, by chance; names in a directory likewise until the directory is
//! synced. A killed process (as opposed to a cut) loses nothing that was written.
//! Invariants: deterministic for a given seed; after the cut everything fails until `restart_after_power_cut`.

use crate::disk::{Disk, DiskFile};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// A disk in memory; clones are the same disk.
#[derive(Clone, Default)]
pub struct FakeDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    names_synced: BTreeMap<PathBuf, usize>,
    locks: BTreeSet<PathBuf>,
    /// Bytes that may still be written before the disk is full.
    room: Option<u64>,
    /// Writes, syncs and name changes so far: the positions at which a cut can be planned.
    operations: u64,
    cut_at: Option<u64>,
    sync_fails: bool,
    failed_sync_drops: bool,
    remove_fails: bool,
    dead: bool,
    /// Counts restarts; files opened before one are refused after it.
    life: u64,
}

#[derive(Default)]
struct Inode {
    synced: Vec<u8>,
    now: Vec<u8>,
    pending: Vec<Change>,
    /// End of the bytes for which room was set aside.
    reserved_end: u64,
}

enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

impl FakeDisk {
    /// Sets how many bytes may still be written; `None` is without end.
    pub fn set_room(&self, room: Option<u64>) {
        self.state().room = room;
    }

    /// Makes syncs fail while set; what they were to make durable is lost to the disk for good though readers still see
    /// it: so do the caches of operating systems, and a later sync that succeeds says nothing about it.
    pub fn set_sync_fails(&self, fails: bool) {
        self.state().sync_fails = fails;
    }

    /// Makes a failed sync forget what it was to make durable, for readers too: as a kernel that drops such pages.
    pub fn set_failed_sync_drops(&self, drops: bool) {
        self.state().failed_sync_drops = drops;
    }

    /// Makes removing files fail while set.
    pub fn set_remove_fails(&self, fails: bool) {
        self.state().remove_fails = fails;
    }

    /// Plans that the power goes off in the middle of operation number `operation` (counted by `operations`).
    pub fn cut_power_at(&self, operation: u64) {
        self.state().cut_at = Some(operation);
    }

    /// Number of writes, syncs and name changes so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Brings the power back: what was synced is there, of the rest what chance (`seed`) kept.
    pub fn restart_after_power_cut(&self, seed: u64) {
        let mut chance = Chance(seed);
        let state = &mut *self.state();
        let paths: BTreeSet<PathBuf> = state.names.keys().chain(state.names_synced.keys()).cloned().collect();
        for path in paths {
            if chance.below(2) == 0 {
                continue;
            }
            match state.names_synced.get(&path) {
                Some(inode) => state.names.insert(path, *inode),
                None => state.names.remove(&path),
            };
        }
        state.names_synced = state.names.clone();
        for inode in &mut state.inodes {
            inode.lose_unsynced(&mut chance);
        }
        state.restart();
    }

    /// Starts again as after a kill of the process: everything written is there.
    pub fn restart_after_kill(&self) {
        self.state().restart();
    }

    /// Flips one bit of a file, as rot does.
    pub fn corrupt(&self, path: &Path, offset: u64) {
        let state = &mut *self.state();
        let inode = &mut state.inodes[state.names[path]];
        inode.now[offset as usize] ^= 0x10;
        inode.synced = inode.now.clone();
    }

    /// Names of all files, for tests that look for one.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.state().names.keys().cloned().collect()
    }

    /// The content of a file as a reader sees it.
    pub fn content(&self, path: &Path) -> Vec<u8> {
        let state = self.state();
        state.inodes[state.names[path]].now.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics while holding the fake disk")
    }

    fn file(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.alive()?;
        let inode = match state.names.get(path) {
            Some(inode) => *inode,
            None if create => {
                state.operation()?;
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.names.insert(path.to_path_buf(), inode);
                inode
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Arc::new(FakeFile { disk: self.clone(), inode, life: state.life }))
    }
}

impl State {
    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("power is off")) } else { Ok(()) }
    }

    /// Counts an operation; fails it when the planned cut is here.
    fn operation(&mut self) -> io::Result<()> {
        self.alive()?;
        self.operations += 1;
        if self.cut_at.is_some_and(|at| self.operations > at) {
            self.dead = true;
        }
        self.alive()
    }

    fn restart(&mut self) {
        self.dead = false;
        self.cut_at = None;
        self.room = None;
        self.sync_fails = false;
        self.remove_fails = false;
        self.locks.clear();
        self.life += 1;
    }
}

impl Inode {
    fn apply(content: &mut Vec<u8>, change: &Change) {
        match change {
            Change::SetLen(len) => content.resize(*len as usize, 0),
            Change::Write(offset, bytes) => {
                let (start, end) = (*offset as usize, *offset as usize + bytes.len());
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[start..end].copy_from_slice(bytes);
            }
        }
    }

    fn change(&mut self, change: Change) {
        Inode::apply(&mut self.now, &change);
        self.pending.push(change);
    }

    fn lose_unsynced(&mut self, chance: &mut Chance) {
        for mut change in self.pending.drain(..) {
            match chance.below(3) {
                0 => continue,
                1 => {
                    if let Change::Write(_, bytes) = &mut change {
                        let kept = chance.below(bytes.len() as u64 + 1) as usize;
                        bytes.truncate(kept);
                    }
                }
                _ => {}
            }
            Inode::apply(&mut self.synced, &change);
        }
        self.now = self.synced.clone();
    }
}

impl Disk for FakeDisk {
    fn create_dir(&self, _dir: &Path) -> io::Result<()> {
        self.state().alive()
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        let names = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_string())).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(path, false)
    }

    fn open_or_create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.file(path, true)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_path_buf(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        if state.remove_fails {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        state.names.remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operation()?;
        let state = &mut *state;
        state.names_synced.retain(|path, _| path.parent() != Some(dir));
        let names = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        state.names_synced.extend(names.map(|(path, inode)| (path.clone(), *inode)));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Any + Send + Sync>> {
        let mut state = self.state();
        state.alive()?;
        if !state.locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(FakeLock { disk: self.clone(), path: path.to_path_buf(), life: state.life }))
    }
}

struct FakeLock {
    disk: FakeDisk,
    path: PathBuf,
    life: u64,
}

impl Drop for FakeLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

struct FakeFile {
    disk: FakeDisk,
    inode: usize,
    life: u64,
}

impl FakeFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        state.alive()?;
        if state.life != self.life {
            return Err(io::Error::other("file was opened before the restart"));
        }
        Ok(state)
    }
}

impl DiskFile for FakeFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.inodes[self.inode].now.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.state()?;
        let content = &state.inodes[self.inode].now;
        let start = offset as usize;
        let bytes = content.get(start..start + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state()?;
        let result = state.operation();
        // A cut in the middle of this write leaves it pending: chance decides how much of it stays.
        let reserved = state.inodes[self.inode].reserved_end.saturating_sub(offset).min(buf.len() as u64);
        let fits = state.room.map_or(u64::MAX, |room| room + reserved).min(buf.len() as u64) as usize;
        state.inodes[self.inode].change(Change::Write(offset, buf[..fits].to_vec()));
        result?;
        if let Some(room) = &mut state.room {
            *room -= (fits as u64).saturating_sub(reserved);
        }
        if fits < buf.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.operation()?;
        let inode = &mut state.inodes[self.inode];
        let given_back = inode.reserved_end.saturating_sub(len.max(inode.now.len() as u64));
        inode.reserved_end = inode.reserved_end.min(len);
        inode.change(Change::SetLen(len));
        if let Some(room) = &mut state.room {
            *room += given_back;
        }
        Ok(())
    }

    fn reserve(&self, from: u64, end: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.operation()?;
        let more = end.saturating_sub(state.inodes[self.inode].reserved_end.max(from));
        if let Some(room) = &mut state.room {
            *room = room.checked_sub(more).ok_or(io::ErrorKind::StorageFull)?;
        }
        let inode = &mut state.inodes[self.inode];
        inode.reserved_end = inode.reserved_end.max(end);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.operation()?;
        let (fails, drops) = (state.sync_fails, state.failed_sync_drops);
        let Inode { synced, now, pending, .. } = &mut state.inodes[self.inode];
        if fails {
            pending.clear();
            if drops {
                let len = now.len();
                now.clone_from(synced);
                now.resize(len, 0);
            }
            return Err(io::Error::other("sync failed"));
        }
        pending.drain(..).for_each(|change| Inode::apply(synced, &change));
        Ok(())
    }
}

/// A small generator (splitmix64): enough chance for choosing what is lost.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_bytes_survive_every_cut_and_unsynced_ones_do_not_survive_all() {
        let mut lost = 0;
        for seed in 0..64 {
            let disk = FakeDisk::default();
            let (dir, path) = (Path::new("d"), Path::new("d/f"));
            let file = disk.open_or_create(path).expect("new file");
            file.write_at(b"synced", 0).expect("room");
            file.sync().expect("sync");
            disk.sync_dir(dir).expect("sync");
            file.write_at(b"unsynced", 6).expect("room");
            disk.restart_after_power_cut(seed);
            let content = disk.content(path);
            assert!(content.starts_with(b"synced"));
            assert!(b"syncedunsynced".starts_with(content.as_slice()));
            lost += usize::from(content.len() < 14);
            assert!(file.len().is_err(), "handles do not outlive a restart");
        }
        assert!((1..64).contains(&lost));
    }

    #[test]
    fn what_a_failed_sync_lost_no_later_one_brings_back() {
        let disk = FakeDisk::default();
        let path = Path::new("d/f");
        let file = disk.open_or_create(path).expect("new file");
        disk.sync_dir(Path::new("d")).expect("sync");
        file.write_at(b"lost", 0).expect("room");
        disk.set_sync_fails(true);
        file.sync().expect_err("as asked");
        disk.set_sync_fails(false);
        file.write_at(b"kept", 4).expect("room");
        file.sync().expect("sync");
        assert_eq!(disk.content(path), b"lostkept", "as a reader sees it");
        disk.restart_after_power_cut(1);
        assert_eq!(disk.content(path), b"\0\0\0\0kept");
    }

    #[test]
    fn a_full_disk_keeps_a_prefix() {
        let disk = FakeDisk::default();
        let file = disk.open_or_create(Path::new("f")).expect("new file");
        disk.set_room(Some(3));
        let error = file.write_at(b"abcdef", 0).expect_err("no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert_eq!(disk.content(Path::new("f")), b"abc");
    }

    #[test]
    fn a_full_disk_takes_what_room_was_set_aside_for() {
        let disk = FakeDisk::default();
        let file = disk.open_or_create(Path::new("f")).expect("new file");
        disk.set_room(Some(10));
        file.write_at(b"ab", 0).expect("room");
        assert_eq!(file.reserve(2, 11).expect_err("no room").kind(), io::ErrorKind::StorageFull);
        file.reserve(2, 6).expect("room");
        disk.set_room(Some(1));
        file.write_at(b"cdef", 2).expect("room that was set aside");
        file.write_at(b"gh", 6).expect_err("no room");
        assert_eq!(disk.content(Path::new("f")), b"abcdefg");
        file.set_len(3).expect("a file");
        file.write_at(b"d", 3).expect_err("what was set aside is gone with the length");
    }
}
