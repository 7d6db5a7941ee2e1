//! TLS over real sockets, with the pairs in `testdata/tls`: handshakes, other words, and files that change.

use super::client::{Outgoing, Trust};
use super::*;
use crate::budget::Budget;
use crate::connection::{Fault, Protocol, RpcLimits, RpcMetrics, connection};
use crate::listen::{ConnectionMetrics, Limits, serve};
use crate::patience::in_time;
use crate::places::Places;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use stdx::ledger::Account;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Begin of 2030, when all pairs but the expired one are valid.
const NOW: i64 = 1_893_456_000;

/// A time at which the expired pair was valid, and the others were not yet.
const IN_2019: i64 = 1_560_000_000;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tls").join(name)
}

/// Lines that come back as they are.
struct Echo;

impl Protocol for Echo {
    async fn answer(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, Fault> {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        out.extend_from_slice(&input[..=end]);
        if input.starts_with(b"bye") {
            return Err(Fault { reason: "bye", text: "it was said".into() });
        }
        Ok(Some(end + 1))
    }

    fn is_blank(input: &[u8]) -> bool {
        input.is_empty()
    }

    fn idle(&mut self) {}

    fn memory_bytes(&self) -> usize {
        0
    }

    fn say_goodbye(&mut self, text: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(text.as_bytes());
    }
}

struct Served {
    address: SocketAddr,
    metrics: ConnectionMetrics,
    rpc: RpcMetrics,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

async fn serve_echo(tls: Option<Tls>) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (metrics, rpc) = (ConnectionMetrics::default(), RpcMetrics::default());
    let limits = Limits {
        connections_max: 10,
        places: Places::new(10),
        allow: Arc::new([]),
        metrics: metrics.clone(),
        connections: Account::new("connections", None),
        http: Account::new("http", None),
        budget: Budget::new(64 << 20),
        tls,
    };
    let of_messages = RpcLimits {
        message_max: 1 << 20,
        message_timeout: Duration::from_secs(60),
        budget: limits.budget.clone(),
        metrics: rpc.clone(),
        connections: limits.connections.clone(),
    };
    let (stop, stopping) = watch::channel(false);
    let until = stopping.clone();
    let serving = tokio::spawn(serve("echo", listener, limits, stopping, move |stream, peer, place| {
        connection("echo", stream, peer, place, Echo, of_messages.clone(), until.clone())
    }));
    Served { address, metrics, rpc, stop, serving }
}

/// A connection of a client that trusts one of the pairs.
async fn dial(address: SocketAddr, trusted: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let chain = std::fs::read(file(trusted)).expect("a file");
    roots.add(CertificateDer::from_pem_slice(&chain).expect("PEM")).expect("a certificate");
    let client = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    in_time("the handshake", TlsConnector::from(Arc::new(client)).connect(name, stream)).await
}

#[tokio::test]
async fn messages_pass_in_pieces_and_together() {
    let served = serve_echo(Some(Tls::open(&file("one.crt"), &file("one.key")).expect("a pair"))).await;
    let mut client = dial(served.address, "one.crt").await.expect("a handshake");
    // Longer than a record, and than the first buffer.
    let long = "x".repeat(100_000) + "\n";
    for piece in ["fir", "st\nsecond\n", &long] {
        client.write_all(piece.as_bytes()).await.expect("it reads");
        client.flush().await.expect("it reads");
    }
    let mut answer = vec![0; 13 + long.len()];
    in_time("the answers", client.read_exact(&mut answer)).await.expect("answers");
    assert!(answer.starts_with(b"first\nsecond\nxxx") && answer.ends_with(b"x\n"));
    client.write_all(b"bye\n").await.expect("it reads");
    let mut rest = String::new();
    in_time("the end", client.read_to_string(&mut rest)).await.expect("an announced end");
    assert_eq!(rest, "bye\nit was said");
    assert_eq!(served.rpc.faults("echo", "bye"), 1);
}

#[tokio::test]
async fn other_words_are_answered_and_counted() {
    let served = serve_echo(Some(Tls::open(&file("one.crt"), &file("one.key")).expect("a pair"))).await;
    for (words, answer) in [("{\"method\":", TO_RPC), ("GET / HTTP/1.1\r\n\r\n", TO_HTTP), ("update h", "")] {
        let mut stream = TcpStream::connect(served.address).await.expect("it listens");
        stream.write_all(words.as_bytes()).await.expect("it reads");
        let mut told = Vec::new();
        // Where nothing is answered, what was not read makes the end a reset.
        let _ = in_time("the end", stream.read_to_end(&mut told)).await;
        assert_eq!(String::from_utf8_lossy(&told), answer);
    }
    crate::patience::until("the counts", async || served.metrics.refused("echo", "plain_text") == 3).await;
    assert!(dial(served.address, "two.crt").await.is_err(), "it is not trusted");
    crate::patience::until("the count", async || served.metrics.refused("echo", "tls_handshake") == 1).await;

    let plain = serve_echo(None).await;
    assert!(dial(plain.address, "one.crt").await.is_err());
    crate::patience::until("the count", async || plain.rpc.faults("echo", "tls") == 1).await;
}

#[tokio::test]
async fn a_new_pair_is_for_new_connections_and_a_broken_one_for_none() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let put = |from: &str, to: &Path| _ = std::fs::copy(file(from), to).expect("room");
    put("one.crt", &cert);
    put("one.key", &key);
    let tls = Tls::open(&cert, &key).expect("a pair");
    let served = serve_echo(Some(tls.clone())).await;
    let mut old = dial(served.address, "one.crt").await.expect("a handshake");
    assert_eq!(tls.look(NOW), Look::Same);

