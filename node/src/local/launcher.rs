//! Owns the processes of a local cluster from start to stop. One loop, on the main thread: orders from other
//! terminals, children that end, and signals.

use std::{
    collections::BTreeMap,
    env, fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use futures::future::join_all;
use tokio::{
    net::TcpStream,
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep},
};

use super::{
    control::{Control, Done, Order, Pending},
    layout::{Layout, control_socket},
    process::Process,
    ready::{Probe, Progress},
    state::{NodeState, ProviderState, State},
};
use crate::{cli::Failure, http::link};

/// How long the cluster may take to serve.
const READY_TIMEOUT: Duration = Duration::from_mins(2);
/// Between two looks at how far the nodes are.
const READY_POLL: Duration = Duration::from_millis(25);
/// How long a node may take to stop cleanly before it is killed.
pub(super) const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a restarted node may take until it accepts connections.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(15);
/// Children of a launcher that was killed end a moment after it, and their ports become free then.
const PORT_FREE_TIMEOUT: Duration = Duration::from_secs(2);
/// Children that ended are looked for this often even without a signal.
const CHILD_POLL: Duration = Duration::from_millis(500);

/// A local cluster and the right to use its folder.
pub(crate) struct Launcher {
    pub(super) layout: Layout,
    pub(super) program: PathBuf,
    pub(super) nodes: BTreeMap<u8, Process>,
    provider: Process,
    control: Control,
    signals: Signals,
    /// Held, never read: the lock ends with it.
    _lock: fs::File,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    child: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            child: signal(SignalKind::child())?,
        })
    }

    /// Ctrl-C, SIGTERM, or the terminal has gone.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Whether to stop, as soon as any signal comes.
    async fn any(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => true,
            _ = self.hangup.recv() => true,
            _ = self.child.recv() => false,
        }
    }
}

impl Launcher {
    /// Takes the folder and the ports, writes configurations and starts every process.
    pub(crate) async fn start(layout: Layout) -> Result<Self, Failure> {
        let in_folder =
            |error: io::Error| Failure::usage(format!("the folder {} cannot be used: {error}", layout.data.display()));
        fs::create_dir_all(&layout.data).map_err(in_folder)?;
        let lock = take_lock(&layout)?;
        check_ports(&layout).await?;
        layout.write_configs().map_err(in_folder)?;
        let socket = control_socket(layout.base_port);
        let control = Control::listen(&socket).await.map_err(|error| {
            Failure::usage(format!(
                "the control socket {} cannot be used: {error}",
                socket.display()
            ))
        })?;
        let signals = Signals::listen().map_err(|error| Failure::no(format!("signals cannot be caught: {error}")))?;
        // Asked once, at the start: a build that replaces the file later must not take it from under a restart.
        let program = env::current_exe()
            .map_err(|error| Failure::no(format!("this program's own file cannot be found: {error}")))?;
        let mut launcher = Self {
            nodes: layout
                .node_ids()
                .map(|id| (id, node_process(&layout, &program, id)))
                .collect(),
            provider: provider_process(&layout, &program),
            program,
            layout,
            control,
            signals,
            _lock: lock,
        };
        launcher.start_all()?;
        Ok(launcher)
    }

    fn start_all(&mut self) -> Result<(), Failure> {
        for process in std::iter::once(&mut self.provider).chain(self.nodes.values_mut()) {
            process
                .start()
                .map_err(|error| Failure::no(format!("{} cannot be started: {error}", process.name)))?;
        }
        self.save()
    }

