//! Plugins with scripts that really run.

use super::*;
use crate::config::AgentConfig;
use crate::reload::settings_of;
use net::patience::{in_time, until};
use run::Fault;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use wire::{Scratch, decode_items};

/// A plugin directory with logs, and the agent that runs what lies there.
struct Stage {
    dir: tempfile::TempDir,
    live: Arc<Live>,
    ground: Ground,
}

impl Stage {
    fn new(further: &str) -> Stage {
        let dir = tempfile::tempdir().expect("temporary directory");
        // A plugin that runs as somebody else must reach its file.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("own directory");
        let text = format!(
            "hostname = \"host-1\"\n[default_tags]\nidc = \"bj\"\n[plugin]\nenabled = true\ndir = {:?}\nlogs = {:?}\n{further}",
            dir.path(),
            dir.path().join("logs")
        );
        let config = AgentConfig::load(&text, std::iter::empty(), &[], "host-1").expect("valid");
        let live = Arc::new(Live::new(settings_of(&config)));
        Stage { dir, ground: Ground::new(live.clone()), live }
    }

    /// Makes a script. Another process writes it: one that this process writes could not be run while a child of
    /// another test still holds it open.
    fn script(&self, path: &str, text: &str) {
        let (from, to) = (self.dir.path().join("text"), self.dir.path().join(path));
        fs::write(&from, format!("#!/bin/sh\n{text}\n")).expect("room");
        let script = "mkdir -p \"$(dirname \"$2\")\" && cp \"$1\" \"$2\" && chmod 755 \"$2\"";
        let status = Command::new("sh").args(["-c", script, "sh"]).args([&from, &to]).status().expect("sh");
        assert!(status.success());
    }

    async fn run(&self, path: &str, args: &str, cycle_s: i64) -> Ran {
        let plugin = Plugin { path: path.into(), mtime: 0, cycle_s, args: args.into() };
        in_time("the end of the run", Runner::new(plugin).run(&self.ground)).await
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join("logs").join(name)).expect(name)
    }

    fn plugins(&self) -> Arc<Plugins> {
        Arc::new(Plugins::new(self.live.clone(), Arc::new(Queue::new(1 << 20)), "host-1", 60))
    }
}

/// Metric, tags, value, step, endpoint, timestamp of each point.
fn points(ran: &Ran) -> Vec<(String, String, f64, u32, String, i64)> {
    let mut points = Vec::new();
    for batch in &ran.batches {
        decode_items(&batch.json, &mut Scratch::new(), &mut |item| {
            let item = item.expect("checked when it was taken");
            let names = (item.metric.to_string(), item.tags.to_string(), item.endpoint.to_string());
            points.push((names.0, names.1, item.value, item.step, names.2, item.timestamp));
        })
        .expect("an array");
    }
    points
}

#[tokio::test]
async fn points_are_taken_as_the_door_takes_them() {
    let stage = Stage::new("");
    stage.script(
        "sys/60_a.sh",
        r#"echo '[{"endpoint":"other","metric":"m","value":"42","step":30,"counterType":"COUNTER","tags":"b=1,a=2","timestamp":1600000000},
             {"endpoint":"e","metric":"now","value":1.5,"step":60,"counterType":"GAUGE","tags":""}]'"#,
    );
    let ran = stage.run("sys/60_a.sh", "", 60).await;
    assert_eq!((&ran.fault, ran.exit), (&None, Some(0)));
    let first = ("m".into(), "a=2,b=1,idc=bj".into(), 42.0, 30, "other".into(), 1_600_000_000);
    let second = ("now".into(), "idc=bj".into(), 1.5, 60, "e".into(), ran.span.begin);
    assert_eq!(points(&ran), [first, second]);
}

/// A plugin that prints what those of a recorded original printed gives the points which that agent sent.
#[tokio::test]
async fn points_are_those_of_the_original() {
    let recorded = testdata::text("jsonrpc/agent_transfer.jsonl");
    let call = recorded.lines().find(|line| line.contains("plugin.demo2")).expect("a recorded call");
    let call: Value = serde_json::from_str(call).expect("JSON");
    let items = call["params"][0].as_array().expect("a list of items");
    let stage = Stage::new("");
    stage.script("5_demo.sh", &format!("cat <<'END'\n{}\nEND", call["params"][0]));
    let ran = stage.run("5_demo.sh", "", 5).await;
    assert_eq!((ran.fault.as_ref(), items.len(), points(&ran).len()), (None, 2, 2));
    for (point, item) in points(&ran).iter().zip(items) {
        let (metric, tags, value, step, endpoint, timestamp) = point;
        let names = [metric, endpoint].map(|name| Value::from(name.as_str()));
        assert_eq!(names, [item["metric"].clone(), item["endpoint"].clone()]);
        assert_eq!((*step, *timestamp), (5, item["timestamp"].as_i64().expect("a time")));
        let recorded = item["value"].as_f64().or_else(|| item["value"].as_str()?.parse().ok());
        assert_eq!(Some(*value), recorded, "{metric}");
        let own = item["tags"].as_str().expect("a text");
        assert_eq!(*tags, model::tags::canonical_string(&format!("{own},idc=bj")));
    }
}

