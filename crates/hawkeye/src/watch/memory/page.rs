//! Page: `/memory` for people, in English or Chinese, and as JSON for scripts.
//!
//! How: one table of text made here, without a template engine or a script: it must open when nothing else works.
//! Sections of other parts come as JSON and are drawn by their shape: a list of objects is a table, an object a list of
//! fields.
//! Each form of the page is shared by those who ask at one time ([`Shared`]): a look asks all owners, and who has most
//! series is counted over all of them.
//! Invariants: every text from elsewhere is escaped; JSON is answered to `?format=json` and to clients that accept JSON
//! before HTML.

use super::{Memory, MemoryView, Owner};
use axum::Router;
use axum::body::Bytes;
use axum::extract::Query;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics::Shared;
use serde::Deserialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

#[derive(Deserialize)]
struct PageQuery {
    format: Option<String>,
    lang: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Language {
    English,
    Chinese,
}

/// The route `/memory`: a page, or JSON.
pub fn router(memory: Memory) -> Router {
    let pages: Arc<Pages> = Arc::default();
    let answer = move |Query(asked): Query<PageQuery>, headers: HeaderMap| async move {
        let form = form(&asked, &headers);
        let kept = pages.of(form).kept(Instant::now());
        // A look reads /proc and asks owners that have locks.
        let make = move || pages.of(form).get(Instant::now, || render(&memory.look(), form));
        let page = match kept {
            Some(page) => Ok(page),
            None => tokio::task::spawn_blocking(make).await,
        };
        match page {
            Ok(page) => ([(header::CONTENT_TYPE, form.content_type())], page).into_response(),
            Err(error) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        }
    };
    Router::new().route("/memory", get(answer))
}

/// Form of the page.
#[derive(Clone, Copy)]
enum Form {
    Json,
    Html(Language),
}

impl Form {
    fn content_type(self) -> &'static str {
        match self {
            Form::Json => "application/json",
            Form::Html(_) => "text/html; charset=utf-8",
        }
    }
}

/// The pages that were made last.
#[derive(Default)]
struct Pages {
    json: Shared<Bytes>,
    english: Shared<Bytes>,
    chinese: Shared<Bytes>,
}

impl Pages {
    fn of(&self, form: Form) -> &Shared<Bytes> {
        match form {
            Form::Json => &self.json,
            Form::Html(Language::English) => &self.english,
            Form::Html(Language::Chinese) => &self.chinese,
        }
    }
}

fn form(asked: &PageQuery, headers: &HeaderMap) -> Form {
    if wants_json(asked.format.as_deref(), text_of(headers, header::ACCEPT)) {
        return Form::Json;
    }
    Form::Html(language(asked.lang.as_deref(), text_of(headers, header::ACCEPT_LANGUAGE)))
}

fn render(look: &MemoryView, form: Form) -> Bytes {
    match form {
        Form::Json => serde_json::to_vec(look).expect("figures and texts are JSON").into(),
        Form::Html(language) => html(look, language).into(),
    }
}

fn text_of(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// True for a client that accepts JSON and names no HTML before; a browser names HTML first, curl neither.
fn wants_json(format: Option<&str>, accept: &str) -> bool {
    let first = |wanted: &str| accept.find(wanted).unwrap_or(usize::MAX);
    format.map_or(first("application/json") < first("text/html"), |format| format == "json")
}

fn language(asked: Option<&str>, accepted: &str) -> Language {
    let is_chinese = |text: &str| text.trim_start().to_ascii_lowercase().starts_with("zh");
    if is_chinese(asked.unwrap_or(accepted)) { Language::Chinese } else { Language::English }
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}\
    table{border-collapse:collapse;margin:.5rem 0 1.5rem}th,td{text-align:left;padding:.15rem 1.2rem .15rem 0;vertical-align:top}\
    td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}tr.sum{border-top:1px solid;font-weight:600}";

