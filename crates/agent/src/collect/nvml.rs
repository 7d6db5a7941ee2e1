//! GPUs: temperature, memory, load and power of NVIDIA's cards, asked through their driver's library (NVML).
//!
//! Why loaded at run time: few hosts have the library, and the agent must start on the others.
//! How: each round looks for `libnvidia-ml.so.1`, begins a session, asks each card and ends the session, so that a
//! driver may be installed, updated or removed under the agent. A host without it is silent: no reading, no fault.
//! Invariants: the one room of the agent with `unsafe`. What makes it sound: the types of the functions are those of
//! `nvml.h` of the library's first interface, which its name (`.so.1`) promises; a function is called only while the
//! library is loaded (a [`Symbol`] borrows it), and, but for `init`, within a session; pointers lead to values on our
//! stack that outlive the call. A card is asked for what it may not have (a fan): that costs the one reading.
//! Memory: the library's, some megabytes, on hosts that have it; [`CARDS_MAX`] cards.
//! Compat: docs/open-falcon/agent.md §3. Where a card does not tell one thing, the original drops or repeats others,
//! and it dies of a driver that has no card.

use super::Collected;
use libloading::{Library, Symbol};
use probe::{Reading, tag};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

/// Name of the driver's library, by its first interface.
pub const LIBRARY: &str = "libnvidia-ml.so.1";
/// Cards of a host; the largest have 16.
const CARDS_MAX: u32 = 64;
/// `NVML_DEVICE_UUID_V2_BUFFER_SIZE`.
const UUID_BYTES: usize = 96;
/// `NVML_SUCCESS`.
const SUCCESS: c_int = 0;
/// `NVML_TEMPERATURE_GPU`: the sensor on the chip.
const ON_CHIP: c_int = 0;
const BYTES_PER_MEBIBYTE: u64 = 1 << 20;
const MILLIWATTS_PER_WATT: u32 = 1000;

/// `nvmlDevice_t`: what the library knows a card by, until the session ends.
type Card = *mut c_void;

/// `nvmlMemory_t`, in bytes.
#[repr(C)]
#[derive(Default)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// `nvmlUtilization_t`, in percent of the last second or less.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Load {
    chip: c_uint,
    memory: c_uint,
}

// SAFETY: types of functions as nvml.h has them; what each call owes is said where it is made.
type Plain = unsafe extern "C" fn() -> c_int;
type Count = unsafe extern "C" fn(*mut c_uint) -> c_int;
type CardAt = unsafe extern "C" fn(c_uint, *mut Card) -> c_int;
type Uuid = unsafe extern "C" fn(Card, *mut c_char, c_uint) -> c_int;

// SAFETY: types of functions as nvml.h has them, for the figures of one card.
type Temperature = unsafe extern "C" fn(Card, c_int, *mut c_uint) -> c_int;
type MemoryOf = unsafe extern "C" fn(Card, *mut Memory) -> c_int;
type LoadOf = unsafe extern "C" fn(Card, *mut Load) -> c_int;
type Number = unsafe extern "C" fn(Card, *mut c_uint) -> c_int;

/// The functions of the library that are used.
struct Functions<'l> {
    init: Symbol<'l, Plain>,
    shutdown: Symbol<'l, Plain>,
    count: Symbol<'l, Count>,
    card: Symbol<'l, CardAt>,
    uuid: Symbol<'l, Uuid>,
    temperature: Symbol<'l, Temperature>,
    memory: Symbol<'l, MemoryOf>,
    load: Symbol<'l, LoadOf>,
    fan: Symbol<'l, Number>,
    power: Symbol<'l, Number>,
}

