//! The link that lets a browser in once.

use std::{net::SocketAddr, time::Duration};

use reqwest::StatusCode;
use serde::Deserialize;

/// How long a node may take to make a code.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error(transparent)]
    Call(#[from] reqwest::Error),
    #[error(
        "its HTTP port speaks TLS, which links of a local cluster do not; open https://{node}/ and enter with a client \
         certificate or a token"
    )]
    Tls { node: SocketAddr },
}

#[derive(Deserialize)]
struct Made {
    code: String,
}

/// Has a node make a code; the link that carries it.
pub(crate) async fn make(node: SocketAddr, operator_token: &str) -> Result<String, LinkError> {
    let answer = reqwest::Client::builder()
        .timeout(ANSWER_MAX)
        .no_proxy()
        .build()?
        .post(format!("http://{node}/login/codes"))
        .bearer_auth(operator_token)
        .send()
        .await?;
    // What a TLS port says to a request without TLS, and no other port to this one.
    if answer.status() == StatusCode::BAD_REQUEST {
        return Err(LinkError::Tls { node });
    }
    let made: Made = answer.error_for_status()?.json().await?;
    // Behind the sign that browsers keep to themselves: the code stands in no server's log.
    Ok(format!("http://{node}/#code={}", made.code))
}
