//! CPU samples: where the threads of this process are, each time they have used another 10 ms of processor together.
//!
//! Why not a library: the usual one prepares 16,384 stacks of 128 frames in memory at its first use and keeps them (34
//! to 80 MB), which is more than the server under test has. Here a sampling holds a buffer for what it may collect, and
//! nothing afterwards.
//! How: `setitimer(ITIMER_PROF)` makes the kernel send SIGPROF to a thread that is running; the handler follows the
//! frame pointers (`-C force-frame-pointers=yes` in .cargo/config.toml) and appends one record, length and addresses,
//! to a buffer that was made before.
//! Invariants: the handler takes no lock, allocates nothing, and touches no memory that may not be there: frames are
//! read by `process_vm_readv` on ourselves, which answers an error where a plain read would crash. One sampling at a
//! time. The handler stays installed, since a signal may be on its way when the timer stops, and SIGPROF ends a process
//! that has none.
//! Memory: 8 bytes per address, at most [`WORDS_MAX`] of them, while sampling; samples that do not fit are counted.
//! Where this system is not Linux on x86-64 or ARM64, a stack is only its top.

use std::cell::UnsafeCell;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// Processor time between two samples.
pub const PERIOD: Duration = Duration::from_millis(10);

/// Frames of one stack; deeper callers are cut off.
const FRAMES_MAX: usize = 64;

/// Words of the buffer, 2 MiB: 30 s of two busy processors with stacks of 40 frames.
const WORDS_MAX: usize = 256 << 10;

/// Addresses of samples, the innermost first.
#[derive(Default)]
pub struct Samples {
    words: Vec<usize>,
    /// Samples that had no room.
    pub dropped: usize,
}

impl Samples {
    /// The stacks, as addresses to return to; the first of each is the very instruction.
    pub fn stacks(&self) -> impl Iterator<Item = &[usize]> {
        let mut rest = &self.words[..];
        std::iter::from_fn(move || {
            let (len, tail) = rest.split_first().filter(|(len, _)| **len > 0)?;
            let (stack, tail) = tail.split_at_checked(*len)?;
            rest = tail;
            Some(stack)
        })
    }
}

/// A sampling that runs until [`Sampling::finish`] or its drop.
pub struct Sampling {
    buffer: Box<Buffer>,
}

struct Buffer {
    words: Box<[UnsafeCell<usize>]>,
    used: AtomicUsize,
    dropped: AtomicUsize,
}

/// The buffer of the sampling under way, or null.
static BUFFER: AtomicPtr<Buffer> = AtomicPtr::new(ptr::null_mut());
/// Handlers that may be using the buffer.
static HANDLERS: AtomicUsize = AtomicUsize::new(0);
static RUNNING: AtomicBool = AtomicBool::new(false);

impl Sampling {
    /// Begins to sample; `WouldBlock` while another sampling runs.
    pub fn start() -> io::Result<Sampling> {
        if RUNNING.swap(true, SeqCst) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "another CPU profile is being taken"));
        }
        let words = (0..WORDS_MAX).map(|_| UnsafeCell::new(0)).collect();
        let mut buffer = Box::new(Buffer { words, used: AtomicUsize::new(0), dropped: AtomicUsize::new(0) });
        BUFFER.store(&mut *buffer, SeqCst);
        let sampling = Sampling { buffer };
        install_handler()?;
        set_timer(PERIOD)?;
        Ok(sampling)
    }

    /// Bytes of the buffer.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Buffer>() + self.buffer.words.len() * size_of::<usize>()
    }

    /// Stops sampling, and gives the samples.
    pub fn finish(mut self) -> Samples {
        self.stop();
        let used = self.buffer.used.load(SeqCst).min(WORDS_MAX);
        let words = self.buffer.words[..used].iter_mut().map(|word| *word.get_mut()).collect();
        Samples { words, dropped: self.buffer.dropped.load(SeqCst) }
    }

    fn stop(&self) {
        // An error cannot be: the timer is known and the time is zero.
        let _ = set_timer(Duration::ZERO);
        BUFFER.store(ptr::null_mut(), SeqCst);
        while HANDLERS.load(SeqCst) > 0 {
            std::thread::yield_now();
        }
    }
}

impl Drop for Sampling {
    fn drop(&mut self) {
        self.stop();
        RUNNING.store(false, SeqCst);
    }
}