#[tokio::test]
async fn arguments_are_handed_over_one_by_one() {
    let stage = Stage::new("");
    stage.script("5_args.sh", "for argument; do echo \"<$argument>\" >&2; done");
    let check = async |args: &str, expected: &str| {
        assert_eq!(stage.run("5_args.sh", args, 60).await.fault, None);
        assert_eq!(stage.log(&format!("5_args.sh({args}).stderr.log")).replace('\n', ""), expected);
    };
    check("a, \"b c\", 'd\\,e'", "<a><b c><d,e>").await;
    check("$(id), `id`;id", "<$(id)><`id`;id>").await;
}

#[tokio::test]
async fn what_is_wrong_costs_the_run_and_has_its_reason() {
    let stage = Stage::new("");
    let item = r#"{"endpoint":"e","metric":"m","value":1,"step":60,"counterType":"GAUGE","tags":""}"#;
    let check = async |text: &str, count: usize, exit: Option<i32>, expected: Option<Fault>| {
        stage.script("60_a.sh", text);
        let ran = stage.run("60_a.sh", "", 60).await;
        assert_eq!((points(&ran).len(), ran.exit, ran.fault), (count, exit, expected), "{text}");
    };
    check("true", 0, Some(0), None).await;
    check("echo; echo ' '", 0, Some(0), None).await;
    check("echo '[]'", 0, Some(0), None).await;
    check(&format!("echo '[{item}]'; echo words >&2; exit 3"), 0, Some(3), Some(Fault::Exit(3))).await;
    check("kill -9 $$", 0, Some(137), Some(Fault::Exit(137))).await;
    check("echo 42", 0, Some(0), Some(Fault::Output("42\n".into()))).await;
    check(&format!("echo '{item}'"), 0, Some(0), Some(Fault::Output(format!("{item}\n").chars().take(80).collect())))
        .await;
    check(
        &format!("echo '[{item},'"),
        0,
        Some(0),
        Some(Fault::Output(format!("[{item},\n").chars().take(80).collect())),
    )
    .await;
    let first = wire::item::Invalid::NotAnObject;
    check(&format!("echo '[1, {item}, {{}}]'"), 1, Some(0), Some(Fault::Items(2, first))).await;
    check("yes", 0, None, Some(Fault::Flooded)).await;
    check("yes >&2", 0, None, Some(Fault::Flooded)).await;
}

#[tokio::test]
async fn what_does_not_end_is_killed_half_a_second_before_the_next_run() {
    let stage = Stage::new("");
    let check = async |text: &str| {
        stage.script("2_a.sh", text);
        let ran = stage.run("2_a.sh", "", 2).await;
        assert_eq!((ran.batches.len(), ran.exit, ran.fault), (0, None, Some(Fault::TimedOut)), "{text}");
    };
    check("echo '[]'; echo last words >&2; sleep 1000").await;
    assert_eq!(stage.log("2_a.sh().stderr.log"), "last words\n", "errors of who hangs are what is looked for");
    check("trap '' TERM INT HUP; while true; do sleep 1000; done").await;
    // Ended, while a grandchild that left the group holds the output.
    check("echo '[]'; (setsid sleep 1000 &) ; exit 0").await;
    check("echo '[]'; sleep 1000 & exit 0").await;
    // A closed output, and a program that goes on.
    check("exec > /dev/null 2>&1; sleep 1000").await;
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let stage = Stage::new("");
    for path in ["60_plain.sh", "60_open.sh", "60_broken.sh"] {
        stage.script(path, "true");
    }
    let mode = |path: &str, mode: u32| {
        fs::set_permissions(stage.dir.path().join(path), fs::Permissions::from_mode(mode)).expect("own file");
    };
    mode("60_plain.sh", 0o644);
    mode("60_open.sh", 0o777);
    fs::write(stage.dir.path().join("60_broken.sh"), "#!/no/such/shell\n").expect("own file");
    let check = async |path: &str, part: &str| {
        let ran = stage.run(path, "", 60).await;
        let Some(Fault::Start(why)) = &ran.fault else { panic!("{path}: {:?}", ran.fault) };
        assert!(why.contains(part) && ran.exit.is_none(), "{path}: {why}");
    };
    check("60_plain.sh", "Permission denied").await;
    check("60_open.sh", "chmod o-w").await;
    check("60_broken.sh", "No such file").await;
    check("60_gone.sh", "No such file").await;
}

