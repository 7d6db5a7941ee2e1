//! Code pages: the resident pages of the program's own code, given back to the system.
//!
//! Why: a start reads configurations, opens files, makes tables and talks to databases, with code that nothing needs
//! afterwards; that code stays resident, half of an empty server's memory, until the kernel is short of memory. Of the
//! pages given back only those in use come again: from the page cache, a microsecond per 64 KiB.
//! How: `/proc/self/maps` says where the executable's code lies; `madvise` forgets the pages.
//! Invariants: only mappings that are executable and not writable are touched, so a page holds nothing that is not in
//! the file too.

use std::io;

/// Forgets the resident pages of the program's code; answers how many bytes of address space they fill. Threads that
/// run meanwhile read their pages again.
pub fn forget_code_pages() -> io::Result<usize> {
    let program = std::fs::read_link("/proc/self/exe")?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let program = program.to_string_lossy();
    let mut bytes = 0;
    for (start, end) in maps.lines().filter_map(|line| code_of(line, &program)) {
        // SAFETY: the range is a mapping of this process, which is private to it, comes from a file and cannot be
        // written; forgetting its pages has them read again from that file. Nobody unmaps the program.
        let result = unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        bytes += end - start;
    }
    Ok(bytes)
}

/// The range of a line of `maps`, if it is code of this program.
fn code_of(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, access) = (fields.next()?, fields.next()?);
    if access != "r-xp" || !line.ends_with(program) {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_is_meant() {
        let check = |line: &str, expected| assert_eq!(code_of(line, "/usr/bin/hawkeye"), expected, "{line}");
        check("1000-3000 r-xp 00001000 fe:00 7   /usr/bin/hawkeye", Some((0x1000, 0x3000)));
        check("1000-3000 r--p 00001000 fe:00 7   /usr/bin/hawkeye", None);
        check("1000-3000 rw-p 00001000 fe:00 7   /usr/bin/hawkeye", None);
        check("1000-3000 rwxp 00001000 fe:00 7   /usr/bin/hawkeye", None);
        check("1000-3000 r-xp 00001000 fe:00 7   /usr/lib/libc.so.6", None);
        check("1000-3000 r-xp 00000000 00:00 0   [vdso]", None);
        check("", None);
    }

    #[test]
    fn the_program_goes_on() {
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
            statm.split(' ').nth(2).and_then(|pages| pages.parse::<usize>().ok()).expect("shared pages")
        };
        // Other tests bring pages of their own meanwhile, but not each time.
        let gives_back = |_| {
            let before = resident();
            let bytes = forget_code_pages().expect("Linux");
            assert!(bytes > 100_000, "{bytes}");
            resident() < before
        };
        assert!((0..1000).any(gives_back), "pages stay");
    }
}
