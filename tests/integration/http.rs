//! A node's HTTP port: health, the same calls as JSON with their rights, streams, the one-time link, and the console's files.

use harness::TestCluster;
use reqwest::{Client, Method, Response, StatusCode, header};
use serde_json::{Value, json};

const STATUS: &str = "playhouse.cluster.v1.Admin/Status";
const PUT_PRODUCT: &str = "playhouse.catalog.v1.Products/PutProduct";

struct Web {
    client: Client,
    node: String,
    token: String,
}

impl Web {
    /// A browser of the operator: the link of `up` counts once.
    async fn enter(cluster: &TestCluster) -> Self {
        let client = Client::builder().no_proxy().build().expect("a client");
        let node = cluster.ready()["nodes"][0]["http"].as_str().expect("its HTTP port");
        let node = format!("http://{node}");
        let link = cluster.ready()["console"].as_str().expect("a link").to_owned();
        let code = link.split_once("/#code=").expect("it carries a code").1.to_owned();
        let redeem = || {
            client
                .post(format!("{node}/login"))
                .json(&json!({ "code": code }))
                .send()
        };
        let said: Value = redeem().await.expect("answered").json().await.expect("JSON");
        assert_eq!(said["rights"], "operator", "{said}");
        let again = redeem().await.expect("answered");
        assert_eq!(again.status(), StatusCode::UNAUTHORIZED);
        let token = said["token"].as_str().expect("a token").to_owned();
        Self { client, node, token }
    }

    async fn get(&self, path: &str) -> Response {
        let request = self.client.get(format!("{}{path}", self.node));
        request.send().await.expect("answered")
    }

    async fn call(&self, method: &str, request: &Value) -> Response {
        let post = self.client.post(format!("{}/api/{method}", self.node));
        let post = post.bearer_auth(&self.token).json(request);
        post.send().await.expect("answered")
    }

    async fn answer(&self, method: &str, request: &Value) -> Value {
        let response = self.call(method, request).await;
        let status = response.status();
        let said: Value = response.json().await.expect("JSON");
        assert_eq!(status, StatusCode::OK, "{method}: {said}");
        said
    }

    async fn refusal(&self, method: &str, request: &Value) -> (StatusCode, Value) {
        let response = self.call(method, request).await;
        (response.status(), response.json().await.expect("JSON"))
    }
}

#[tokio::test]
async fn a_browser_can_do_what_grpc_can() {
    let cluster = TestCluster::start(harness::program!(), 3).await;
    let web = Web::enter(&cluster).await;

    assert_eq!(web.get("/healthz").await.status(), StatusCode::OK);
    let ready: Value = web.get("/readyz").await.json().await.expect("JSON");
    assert_eq!(ready["ready"], true);

    let status = web.answer(STATUS, &json!({})).await;
    let http: Vec<&str> = (status["nodes"].as_array().expect("nodes").iter())
        .filter_map(|node| node["http"].as_str())
        .collect();
    let told = cluster.ready()["nodes"].as_array().expect("nodes");
    assert_eq!(
        http,
        told.iter().filter_map(|node| node["http"].as_str()).collect::<Vec<_>>()
    );

    // A command under a request id does what it does once.
    let product = json!({ "sku": "tea", "name": "Tea", "price": { "minor": 255, "currency": "GBP" } });
    for _ in 0..2 {
        let put = web.client.post(format!("{}/api/{PUT_PRODUCT}", web.node));
        let put = put
            .bearer_auth(&web.token)
            .header("x-request-id", "put-1")
            .json(&product);
        let response = put.send().await.expect("answered");
        assert_eq!(response.headers()["x-request-id"], "put-1");
        assert!(response.headers().contains_key("x-trace-id"));
        assert_eq!(response.status(), StatusCode::OK);
    }
    let shown = web
        .answer(
            "playhouse.cluster.v1.Admin/ShowEntity",
            &json!({ "key": "product/tea" }),
        )
        .await;
    assert_eq!(shown["version"], "1", "{shown}");

    // A stream that ends, as lines.
    let history = web
        .call("playhouse.history.v1.History/Events", &json!({ "key": "product/tea" }))
        .await;
    assert_eq!(history.headers()[header::CONTENT_TYPE], "application/x-ndjson");
    let lines = history.text().await.expect("text");
    let first: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["result"]["events"][0]["askedBy"], "console", "{lines}");

    // One without end, as server-sent events.
    let events = format!("{}/api/playhouse.chaos.v1.Chaos/WatchShards", web.node);
    let get = web.client.get(events).query(&[("request", json!({}).to_string())]);
    let mut events = get.bearer_auth(&web.token).send().await.expect("answered");
    assert_eq!(events.headers()[header::CONTENT_TYPE], "text/event-stream");
    let chunk = events.chunk().await.expect("it goes on").expect("an event");
    let text = String::from_utf8_lossy(&chunk).into_owned();
    assert!(
        text.starts_with("event: result\ndata: {") || text.starts_with("data: {"),
        "{text}"
    );
}

