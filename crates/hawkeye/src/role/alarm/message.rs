//! The texts that people and their scripts read: short messages, mails, callback parameters.
//!
//! Compat: docs/open-falcon/alarm.md §4–6 and docs/open-falcon/wire.md §11, to the letter; users parse them. The empty
//! fourth pair of brackets in the short message is the original's. Tags in a callback are in canonical order (the
//! original's order is random).

use crate::clock;
use model::Event;
use model::Tags;
use model::number::five_decimals;

/// The text of an SMS and of an instant message, and the subject of a mail. Behind the original's fields stands why an
/// alarm was closed that did not recover, or why a probe is down.
pub fn short(event: &Event) -> String {
    let closed = closed(event).map_or(String::new(), |reason| format!(" closed: {reason}"));
    let reason = reason(event).map_or(String::new(), |reason| format!(" reason: {reason}"));
    format!(
        "[P{}][{}][{}][][{} {} {} {} {}{}{}][O{} {}]{closed}{reason}",
        event.priority(),
        event.status.as_str(),
        event.endpoint,
        event.note(),
        event.func(),
        event.metric(),
        event.tags,
        five_decimals(event.left_value),
        event.operator(),
        five_decimals(event.right_value()),
        event.current_step,
        clock::local_text(event.time),
    )
}

/// The content of a mail; `dashboard` is where its link points.
pub fn mail(event: &Event, dashboard: &str) -> String {
    let lines = [
        event.status.as_str().to_string(),
        format!("P{}", event.priority()),
        format!("Endpoint:{}", event.endpoint),
        format!("Metric:{}", event.metric()),
        format!("Tags:{}", event.tags),
        format!(
            "{}: {}{}{}",
            event.func(),
            five_decimals(event.left_value),
            event.operator(),
            five_decimals(event.right_value())
        ),
        format!("Note:{}", event.note()),
        format!("Max:{}, Current:{}", event.max_step(), event.current_step),
        format!("Timestamp:{}", clock::local_text(event.time)),
        link(event, dashboard),
    ];
    let mut text = lines.join("\r\n");
    text.push_str("\r\n");
    for (name, reason) in [("Closed:", closed(event)), ("Reason:", reason(event))] {
        if let Some(reason) = reason {
            text.extend([name, reason, "\r\n"]);
        }
    }
    text
}

/// What many messages of one status and metric say together; the subject of their mail.
pub fn merged(priority: i64, status: &str, count: usize, metric: &str) -> String {
    format!("[P{priority}][{status}] {count} {metric}")
}

/// The instant message for many; `merged` is what they say together, `first` the text of the first of them, `path`
/// leads to all, where they are kept.
pub fn merged_text(merged: &str, first: &str, dashboard: &str, path: Option<&str>) -> String {
    let endpoint = first.split("][").nth(2).unwrap_or_default();
    match path {
        Some(path) => format!("{merged} e.g. {endpoint} {}/portal/links/{path} ", dashboard.trim_end_matches('/')),
        None => format!("{merged}.  e.g. {endpoint}. detail in email"),
    }
}

fn closed(event: &Event) -> Option<&str> {
    event.explanation.as_ref().map(|explanation| explanation.closed.as_str()).filter(|reason| !reason.is_empty())
}

fn reason(event: &Event) -> Option<&str> {
    event.explanation.as_ref().map(|explanation| explanation.reason.as_str()).filter(|reason| !reason.is_empty())
}

fn link(event: &Event, dashboard: &str) -> String {
    let dashboard = dashboard.trim_end_matches('/');
    match (event.template_id(), event.expression_id()) {
        (0, 0) => String::new(),
        (0, id) => format!("{dashboard}/portal/expression/view/{id}"),
        (id, _) => format!("{dashboard}/portal/template/view/{id}"),
    }
}

