//! All six roles in one process.
//!
//! Start: store (it locks the data directory; one that is lost beside a portal or events ends the start) → portal (one
//! that is lost beside points or events ends the start) → event queue → engine with its rules, open alarms and the
//! points of the last minutes judged again → alarm → events to Redis → index → hbs → transfer and graph → api and
//! admin. Each step that fails ends the start with one line that names the fix.
//! Stop: this host's agent first, if it runs here; then the doors close and answer what they have begun; then the
//! index, the rules, what is left for Redis (two seconds at most), then alarm, which leaves its undelivered rows for
//! the next start; the log is synced last.

use super::admin::{account, admin_router, health_router};
use super::doors::{Doors, Sockets};
use super::fanout::open_points;
use super::gauges::{show_gauges, watch_memory};
use super::losses;
use super::queue::{OpenedQueue, judge_options, open_event_queue};
use super::store::{SHARDS, keep_index, keep_store, open_aged_store, refuse_lost_store, wait_for_queries};
use super::{Anew, defaults, issued, tls, token, until_stopped, watchdog};
use crate::api::attempts::Attempts;
use crate::api::job::Heartbeats;
use crate::config::{Config, Viewer};
use crate::engine::Engine;
use crate::engine::ingest::Ingest;
use crate::engine::listening::{self, Listener};
use crate::engine::pressure::Pressure;
use crate::portal::job::Heard;
use crate::portal::{self, Portal, admin, delivery};
use crate::role::aggregator::Aggregators;
use crate::role::graph::{GraphMetrics, GraphService};
use crate::role::hbs::HbsService;
use crate::role::job::Jobs;
use crate::role::judge::JudgeService;
use crate::role::nodata::http::{Here, NodataRoutes};
use crate::role::nodata::{Looks, Nodata};
use crate::role::probe::ServerProbes;
use crate::role::probe::places::Together;
use crate::role::redis;
use crate::role::transfer::points::Points;
use crate::role::{aggregator, alarm, graph, hbs, nodata, p8s};
use crate::rules::computed::Lasts;
use crate::rules::{InEffect, RulesTask, Settling, settle};
use crate::watch::health::Health;
use crate::watch::log::say;
use crate::watch::memory;
use crate::{api, clock, page};
use agent::AgentConfig;
use anyhow::Result;
use metrics::Metrics;
use net::gate::Issued;
use net::tls::Tls;
use settings::Secret;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use supervisor::Supervisor;
use supervisor::signals::Starting;
use tokio::sync::watch;

/// Points older than this at a restart are not judged again: whoever was to hear of them has heard, or it is too late.
const CATCH_UP_S: i64 = 600;