impl<'l> Functions<'l> {
    fn of(library: &'l Library) -> Result<Functions<'l>, libloading::Error> {
        // SAFETY: each name is given the type that it has in nvml.h; the suffix `_v2` is part of the name there.
        unsafe {
            Ok(Functions {
                init: library.get(c"nvmlInit_v2")?,
                shutdown: library.get(c"nvmlShutdown")?,
                count: library.get(c"nvmlDeviceGetCount_v2")?,
                card: library.get(c"nvmlDeviceGetHandleByIndex_v2")?,
                uuid: library.get(c"nvmlDeviceGetUUID")?,
                temperature: library.get(c"nvmlDeviceGetTemperature")?,
                memory: library.get(c"nvmlDeviceGetMemoryInfo")?,
                load: library.get(c"nvmlDeviceGetUtilizationRates")?,
                fan: library.get(c"nvmlDeviceGetFanSpeed")?,
                power: library.get(c"nvmlDeviceGetPowerUsage")?,
            })
        }
    }
}

/// Time between the library's `init` and its `shutdown`: only in it is anything else asked.
struct Session<'f>(&'f Functions<'f>);

impl<'f> Session<'f> {
    fn begin(functions: &'f Functions<'f>) -> Result<Session<'f>, c_int> {
        // SAFETY: the function takes nothing; it may be called at any time, from any thread.
        match unsafe { (functions.init)() } {
            SUCCESS => Ok(Session(functions)),
            code => Err(code),
        }
    }

    fn count(&self) -> Option<u32> {
        let mut count = 0;
        // SAFETY: within a session; the pointer is to our own number.
        let code = unsafe { (self.0.count)(&mut count) };
        (code == SUCCESS).then_some(count)
    }

    fn card(&self, index: u32) -> Option<Asked<'_>> {
        let mut card: Card = std::ptr::null_mut();
        // SAFETY: within a session; the pointer is to our own variable.
        let code = unsafe { (self.0.card)(index, &mut card) };
        (code == SUCCESS).then_some(Asked { functions: self.0, card })
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // SAFETY: ends the session that this value stands for; no card outlives it, since each borrows it.
        unsafe { (self.0.shutdown)() };
    }
}

/// One card, within its session. Each question is answered, or the card does not tell.
struct Asked<'s> {
    functions: &'s Functions<'s>,
    card: Card,
}

impl Asked<'_> {
    fn uuid(&self) -> Option<String> {
        let mut text: [c_char; UUID_BYTES] = [0; UUID_BYTES];
        // SAFETY: the card is of this session, and the library is told how long the buffer is.
        let code = unsafe { (self.functions.uuid)(self.card, text.as_mut_ptr(), UUID_BYTES as c_uint) };
        let bytes = text.map(|sign| sign as u8);
        let text = CStr::from_bytes_until_nul(&bytes).ok()?;
        (code == SUCCESS).then(|| text.to_string_lossy().into_owned())
    }

    fn memory(&self) -> Option<Memory> {
        let mut memory = Memory::default();
        // SAFETY: the card is of this session; the structure has the fields of nvmlMemory_t.
        let code = unsafe { (self.functions.memory)(self.card, &mut memory) };
        (code == SUCCESS).then_some(memory)
    }

    fn load(&self) -> Option<Load> {
        let mut load = Load::default();
        // SAFETY: the card is of this session; the structure has the fields of nvmlUtilization_t.
        let code = unsafe { (self.functions.load)(self.card, &mut load) };
        (code == SUCCESS).then_some(load)
    }

    fn temperature(&self) -> Option<u32> {
        let mut celsius = 0;
        // SAFETY: the card is of this session; the pointer is to our own number.
        let code = unsafe { (self.functions.temperature)(self.card, ON_CHIP, &mut celsius) };
        (code == SUCCESS).then_some(celsius)
    }

    fn number(&self, ask: &Symbol<'_, Number>) -> Option<u32> {
        let mut number = 0;
        // SAFETY: the card is of this session; the pointer is to our own number.
        let code = unsafe { ask(self.card, &mut number) };
        (code == SUCCESS).then_some(number)
    }
}

/// Collects the cards of the library with this name or path; nothing where there is none.
pub fn collect(library: &str) -> Collected {
    let mut collected = Collected::default();
    // SAFETY: the initialisers of NVIDIA's library ask nothing of their caller. That whoever can put another library of
    // this name into the system's folders can change this program is true of every library.
    let Ok(loaded) = (unsafe { Library::new(library) }) else { return collected };
    let functions = match Functions::of(&loaded) {
        Ok(functions) => functions,
        Err(error) => {
            collected.fail(library, format!("is of another kind: {error}"));
            return collected;
        }
    };
    match Session::begin(&functions) {
        Ok(session) => push(&session, library, &mut collected),
        Err(code) => collected.fail(library, format!("cannot be used: its init returns {code}; see nvmlReturn_t")),
    }
    collected
}

