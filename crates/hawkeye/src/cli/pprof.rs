//! `hawkeye pprof`: fetches a profile of a running server into a file.

use crate::plus_api;
use crate::watch::log::say;
use crate::watch::pprof::{SECONDS_DEFAULT, SECONDS_MAX};
use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Args)]
pub struct PprofArgs {
    /// The profile to fetch.
    kind: ProfileKind,
    /// The server's admin address (`listen.admin`).
    #[arg(long, default_value = "127.0.0.1:6071", value_name = "ADDRESS")]
    addr: String,
    /// The file to write; a name that ends in .svg asks for a flame graph [default: <KIND>.pb.gz].
    #[allow(rustdoc::invalid_html_tags, reason = "the text is the help of the command line")]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Seconds to sample the processor; heap and allocs do not wait.
    #[arg(long, default_value_t = SECONDS_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProfileKind {
    /// Memory in use.
    Heap,
    /// Memory allocated since the start.
    Allocs,
    /// Processor time.
    Cpu,
}

impl ProfileKind {
    /// The name of the route and of the file.
    fn name(self) -> &'static str {
        match self {
            ProfileKind::Heap => "heap",
            ProfileKind::Allocs => "allocs",
            ProfileKind::Cpu => "profile",
        }
    }
}

/// The time that a server may take beyond the sampling itself, to read its own debug information.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a profile: one of a large server has some hundred thousand.
const PROFILE_MAX: usize = 64 << 20;

pub fn fetch(args: &PprofArgs) -> Result<()> {
    let file = args.output.clone().unwrap_or_else(|| format!("{}.pb.gz", args.kind.name()).into());
    let is_svg = file.extension().is_some_and(|extension| extension == "svg");
    let format = if is_svg { "&format=svg" } else { "" };
    let url = format!("http://{}/debug/pprof/{}?seconds={}{format}", args.addr, args.kind.name(), args.seconds);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bytes = runtime.block_on(get(&url, Duration::from_secs(args.seconds) + PATIENCE))?;
    std::fs::write(&file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
    let next = if is_svg { "open it in a browser" } else { "go tool pprof reads it" };
    say(format_args!("{}: {} bytes; {next}", file.display(), bytes.len()));
    Ok(())
}

async fn get(url: &str, patience: Duration) -> Result<Vec<u8>> {
    // The client wants a provider although no TLS is spoken here. An error says that one was set before, which is as
    // good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().timeout(patience).build()?;
    let response = client
        .get(url)
        .send()
        .await
        .with_context(|| format!("cannot ask {url} (is the server running, and --addr its listen.admin?)"))?;
    let status = response.status();
    let bytes = plus_api::read(response, PROFILE_MAX).await?;
    if !status.is_success() {
        bail!("{url} answers {status}: {}", String::from_utf8_lossy(&bytes).trim());
    }
    Ok(bytes)
}
