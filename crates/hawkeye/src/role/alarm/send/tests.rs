//! Attempts against small servers in the test: what goes over the wire, and what each kind of failure is taken for.

use super::*;
use crate::config::Config;
use net::patience::in_time;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

fn delivery(kind: Kind, body: impl Serialize) -> Delivery {
    Delivery {
        id: 7,
        target: "t".into(),
        kind: Some(kind),
        lane: "s_1_x".into(),
        body: serde_json::to_string(&body).expect("a body"),
        attempts: 0,
        priority: 0,
        created_at: 1_490_000_000,
        begun_at: 0,
    }
}

fn callback(url: &str) -> Delivery {
    let query = vec![("endpoint".to_string(), "a b".to_string()), ("tags".to_string(), "k:v,k2:/".to_string())];
    let contacts = super::super::plan::Contacts::default();
    delivery(Kind::Callback, Callback { url: url.into(), query, after_sms: false, after_mail: false, contacts })
}

fn loopback() -> Vec<ipnet::IpNet> {
    vec!["127.0.0.0/8".parse().expect("a network")]
}

fn sender(change: impl FnOnce(&mut AlarmConfig)) -> Sender {
    let mut config = Config::default().alarm;
    config.callback_allow = loopback();
    change(&mut config);
    Sender::new(&config).expect("a valid configuration")
}

/// Answers each connection's first request with the next of `answers`; gives back what was asked.
async fn http(answers: Vec<String>) -> (String, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let (asked, receiver) = unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.expect("a request");
            asked.send(String::from_utf8_lossy(&request[..length]).into_owned()).expect("the test lives");
            stream.write_all(answer.as_bytes()).await.expect("written");
        }
    });
    (url, receiver)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_callback_keeps_its_own_query_and_follows_redirects() {
    let moved = answer("302 Found", "Location: /new\r\n", "");
    let (url, mut asked) = http(vec![answer("200 OK", "", "fine"), moved, answer("204 No Content", "", "")]).await;
    let sender = sender(|_| {});
    assert_eq!(sender.send(&callback(&format!("{url}/x?own=1"))).await, Ok("fine".to_string()));
    let first = in_time("a request", asked.recv()).await.expect("the server lives");
    assert!(first.starts_with("GET /x?own=1&endpoint=a+b&tags=k%3Av%2Ck2%3A%2F HTTP/1.1\r\n"), "{first}");
    assert_eq!(sender.send(&callback(&url)).await, Ok(String::new()));
    assert!(in_time("a request", asked.recv()).await.expect("the server lives").starts_with("GET /?endpoint="));
    assert!(in_time("a request", asked.recv()).await.expect("the server lives").starts_with("GET /new "));
}

#[tokio::test]
async fn a_gateway_gets_a_form_and_is_not_followed() {
    let moved = answer("302 Found", "Location: /new\r\n", "");
    let (url, mut asked) = http(vec![answer("200 OK", "", ""), answer("200 OK", "", ""), moved]).await;
    let sender = sender(|config| {
        config.sms = format!("{url}/sms");
        config.mail = format!("{url}/mail");
    });
    let text = || Text { tos: "1,2".into(), content: "[P0] 磁盘 &".into() };
    assert_eq!(sender.send(&delivery(Kind::Sms, text())).await, Ok(String::new()));
    let request = in_time("a request", asked.recv()).await.expect("the server lives");
    assert!(request.starts_with("POST /sms HTTP/1.1\r\n"), "{request}");
    assert!(request.to_ascii_lowercase().contains("content-type: application/x-www-form-urlencoded\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\ntos=1%2C2&content=%5BP0%5D+%E7%A3%81%E7%9B%98+%26"), "{request}");
    let mail = Mail { tos: "a@x".into(), subject: "s".into(), content: "c\r\n".into() };
    assert_eq!(sender.send(&delivery(Kind::Mail, mail)).await, Ok(String::new()));
    assert!(
        in_time("a request", asked.recv())
            .await
            .expect("the server lives")
            .ends_with("\r\n\r\ntos=a%40x&subject=s&content=c%0D%0A")
    );
    assert_eq!(sender.send(&delivery(Kind::Sms, text())).await, Err(Failure::Refused("status 302: ".into())));
}

