//! Profiles on `admin`: `/debug/pprof/*` as `go tool pprof` reads them, and as flame graphs for a browser.
//!
//! Why: the hunt that began this project was `go tool pprof http://127.0.0.1:6071/debug/pprof/heap`, `top -20`, `web`;
//! whoever knows these commands finds everything where it was.
//! How: jemalloc samples one allocation in 512 KiB with its stack (settings in .cargo/config.toml) and dumps the
//! samples when asked (`pprof/heap.rs`); `crate::watch::cpu_samples` samples the processor. Both become a [`Profile`]
//! with functions and lines, resolved from the binary's own debug information (`pprof/symbols.rs`), so that the reader
//! needs nothing but the profile.
//! Invariants: one profile at a time, or one list of names for a profile; the next is told to wait. Nothing is held
//! afterwards.
//! Memory: jemalloc's records of sampled stacks, one or two MB. Resolving reads the binary's debug information: a
//! hundred MB for as long as the request lasts, in a process of its own.

mod heap;
mod names;
mod profile;
mod symbols;

pub use symbols::{THIS_PROGRAM, serve as serve_symbols};

use symbols::Resolver;

use crate::watch::cpu_samples::{PERIOD, Samples, Sampling};
use axum::Router;
use axum::body::Bytes;
use axum::extract::Query;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use profile::{Profile, ProfileSample};
use serde::Deserialize;
use std::fmt::Write as _;
use std::time::Duration;
use stdx::ledger::Account;

/// Go's default for `profile`.
pub const SECONDS_DEFAULT: u64 = 30;
/// The longest sampling: the buffer of samples holds some minutes of a busy machine.
pub const SECONDS_MAX: u64 = 300;

/// Lock for one profile at a time: resolving takes memory, and jemalloc writes one dump at a time anyway.
static ONE_AT_A_TIME: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Symbols that one request may ask for; `go tool pprof` sends some thousand.
const SYMBOLS_MAX: usize = 100_000;

#[derive(Deserialize)]
struct ProfileQuery {
    seconds: Option<u64>,
    format: Option<String>,
}

pub fn router(samples: Account, resolver: Resolver) -> Router {
    Router::new()
        .route("/debug/pprof/", get(|| async { Html(INDEX) }))
        .route(
            "/debug/pprof/heap",
            get(move |Query(asked)| heap("heap", heap::INUSE_SPACE, "Bytes in use", asked, resolver)),
        )
        .route(
            "/debug/pprof/allocs",
            get(move |Query(asked)| heap("allocs", heap::ALLOC_SPACE, "Bytes allocated", asked, resolver)),
        )
        .route("/debug/pprof/profile", get(move |Query(asked)| cpu(asked, samples, resolver)))
        .route("/debug/pprof/cmdline", get(command_line))
        .route("/debug/pprof/symbol", get(|| async { "num_symbols: 1\n" }).post(move |body| symbols(body, resolver)))
}

const INDEX: &str = include_str!("../../../../../web/pprof.html");

async fn heap(
    name: &'static str,
    shown: usize,
    title: &'static str,
    asked: ProfileQuery,
    resolver: Resolver,
) -> Response {
    let Ok(_one) = ONE_AT_A_TIME.try_lock() else { return busy() };
    let taken = move || render(&heap::profile(shown)?, asked.format.as_deref(), title, resolver);
    let taken = tokio::task::spawn_blocking(taken);
    answer(taken.await, name)
}

async fn cpu(asked: ProfileQuery, account: Account, resolver: Resolver) -> Response {
    let seconds = asked.seconds.unwrap_or(SECONDS_DEFAULT);
    if !(1..=SECONDS_MAX).contains(&seconds) {
        let text = format!("seconds is {seconds}; want 1 to {SECONDS_MAX}\n");
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let Ok(_one) = ONE_AT_A_TIME.try_lock() else { return busy() };
    let sampling = match Sampling::start() {
        Ok(sampling) => sampling,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot sample: {error}\n")).into_response(),
    };
    let mut held = account.hold();
    held.set(sampling.memory_bytes());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let taken = tokio::task::spawn_blocking(move || {
        let samples = sampling.finish();
        if samples.dropped > 0 {
            tracing::warn!(dropped = samples.dropped, "the CPU profile is cut short: ask for fewer seconds");
        }
        let profile = cpu_profile(&samples, Duration::from_secs(seconds));
        render(&profile, asked.format.as_deref(), "CPU time", resolver)
    });
    answer(taken.await, "profile")
}

fn busy() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "another profile is being taken; try again when it is done\n").into_response()
}

