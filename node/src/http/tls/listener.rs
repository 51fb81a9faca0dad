//! Connections that have got through their handshake.
//!
//! A handshake is a task of its own, so that a peer which says nothing holds up nobody else. It has little time, and where too many
//! are under way the oldest gives way: an honest one takes milliseconds.

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Tls, certificate};

/// How long a peer may take for its handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Handshakes under way.
const HANDSHAKES_MAX: usize = 512;
/// What is read of a request that came without TLS, so that closing does not cut off the answer.
const PLAIN_BYTES_MAX: usize = 4096;
/// The answer to it.
const PLAIN_MESSAGE: &str =
    "this port speaks TLS: open it with https://, and enter with a client certificate or a token";

/// The names of the certificate that the client of a connection has shown; none where it has shown none.
#[derive(Debug, Clone)]
pub(in crate::http) struct ClientNames(pub(in crate::http) Option<Arc<[String]>>);

impl Connected<IncomingStream<'_, TlsListener>> for ClientNames {
    fn connect_info(stream: IncomingStream<'_, TlsListener>) -> Self {
        let (_, tls) = stream.io().get_ref();
        let shown = tls.peer_certificates().and_then(<[_]>::first);
        Self(shown.map(|shown| certificate::names(shown).into()))
    }
}

/// Takes connections, does their handshakes and hands them on.
pub(in crate::http) struct TlsListener {
    tcp: TcpListener,
    tls: Tls,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
    /// The same in the order in which they began.
    under_way: VecDeque<AbortHandle>,
}

impl TlsListener {
    pub(in crate::http) fn new(tcp: TcpListener, tls: Tls) -> Self {
        Self {
            tcp,
            tls,
            handshakes: JoinSet::new(),
            under_way: VecDeque::new(),
        }
    }

    fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        self.under_way.retain(|handshake| !handshake.is_finished());
        if self.under_way.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.under_way.pop_front()
        {
            oldest.abort();
        }
        let acceptor = TlsAcceptor::from(self.tls.server());
        let handshake = async move {
            match timeout(HANDSHAKE_MAX, shake(stream, acceptor)).await {
                Ok(Ok(stream)) => Some((stream, peer)),
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "a TLS handshake failed");
                    None
                }
                Err(_) => {
                    tracing::debug!(%peer, "a TLS handshake took too long");
                    None
                }
            }
        };
        self.under_way.push_back(self.handshakes.spawn(handshake));
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            tokio::select! {
                (stream, peer) = Listener::accept(&mut self.tcp) => self.begin(stream, peer),
                Some(ended) = self.handshakes.join_next() => {
                    if let Ok(Some(ready)) = ended {
                        return ready;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

async fn shake(mut stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    // A handshake begins with 22; this is the beginning of a method.
    if first[0].is_ascii_uppercase() {
        answer_plain(&mut stream).await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a request without TLS"));
    }
    acceptor.accept(stream).await
}

async fn answer_plain(stream: &mut TcpStream) -> io::Result<()> {
    let _ = stream.read(&mut [0; PLAIN_BYTES_MAX]).await?;
    let body = serde_json::json!({ "code": "Bad Request", "message": PLAIN_MESSAGE }).to_string();
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}