fn html(look: &MemoryView, language: Language) -> String {
    let t = |text: &'static str| translate(text, language);
    let code = if language == Language::Chinese { "zh" } else { "en" };
    let mut out = String::with_capacity(16 << 10);
    let _ = write!(
        out,
        "<!doctype html><html lang=\"{code}\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Hawkeye: {0}</title>\
         <style>{STYLE}</style><h1>{0}</h1><p>{1}: <b>{2}</b> · {3}: {4} · {5}: {6} · {7}: {8} · \
         <a href=\"?format=json\">JSON</a> · <a href=\"?lang=en\">English</a> · <a href=\"?lang=zh\">中文</a> · \
         <a href=\"/debug/pprof/\">{9}</a>",
        t("Memory"),
        t("Resident"),
        bytes(look.resident_bytes),
        t("budget"),
        bytes(look.budget_bytes),
        t("series"),
        look.series,
        t("points in memory"),
        look.points,
        t("profiles"),
    );
    owners(&mut out, look, language);
    process(&mut out, look, language);
    for (title, section) in [("Budget", &look.budget), ("Growth", &look.growth)] {
        if let Some(section) = section {
            let _ = write!(out, "<h2>{}</h2>", t(title));
            value(&mut out, section, language);
        }
    }
    out.push_str("</html>\n");
    out
}

fn owners(out: &mut String, look: &MemoryView, language: Language) {
    let t = |text: &'static str| translate(text, language);
    let _ = write!(
        out,
        "<h2>{}</h2><table><tr><th>{}<th class=n>{}<th class=n>{}<th class=n>{}<th class=n>{}<th class=n>{}",
        t("Who holds memory"),
        t("owner"),
        t("bytes"),
        t("of all"),
        t("bound"),
        t("holds"),
        t("per series"),
    );
    let mut sorted: Vec<&Owner> = look.owners.iter().collect();
    sorted.sort_by_key(|owner| std::cmp::Reverse(owner.bytes));
    let in_use = look.owned_bytes + look.unaccounted_bytes;
    for owner in &sorted {
        row(out, owner, in_use, t(owner.owner));
    }
    let mut sum = |name: &'static str, sum: u64| {
        let _ = write!(
            out,
            "<tr class=sum><td>{}<td class=n>{}<td class=n>{}<td><td><td class=n>{}",
            t(name),
            bytes(sum),
            share(sum, in_use),
            per(sum, look.series)
        );
    };
    sum("accounted for", look.owned_bytes);
    sum("not accounted for", look.unaccounted_bytes);
    out.push_str("</table>");
    if !look.elsewhere.is_empty() {
        let _ = write!(out, "<h2>{}</h2><table>", t("Outside the allocator"));
        for owner in &look.elsewhere {
            row(out, owner, 0, t(owner.owner));
        }
        out.push_str("</table>");
    }
}

fn row(out: &mut String, owner: &Owner, of: u64, name: &str) {
    let (bound, count) = (owner.bound_bytes.map(bytes), owner.count.map(|count| count.to_string()));
    let per_series = owner.bytes_per_series.filter(|bytes| *bytes > 0.0).map(|bytes| format!("{bytes} B"));
    let _ = write!(
        out,
        "<tr><td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}",
        escaped(name),
        bytes(owner.bytes),
        share(owner.bytes, of),
        bound.unwrap_or_default(),
        count.unwrap_or_default(),
        per_series.unwrap_or_default(),
    );
}

/// The parts of resident memory, a line each.
fn process(out: &mut String, look: &MemoryView, language: Language) {
    let t = |text: &'static str| translate(text, language);
    let (allocator, process) = (&look.allocator, &look.process);
    let lines = [
        ("accounted for", look.owned_bytes),
        ("not accounted for", look.unaccounted_bytes),
        ("kept by threads for their next allocation", allocator.thread_cache_bytes),
        ("free inside pages in use", look.slack_bytes),
        ("the allocator's own records", allocator.metadata_bytes),
        ("pages not given back yet", look.dirty_bytes),
        ("the C library's heap, the first stack", process.heap_and_stack_bytes),
        ("data of the program that was written to", process.written_data_bytes),
        ("code and other pages of files", process.file_bytes),
        ("shared pages", process.shared_bytes),
    ];
    let _ = write!(out, "<h2>{}</h2><table>", t("What resident memory consists of"));
    for (name, part) in lines {
        let _ = write!(out, "<tr><td>{}<td class=n>{}", t(name), bytes(part));
    }
    let (other, sign) = (look.other_bytes.unsigned_abs(), if look.other_bytes < 0 { "−" } else { "" });
    let other_name = t("stacks of threads, less what is counted but was never touched");
    let _ = write!(out, "<tr><td>{other_name}<td class=n>{sign}{}", bytes(other));
    let _ = write!(
        out,
        "<tr class=sum><td>{}<td class=n>{}<tr><td>{}<td class=n>{}<tr><td>{}<td class=n>{}</table>",
        t("resident"),
        bytes(process.resident_bytes),
        t("most that was resident"),
        bytes(process.resident_max_bytes),
        t("threads"),
        process.threads,
    );
}

