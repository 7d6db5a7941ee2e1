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

#[cfg(not(target_env = "gnu"))]
pub fn c_heap() -> Option<CHeap> {
    None
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use super::*;

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
