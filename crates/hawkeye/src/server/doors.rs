//! Doors: the listening sockets, and what a connection through any of them needs.
//!
//! Sockets are bound before anything is opened, for a busy port is the commonest reason for a start to fail (those of
//! hbs and api alone when their MySQL is there, which may be long); doors open when all behind them runs. They are one
//! part of the server: told to stop, they close together and answer what they have begun.
//! Invariants: senders, users and admin have places of their own, so none of them can shut out the others;
//! when [`Doors::run`] returns, no connection runs any more. What a connection has left to a thread of its
//! own is the engine's to wait for ([`crate::engine::Engine::blocking_ended`]).

use crate::config::{Config, Listen};
use anyhow::{Result, anyhow};
use metrics::Metrics;
use net::budget::Budget;
use net::connection::{Protocol, RpcLimits, RpcMetrics, connection};
use net::gate::{Gate, GateMetrics, Issued};
use net::gob::{self, Gob};
use net::http::{self, Guard};
use net::listen::{ConnectionMetrics, Limits, bind, serve};
use net::places::{Place, Places};
use net::rpc::{JsonRpc, Service};
use net::stream::Stream;
use net::tls::Tls;
use settings::Secret;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use supervisor::Stop;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Descriptors that connections leave to files, SQLite and deliveries; were there none, no log segment could begin. A
/// guess: a flush opens a file per day, a query one per block.
const DESCRIPTORS_KEPT: usize = 256;
/// The least places that all connections have together, on a system that allows next to no descriptors.
const PLACES_MIN: usize = 64;
/// Places for those who look after the server, at most; a few people and what scrapes the metrics.
const ADMIN_PLACES: usize = 32;
/// Connections of one listener for HTTP hold at most this part of `memory_budget` in hyper's buffers.
const HTTP_PART: u64 = 32;
/// Connections that a listener for HTTP may have on the smallest `memory_budget`.
const HTTP_CONNECTIONS_MIN: usize = 64;

/// The sockets of the listeners that are on.
#[derive(Default)]
pub struct Sockets {
    pub transfer_rpc: Option<TcpListener>,
    pub transfer_http: Option<TcpListener>,
    pub transfer_telnet: Option<TcpListener>,
    pub hbs_rpc: Option<TcpListener>,
    pub hbs_http: Option<TcpListener>,
    pub graph_rpc: Option<TcpListener>,
    pub judge_rpc: Option<TcpListener>,
    pub judge_http: Option<TcpListener>,
    pub alarm_http: Option<TcpListener>,
    pub aggregator_http: Option<TcpListener>,
    pub nodata_http: Option<TcpListener>,
    pub p8s_rpc: Option<TcpListener>,
    pub p8s_http: Option<TcpListener>,
    pub api: Option<TcpListener>,
    pub admin: Option<TcpListener>,
}

impl Sockets {
    /// Binds the sockets of all roles.
    pub async fn whole(listen: &Listen) -> Result<Sockets> {
        Ok(Sockets {
            transfer_rpc: bind_unless_empty("transfer_rpc", &listen.transfer_rpc).await?,
            transfer_http: bind_unless_empty("transfer_http", &listen.transfer_http).await?,
            transfer_telnet: bind_unless_empty("transfer_telnet", &listen.transfer_telnet).await?,
            hbs_rpc: bind_unless_empty("hbs_rpc", &listen.hbs_rpc).await?,
            hbs_http: bind_unless_empty("hbs_http", &listen.hbs_http).await?,
            graph_rpc: bind_unless_empty("graph_rpc", &listen.graph_rpc).await?,
            judge_rpc: bind_unless_empty("judge_rpc", &listen.judge_rpc).await?,
            judge_http: None,
            alarm_http: bind_unless_empty("alarm_http", &listen.alarm_http).await?,
            aggregator_http: bind_unless_empty("aggregator_http", &listen.aggregator_http).await?,
            nodata_http: bind_unless_empty("nodata_http", &listen.nodata_http).await?,
            p8s_rpc: bind_unless_empty("p8s_rpc", &listen.p8s_rpc).await?,
            p8s_http: bind_unless_empty("p8s_http", &listen.p8s_http).await?,
            api: bind_unless_empty("api", &listen.api).await?,
            admin: bind_unless_empty("admin", &listen.admin).await?,
        })
    }

    /// Binds the sockets of the graph alone.
    pub async fn graph(listen: &Listen) -> Result<Sockets> {
        Ok(Sockets {
            graph_rpc: bind_unless_empty("graph_rpc", &listen.graph_rpc).await?,
            admin: bind_unless_empty("admin", &listen.admin).await?,
            ..Sockets::default()
        })
    }

