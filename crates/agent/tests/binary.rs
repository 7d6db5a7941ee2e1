//! The slim binary as its users meet it: its command line, and what a wrong configuration gets.

use std::process::{Command, Output};

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawkeye-agent"));
    command.args(arguments).env_remove("RUST_LOG").output().expect("the binary starts")
}

fn error_of(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn says_its_version() {
    let output = run(&["--version"]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("hawkeye-agent {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_wrong_configuration_ends_it_with_one_line_that_names_the_key() {
    let check = |arguments: &[&str], part: &str| {
        let output = run(arguments);
        let error = error_of(&output);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.starts_with("hawkeye-agent: ") && error.contains(part), "{error}");
    };
    check(&["--set", "interval=0s"], "interval");
    check(&["--set", "colour=red"], "colour");
    check(&["--set", "colour"], "want KEY=VALUE");
    check(&["--config", "/nowhere/agent.toml"], "/nowhere/agent.toml");
}
