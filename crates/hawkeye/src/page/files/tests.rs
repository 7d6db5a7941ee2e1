//! The files' headers, and what holds of the page as a whole: its references, its languages, its own tests.

use super::*;
use crate::config::Viewer;
use crate::page::tests::{ask, empty_site};
use anyhow::{Context, Result};
use std::collections::BTreeSet;

#[tokio::test]
async fn files_have_types_tags_and_a_strict_policy() -> Result<()> {
    let router = empty_site(Viewer::None).await?.router;
    for (path, content_type) in [("/", "text/html"), ("/ui/style.css", "text/css"), ("/ui/icon.svg", "image/svg+xml")]
        .into_iter()
        .chain(FILES.iter().filter(|file| file.path.ends_with(".js")).map(|file| (file.path, "text/javascript")))
    {
        let (status, headers, body) = ask(&router, path, &[]).await?;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(headers["content-type"].to_str()?.starts_with(content_type), "{path}: {headers:?}");
        assert!(headers["content-security-policy"].to_str()?.starts_with("default-src 'self';"), "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["cache-control"], "no-cache", "{path}");
        assert!(!body.is_empty(), "{path}");
        let tag = headers["etag"].to_str()?;
        let (status, headers, body) = ask(&router, path, &[("if-none-match", tag)]).await?;
        assert_eq!((status, body.len()), (StatusCode::NOT_MODIFIED, 0), "{path}");
        assert_eq!(headers["etag"], tag, "{path}");
        assert_eq!(ask(&router, path, &[("if-none-match", "\"old\"")]).await?.0, StatusCode::OK, "{path}");
    }
    Ok(())
}

fn file(name: &str) -> &'static str {
    FILES.iter().find(|file| file.path.ends_with(name)).map_or("", |file| file.body)
}

/// Checks that every file that index.html, style.css and the modules refer to is served, and that none is of another
/// host.
#[test]
fn the_page_refers_to_its_own_files_only() {
    let mut imports = 0;
    for source in &FILES {
        let own = source.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!own.contains("http://") && !own.contains("https://"), "{} refers to another host", source.path);
        for part in own.split("from \"./").skip(1).chain(own.split("=\"ui/").skip(1)) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(FILES.iter().any(|file| file.path == format!("/ui/{name}")), "{}: no file {name}", source.path);
            imports += 1;
        }
    }
    assert!(imports >= FILES.len(), "the search found only {imports} references");
}

/// Both languages have the same texts with the same gaps, and the modules use each of them.
#[test]
fn both_languages_say_the_same() {
    let texts = file("/i18n.js");
    let (_, texts) = texts.split_once("\n  en: {").expect("English");
    let (english, rest) = texts.split_once("\n  zh: {").expect("Chinese");
    let (chinese, _) = rest.split_once("\n};").expect("the end");
    let read = |part: &'static str| -> BTreeSet<(String, Vec<String>)> {
        let lines = part.lines().filter_map(|line| line.trim().split_once(": \""));
        let gaps = |text: &str| {
            let mut gaps: Vec<String> =
                text.split('{').skip(1).filter_map(|gap| Some(gap.split_once('}')?.0.to_string())).collect();
            gaps.sort();
            gaps
        };
        lines.map(|(key, text)| (key.to_string(), gaps(text))).collect()
    };
    let (english, chinese) = (read(english), read(chinese));
    assert_eq!(english, chinese);
    assert!(english.len() > 50, "the search found only {} texts", english.len());
    let code: String = FILES.iter().filter(|file| file.path != "/ui/i18n.js").map(|file| file.body).collect();
    for (key, _) in &english {
        let composed = ["chart_", "range_"].iter().any(|prefix| key.starts_with(prefix));
        assert!(composed || code.contains(&format!("\"{key}\"")), "nobody uses the text {key}");
    }
}

/// The page's own tests. Where node is not installed they are left out with a line on stderr, unless the variable `CI`
/// is set: there a missing node is a failure.
#[test]
fn functions_of_the_page() -> Result<()> {
    let web = concat!(env!("CARGO_MANIFEST_DIR"), "/../../web");
    let output = match std::process::Command::new("node").arg("tests.mjs").current_dir(web).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && std::env::var_os("CI").is_none() => {
            eprintln!("skipped: node is not installed, web/tests.mjs was not run");
            return Ok(());
        }
        output => output.context("starting node")?,
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("stacks: ok"), "{text}");
    Ok(())
}
