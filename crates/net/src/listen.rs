//! Listening: bind with an error that names the key and the fix, accept within limits, finish in an orderly way.
//!
//! How: each connection is a task of its listener. At the stop, each may finish the message at hand for
//! [`FINISH_TIMEOUT`]; those that have not ended by then are cut off, counted and logged.
//! Invariants: a connection from a network that is not allowed is closed at once and counted, and so is one for which
//! nobody gives way ([`super::places`]); connections of all listeners leave descriptors to the files of the store; the
//! accept loop never ends on an error of one connection; when [`serve`] returns, none of its connections runs any more,
//! so what they used can be closed behind them. A connection that is cut off ends at its next wait: what it does
//! without waiting, such as an append to a log, ends first.

use super::budget::Budget;
use super::places::{Claim, Place, Places};
use super::seldom::Seldom;
use super::stream::{Stream, TLS_BYTES};
use super::tls::Tls;
use anyhow::{Context, Result};
use ipnet::IpNet;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use stdx::ledger::Account;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Longest time that connections may take to finish their message at the stop (a guess: several slow batches).
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without traffic after which the kernel probes a peer, so that one which vanished without a word is noticed.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(120);
/// Connections that may wait to be accepted. After a restart a whole fleet dials within a second; with std's 128 most
/// of it waits a second or more for its next SYN (10,000 connections took 43 s, a third of a second with 4096). The
/// system lowers the number to net.core.somaxconn.
const BACKLOG: u32 = 4096;
/// Bytes that a connection costs besides what its handler keeps: the task's head, its place with the runtime's driver
/// (measured with some thousand idle ones: 640 bytes), its place among the tasks of the listener (an allocation of 64),
/// and its entry in the table of places (measured with 4,000: some 260, with what maps leave empty).
const CONNECTION_BYTES: usize = 960;
/// `EAFNOSUPPORT` of Linux: the kernel does not speak this family of addresses.
const NO_SUCH_FAMILY: i32 = 97;
/// Looks for the end of a connection that was cut off, each after others had the thread. One that needs longer stands
/// in a write to a disk, and must not hold up whoever comes.
const END_LOOKS: usize = 1000;
/// Pause after `accept` fails, which it does when descriptors run out; trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Label of a figure: the name of a listener.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ListenerLabel {
    pub listener: &'static str,
}

/// Why something was refused, and where.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RefusedLabel {
    listener: &'static str,
    reason: &'static str,
}

/// Counts of connections, by listener, for all listeners of the process.
#[derive(Clone, Default)]
pub struct ConnectionMetrics {
    pub(crate) accepted: Family<ListenerLabel, Counter>,
    refused: Family<RefusedLabel, Counter>,
    gave_way: Family<ListenerLabel, Counter>,
    requests_refused: Family<RefusedLabel, Counter>,
    pub(crate) open: Family<ListenerLabel, Gauge>,
    cut_off: Family<ListenerLabel, Counter>,
    tls_told: Arc<Seldom>,
    strangers_told: Arc<Seldom>,
}

impl ConnectionMetrics {
    /// Counts that are shown on the metrics page from now on.
    pub fn register(registry: &mut Registry) -> ConnectionMetrics {
        let own = ConnectionMetrics::default();
        registry.register("connections", "Connections accepted", own.accepted.clone());
        registry.register("connections_refused", "Connections closed at once", own.refused.clone());
        registry.register(
            "connections_gave_way",
            "Connections that newcomers found all places taken for, and of which another was cut off",
            own.gave_way.clone(),
        );
        registry.register(
            "http_requests_refused",
            "HTTP requests refused before anybody read them",
            own.requests_refused.clone(),
        );
        registry.register("connections_open", "Connections open now", own.open.clone());
        registry.register(
            "connections_cut_off",
            "Connections that did not end in time at the stop",
            own.cut_off.clone(),
        );
        own
    }