    /// Waits until every node serves; false when a signal came first. `show` hears how far each node is.
    pub(crate) async fn ready(&mut self, mut show: impl FnMut(&[Progress])) -> Result<bool, Failure> {
        let probes: Vec<Probe> = self
            .layout
            .node_ids()
            .map(|id| Probe::new(self.layout.node_address(id), self.layout.shards))
            .collect();
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            for process in std::iter::once(&mut self.provider).chain(self.nodes.values_mut()) {
                if let Some(status) = process.ended() {
                    return Err(ended_early(process, status));
                }
            }
            let progress = tokio::select! {
                progress = join_all(probes.iter().map(Probe::progress)) => progress,
                () = self.signals.stop() => return Ok(false),
            };
            show(&progress);
            if progress.iter().all(|p| *p == Progress::Ready) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Err(
                    Failure::no(format!("the cluster does not serve after {READY_TIMEOUT:?}"))
                        .help(format!("look at the logs in {}", self.layout.data.display())),
                );
            }
            sleep(READY_POLL).await;
        }
    }

    /// Carries out orders and watches the children until Ctrl-C or SIGTERM.
    pub(crate) async fn serve(&mut self) {
        loop {
            tokio::select! {
                stop = self.signals.any() => if stop {
                    return;
                },
                Some(pending) = self.control.next() => self.carry_out(pending).await,
                () = sleep(CHILD_POLL) => {}
            }
            self.notice_ended();
        }
    }

    /// Stops everything: nodes first, so that the provider is there for what they still have under way. A second
    /// signal ends the patience.
    pub(crate) async fn stop(&mut self) {
        for node in self.nodes.values_mut() {
            report(node.ask_to_end(), "stop", &node.name);
        }
        tokio::select! {
            _ = join_all(self.nodes.values_mut().map(|node| node.end_within(STOP_TIMEOUT))) => {}
            () = self.signals.stop() => {}
        }
        report(self.provider.ask_to_end(), "stop", &self.provider.name);
        tokio::select! {
            _ = self.provider.end_within(STOP_TIMEOUT) => {}
            () = self.signals.stop() => {}
        }
        for process in std::iter::once(&mut self.provider).chain(self.nodes.values_mut()) {
            report(process.kill().await, "kill", &process.name);
        }
        let state = State {
            pid: None,
            ..self.state()
        };
        report(state.write(&self.layout.data), "save", "the state");
    }

    /// What runs.
    pub(crate) fn state(&self) -> State {
        let nodes = self
            .nodes
            .iter()
            .map(|(id, process)| (*id, process))
            .map(|(id, process)| NodeState {
                id,
                pid: process.pid(),
                grpc: self.layout.node_address(id).to_string(),
                http: self.layout.http_address(id).to_string(),
                data: self.layout.node_data(id),
                log: process.log().to_owned(),
            });
        State {
            pid: Some(std::process::id()),
            base_port: self.layout.base_port,
            shards: self.layout.shards,
            control: control_socket(self.layout.base_port),
            nodes: nodes.collect(),
            provider: ProviderState {
                pid: self.provider.pid(),
                http: self.layout.provider_url(),
                log: self.provider.log().to_owned(),
            },
        }
    }

    fn save(&self) -> Result<(), Failure> {
        self.state().write(&self.layout.data).map_err(|error| {
            Failure::usage(format!(
                "the folder {} cannot be written: {error}",
                self.layout.data.display()
            ))
        })
    }

    fn notice_ended(&mut self) {
        let mut any = false;
        for process in std::iter::once(&mut self.provider).chain(self.nodes.values_mut()) {
            if let Some(status) = process.ended() {
                any = true;
                eprintln!(
                    "{} ended: {status}; its log is {}",
                    process.name,
                    process.log().display()
                );
            }
        }
        if any && let Err(failure) = self.save() {
            eprintln!("{failure}");
        }
    }

    async fn carry_out(&mut self, pending: Pending) {
        // What ended meanwhile must not be taken for running.
        self.notice_ended();
        let result = match pending.order {
            Order::Join => self.add_node().await,
            Order::Forget => self.forget_node(pending.node).await,
            Order::Console => self.console().await,
            Order::Kill | Order::Pause | Order::Resume | Order::Restart | Order::Start | Order::Wipe => {
                self.do_to_node(pending.order, pending.node).await
            }
        };
        if let Err(failure) = self.save() {
            eprintln!("{failure}");
        }
        pending.answer(result);
    }

    async fn do_to_node(&mut self, order: Order, node: u8) -> Result<Done, String> {
        let address = self.layout.node_address(node);
        let process = self
            .nodes
            .get_mut(&node)
            .ok_or_else(|| no_such_node(&self.layout, node))?;
        let failed = |error: io::Error| format!("node {node}: {error}");
        let running = process.pid();
        let pid = match order {
            Order::Start if running.is_some() => {
                process.set_paused(false).map_err(failed)?;
                running
            }
            Order::Wipe => {
                process.kill().await.map_err(failed)?;
                remove_all(&self.layout.node_data(node)).map_err(failed)?;
                running
            }
            Order::Restart | Order::Start => {
                if running.is_some() {
                    process.ask_to_end().map_err(failed)?;
                    process.end_within(STOP_TIMEOUT).await.map_err(failed)?;
                }
                process.start().map_err(failed)?;
                let pid = process.pid();
                wait_until_it_accepts(process, address).await?;
                pid
            }
            _ if running.is_none() => {
                return Err(format!(
                    "node {node} does not run; start it with `playhouse restart {node}`"
                ));
            }
            Order::Kill => {
                process.kill().await.map_err(failed)?;
                eprintln!("node {node} was killed; start it again with `playhouse restart {node}`");
                running
            }
            _ => {
                process.set_paused(order == Order::Pause).map_err(failed)?;
                running
            }
        };
        Ok(Done {
            node,
            pid: pid.unwrap_or_default(),
            grpc: address.to_string(),
            link: String::new(),
        })
    }

    /// A link into the console, at the first node that makes one.
    pub(crate) async fn console(&self) -> Result<Done, String> {
        let mut reason = "no node runs; start one with `playhouse restart N`".to_owned();
        for (node, process) in &self.nodes {
            let Some(pid) = process.pid() else { continue };
            match link::make(self.layout.http_address(*node), &self.layout.token).await {
                Ok(link) => {
                    return Ok(Done {
                        node: *node,
                        pid,
                        grpc: self.layout.node_address(*node).to_string(),
                        link,
                    });
                }
                Err(error) => reason = format!("node {node} makes no link: {error}"),
            }
        }
        Err(reason)
    }
}