    /// Binds the sockets of a transfer alone, or of a gateway.
    pub async fn fanout(listen: &Listen) -> Result<Sockets> {
        Ok(Sockets {
            transfer_rpc: bind_unless_empty("transfer_rpc", &listen.transfer_rpc).await?,
            transfer_http: bind_unless_empty("transfer_http", &listen.transfer_http).await?,
            transfer_telnet: bind_unless_empty("transfer_telnet", &listen.transfer_telnet).await?,
            admin: bind_unless_empty("admin", &listen.admin).await?,
            ..Sockets::default()
        })
    }

    /// Binds the sockets of the alarm alone.
    pub async fn alarm(listen: &Listen) -> Result<Sockets> {
        Ok(Sockets {
            alarm_http: bind_unless_empty("alarm_http", &listen.alarm_http).await?,
            admin: bind_unless_empty("admin", &listen.admin).await?,
            ..Sockets::default()
        })
    }

    /// Binds the sockets of aggregator and nodata alone.
    pub async fn modules(listen: &Listen) -> Result<Sockets> {
        Ok(Sockets {
            aggregator_http: bind_unless_empty("aggregator_http", &listen.aggregator_http).await?,
            nodata_http: bind_unless_empty("nodata_http", &listen.nodata_http).await?,
            admin: bind_unless_empty("admin", &listen.admin).await?,
            ..Sockets::default()
        })
    }

    /// Binds the socket of admin, which is open while the others wait for what is behind them.
    pub async fn admin(listen: &Listen) -> Result<Sockets> {
        Ok(Sockets { admin: bind_unless_empty("admin", &listen.admin).await?, ..Sockets::default() })
    }

    /// Binds the sockets of hbs alone, but admin's.
    pub async fn hbs(listen: &Listen) -> Result<Sockets> {
        Ok(Sockets {
            hbs_rpc: bind_unless_empty("hbs_rpc", &listen.hbs_rpc).await?,
            hbs_http: bind_unless_empty("hbs_http", &listen.hbs_http).await?,
            ..Sockets::default()
        })
    }

    /// Binds the socket of the api alone, but admin's.
    pub async fn api(listen: &Listen) -> Result<Sockets> {
        Ok(Sockets { api: bind_unless_empty("api", &listen.api).await?, ..Sockets::default() })
    }

    /// Binds the sockets of the judge alone.
    pub async fn judge(listen: &Listen) -> Result<Sockets> {
        Ok(Sockets {
            judge_rpc: bind_unless_empty("judge_rpc", &listen.judge_rpc).await?,
            judge_http: bind_unless_empty("judge_http", &listen.judge_http).await?,
            admin: bind_unless_empty("admin", &listen.admin).await?,
            ..Sockets::default()
        })
    }
}

impl Sockets {
    /// The addresses of the sockets by their names.
    pub fn bound(&self) -> Bound {
        let bound = Bound::default();
        bound.add(self);
        bound
    }

    fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        let all = [
            ("transfer_rpc", &self.transfer_rpc),
            ("transfer_http", &self.transfer_http),
            ("transfer_telnet", &self.transfer_telnet),
            ("hbs_rpc", &self.hbs_rpc),
            ("hbs_http", &self.hbs_http),
            ("graph_rpc", &self.graph_rpc),
            ("judge_rpc", &self.judge_rpc),
            ("judge_http", &self.judge_http),
            ("alarm_http", &self.alarm_http),
            ("aggregator_http", &self.aggregator_http),
            ("nodata_http", &self.nodata_http),
            ("p8s_rpc", &self.p8s_rpc),
            ("p8s_http", &self.p8s_http),
            ("api", &self.api),
            ("admin", &self.admin),
        ];
        all.into_iter().filter_map(|(name, socket)| Some((name, socket.as_ref()?.local_addr().ok()?)))
    }
}

