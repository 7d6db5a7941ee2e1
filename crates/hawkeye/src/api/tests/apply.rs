//! The portal as code: what is written is read, ids stay, mistakes are told at once, and nothing is half done.

use crate::api::code::*;
use crate::api::code_diff as diff;
use crate::api::code_model::Kind;
use crate::api::dashboard::DEPTH_MAX;
use crate::config::Config;
use crate::portal::Portal;
use crate::portal::action::Action;
use crate::portal::aggregator::{self, Aggregator};
use crate::portal::dashboard::{self, Graph, Screen};
use crate::portal::exception::{self, Exception};
use crate::portal::expression::{self, Expression};
use crate::portal::mock::{self, Mock};
use crate::portal::probe::{self, Probe};
use crate::portal::strategy::{self, Strategy};
use crate::portal::user::{self, Profile};
use crate::portal::{action, group, plugin, team, template};
use anyhow::Result;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Numbers that depend on a seed only.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.next(of.len() as u64) as usize]
    }

    /// Some of a list, in its order.
    fn some<'a>(&mut self, of: &[&'a str]) -> Vec<&'a str> {
        of.iter().copied().filter(|_| self.next(2) == 0).collect()
    }
}

const NAMES: [&str; 9] =
    ["linux", "Linux base", "基础监控", "a/b", "a~b", "con", "x%y", ".é.", "100% 'quoted' \"text\" \\"];
const GROUPS: [&str; 6] = ["web", "Web 2", "数据库", "a/b", "a~b", "COM1"];
const HOSTS: [&str; 5] = ["web-01", "web-02", "DB-01", "10.0.0.5", "主机"];
const USERS: [&str; 4] = ["alice", "bob", "王小明", "Carol.X"];
const METRICS: [&str; 4] = ["cpu.idle", "df.bytes.used.percent", "net.port.listen", "m"];

async fn random(seed: u64) -> Result<Portal> {
    let portal = Portal::in_memory().await?;
    let dice = &mut Dice(seed);
    let profile =
        |name: &str| Profile { cnname: format!("C {name}"), email: "a@x.com,b@x.com".into(), ..Profile::default() };
    let root = user::create(&portal, "root", "$2secret", &profile("root"), user::ROOT, 0).await?;
    let mut uids = vec![root];
    let users = dice.some(&USERS);
    let owner = |dice: &mut Dice| users.first().filter(|_| dice.next(2) == 0).copied().unwrap_or("root").to_string();
    for name in &users {
        let role = [user::NORMAL, user::ADMIN, user::BLOCKED][dice.next(3) as usize];
        uids.push(user::create(&portal, name, "$2secret", &profile(name), role, 0).await?);
    }
    let teams = dice.some(&["ops", "Db team", "值班"]);
    for name in &teams {
        let members: Vec<i64> = uids.iter().copied().filter(|_| dice.next(2) == 0).collect();
        team::create(&portal, name, dice.one(&["", "on call"]), uids[0], &members).await?;
    }
    let mut tpl_ids = Vec::new();
    for name in dice.some(&NAMES) {
        let parent = if dice.next(3) == 0 { tpl_ids.last().copied().unwrap_or(0) } else { 0 };
        let id = template::create(&portal, name, parent, 0, &owner(dice)).await?.id;
        tpl_ids.push(id);
        if dice.next(2) == 0 {
            let url = if dice.next(2) == 0 { "http://10.0.0.5:8000/x?a=1" } else { "" };
            let action = Action {
                uic: dice.some(&teams).join(","),
                url: url.into(),
                after_callback_sms: 1,
                ..Action::default()
            };
            action::save_for_template(&portal, &action, id).await?;
        }
    }
    let groups = dice.some(&GROUPS);
    for name in &groups {
        let id = group::create(&portal, name, &owner(dice)).await?.id;
        let hosts: Vec<String> = dice.some(&HOSTS).into_iter().map(str::to_string).collect();
        group::replace_hosts(&portal, id, &hosts).await?;
        for tpl_id in tpl_ids.iter().filter(|_| dice.next(2) == 0) {
            group::bind_template(&portal, id, *tpl_id, "root").await?;
        }
        for dir in dice.some(&["sys/ntp", "web/60_check.sh(a, \"b c\")"]) {
            plugin::create(&portal, id, dir, "root").await?;
        }
        for metric in dice.some(&METRICS) {
            let row = Aggregator {
                grp_id: id,
                numerator: "$(cpu.idle)".into(),
                denominator: dice.one(&["$#", "100"]).into(),
                endpoint: name.to_string(),
                metric: metric.to_string(),
                tags: dice.one(&["", "a=b"]).into(),
                ds_type: "GAUGE".into(),
                step: 60,
                creator: "root".into(),
                id: 0,
            };
            aggregator::create(&portal, row).await?;
        }
    }
    for tpl_id in &tpl_ids {
        for _ in 0..dice.next(4) {
            random_strategy(&portal, dice, *tpl_id, &groups).await?;
        }
    }
    for metric in dice.some(&METRICS) {
        let row = Expression {
            expression: format!("each(metric={metric} endpoint=web-01)"),
            func: dice.one(&["all(#3)", "max(#2)"]).into(),
            op: ">".into(),
            right_value: dice.next(100).to_string(),
            max_step: 3,
            priority: 1 + dice.next(5) as i64,
            note: dice.one(&["", "it's \"so\""]).into(),
            pause: dice.next(2) as i64,
            create_user: owner(dice),
            ..Expression::default()
        };
        let action = Action { uic: dice.some(&teams).join(","), ..Action::default() };
        expression::create(&portal, &row, &action).await?;
    }
    for name in dice.some(&NAMES) {
        let (obj_type, obj) = match groups.first() {
            Some(group) if dice.next(2) == 0 => ("group", group.to_string()),
            _ => ("host", "web-01\nweb-02".to_string()),
        };
        let row = Mock {
            name: name.into(),
            obj,
            obj_type: obj_type.into(),
            metric: dice.one(&METRICS).into(),
            dstype: "GAUGE".into(),
            step: 60,
            mock: [-1.0, 0.0, 0.25, 1e12][dice.next(4) as usize],
            creator: "root".into(),
            ..Mock::default()
        };
        mock::create(&portal, row).await?;
    }
    random_probes(&portal, dice, &groups).await?;
    // Screens, and how deep they are.
    let mut screens = vec![(0, 0)];
    for name in dice.some(&NAMES) {
        let (pid, depth) = screens[dice.next(screens.len() as u64) as usize];
        let (screen, _) = dashboard::ensure_screen(&portal, pid, name).await?;
        // One name stands on two levels.
        let (within, _) = dashboard::ensure_screen(&portal, screen.id, name).await?;
        let has_room = |(_, depth): &(i64, usize)| depth + 2 <= DEPTH_MAX;
        screens.extend([(screen.id, depth + 1), (within.id, depth + 2)].into_iter().filter(has_room));
        for title in dice.some(&["cpu", "cpu", "磁盘 \"满\""]) {
            let row = Graph {
                title: title.into(),
                hosts: dice.some(&HOSTS).join("|"),
                counters: dice.one(&["cpu.idle", "cpu.idle|df.bytes.used.percent/mount=/"]).into(),
                screen_id: screen.id,
                timespan: [3600, 86_400][dice.next(2) as usize],
                graph_type: dice.one(&["h", "k", "a"]).into(),
                method: dice.one(&["", "SUM"]).into(),
                position: dice.next(3) as i64 - 1,
                falcon_tags: dice.one(&["", "k=v"]).into(),
                ..Graph::default()
            };
            // Who saves a chart names an endpoint.
            let hosts = if row.hosts.is_empty() { "web-01".to_string() } else { row.hosts };
            dashboard::create_graph(&portal, &Graph { hosts, ..row }).await?;
        }
    }
    Ok(portal)
}

