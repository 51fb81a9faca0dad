//! A node's HTTP port over TLS: who is let in by a certificate or a token, what peers do not get away with, renewed files.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use harness::{free_base_port, playhouse};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    },
};

const STATUS: &str = "/api/playhouse.cluster.v1.Admin/Status";
const PUT_PRODUCT: &str = "/api/playhouse.catalog.v1.Products/PutProduct";
const TOKEN: &str = "a-token-of-the-test";
/// What has not happened by then never will.
const PATIENCE: Duration = Duration::from_secs(90);

/// Who signs certificates.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
struct Pair {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params
            .distinguished_name
            .push(DnType::CommonName, "an authority of the test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self {
            certificate: params.self_signed(&key).expect("a certificate"),
            issuer: Issuer::new(params, key),
        }
    }

    fn sign(&self, name: &str, alternatives: &[&str]) -> Pair {
        let alternatives: Vec<String> = alternatives.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(alternatives).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { certificate, key }
    }
}

impl Pair {
    fn write(&self, certificate: &Path, key: &Path) {
        fs::write(certificate, self.certificate.pem()).expect("written");
        fs::write(key, self.key.serialize_pem()).expect("written");
    }
}

/// A node of its own, and the authority that it goes by. It ends when it is dropped.
struct Node {
    folder: TempDir,
    authority: Authority,
    http: SocketAddr,
    _process: Child,
}

impl Node {
    fn file(folder: &TempDir, name: &str) -> PathBuf {
        folder.path().join(name)
    }

    /// Writes a config file for a node whose HTTP port is told with it.
    fn configure(folder: &TempDir) -> (PathBuf, SocketAddr) {
        let base_port = free_base_port(1);
        let http = SocketAddr::from(([127, 0, 0, 1], base_port + 81));
        let config = format!(
            r#"
            [cluster]
            node = 1
            data = "{data}"
            shards = 1
            replicas = 1
            members = [{{ id = 1, address = "127.0.0.1:{grpc}" }}]
            [provider]
            url = "http://127.0.0.1:1"
            [http]
            address = "{http}"
            operator_token = "{TOKEN}"
            [http.tls]
            certificate = "{certificate}"
            key = "{key}"
            client_ca = "{client_ca}"
            operators = ["ann"]
            readers = ["bob@example.org"]
            "#,
            data = Self::file(folder, "data").display(),
            grpc = base_port + 1,
            certificate = Self::file(folder, "node.crt").display(),
            key = Self::file(folder, "node.key").display(),
            client_ca = Self::file(folder, "ca.crt").display(),
        );
        let path = Self::file(folder, "node.toml");
        fs::write(&path, config).expect("written");
        (path, http)
    }