fn remove_all(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn no_such_node(layout: &Layout, node: u8) -> String {
    let nodes: Vec<String> = layout.node_ids().map(|id| id.to_string()).collect();
    format!(
        "there is no node {node}: this cluster has the nodes {}",
        nodes.join(", ")
    )
}

pub(super) fn node_process(layout: &Layout, program: &Path, id: u8) -> Process {
    let config = layout.config_path(id).display().to_string();
    let arguments = vec!["node".to_owned(), "--config".to_owned(), config];
    Process::new(format!("node {id}"), program, arguments, layout.node_log(id))
}

fn provider_process(layout: &Layout, program: &Path) -> Process {
    let listen = layout.provider_address().to_string();
    let data = layout.provider_data().join("ledger.jsonl").display().to_string();
    let nodes: Vec<String> = layout
        .node_ids()
        .map(|id| layout.node_address(id).to_string())
        .collect();
    let arguments = [
        "provider",
        "--listen",
        &listen,
        "--data",
        &data,
        "--spans-to",
        &nodes.join(","),
    ]
    .map(str::to_owned)
    .to_vec();
    Process::new("the payment provider", program, arguments, layout.provider_log())
}

fn take_lock(layout: &Layout) -> Result<fs::File, Failure> {
    let path = layout.lock_path();
    let unusable = |error: io::Error| Failure::usage(format!("{} cannot be locked: {error}", path.display()));
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Failure::usage(format!(
            "the folder {} is in use by a running `playhouse up`{}",
            layout.data.display(),
            launcher_of(&layout.data)
        ))
        .help("stop that one first, or choose another folder with `--data` and other ports with `--base-port`")),
        Err(fs::TryLockError::Error(error)) => Err(unusable(error)),
    }
}

fn launcher_of(data: &Path) -> String {
    match State::read(data) {
        Ok(Some(State {
            pid: Some(pid),
            base_port,
            ..
        })) => format!(" (pid {pid}, base port {base_port})"),
        _ => String::new(),
    }
}

async fn check_ports(layout: &Layout) -> Result<(), Failure> {
    let wanted = layout
        .node_ids()
        .flat_map(|id| [layout.node_address(id), layout.http_address(id)])
        .chain([layout.provider_address()]);
    let deadline = Instant::now() + PORT_FREE_TIMEOUT;
    for address in wanted {
        while let Err(error) = TcpListener::bind(address) {
            if Instant::now() > deadline {
                return Err(
                    Failure::usage(format!("port {} cannot be used: {error}", address.port()))
                        .help("end what listens there, or choose other ports with `--base-port`"),
                );
            }
            sleep(READY_POLL).await;
        }
    }
    Ok(())
}

async fn wait_until_it_accepts(process: &mut Process, address: std::net::SocketAddr) -> Result<(), String> {
    let deadline = Instant::now() + ACCEPT_TIMEOUT;
    while TcpStream::connect(address).await.is_err() {
        if let Some(status) = process.ended() {
            return Err(format!(
                "{} ended at once: {status}\n{}",
                process.name,
                process.log_tail()
            ));
        }
        if Instant::now() > deadline {
            return Err(format!(
                "{} does not listen on {address} after {ACCEPT_TIMEOUT:?}",
                process.name
            ));
        }
        sleep(READY_POLL).await;
    }
    Ok(())
}

fn ended_early(process: &Process, status: ExitStatus) -> Failure {
    Failure::no(format!(
        "{} ended before it was ready: {status}\n{}",
        process.name,
        process.log_tail()
    ))
    .help(format!("the whole log is {}", process.log().display()))
}

fn report(result: io::Result<()>, what: &str, name: &str) {
    if let Err(error) = result {
        eprintln!("cannot {what} {name}: {error}");
    }
}