    put("two.crt", &cert);
    assert_eq!(tls.look(NOW), Look::Unsettled, "the key is that of the other");
    let Look::Refused(why) = tls.look(NOW) else { panic!("it was so before") };
    assert!(why.contains("tls.key") && why.contains("give the key"), "{why}");
    dial(served.address, "one.crt").await.expect("the pair before it");
    put("two.key", &key);
    assert_eq!(tls.look(NOW), Look::Changed);
    dial(served.address, "two.crt").await.expect("the new pair");
    old.write_all(b"still\n").await.expect("it reads");
    let mut answer = [0; 6];
    in_time("an answer", old.read_exact(&mut answer)).await.expect("the old connection goes on");

    put("expired.crt", &cert);
    put("one.key", &key);
    assert_eq!(tls.look(NOW), Look::Unsettled);
    assert!(matches!(tls.look(NOW), Look::Refused(why) if why.contains("has expired")));
    std::fs::remove_file(&cert).expect("it was there");
    assert_eq!(tls.look(NOW), Look::Unsettled, "another reason");
    assert!(matches!(tls.look(NOW), Look::Refused(why) if why.contains("tls.cert: cannot read")));
    put("two.crt", &cert);
    put("two.key", &key);
    assert_eq!(tls.look(NOW), Look::Same);
}

#[test]
fn a_pair_that_is_not_valid_yet_takes_no_valid_ones_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let put = |from: &str, to: &Path| _ = std::fs::copy(file(from), to).expect("room");
    put("expired.crt", &cert);
    put("one.key", &key);
    let tls = Tls::open(&cert, &key).expect("a pair");
    put("one.crt", &cert);
    assert_eq!(tls.look(IN_2019), Look::Unsettled);
    assert!(
        matches!(tls.look(IN_2019), Look::Refused(why) if why.contains("tls.cert: ") && why.contains("not valid yet"))
    );
    assert_eq!(tls.not_after(), 1_577_836_800, "the pair before it");
    assert_eq!(tls.look(NOW), Look::Changed, "when its time has come");
    assert!(tls.not_before() > IN_2019);
}

/// A pipe would hold up who reads it until somebody writes, and a device may have no end.
#[test]
fn files_of_other_kinds_are_refused_at_once() {
    for path in ["/dev/null", "/dev/zero", "/"].map(Path::new) {
        let pair = Pair::read(path, &file("one.key")).err().map(|error| format!("{error:#}")).expect("no pair");
        let trust = Trust::of_file("tls.ca", path).err().map(|error| format!("{error:#}")).expect("no certificates");
        let told =
            format!("cannot read {}: give a PEM file that this user may read: it is no regular file", path.display());
        assert_eq!((pair, trust), (format!("tls.cert: {told}"), format!("tls.ca: {told}")));
    }
}

