//! `GET /export` and `POST /apply`: for administrators, live at once, and answered with what is wrong.

use super::site;
use crate::portal::{group, template};
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
