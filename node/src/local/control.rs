//! The socket through which other terminals reach a running launcher. One line of JSON each way.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::layout::{LocalCluster, make_control_folder};
use crate::cli::Failure;

/// The longest line either side accepts.
const LINE_BYTES_MAX: u64 = 4_096;
/// How long an order may take: a clean stop and a start.
const ORDER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a client may take to say what it wants.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// Orders that may wait.
const ORDERS_LEN_MAX: usize = 8;

/// What can be done to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Pause,
    /// SIGCONT.
    Resume,
    /// A clean stop if it runs, and a start.
    Restart,
    /// A start, unless it runs. One that is stopped goes on.
    Start,
    /// SIGKILL, and everything that it kept is deleted.
    Wipe,
    /// One more node, whose number the launcher chooses.
    Join,
    /// A clean stop of a node that has left the cluster.
    Forget,
    /// A link that lets a browser into the console of any node, once.
    Console,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    order: Order,
    node: u8,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// The node's number.
    pub(crate) node: u8,
    /// The process it was done to, or that was started.
    pub(crate) pid: u32,
    /// Where the node listens.
    pub(crate) grpc: String,
    /// What was asked for; empty for all else.
    #[serde(default)]
    pub(crate) link: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Done(Done),
    Refused(String),
}

/// An order that waits for the launcher.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) order: Order,
    pub(crate) node: u8,
    answer: oneshot::Sender<Answer>,
}

impl Pending {
    /// Answers who asked.
    pub(crate) fn answer(self, result: Result<Done, String>) {
        // The asker may have gone; the order was carried out all the same.
        let _ = self.answer.send(match result {
            Ok(done) => Answer::Done(done),
            Err(reason) => Answer::Refused(reason),
        });
    }
}

/// The launcher's side. The socket file goes with it.
#[derive(Debug)]
pub(crate) struct Control {
    path: PathBuf,
    orders: mpsc::Receiver<Pending>,
}

impl Control {
    /// Listens. A socket that a dead launcher left behind is replaced.
    pub(crate) async fn listen(path: &Path) -> io::Result<Self> {
        make_control_folder()?;
        if UnixStream::connect(path).await.is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another `playhouse up` uses this base port",
            ));
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        let (sender, orders) = mpsc::channel(ORDERS_LEN_MAX);
        tokio::spawn(accept(listener, sender));
        Ok(Self {
            path: path.to_owned(),
            orders,
        })
    }

    /// The next order.
    pub(crate) async fn next(&mut self) -> Option<Pending> {
        self.orders.recv().await
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, sender: mpsc::Sender<Pending>) {
    while let Ok((stream, _)) = listener.accept().await {
        let sender = sender.clone();
        tokio::spawn(async move {
            // A client that says nothing or nonsense gets no answer, and the launcher goes on.
            let _ = serve(stream, sender).await;
        });
    }
}

async fn serve(stream: UnixStream, sender: mpsc::Sender<Pending>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let line = timeout(ASK_TIMEOUT, read_line(read))
        .await
        .map_err(io::Error::other)??;
    let ask: Ask = serde_json::from_str(&line)?;
    let (answer, answered) = oneshot::channel();
    let pending = Pending {
        order: ask.order,
        node: ask.node,
        answer,
    };
    sender.send(pending).await.map_err(io::Error::other)?;
    let answer = answered.await.map_err(io::Error::other)?;
    write
        .write_all(format!("{}\n", serde_json::to_string(&answer)?).as_bytes())
        .await
}

async fn read_line(read: impl tokio::io::AsyncRead + Unpin) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(read.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    Ok(line)
}

/// The other terminal's side: has the launcher of this cluster carry the order out.
pub(crate) async fn send(cluster: &LocalCluster, order: Order, node: u8) -> Result<Done, Failure> {
    let path = cluster.control_socket()?;
    let asked = timeout(ORDER_TIMEOUT, ask(&path, &Ask { order, node })).await;
    match asked {
        Ok(Ok(Answer::Done(done))) => Ok(done),
        Ok(Ok(Answer::Refused(reason))) => Err(Failure::no(reason)),
        Ok(Err(error)) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            let which = match &cluster.data {
                Some(data) => format!("in {}", data.display()),
                None => format!("with base port {}", cluster.base_port),
            };
            Err(Failure::unreachable(format!("no `playhouse up` runs {which}"))
                .help("start one with `playhouse up`, or name the right one with `--base-port` or `--data`"))
        }
        Ok(Err(error)) => Err(Failure::unreachable(format!("the launcher gave no answer: {error}"))),
        Err(_) => Err(Failure::unreachable(format!(
            "the launcher did not answer within {ORDER_TIMEOUT:?}"
        ))),
    }
}

/// The side of a node: has the launcher that listens at this socket carry an order out, or say why not.
pub(crate) async fn carry_out(path: &Path, order: Order, node: u8) -> io::Result<Result<Done, String>> {
    let asked = timeout(ORDER_TIMEOUT, ask(path, &Ask { order, node })).await;
    Ok(match asked.map_err(io::Error::other)?? {
        Answer::Done(done) => Ok(done),
        Answer::Refused(reason) => Err(reason),
    })
}

async fn ask(path: &Path, ask: &Ask) -> io::Result<Answer> {
    let (read, mut write) = UnixStream::connect(path).await?.into_split();
    write
        .write_all(format!("{}\n", serde_json::to_string(ask)?).as_bytes())
        .await?;
    let line = read_line(read).await?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended"));
    }
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn orders_reach_the_launcher_and_answers_come_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("7000.sock");
        let mut control = Control::listen(&path).await.expect("listens");
        assert!(Control::listen(&path).await.is_err(), "the path is in use");

        let kill = Ask {
            order: Order::Kill,
            node: 2,
        };
        let launcher = async {
            let pending = control.next().await.expect("an order");
            assert_eq!((pending.order, pending.node), (Order::Kill, 2));
            pending.answer(Ok(Done {
                node: 2,
                pid: 7,
                grpc: "127.0.0.1:7002".to_owned(),
                link: String::new(),
            }));
            let pending = control.next().await.expect("an order");
            pending.answer(Err("there is no node 2".to_owned()));
        };
        let other = async {
            let first = ask(&path, &kill).await.expect("an answer");
            assert!(matches!(first, Answer::Done(Done { pid: 7, .. })));
            let second = ask(&path, &kill).await.expect("an answer");
            assert!(matches!(second, Answer::Refused(reason) if reason == "there is no node 2"));
        };
        tokio::join!(launcher, other);

        drop(control);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn without_a_launcher_the_failure_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let error = ask(
            &folder.path().join("none.sock"),
            &Ask {
                order: Order::Kill,
                node: 1,
            },
        )
        .await;
        assert_eq!(error.expect_err("nobody listens").kind(), io::ErrorKind::NotFound);
    }
}