    /// Counts a connection that was closed before it was served.
    fn refuse(&self, listener: &'static str, reason: &'static str) {
        self.refused.get_or_create(&RefusedLabel { listener, reason }).inc();
    }

    /// Connections that were closed before they were served so far.
    #[cfg(test)]
    pub fn refused(&self, listener: &'static str, reason: &'static str) -> u64 {
        self.refused.get_or_create(&RefusedLabel { listener, reason }).get()
    }

    /// Connections that were cut off at the stop.
    #[cfg(test)]
    pub fn cut_off(&self, listener: &'static str) -> u64 {
        self.cut_off.get_or_create(&ListenerLabel { listener }).get()
    }

    /// Requests over HTTP that were refused so far.
    #[cfg(test)]
    pub fn requests_refused(&self, listener: &'static str, reason: &'static str) -> u64 {
        self.requests_refused.get_or_create(&RefusedLabel { listener, reason }).get()
    }

    /// Counts a client that speaks TLS to a door that does not, and says so.
    pub fn refuse_tls(&self, listener: &'static str, peer: SocketAddr) {
        self.refused.get_or_create(&RefusedLabel { listener, reason: "tls" }).inc();
        if self.tls_told.may_say() {
            say_that_it_is_plain(listener, peer);
        }
    }

    /// Counts a connection from outside the networks that may connect, and says so.
    fn refuse_stranger(&self, listener: &'static str, peer: SocketAddr) {
        self.refuse(listener, "not_allowed");
        if self.strangers_told.may_say() {
            tracing::warn!(
                listener,
                %peer,
                "a connection is refused, for ingest.allow does not have its address; maybe not this one alone"
            );
        }
    }

    /// Counts a request over HTTP that was refused before anybody read it.
    pub fn refuse_request(&self, listener: &'static str, reason: &'static str) {
        self.requests_refused.get_or_create(&RefusedLabel { listener, reason }).inc();
    }
}

/// Limits that listeners share.
#[derive(Clone)]
pub struct Limits {
    /// Connections that one listener may have.
    pub connections_max: usize,
    /// Places that the connections of some listeners share, for their descriptors.
    pub places: Places,
    /// Networks whose peers are served; none allows everybody.
    pub allow: Arc<[IpNet]>,
    pub metrics: ConnectionMetrics,
    /// Account of what connections hold besides messages.
    pub connections: Account,
    /// Account of what HTTP holds of requests and answers.
    pub http: Account,
    /// Bytes of unfinished messages.
    pub budget: Budget,
    /// What the listener speaks TLS with, if it does.
    pub tls: Option<Tls>,
}

/// Says in the log that a client speaks TLS where none is spoken.
pub fn say_that_it_is_plain(listener: &'static str, peer: SocketAddr) {
    tracing::warn!(listener, %peer, "a client speaks TLS, and this listener does not: add it to tls.listeners");
}

/// Binds `address`, the value of the configuration key `listen.<key>`.
pub async fn bind(key: &str, address: &str) -> Result<TcpListener> {
    bind_as(&format!("listen.{key}"), &format!("--set listen.{key}=HOST:PORT"), address).await
}

/// Binds `address`, which the key `key` has; `how` tells how to give the key another value.
pub async fn bind_as(key: &str, how: &str, address: &str) -> Result<TcpListener> {
    listen_on_first(address).await.map_err(|error| {
        let fix = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another program has this port: stop it, or set another address",
            std::io::ErrorKind::PermissionDenied => "ports below 1024 need privileges: set another address",
            std::io::ErrorKind::AddrNotAvailable => "this machine does not have that address: set one it has",
            _ => "set an address like \"127.0.0.1:8080\", or \"\" to turn the listener off",
        };
        anyhow::anyhow!("cannot listen on {address} ({key}): {error}; {fix} ({how})")
    })
}

