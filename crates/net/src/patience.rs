//! Waiting in tests, with a limit: who waits in vain says what was missing, instead of hanging until somebody looks.

use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Limit of a wait, far above what anything in a test takes; reached only when something hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two looks at a condition that nobody announces: leaves the processor to who is waited for.
const PAUSE: Duration = Duration::from_millis(1);

/// Output of `future`; panics with `what` when it does not come.
pub async fn in_time<F: IntoFuture>(what: &str, future: F) -> F::Output {
    match timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("missing after {PATIENCE:?}: {what}"),
    }
}

/// Returns when `is_so` answers true; panics with `what` when it never does.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is_so().await {
            sleep(PAUSE).await;
        }
    };
    in_time(what, looking).await;
}
