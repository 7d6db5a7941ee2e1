use super::*;
use model::{Expression, Strategy};
use std::sync::Arc;

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn report_reads_and_writes_back() {
    let text = r#"{"Hostname":"golden-host-01","IP":"10.0.0.1","AgentVersion":"\u003cUNDEFINED\u003e@\u003cUNDEFINED\u003e","PluginVersion":"Error:exit status 128"}"#;
    let report = read_report(text.as_bytes(), &mut Scratch::new()).expect("recorded report");
    assert_eq!((report.hostname.as_str(), report.ip.as_str()), ("golden-host-01", "10.0.0.1"));
    assert_eq!(report.agent_version, "<UNDEFINED>@<UNDEFINED>");
    assert_eq!(report.plugin_version, "Error:exit status 128");
    assert_eq!(written(|out| write_report(out, &report)), text);
}

#[test]
fn what_only_our_agents_say_is_left_out_where_it_is_unknown() {
    let plain = r#"{"Hostname":"h","IP":"","AgentVersion":"","PluginVersion":""#;
    let check = |rest: &str, details: AgentDetails| {
        let text = format!("{plain}{rest}}}");
        let report = read_report(text.as_bytes(), &mut Scratch::new()).expect("a report");
        assert_eq!(report.details, details, "{text}");
        assert_eq!(written(|out| write_report(out, &report)), text);
    };
    let none = AgentDetails::default();
    check("\"", none.clone());
    check(r#"","ClockOffsetMs":-3600000"#, AgentDetails { clock_offset_ms: Some(-3_600_000), ..none.clone() });
    check(
        r#"","FullVersion":"0.1.0 x86_64","ConfigDigest":"0123456789abcdef","ClockOffsetMs":0"#,
        AgentDetails {
            version: "0.1.0 x86_64".into(),
            config_digest: "0123456789abcdef".into(),
            clock_offset_ms: Some(0),
        },
    );
    let read = |text: &str| read_report(text.as_bytes(), &mut Scratch::new()).map(|report| report.details);
    assert_eq!(read(r#"{"Hostname":"h","ClockOffsetMs":null}"#), Ok(none));
    for wrong in ["\"5\"", "1.5", "1e300", "[]", "99999999999999999999"] {
        let text = format!(r#"{{"Hostname":"h","ClockOffsetMs":{wrong}}}"#);
        assert_eq!(read(&text), Err(ParamError::NotAnInteger("ClockOffsetMs")), "{wrong}");
    }
}

#[test]
fn the_time_of_hbs_is_there_or_not() {
    assert_eq!(written(|out| write_reported(out, 1_795_376_682_001)), r#"{"code":0,"TimeMs":1795376682001}"#);
    let read = |answer: &str| read_time_ms(answer.as_bytes(), &mut Scratch::new());
    assert_eq!(read(r#"{"code":0,"TimeMs":1795376682001}"#), Some(1_795_376_682_001));
    for none in [r#"{"code":0}"#, r#"{"code":0,"TimeMs":"soon"}"#, "null", "1", ""] {
        assert_eq!(read(none), None, "{none}");
    }
}

#[test]
fn parameters_as_go_takes_them() {
    let read = |text: &str| read_heartbeat(text.as_bytes(), &mut Scratch::new());
    let heartbeat = |hostname: &str, checksum: &str| Heartbeat { hostname: hostname.into(), checksum: checksum.into() };
    assert_eq!(read(r#"{"hostname":"h","CHECKSUM":"nil","x":[]}"#), Ok(heartbeat("h", "nil")));
    assert_eq!(read(r#"{"Hostname":"h","Hostname":null}"#), Ok(heartbeat("h", "")));
    assert_eq!(read("{}"), Ok(heartbeat("", "")));
    assert_eq!(read("null"), Ok(heartbeat("", "")));
    assert_eq!(read(r#"{"Hostname":5}"#), Err(ParamError::NotAString("Hostname")));
    assert!(matches!(read("[]"), Err(ParamError::Json(_))));
    let long = format!(r#"{{"Hostname":"{}"}}"#, "x".repeat(STRING_BYTES_MAX + 1));
    assert_eq!(read(&long), Err(ParamError::TooLong("Hostname")));
}

#[test]
fn answers_to_agents() {
    assert_eq!(written(|out| write_code(out, 1)), r#"{"code":1}"#);
    assert_eq!(read_code(br#"{"code":1}"#, &mut Scratch::new()), Ok(1));
    assert_eq!(read_code(b"{}", &mut Scratch::new()), Ok(0));
    assert!(read_code(br#"{"code":"x"}"#, &mut Scratch::new()).is_err());
    let plugins = ["sys/demo", "web/5_args.sh(a, \"b c\")"];
    assert_eq!(
        written(|out| write_plugins(out, Some(&plugins), 1_795_376_682)),
        r#"{"Plugins":["sys/demo","web/5_args.sh(a, \"b c\")"],"Timestamp":1795376682}"#
    );
    assert_eq!(written(|out| write_plugins::<&str>(out, Some(&[]), 1)), r#"{"Plugins":[],"Timestamp":1}"#);
    assert_eq!(written(|out| write_plugins::<&str>(out, None, 0)), r#"{"Plugins":null,"Timestamp":0}"#);
    let metrics = [BuiltinMetric { metric: "net.port.listen".into(), tags: "port=22".into() }];
    assert_eq!(
        written(|out| write_builtin_metrics(out, Some(&metrics), "c6", 7)),
        r#"{"Metrics":[{"Metric":"net.port.listen","Tags":"port=22"}],"Checksum":"c6","Timestamp":7}"#
    );
    assert_eq!(
        written(|out| write_builtin_metrics(out, None, "", 0)),
        r#"{"Metrics":null,"Checksum":"","Timestamp":0}"#
    );
    assert_eq!(written(|out| write_trustable_ips(out, "10.1.2.3,10.1.2.4")), "\"10.1.2.3,10.1.2.4\"");
}

#[test]
fn no_rules() {
    let rules = Rules::default();
    assert_eq!(written(|out| write_strategies(out, &rules)), r#"{"hostStrategies":[]}"#);
    assert_eq!(written(|out| write_expressions(out, &rules)), r#"{"expressions":null}"#);
}

#[test]
fn rules_are_sorted_by_host() {
    let strategy = Arc::new(Strategy { id: 1, metric: "m".into(), ..Strategy::default() });
    let shared: HostStrategies = [strategy].into();
    let mut rules =
        Rules { expressions: vec![Arc::new(Expression { id: 2, ..Expression::default() })], ..Rules::default() };
    rules.hosts.insert("b".into(), shared.clone());
    rules.hosts.insert("a".into(), shared);
    rules.hosts.insert("c".into(), [].into());
    let one = r#"[{"id":1,"metric":"m","tags":{},"func":"","operator":"","rightValue":0,"maxStep":0,"priority":0,"note":"","tpl":{"id":0,"name":"","parentId":0,"actionId":0,"creator":""}}]"#;
    assert_eq!(
        written(|out| write_strategies(out, &rules)),
        format!(
            r#"{{"hostStrategies":[{{"hostname":"a","strategies":{one}}},{{"hostname":"b","strategies":{one}}}]}}"#
        )
    );
    assert_eq!(
        written(|out| write_expressions(out, &rules)),
        r#"{"expressions":[{"id":2,"metric":"","tags":{},"func":"","operator":"","rightValue":0,"maxStep":0,"priority":0,"note":"","actionId":0}]}"#
    );
}