const SVG: &str = "image/svg+xml";

/// Content type and body of an answer.
type Rendered = (&'static str, Vec<u8>);

fn render(profile: &Profile, format: Option<&str>, title: &str, resolver: Resolver) -> anyhow::Result<Rendered> {
    match format {
        None => Ok(("application/octet-stream", profile.to_pprof(resolver)?)),
        Some("svg") => Ok((SVG, profile.to_svg(title, resolver)?)),
        Some(other) => anyhow::bail!("format is {other:?}; want svg, or none for pprof's own"),
    }
}

fn answer(taken: Result<anyhow::Result<Rendered>, tokio::task::JoinError>, name: &str) -> Response {
    match taken.map_err(anyhow::Error::new).flatten() {
        Ok((SVG, bytes)) => ([(header::CONTENT_TYPE, SVG)], bytes).into_response(),
        Ok((content_type, bytes)) => {
            let file = format!("attachment; filename=\"{name}.pb.gz\"");
            ([(header::CONTENT_TYPE, content_type), (header::CONTENT_DISPOSITION, &file)], bytes).into_response()
        }
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot take the profile: {error:#}\n")).into_response()
        }
    }
}

fn cpu_profile(samples: &Samples, duration: Duration) -> Profile {
    let period = PERIOD.as_nanos() as i64;
    let sample = |stack: &[usize]| ProfileSample { addresses: stack.to_vec(), figures: vec![1, period] };
    let samples = samples.stacks().map(sample).collect();
    let period = (("cpu", "nanoseconds"), period);
    Profile { kinds: &[("samples", "count"), ("cpu", "nanoseconds")], shown: 1, period, duration, samples }
}

async fn command_line() -> String {
    std::env::args().collect::<Vec<_>>().join("\0")
}

/// Names the addresses in the body, `0x1+0x2`, as `pprof` asks when a profile has no names.
async fn symbols(body: Bytes, resolver: Resolver) -> Response {
    let text = String::from_utf8_lossy(&body).into_owned();
    if text.split('+').count() > SYMBOLS_MAX {
        return (StatusCode::PAYLOAD_TOO_LARGE, format!("more than {SYMBOLS_MAX} addresses\n")).into_response();
    }
    let Ok(_one) = ONE_AT_A_TIME.try_lock() else { return busy() };
    let named = tokio::task::spawn_blocking(move || name_all(&text, resolver));
    named.await.unwrap_or_default().into_response()
}

fn name_all(text: &str, resolver: Resolver) -> String {
    let address = |word: &str| usize::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let resolved = resolver.resolve(text.trim().split('+').filter_map(address).collect());
    let mut out = String::from("num_symbols: 1\n");
    for word in text.trim().split('+') {
        let frames = address(word).and_then(|address| resolved.get(&address));
        if let Some(outermost) = frames.and_then(|frames| frames.last()) {
            let _ = writeln!(out, "{word} {}", outermost.function);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use std::io::Read;
    use tower::ServiceExt;

    async fn ask(path: &str) -> (StatusCode, Vec<u8>) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = router(Account::new("cpu samples", None), Resolver { program: None })
            .oneshot(request)
            .await
            .expect("infallible");
        (response.status(), response.into_body().collect().await.expect("a body").to_bytes().to_vec())
    }

    fn unpacked(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).expect("gzip");
        out
    }

    fn contains(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    #[inline(never)]
    fn a_hungry_function() -> Vec<Vec<u8>> {
        // Eight times what is sampled once on average.
        (0..64).map(|_| std::hint::black_box(an_inlined_function())).collect()
    }

    #[inline(always)]
    fn an_inlined_function() -> Vec<u8> {
        vec![1; 64 << 10]
    }

    /// Inlined functions and closures as well as those that the linker knows.
    #[test]
    fn functions_of_ours_have_their_path() {
        let held = a_hungry_function();
        let profile = heap::profile(heap::INUSE_SPACE).expect("a profile");
        drop(held);
        let addresses = profile.samples.iter().flat_map(|sample| sample.addresses.iter().copied());
        let resolved = Resolver { program: None }.resolve(addresses.collect());
        let ours = resolved.values().flatten().filter(|frame| frame.file.contains("crates/hawkeye/src/"));
        let names: std::collections::BTreeSet<&str> = ours.map(|frame| frame.function.as_str()).collect();
        for function in ["a_hungry_function", "a_hungry_function::{closure}", "an_inlined_function"] {
            let name = format!("hawkeye::watch::pprof::tests::{function}");
            assert!(names.contains(name.as_str()), "{name} is not in {names:#?}");
        }
        assert!(names.iter().all(|name| name.contains("::")), "{names:#?}");
    }

    /// A server that does nothing has a profile all the same.
    #[test]
    fn a_profile_of_nothing_is_empty_and_no_error() {
        let profile = cpu_profile(&Samples::default(), Duration::from_secs(1));
        let (_, bytes) = render(&profile, None, "CPU time", Resolver { program: None }).expect("a profile");
        assert!(contains(&unpacked(&bytes), "nanoseconds"));
        let (_, svg) = render(&profile, Some("svg"), "CPU time", Resolver { program: None }).expect("a picture");
        assert!(contains(&svg, "<svg") && contains(&svg, "no samples"));
    }

    /// All in one test, for a profile that is being taken turns others away.
    #[tokio::test(flavor = "multi_thread")]
    async fn profiles_name_who_allocates_and_who_runs() {
        let held = a_hungry_function();
        let (status, heap) = ask("/debug/pprof/heap").await;
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&heap));
        assert!(contains(&unpacked(&heap), "hawkeye::watch::pprof::tests::a_hungry_function"));
        assert!(contains(&unpacked(&heap), "inuse_space"));
        drop(held);
        let (_, allocs) = ask("/debug/pprof/allocs").await;
        assert!(contains(&unpacked(&allocs), "a_hungry_function"), "freed memory was allocated all the same");
        let (_, svg) = ask("/debug/pprof/allocs?format=svg").await;
        assert!(contains(&svg, "<svg") && contains(&svg, "a_hungry_function"));

        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = stop.clone();
        let busy = std::thread::spawn(move || a_busy_function(&stopped));
        let (status, cpu) = ask("/debug/pprof/profile?seconds=1").await;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        busy.join().expect("no panic");
        assert_eq!(status, StatusCode::OK);
        assert!(contains(&unpacked(&cpu), "a_busy_function"));

        let (status, _) = ask("/debug/pprof/profile?seconds=0").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let (status, text) = ask("/debug/pprof/heap?format=png").await;
        assert!(status == StatusCode::INTERNAL_SERVER_ERROR && contains(&text, "want svg"));
        let named =
            name_all(&format!("{:#x}+garbage", a_busy_function as *const () as usize + 1), Resolver { program: None });
        assert!(named.contains("a_busy_function"), "{named}");
        let asked = || symbols(Bytes::from_static(b"0x1"), Resolver { program: None });
        let taken = ONE_AT_A_TIME.lock().await;
        assert_eq!(asked().await.status(), StatusCode::SERVICE_UNAVAILABLE, "names wait for nobody's profile");
        drop(taken);
        assert_eq!(asked().await.status(), StatusCode::OK);
        let (_, line) = ask("/debug/pprof/cmdline").await;
        assert!(!line.is_empty());
        let (_, index) = ask("/debug/pprof/").await;
        assert!(contains(&index, "/debug/pprof/heap"));
    }

    #[inline(never)]
    fn a_busy_function(stop: &std::sync::atomic::AtomicBool) {
        let mut x = 1u64;
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            x = std::hint::black_box(x.wrapping_mul(6364136223846793005).wrapping_add(1));
        }
    }
}