const DEFINITIONS: [&str; 5] = [
    r#"{"kind":"http","target":"http://h/?a=1","headers":{"Accept":"","X-A":"b: c"},"json":{"path":"a","value":null}}"#,
    r#"{"kind":"http","target":"https://h/","redirects":1,"json":{"path":"a.0","value":{"b":[1,"c"]}},"tags":{"值":"班"}}"#,
    r#"{"kind":"tcp","target":"h:25","step":5,"talk":[{"expect":"^220 "},{"send":"QUIT\r\n\"\\"}],"starttls":"smtp","tls":{}}"#,
    r#"{"kind":"icmp","target":"10.0.0.1","loss_percent_max":0,"pace_ms":100}"#,
    r#"{"kind":"dns","target":"10.0.0.53","query":"h","records":["10.1.0.1"],"recursion":false,"timeout_ms":100}"#,
];

async fn random_probes(portal: &Portal, dice: &mut Dice, groups: &[&str]) -> Result<()> {
    for name in dice.some(&NAMES) {
        let mut keys: serde_json::Value = serde_json::from_str(dice.one(&DEFINITIONS))?;
        keys["name"] = name.into();
        let definition: netprobe::Definition = serde_json::from_value(keys)?;
        let group = groups.first().filter(|_| dice.next(2) == 0);
        let known = group::all(portal).await?;
        let grp_id = known.iter().find(|row| Some(&row.grp_name.as_str()) == group).map_or(probe::SERVER, |row| row.id);
        let new = Probe {
            name: name.into(),
            definition: serde_json::to_string(&definition)?,
            places: if group.is_some() { dice.next(3) as i64 } else { 0 },
            grp_id,
            pause: dice.next(2) as i64,
            create_user: "root".into(),
            ..Probe::default()
        };
        probe::create(portal, new).await?.expect("room");
    }
    Ok(())
}

async fn random_strategy(portal: &Portal, dice: &mut Dice, tpl_id: i64, groups: &[&str]) -> Result<()> {
    let row = Strategy {
        metric: dice.one(&METRICS).into(),
        tags: dice.one(&["", "port=80", " module=x , fstype=ext4"]).into(),
        max_step: 1 + dice.next(9) as i64,
        priority: dice.next(6) as i64,
        func: dice.one(&["all(#3)", "avg(#5)", "all(#2) and all(#1) of load.1min > 5"]).into(),
        op: dice.one(&["<", ">=", "!="]).into(),
        right_value: dice.one(&["0", "90", "-0.5"]).into(),
        note: dice.one(&["", "磁盘满了", "a = \"b\" # c"]).into(),
        run_begin: dice.one(&["", "08:00"]).into(),
        run_end: dice.one(&["", "24:00"]).into(),
        tpl_id,
        id: 0,
    };
    let strategy_id = strategy::create(portal, &row).await?;
    let targets = [
        (exception::HOST, "web-01"),
        (exception::TAG, "mount=/data"),
        (exception::GROUP, groups.first().copied().unwrap_or_default()),
    ];
    for (kind, target) in targets.into_iter().filter(|(_, target)| !target.is_empty()) {
        let pause = dice.next(3) as i64;
        if pause < 2 {
            let right_value = if pause == 1 { String::new() } else { "7.5".to_string() };
            let (kind, target) = (kind.to_string(), target.to_string());
            let row = Exception { strategy_id, kind, target, right_value, pause, ..Exception::default() };
            exception::create(portal, row).await?;
        }
    }
    Ok(())
}

fn bundle_of(sent: Sent) -> Bundle {
    sent.bundle().expect("own folders")
}

async fn applied(portal: &Portal, actor: &Actor, bundle: &Bundle, dry_run: bool) -> Result<Outcome> {
    apply(portal, &Config::default(), actor, bundle, dry_run).await.map_err(|error| match error {
        ApplyError::Faults(faults) => anyhow::anyhow!("{faults:#?}"),
        ApplyError::Other(error) => error,
    })
}

