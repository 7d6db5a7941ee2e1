//! Scripts: exit codes, output, and programs that do not end, flood, or leave others behind.

use super::world::*;
use crate::{Code, Outcome, Policy, Scripts};
use net::patience::until;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

struct Folder {
    dir: TempDir,
    policy: Policy,
}

impl Folder {
    fn new() -> Folder {
        let dir = tempfile::tempdir().expect("a directory");
        let scripts = Scripts { dirs: vec![dir.path().to_path_buf()], user: None };
        Folder { policy: Policy { scripts, ..Policy::server() }, dir }
    }

    fn put(&self, text: &str) -> String {
        let path = self.dir.path().join("check_it");
        // Written beside it, so that no file is run that is still open for writing.
        let new = self.dir.path().join("new");
        std::fs::write(&new, format!("#!/bin/sh\n{text}\n")).expect("room");
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        std::fs::rename(&new, &path).expect("room");
        path.display().to_string()
    }

    async fn run(&self, text: &str, more: Value) -> Outcome {
        let path = self.put(text);
        // Another thread of the tests may have just been forked with the file open for writing.
        for _ in 0..50 {
            let outcome = under(&self.policy, "script", &path, more.clone()).await;
            if !outcome.reason.as_ref().is_some_and(|reason| reason.text.contains("Text file busy")) {
                return outcome;
            }
        }
        panic!("the file stays busy");
    }
}

#[tokio::test]
async fn exit_codes_are_states_and_the_first_line_the_reason() {
    let folder = Folder::new();
    let outcome = folder.run("echo \"DISK OK | /=10%;80;90 'a b'=2s\"; echo more", json!({})).await;
    assert!(outcome.up);
    assert_eq!(outcome.reason.as_ref().map(|reason| reason.text.as_str()), Some("DISK OK"));
    assert_eq!(value(&outcome, "probe.script.status"), Some(0.0));
    assert_eq!(value(&outcome, "probe.script.perf_dropped"), Some(0.0));
    let figures: Vec<(&str, f64)> = outcome
        .readings
        .iter()
        .filter(|reading| reading.metric == "probe.script.perf")
        .map(|reading| (reading.tags.as_str(), reading.value))
        .collect();
    let expected = [("label=/,target=check_it,unit=%", 10.0), ("label=a_b,target=check_it,unit=s", 2.0)];
    assert_eq!(figures, expected);
    let check = async |text: &str, code: Code, part: &str, status: Option<f64>| {
        let outcome = folder.run(text, json!({})).await;
        is_down(&outcome, code, part);
        assert_eq!(value(&outcome, "probe.script.status"), status);
    };
    check("echo 'WARNING: hot'; exit 1", Code::ScriptWarning, "WARNING: hot", Some(1.0)).await;
    check("echo 'CRITICAL: fire|a=1'; exit 2", Code::ScriptCritical, "CRITICAL: fire", Some(2.0)).await;
    check("exit 3", Code::ScriptUnknown, "the script says UNKNOWN, and nothing else", Some(3.0)).await;
    check("echo 'no such option' >&2; exit 3", Code::ScriptUnknown, "no such option", Some(3.0)).await;
    check("echo x; exit 127", Code::Script, "exit code 127, want 0 to 3: x", None).await;
    check("kill -9 $$", Code::Script, "killed by signal 9", None).await;
    let outcome = folder.run("echo warm; exit 1", json!({"warning_is_up": true})).await;
    assert!(outcome.up && outcome.reason.is_some_and(|reason| reason.code == Code::ScriptWarning));
}

#[tokio::test]
async fn arguments_are_no_commands_and_nothing_is_inherited() {
    let folder = Folder::new();
    let more = json!({"args": ["a b", "$(id)", "; exit 2", "*"]});
    let outcome = folder.run("echo \"$# $1 $2 $3 $4 [$HOME] [$CARGO_MANIFEST_DIR] $(pwd) $(cat)\"", more).await;
    let said = outcome.reason.expect("its first line").text;
    assert_eq!(said, "4 a b $(id) ; exit 2 * [] [] /");
}

