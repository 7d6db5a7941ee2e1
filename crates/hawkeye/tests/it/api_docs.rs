//! docs/api.md, line by line: its blocks of shell are given to bash as a reader pastes them, against a server that was
//! just started.

use crate::first_alarm::{Shell, blocks};
use crate::harness::{Server, find, gauge, this_minute};
use serde_json::json;
use std::fmt::Write;

#[test]
fn each_line_of_the_document_works() {
    let server = Server::start("");
    let password = std::fs::read_to_string(server.data_dir().join("admin-password")).expect("made at the first start");
    let admin = server.admin();
    let change = json!({ "old_password": password.trim(), "new_password": "root-secret" });
    assert_eq!(admin.request("PUT", "/user/cgpasswd", change).0, 200);
    // The harness logs in with this file.
    std::fs::write(server.data_dir().join("admin-password"), "root-secret").expect("room");
    let url = format!("http://127.0.0.1:{}/api/v1", server.port("api"));
    let document = include_str!("../../../../docs/api.md").replace("http://127.0.0.1:8080/api/v1", &url);
    let blocks = blocks(&document);
    let bound = blocks.iter().position(|block| block.contains("api POST '/hostgroup/template'")).expect("its line");
    let (first, rest) = blocks.split_at(bound + 1);

    let mut shell = Shell::start(&server);
    let paste = |shell: &mut Shell, blocks: &[&str]| {
        let text = blocks.iter().fold(String::new(), |mut text, block| {
            let _ = write!(text, "{block}echo\necho \"-- worked: {}\"\n", block.len());
            text
        });
        shell.paste(&text);
        for block in blocks {
            assert!(!shell.line(&format!("-- worked: {}", block.len())).is_empty());
        }
    };
    paste(&mut shell, first);
    // The alarm that the last examples are about.
    server.update(json!([gauge("web-01", "cpu.idle", 5.0, this_minute())]));
    find("the case of web-01", || {
        let cases = server.admin().get("/alarm/eventcases?event_id=s_2_08d0f3650b4ce6526c78d4a187cb65c9");
        cases.as_array().is_some_and(|cases| !cases.is_empty()).then_some(())
    });
    // A job's token is told once; the document has one that nobody has.
    let (status, renewed) = server.admin().request("PUT", "/job/1/token", json!({}));
    assert_eq!(status, 200, "{renewed}");
    let token = renewed["token"].as_str().expect("a token");
    let rest: Vec<String> = rest.iter().map(|block| block.replace("hj_example", token)).collect();
    paste(&mut shell, &rest.iter().map(String::as_str).collect::<Vec<_>>());
}
