//! Exporters: the figures of programs that show them to a Prometheus, read from their pages (text format).
//!
//! How: one GET per page and interval. A name stays as it is, labels become tags, and the tag `exporter` says whose it
//! is. The type `counter` is the field's COUNTER, and so are sums, counts and buckets of histograms and summaries;
//! everything else is a GAUGE. What is no finite number (NaN, `+Inf`) is left out; the times of the page are.
//! Invariants: plain HTTP and no redirects, for what runs on this host; nothing is read beyond [`PAGE_BYTES_MAX`] and
//! [`SAMPLES_MAX`]; what is left out for that is counted and told.
//! Memory: [`PARALLEL_MAX`] pages at a time.
//! Compat: ours.

use super::Collected;
use super::config::ExporterConfig;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use probe::{Reading, tag};
use settings::units::is_host_and_port;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Samples of one page; an exporter of a host has some thousand.
const SAMPLES_MAX: usize = 10_000;
/// Bytes of a page: so many samples of two hundred bytes.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Pages that are read at a time, so that one that hangs holds up few of the others.
const PARALLEL_MAX: usize = 4;
/// The time for a page; Prometheus gives ten seconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a page is.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// `HOST:PORT`.
    place: String,
    /// Path and query.
    path: String,
}

impl Page {
    /// Reads `http://HOST:PORT/PATH`; the port may be left out.
    pub fn parse(url: &str) -> Option<Page> {
        let rest = url.strip_prefix("http://")?;
        let (place, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let is_path = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let with_port = [place.to_string(), format!("{place}:80")];
        let place = with_port.into_iter().find(|place| is_host_and_port(place))?;
        is_path.then(|| Page { place, path: path.to_string() })
    }
}

/// Collects the pages, some at a time.
pub async fn collect(exporters: &BTreeMap<String, ExporterConfig>) -> Collected {
    let (mut reading, mut collected) = (JoinSet::<(String, _)>::new(), Collected::default());
    for (name, exporter) in exporters {
        if reading.len() == PARALLEL_MAX
            && let Some(Ok((name, read))) = reading.join_next().await
        {
            take(&name, &exporters[name.as_str()], read, &mut collected);
        }
        let Some(page) = Page::parse(&exporter.url) else { continue };
        let name = name.clone();
        reading.spawn(async move {
            let read = tokio::time::timeout(TIMEOUT, read(&page)).await;
            (name, read.unwrap_or_else(|_| Err(format!("no page within {TIMEOUT:?}"))))
        });
    }
    while let Some(Ok((name, read))) = reading.join_next().await {
        take(&name, &exporters[name.as_str()], read, &mut collected);
    }
    collected
}

fn take(name: &str, exporter: &ExporterConfig, read: Result<String, String>, collected: &mut Collected) {
    let own = tag("exporter", name);
    collected.readings.push(Reading::gauge("exporter.up", &own, f64::from(u8::from(read.is_ok()))));
    match read {
        Ok(text) => push(name, &text, &exporter.metrics, collected),
        Err(why) => collected.fail(&exporter.url, why),
    }
}

async fn read(page: &Page) -> Result<String, String> {
    let said = |error: &dyn std::error::Error| format!("cannot be read: {}", supervisor::causes::line_of(error));
    let stream = TcpStream::connect(&page.place).await.map_err(|error| said(&error))?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| said(&error))?;
    let request = Request::get(&page.path)
        .header(header::HOST, &page.place)
        .header(header::ACCEPT, "text/plain;version=0.0.4")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| said(&error))?;
    let answering = async {
        let answer = sender.send_request(request).await.map_err(|error| said(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(format!("it answers {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), PAGE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| said(&*error))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    tokio::pin!(answering);
    // The connection moves the answer; it ends with the answer, or before it by an error that the answer has.
    tokio::select! {
        answer = &mut answering => answer,
        _ = connection => answering.await,
    }
}

/// What is taken of a page, for the fuzz target.
pub fn of_page(text: &str) -> Collected {
    let mut collected = Collected::default();
    push("x", text, &[], &mut collected);
    collected
}

/// Reads the lines of a page.
fn push(exporter: &str, text: &str, wanted: &[String], collected: &mut Collected) {
    // The configuration takes no glob that cannot be read.
    let wanted: Vec<glob::Pattern> = wanted.iter().filter_map(|text| glob::Pattern::new(text).ok()).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|pattern| pattern.matches(name));
    let (mut kinds, mut seen, mut left_out) = (Kinds::default(), BTreeSet::new(), 0_u64);
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix('#') {
            kinds.note(comment);
            continue;
        }
        let Some(sample) = Sample::parse(line) else {
            left_out += u64::from(!line.trim().is_empty());
            continue;
        };
        if !is_wanted(sample.name) || !sample.value.is_finite() {
            continue;
        }
        let tags = sample.tags(exporter);
        // Two labels may come to one tag, and a page may have a line twice.
        if seen.len() == SAMPLES_MAX || !seen.insert((sample.name, tags.clone())) {
            left_out += 1;
            continue;
        }
        let reading = if kinds.is_counter(sample.name) { Reading::counter } else { Reading::gauge };
        collected.readings.push(reading(sample.name.to_string(), &tags, sample.value));
    }
    let own = tag("exporter", exporter);
    collected.readings.push(Reading::gauge("exporter.samples", &own, seen.len() as f64));
    collected.readings.push(Reading::gauge("exporter.left_out", &own, left_out as f64));
    if left_out > 0 {
        let of = format!("exporter {exporter}");
        collected
            .fail(of, format!("{left_out} lines were odd, doubled, or more than {SAMPLES_MAX}: they are left out"));
    }
}

/// Types of the page's families, as `# TYPE` has them.
#[derive(Default)]
struct Kinds<'t>(BTreeMap<&'t str, &'t str>);

impl<'t> Kinds<'t> {
    fn note(&mut self, comment: &'t str) {
        let mut words = comment.split_whitespace();
        if words.next() == Some("TYPE")
            && let (Some(name), Some(kind)) = (words.next(), words.next())
            && self.0.len() < SAMPLES_MAX
        {
            self.0.insert(name, kind);
        }
    }

    fn is_counter(&self, name: &str) -> bool {
        let is = |family: &str, kinds: &[&str]| self.0.get(family).is_some_and(|kind| kinds.contains(kind));
        let part = |suffix| name.strip_suffix(suffix).is_some_and(|family| is(family, &["histogram", "summary"]));
        // OpenMetrics names the family without the end that its samples have.
        let total = name.strip_suffix("_total").is_some_and(|family| is(family, &["counter"]));
        is(name, &["counter"]) || total || ["_sum", "_count", "_bucket"].into_iter().any(part)
    }
}

/// A line `name{label="value",…} number [time]`.
struct Sample<'t> {
    name: &'t str,
    labels: Vec<(&'t str, String)>,
    value: f64,
}

impl<'t> Sample<'t> {
    fn parse(line: &'t str) -> Option<Sample<'t>> {
        let line = line.trim();
        let (name, rest) = line.split_at(line.find(|c| !is_of_name(c))?);
        if name.is_empty() {
            return None;
        }
        let (labels, rest) = match rest.trim_start().strip_prefix('{') {
            Some(inside) => labels(inside)?,
            None => (Vec::new(), rest),
        };
        let value = rest.split_whitespace().next()?;
        Some(Sample { name, labels, value: value.parse().ok()? })
    }

    fn tags(&self, exporter: &str) -> String {
        let mut tags: Vec<String> = self.labels.iter().map(|(key, value)| tag(key, value)).collect();
        // An empty label is as good as none, and a tag without a value is none.
        tags.retain(|tag| !tag.ends_with('='));
        // The exporter's own name wins over a label that is called so.
        tags.push(tag("exporter", exporter));
        model::tags::canonical_string(&tags.join(","))
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (key, behind) = rest.split_once('=')?;
        let key = key.trim();
        if key.is_empty() || !key.chars().all(is_of_name) {
            return None;
        }
        let (value, behind) = quoted(behind.trim_start().strip_prefix('"')?)?;
        labels.push((key, value));
        rest = behind;
    }
}

/// A text up to its closing quote, with `\\`, `\"` and `\n` undone, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((out, &text[at + 1..])),
            '\\' => out.push(match chars.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => out.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const PAGE: &str = r#"# HELP node_load1 1m load average.
# TYPE node_load1 gauge
node_load1 0.25
# TYPE node_cpu_seconds_total counter
node_cpu_seconds_total{cpu="0",mode="idle"} 1.5e+03
# TYPE rpc_duration_seconds summary
rpc_duration_seconds{quantile="0.5"} 4773
rpc_duration_seconds_sum 1.7560473e+07
rpc_duration_seconds_count 2693
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le="+Inf"} 144320
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\"",empty=""} 1.458255915e9 1395066363000
metric_without_type 12
something_weird{problem="division by zero"} +Inf
not_a_number NaN

"#;

    fn rows(text: &str, wanted: &[&str]) -> (Vec<String>, f64) {
        let mut collected = Collected::default();
        let wanted: Vec<String> = wanted.iter().map(|text| text.to_string()).collect();
        push("x", text, &wanted, &mut collected);
        let left_out = collected.readings.pop().expect("the count").value;
        collected.readings.pop();
        let row = |reading: &Reading| {
            format!("{} {} {} {}", reading.metric, reading.tags, reading.counter_type.as_str(), reading.value)
        };
        (collected.readings.iter().map(row).collect(), left_out)
    }

    #[test]
    fn the_text_format() {
        let expected = [
            "node_load1 exporter=x GAUGE 0.25",
            "node_cpu_seconds_total cpu=0,exporter=x,mode=idle COUNTER 1500",
            "rpc_duration_seconds exporter=x,quantile=0.5 GAUGE 4773",
            "rpc_duration_seconds_sum exporter=x COUNTER 17560473",
            "rpc_duration_seconds_count exporter=x COUNTER 2693",
            "http_request_duration_seconds_bucket exporter=x,le=+Inf COUNTER 144320",
            "msdos_file_access_time_seconds error=Cannotfindfile:_\"FILE.TXT\",exporter=x,path=C:\\DIR\\FILE.TXT GAUGE 1458255915",
            "metric_without_type exporter=x GAUGE 12",
        ];
        assert_eq!(rows(PAGE, &[]), (expected.map(String::from).to_vec(), 0.0));
        assert_eq!(rows(PAGE, &["node_*"]).0, expected[..2]);
    }

    #[test]
    fn odd_lines_cost_themselves_and_are_counted() {
        for odd in [
            "{} 1",
            "a",
            "a{b=\"c 1",
            "a{b} 1",
            "a{b=\"c\"}",
            "a x",
            "ü 1",
            "a{b=\"\\",
            "a{b;c=\"d\"} 1",
            "a{=\"d\"} 1",
        ] {
            let (readings, left_out) = rows(&format!("{odd}\nfine 1\n"), &[]);
            assert_eq!((readings, left_out), (vec!["fine exporter=x GAUGE 1".to_string()], 1.0), "{odd}");
        }
        assert_eq!(rows("a 1\na 2\n", &[]), (vec!["a exporter=x GAUGE 1".to_string()], 1.0));
        assert_eq!(rows("a{exporter=\"y\"} 1\n", &[]).0, ["a exporter=x GAUGE 1"]);
        let many: String = (0..SAMPLES_MAX + 5).map(|index| format!("m{index} 1\n")).collect();
        let (readings, left_out) = rows(&many, &[]);
        assert_eq!((readings.len(), left_out), (SAMPLES_MAX, 5.0));
    }

    #[test]
    fn urls() {
        let check = |url: &str, expected: Option<(&str, &str)>| {
            let page = Page::parse(url);
            assert_eq!(page.as_ref().map(|page| (page.place.as_str(), page.path.as_str())), expected, "{url}");
        };
        check("http://127.0.0.1:9100/metrics?a=b", Some(("127.0.0.1:9100", "/metrics?a=b")));
        check("http://host", Some(("host:80", "/")));
        check("http://[::1]:9/m", Some(("[::1]:9", "/m")));
        for url in ["https://h/", "h:1/metrics", "http://", "http:///x", "http://u@h/", "http://h/a b"] {
            check(url, None);
        }
    }

    /// Every text up to a few signs, of those that mean something: nothing panics, and no tag is broken.
    #[test]
    fn no_line_harms() {
        let signs: Vec<char> = "a{}=\",\\ 1ü\n".chars().collect();
        let mut texts = vec![String::new()];
        for length in 0..4 {
            let longer = texts.iter().filter(|text| text.chars().count() == length);
            let longer = longer.flat_map(|text| signs.iter().map(move |sign| format!("{text}{sign}")));
            texts.extend(longer.collect::<Vec<_>>());
        }
        for text in texts {
            for line in [format!("a{{b=\"{text}"), format!("a{text}")] {
                let mut collected = Collected::default();
                push("x", &line, &[], &mut collected);
                let is_canonical = |reading: &Reading| model::tags::canonical_string(&reading.tags) == reading.tags;
                assert!(collected.readings.iter().all(is_canonical), "{line:?}");
            }
        }
    }

    /// Serves one connection with these bytes, and gives what was asked.
    async fn serve_once(listener: TcpListener, answer: Vec<u8>) -> String {
        let (mut stream, _) = listener.accept().await.expect("asked");
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_buf(&mut request).await.expect("a request");
        }
        // The reader may have had enough.
        let _ = stream.write_all(&answer).await;
        String::from_utf8(request).expect("UTF-8")
    }

    async fn check(answer: &[u8], expected: Result<usize, &str>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("free port");
        let url = format!("http://{}/metrics", listener.local_addr().expect("bound"));
        let exporters = [("x".to_string(), ExporterConfig { url, metrics: Vec::new() })].into();
        let (collected, request) = tokio::join!(collect(&exporters), serve_once(listener, answer.to_vec()));
        assert!(request.starts_with("GET /metrics HTTP/1.1\r\n"), "{request}");
        let named = collected.readings.iter().filter(|reading| reading.metric.starts_with("exporter."));
        crate::collect::tests::rows(&named.clone().cloned().collect::<Vec<_>>());
        let up = &collected.readings[0];
        assert_eq!((up.metric.as_ref(), up.value), ("exporter.up", f64::from(u8::from(expected.is_ok()))));
        match expected {
            Ok(samples) => assert_eq!(collected.readings.len() - named.count(), samples),
            Err(why) => assert!(collected.faults[0].why.contains(why), "{:?}", collected.faults),
        }
    }

    #[tokio::test]
    async fn pages_over_http() {
        let page = "a 1\nb 2\n";
        check(format!("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{page}").as_bytes(), Ok(2)).await;
        check(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\na 1\n\r\n4\r\nb 2\n\r\n0\r\n\r\n", Ok(2))
            .await;
        check(format!("HTTP/1.0 200 OK\r\n\r\n{page}").as_bytes(), Ok(2)).await;
        check(b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", Err("302")).await;
        check(b"nonsense\r\n\r\n", Err("cannot be read")).await;
        let long = format!("HTTP/1.0 200 OK\r\n\r\n{}", "# x\n".repeat(PAGE_BYTES_MAX / 4 + 1));
        check(long.as_bytes(), Err("length limit")).await;
    }
}