/// Query parameters of a callback, in the order of the contract.
pub fn callback_query(event: &Event) -> Vec<(String, String)> {
    let tags: Vec<String> =
        Tags::assume_canonical(&event.tags).iter().map(|(key, value)| format!("{key}:{value}")).collect();
    [
        ("endpoint", event.endpoint.clone()),
        ("metric", event.metric().to_string()),
        ("status", event.status.as_str().to_string()),
        ("step", event.current_step.to_string()),
        ("priority", event.priority().to_string()),
        ("time", clock::local_text(event.time)),
        ("tpl_id", event.template_id().to_string()),
        ("exp_id", event.expression_id().to_string()),
        ("stra_id", event.strategy_id().to_string()),
        ("left_value", five_decimals(event.left_value)),
        ("tags", tags.join(",")),
    ]
    .map(|(name, value)| (name.to_string(), value))
    .into()
}

/// Characters of a callback's answer or error that people are told: more is no SMS and no subject of a mail.
const QUOTED_MAX: usize = 500;

/// Text for people after a callback: how it went, and what it answered.
pub fn after_callback(url: &str, result: Result<&str, &str>) -> String {
    match result {
        Ok(body) => format!("curl {url} success. resp: {}", quoted(body)),
        Err(error) => format!("curl {url} fail:{}. resp: ", quoted(error)),
    }
}

fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        None => text.to_string(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Error of a callback without a URL, in the original's words.
pub const CALLBACK_URL_BLANK: &str = "callback url is blank";

/// `<left> <op> <right>` as the tables hold it.
pub fn condition(event: &Event) -> String {
    format!("{} {} {}", go_value(event.left_value), event.operator(), go_value(event.right_value()))
}

/// A float as Go's `%v` prints it: shortest digits, with an exponent of at least two digits below 1e-4 and from 1e21
/// on.
fn go_value(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-4..1e21).contains(&magnitude) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{EventRule, Expression, Status, Strategy, Template};
    use std::sync::Arc;

    #[test]
    fn many_say_together() {
        let head = merged(4, "PROBLEM", 12, "cpu.idle");
        let first = "[P4][PROBLEM][web-01][][busy all(#3) cpu.idle  1<5][O1 2017-03-20 16:53:20]";
        assert_eq!(head, "[P4][PROBLEM] 12 cpu.idle");
        let text = |path| merged_text(&head, first, "http://dash", path);
        assert_eq!(text(Some("aB3")), "[P4][PROBLEM] 12 cpu.idle e.g. web-01 http://dash/portal/links/aB3 ");
        assert_eq!(text(None), "[P4][PROBLEM] 12 cpu.idle.  e.g. web-01. detail in email");
        assert_eq!(merged_text(&head, "odd", "d", None), "[P4][PROBLEM] 12 cpu.idle.  e.g. . detail in email");
    }

    fn strategy_event() -> Event {
        let strategy = Strategy {
            id: 12,
            metric: "df.bytes.free.percent".into(),
            func: "all(#3)".into(),
            operator: "<".into(),
            right_value: 5.0,
            max_step: 3,
            priority: 2,
            note: "disk full 磁盘".into(),
            tpl: Template { id: 7, ..Template::default() },
            ..Strategy::default()
        };
        Event {
            rule: EventRule::Strategy(Arc::new(strategy)),
            status: Status::Problem,
            endpoint: "web-01".into(),
            tags: "fstype=ext4,mount=/".into(),
            left_value: 1.234567,
            current_step: 2,
            time: 1_490_000_000,
            explanation: None,
        }
    }

    fn expression_event() -> Event {
        let expression = Expression { id: 5, metric: "m".into(), func: "avg(#2)".into(), ..Expression::default() };
        let rule = EventRule::Expression(Arc::new(expression));
        Event { rule, tags: String::new(), status: Status::Ok, ..strategy_event() }
    }

    #[test]
    fn short_message() {
        let time = clock::local_text(1_490_000_000);
        assert_eq!(
            short(&strategy_event()),
            format!(
                "[P2][PROBLEM][web-01][][disk full 磁盘 all(#3) df.bytes.free.percent fstype=ext4,mount=/ 1.23457<5][O2 {time}]"
            )
        );
        assert_eq!(short(&expression_event()), format!("[P0][OK][web-01][][ avg(#2) m  1.234570][O2 {time}]"));
    }

    #[test]
    fn mail_content() {
        let time = clock::local_text(1_490_000_000);
        assert_eq!(
            mail(&strategy_event(), "http://dash/"),
            format!(
                "PROBLEM\r\nP2\r\nEndpoint:web-01\r\nMetric:df.bytes.free.percent\r\nTags:fstype=ext4,mount=/\r\n\
                 all(#3): 1.23457<5\r\nNote:disk full 磁盘\r\nMax:3, Current:2\r\nTimestamp:{time}\r\n\
                 http://dash/portal/template/view/7\r\n"
            )
        );
        assert!(mail(&expression_event(), "http://dash").ends_with("\r\nhttp://dash/portal/expression/view/5\r\n"));
    }

    /// The reason is behind all that scripts take apart, and no parameter of a callback.
    #[test]
    fn a_closing_says_why_at_the_end() {
        let plain = Event { status: Status::Ok, ..strategy_event() };
        let explanation = model::Explanation { closed: "the host is in maintenance".into(), ..Default::default() };
        let event = Event { explanation: Some(Box::new(explanation)), ..plain.clone() };
        assert_eq!(short(&event), format!("{} closed: the host is in maintenance", short(&plain)));
        assert_eq!(mail(&event, "d"), format!("{}Closed:the host is in maintenance\r\n", mail(&plain, "d")));
        assert_eq!(callback_query(&event), callback_query(&plain));
    }

    /// What has no reason reads as ever; a reason is behind all else, and no parameter of a callback.
    #[test]
    fn a_probe_says_why_at_the_end() {
        let plain = strategy_event();
        let explanation = model::Explanation { reason: "status 503, want 200-299".into(), ..Default::default() };
        let event = Event { explanation: Some(Box::new(explanation)), ..plain.clone() };
        assert_eq!(short(&event), format!("{} reason: status 503, want 200-299", short(&plain)));
        assert_eq!(mail(&event, "d"), format!("{}Reason:status 503, want 200-299\r\n", mail(&plain, "d")));
        assert_eq!(callback_query(&event), callback_query(&plain));
        let empty = Event { explanation: Some(Box::default()), ..plain.clone() };
        assert_eq!((short(&empty), mail(&empty, "d")), (short(&plain), mail(&plain, "d")));
    }

    #[test]
    fn callback_parameters() {
        let time = clock::local_text(1_490_000_000);
        let query = callback_query(&strategy_event());
        let text: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            text.join("&"),
            format!(
                "endpoint=web-01&metric=df.bytes.free.percent&status=PROBLEM&step=2&priority=2&time={time}\
                 &tpl_id=7&exp_id=0&stra_id=12&left_value=1.23457&tags=fstype:ext4,mount:/"
            )
        );
        let query = callback_query(&expression_event());
        assert!(query.contains(&("exp_id".into(), "5".into())) && query.contains(&("tpl_id".into(), "0".into())));
        assert!(query.contains(&("tags".into(), String::new())));
    }

    #[test]
    fn after_a_callback() {
        assert_eq!(after_callback("http://x/y?a=1", Ok("ok\n")), "curl http://x/y?a=1 success. resp: ok\n");
        assert_eq!(after_callback("http://x", Err("refused")), "curl http://x fail:refused. resp: ");
        let (fits, cut) = ("磁".repeat(QUOTED_MAX), format!("{}…", "磁".repeat(QUOTED_MAX)));
        assert_eq!(after_callback("u", Ok(&fits)), format!("curl u success. resp: {fits}"));
        assert_eq!(after_callback("u", Ok(&format!("{fits}x"))), format!("curl u success. resp: {cut}"));
        assert_eq!(after_callback("u", Err(&format!("{fits}x"))), format!("curl u fail:{cut}. resp: "));
    }

    #[test]
    fn condition_numbers_are_go_values() {
        let check = |value: f64, expected: &str| assert_eq!(go_value(value), expected);
        check(5.0, "5");
        check(0.0, "0");
        check(1.234567, "1.234567");
        check(0.0001, "0.0001");
        check(0.00001, "1e-05");
        check(-0.000012345, "-1.2345e-05");
        check(1e20, "100000000000000000000");
        check(1e21, "1e+21");
        check(1.5e300, "1.5e+300");
        assert_eq!(condition(&strategy_event()), "1.234567 < 5");
    }
}