fn push(session: &Session<'_>, library: &str, collected: &mut Collected) {
    let Some(count) = session.count() else { return collected.fail(library, "does not tell the number of its cards") };
    let mut loads: Vec<Load> = Vec::new();
    for index in 0..count.min(CARDS_MAX) {
        let Some((card, uuid)) = session.card(index).and_then(|card| card.uuid().map(|uuid| (card, uuid))) else {
            collected.fail(format!("{library}, card {index}"), "does not answer");
            continue;
        };
        push_card(&card, &tag("uuid", &uuid), &mut collected.readings);
        loads.extend(card.load());
    }
    let readings = &mut collected.readings;
    readings.push(Reading::gauge("gpu.count", "", f64::from(count)));
    // Whole numbers, as the original's.
    let average = |of: fn(&Load) -> c_uint| {
        let sum: u64 = loads.iter().map(|load| u64::from(of(load))).sum();
        sum.checked_div(loads.len() as u64).map(|average| average as f64)
    };
    readings.extend(average(|load| load.chip).map(|average| Reading::gauge("gpu.util.avg", "", average)));
    readings.extend(average(|load| load.memory).map(|average| Reading::gauge("gpu.memory.util.avg", "", average)));
}

fn push_card(card: &Asked<'_>, tags: &str, out: &mut Vec<Reading>) {
    let mut gauge = |metric: &'static str, value: Option<u32>| {
        out.extend(value.map(|value| Reading::gauge(metric, tags, f64::from(value))));
    };
    gauge("gpu.fan.speed", card.number(&card.functions.fan));
    gauge("gpu.temperature", card.temperature());
    gauge("gpu.power.usage", card.number(&card.functions.power).map(|milliwatts| milliwatts / MILLIWATTS_PER_WATT));
    let load = card.load();
    gauge("gpu.util", load.map(|load| load.chip));
    gauge("gpu.memory.util", load.map(|load| load.memory));
    if let Some(memory) = card.memory() {
        let mebibytes = |bytes: u64| (bytes / BYTES_PER_MEBIBYTE) as f64;
        out.push(Reading::gauge("gpu.memory.total", tags, mebibytes(memory.total)));
        out.push(Reading::gauge("gpu.memory.used", tags, mebibytes(memory.used)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::rows;
    use std::process::Command;

    /// The library of a host with this many cards, of which the second has no fan, and tells no load. Compiled from C,
    /// so that the types here meet those of another compiler. Outside of a session each call ends the process.
    const FAKE: &str = r#"
#include <stdlib.h>
#include <string.h>
typedef struct card { int index; } *nvmlDevice_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
typedef struct { unsigned int gpu, memory; } nvmlUtilization_t;
static struct card cards[8];
static int sessions;
static void in_session(void) { if (sessions != 1) abort(); }
int nvmlInit_v2(void) { if (INIT == 0) sessions++; return INIT; }
int nvmlShutdown(void) { in_session(); sessions--; return 0; }
int nvmlDeviceGetCount_v2(unsigned int *count) { in_session(); *count = CARDS; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *card) {
    in_session();
    if (index >= CARDS || index == 2) return 15; /* NVML_ERROR_GPU_IS_LOST */
    cards[index].index = index;
    *card = &cards[index];
    return 0;
}
int nvmlDeviceGetUUID(nvmlDevice_t card, char *uuid, unsigned int length) {
    in_session();
    if (length < 9) return 7;
    strcpy(uuid, "GPU-abc-");
    uuid[8] = '0' + card->index;
    uuid[9] = 0;
    return 0;
}
int nvmlDeviceGetTemperature(nvmlDevice_t card, int sensor, unsigned int *celsius) {
    in_session();
    if (sensor != 0) return 2;
    *celsius = 50 + card->index;
    return 0;
}
int nvmlDeviceGetMemoryInfo(nvmlDevice_t card, nvmlMemory_t *memory) {
    in_session();
    memory->total = 85899345920ULL;
    memory->free = 1;
    memory->used = 1048576ULL * 4000 + 5;
    return 0;
}
int nvmlDeviceGetUtilizationRates(nvmlDevice_t card, nvmlUtilization_t *load) {
    in_session();
    if (card->index == 1) return 3; /* NVML_ERROR_NOT_SUPPORTED */
    load->gpu = 90 + card->index;
    load->memory = 40;
    return 0;
}
int nvmlDeviceGetFanSpeed(nvmlDevice_t card, unsigned int *percent) {
    in_session();
    if (card->index == 1) return 3;
    *percent = 30;
    return 0;
}
int nvmlDeviceGetPowerUsage(nvmlDevice_t card, unsigned int *milliwatts) {
    in_session();
    *milliwatts = 299999;
    return 0;
}
"#;

    struct Fake {
        folder: tempfile::TempDir,
    }

    impl Fake {
        fn build(source: &str, cards: u32, init: i32) -> Fake {
            let folder = tempfile::tempdir().expect("a directory");
            std::fs::write(folder.path().join("fake.c"), source).expect("room");
            let built = Command::new("cc")
                .args(["-shared", "-fPIC", "-o", "fake.so", "fake.c"])
                .args([format!("-DCARDS={cards}u"), format!("-DINIT={init}")])
                .current_dir(folder.path())
                .output()
                .expect("a C compiler, which the Rust compiler needs as its linker");
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            Fake { folder }
        }

        fn collect(&self) -> (Vec<String>, Vec<String>) {
            let collected = collect(self.folder.path().join("fake.so").to_str().expect("UTF-8"));
            let shown = rows(&collected.readings).into_iter().map(|row| row.replace(" GAUGE", "")).collect();
            (shown, collected.faults.into_iter().map(|fault| fault.why).collect())
        }
    }

    #[test]
    fn cards_as_the_library_tells_them() {
        let fake = Fake::build(FAKE, 4, 0);
        let expected = [
            "gpu.fan.speed uuid=GPU-abc-0 30",
            "gpu.temperature uuid=GPU-abc-0 50",
            "gpu.power.usage uuid=GPU-abc-0 299",
            "gpu.util uuid=GPU-abc-0 90",
            "gpu.memory.util uuid=GPU-abc-0 40",
            "gpu.memory.total uuid=GPU-abc-0 81920",
            "gpu.memory.used uuid=GPU-abc-0 4000",
            "gpu.temperature uuid=GPU-abc-1 51",
            "gpu.power.usage uuid=GPU-abc-1 299",
            "gpu.memory.total uuid=GPU-abc-1 81920",
            "gpu.memory.used uuid=GPU-abc-1 4000",
            "gpu.fan.speed uuid=GPU-abc-3 30",
            "gpu.temperature uuid=GPU-abc-3 53",
            "gpu.power.usage uuid=GPU-abc-3 299",
            "gpu.util uuid=GPU-abc-3 93",
            "gpu.memory.util uuid=GPU-abc-3 40",
            "gpu.memory.total uuid=GPU-abc-3 81920",
            "gpu.memory.used uuid=GPU-abc-3 4000",
            "gpu.count  4",
            "gpu.util.avg  91",
            "gpu.memory.util.avg  40",
        ];
        // A second round finds a session that has ended.
        for _ in 0..2 {
            let (readings, faults) = fake.collect();
            assert_eq!(readings, expected);
            assert_eq!(faults, ["does not answer"], "of the card that is lost");
        }
    }

    #[test]
    fn no_card_no_driver_no_library() {
        assert_eq!(Fake::build(FAKE, 0, 0).collect(), (vec!["gpu.count  0".to_string()], vec![]));
        // The library is there, and its module is not loaded (NVML_ERROR_DRIVER_NOT_LOADED).
        let (readings, faults) = Fake::build(FAKE, 1, 9).collect();
        assert!(readings.is_empty() && faults[0].contains("init returns 9"), "{faults:?}");
        let (readings, faults) = Fake::build("int x;", 0, 0).collect();
        assert!(readings.is_empty() && faults[0].starts_with("is of another kind"), "{faults:?}");
        let none = collect("libhawkeye-has-no-such-library.so.1");
        assert!(none.readings.is_empty() && none.faults.is_empty(), "silent where there is none");
    }
}
