//! `playhouse top`: how the cluster is doing, on one screen that is told anew each second.
//!
//! [`view`] is what there is to see, made from what nodes say, as text for a pipe and as JSON for a script; [`screen`] draws it.

mod screen;
mod view;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Duration,
};

use clap::Args;
use proto::{cluster::v1::StatusRequest, saga::v1::ListSagasRequest, telemetry::v1::SeriesRequest};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::time::sleep;

use self::view::View;
use super::{
    client::{CallError, Client, Target},
    failure::Failure,
    output::{print_json, print_text},
};

/// Between two looks, in seconds.
const LOOK_DEFAULT_S: f64 = 1.0;
/// What the curves show.
const SHOWN_MS: u64 = 120_000;
/// Sagas that need help are counted up to here.
const STUCK_MAX: u32 = 100;
/// Between two looks at the keyboard.
const KEYS_POLL: Duration = Duration::from_millis(50);

/// Show how the cluster is doing, full screen, told anew each second; one look where the output is piped.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Seconds between two looks.
    #[arg(long, value_name = "S", default_value_t = LOOK_DEFAULT_S, value_parser = parse_seconds)]
    every: f64,
    /// Look once, print it, and end.
    #[arg(long)]
    once: bool,
    /// Look once, as one line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.2..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("it goes from 0.2 to 60 seconds".to_owned()),
    }
}

/// What a key says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Leave,
    Hold,
    Redraw,
}

impl Top {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        if self.json || self.once || !io::stdout().is_terminal() {
            let view = look(&client).await?;
            if self.json {
                print_json(&view.json());
            } else {
                print_text(&view.text());
            }
            return Ok(ExitCode::SUCCESS);
        }
        let mut terminal = ratatui::try_init().map_err(|error| {
            Failure::no(format!("the screen cannot be used: {error}")).help("try `playhouse top --once`")
        })?;
        let ended = self.show(&client, &mut terminal).await;
        ratatui::restore();
        ended
    }

    /// Until somebody leaves. What cannot be had is told on the screen, above what was seen last.
    async fn show(&self, client: &Client, terminal: &mut ratatui::DefaultTerminal) -> Result<ExitCode, Failure> {
        let keys = listen().map_err(|error| Failure::no(format!("the keyboard cannot be read: {error}")))?;
        let mut view = View::default();
        let mut is_held = false;
        let failed = |error: io::Error| Failure::no(format!("the screen cannot be drawn: {error}"));
        loop {
            if !is_held {
                match look(client).await {
                    Ok(seen) => view = seen,
                    Err(error) => view.trouble = Some(error.to_string()),
                }
            }
            terminal
                .draw(|frame| screen::draw(frame, &view, is_held))
                .map_err(failed)?;
            let mut waited = Duration::ZERO;
            while waited < Duration::from_secs_f64(self.every) {
                match keys.try_recv() {
                    Ok(Key::Leave) | Err(mpsc::TryRecvError::Disconnected) => return Ok(ExitCode::SUCCESS),
                    Ok(Key::Hold) => is_held = !is_held,
                    Ok(Key::Redraw) => {}
                    Err(mpsc::TryRecvError::Empty) => {
                        sleep(KEYS_POLL).await;
                        waited += KEYS_POLL;
                        continue;
                    }
                }
                terminal
                    .draw(|frame| screen::draw(frame, &view, is_held))
                    .map_err(failed)?;
            }
        }
    }
}

async fn look(client: &Client) -> Result<View, CallError> {
    let status = client.status(StatusRequest {}).await?;
    let series = client
        .series(SeriesRequest {
            since_unix_ms: unix_ms().saturating_sub(SHOWN_MS),
            ..SeriesRequest::default()
        })
        .await?;
    let stuck = client
        .list_sagas(ListSagasRequest {
            state: "stuck".to_owned(),
            limit: STUCK_MAX,
            ..ListSagasRequest::default()
        })
        .await?;
    Ok(View::of(&status, &series, stuck.sagas.len()))
}

fn unix_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as u64)
}

/// Reads the keyboard on a thread of its own, which ends with the program.
fn listen() -> io::Result<mpsc::Receiver<Key>> {
    let (sender, keys) = mpsc::channel();
    thread::Builder::new().name("keyboard".into()).spawn(move || {
        while let Ok(event) = event::read() {
            let said = match event {
                Event::Key(key) if key.kind == KeyEventKind::Release => continue,
                Event::Key(key) if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') => {
                    Key::Leave
                }
                Event::Key(key) => match key.code {
                    KeyCode::Char('q') | KeyCode::Esc => Key::Leave,
                    KeyCode::Char(' ' | 'p') => Key::Hold,
                    _ => continue,
                },
                Event::Resize(..) => Key::Redraw,
                _ => continue,
            };
            if sender.send(said).is_err() {
                return;
            }
        }
    })?;
    Ok(keys)
}
