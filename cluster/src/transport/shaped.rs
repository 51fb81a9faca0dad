//! Connections to peers that can be cut and slowed, byte by byte, as a network would: what is cut stands still until it is healed
//! or HTTP/2 gives the connection up, and no new one comes about. Used only where [`crate::Config::chaos`] allows faults.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep, sleep_until},
};
use tonic::{codegen::Service, transport::Uri};

use crate::{
    config::NodeId,
    faults::{Faults, LOST_FOR, LinkState},
};

/// How often a connection that is cut looks whether it still is.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Bytes of one connection that may be on a slow way.
const WAITING_BYTES_MAX: usize = 1 << 20;

/// Opens connections to one peer.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) peer: NodeId,
    pub(super) address: SocketAddr,
    pub(super) faults: Arc<Faults>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Shaped>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Shaped>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { peer, address, faults } = self.clone();
        Box::pin(async move {
            // Whoever asked for the connection has a limit to its patience.
            while faults.link(peer).is_cut() {
                sleep(LOOK_INTERVAL).await;
            }
            let io = TcpStream::connect(address).await?;
            io.set_nodelay(true)?;
            Ok(TokioIo::new(Shaped {
                io,
                peer,
                faults,
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                timer: None,
            }))
        })
    }
}

/// One connection to a peer.
pub(super) struct Shaped {
    io: TcpStream,
    peer: NodeId,
    faults: Arc<Faults>,
    /// What is on a slow way, and when it arrives.
    waiting: VecDeque<(Instant, Bytes)>,
    waiting_bytes: usize,
    /// Wakes the connection when there is something to do although nothing came.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Shaped {
    fn state(&self) -> LinkState {
        self.faults.link(self.peer)
    }