    async fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let authority = Authority::new();
        fs::write(Self::file(&folder, "ca.crt"), authority.certificate.pem()).expect("written");
        let own = authority.sign("node-1", &["127.0.0.1"]);
        own.write(&Self::file(&folder, "node.crt"), &Self::file(&folder, "node.key"));
        let (config, http) = Self::configure(&folder);
        let process = Command::new(harness::program!())
            .args(["node", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let node = Self {
            folder,
            authority,
            http,
            _process: process,
        };
        let until = Instant::now() + PATIENCE;
        while node.get(None, "/readyz").await.map_or(0, |answer| answer.status) != 200 {
            assert!(Instant::now() < until, "the node is not ready; its log stands above");
            sleep(Duration::from_millis(100)).await;
        }
        node
    }

    /// A connection of somebody with this certificate.
    async fn connect(&self, who: Option<&Pair>) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.authority.certificate.der().clone())
            .expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match who {
            None => builder.with_no_client_auth(),
            Some(Pair { certificate, key }) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
                let chain = vec![certificate.der().clone()];
                builder.with_client_auth_cert(chain, key).expect("they fit")
            }
        };
        let stream = TcpStream::connect(self.http).await?;
        let name = ServerName::from(self.http.ip());
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    async fn send(&self, who: Option<&Pair>, head: &str, body: &str) -> io::Result<Answer> {
        let mut stream = self.connect(who).await?;
        let host = self.http;
        let length = body.len();
        let request = format!("{head}host: {host}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        if answer.is_empty() {
            read?;
        }
        Ok(Answer::of(&String::from_utf8_lossy(&answer)))
    }

    async fn get(&self, who: Option<&Pair>, path: &str) -> io::Result<Answer> {
        self.send(who, &format!("GET {path} HTTP/1.1\r\n"), "").await
    }

    /// Posts with these further header lines.
    async fn post(&self, who: Option<&Pair>, path: &str, lines: &str, body: &Value) -> Answer {
        let head = format!("POST {path} HTTP/1.1\r\n{lines}");
        let sent = self.send(who, &head, &body.to_string()).await;
        sent.expect("the handshake is done and the node answers")
    }

    async fn shown(&self) -> io::Result<CertificateDer<'static>> {
        let stream = self.connect(None).await?;
        let chain = stream.get_ref().1.peer_certificates().expect("a server shows one");
        Ok(chain[0].clone().into_owned())
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn of(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status");
        Self {
            status: status.parse().expect("a number"),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that it is a refusal which says this.
    fn refuses(&self, status: u16, text: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let said = self.json();
        assert!(said["message"].as_str().expect("a text").contains(text), "{said}");
    }
}

fn product(sku: &str) -> Value {
    json!({ "sku": sku, "name": "Tea", "price": { "minor": 255, "currency": "GBP" } })
}

#[tokio::test]
async fn a_token_or_a_certificate_that_is_named_lets_in() {
    let node = Node::start().await;
    let [ann, carol] = ["ann", "carol"].map(|name| node.authority.sign(name, &[]));
    let bob = node.authority.sign("Bob", &["bob@example.org"]);
    let token = format!("authorization: Bearer {TOKEN}\r\n");

    let put = node.post(None, PUT_PRODUCT, &token, &product("by-token")).await;
    assert_eq!(put.status, 200, "{put:?}");
    assert!(put.head.contains("content-security-policy: "), "{put:?}");

    let session = node.get(Some(&ann), "/session").await.expect("answered").json();
    assert_eq!(session, json!({ "rights": "operator", "name": "ann" }));
    let put = node.post(Some(&ann), PUT_PRODUCT, "", &product("by-ann")).await;
    assert_eq!(put.status, 200, "{put:?}");
    let asked = json!({ "key": "product/by-ann" });
    let events = node
        .post(Some(&ann), "/api/playhouse.history.v1.History/Events", "", &asked)
        .await;
    assert!(events.body.contains(r#""askedBy":"ann""#), "{events:?}");

    let session = node.get(Some(&bob), "/session").await.expect("answered").json();
    assert_eq!(session, json!({ "rights": "reader", "name": "bob@example.org" }));
    assert_eq!(node.post(Some(&bob), STATUS, "", &json!({})).await.status, 200);
    let put = node.post(Some(&bob), PUT_PRODUCT, "", &product("by-bob")).await;
    put.refuses(403, "operator");

    let unnamed = node.post(Some(&carol), STATUS, "", &json!({})).await;
    unnamed.refuses(403, r#""carol""#);
    unnamed.refuses(403, "`operators` or `readers`");
    // A token counts whatever the certificate is.
    assert_eq!(node.post(Some(&carol), STATUS, &token, &json!({})).await.status, 200);
    node.post(None, STATUS, "", &json!({}))
        .await
        .refuses(401, "certificate");
    let stranger = Authority::new().sign("ann", &[]);
    let refused = node.get(Some(&stranger), "/session").await;
    assert!(refused.is_err(), "{refused:?}");

    // A browser would show the certificate for any page; none of them can make a link of it either.
    let foreign = node
        .post(Some(&ann), STATUS, "sec-fetch-site: cross-site\r\n", &json!({}))
        .await;
    foreign.refuses(403, "own pages");
    node.post(Some(&ann), "/login/codes", "", &json!({}))
        .await
        .refuses(403, "token");
}

#[tokio::test]
async fn what_a_node_shows_is_told_without_its_key() {
    let node = Node::start().await;
    let ann = node.authority.sign("ann", &[]);
    let told = node
        .post(
            Some(&ann),
            "/api/playhouse.cluster.v1.Admin/ShowCertificates",
            "",
            &json!({}),
        )
        .await;
    let of_node = &told.json()["nodes"][0];
    assert_eq!(of_node["certificate"]["subject"], "CN=node-1", "{told:?}");
    assert_eq!(of_node["certificate"]["issuer"], "CN=an authority of the test");
    assert_eq!(of_node["certificate"]["names"], json!(["127.0.0.1"]));
    assert_eq!(
        (&of_node["operators"], &of_node["readers"]),
        (&json!(["ann"]), &json!(["bob@example.org"]))
    );
    let config = node
        .post(Some(&ann), "/api/playhouse.cluster.v1.Admin/ShowConfig", "", &json!({}))
        .await;
    assert!(
        config.body.contains("node.key") && config.body.contains("client_ca"),
        "{config:?}"
    );
    for answer in [&told, &config] {
        assert!(!answer.body.contains("PRIVATE KEY"), "{answer:?}");
    }
    let metrics = node.get(None, "/metrics").await.expect("answered");
    let ends = of_node["certificate"]["notAfterUnixMs"]
        .as_str()
        .expect("a number")
        .strip_suffix("000");
    let line = format!(
        "playhouse_http_certificate_expiry_timestamp_seconds {}",
        ends.expect("whole seconds")
    );
    assert!(metrics.body.contains(&line), "{line}");
}

#[tokio::test]
async fn peers_that_say_nothing_or_nonsense_hold_nobody_up() {
    let node = Node::start().await;
    let mut held = Vec::new();
    for number in 0..40_u8 {
        let mut stream = TcpStream::connect(node.http).await.expect("connected");
        let said: &[u8] = match number % 4 {
            0 => b"",
            1 => b"\x16\x03\x01\xff\xff",
            2 => b"\x16\x03\x01\x00\x05hello",
            _ => &[0xff; 2048],
        };
        stream.write_all(said).await.expect("sent");
        held.push(stream);
    }
    let served = timeout(PATIENCE, node.get(None, "/healthz")).await.expect("served");
    assert_eq!(served.expect("answered").status, 200);
    drop(held);

    // Whoever forgot the `s` is told.
    let plain = reqwest::get(format!("http://{}/healthz", node.http))
        .await
        .expect("answered");
    assert_eq!(plain.status(), 400);
    assert!(plain.text().await.expect("text").contains("https://"));
    assert_eq!(node.get(None, "/healthz").await.expect("answered").status, 200);
}

#[tokio::test]
async fn renewed_files_are_shown_to_new_connections() {
    let node = Node::start().await;
    let before = node.shown().await.expect("a handshake");
    let renewed = node.authority.sign("node-1 renewed", &["127.0.0.1"]);
    assert_ne!(*renewed.certificate.der(), before);
    renewed.write(
        &Node::file(&node.folder, "node.crt"),
        &Node::file(&node.folder, "node.key"),
    );
    let until = Instant::now() + PATIENCE;
    while node.shown().await.expect("a handshake") != *renewed.certificate.der() {
        assert!(Instant::now() < until, "the old certificate is still shown");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_node_does_not_start_without_its_certificate() {
    let folder = TempDir::new().expect("a folder");
    let (config, _) = Node::configure(&folder);
    let config = config.to_str().expect("plain");
    let ended = playhouse(harness::program!(), ["node", "--config", config]).await;
    assert_eq!(ended.code, 1);
    // Lines are wrapped for people, with a rule beside them.
    let words = ended.stderr.split_whitespace().filter(|word| *word != "│");
    let said = words.collect::<Vec<_>>().join(" ");
    assert!(said.contains("`http.tls.certificate` cannot be read"), "{said}");
}