fn run(test: impl Future<Output = Result<()>>) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(test).map_err(|error| TestCaseError::fail(format!("{error:#}")))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn what_is_written_is_read(seed: u64) {
        run(async {
            let portal = random(seed).await?;
            let sent = export(&portal).await?;
            let (files, bundle) = (sent.files.clone(), bundle_of(sent));
            let lower: std::collections::BTreeSet<String> = files.keys().map(|path| path.to_lowercase()).collect();
            assert_eq!(lower.len(), files.len(), "two files are one on some disks");
            assert!(files.values().all(|text| !text.contains("$2secret")));
            let again = applied(&portal, &Actor::machine(), &bundle, true).await?;
            assert_eq!(again.changes, []);
            let empty = Portal::in_memory().await?;
            assert!(applied(&empty, &Actor::machine(), &bundle, false).await?.applied || files.is_empty());
            assert_eq!(export(&empty).await?.files, files);
            Ok(())
        })?;
    }

    /// Whatever was there, the files hold behind; and what differs keeps the ids of what stays.
    #[test]
    fn files_hold_over_whatever_was_there(before: u64, after: u64) {
        run(async {
            let (portal, wanted) = (random(before).await?, random(after).await?);
            let bundle = bundle_of(export(&wanted).await?);
            let ids = async || -> Result<BTreeMap<String, i64>> {
                let templates = template::all(&portal).await?.into_iter().map(|row| (row.tpl_name, row.id));
                let screens = dashboard::screens(&portal, Some(0), 99).await?.into_iter();
                Ok(templates.chain(screens.map(|row| (format!("screen {}", row.name), row.id))).collect())
            };
            let old = ids().await?;
            let planned = applied(&portal, &Actor::machine(), &bundle, true).await?.changes;
            assert_eq!(applied(&portal, &Actor::machine(), &bundle, false).await?.changes, planned);
            let left = applied(&portal, &Actor::machine(), &bundle, true).await?.changes;
            assert_eq!(left, [], "{}", diff::lines(&left));
            let exported = export(&portal).await?;
            assert_eq!(exported.files.keys().collect::<Vec<_>>(), bundle.files.keys().collect::<Vec<_>>());
            assert!(ids().await?.iter().all(|(name, id)| old.get(name).is_none_or(|old| old == id)), "an id changed");
            Ok(())
        })?;
    }
}

const TEMPLATE: &str = r#"name = "linux"
owner = "root"

[action]
uic = ["ops"]
url = "http://u:***@10.0.0.5:80/x?token=***"

[[strategy]]
metric = "cpu.idle"
func = "all(#3)"
op = "<"
right_value = "10"
max_step = 3
priority = 0

[[strategy]]
metric = "df.bytes.used.percent"
func = "all(#3)"
op = ">"
right_value = "90"
max_step = 3
priority = 1

[[strategy.exception]]
kind = "host"
target = "db-01"
right_value = "95"
note = "big disk"
"#;

/// A portal with root, the team ops and the template above.
async fn linux() -> Result<Portal> {
    let portal = Portal::in_memory().await?;
    user::create(
        &portal,
        "root",
        "",
        &Profile { cnname: "R".into(), email: "r@x.com".into(), ..Profile::default() },
        user::ROOT,
        0,
    )
    .await?;
    team::create(&portal, "ops", "", 1, &[1]).await?;
    let tpl_id = template::create(&portal, "linux", 0, 0, "root").await?.id;
    let url = "http://u:pass@10.0.0.5:80/x?token=abc".to_string();
    action::save_for_template(&portal, &Action { uic: "ops".into(), url, ..Action::default() }, tpl_id).await?;
    let row = |metric: &str, op: &str, right_value: &str, priority| Strategy {
        metric: metric.into(),
        func: "all(#3)".into(),
        op: op.into(),
        right_value: right_value.into(),
        max_step: 3,
        priority,
        tpl_id,
        ..Strategy::default()
    };
    strategy::create(&portal, &row("cpu.idle", "<", "10", 0)).await?;
    let strategy_id = strategy::create(&portal, &row("df.bytes.used.percent", ">", "90", 1)).await?;
    let (kind, target) = ("host".to_string(), "db-01".to_string());
    let new = Exception {
        strategy_id,
        kind,
        target,
        right_value: "95".into(),
        note: "big disk".into(),
        ..Exception::default()
    };
    exception::create(&portal, new).await?;
    Ok(portal)
}

fn templates_only(files: &[(&str, &str)]) -> Bundle {
    let files = files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect();
    Bundle { files, kinds: vec![Kind::Templates], keep: false }
}

#[tokio::test]
async fn a_threshold_is_edited_and_the_strategy_keeps_its_id() -> Result<()> {
    let portal = linux().await?;
    assert_eq!(export(&portal).await?.files["templates/linux.toml"], TEMPLATE);
    let text = TEMPLATE.replace("\"10\"", "5").replace("\"95\"", "\"97.5\"").replace("big disk", "bigger");
    let bundle = templates_only(&[("templates/by-hand.toml", &text)]);
    let outcome = applied(&portal, &Actor::machine(), &bundle, false).await?;
    let expected = "~ templates linux\n    \
                    strategy(1 cpu.idle).right_value: \"10\" → \"5\"\n    \
                    strategy(2 df.bytes.used.percent).exception(host db-01).note: \"big disk\" → \"bigger\"\n    \
                    strategy(2 df.bytes.used.percent).exception(host db-01).right_value: \"95\" → \"97.5\"\n";
    assert_eq!(diff::lines(&outcome.changes), expected);
    let rows = strategy::of_template(&portal, 1).await?;
    assert_eq!(rows.iter().map(|row| (row.id, row.right_value.as_str())).collect::<Vec<_>>(), [(1, "5"), (2, "90")]);
    assert_eq!(exception::all(&portal).await?[0].id, 1);
    let action = action::by_id(&portal, 1).await?.expect("its own");
    assert_eq!(action.url, "http://u:pass@10.0.0.5:80/x?token=abc", "a secret that is masked is the one that is there");
    // A strategy that is named by its id may change its metric.
    let text = TEMPLATE.replace("metric = \"cpu.idle\"", "id = 1\nmetric = \"cpu.busy\"");
    applied(&portal, &Actor::machine(), &templates_only(&[("templates/a.toml", &text)]), false).await?;
    assert_eq!(strategy::by_id(&portal, 1).await?.expect("kept").metric, "cpu.busy");
    Ok(())
}

const PROBE: &str = r#"name = "shop"
kind = "http"
target = "https://shop.example/health?token=***"
group = "Web"
places = 2
owner = "root"
step = 30
timeout_ms = 5000
status = "200"