/// Listens on the first address of a name that works, as `TcpListener::bind` does, but with [`BACKLOG`].
async fn listen_on_first(address: &str) -> std::io::Result<TcpListener> {
    let mut result = Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "the name has no address"));
    for candidate in tokio::net::lookup_host(address).await? {
        result = listen_on(candidate);
        // Only an address that this machine does not have leaves the name to its next one. Where the port is taken, the
        // next family's would be a second server that nobody sees.
        let is_absent = |error: &std::io::Error| {
            error.kind() == std::io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(NO_SUCH_FAMILY)
        };
        if !result.as_ref().is_err_and(is_absent) {
            break;
        }
    }
    result
}

fn listen_on(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart must not wait for the last connections of the process before it to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until `shutdown` turns true, runs `handle` for each connection, and returns when all have ended or are cut
/// off.
pub async fn serve<H, F>(
    name: &'static str,
    listener: TcpListener,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
    handle: H,
) where
    H: Fn(Stream, SocketAddr, Place) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let handle = Arc::new(handle);
    let mut connections = JoinSet::new();
    let (mut accept_fails, mut is_full) = (false, false);
    let accepted = limits.metrics.accepted.get_or_create_owned(&ListenerLabel { listener: name });
    let open = limits.metrics.open.get_or_create_owned(&ListenerLabel { listener: name });
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            // The guard that `wait_for` returns must not live across the await below.
            () = async { drop(shutdown.wait_for(|stop| *stop).await) } => break,
            // A connection that panicked has said so; the others and the listener go on.
            Some(_) = connections.join_next() => continue,
            result = listener.accept() => match result {
                Ok(connection) => {
                    accept_fails = false;
                    connection
                }
                Err(error) => {
                    limits.refuse(name, "accept_failed");
                    // Said once for each time that it begins; the counter has the rest.
                    if !std::mem::replace(&mut accept_fails, true) {
                        tracing::warn!(listener = name, %error, "cannot accept connections; it is tried again");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        if !limits.allows(peer.ip()) {
            limits.metrics.refuse_stranger(name, peer);
            continue;
        }
        let claim = limits.places.claim(name, peer.ip(), limits.connections_max);
        let was_full = std::mem::replace(&mut is_full, !matches!(claim, Claim::Free(_)));
        if is_full && !was_full {
            tracing::warn!(listener = name, %peer, "all places for connections are taken; newcomers wait or displace");
        }
        let place = match claim {
            Claim::Free(place) => place,
            Claim::GivenUp(place, task) => {
                await_end(task).await;
                limits.metrics.gave_way.get_or_create(&ListenerLabel { listener: name }).inc();
                place
            }
            Claim::ListenerFull => {
                limits.refuse(name, "too_many");
                continue;
            }
            Claim::Full => {
                limits.refuse(name, "too_many_of_all");
                continue;
            }
        };
        if let Err(error) = prepare(&stream) {
            tracing::debug!(listener = name, %peer, %error, "cannot set socket options");
        }
        accepted.inc();
        open.inc();
        let (counted, id) = (Counted(open.clone()), place.id());
        // Boxed, for a task holds a future that it moves and then awaits twice: 2.8 kB per idle connection, not 1.6.
        let (connection, tls_bytes): (Pin<Box<dyn Future<Output = ()> + Send>>, usize) = match &limits.tls {
            None => (Box::pin(handle(Stream::Plain(stream), peer, place)), 0),
            Some(tls) => {
                let (handle, metrics, tls) = (handle.clone(), limits.metrics.clone(), tls.clone());
                let mut stopping = shutdown.clone();
                let secured = async move {
                    let accepted = tokio::select! {
                        biased;
                        // Who has not said hello is not waited for.
                        _ = stopping.wait_for(|stop| *stop) => return,
                        accepted = tls.accept(name, stream, peer) => accepted,
                    };
                    match accepted {
                        Ok(stream) => handle(stream, peer, place).await,
                        Err(reason) => metrics.refuse(name, reason),
                    }
                };
                (Box::pin(secured), TLS_BYTES)
            }
        };
        let mut held = limits.connections.hold();
        held.set(size_of_val(&*connection) + CONNECTION_BYTES + tls_bytes);
        let task = connections.spawn(async move {
            connection.await;
            drop((counted, held));
        });
        limits.places.is_run_by(id, task);
    }
    drop(listener);
    finish(name, connections, FINISH_TIMEOUT, &limits.metrics).await;
}

/// Waits for the end of a connection that has given way, so that no more descriptors are open than there are places.
async fn await_end(task: Option<AbortHandle>) {
    for _ in 0..END_LOOKS {
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Waits until all connections have ended; those that take longer than `timeout` are cut off.
async fn finish(name: &'static str, mut connections: JoinSet<()>, timeout: Duration, metrics: &ConnectionMetrics) {
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(timeout, ended).await.is_ok() {
        return;
    }
    let cut_off = connections.len();
    metrics.cut_off.get_or_create(&ListenerLabel { listener: name }).inc_by(cut_off as u64);
    tracing::warn!(listener = name, connections = cut_off, "connections did not end in time");
    connections.abort_all();
    while connections.join_next().await.is_some() {}
}

/// An open connection in the gauge, which it leaves when dropped, also by a panic.
struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Limits {
    fn allows(&self, peer: IpAddr) -> bool {
        // A v4 peer of a dual-stack socket arrives as ::ffff:a.b.c.d.
        let peer = peer.to_canonical();
        self.allow.is_empty() || self.allow.iter().any(|network| network.contains(&peer))
    }

    fn refuse(&self, listener: &'static str, reason: &'static str) {
        self.metrics.refuse(listener, reason);
    }
}

fn prepare(stream: &TcpStream) -> Result<()> {
    // Answers are single small writes; waiting to merge them would only delay the agent.
    stream.set_nodelay(true).context("TCP_NODELAY")?;
    let keepalive = socket2::TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
    socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive).context("SO_KEEPALIVE")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patience::in_time;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use tokio::sync::oneshot;

    /// Sends a word when it is dropped.
    struct Dropped(Option<oneshot::Sender<()>>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.take().map(|sender| sender.send(()));
        }
    }

    /// One connection waits for its peer for ever, one stands in a write that waits for the disk.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_of_a_connection_runs_when_its_door_is_closed() {
        let mut connections = JoinSet::new();
        let (waits, waits_no_more) = oneshot::channel();
        let waiting = Dropped(Some(waits));
        connections.spawn(async move {
            std::future::pending::<()>().await;
            drop(waiting);
        });
        let written = Arc::new(AtomicBool::new(false));
        let (begins, has_begun) = oneshot::channel();
        let (disk, disk_answers) = std::sync::mpsc::channel();
        let write = written.clone();
        connections.spawn(async move {
            begins.send(()).expect("the test waits for it");
            disk_answers.recv().expect("the disk answers");
            write.store(true, SeqCst);
        });
        in_time("the second connection", has_begun).await.expect("it runs");

        let (counts, seen) = (ConnectionMetrics::default(), written.clone());
        let metrics = counts.clone();
        let closing = tokio::spawn(async move {
            finish("door", connections, Duration::ZERO, &metrics).await;
            seen.load(SeqCst)
        });
        in_time("the end of the first connection", waits_no_more).await.expect("it is dropped");
        assert!(!closing.is_finished(), "the write still runs");
        disk.send(()).expect("the second connection");
        let waited = in_time("the end of the door", closing).await.expect("no panic");
        assert!(waited, "the door waits for the end of the write");
        assert_eq!(counts.cut_off.get_or_create(&ListenerLabel { listener: "door" }).get(), 2);
    }

    #[tokio::test]
    async fn connections_that_end_in_time_are_not_cut_off() {
        let connections = JoinSet::from_iter([tokio::task::yield_now(), tokio::task::yield_now()]);
        let counts = ConnectionMetrics::default();
        finish("door", connections, Duration::from_secs(60), &counts).await;
        assert!(counts.cut_off.get(&ListenerLabel { listener: "door" }).is_none());
    }
}
