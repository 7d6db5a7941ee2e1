//! `hawkeye server`: one process, whose roles decide what it is.
//!
//! Each mode has a page that lists its parts in the order of their start: [`whole`] (all six roles), [`graph`],
//! [`judge`], [`hbs`], [`alarm`], [`api`] or [`modules`] (aggregator, nodata) alone, [`fanout`] (a transfer alone, a
//! gateway); `supervisor` stops them in reverse. What the modes share has a page per subject: [`store`], [`queue`],
//! [`reach`] (the portal's MySQL), [`doors`] (the sockets), [`admin`] and [`gauges`] (what operators see), [`data_dir`]
//! (whose files they are), [`tls`] (the certificate), [`issued`] (tokens that send), [`losses`] (what is lost of the
//! store), [`limits`] (of the system). SIGINT and SIGTERM stop; a second signal ends the process at once; nothing that
//! was answered is lost by that either.
//! Invariants: a part that ends by itself (a panic, a start that failed) stops the process with an error, for a server
//! that takes points and judges or delivers nothing is worse than one that is seen to be down; a fault while stopping
//! does not keep the other parts from their orderly end.

mod admin;
mod alarm;
mod api;
pub mod data_dir;
mod defaults;
mod doors;
mod fanout;
mod gauges;
mod graph;
mod hbs;
mod issued;
mod judge;
mod limits;
mod losses;
mod modules;
mod queue;
mod reach;
mod store;
mod tls;
mod token;
mod watchdog;
mod whole;

pub use limits::raise_descriptor_limit;
pub use queue::judge_options;
pub use store::{SHARDS, open_store};

use crate::config::{Config, Mode};
use crate::portal::Portal;
use agent::AgentConfig;
use anyhow::{Context, Result, bail};
use std::sync::Arc;
use supervisor::Supervisor;
use supervisor::signals::Signals;

/// What may be begun anew although it is expected to be there.
#[derive(Clone, Copy)]
pub struct Anew {
    pub portal: bool,
    pub store: bool,
}

/// Keeps the portal of a role that runs alone, and closes it when all else has ended.
fn keep_portal(parts: &mut Supervisor, portal: &Portal) {
    let (closed, kept) = (portal.clone(), portal.clone());
    parts.at_end("the portal", async move {
        closed.close().await;
        Ok(())
    });
    parts.start("the portal's keeper", |stop| async move {
        kept.keep(stop.signal).await;
        Ok(())
    });
}

/// Runs until a signal; with an agent for this host in the same process, if one is given. What is lost is replaced by
/// something empty where `anew` says so.
pub fn run(config: Config, agent: Option<AgentConfig>, anew: Anew) -> Result<()> {
    let mode = config.mode()?;
    if mode != Mode::Whole && agent.is_some() {
        bail!(
            "--with-agent needs transfer and hbs in the same process: leave it out, and run `hawkeye agent` beside it"
        );
    }
    if !matches!(mode, Mode::Whole | Mode::Alarm | Mode::Api) && anew.portal {
        bail!("--new-portal: only a whole server, and alarm or api alone, have a portal; leave it out");
    }
    if mode != Mode::Whole && anew.store {
        bail!("--new-store: a role that runs alone begins without being asked; leave it out");
    }
    if agent.is_some()
        && let Some(name) = ["transfer_rpc", "hbs_rpc"].into_iter().find(|name| config.tls.is_on(name))
    {
        bail!(
            "--with-agent: the agent in the process speaks plainly to it; take {name:?} out of tls.listeners, or run \
             `hawkeye agent` beside the server, with tls:// addresses and ca"
        );
    }
    for text in config.remarks() {
        tracing::warn!("{text}");
    }
    let descriptors = limits::raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("hawkeye")
        .build()
        .context("cannot start the runtime")?;
    let config = Arc::new(config);
    let result = runtime.block_on(async {
        let starting = Signals::new()?.end_at_once_while_starting();
        limits::outlive_file_size_limit()?;
        match mode {
            Mode::Whole => whole::serve(config, agent, anew, descriptors, starting).await,
            Mode::Graph => graph::serve(config, descriptors, starting).await,
            Mode::Api => api::serve(config, anew, descriptors, starting).await,
            Mode::Alarm => alarm::serve(config, anew, descriptors, starting).await,
            Mode::Modules => modules::serve(config, descriptors, starting).await,
            Mode::Hbs => hbs::serve(config, descriptors, starting).await,
            Mode::Judge => judge::serve(config, descriptors, starting).await,
            Mode::Transfer | Mode::Gateway => fanout::serve(config, descriptors, starting).await,
        }
    });
    // A look-up of a name that no server answers holds its thread for many seconds; nothing waits for it any more.
    runtime.shutdown_background();
    result
}

/// Waits for a signal, or for a part that ends by itself, and stops all parts.
async fn until_stopped(mut signals: Signals, mut parts: Supervisor) -> Result<()> {
    let ended_early = tokio::select! {
        () = signals.asked() => None,
        why = parts.ended() => Some(why),
    };
    tracing::info!("stopping");
    signals.end_at_once_when_asked_again();
    parts.stop(ended_early).await
}