[headers]
Accept = "*/*"
Authorization = "***"

[json]
path = "state"
value = 0
"#;

/// A portal with root, the group `Web`, and the probe above.
async fn shop() -> Result<Portal> {
    let portal = linux().await?;
    let grp_id = group::create(&portal, "Web", "root").await?.id;
    let definition: netprobe::Definition = serde_json::from_value(serde_json::json!({
        "name": "shop", "kind": "http", "target": "https://shop.example/health?token=abc", "step": 30, "status": "200",
        "headers": { "Authorization": "Bearer secret", "Accept": "*/*" }, "json": { "path": "state", "value": 0 },
    }))?;
    let (name, definition) = (definition.name.clone(), serde_json::to_string(&definition)?);
    let new = Probe { name, definition, grp_id, places: 2, create_user: "root".into(), ..Probe::default() };
    probe::create(&portal, new).await?.expect("room");
    Ok(portal)
}

fn probes_only(files: &[(&str, &str)]) -> Bundle {
    Bundle { kinds: vec![Kind::Probes], ..templates_only(files) }
}

#[tokio::test]
async fn a_probe_is_edited_and_keeps_its_id_and_secrets() -> Result<()> {
    let portal = shop().await?;
    assert_eq!(export(&portal).await?.files["probes/shop.toml"], PROBE);
    let text = PROBE.replace("value = 0", "value = \"\"").replace("\"*/*\"", "\"\"").replace("step = 30", "step = 60");
    let text = text.replace("places = 2\n", "pause = true\n") + "\n[tls]\nverify = false\n";
    let bundle = probes_only(&[("probes/by-hand.toml", &text)]);
    let outcome = applied(&portal, &Actor::machine(), &bundle, false).await?;
    let expected = "~ probes shop\n    \
                    headers: -\"Accept: */*\" +\"Accept: \"\n    \
                    json: \"{\\\"path\\\":\\\"state\\\",\\\"value\\\":0}\" → \"{\\\"path\\\":\\\"state\\\",\\\"value\\\":\\\"\\\"}\"\n    \
                    pause: 1\n    \
                    places: 2 → nothing\n    \
                    step: 30 → 60\n    \
                    tls.verify: true → false\n";
    assert_eq!(diff::lines(&outcome.changes), expected);
    let row = probe::by_id(&portal, 1).await?.expect("it keeps its id");
    assert_eq!((row.places, row.pause, row.grp_id), (0, 1, 1));
    assert!(row.definition.contains("Bearer secret") && row.definition.contains("token=abc"), "{}", row.definition);
    // A secret that is written takes the other's place, and neither is told.
    let outcome = applied(
        &portal,
        &Actor::machine(),
        &probes_only(&[("probes/a.toml", &text.replace("= \"***\"", "= \"Bearer new\""))]),
        false,
    )
    .await?;
    let expected = "~ probes shop\n    headers: -\"Authorization: ***\" +\"Authorization: ***\"\n";
    assert_eq!(diff::lines(&outcome.changes), expected);
    assert!(probe::by_id(&portal, 1).await?.is_some_and(|row| row.definition.contains("Bearer new")));
    applied(&portal, &Actor::machine(), &probes_only(&[]), false).await?;
    assert!(probe::all(&portal).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn mistakes_in_probes_are_told_at_once() -> Result<()> {
    let portal = shop().await?;
    let secret = "name = \"b\"\nkind = \"http\"\ntarget = \"http://h/?token=***\"\n[headers]\nCookie = \"***\"\n";
    let bundle = probes_only(&[
        ("probes/a.toml", "name = \"a\"\nkind = \"tcp\"\ntarget = \"h\"\nplaces = 1\ncolour = 1\nowner = \"Nobody\"\n"),
        ("probes/b.toml", secret),
        ("probes/c.toml", "name = \"c\"\nkind = \"script\"\ntarget = \"/opt/x\"\n"),
        ("probes/d.toml", "name = \"d\"\ngroup = \"db\"\nkind = \"gopher\"\n"),
        ("probes/e.toml", "name = \"C\"\nkind = \"icmp\"\ntarget = \"h\"\npause = 2\n"),
        ("probes/f.toml", "name = \"f\"\nkind = \"http\"\ntarget = \"http://h/\"\njson = \"{\"\n"),
    ]);
    let Err(ApplyError::Faults(faults)) = apply(&portal, &Config::default(), &Actor::machine(), &bundle, false).await
    else {
        panic!("there are mistakes")
    };
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let expected = [
        "probes/a.toml:3: target: ",
        "probes/a.toml:4: places counts the hosts of a group, and there is none",
        "probes/a.toml:5: colour: unknown field",
        "probes/a.toml:6: owner: there is no user \"Nobody\"",
        "probes/b.toml:1: headers: *** stands for a secret",
        "probes/b.toml:3: target: *** stands for a secret",
        "probes/c.toml:2: kind is script, which only agents run",
        "probes/d.toml:1: target: missing field",
        "probes/d.toml:2: group: there is no host group \"db\"",
        "probes/d.toml:3: kind: give",
        "probes/e.toml:1: name: \"C\" is in probes/c.toml too",
        "probes/e.toml:4: pause must be 0 or 1",
        "probes/f.toml:4: json is a text, and no JSON",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, part) in told.iter().zip(expected) {
        assert!(told.starts_with(part), "{told:?}, want {part:?}");
    }
    // A probe of a group that goes, goes along.
    let bundle = Bundle { kinds: vec![Kind::Groups], ..templates_only(&[]) };
    let outcome = applied(&portal, &Actor::machine(), &bundle, false).await?;
    assert_eq!(diff::lines(&outcome.changes), "- groups Web\n- probes shop\n");
    Ok(())
}

/// What moves out of a group while that goes keeps its id, and goes not along.
#[tokio::test]
async fn what_moves_out_of_a_group_that_goes_stays() -> Result<()> {
    let portal = shop().await?;
    let row = Aggregator {
        grp_id: 1,
        numerator: "$(a)".into(),
        denominator: "$#".into(),
        endpoint: "e".into(),
        metric: "m".into(),
        ds_type: "GAUGE".into(),
        step: 60,
        ..Aggregator::default()
    };
    aggregator::create(&portal, row).await?;
    let mut sent = export(&portal).await?;
    let files = sent.files.iter().map(|(path, text)| (path.replace("Web", "Db"), text.replace("\"Web\"", "\"Db\"")));
    sent.files = files.collect();
    let bundle = bundle_of(sent);
    applied(&portal, &Actor::machine(), &bundle, false).await?;
    assert_eq!(applied(&portal, &Actor::machine(), &bundle, true).await?.changes, []);
    let group = group::all(&portal).await?[0].id;
    assert_eq!(aggregator::by_id(&portal, 1).await?.map(|row| row.grp_id), Some(group));
    assert_eq!(probe::by_id(&portal, 1).await?.map(|row| row.grp_id), Some(group));
    Ok(())
}

/// Who made what is there may be gone; nobody else who is no user gets anything.
#[tokio::test]
async fn an_owner_is_a_user() -> Result<()> {
    let portal = linux().await?;
    group::create(&portal, "web", "gone").await?;
    let kinds = vec![Kind::Groups, Kind::Templates, Kind::Expressions, Kind::Nodata, Kind::Aggregators];
    let bundle = |web: &str, other: &str| {
        let rule = "func = \"all(#1)\"\nop = \">\"\nright_value = 1\nmax_step = 1\npriority = 1\n";
        let mut files = [
            ("groups/web.toml", format!("name = \"web\"\nowner = \"{web}\"\nhosts = [\"h\"]\n")),
            ("groups/db.toml", format!("name = \"db\"\n\nowner = \"{other}\"\n")),
            ("templates/t.toml", format!("name = \"t\"\nowner = \"{other}\"\n")),
            ("expressions/e.toml", format!("expression = \"each(metric=m a=b)\"\n{rule}owner = \"{other}\"\n")),
            (
                "nodata/n.toml",
                format!("name = \"n\"\nobj_type = \"host\"\nobj = [\"h\"]\nmetric = \"m\"\nstep = 60\nowner = \"{other}\"\n"),
            ),
            (
                "aggregators/a.toml",
                format!(
                    "group = \"web\"\nnumerator = \"$(m)\"\ndenominator = \"$#\"\nendpoint = \"e\"\nmetric = \"m\"\nstep = 60\nowner = \"{other}\"\n"
                ),
            ),
        ]
        .map(|(path, text)| (path.to_string(), text));
        files.sort();
        Bundle { files: files.into_iter().collect(), kinds: kinds.clone(), keep: true }
    };
    let refused = bundle("Nobody", "Nobody");
    let Err(ApplyError::Faults(faults)) = apply(&portal, &Config::default(), &Actor::machine(), &refused, false).await
    else {
        panic!("there is no such user")
    };
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let lines = [
        "aggregators/a.toml:7",
        "expressions/e.toml:7",
        "groups/db.toml:3",
        "groups/web.toml:2",
        "nodata/n.toml:6",
        "templates/t.toml:2",
    ];
    let expected = lines.map(|at| format!("{at}: owner: there is no user \"Nobody\": make him, or name another"));
    assert_eq!(told, expected);
    applied(&portal, &Actor::machine(), &bundle("gone", "ROOT"), false).await?;
    let owners: Vec<String> = group::all(&portal).await?.into_iter().map(|row| row.create_user).collect();
    assert_eq!(owners, ["gone", "root"], "as the user's name is spelled");
    Ok(())
}

/// A value that is refused hides no mistake behind it.
#[tokio::test]
async fn all_mistakes_of_a_table_are_told_at_once() -> Result<()> {
    let portal = linux().await?;
    let strategy = "metric = \"m\"\nfunc = \"al(#3)\"\nop = \"=>\"\nright_value = \"ten\"\nmax_step = 0\npriority = 9\n\
                    run_begin = \"8\"\ntags = \"a\"\n";
    let files = [
        (
            "templates/a.toml",
            format!("name = \"a\"\nparent = \"none\"\nowner = \"nobody\"\n\n[[strategy]]\n{strategy}"),
        ),
        (
            "templates/b.toml",
            "name = \"b\"\n\n[action]\nuic = [\"none\"]\nurl = 5\ncallback = 2\n\n[[strategy]]\n".into(),
        ),
        ("users/c.toml", "name = \"c\"\ncnname = \"C\"\nemail = 5\nrole = \"king\"\n".into()),
    ];
    let files = files.into_iter().map(|(path, text)| (path.to_string(), text)).collect();
    let bundle = Bundle { files, kinds: vec![Kind::Templates, Kind::Users], keep: true };
    let Err(ApplyError::Faults(faults)) = apply(&portal, &Config::default(), &Actor::machine(), &bundle, true).await
    else {
        panic!("there are mistakes")
    };
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let expected = [
        "templates/a.toml:2: parent: there is no template",
        "templates/a.toml:3: owner: there is no user",
        "templates/a.toml:7: func `al(#3)`, column 1: unknown function",
        "templates/a.toml:8: op's formating is not vaild",
        "templates/a.toml:9: right_value's formating is not vaild",
        "templates/a.toml:10: max_step is required",
        "templates/a.toml:11: priority must be from 0 to 6",
        "templates/a.toml:12: run_begin's formating is not vaild",
        "templates/a.toml:13: tags: \"a\" is not of the form key=value",
        "templates/b.toml:4: uic: there is no team",
        "templates/b.toml:5: url must be a text",
        "templates/b.toml:6: callback must be 0 or 1",
        "templates/b.toml:8: func is required",
        "templates/b.toml:8: max_step is required",
        "templates/b.toml:8: metric is required",
        "templates/b.toml:8: op is required",
        "templates/b.toml:8: right_value is required",
        "users/c.toml:3: email must be a text",
        "users/c.toml:4: role is \"king\"",
    ];
    for (told, part) in told.iter().zip(expected) {
        assert!(told.starts_with(part), "{told:?}, want {part:?} of {told:#?}");
    }
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    Ok(())
}

#[tokio::test]
async fn odd_paths_are_mistakes() -> Result<()> {
    let portal = linux().await?;
    let group = |at: usize| format!("name = \"group {at}\"\n");
    let paths = ["groups/../../x.toml", "groups/A.toml", "groups/a\u{1b}[2J.toml", "groups/a.toml", "groups/b.txt"];
    let files = paths.iter().enumerate().map(|(at, path)| (path.to_string(), group(at))).collect();
    let bundle = Bundle { files, kinds: vec![Kind::Groups], keep: false };
    let Err(ApplyError::Faults(faults)) = apply(&portal, &Config::default(), &Actor::machine(), &bundle, true).await
    else {
        panic!("odd paths")
    };
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let fix = "name it as folder/name.toml";
    let expected = [
        format!("groups/../../x.toml:1: files: \"groups/../../x.toml\" is not in a folder of its kind alone: {fix}"),
        "groups/a.toml:1: files: \"groups/A.toml\" is one with \"groups/a.toml\" on some disks: rename one of them"
            .to_string(),
        format!(
            "groups/a\\u{{1b}}[2J.toml:1: files: \"groups/a\\u{{1b}}[2J.toml\" has a control character or a `\\`: {fix}"
        ),
        format!("groups/b.txt:1: files: \"groups/b.txt\" does not end with .toml, or is hidden: {fix}"),
    ];
    let mut expected = expected.to_vec();
    expected.sort();
    assert_eq!(told.len(), 4, "{told:#?}");
    let mut told = told;
    told.sort();
    assert_eq!(told, expected);
    let sent = Sent {
        files: [("/etc/x.toml".to_string(), String::new())].into(),
        kinds: vec!["groups".into()],
        ..Sent::default()
    };
    assert!(sent.bundle().is_err_and(|error| error.contains("\"/etc/x.toml\" is in no folder of kinds")));
    Ok(())
}

#[tokio::test]
async fn all_mistakes_are_told_at_once_and_nothing_is_written() -> Result<()> {
    let portal = linux().await?;
    let before = (export(&portal).await?.files, portal.version());
    let bad = TEMPLATE
        .replace("\"10\"", "\"ten\"")
        .replace("uic = [\"ops\"]", "uic = [\"nobody\"]")
        .replace("db-01", "db-*")
        .replace("priority = 1", "priority = 1\nprio = 2")
        .replace("owner = \"root\"", "parent = \"none\"");
    let files = [
        ("templates/bad.toml", bad.as_str()),
        ("templates/cycle.toml", "name = \"c\"\nparent = \"C\"\n"),
        ("templates/no.toml", "name = \n"),
        ("templates/twice.toml", "name = \"LINUX\"\n"),
        ("templates/secret.toml", "name = \"s\"\n[action]\nuic = []\nurl = \"http://u:***@h/\"\n"),
    ];
    let Err(ApplyError::Faults(faults)) =
        apply(&portal, &Config::default(), &Actor::machine(), &templates_only(&files), false).await
    else {
        panic!("there are mistakes")
    };
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let expected = [
        "templates/bad.toml:2: parent: there is no template \"none\"",
        "templates/bad.toml:5: uic: there is no team \"nobody\"",
        "templates/bad.toml:12: right_value's formating is not vaild",
        "templates/bad.toml:23: prio is no key here: give some of metric",
        "templates/bad.toml:27: target: \"db-*\" has a comma, a semicolon, a `*` or a blank",
        "templates/cycle.toml:2: parent: the parents form a cycle",
        "templates/no.toml:1: this is no TOML",
        "templates/secret.toml:4: url: *** stands for a secret that is not known here",
        "templates/twice.toml:1: name: \"LINUX\" is in templates/bad.toml too",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, part) in told.iter().zip(expected) {
        assert!(told.starts_with(part), "{told:?}, want {part:?}");
    }
    assert_eq!((export(&portal).await?.files, portal.version()), before);
    Ok(())
}

/// What goes is not named by what stays, also by files that are as they were.
#[tokio::test]
async fn names_of_what_goes_are_mistakes() -> Result<()> {
    let portal = linux().await?;
    let group = group::create(&portal, "Web", "root").await?.id;
    group::bind_template(&portal, group, 1, "root").await?;
    let (kind, target) = (exception::GROUP.to_string(), "Web".to_string());
    exception::create(&portal, Exception { strategy_id: 1, kind, target, pause: 1, ..Exception::default() }).await?;
    let check = async |gone: &str, faults: &[&str]| -> Result<()> {
        let mut sent = export(&portal).await?;
        sent.files.remove(gone).expect("a file");
        let error = applied(&portal, &Actor::machine(), &bundle_of(sent), true).await.expect_err(gone);
        let text = format!("{error:#}");
        assert_eq!(text.matches("file: ").count(), faults.len(), "{text}");
        assert!(faults.iter().all(|part| text.contains(part)), "{text}");
        Ok(())
    };
    check("groups/Web.toml", &["target: there is no host group \\\"Web\\\""]).await?;
    check("templates/linux.toml", &["templates: there is no template \\\"linux\\\""]).await?;
    check("teams/ops.toml", &["uic: there is no team \\\"ops\\\""]).await?;
    Ok(())
}

/// Two screens named cpu, each with charts.
async fn screens() -> Result<Portal> {
    let portal = linux().await?;
    let top = dashboard::ensure_screen(&portal, 0, "web").await?.0.id;
    let chart = |screen_id: i64, title: &str, position: i64| Graph {
        title: title.into(),
        hosts: "web-01|web-02".into(),
        counters: "cpu.idle".into(),
        screen_id,
        timespan: 3600,
        graph_type: "h".into(),
        position,
        ..Graph::default()
    };
    for pid in [top, 0] {
        let id = dashboard::ensure_screen(&portal, pid, "cpu").await?.0.id;
        dashboard::create_graph(&portal, &chart(id, "idle", 1)).await?;
        dashboard::create_graph(&portal, &chart(id, "busy", 0)).await?;
    }
    Ok(portal)
}

const CPU: &str = r#"name = "cpu"
parent = ["web"]

[[graph]]
title = "busy"
endpoints = ["web-01", "web-02"]
counters = ["cpu.idle"]
timespan = 3600
graph_type = "h"

[[graph]]
title = "idle"
endpoints = ["web-01", "web-02"]
counters = ["cpu.idle"]
timespan = 3600
graph_type = "h"
position = 1
"#;

/// The dashboards of a portal, after `change`.
async fn dashboards(portal: &Portal, change: impl FnOnce(&mut BTreeMap<String, String>)) -> Result<Bundle> {
    let mut files = export(portal).await?.files;
    files.retain(|path, _| path.starts_with("dashboards/"));
    change(&mut files);
    Ok(Bundle { files, kinds: vec![Kind::Dashboards], keep: false })
}

#[tokio::test]
async fn screens_are_known_by_their_paths() -> Result<()> {
    let portal = screens().await?;
    let files = dashboards(&portal, |_| {}).await?.files;
    assert_eq!(
        files.keys().collect::<Vec<_>>(),
        ["dashboards/cpu.toml", "dashboards/web.toml", "dashboards/web~cpu.toml"]
    );
    assert_eq!(files["dashboards/web~cpu.toml"], CPU);
    let edit = dashboards(&portal, |files| {
        let text = CPU.replacen("cpu.idle", "cpu.busy", 1).replace("position = 1", "position = 7");
        files.insert("dashboards/web~cpu.toml".into(), text);
        files.insert("dashboards/new.toml".into(), "name = \"disks\"\nparent = [\"WEB\", \"CPU\"]\n".into());
    })
    .await?;
    let outcome = applied(&portal, &Actor::machine(), &edit, false).await?;
    let expected = "+ dashboards web cpu disks\n    \
                    name: \"disks\"\n    \
                    parent: [\"web\",\"cpu\"]\n\
                    ~ dashboards web cpu\n    \
                    graph(2 busy).counters: -\"cpu.idle\" +\"cpu.busy\"\n    \
                    graph(1 idle).position: 1 → 7\n";
    assert_eq!(diff::lines(&outcome.changes), expected);
    let disks = Screen { id: 4, pid: 2, name: "disks".into() };
    assert_eq!(dashboard::screen(&portal, 4).await?, Some(disks));
    assert_eq!(dashboard::graph(&portal, 2).await?.map(|row| row.counters), Some("cpu.busy".into()));

    // By its id a screen moves with what is in it, and two may take each other's place.
    let rename = |text: &str, from: &str, to: &str, id: i64| text.replacen(from, to, 1) + &format!("id = {id}\n");
    let moved = dashboards(&portal, |files| {
        let cpu = files["dashboards/cpu.toml"].replacen("name", "id = 3\nname", 1).replacen("\"cpu\"", "\"web\"", 1);
        let web = rename(&files["dashboards/web.toml"], "\"web\"", "\"cpu\"", 1);
        files.insert("dashboards/cpu.toml".into(), cpu);
        files.insert("dashboards/web.toml".into(), web);
        for text in files.iter_mut().filter(|(path, _)| path.contains("web~cpu")).map(|(_, text)| text) {
            *text = text.replacen("parent = [\"web\"", "parent = [\"cpu\"", 1);
        }
    })
    .await?;
    applied(&portal, &Actor::machine(), &moved, false).await?;
    let rows = dashboard::screens(&portal, None, 9).await?;
    let rows: Vec<_> = rows.iter().map(|row| (row.id, row.pid, row.name.as_str())).collect();
    assert_eq!(rows, [(1, 0, "cpu"), (2, 1, "cpu"), (3, 0, "web"), (4, 2, "disks")]);
    assert_eq!(dashboard::graphs(&portal, 2, 9).await?.iter().map(|row| row.id).collect::<Vec<_>>(), [2, 1]);

    // What goes takes its charts along; a screen that nobody comes to is left alone.
    dashboard::ensure_screen(&portal, 99, "lost").await?;
    let less = dashboards(&portal, |files| files.retain(|path, _| path == "dashboards/web.toml")).await?;
    let outcome = applied(&portal, &Actor::machine(), &less, false).await?;
    assert!(outcome.changes.iter().all(|change| change.what == "delete" && !change.fields.is_empty()));
    let names: Vec<String> = dashboard::screens(&portal, None, 9).await?.into_iter().map(|row| row.name).collect();
    assert_eq!((names, dashboard::graph(&portal, 1).await?), (vec!["web".to_string(), "lost".into()], None));
    Ok(())
}

#[tokio::test]
async fn mistakes_of_dashboards_are_told() -> Result<()> {
    let portal = screens().await?;
    let deep = (0..10).map(|at| format!("\"s{at}\"")).collect::<Vec<_>>().join(", ");
    let bundle = dashboards(&portal, |files| {
        let graph = "[[graph]]\ntitle = \"t\"\n";
        let rest = "endpoints = [\"a|b\"]\ncounters = [\"c\"]\ngraph_type = \"x\"\n";
        for (name, text) in [
            ("a", "name = \"a\"\nparent = [\"web\", \"none\"]\n".to_string()),
            ("b", format!("name = \"b\"\nparent = [{deep}]\n")),
            ("c", format!("name = \"c\"\n{graph}counters = [\"c\"]\n")),
            ("d", format!("name = \"d\"\n{graph}{rest}")),
            ("e", format!("name = \"e\"\n{graph}id = 1\n{}", rest.replace("a|b", "a"))),
            ("f", "name = \"F\"\nowner = \"root\"\n".to_string()),
            ("g", "name = \"f\"\nid = 77\n".to_string()),
        ] {
            files.insert(format!("dashboards/{name}.toml"), text);
        }
        // What goes is named by a file that is as it was.
        files.remove("dashboards/web.toml");
    })
    .await?;
    let Err(ApplyError::Faults(faults)) = apply(&portal, &Config::default(), &Actor::machine(), &bundle, false).await
    else {
        panic!("there are mistakes")
    };
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    let expected = [
        "dashboards/a.toml:2: parent: there is no screen \"web\"",
        "dashboards/b.toml:2: parent: screens are at most 10 deep",
        "dashboards/c.toml:2: endpoints is required",
        "dashboards/d.toml:4: endpoints: \"a|b\" has a `|`",
        "dashboards/d.toml:6: graph_type is \"x\"",
        "dashboards/e.toml:4: id: this screen has no chart 1",
        "dashboards/e.toml:7: graph_type is \"x\"",
        "dashboards/f.toml:2: owner is no key here",
        "dashboards/g.toml:1: name: \"f\" with this parent is in dashboards/f.toml too",
        "dashboards/g.toml:2: id: there is none with the id 77",
        "dashboards/web~cpu.toml:2: parent: there is no screen \"web\"",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, part) in told.iter().zip(expected) {
        assert!(told.starts_with(part), "{told:?}, want {part:?}");
    }
    Ok(())
}

/// What is wrong for the database in the middle leaves nothing of what came before it.
#[tokio::test]
async fn a_conflict_in_the_middle_leaves_nothing() -> Result<()> {
    let portal = linux().await?;
    let mut sent = export(&portal).await?;
    let before = sent.files.clone();
    sent.files.insert("templates/a.toml".into(), "name = \"a new one\"\n".into());
    sent.files.insert(
        "aggregators/a.toml".into(),
        "group = \"g\"\nnumerator = \"$(a)\"\ndenominator = \"$#\"\nendpoint = \"e\"\nmetric = \"m\"\nstep = 60\n"
            .into(),
    );
    sent.files.insert("groups/g.toml".into(), "name = \"g\"\n".into());
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON cluster BEGIN SELECT RAISE(ABORT, 'no room'); END";
    crate::portal::db::query(refuse).execute(&portal).await?;
    let version = portal.version();
    let bundle = bundle_of(sent);
    let error = applied(&portal, &Actor::machine(), &bundle, false).await.expect_err("refused");
    assert!(format!("{error:#}").starts_with("nothing was changed"), "{error:#}");
    assert_eq!((export(&portal).await?.files, portal.version()), (before, version));
    Ok(())
}

#[tokio::test]
async fn users_come_without_a_password_and_nobody_cuts_himself_off() -> Result<()> {
    let portal = linux().await?;
    let boss = user::create(
        &portal,
        "boss",
        "$2x",
        &Profile { cnname: "B".into(), email: "b@x.com".into(), ..Profile::default() },
        user::ADMIN,
        0,
    )
    .await?;
    let sent = export(&portal).await?;
    let users = |change: &dyn Fn(&mut BTreeMap<String, String>)| {
        let mut files: BTreeMap<String, String> = sent
            .files
            .iter()
            .filter(|(path, _)| path.starts_with("users/"))
            .map(|(a, b)| (a.clone(), b.clone()))
            .collect();
        change(&mut files);
        Bundle { files, kinds: vec![Kind::Users], keep: false }
    };
    let actor = Actor { name: "boss".into(), uid: boss, role: user::ADMIN, trace: Trace::Nowhere };
    let check = async |bundle: Bundle, part: &str| {
        let error = applied(&portal, &actor, &bundle, false).await.expect_err(part);
        assert!(format!("{error:#}").contains(part), "{error:#}");
    };
    check(users(&|files| drop(files.remove("users/root.toml"))), "root is root, who stays").await;
    check(users(&|files| drop(files.remove("users/boss.toml"))), "can neither delete himself").await;
    let other = |path: &'static str, from: &'static str, to: &'static str| {
        users(&move |files| {
            let text = files[path].replace(from, to);
            files.insert(path.into(), text);
        })
    };
    check(other("users/root.toml", "r@x.com", "mine@x.com"), "root is above boss").await;
    check(other("users/boss.toml", "\"admin\"", "\"root\""), "nor change his role").await;
    let new = "name = \"eve\"\ncnname = \"E\"\nemail = \"e@x.com\"\nrole = \"admin\"\n";
    let outcome =
        applied(&portal, &actor, &users(&|files| drop(files.insert("users/e.toml".into(), new.into()))), false).await?;
    assert_eq!(outcome.changes.len(), 1);
    let (eve, stored) = user::with_password(&portal, "eve").await?.expect("made");
    assert_eq!((eve.role, stored.as_str()), (user::ADMIN, ""));
    let verdict = crate::portal::password::verify("", &stored, "").await?;
    assert_eq!(verdict, crate::portal::password::Verdict::Wrong, "no password is none");
    applied(&portal, &actor, &users(&|_| {}), false).await?;
    assert!(user::by_name(&portal, "eve").await?.is_none(), "a file that is away is a deletion");
    Ok(())
}

/// A site of 1,000 hosts, and 80 templates of 40 strategies, fits a body with room to spare.
#[tokio::test]
async fn a_large_site_fits() -> Result<()> {
    let portal = linux().await?;
    let mut sent = Sent { kinds: vec!["groups".into(), "templates".into()], ..Sent::default() };
    let strategies: String = (0..40)
        .map(|at| format!("\n[[strategy]]\nmetric = \"some.long.metric.{at}\"\ntags = \"mount=/data/{at}\"\nfunc = \"all(#3)\"\nop = \">\"\nright_value = \"90\"\nmax_step = 3\nnote = \"what to do when this is full\"\n"))
        .collect();
    for at in 0..80 {
        sent.files.insert(format!("templates/{at}.toml"), format!("name = \"template {at}\"\n{strategies}"));
        let hosts: Vec<String> = (0..1000 / 50).map(|host| format!("\"host-{at}-{host}.example.com\"")).collect();
        if at < 50 {
            let text =
                format!("name = \"group {at}\"\ntemplates = [\"template {at}\"]\nhosts = [{}]\n", hosts.join(", "));
            sent.files.insert(format!("groups/{at}.toml"), text);
        }
    }
    let bytes = serde_json::to_string(&sent)?.len();
    assert!(bytes < crate::api::body::LARGE_BODY_MAX / 8, "{bytes}");
    let outcome = applied(&portal, &Actor::machine(), &bundle_of(sent), false).await?;
    // The template that was there went.
    assert_eq!(outcome.changes.len(), 80 + 50 + 1);
    assert_eq!(crate::portal::host::all(&portal).await?.len(), 1000);
    Ok(())
}