/// Gateways are named by the configuration, so they may be anywhere; what they refuse is tried again.
#[tokio::test]
async fn what_gateways_answer_is_tried_again() {
    let busy = answer("503 Service Unavailable", "", "");
    let (url, _asked) = http(vec![answer("404 Not Found", "", ""), busy, "no http\r\n\r\n".to_string()]).await;
    let sender = sender(|config| {
        config.callback_allow = Vec::new();
        config.sms = url;
        config.im = "http://127.0.0.1:1/".into();
    });
    let sms = delivery(Kind::Sms, Text { tos: "1".into(), content: "c".into() });
    assert_eq!(sender.send(&sms).await, Err(Failure::Refused("status 404: ".into())));
    assert_eq!(sender.send(&sms).await, Err(Failure::Target("status 503: ".into())));
    assert!(matches!(sender.send(&sms).await, Err(Failure::Target(_))));
    let im = delivery(Kind::Im, Text { tos: "1".into(), content: "c".into() });
    assert!(matches!(sender.send(&im).await, Err(Failure::Target(_))));
}

#[tokio::test]
async fn what_http_failures_mean() {
    let long = "x".repeat(300);
    let (url, _asked) = http(vec![
        answer("404 Not Found", "", "nothing here"),
        answer("503 Service Unavailable", "", &long),
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbroken".to_string(),
        "no http at all\r\n\r\n".to_string(),
    ])
    .await;
    let sender = sender(|_| {});
    assert_eq!(sender.send(&callback(&url)).await, Err(Failure::Received("status 404: nothing here".into())));
    let shown = format!("status 503: {}", &long[..200]);
    assert_eq!(sender.send(&callback(&url)).await, Err(Failure::Received(shown)));
    assert_eq!(sender.send(&callback(&url)).await, Ok("broken".to_string()), "a status is an answer");
    assert!(matches!(sender.send(&callback(&url)).await, Err(Failure::Received(_))));
    let refused = sender.send(&callback("http://127.0.0.1:1/")).await;
    assert!(matches!(&refused, Err(Failure::Target(text)) if text.contains("refused")), "{refused:?}");
    let nobody = sender.send(&callback("http://no-such-name.invalid/")).await;
    assert!(matches!(&nobody, Err(Failure::Target(text)) if text.contains("resolving")), "{nobody:?}");
    for never in ["", "x", "ftp://x/", "http://"] {
        assert!(matches!(sender.send(&callback(never)).await, Err(Failure::Never(_))), "{never:?}");
    }
    let broken = Delivery { body: "{".into(), ..callback("http://x/") };
    assert!(matches!(sender.send(&broken).await, Err(Failure::Never(_))));
    let unknown = Delivery { kind: None, ..callback("http://x/") };
    assert!(matches!(sender.send(&unknown).await, Err(Failure::Never(_))));
    let none = sender.send(&delivery(Kind::Im, Text { tos: "a".into(), content: "b".into() })).await;
    assert!(matches!(&none, Err(Failure::Target(text)) if text.starts_with("alarm.im is empty")), "{none:?}");
}

#[tokio::test]
async fn a_long_answer_is_cut() {
    let (url, _asked) = http(vec![answer("200 OK", "", &"y".repeat(ANSWER_MAX + 1000))]).await;
    assert_eq!(sender(|_| {}).send(&callback(&url)).await.map(|answer| answer.len()), Ok(ANSWER_MAX));
}

/// A script that writes much must not end at a broken pipe.
#[tokio::test]
async fn an_answer_is_read_beyond_what_is_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let script = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let asked = stream.read(&mut [0; 4096]).await?;
        assert!(asked > 0);
        stream.write_all(answer("200 OK", "", &"y".repeat(ANSWER_READ_MAX)).as_bytes()).await?;
        stream.shutdown().await?;
        // A caller that closed with bytes unread answers with a reset.
        stream.read(&mut [0; 1]).await
    });
    assert_eq!(sender(|_| {}).send(&callback(&url)).await.map(|answer| answer.len()), Ok(ANSWER_MAX));
    assert_eq!(in_time("the script's end", script).await.expect("no panic").expect("all was read"), 0);
}

/// A callback that may have been received is not made again; without a connection it was not.
#[tokio::test]
async fn a_callback_that_waits_says_whether_it_was_received() {
    // The kernel accepts, nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("bound");
    let mut sender = sender(|_| {});
    let soon = Duration::from_millis(50);
    sender.callbacks = callback_client(soon, &sender.targets).expect("a client");
    let tls = sender.send(&callback(&format!("https://{address}/"))).await;
    assert!(matches!(tls, Err(Failure::Target(_))), "{tls:?}");
    sender.callback_total = soon;
    let waits = sender.send(&callback(&format!("http://{address}/"))).await;
    assert!(matches!(&waits, Err(Failure::Received(text)) if text == "no answer in time"), "{waits:?}");
    let (url, _asked) = http(vec![String::new()]).await;
    let closed = sender.send(&callback(&url)).await;
    assert!(matches!(closed, Err(Failure::Received(_))), "{closed:?}");
}

