//! du.bs: the figure of `du -bs PATH`.
//!
//! Why the program and not a walk of our own: versions of `du` differ in what they count (directories themselves, until
//! 9.1), and the value must stay as it was on this host; and a walk into a dead network mount would hold a thread for
//! ever.
//! Compat: -1 on any error, any word on stderr, or after 30 s. Paths run in parallel, [`PARALLEL_MAX`] at most.
//! Memory: one line of output per path; stderr is not kept.

use model::tags::canonical_string;
use probe::Reading;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::task::JoinSet;

/// The time that one `du` may take, as in the original.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Programs at a time; they compete for the same disks anyway.
const PARALLEL_MAX: usize = 8;
/// Bytes of output: a number, a tab and the longest path.
const OUTPUT_MAX: u64 = 8192;

/// Measures directories, some at a time; one that fails or takes too long reads −1.
pub async fn collect(paths: &[String]) -> Vec<Reading> {
    let (mut running, mut out) = (JoinSet::new(), Vec::new());
    for path in paths {
        if running.len() == PARALLEL_MAX {
            out.extend(running.join_next().await.and_then(Result::ok));
        }
        let path = path.clone();
        running.spawn(async move {
            let bytes = measure(&path).await.map_or(-1.0, |bytes| bytes as f64);
            Reading::gauge("du.bs", &canonical_string(&format!("path={path}")), bytes)
        });
    }
    while let Some(reading) = running.join_next().await {
        out.extend(reading.ok());
    }
    out
}

async fn measure(path: &str) -> Option<u64> {
    let mut child = Command::new("du")
        .args(["-bs", "--", path])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    let (stdout, stderr) = (child.stdout.take()?, child.stderr.take()?);
    let finished = async {
        let (text, ()) = tokio::try_join!(first_bytes(stdout), nothing(stderr)).ok()?;
        child.wait().await.ok()?.success().then_some(text)
    };
    let text = tokio::time::timeout(TIMEOUT, finished).await.ok()??;
    text.split_ascii_whitespace().next()?.parse().ok()
}

async fn first_bytes(stream: impl AsyncRead + Unpin) -> Result<String, ()> {
    let mut bytes = Vec::new();
    stream.take(OUTPUT_MAX).read_to_end(&mut bytes).await.map_err(drop)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads to the end; fails at the first byte.
async fn nothing(mut stream: impl AsyncRead + Unpin) -> Result<(), ()> {
    match stream.read(&mut [0]).await {
        Ok(0) => Ok(()),
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn value_of(path: &str) -> f64 {
        let readings = collect(&[path.to_string()]).await;
        assert_eq!((readings.len(), readings[0].tags.as_str()), (1, format!("path={path}").as_str()));
        readings[0].value
    }

    #[tokio::test]
    async fn measures_and_says_minus_one_otherwise() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::write(dir.path().join("a"), vec![0; 100_000]).expect("writable");
        let path = dir.path().display().to_string();
        // With or without the directory itself.
        assert!((100_000.0..200_000.0).contains(&value_of(&path).await));
        assert_eq!(value_of("/nonexistent").await, -1.0);
        assert_eq!(value_of("--help").await, -1.0);
    }

    #[tokio::test]
    async fn more_paths_than_may_run_at_once() {
        let paths: Vec<String> = (0..3 * PARALLEL_MAX).map(|i| format!("/nonexistent/{i}")).collect();
        assert_eq!(collect(&paths).await.len(), paths.len());
    }
}
