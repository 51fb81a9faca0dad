//! The link that lets a browser in once.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

/// How long a node may take to make a code.
const ANSWER_MAX: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Made {
    code: String,
}

/// Has a node make a code; the link that carries it.
pub(crate) async fn make(node: SocketAddr, operator_token: &str) -> Result<String, reqwest::Error> {
    let made = reqwest::Client::builder()
        .timeout(ANSWER_MAX)
        .no_proxy()
        .build()?
        .post(format!("http://{node}/login/codes"))
        .bearer_auth(operator_token)
        .send()
        .await?
        .error_for_status()?;
    // Behind the sign that browsers keep to themselves: the code stands in no server's log.
    Ok(format!("http://{node}/#code={}", made.json::<Made>().await?.code))
}