/// Each callback has a connection of its own, also when the other side would keep it.
#[tokio::test]
async fn callbacks_share_no_connection() {
    let kept = || "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_string();
    let (url, mut asked) = http(vec![kept(), kept()]).await;
    let sender = sender(|_| {});
    for _ in 0..2 {
        assert_eq!(sender.send(&callback(&url)).await, Ok(String::new()));
        in_time("a request", asked.recv()).await.expect("the server lives");
    }
}

#[tokio::test]
async fn a_callback_goes_nowhere_unchecked() {
    let (url, mut asked) = http(vec![answer("200 OK", "", "secret")]).await;
    let port = url.rsplit(':').next().expect("a port");
    let denied = async |sender: &Sender, url: &str| {
        let failure = sender.send(&callback(url)).await;
        assert!(matches!(&failure, Err(Failure::Denied(text)) if text.contains("alarm.callback_allow")), "{failure:?}");
    };
    let mut strict = sender(|config| config.callback_allow = Vec::new());
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "169.254.169.254", "0.0.0.0"] {
        denied(&strict, &format!("http://{host}:{port}/")).await;
    }
    // A name is as good as what it leads to.
    strict.targets = sender(|_| {}).targets;
    denied(&strict, &format!("http://localhost:{port}/")).await;
    assert!(asked.try_recv().is_err(), "nobody was asked");

    // Where callbacks may go they may be sent elsewhere, and that is looked at, too.
    let to = |location: &str| answer("302 Found", &format!("Location: {location}\r\n"), "");
    let sender = sender(|_| {});
    for location in ["http://127.0.0.1.:1/x", "//10.0.0.1/x", "http://169.254.169.254/latest/", "http://[::1]/"] {
        let (url, _asked) = http(vec![to(location)]).await;
        let failure = sender.send(&callback(&url)).await;
        let expected = match location {
            // A dead end behind a redirect: the first hop has received the call.
            "http://127.0.0.1.:1/x" => matches!(&failure, Err(Failure::Received(text)) if text.contains("refused")),
            _ => {
                matches!(&failure, Err(Failure::Denied(text)) if text.starts_with(&format!("redirected to {location}: ")))
            }
        };
        assert!(expected, "{location}: {failure:?}");
    }
    let (url, _asked) = http(vec![to("gopher://x/")]).await;
    let failure = sender.send(&callback(&url)).await;
    assert!(matches!(&failure, Err(Failure::Received(text)) if text.contains("gopher")), "{failure:?}");
    let (url, _asked) = http(vec![to("/again"); REDIRECTS_MAX + 1]).await;
    let failure = sender.send(&callback(&url)).await;
    assert_eq!(failure, Err(Failure::Received("stopped after 10 redirects".into())));
    let (url, _asked) = http([vec![to("/again"); REDIRECTS_MAX], vec![answer("200 OK", "", "there")]].concat()).await;
    assert_eq!(sender.send(&callback(&url)).await, Ok("there".into()));
}

/// The connection is made to an address that was checked, not to what the name leads to next.
#[tokio::test]
async fn of_a_name_only_allowed_addresses_remain() {
    let resolve = async |allow: Vec<ipnet::IpNet>| {
        let found = Resolver(CallbackTargets::new(&allow)).resolve("localhost".parse().expect("a name")).await;
        found.map(|addresses| addresses.map(|address| address.ip()).collect::<Vec<_>>())
    };
    let found = resolve(loopback()).await.expect("a v4 address");
    assert!(!found.is_empty() && found.iter().all(|address| address.is_ipv4()), "{found:?}");
    let denied = resolve(Vec::new()).await.expect_err("loopback is denied");
    assert!(denied.downcast_ref::<TargetFault>().is_some(), "{denied}");
}

/// What a callback answers is quoted in the subject of a mail, and may try to be more than that.
#[tokio::test]
async fn an_answer_adds_no_header_to_a_mail() {
    let (port, mut told) = smtp(&[]).await;
    let subject = "curl u success. resp: ok\r\nBcc: x@y\r\n\r\nbody".to_string();
    let mail = Mail { tos: "ops@site.example".into(), subject: subject.clone(), content: subject };
    mailer(port).send(&delivery(Kind::Smtp, mail)).await.expect("taken");
    let text = in_time("the dialogue", told.recv()).await.expect("the server lives");
    let head = text.split("\n\n").next().expect("a head");
    assert!(head.contains("Subject: ") && !head.lines().any(|line| line.starts_with("Bcc:")), "{text}");
}