#[test]
fn pairs_that_are_none_are_told_with_key_and_fix() {
    let check = |cert: &str, key: &str, parts: [&str; 2]| {
        let error = Pair::read(&file(cert), &file(key)).err().map(|error| format!("{error:#}")).expect(cert);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(!error.contains("BEGIN"), "{error}");
    };
    check("none.crt", "one.key", ["tls.cert: cannot read", "give a PEM file"]);
    check("one.key", "one.key", ["tls.cert: ", "give a PEM file with CERTIFICATE blocks"]);
    check("one.crt", "one.crt", ["tls.key: ", "give a PEM file with a PRIVATE KEY block"]);
    check("one.crt", "two.key", ["tls.key: ", "give the key that it was made for"]);
    let expired = Pair::read(&file("expired.crt"), &file("one.key")).expect("a pair all the same");
    assert_eq!(expired.validity, Validity { not_before: 1_546_300_800, not_after: 1_577_836_800 });
    let check = |cert: &str, time| Pair::check(&file(cert), &file("one.key"), time).map_err(|error| error.to_string());
    assert_eq!(check("one.crt", NOW), Ok(()));
    assert!(
        check("expired.crt", NOW).is_err_and(|error| error.contains("tls.cert: ") && error.contains("has expired"))
    );
    assert!(
        check("one.crt", IN_2019).is_err_and(|error| error.contains("is not valid yet: give one that is valid now"))
    );
}

#[tokio::test]
async fn a_client_believes_what_it_was_told_to_and_names_what_is_wrong() {
    let served = serve_echo(Some(Tls::open(&file("one.crt"), &file("one.key")).expect("a pair"))).await;
    let port = served.address.port();
    let trust = |name: &str| Trust::of_file("tls.ca", &file(name)).expect("a file");
    let dial = async |place: &str, trust: &Trust| {
        in_time("a connection", Outgoing::connect(&format!("tls://{place}:{port}"), Some(trust))).await
    };
    let mut client = dial("localhost", &trust("one.crt")).await.expect("a handshake");
    client.write_all(b"first\n").await.expect("it reads");
    client.flush().await.expect("it reads");
    let mut answer = [0; 6];
    in_time("an answer", client.read_exact(&mut answer)).await.expect("an answer");
    assert_eq!(&answer, b"first\n");
    let refused = async |place: &str, trust: &Trust, part: &str| {
        let error = dial(place, trust).await.err().expect("it is refused");
        assert!(error.contains(part) && error.contains(&port.to_string()), "{error}");
    };
    refused("localhost", &trust("two.crt"), "neither it nor who signed it").await;
    let no_trust = Outgoing::connect(&format!("tls://localhost:{port}"), None).await.err().expect("nobody is believed");
    assert!(no_trust.contains("no file of certificates"), "{no_trust}");
    // A server's own certificate is believed from any address; another's is not.
    let own = |name: &str| Trust::own("tls.cert", &file(name)).expect("a file");
    dial("127.0.0.1", &own("one.crt")).await.expect("a handshake");
    refused("127.0.0.1", &own("two.crt"), "neither it nor who signed it").await;

    let plain = serve_echo(None).await;
    let place = format!("tls://localhost:{}", plain.address.port());
    let error = Outgoing::connect(&place, Some(&trust("one.crt"))).await.err().expect("no TLS");
    assert!(error.contains("TLS"), "{error}");
    let expired = serve_echo(Some(Tls::open(&file("expired.crt"), &file("one.key")).expect("a pair"))).await;
    let place = format!("tls://localhost:{}", expired.address.port());
    let error = Outgoing::connect(&place, Some(&trust("expired.crt"))).await.err().expect("it has expired");
    assert!(error.contains("it has expired"), "{error}");
}

#[test]
fn a_file_of_nobody_is_told_with_key_and_fix() {
    let check = |name: &str, part: &str| {
        let error = Trust::of_file("tls.ca", &file(name)).err().map(|error| format!("{error:#}")).expect(name);
        assert!(error.contains("tls.ca: ") && error.contains(part), "{error}");
    };
    check("none.crt", "cannot read");
    check("one.key", "CERTIFICATE blocks");
}

#[tokio::test]
async fn who_has_not_said_hello_holds_up_no_stop() {
    let served = serve_echo(Some(Tls::open(&file("one.crt"), &file("one.key")).expect("a pair"))).await;
    let _silent = TcpStream::connect(served.address).await.expect("it listens");
    let open = served.metrics.open.get_or_create_owned(&crate::listen::ListenerLabel { listener: "echo" });
    crate::patience::until("the connection", async || open.get() == 1).await;
    served.stop.send_replace(true);
    in_time("the end of the listener", served.serving).await.expect("no panic");
    assert_eq!(served.metrics.cut_off("echo"), 0);
}
