//! A transfer that stands alone, and a gateway: doors for points, and next hops behind them.
//!
//! Start: the buffers of the next hops → what sends them on → the doors. So what waited is on its way before more
//! comes.
//! Stop: the doors close and answer what they have begun; then the sending ends where it is, with its place written
//! down.

use super::admin::admin_router;
use super::data_dir;
use super::doors::{Doors, Sockets};
use super::losses::Losses;
use super::{tls, token, until_stopped};
use crate::clock;
use crate::config::Config;
use crate::role::transfer;
use crate::role::transfer::fanout::Fanout;
use crate::role::transfer::http::PushContext;
use crate::role::transfer::points::Points;
use crate::role::transfer::rpc::TransferService;
use crate::role::transfer::telnet::Telnet;
use crate::watch::health::Health;
use crate::watch::log::say;
use crate::watch::memory::{self, Memory, Size};
use anyhow::{Context, Result};
use metrics::{Metrics, resident_bytes};
use net::gate::Issued;
use std::sync::Arc;
use stdx::{Disk, RealDisk};
use supervisor::Supervisor;
use supervisor::signals::Starting;
use tokio::net::TcpListener;

/// Runs until a signal.
pub async fn serve(config: Arc<Config>, descriptors: usize, starting: Starting) -> Result<()> {
    let (metrics, health) = (Arc::new(Metrics::new()), Health::of_process());
    memory::register_start(metrics.ledger());
    let tls = config.tls.open()?;
    let secret = config.ingest.secret()?;
    let sockets = Sockets::fanout(&config.listen).await?;
    data_dir::prepare(&config.data_dir)?;
    let _locked = RealDisk.lock(&config.data_dir.join("transfer.lock")).with_context(|| {
        format!(
            "cannot lock {} (is another transfer using it, and may this user write it? data_dir sets the directory)",
            config.data_dir.display()
        )
    })?;
    let (fanout, sending) = Fanout::open(&config, &metrics, &health)?;
    let losses = Losses::tell_of_buffers(&config.data_dir, fanout.take_lost(), &health, clock::now());
    let asked = fanout.clone();
    metrics.source(|figures| {
        figures.gauge("resident_bytes", "Resident memory of this process", resident_bytes().unwrap_or(0) as f64);
    });

    // From here on something may be accepted, so a signal asks for an orderly end.
    let signals = starting.over().await;
    let mut doors = Doors::new(&config, &metrics, descriptors);
    doors.secure(tls.clone(), &config.tls.listeners);
    doors.ask_for(secret.as_ref(), &Issued::default());
    let memory = account(&config, &metrics);
    let admin = admin_router(&config, sockets.bound(), &metrics, &health, memory);
    doors.open_admin("admin", sockets.admin, admin);
    let transfer = [sockets.transfer_rpc, sockets.transfer_http, sockets.transfer_telnet];
    open_points(&mut doors, transfer, Points::Next(fanout.clone()), &metrics);
    let mut parts = Supervisor::default();
    tls::keep(&mut parts, &tls, &metrics, &health);
    token::keep(&mut parts, &config.ingest, secret.as_ref(), &doors.gate, &health);
    parts.start("the look at losses", |stop| losses.run_asking(move || asked.take_lost(), stop.signal));
    parts.start("sending to next hops", |stop| sending.run(stop.signal));
    parts.start("the doors", |stop| doors.run(stop));
    memory::forget_unused_code();
    for hop in fanout.names() {
        say(format_args!("hawkeye: points go on to {hop}"));
    }
    say(format_args!("hawkeye: points come in at {}", config.listen.transfer_rpc));
    until_stopped(signals, parts).await
}

/// Opens the three doors of transfer.
pub fn open_points(doors: &mut Doors, sockets: [Option<TcpListener>; 3], points: Points, metrics: &Metrics) {
    let [rpc, http, line] = sockets;
    doors.open_rpc("transfer_rpc", rpc, TransferService::new(points.clone(), metrics));
    let push = PushContext {
        points: points.clone(),
        message_max: doors.rpc.message_max,
        message_timeout: doors.rpc.message_timeout,
        counters: Arc::default(),
        gate: doors.gate.clone(),
    };
    doors.open_push("transfer_http", http, transfer::http::router(push));
    let telnet = Telnet {
        points,
        gate: doors.gate.clone(),
        metrics: doors.rpc.metrics.clone(),
        line_timeout: doors.rpc.message_timeout,
        held: metrics.ledger().account("telnet", None),
    };
    let stopping = doors.stopping.clone();
    doors.open_tcp("transfer_telnet", line, move |stream, peer, place| {
        telnet.clone().connection(stream, peer, place, stopping.clone())
    });
}

/// Account of the memory of a process without series.
fn account(config: &Config, metrics: &Arc<Metrics>) -> Memory {
    Memory::new(metrics.clone(), config.memory_budget, Size::default)
}
