//! `GET /export` and `POST /apply`: for administrators, live at once, and answered with what is wrong.

use super::site;
use crate::portal::{dashboard, group, template};
use anyhow::Result;
use serde_json::{Value, json};

#[tokio::test]
async fn a_portal_is_exported_and_applied() -> Result<()> {
    let site = site(|_| {}).await?;
    let portal = &site.context.portal;
    template::create(portal, "base", 0, 0, "alice").await?;
    let (status, mut sent) = site.ask("root", "GET /export", Value::Null).await?;
    assert_eq!((status, &sent["files"]["templates/base.toml"]), (200, &json!("name = \"base\"\nowner = \"alice\"\n")));
    assert!(!sent.to_string().contains("$2"), "no hash leaves the server");
    let denied = "You don't have permission! Only an administrator may do this.";
    site.check("alice", "GET /export", Value::Null, 400, denied).await?;
    site.check("alice", "POST /apply", sent.clone(), 400, denied).await?;
    sent["kinds"] = json!(["groups", "templates"]);
    let files = sent["files"].as_object_mut().expect("files");
    files.retain(|path, _| path.starts_with("templates/"));
    files.insert("groups/web.toml".into(), "name = \"web\"\ntemplates = [\"base\"]\nhosts = [\"web-01\"]\n".into());
    let before = portal.version();
    sent["dry_run"] = true.into();
    let (status, planned) = site.ask("root", "POST /apply", sent.clone()).await?;
    assert_eq!((status, &planned["applied"], &planned["changes"][0]["what"]), (200, &json!(false), &json!("create")));
    assert_eq!((portal.version(), group::all(portal).await?.len()), (before, 0));
    sent["dry_run"] = false.into();
    let (status, done) = site.ask("root", "POST /apply", sent.clone()).await?;
    assert_eq!((status, &done["applied"], &done["changes"]), (200, &json!(true), &planned["changes"]));
    assert_eq!(portal.version(), before + 1, "the judges hear of it once");
    assert_eq!(group::all(portal).await?[0].create_user, "root", "who applies has made it");
    let (_, again) = site.ask("root", "POST /apply", sent.clone()).await?;
    assert_eq!((&again["changes"], portal.version()), (&json!([]), before + 1));
    sent["files"]["groups/web.toml"] = "name = \"web\"\nhosts = [\"a b\"]\n".into();
    let (status, answer) = site.ask("root", "POST /apply", sent.clone()).await?;
    assert_eq!(
        (status, &answer["faults"][0]["file"], &answer["faults"][0]["line"]),
        (400, &json!("groups/web.toml"), &json!(2))
    );
    let first = "nothing was changed: 1 mistakes, the first is groups/web.toml:2: hosts: \"a b\" has a comma";
    assert!(answer["error"].as_str().unwrap_or_default().starts_with(first), "{answer}");
    sent["kinds"] = json!(["groups", "other"]);
    let (status, answer) = site.ask("root", "POST /apply", sent).await?;
    assert!(status == 400 && answer["error"].to_string().contains("\\\"other\\\" is none of users"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn a_mistyped_dry_run_does_not_apply() -> Result<()> {
    let site = site(|_| {}).await?;
    for name in ["dryrun", "dry-run", "Keep"] {
        let files = json!({ "groups/web.toml": "name = \"web\"\n" });
        let mut sent = json!({ "files": files, "kinds": ["groups"] });
        sent[name] = true.into();
        let (status, answer) = site.ask("root", "POST /apply", sent).await?;
        let text = format!("unknown field `{name}`, expected one of `files`, `kinds`, `keep`, `dry_run`");
        assert!(status == 400 && answer["error"].as_str().is_some_and(|error| error.contains(&text)), "{answer}");
    }
    assert_eq!(group::all(&site.context.portal).await?.len(), 0);
    Ok(())
}

/// Over whichever database the portal is in: two screens take each other's place by their ids, with what is in them.
#[tokio::test]
async fn screens_are_applied() -> Result<()> {
    let site = site(|_| {}).await?;
    let portal = &site.context.portal;
    let chart = "[[graph]]\ntitle = \"idle\"\nendpoints = [\"b\", \"a\"]\ncounters = [\"cpu.idle\"]\nposition = 2\n";
    let apply = async |files: Value, changes: usize| -> Result<()> {
        let (status, done) =
            site.ask("root", "POST /apply", json!({ "files": files, "kinds": ["dashboards"] })).await?;
        assert_eq!((status, done["changes"].as_array().map(Vec::len)), (200, Some(changes)), "{done}");
        Ok(())
    };
    let files = json!({
        "dashboards/a.toml": "name = \"网络\"\n",
        "dashboards/b.toml": format!("name = \"cpu\"\nparent = [\"网络\"]\n{chart}"),
        "dashboards/c.toml": format!("name = \"cpu\"\n{chart}"),
    });
    apply(files, 3).await?;
    let rows = async || -> Result<Vec<(i64, i64, String)>> {
        let rows = dashboard::screens(portal, None, 9).await?;
        Ok(rows.into_iter().map(|row| (row.id, row.pid, row.name)).collect())
    };
    let before = rows().await?;
    let (network, cpu) = (before[0].0, before.iter().find(|row| row.1 == 0 && row.2 == "cpu").expect("at the top").0);
    let inner = before.iter().find(|row| row.1 == network).expect("in it").0;
    let charts = dashboard::graphs(portal, inner, 9).await?;
    assert_eq!((charts.len(), charts[0].hosts.as_str(), charts[0].position), (1, "a|b", 2));
    let files = json!({
        "dashboards/a.toml": format!("id = {network}\nname = \"CPU\"\n"),
        "dashboards/b.toml": format!("name = \"cpu\"\nparent = [\"CPU\"]\n{chart}"),
        "dashboards/c.toml": format!("id = {cpu}\nname = \"网络\"\n{chart}"),
    });
    apply(files.clone(), 3).await?;
    let mut expected = vec![(network, 0, "CPU".to_string()), (cpu, 0, "网络".into()), (inner, network, "cpu".into())];
    expected.sort();
    assert_eq!(rows().await?, expected);
    assert_eq!(dashboard::graphs(portal, inner, 9).await?, charts);
    apply(files, 0).await?;
    apply(json!({}), 3).await?;
    assert_eq!((rows().await?.len(), dashboard::graph(portal, charts[0].id).await?), (0, None));
    Ok(())
}