/// A mail server that says what `replies` say to commands beginning so, and 250 to others; gives back what it was told.
async fn smtp(replies: &'static [(&'static str, &'static str)]) -> (u16, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (told, receiver) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (reading, mut writing) = stream.into_split();
            let mut lines = BufReader::new(reading).lines();
            let reply = |command: &str, default: &str| {
                let own = replies.iter().find(|(start, _)| command.starts_with(start));
                format!("{}\r\n", own.map_or(default, |(_, reply)| reply))
            };
            writing.write_all(reply("(greeting)", "220 test").as_bytes()).await.expect("written");
            let (mut text, mut in_data) = (String::new(), false);
            while let Ok(Some(line)) = lines.next_line().await {
                text.push_str(&line);
                text.push('\n');
                let answer = match (in_data, line.as_str()) {
                    (true, ".") => {
                        in_data = false;
                        "250 taken as 42\r\n".to_string()
                    }
                    (true, _) => continue,
                    (false, "DATA") => {
                        in_data = true;
                        "354 go on\r\n".to_string()
                    }
                    (false, command) => reply(command, "250 fine"),
                };
                writing.write_all(answer.as_bytes()).await.expect("written");
                if line == "QUIT" {
                    break;
                }
            }
            told.send(text).expect("the test lives");
        }
    });
    (port, receiver)
}

fn mail(to: &str) -> Delivery {
    let content = "PROBLEM\r\n.starts with a dot\r\nNote:disk\r\n".to_string();
    delivery(Kind::Smtp, Mail { tos: to.into(), subject: "[P0][PROBLEM][web-01][][磁盘]".into(), content })
}

fn mailer(port: u16) -> Sender {
    sender(|config| {
        config.smtp.host = "127.0.0.1".into();
        config.smtp.port = port;
        config.smtp.security = SmtpSecurity::None;
        config.smtp.from = "Hawkeye <hawkeye@site.example>".into();
    })
}

#[tokio::test]
async fn a_mail_is_framed_as_smtp_wants() {
    let (port, mut told) = smtp(&[]).await;
    assert_eq!(mailer(port).send(&mail("ops@site.example")).await, Ok("taken as 42".to_string()));
    let text = in_time("the dialogue", told.recv()).await.expect("the server lives");
    for line in [
        "MAIL FROM:<hawkeye@site.example>",
        "RCPT TO:<ops@site.example>",
        "To: ops@site.example",
        "Message-ID: <hawkeye.1490000000.7@site.example>",
        "Content-Type: text/plain; charset=utf-8",
        "PROBLEM",
        "..starts with a dot",
        "Note:disk",
        ".",
    ] {
        assert!(text.lines().any(|told| told == line), "{line:?} in\n{text}");
    }
    assert!(text.contains("\nSubject: ") && text.contains("=?utf-8?"), "{text}");
    assert!(!text.contains("磁"), "headers are ASCII:\n{text}");
}

#[tokio::test]
async fn what_smtp_failures_mean() {
    let check = async |replies, expected: fn(&Failure) -> bool| {
        let (port, _told) = smtp(replies).await;
        let failure = mailer(port).send(&mail("ops@site.example")).await.expect_err("refused");
        assert!(expected(&failure), "{replies:?} gave {failure:?}");
    };
    check(&[("RCPT", "550 no such user")], |f| matches!(f, Failure::Never(text) if text.contains("no such user")))
        .await;
    check(&[("RCPT", "450 later")], |f| matches!(f, Failure::Refused(_))).await;
    check(&[("(greeting)", "421 busy")], |f| matches!(f, Failure::Target(_))).await;
    check(&[("MAIL", "530 log in first")], |f| matches!(f, Failure::Target(_))).await;
    let failure = mailer(1).send(&mail("ops@site.example")).await.expect_err("nobody there");
    assert!(matches!(&failure, Failure::Target(text) if text.contains("refused")), "{failure:?}");
    let failure = mailer(1).send(&mail("no address")).await.expect_err("no address");
    assert!(matches!(&failure, Failure::Never(text) if text.contains("no address")), "{failure:?}");
}

#[test]
fn wrong_settings_are_named() {
    let mut config = Config::default().alarm;
    config.smtp.host = "h".into();
    config.smtp.from = "nobody".into();
    let error = format!("{:#}", Sender::new(&config).err().expect("refused"));
    assert!(error.contains("alarm.smtp: from is \"nobody\""), "{error}");
    for security in [SmtpSecurity::Starttls, SmtpSecurity::Tls] {
        config.smtp = SmtpConfig { host: "mail.example".into(), security, ..SmtpConfig::default() };
        Sender::new(&config).expect("TLS can be prepared");
    }
}

#[tokio::test]
#[ignore = "needs a mail server: tests/services/smtp.sh starts one and looks at what it got"]
async fn a_real_mail_server_takes_a_mail() {
    let address = std::env::var("TEST_SMTP").expect("TEST_SMTP=host:port names a mail server");
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("host:port");
    let result = mailer(port).send(&mail("ops@site.example")).await;
    assert!(result.is_ok(), "{result:?}");
}