#[tokio::test]
async fn only_programs_of_the_folders_run() {
    let folder = Folder::new();
    let path = folder.put("exit 0");
    let outside = tempfile::tempdir().expect("a directory");
    let link = folder.dir.path().join("link");
    std::os::unix::fs::symlink("/bin/true", &link).expect("room");
    let up_and_out = format!("{}/../../bin/true", folder.dir.path().display());
    for target in ["/bin/true", link.to_str().expect("text"), &up_and_out] {
        let outcome = under(&folder.policy, "script", target, json!({})).await;
        let reason = outcome.reason.expect("a reason");
        assert!(matches!(reason.code, Code::Denied | Code::Script), "{reason:?}");
        assert!(!outcome.up && (reason.text.contains("no folder of scripts") || reason.text.contains("cannot run")));
    }
    let scripts = Scripts { dirs: vec![outside.path().to_path_buf()], user: None };
    let policy = Policy { scripts, ..Policy::server() };
    is_down(&under(&policy, "script", &path, json!({})).await, Code::Denied, "in no folder of scripts");
    let gone = folder.dir.path().join("gone").display().to_string();
    is_down(&under(&folder.policy, "script", gone, json!({})).await, Code::Script, "cannot run");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("it is ours");
    is_down(&under(&folder.policy, "script", &path, json!({})).await, Code::Script, "cannot run");
}

/// Root may run scripts as somebody else, nobody else may.
#[tokio::test]
async fn scripts_run_as_whom_the_policy_names() {
    let mut folder = Folder::new();
    std::fs::set_permissions(folder.dir.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    folder.policy.scripts.user = Some((65_534, 65_533));
    let outcome = folder.run("echo $(id -u) $(id -g) $(id -G)", json!({})).await;
    match rustix::process::geteuid().is_root() {
        true => assert_eq!(outcome.reason.expect("its first line").text, "65534 65533 65533"),
        false => is_down(&outcome, Code::Script, "cannot run"),
    }
}

/// True while a process of this number runs; one that waits to be reaped has ended.
fn runs(pid: &str) -> bool {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

#[tokio::test]
async fn what_does_not_end_is_killed_with_all_it_began() {
    let folder = Folder::new();
    let pids = folder.dir.path().join("pids");
    let text = format!("sleep 1000 & echo $! $$ > {0}.new; mv {0}.new {0}; wait", pids.display());
    let outcome = folder.run(&text, json!({"timeout_ms": 2000})).await;
    is_down(&outcome, Code::Timeout, "the script has not ended within 2 s");
    let pids = std::fs::read_to_string(pids).expect("written before");
    for pid in pids.split_whitespace() {
        until("the end of the group", async || !runs(pid)).await;
    }
}

/// A process of its own session is in no group of the script's.
#[tokio::test]
async fn what_has_left_the_group_of_a_script_that_hangs_is_killed_too() {
    let folder = Folder::new();
    let pid = folder.dir.path().join("pid");
    let text = format!("setsid sh -c 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000' & sleep 1000", pid.display());
    is_down(&folder.run(&text, json!({"timeout_ms": 2000})).await, Code::Timeout, "has not ended within 2 s");
    let pid = std::fs::read_to_string(pid).expect("written before");
    until("the end of the stray", async || !runs(&pid)).await;
}

#[tokio::test]
async fn a_program_that_everybody_may_write_is_not_run() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let path = folder.put("exit 0");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("it is ours");
    is_down(&under(&folder.policy, "script", &path, json!({})).await, Code::Denied, "chmod o-w");
}

#[tokio::test]
async fn what_is_left_behind_is_killed_and_holds_nothing_up() {
    let folder = Folder::new();
    let pid = folder.dir.path().join("pid");
    let text = format!("sleep 1000 & echo $! > {}; echo done", pid.display());
    let outcome = folder.run(&text, json!({})).await;
    assert!(outcome.up, "{:?}", outcome.reason);
    assert_eq!(outcome.reason.expect("its first line").text, "done");
    let pid = std::fs::read_to_string(pid).expect("written");
    until("the end of the group", async || !runs(&pid)).await;
}

#[tokio::test]
async fn floods_are_cut_off() {
    let folder = Folder::new();
    for text in ["yes", "yes >&2", "while :; do echo '|'; done"] {
        is_down(&folder.run(text, json!({})).await, Code::TooLong, "more than 65536 bytes of output");
    }
}