#[tokio::test]
async fn without_a_place_a_run_is_given_up() {
    let stage = Stage::new("");
    stage.script("1_a.sh", "true");
    let all = stage.ground.take_all_places();
    assert_eq!(stage.run("1_a.sh", "", 1).await.fault, Some(Fault::NoPlace));
    drop(all);
    assert_eq!(stage.run("1_a.sh", "", 60).await.fault, None);
}

/// As root a plugin gives up root's rights and groups; anybody else can name nobody but themselves.
#[tokio::test]
async fn runs_as_the_configured_user() {
    if !geteuid().is_root() {
        let fault = check_user("0:0").expect_err("not root");
        assert!(fault.contains("start it as root"), "{fault}");
        assert_eq!(check_user(&format!("{}:{}", geteuid().as_raw(), 0)), Ok(()));
        return;
    }
    let stage = Stage::new("user = \"65534:65533\"");
    stage.script("60_a.sh", "echo $(id -u) $(id -G) >&2");
    assert_eq!(stage.run("60_a.sh", "", 60).await.fault, None);
    assert_eq!(stage.log("60_a.sh().stderr.log"), "65534 65533\n");
}

#[tokio::test]
async fn when_the_agent_stops_runs_are_killed_with_all_that_they_have_started() {
    let stage = Stage::new("");
    let pid = stage.dir.path().join("pid");
    stage.script("sys/2_a.sh", &format!("setsid sh -c 'echo $$ > {}; exec sleep 1000' &\nsleep 1000", pid.display()));
    let plugins = stage.plugins();
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(plugins.clone().run(stopping));
    plugins.order(vec!["sys".into()]);
    until("the run", async || fs::read_to_string(&pid).is_ok_and(|text| text.ends_with('\n'))).await;
    stop.send_replace(true);
    in_time("the end", running).await.expect("no panic");
    let stat = format!("/proc/{}/stat", fs::read_to_string(&pid).expect("written").trim());
    until("the end of the stray", async || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "))).await;
    assert_eq!(plugins.counters.failures(), 0, "who was killed by a stop has not failed");
}

#[tokio::test]
async fn runs_what_hbs_asks_for_and_nothing_else() {
    let stage = Stage::new("");
    for path in ["sys/3600_a.sh", "sys/3600_b.sh", "web/3600_c.sh"] {
        stage.script(path, "true");
    }
    let plugins = stage.plugins();
    let (stop, stopping) = watch::channel(false);
    let running = tokio::spawn(plugins.clone().run(stopping));
    let check = async |entries: &[&str], keys: &[&str]| {
        plugins.order(entries.iter().map(|entry| entry.to_string()).collect());
        until("the plugins", async || plugins.shown().as_object().is_some_and(|shown| shown.keys().eq(keys))).await;
    };
    check(&["sys"], &["sys/3600_a.sh", "sys/3600_b.sh"]).await;
    check(&["sys/3600_a.sh(x)", "sys"], &["sys/3600_a.sh(x)", "sys/3600_b.sh"]).await;
    let shown = &plugins.shown()["sys/3600_a.sh(x)"];
    assert_eq!(
        (&shown["FilePath"], &shown["Cycle"], &shown["Args"]),
        (&json!("sys/3600_a.sh"), &json!(3600), &json!("x"))
    );

    let file = stage.dir.path().join("sys/3600_b.sh");
    let task = || plugins.running()["sys/3600_b.sh"].task.id();
    let (before, mtime) = (task(), plugins.shown()["sys/3600_b.sh"]["MTime"].as_i64().expect("a time"));
    check(&["sys"], &["sys/3600_a.sh", "sys/3600_b.sh"]).await;
    assert_eq!(task(), before, "what has not changed goes on");
    let later = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(mtime as u64 + 5);
    fs::File::open(&file).and_then(|file| file.set_modified(later)).expect("own file");
    plugins.look_again();
    until("the new time", async || plugins.shown()["sys/3600_b.sh"]["MTime"] == mtime + 5).await;
    assert_ne!(task(), before, "what has changed begins anew");

    check(&[], &[]).await;
    check(&["web", "nowhere"], &["web/3600_c.sh"]).await;
    let off = AgentConfig::load("", std::iter::empty(), &[], "host-1").expect("valid");
    stage.live.change(settings_of(&off));
    plugins.look_again();
    until("the end of all", async || plugins.shown() == json!({})).await;
    assert_eq!((plugins.version().await, plugins.update().await), (NOT_ENABLED.into(), NOT_ENABLED.into()));
    stop.send_replace(true);
    in_time("the end", running).await.expect("no panic");
}