/// Draws a list of objects as a table, with the fields of the first object as its head; anything else by its shape.
fn value(out: &mut String, value: &Value, language: Language) {
    let head = |name: &str| escaped(translate(&name.replace('_', " "), language));
    match value {
        Value::Object(fields) => {
            out.push_str("<table>");
            for (name, field) in fields {
                let _ = write!(out, "<tr><th>{}<td>", head(name));
                self::value(out, field, language);
            }
            out.push_str("</table>");
        }
        Value::Array(items) => {
            let Some(Value::Object(first)) = items.first() else {
                let texts: Vec<String> = items.iter().map(plain).collect();
                return out.push_str(&escaped(&texts.join(", ")));
            };
            out.push_str("<table><tr>");
            for name in first.keys() {
                let _ = write!(out, "<th>{}", head(name));
            }
            for item in items {
                out.push_str("<tr>");
                for name in first.keys() {
                    let _ = write!(out, "<td>{}", escaped(&item.get(name).map(plain).unwrap_or_default()));
                }
            }
            out.push_str("</table>");
        }
        _ => out.push_str(&escaped(&plain(value))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

fn share(part: u64, of: u64) -> String {
    if of == 0 { String::new() } else { format!("{:.1} %", part as f64 * 100.0 / of as f64) }
}

fn per(bytes: u64, series: u64) -> String {
    if series == 0 { String::new() } else { format!("{:.1} B", bytes as f64 / series as f64) }
}

fn translate(text: &str, language: Language) -> &str {
    let found = CHINESE.iter().find(|(english, _)| *english == text);
    found.filter(|_| language == Language::Chinese).map_or(text, |(_, chinese)| chinese)
}

/// The page's texts in Chinese; a name without a translation stays English.
const CHINESE: &[(&str, &str)] = &[
    ("Memory", "内存"),
    ("Resident", "常驻内存"),
    ("budget", "预算"),
    ("series", "序列"),
    ("points in memory", "内存中的点"),
    ("profiles", "性能剖析"),
    ("Who holds memory", "内存归属"),
    ("owner", "归属"),
    ("bytes", "字节"),
    ("of all", "占比"),
    ("bound", "上限"),
    ("holds", "数量"),
    ("per series", "每序列"),
    ("accounted for", "已归属"),
    ("not accounted for", "未归属"),
    ("Outside the allocator", "分配器之外"),
    ("What resident memory consists of", "常驻内存的组成"),
    ("kept by threads for their next allocation", "线程缓存"),
    ("free inside pages in use", "使用中页内的空闲"),
    ("the allocator's own records", "分配器自身的记录"),
    ("pages not given back yet", "尚未归还的页"),
    ("the C library's heap, the first stack", "C 库的堆与主线程栈"),
    ("data of the program that was written to", "程序写过的数据"),
    ("stacks of threads, less what is counted but was never touched", "线程栈减去已计入但未触及的部分"),
    ("code and other pages of files", "代码等文件页"),
    ("shared pages", "共享页"),
    ("resident", "常驻"),
    ("most that was resident", "常驻峰值"),
    ("threads", "线程"),
    ("Budget", "预算"),
    ("Growth", "增长"),
    ("series index", "序列索引"),
    ("interner", "文本驻留表"),
    ("series heads", "序列头"),
    ("hot chunks", "热数据块"),
    ("log buffers", "日志缓冲"),
    ("block catalogue", "块目录"),
    ("sleeping series", "休眠序列"),
    ("flush buffers", "落盘缓冲"),
    ("merge buffers", "合并缓冲"),
    ("read buffers", "查询缓冲"),
    ("rule set", "规则集"),
    ("rule texts", "规则文本"),
    ("rule bindings", "规则绑定"),
    ("alert state", "告警状态"),
    ("joins", "多序列条件"),
    ("host clocks", "主机时钟"),
    ("events backlog", "待写事件"),
    ("alarm queue", "告警队列"),
    ("alarm deliveries", "告警投递"),
    ("portal cache", "配置缓存"),
    ("portal database", "配置数据库"),
    ("ingest buffers", "接收缓冲"),
    ("rpc buffers", "RPC 缓冲"),
    ("connections", "连接"),
    ("http", "HTTP"),
    ("telnet", "Telnet"),
    ("logins", "登录"),
    ("index task", "索引任务"),
    ("start", "启动"),
    ("routes", "路由"),
    ("time zones", "时区"),
    ("cpu samples", "CPU 采样"),
    ("delivery clients", "投递客户端"),
    ("recent series", "新序列"),
    ("growth", "增长统计"),
    ("windows", "窗口"),
    ("budget bytes", "预算字节数"),
    ("used bytes", "已用字节数"),
    ("early flushes", "提前落盘次数"),
    ("early sleepers", "提前休眠的序列"),
    ("level", "级别"),
    ("level since", "进入该级别的时间"),
    ("refused series", "被拒的新序列"),
    ("growing", "正在增长"),
    ("most series", "序列最多"),
    ("attempts", "新建请求"),
    ("refused", "被拒"),
    ("refused since", "开始拒绝的时间"),
    ("last refused", "最近被拒"),
    ("endpoints", "endpoint"),
    ("metrics", "metric"),
    ("tag keys", "tag 键"),
    ("name", "名称"),
    ("per minute", "每分钟"),
    ("values", "不同的值"),
    ("time", "时间"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::memory::Size;
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use metrics::Metrics;
    use serde_json::json;
    use std::sync::Arc;
    use tower::ServiceExt;

    async fn ask(memory: &Memory, path: &str) -> String {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = memory.clone().router().oneshot(request).await.expect("infallible");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        String::from_utf8(body.to_vec()).expect("text")
    }

    #[test]
    fn who_asks_decides_what_is_answered() {
        assert!(wants_json(Some("json"), "text/html"));
        assert!(wants_json(None, "application/json"));
        assert!(!wants_json(None, "text/html,application/xhtml+xml,application/json;q=0.9"));
        assert!(!wants_json(Some("html"), "application/json"));
        assert!(!wants_json(None, "*/*") && !wants_json(None, ""));
        assert_eq!(language(None, "zh-CN,zh;q=0.9"), Language::Chinese);
        assert_eq!(language(Some("en"), "zh-CN"), Language::English);
        assert_eq!(language(None, "de,zh;q=0.5"), Language::English);
    }

    #[test]
    fn each_text_has_one_translation() {
        let mut english: Vec<&str> = CHINESE.iter().map(|(english, _)| *english).collect();
        english.sort_unstable();
        assert!(english.is_sorted_by(|a, b| a < b));
    }

    #[tokio::test]
    async fn sections_of_other_parts_are_shown_and_escaped() {
        let metrics = Arc::new(Metrics::new());
        metrics.ledger().account("hot chunks", Some(10 << 20)).set(5 << 20);
        let size = || Size { series: 1 << 20, points: 7 };
        let growth = json!({"endpoints": [{"name": "<b>", "series": 7}], "level": "calm", "plain": [1, "a"]});
        let section: super::super::Section = Arc::new(move || growth.clone());
        let memory = Memory { growth: Some(section), ..Memory::new(metrics, 64 << 20, size) };
        let page = ask(&memory, "/memory").await;
        assert!(page.contains("<h2>Growth</h2>") && page.contains("<th>series<tr><td>&lt;b&gt;<td>7"), "{page}");
        assert!(page.contains("1, a") && !page.contains("<b>\""), "{page}");
        assert!(page.contains("5120.0 KiB") && page.contains("5 B") && page.contains("10.0 MiB"), "{page}");
        let look: Value = serde_json::from_str(&ask(&memory, "/memory?format=json").await).expect("JSON");
        assert_eq!(look["growth"]["level"], "calm");
        assert_eq!(look.get("budget"), None);
        assert_eq!(look["owners"][0]["bytes_per_series"], 5.0);
        assert_eq!((&look["series"], &look["budget_bytes"]), (&json!(1 << 20), &json!(64 << 20)));
    }
}
