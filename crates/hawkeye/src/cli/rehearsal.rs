//! `hawkeye replay`: asks a running server to rehearse a rule, or rehearses on a data directory that no server uses.
//!
//! How: flags and file become the body of `POST /api/v1/strategy/replay`, so both ways mean the same and refuse the
//! same.

use super::client::LoginArgs;
use crate::api::{Context as ApiContext, rehearsal::report_on};
use crate::clock;
use crate::config::Config;
use crate::engine::Engine;
use crate::portal::Portal;
use crate::server;
use crate::watch::log;
use crate::watch::log::say;
use anyhow::{Context, Result, bail};
use clap::Args;
use net::turns::Holder;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The time that an answer may take. A rehearsal takes seconds, and others may come before.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
pub struct RehearsalArgs {
    /// The address of the server's API.
    #[arg(long, visible_alias = "url", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    api: String,
    #[command(flatten)]
    login: LoginArgs,
    /// Rehearse without a server, on the data directory of one that does not run.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The configuration of that server, with --data-dir.
    #[arg(long, value_name = "FILE", requires = "data_dir")]
    config: Option<PathBuf>,

    /// A saved strategy; flags below change it.
    #[arg(long, value_name = "ID", conflicts_with = "expression")]
    strategy: Option<i64>,
    /// A saved expression, or the text of one: 'each(metric=qps module=shop)'
    #[arg(long, value_name = "ID or TEXT")]
    expression: Option<String>,
    /// A rule in TOML or JSON, with the names of the API; flags below change it.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The metric that the rule watches.
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Tags that a series must have, as k=v,k=v
    #[arg(long)]
    tags: Option<String>,
    /// The function over the newest points, e.g. 'all(#3)'
    #[arg(long)]
    func: Option<String>,
    /// The comparison, e.g. '<' or '>='
    #[arg(long, value_name = "OPERATOR")]
    op: Option<String>,
    /// The number that the function's value is compared with.
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    right_value: Option<String>,
    /// The most PROBLEMs that one alarm may send.
    #[arg(long, value_name = "COUNT")]
    max_step: Option<i64>,
    /// Begin of the rule's hours, as HH:MM
    #[arg(long, value_name = "TIME")]
    run_begin: Option<String>,
    /// End of the rule's hours, as HH:MM
    #[arg(long, value_name = "TIME")]
    run_end: Option<String>,
    /// The id of a template whose hosts are watched.
    #[arg(long, value_name = "ID")]
    template: Option<i64>,
    /// A host, or '*' for all that have the metric; may be repeated.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,

    /// Begin of the history: Unix seconds, or a time before now like -7d
    #[arg(long, default_value = "-7d", value_name = "TIME", allow_hyphen_values = true)]
    from: String,
    /// End of the history: Unix seconds, now, or a time before now like -1h
    #[arg(long, default_value = "now", value_name = "TIME", allow_hyphen_values = true)]
    to: String,
    /// Print the answer as one line of JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &RehearsalArgs) -> Result<()> {
    let fields = fields(args)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let answer = match &args.data_dir {
        Some(dir) => runtime.block_on(offline(args, dir, fields))?,
        None => runtime.block_on(ask(args, fields))?,
    };
    say(format_args!("{}", answer.trim_end()));
    Ok(())
}

/// The body of the request, from file and flags.
fn fields(args: &RehearsalArgs) -> Result<Map<String, Value>> {
    let mut fields = args.file.as_deref().map(read_rule).transpose()?.unwrap_or_default();
    let texts = [
        ("metric", &args.metric),
        ("tags", &args.tags),
        ("func", &args.func),
        ("op", &args.op),
        ("right_value", &args.right_value),
        ("run_begin", &args.run_begin),
        ("run_end", &args.run_end),
    ];
    let given = texts.into_iter().filter_map(|(name, text)| Some((name, json!(text.as_ref()?))));
    let numbers = [("id", args.strategy), ("max_step", args.max_step), ("tpl_id", args.template)];
    let numbers = numbers.into_iter().filter_map(|(name, number)| Some((name, json!(number?))));
    fields.extend(given.chain(numbers).map(|(name, value)| (name.to_string(), value)));
    match args.expression.as_deref().map(|text| (text, text.parse::<i64>())) {
        Some((_, Ok(id))) => fields.insert("expression_id".to_string(), json!(id)),
        Some((text, Err(_))) => fields.insert("expression".to_string(), json!(text)),
        None => None,
    };
    if !args.host.is_empty() {
        fields.insert("hosts".to_string(), json!(args.host));
    }
    for (name, time) in [("from", &args.from), ("to", &args.to)] {
        fields.entry(name).or_insert_with(|| json!(time));
    }
    Ok(fields)
}

