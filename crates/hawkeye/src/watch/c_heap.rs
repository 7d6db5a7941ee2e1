//! C heap: memory that libraries written in C take from the C library's allocator, which is not the program's.
//!
//! Why: SQLite and the resolver of names take their memory there, and no figure of the program's own allocator has it.
//! Where the C library keeps no such figures (musl), there are none.

/// Bytes that the C library's allocator has handed out, and bytes that it has taken from the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CHeap {
    pub in_use: usize,
    pub taken: usize,
}

#[cfg(target_env = "gnu")]
pub fn c_heap() -> Option<CHeap> {
    // SAFETY: `mallinfo2` takes nothing and answers plain numbers; it may be called at any time from any thread.
    let info = unsafe { libc::mallinfo2() };
    Some(CHeap { in_use: info.uordblks + info.hblkhd, taken: info.arena + info.hblkhd })
}

/// Gives whole pages that the C library's allocator has free back to the system, which it does by itself only at the
/// end of its heap: a question for whole tables leaves megabytes behind.
#[cfg(target_env = "gnu")]
pub fn give_back() {
    // SAFETY: `malloc_trim` takes a number and touches free memory only; it may be called at any time from any thread.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
pub fn give_back() {}

#[cfg(not(target_env = "gnu"))]
pub fn c_heap() -> Option<CHeap> {
    None
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

    /// Blocks that stay between others keep the pages of those, until they are given back.
    #[test]
    fn what_is_free_is_given_back() {
        const BLOCKS: usize = 16_384;
        const BYTES: usize = 2048;
        let resident = || {
            let text = std::fs::read_to_string("/proc/self/status").expect("status");
            let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
            line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
        };
        // SAFETY: allocated, written to and freed here.
        unsafe {
            let blocks: Vec<*mut libc::c_void> = (0..BLOCKS).map(|_| libc::malloc(BYTES)).collect();
            blocks.iter().for_each(|block| _ = libc::memset(std::hint::black_box(*block), 1, BYTES));
            let (stay, go): (Vec<usize>, Vec<usize>) = (0..BLOCKS).partition(|at| at % 64 == 0);
            go.iter().for_each(|at| libc::free(blocks[*at]));
            let before = resident();
            give_back();
            let after = resident();
            stay.iter().for_each(|at| libc::free(blocks[*at]));
            assert!(after + BLOCKS * BYTES / 2 < before, "{before} {after}");
        }
    }

    #[test]
    fn grows_with_what_c_takes() {
        const BYTES: usize = 8 << 20;
        let before = c_heap().expect("glibc");
        // SAFETY: allocated, looked at and freed here.
        let after = unsafe {
            let block = libc::malloc(BYTES);
            assert!(!std::hint::black_box(block).is_null());
            let after = c_heap().expect("glibc");
            libc::free(block);
            after
        };
        assert!(after.in_use >= before.in_use + BYTES / 2 && after.taken >= after.in_use, "{before:?} {after:?}");
    }
}