fn install_handler() -> io::Result<()> {
    // SAFETY: `action` is a valid sigaction: all zero is "no flags, empty mask", and the handler has the signature that
    // SA_SIGINFO asks for. The handler is async-signal-safe: it uses atomics, its stack and system calls only.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_signal;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &action, ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_timer(period: Duration) -> io::Result<()> {
    let interval = libc::timeval { tv_sec: 0, tv_usec: period.as_micros() as libc::suseconds_t };
    let timer = libc::itimerval { it_interval: interval, it_value: interval };
    // SAFETY: `timer` outlives the call, and null is "the old one is not wanted".
    let result = unsafe { libc::setitimer(libc::ITIMER_PROF, &timer, ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_signal(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    HANDLERS.fetch_add(1, SeqCst);
    let buffer = BUFFER.load(SeqCst);
    if !buffer.is_null() {
        // SAFETY: whoever frees the buffer sets BUFFER to null first and then waits until no handler is counted; this
        // one was counted before it read BUFFER, so the buffer lives until the count is taken back below.
        record(unsafe { &*buffer }, context);
    }
    HANDLERS.fetch_sub(1, SeqCst);
}

fn record(buffer: &Buffer, context: *mut libc::c_void) {
    let mut stack = [0usize; FRAMES_MAX];
    let len = walk(context, &mut stack);
    if len == 0 {
        return;
    }
    let start = buffer.used.fetch_add(len + 1, SeqCst);
    let Some(place) = buffer.words.get(start..start + len + 1) else {
        // What is left stays zero, where reading ends.
        buffer.dropped.fetch_add(1, SeqCst);
        return;
    };
    let record = std::iter::once(len).chain(stack[..len].iter().copied());
    for (word, value) in place.iter().zip(record) {
        // SAFETY: `fetch_add` gave this range to this handler alone, and nobody reads before all handlers are done.
        unsafe { *word.get() = value };
    }
}

/// Fills `stack` from the interrupted instruction outwards; returns how many frames it has.
fn walk(context: *mut libc::c_void, stack: &mut [usize; FRAMES_MAX]) -> usize {
    let Some((instruction, mut frame)) = registers(context) else { return 0 };
    stack[0] = instruction;
    let mut len = 1;
    while len < FRAMES_MAX {
        let Some([caller_frame, return_address]) = read_pair(frame) else { break };
        if return_address == 0 {
            break;
        }
        stack[len] = return_address;
        len += 1;
        // Stacks grow downwards: callers are above. Anything else is no frame pointer.
        if caller_frame <= frame {
            break;
        }
        frame = caller_frame;
    }
    len
}

/// Instruction and frame pointer of the interrupted code.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn registers(context: *mut libc::c_void) -> Option<(usize, usize)> {
    // SAFETY: the kernel passes a valid ucontext_t to a handler with SA_SIGINFO.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    Some((registers[libc::REG_RIP as usize] as usize, registers[libc::REG_RBP as usize] as usize))
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
fn registers(context: *mut libc::c_void) -> Option<(usize, usize)> {
    // SAFETY: the kernel passes a valid ucontext_t to a handler with SA_SIGINFO.
    let context = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    Some((context.pc as usize, context.regs[29] as usize))
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
fn registers(_context: *mut libc::c_void) -> Option<(usize, usize)> {
    None
}

/// The two words at `address`: the caller's frame and where this one returns to. `None` where nothing is mapped.
#[cfg(target_os = "linux")]
fn read_pair(address: usize) -> Option<[usize; 2]> {
    if address == 0 || !address.is_multiple_of(size_of::<usize>()) {
        return None;
    }
    let mut pair = [0usize; 2];
    let bytes = size_of_val(&pair);
    let local = libc::iovec { iov_base: pair.as_mut_ptr().cast(), iov_len: bytes };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: bytes };
    // SAFETY: `local` is ours and as long as it says; the kernel checks `remote`. errno is put back, since the
    // interrupted code may be about to look at it.
    let read = unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let read = libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0);
        *errno = before;
        read
    };
    (read == bytes as isize).then_some(pair)
}

#[cfg(not(target_os = "linux"))]
fn read_pair(_address: usize) -> Option<[usize; 2]> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Works until the sampling has something, however slow the machine; fails when it has nothing after a minute.
    fn busy_until(enough: impl Fn() -> bool) {
        let (mut x, began) = (1u64, std::time::Instant::now());
        while !enough() {
            assert!(began.elapsed() < Duration::from_secs(60), "no sample was taken");
            for i in 0..10_000 {
                x = std::hint::black_box(x.wrapping_mul(6364136223846793005).wrapping_add(i));
            }
        }
    }

    #[test]
    fn samples_what_runs_and_one_at_a_time() {
        let sampling = Sampling::start().expect("the first");
        assert_eq!(Sampling::start().err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
        busy_until(|| sampling.buffer.used.load(SeqCst) > 0);
        let samples = sampling.finish();
        assert!(samples.stacks().count() > 0);
        assert!(samples.stacks().all(|stack| !stack.is_empty() && stack.iter().all(|address| *address != 0)));
        // The next one begins anew.
        drop(Sampling::start().expect("the second"));
    }

    #[test]
    fn nothing_is_read_where_nothing_is() {
        assert_eq!(read_pair(8), None);
        assert_eq!(read_pair(3), None);
        let pair = [3usize, 7];
        #[cfg(target_os = "linux")]
        assert_eq!(read_pair(pair.as_ptr() as usize), Some(pair));
    }

    #[test]
    fn a_full_buffer_counts_what_it_drops() {
        let words = (0..3).map(|_| UnsafeCell::new(0)).collect();
        let buffer = Buffer { words, used: AtomicUsize::new(0), dropped: AtomicUsize::new(0) };
        // SAFETY: all zero is a context whose registers are zero: a stack of one frame and no caller.
        let mut context: libc::ucontext_t = unsafe { std::mem::zeroed() };
        record(&buffer, (&raw mut context).cast());
        record(&buffer, (&raw mut context).cast());
        let words = buffer.words.into_iter().map(UnsafeCell::into_inner).collect();
        let samples = Samples { words, dropped: buffer.dropped.into_inner() };
        assert_eq!((samples.words.as_slice(), samples.dropped), (&[1, 0, 0][..], 1));
        assert_eq!(samples.stacks().collect::<Vec<_>>(), [&[0]]);
    }
}