    fn wake_at(&mut self, at: Instant, context: &mut Context<'_>) {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.is_elapsed() || timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        if timer.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }

    fn look_again_soon(&mut self, context: &mut Context<'_>) {
        self.wake_at(Instant::now() + LOOK_INTERVAL, context);
    }

    /// Takes a piece on the slow way. What was sent earlier arrives earlier.
    fn take(&mut self, piece: &[u8], state: LinkState) {
        let is_lost = state.loss_percent > 0 && rand::random_range(0..100) < state.loss_percent;
        let late = state.delay + if is_lost { LOST_FOR } else { Duration::ZERO };
        let after = self.waiting.back().map(|(arrives, _)| *arrives);
        let arrives = (Instant::now() + late).max(after.unwrap_or_else(Instant::now));
        self.waiting_bytes += piece.len();
        self.waiting.push_back((arrives, Bytes::copy_from_slice(piece)));
    }

    /// Hands on what has been on its way long enough.
    fn hand_on(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while let Some((arrives, piece)) = self.waiting.front_mut() {
            let arrives = *arrives;
            if arrives > Instant::now() {
                self.wake_at(arrives, context);
                break;
            }
            match Pin::new(&mut self.io).poll_write(context, piece) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    piece.advance(written);
                    let is_all = piece.is_empty();
                    self.waiting_bytes -= written;
                    if is_all {
                        self.waiting.pop_front();
                    }
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Nothing was ever wrong here, or no more.
    fn is_plain(&self) -> bool {
        self.faults.is_quiet() && self.waiting.is_empty()
    }
}

impl AsyncRead for Shaped {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_plain() {
            let state = this.state();
            // A connection is always read from, so this is where slow pieces are seen to when nothing else is sent.
            if !state.cut_out {
                this.hand_on(context)?;
            }
            if state.is_cut() {
                this.look_again_soon(context);
            }
            if state.cut_in {
                return Poll::Pending;
            }
        }
        Pin::new(&mut this.io).poll_read(context, buffer)
    }
}

impl AsyncWrite for Shaped {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_plain() {
            return Pin::new(&mut this.io).poll_write(context, piece);
        }
        let state = this.state();
        if state.cut_out {
            this.look_again_soon(context);
            return Poll::Pending;
        }
        if !state.is_slow() && this.waiting.is_empty() {
            return Pin::new(&mut this.io).poll_write(context, piece);
        }
        if this.waiting_bytes >= WAITING_BYTES_MAX {
            this.hand_on(context)?;
            if this.waiting_bytes >= WAITING_BYTES_MAX {
                // `hand_on` has seen to it that this is woken.
                return Poll::Pending;
            }
        }
        this.take(piece, state);
        this.hand_on(context)?;
        Poll::Ready(Ok(piece.len()))
    }

    /// What is on a slow way counts as sent, or it would be slow one piece after the other.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.is_plain() {
            if this.state().cut_out {
                this.look_again_soon(context);
                return Poll::Ready(Ok(()));
            }
            this.hand_on(context)?;
        }
        ready!(Pin::new(&mut this.io).poll_flush(context))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::timeout,
    };

    use super::*;
    use crate::faults::{Direction, Fault};

    const LONG: Duration = Duration::from_mins(1);
    const SHORT: Duration = Duration::from_millis(60);

    async fn pair() -> (TokioIo<Shaped>, TcpStream, Connector, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut connector = Connector {
            peer: 2,
            address: listener.local_addr().expect("bound"),
            faults: Arc::default(),
        };
        let uri = Uri::from_static("http://peer");
        let (ours, theirs) = tokio::join!(connector.call(uri), listener.accept());
        (
            ours.expect("connected"),
            theirs.expect("accepted").0,
            connector,
            listener,
        )
    }

    async fn read(io: &mut (impl AsyncRead + Unpin)) -> Option<u8> {
        timeout(SHORT, io.read_u8()).await.ok().map(|read| read.expect("open"))
    }

    #[tokio::test]
    async fn what_is_cut_stands_still_and_goes_on_when_it_is_healed() {
        let (ours, mut theirs, connector, _listener) = pair().await;
        let mut ours = ours.into_inner();
        let faults = connector.faults;
        let cut = |direction| Fault::Cut { peer: 2, direction };
        faults.set(cut(Direction::In), LONG).expect("set");
        theirs.write_all(&[1]).await.expect("sent");
        assert_eq!(read(&mut ours).await, None, "nothing comes in");
        ours.write_all(&[2]).await.expect("sent");
        assert_eq!(read(&mut theirs).await, Some(2), "what goes out does");
        faults.clear();
        assert_eq!(read(&mut ours).await, Some(1), "nothing is lost");
        faults.set(cut(Direction::Out), LONG).expect("set");
        assert!(timeout(SHORT, ours.write_all(&[3])).await.is_err(), "nothing goes out");
        theirs.write_all(&[4]).await.expect("sent");
        assert_eq!(read(&mut ours).await, Some(4));
    }

    #[tokio::test]
    async fn no_connection_comes_about_while_it_is_cut() {
        let (_ours, _theirs, mut connector, _listener) = pair().await;
        let cut = Fault::Cut {
            peer: 2,
            direction: Direction::Out,
        };
        connector.faults.set(cut, LONG).expect("set");
        let uri = Uri::from_static("http://peer");
        assert!(timeout(SHORT, connector.call(uri.clone())).await.is_err());
        connector.faults.clear();
        assert!(connector.call(uri).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_slow_comes_late_and_in_order() {
        let (ours, mut theirs, connector, _listener) = pair().await;
        let mut ours = ours.into_inner();
        let slow = Fault::SlowLink {
            peer: 2,
            delay: Duration::from_millis(120),
            loss_percent: 0,
        };
        connector.faults.set(slow, LONG).expect("set");
        let begun = Instant::now();
        ours.write_all(&[1, 2]).await.expect("taken");
        connector.faults.clear();
        ours.write_all(&[3]).await.expect("taken");
        let mut got = [0; 3];
        // Somebody has to drive the connection; in HTTP/2 that is whoever reads from it.
        tokio::select! {
            read = theirs.read_exact(&mut got) => drop(read.expect("it comes")),
            _ = ours.read_u8() => panic!("nothing was sent here"),
        }
        assert_eq!(got, [1, 2, 3]);
        assert!(begun.elapsed() >= Duration::from_millis(120));
    }
}
