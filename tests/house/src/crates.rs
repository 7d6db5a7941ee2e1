//! Crates: those below `crates/`, as cargo and the tree know them.

use std::process::Command;

use serde_json::Value;

use crate::layers::Crate;
use crate::repository;

/// What `cargo metadata` says with these arguments besides `--locked`.
pub fn metadata(arguments: &[&str]) -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version", "1", "--locked"]).args(arguments).current_dir(repository::root());
    let done = command.output().expect("cargo runs, since it runs this test");
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("cargo metadata writes JSON")
}

/// All crates below `crates/`, with what they need and the texts of their `src`.
pub fn all() -> Vec<Crate> {
    let metadata = metadata(&["--no-deps", "--offline"]);
    let files = repository::files();
    let packages = metadata["packages"].as_array().expect("packages are a list");
    let ours =
        packages.iter().filter(|package| files.contains(&format!("crates/{}/Cargo.toml", text(&package["name"]))));
    let names: Vec<String> = ours.clone().map(|package| text(&package["name"])).collect();
    ours.map(|package| Crate {
        name: text(&package["name"]),
        needs: needs(package, &names),
        files: sources(&text(&package["name"]), &files),
    })
    .collect()
}

/// Those of `names` that a package is built with.
fn needs(package: &Value, names: &[String]) -> Vec<String> {
    let dependencies = package["dependencies"].as_array().expect("dependencies are a list");
    let built_with = dependencies.iter().filter(|one| one["kind"].as_str() != Some("dev"));
    built_with.map(|one| text(&one["name"])).filter(|name| names.contains(name)).collect()
}

fn sources(name: &str, files: &[String]) -> Vec<(String, String)> {
    let prefix = format!("crates/{name}/src/");
    let paths = files.iter().filter_map(|path| path.strip_prefix(&prefix)).filter(|path| path.ends_with(".rs"));
    paths.map(|path| (path.to_string(), repository::read(&format!("{prefix}{path}")))).collect()
}

fn text(value: &Value) -> String {
    value.as_str().expect("cargo metadata has a text here").to_string()
}