/// Runs the whole server until a signal.
pub async fn serve(
    config: Arc<Config>,
    agent: Option<AgentConfig>,
    anew: Anew,
    descriptors: usize,
    starting: Starting,
) -> Result<()> {
    let (metrics, health) = (Arc::new(Metrics::new()), Health::of_process());
    memory::register_start(metrics.ledger());
    memory::register_made(metrics.ledger(), "time zones", || _ = jiff::tz::db());
    let tls = config.tls.open()?;
    let secret = config.ingest.secret()?;
    let sockets = Sockets::whole(&config.listen).await?;
    let page_address = sockets.api.as_ref().and_then(|socket| socket.local_addr().ok());

    if !anew.store {
        refuse_lost_store(&config.data_dir)?;
    }
    let may_be_new = anew.portal || !portal::is_expected(&config.data_dir);
    let (store, age) = open_aged_store(&config, &health)?;
    let (portal, is_whole) = Portal::open_checked(&config.data_dir, may_be_new, &health).await?;
    // Who is not found in a damaged portal may be there.
    let new_password = if is_whole { admin::ensure_root(&portal, &config.data_dir).await? } else { None };
    if is_whole {
        defaults::keep(&portal, &config, new_password.is_some()).await?;
    }
    let opened = open_event_queue(&config)?;
    // Tables that are damaged are told by alarm.
    let handled = delivery::cursor(&portal).await.unwrap_or_else(|_| portal.cursors().handled());
    opened.tell_lost_events(&health, handled);
    let OpenedQueue { queue, recovered, .. } = opened;
    queue.expect(alarm::READER);
    let redis = if config.judge.redis_url.is_none() {
        redis::off(&config.data_dir)?;
        None
    } else {
        let text = "events wait for Redis (judge.redis_url); who takes them there is not told";
        let waits = health.outage_logged_elsewhere(text);
        Some(redis::open(&queue, &config.judge.redis_url, &config.data_dir, &metrics, waits)?)
    };
    let engine = Engine::new(store, SHARDS, judge_options(&config), Some(queue.clone()));
    let engine = Arc::new(engine.with_losses(losses::are_there(&config.data_dir)));
    let rules = RulesTask::start(portal.clone(), engine.clone(), &health).await.map_err(portal::hint)?;
    engine.register_memory(metrics.ledger());
    queue.register_memory(metrics.ledger());
    rules.register_memory(metrics.ledger());
    memory::register_sqlite(metrics.ledger());
    engine.restore(&recovered.open_problems, rules.are_whole());
    drop(recovered);
    engine.catch_up(clock::now() - CATCH_UP_S);
    show_gauges(&metrics, &engine);
    let in_effect = rules.subscribe();
    let pressure = watch_memory(&config, &metrics, &health);
    let limits = &config.ingest;
    let ingest =
        Ingest::new(engine.clone(), pressure.clone(), limits.min_step, limits.future_max, &metrics).told_to(&health);
    let ingest = Arc::new(ingest);
    let (lasts, looks) = (Lasts::default(), Looks::default());

    let mut parts = Supervisor::default();
    let closed = portal.clone();
    parts.at_end("the portal", async move {
        closed.close().await;
        Ok(())
    });
    let believed = age.believed();
    let index_routes = memory::register_made(metrics.ledger(), "parts", || {
        keep_store(&mut parts, &config.data_dir, &engine, age, &pressure, &health);
        let (listener, ears) = (Listener::new(&health), engine.clone());
        parts.start("looking for silence", |stop| listening::run(listener, move |look| ears.listen(look), stop.signal));
        let kept = portal.clone();
        parts.start("the portal's keeper", |stop| async move {
            kept.keep(stop.signal).await;
            Ok(())
        });
        parts.start("alarm", |stop| {
            alarm::run(portal.clone(), queue, config.clone(), believed, metrics.clone(), health.clone(), stop.signal)
        });
        if let Some(redis) = redis {
            parts.start("pushing to Redis", |stop| redis.run(stop.signal));
        }
        let told = health.outage("the rules cannot be read; those in effect stay");
        parts.start("the rules task", |stop| async move {
            rules.run(told, stop.signal).await;
            Ok(())
        });
        let aggregators = Aggregators { engine: engine.clone(), ingest: ingest.clone(), lasts: lasts.clone() };
        aggregators.show_on(&metrics);
        let (rules_of, told) = (in_effect.clone(), health.outage("points of aggregators are not taken"));
        parts.start("computing aggregators", |stop| aggregators.run(rules_of, told, stop.signal));
        let nodata = Nodata {
            engine: engine.clone(),
            ingest: ingest.clone(),
            flood_share: config.nodata.flood_share,
            unkept: health.outage("points of nodata are not taken"),
            looks: looks.clone(),
        };
        let rules_of = in_effect.clone();
        parts.start("looking for nodata", |stop| nodata.run(rules_of, stop.signal));
        let probes = ServerProbes {
            engine: engine.clone(),
            ingest: ingest.clone(),
            portal: portal.clone(),
            config: config.probe.clone(),
            unkept: health.outage("points of the server's probes are not taken"),
            untold: health.outage("reasons of the server's probes cannot be stored"),
        };
        let (rules_of, shown) = (in_effect.clone(), metrics.clone());
        parts.start("running the server's probes", |stop| probes.run(rules_of, shown, stop.signal));
        let together = Together { engine: engine.clone(), ingest: ingest.clone() };
        let (rules_of, told) = (in_effect.clone(), health.outage("points of probes' places are not taken"));
        parts.start("asking what places of probes say together", |stop| together.run(rules_of, told, stop.signal));
        keep_index(&mut parts, &config, &engine, &metrics, &health)
    });
    wait_for_queries(&mut parts, &engine);
    let heard = Heard::default();
    let jobs = Jobs {
        portal: portal.clone(),
        engine: engine.clone(),
        ingest: ingest.clone(),
        heard: heard.clone(),
        unread: health.outage("jobs cannot be read, so who is late is not told"),
        untaken: health.outage("points of jobs are not taken"),
    };
    parts.start("looking at jobs", |stop| jobs.run(stop.signal));
    watchdog::keep(&mut parts, &config.watchdog, &health)?;
    let link = page::EntryLink::default();
    let attempts = Attempts::with_known(&portal).await;
    let link_of_start = link.clone();
    let (told, trustable) = (in_effect.clone(), &config.hbs.trustable);
    let agents = HbsService::new(portal.clone(), told, trustable, engine.oddities().clone()).with_upgrades(&config);
    agents.register(&metrics);
    let (probes, swept, rules_of) = (agents.probes.clone(), portal.clone(), in_effect.clone());
    let unswept = health.outage("old states of probes cannot be deleted");
    parts.start("sweeping states of probes", |stop| probes.sweep(swept, rules_of, unswept, stop.signal));
    let behind = Behind {
        config,
        metrics,
        health,
        portal,
        engine,
        pressure,
        ingest,
        lasts,
        looks,
        heard,
        in_effect,
        agents,
        attempts,
        link: link_of_start,
        tls,
        secret,
        issued: Issued::default(),
    };
    tls::keep(&mut parts, &behind.tls, &behind.metrics, &behind.health);
    if behind.secret.is_some() {
        issued::keep(&mut parts, behind.issued.clone(), behind.portal.clone(), &behind.health);
    }
    // From here on something may be accepted, so a signal asks for an orderly end.
    let signals = starting.over().await;
    let doors = behind.open_doors(sockets, descriptors, index_routes);
    token::keep(&mut parts, &behind.config.ingest, behind.secret.as_ref(), &doors.gate, &behind.health);
    parts.start("the doors", |stop| doors.run(stop));
    memory::forget_unused_code();
    announce_password(&behind.config, new_password.as_deref());
    if let Some(address) = page_address {
        announce_page(&behind.config, address, &link, &behind.portal).await?;
    }
    announce_doors(&behind.config);
    if let Some(agent) = agent {
        parts.start("the agent", |stop| agent::run(agent, stop.signal));
    }
    until_stopped(signals, parts).await
}