/// Addresses that listen, by the names of their listeners; clones share them.
#[derive(Clone, Default)]
pub struct Bound(Arc<Mutex<Vec<(&'static str, SocketAddr)>>>);

impl Bound {
    /// Adds sockets that are bound later than others.
    pub fn add(&self, sockets: &Sockets) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(sockets.addresses());
    }

    /// The addresses that listen now.
    pub fn all(&self) -> Vec<(&'static str, SocketAddr)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How many connections senders, users and admin may have, of so many descriptors: senders cannot lock people out, and
/// neither can lock out who looks after the server.
fn places(descriptors: usize) -> [usize; 3] {
    let places = descriptors.saturating_sub(DESCRIPTORS_KEPT).max(PLACES_MIN);
    let admin = ADMIN_PLACES.min(places / 8);
    let users = (places - admin) / 8;
    [places - admin - users, users, admin]
}

async fn bind_unless_empty(key: &str, address: &str) -> Result<Option<TcpListener>> {
    if address.is_empty() { Ok(None) } else { bind(key, address).await.map(Some) }
}

/// The open doors, and what every door needs: limits, the shared byte budget, and when to close.
pub struct Doors {
    senders: Limits,
    users: Limits,
    admin: Limits,
    /// Most connections of a listener for HTTP.
    http_connections_max: usize,
    names: Vec<String>,
    /// The certificate, and the names of the listeners that use it.
    tls: Option<(Tls, Vec<String>)>,
    /// Who may send.
    pub gate: Gate,
    gate_metrics: GateMetrics,
    pub rpc: RpcLimits,
    /// Turns true when connections are to finish.
    pub stopping: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    open: JoinSet<()>,
}

impl Doors {
    /// Doors of which none is open yet.
    pub fn new(config: &Config, metrics: &Arc<Metrics>, descriptors: usize) -> Doors {
        // An eighth of the budget for unfinished messages: two of the largest, or two thousand first buffers. They come
        // on top of what refusing new series stops at, and so leave room for a table that doubles.
        let budget = Budget::new(config.memory_budget / 8);
        let shown = budget.clone();
        metrics.source(move |figures| {
            figures.gauge("buffer_bytes", "Bytes of unfinished messages", shown.bytes_used() as f64);
            figures.gauge("buffer_max_bytes", "Most bytes that unfinished messages may hold", shown.bytes_max() as f64);
        });
        let (told, ledger) = (budget.clone(), metrics.ledger());
        ledger.source(move |report| {
            report.line("rpc buffers", told.bytes_used() as u64, Some(told.bytes_max() as u64), None);
        });
        let [sender_places, user_places, admin_places] = places(descriptors);
        let senders = Limits {
            connections_max: config.ingest.connections_max,
            places: Places::new(sender_places),
            allow: config.ingest.allow.clone().into(),
            metrics: metrics.register(ConnectionMetrics::register),
            connections: ledger.account("connections", None),
            http: ledger.account("http", None),
            budget: budget.clone(),
            tls: None,
        };
        let users = Limits { allow: Arc::new([]), places: Places::new(user_places), ..senders.clone() };
        let admin = Limits { places: Places::new(admin_places), ..users.clone() };
        let for_http = (config.memory_budget / HTTP_PART) as usize / http::CONNECTION_BYTES;
        let http_connections_max = for_http.max(HTTP_CONNECTIONS_MIN).min(config.ingest.connections_max);
        let names = http::own_names(&agent::system_hostname(), &config.listen.hosts);
        let message_max = (config.ingest.message_max as usize).min(budget.message_max());
        if message_max < config.ingest.message_max as usize {
            tracing::warn!(
                message_max,
                "ingest.message_max is above what memory_budget has room for, and counts as this"
            );
        }
        let rpc = RpcLimits {
            message_max,
            message_timeout: Duration::from_secs(config.ingest.message_timeout as u64),
            budget,
            metrics: metrics.register(RpcMetrics::register),
            connections: senders.connections.clone(),
        };
        let (stop, stopping) = watch::channel(false);
        let open = JoinSet::new();
        let gate_metrics = metrics.register(GateMetrics::register);
        Doors {
            senders,
            users,
            admin,
            http_connections_max,
            names,
            tls: None,
            gate: Gate::open(),
            gate_metrics,
            rpc,
            stopping,
            stop,
            open,
        }
    }

    /// Has the named listeners, of those that are opened from now on, speak TLS.
    pub fn secure(&mut self, tls: Option<Tls>, listeners: &[String]) {
        self.tls = tls.map(|tls| (tls, listeners.to_vec()));
    }

    /// Has the doors that are opened from now on ask senders for `secret`, if there is one, or for a token that was
    /// `issued`.
    pub fn ask_for(&mut self, secret: Option<&Secret>, issued: &Issued) {
        if let Some(secret) = secret {
            self.gate = Gate::closed(secret.text().as_bytes(), issued.clone(), self.gate_metrics.clone());
        }
    }

    /// `limits`, with TLS for a listener that speaks it.
    fn limits_of(&self, name: &str, limits: &Limits) -> Limits {
        let secured = self.tls.as_ref().filter(|(_, names)| names.iter().any(|one| one == name));
        Limits { tls: secured.map(|(tls, _)| tls.clone()), ..limits.clone() }
    }

    /// Opens a door for JSON-RPC, to those who may send.
    pub fn open_rpc<S: Service>(&mut self, name: &'static str, socket: Option<TcpListener>, service: S) {
        let message_max = self.rpc.message_max;
        let gate = self.gate.clone();
        let protocol = move |peer: SocketAddr| JsonRpc::new(service.clone(), peer.ip(), gate.visit(name), message_max);
        if let Some(socket) = socket {
            self.open.spawn(self.protocol(name, socket, protocol));
        }
    }

    /// Opens a door for Go's net/rpc, to those who may send.
    pub fn open_gob<S: gob::Service>(&mut self, name: &'static str, socket: Option<TcpListener>, service: S) {
        if let Some(socket) = socket {
            self.open.spawn(self.gob(name, socket, service));
        }
    }

    /// Opens a door for Go's net/rpc when `ready` turns true, and then calls `opened`; peers wait for their answers
    /// until then.
    pub fn open_gob_when<S: gob::Service>(
        &mut self,
        mut ready: watch::Receiver<bool>,
        name: &'static str,
        socket: Option<TcpListener>,
        service: S,
        opened: impl FnOnce() + Send + 'static,
    ) {
        let Some(socket) = socket else { return };
        let (door, mut stopping) = (self.gob(name, socket, service), self.stopping.clone());
        self.open.spawn(async move {
            tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => return,
                Ok(_) = ready.wait_for(|ready| *ready) => {}
            }
            opened();
            door.await;
        });
    }

    fn gob<S: gob::Service>(
        &self,
        name: &'static str,
        socket: TcpListener,
        service: S,
    ) -> impl Future<Output = ()> + use<S> {
        let message_max = self.rpc.message_max;
        let gate = self.gate.clone();
        self.protocol(name, socket, move |_| Gob::new(service.clone(), gate.visit(name), message_max))
    }

    fn protocol<P: Protocol, N: Fn(SocketAddr) -> P + Send + Sync + 'static>(
        &self,
        name: &'static str,
        socket: TcpListener,
        new: N,
    ) -> impl Future<Output = ()> + Send + use<P, N> {
        let (limits, stopping) = (self.rpc.clone(), self.stopping.clone());
        serve(name, socket, self.limits_of(name, &self.senders), self.stopping.clone(), move |stream, peer, place| {
            connection(name, stream, peer, place, new(peer), limits.clone(), stopping.clone())
        })
    }

    /// Opens a door for anything over TCP, to those who may send.
    pub fn open_tcp<H, F>(&mut self, name: &'static str, socket: Option<TcpListener>, handle: H)
    where
        H: Fn(Stream, SocketAddr, Place) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        if let Some(socket) = socket {
            self.open.spawn(serve(name, socket, self.limits_of(name, &self.senders), self.stopping.clone(), handle));
        }
    }

    /// Opens a door for HTTP, to those who may send. Pages of other sites may not.
    pub fn open_push(&mut self, name: &'static str, socket: Option<TcpListener>, router: axum::Router) {
        self.open_http(name, socket, self.senders.clone(), Guard::own_pages_only(&self.names), router);
    }

    /// Opens a door for HTTP, to people and the pages of any site: its routes ask for a login.
    pub fn open_api(&mut self, socket: Option<TcpListener>, router: axum::Router) {
        self.open_http("api", socket, self.users.clone(), Guard::open(&self.names), router);
    }

    /// Opens a door for HTTP, to people and scripts. Pages of other sites may not ask.
    pub fn open_pages(&mut self, name: &'static str, socket: Option<TcpListener>, router: axum::Router) {
        self.open_http(name, socket, self.users.clone(), Guard::own_pages_only(&self.names), router);
    }

    /// Opens a door for HTTP, to those who look after the server, under its own names only.
    pub fn open_admin(&mut self, name: &'static str, socket: Option<TcpListener>, router: axum::Router) {
        let guard = Guard::own_pages_only(&self.names).by_known_names();
        self.open_http(name, socket, self.admin.clone(), guard, router);
    }

    fn open_http(
        &mut self,
        name: &'static str,
        socket: Option<TcpListener>,
        limits: Limits,
        guard: Guard,
        router: axum::Router,
    ) {
        let limits = Limits { connections_max: self.http_connections_max, ..self.limits_of(name, &limits) };
        if let Some(socket) = socket {
            self.open.spawn(http::serve_router(name, socket, limits, guard, self.stopping.clone(), router));
        }
    }

    /// Keeps the doors open until it is their turn to close; reports a listener that ends before.
    pub async fn run(mut self, mut stop: Stop) -> Result<()> {
        tokio::select! {
            () = stop.asked() => {}
            Some(_) = self.open.join_next() => {
                stop.report(anyhow!("a listener ended by itself"));
                stop.asked().await;
            }
        }
        self.stop.send_replace(true);
        while self.open.join_next().await.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_places() {
        assert_eq!(places(1024), [644, 92, 32]);
        assert_eq!(places(65_536), [57_092, 8_156, 32]);
        assert_eq!(places(100), [49, 7, 8]);
        assert!(places(usize::MAX).iter().all(|places| *places > 0));
    }
}