#[tokio::test]
async fn whoever_has_no_right_is_told_why() {
    let cluster = TestCluster::start(harness::program!(), 1).await;
    let web = Web::enter(&cluster).await;

    let anonymous = web
        .client
        .post(format!("{}/api/{STATUS}", web.node))
        .send()
        .await
        .expect("answered");
    assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED);
    let said: Value = anonymous.json().await.expect("JSON");
    assert!(said["message"].as_str().expect("a text").contains("Bearer"), "{said}");

    // Another page may ask, because the token is no cookie: it has to bring it.
    let preflight = web
        .client
        .request(Method::OPTIONS, format!("{}/api/{STATUS}", web.node));
    let preflight = preflight
        .header("origin", "http://127.0.0.1:1")
        .send()
        .await
        .expect("answered");
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    assert_eq!(preflight.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert!(preflight.headers().get(header::SET_COOKIE).is_none());

    for (method, request, code, text) in [
        (
            "playhouse.cluster.v1.Admin/Nothing",
            json!({}),
            StatusCode::NOT_FOUND,
            "there is no method",
        ),
        (
            "playhouse.cluster.v1.Peer/Hello",
            json!({}),
            StatusCode::NOT_FOUND,
            "there is no method",
        ),
        (STATUS, json!({ "urk": 1 }), StatusCode::BAD_REQUEST, "StatusRequest"),
        (STATUS, json!([1]), StatusCode::BAD_REQUEST, "StatusRequest"),
        (PUT_PRODUCT, json!({ "sku": "" }), StatusCode::BAD_REQUEST, ""),
        (
            "playhouse.events.v1.Events/Consume",
            json!({}),
            StatusCode::NOT_IMPLEMENTED,
            "gRPC",
        ),
        (
            "playhouse.catalog.v1.Products/GetProduct",
            json!({ "sku": "none" }),
            StatusCode::NOT_FOUND,
            "none",
        ),
    ] {
        let (status, said) = web.refusal(method, &request).await;
        assert_eq!(status, code, "{method}: {said}");
        assert!(
            said["message"].as_str().expect("a text").contains(text),
            "{method}: {said}"
        );
    }

    // What the node runs with is told without its secrets.
    let config = web.answer("playhouse.cluster.v1.Admin/ShowConfig", &json!({})).await;
    let toml = config["toml"].as_str().expect("a text");
    assert!(
        toml.contains("[cluster.limits]") && !toml.contains(&web.token),
        "{toml}"
    );
}

#[tokio::test]
async fn the_consoles_files_come_from_the_node_and_are_kept_by_browsers() {
    let cluster = TestCluster::start(harness::program!(), 1).await;
    let web = Web::enter(&cluster).await;
    let page = web.get("/").await;
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY]
        .to_str()
        .expect("text")
        .to_owned();
    assert!(policy.starts_with("default-src 'self'"), "{policy}");
    let tag = page.headers()[header::ETAG].clone();
    assert!(page.text().await.expect("text").contains("/console/shell/app.js"));
    let again = web
        .client
        .get(&web.node)
        .header(header::IF_NONE_MATCH, tag)
        .send()
        .await
        .expect("answered");
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let menu: Value = web.get("/console/menu.json").await.json().await.expect("JSON");
    for page in menu.as_array().expect("pages") {
        let script = web
            .get(&format!(
                "/console/pages/{}/page.js",
                page["name"].as_str().expect("a name")
            ))
            .await;
        assert_eq!(script.headers()[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
    }
    for nothing in [
        "/console/shell/../mod.rs",
        "/console/pages/none/page.js",
        "/console/shell/%2e%2e/mod.rs",
    ] {
        assert_eq!(web.get(nothing).await.status(), StatusCode::NOT_FOUND, "{nothing}");
    }

    // `playhouse console` makes further links.
    let made = cluster.run("console --json").await.ok().json();
    assert!(made["link"].as_str().expect("a link").starts_with(&web.node));
}