/// The server behind the doors.
struct Behind {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    health: Health,
    portal: Portal,
    engine: Arc<Engine>,
    pressure: Arc<Pressure>,
    ingest: Arc<Ingest>,
    lasts: Lasts,
    looks: Looks,
    heard: Heard,
    in_effect: watch::Receiver<Arc<InEffect>>,
    agents: HbsService,
    attempts: Arc<Attempts>,
    link: page::EntryLink,
    tls: Option<Tls>,
    /// What senders show (`ingest.token`), and tokens that are as good.
    secret: Option<Secret>,
    issued: Issued,
}

impl Behind {
    fn open_doors(&self, sockets: Sockets, descriptors: usize, index_routes: Option<axum::Router>) -> Doors {
        let Behind { config, metrics, health, engine, pressure, .. } = self;
        let mut doors = Doors::new(config, metrics, descriptors);
        doors.secure(self.tls.clone(), &config.tls.listeners);
        doors.ask_for(self.secret.as_ref(), &self.issued);
        let ingest = self.ingest.clone();
        let api = self.api(doors.stopping.clone());
        let graph = GraphService::new(engine.clone(), ingest.clone(), GraphMetrics::register(metrics));
        let memory = account(config, engine, pressure, metrics);
        let admin = admin_router(config, sockets.bound(), metrics, health, memory)
            .merge(graph::http::router(&graph, index_routes));
        doors.open_rpc("hbs_rpc", sockets.hbs_rpc, self.agents.clone());
        doors.open_pages("hbs_http", sockets.hbs_http, hbs::http::router(self.agents.clone()));
        let transfer = [sockets.transfer_rpc, sockets.transfer_http, sockets.transfer_telnet];
        open_points(&mut doors, transfer, Points::Own(ingest.clone()), metrics);
        doors.open_gob("graph_rpc", sockets.graph_rpc, graph);
        doors.open_gob("judge_rpc", sockets.judge_rpc, JudgeService::into_store(ingest));
        doors.open_pages("alarm_http", sockets.alarm_http, alarm::http::router());
        doors.open_pages(
            "aggregator_http",
            sockets.aggregator_http,
            aggregator::http::router(self.in_effect.clone(), self.lasts.clone()),
        );
        doors.open_pages("nodata_http", sockets.nodata_http, nodata::http::router(self.nodata()));
        if sockets.p8s_http.is_some() {
            let relay = p8s::Relay::new(config.p8s.series_max, metrics);
            let source = p8s::Source::new(engine.clone(), relay.clone(), &config.p8s.metrics, config.p8s.series_max);
            doors.open_gob("p8s_rpc", sockets.p8s_rpc, relay);
            doors.open_pages("p8s_http", sockets.p8s_http, p8s::router(source));
        }
        doors.open_api(sockets.api, api);
        doors.open_admin("admin", sockets.admin, admin);
        doors
    }