fn read_rule(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the rule {}", path.display()))?;
    let rule = if text.trim_start().starts_with('{') {
        serde_json::from_str(&text).map_err(anyhow::Error::new)
    } else {
        toml::from_str(&text).map_err(anyhow::Error::new)
    };
    rule.with_context(|| format!("the rule {} is neither TOML nor a JSON object", path.display()))
}

async fn offline(args: &RehearsalArgs, dir: &Path, fields: Map<String, Value>) -> Result<String> {
    let portal = dir.join("portal.db");
    if !portal.is_file() || !dir.join("store").is_dir() {
        bail!("--data-dir {}: no portal.db and store there; want the data_dir of a server", dir.display());
    }
    log::to_stderr("warn")?;
    let flags = [("data_dir", format!("{:?}", dir.display().to_string()))];
    let config = Config::load(args.config.as_deref(), crate::cli::variables()?, &flags)?;
    let store = server::open_store(&config, clock::now())
        .context("while a server runs on this directory, ask it: --api URL")?;
    let portal = Portal::open(&portal).await?;
    let engine = Engine::new(store, server::SHARDS, server::judge_options(&config), None);
    let context = ApiContext::new(portal, Arc::new(config), Arc::new(engine), Arc::default());
    let answer =
        report_on(&context, &Holder::user(""), fields).await.map_err(|error| anyhow::anyhow!("{}", error.text()))?;
    context.portal.close().await;
    Ok(if args.json { serde_json::to_string(&answer)? } else { answer.text() })
}

async fn ask(args: &RehearsalArgs, fields: Map<String, Value>) -> Result<String> {
    let client = args.login.client(&args.api, "--api", PATIENCE).await?;
    let format = if args.json { "json" } else { "text" };
    client.post(&format!("/strategy/replay?format={format}"), Value::Object(fields).to_string()).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RehearsalArgs,
    }

    #[test]
    fn flags_change_a_file() {
        let dir = tempfile::tempdir().expect("temp dir");
        let body = |file: &str, flags: &[&str]| {
            let path = dir.path().join("rule");
            std::fs::write(&path, file).expect("written");
            let line = ["replay", "--file", path.to_str().expect("a path")].into_iter().chain(flags.iter().copied());
            let args = Line::try_parse_from(line).expect("flags").args;
            Value::Object(fields(&args).expect("a rule"))
        };
        let toml = "metric = \"cpu.idle\"\nfunc = \"all(#3)\"\nop = \"<\"\nright_value = \"5\"\nfrom = \"-1d\"\n";
        assert_eq!(
            body(toml, &["--right-value", "-10", "--host", "a", "--host", "b", "--to", "-1h"]),
            json!({ "metric": "cpu.idle", "func": "all(#3)", "op": "<", "right_value": "-10", "from": "-1d", "to": "-1h",
                    "hosts": ["a", "b"] })
        );
        assert_eq!(
            body("{\"id\": 7}", &["--expression", "3", "--max-step", "1"]),
            json!({ "id": 7, "expression_id": 3, "max_step": 1, "from": "-7d", "to": "now" })
        );
        assert_eq!(body("", &["--expression", "each(metric=a b=c)"])["expression"], "each(metric=a b=c)");
    }

    #[test]
    fn a_file_that_is_no_rule() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("rule");
        std::fs::write(&path, "func: all(#3)").expect("written");
        let error = format!("{:#}", read_rule(&path).expect_err("no rule"));
        assert!(error.contains("is neither TOML nor a JSON object"), "{error}");
        let error = format!("{:#}", read_rule(&dir.path().join("none")).expect_err("no file"));
        assert!(error.contains("cannot read the rule"), "{error}");
    }
}