    fn nodata(&self) -> NodataRoutes {
        NodataRoutes {
            here: Some(Here { portal: self.portal.clone(), engine: self.engine.clone() }),
            in_effect: self.in_effect.clone(),
            looks: self.looks.clone(),
            flood_share: self.config.nodata.flood_share,
            counters: Arc::default(),
        }
    }

    /// Routes of the door `api`: REST, and the first page.
    fn api(&self, stopping: watch::Receiver<bool>) -> axum::Router {
        let (portal, config, engine) = (self.portal.clone(), self.config.clone(), self.engine.clone());
        let context = api::Context::new(portal, config, engine, self.attempts.clone());
        let heartbeats = Heartbeats::over(self.heard.clone());
        heartbeats.show_on(&self.metrics);
        let context = api::Context { lasts: self.lasts.clone(), heartbeats, stopping, ..context };
        context.attempts.register_memory(self.metrics.ledger());
        let settling = Settling { portal: self.portal.clone(), in_effect: self.in_effect.clone() };
        memory::register_made(self.metrics.ledger(), "routes", || {
            api::router(context.clone())
                .layer(axum::middleware::from_fn_with_state(settling, settle))
                .merge(page::router(
                    page::Points { engine: self.engine.clone(), graphs: None },
                    self.portal.clone(),
                    &self.config,
                    self.health.clone(),
                    self.link.clone(),
                ))
                .merge(health_router(&self.metrics, &self.health))
        })
    }
}

/// Prints the password of a first start, this once; the file keeps it.
pub fn announce_password(config: &Config, new_password: Option<&str>) {
    if let Some(password) = new_password {
        say(format_args!(
            "hawkeye: first start: log in as root with the password {password} (kept in {})",
            config.data_dir.join("admin-password").display()
        ));
    }
}

/// Prints where the page is, and a link that logs in, where the page asks for a login.
pub async fn announce_page(
    config: &Config,
    mut address: SocketAddr,
    link: &page::EntryLink,
    portal: &Portal,
) -> Result<()> {
    // Listening everywhere is no address to go to; whoever reads this is on the machine.
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let scheme = if config.tls.is_on("api") { "https" } else { "http" };
    say(format_args!("hawkeye: the page is at {scheme}://{address}/"));
    if config.api.viewer != Viewer::All {
        let secret = link.renew(portal).await?;
        say(format_args!("hawkeye: logs one browser in, within ten minutes: {scheme}://{address}/#login={secret}"));
    }
    Ok(())
}

/// Prints where points come in.
fn announce_doors(config: &Config) {
    if !config.listen.graph_rpc.is_empty() {
        say(format_args!("hawkeye: an old transfer and api reach the graph at {}", config.listen.graph_rpc));
    }
    if !config.listen.judge_rpc.is_empty() {
        say(format_args!("hawkeye: an old transfer reaches the judge at {}", config.listen.judge_rpc));
    }
    let or_off = |address: &str| if address.is_empty() { "nowhere".to_string() } else { address.to_string() };
    let told = |key: &str, address: &str| {
        let over_tls = if config.tls.is_on(key) { " over TLS" } else { "" };
        or_off(address) + over_tls
    };
    let points = told("transfer_rpc", &config.listen.transfer_rpc);
    let hbs = told("hbs_rpc", &config.listen.hbs_rpc);
    say(format_args!("hawkeye: agents report to {points} (points) and {hbs} (hbs)"));
}
