//! `playhouse saga`: which sagas there are, where one stands and why, and a nudge for one that needs help.

mod sentences;

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use proto::{
    saga::v1::{
        ExplainSagaRequest, ListSagasRequest, NudgeSagaRequest, SagaLink, SagaStage, SagaSummary, SagaWaiting,
        ShowSagaRequest, ShowSagaResponse,
    },
    telemetry::v1::SearchTracesRequest,
};
use serde_json::{Value, json};

use self::sentences::{ago, explained, traced};
use super::{
    client::Target,
    entity::parsed,
    failure::Failure,
    order::RequestId,
    output::{print_json, print_text, render, table},
    trace,
};

/// Traces of a saga that are named with its explanation.
const TRACES_MAX: u32 = 3;

/// List and explain sagas, and nudge one that needs help.
#[derive(Debug, Subcommand)]
pub(crate) enum Saga {
    /// List sagas of all shards.
    List(List),
    /// Show where a saga stands, with its state.
    Show(One),
    /// Say what a saga waits for, since when, what comes next, and what undo would do.
    Explain(One),
    /// Have what waits to be tried again tried now.
    Nudge(Nudge),
}

/// List sagas of all shards.
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only those in this state.
    #[arg(long)]
    state: Option<State>,
    /// Only of this kind, for example checkout.
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Only those that were started at least so long ago: a number and s, m, h or d.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    older_than: Option<u64>,
    /// At most so many.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Where a saga can stand.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Running,
    Undoing,
    /// Running or undoing, and in need of help.
    Stuck,
    Completed,
    Undone,
}

/// One saga.
#[derive(Debug, Args)]
pub(crate) struct One {
    /// Kind and id, for example checkout/42; or the id alone, where only one saga has it.
    #[arg(value_name = "ID")]
    saga: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Have what waits to be tried again tried now.
#[derive(Debug, Args)]
pub(crate) struct Nudge {
    /// Kind and id, for example checkout/42; or the id alone, where only one saga has it.
    #[arg(value_name = "ID")]
    saga: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    request: RequestId,
    #[command(flatten)]
    target: Target,
}

impl Saga {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => list.run().await,
            Self::Show(one) => one.show().await,
            Self::Explain(one) => one.explain().await,
            Self::Nudge(nudge) => nudge.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let state = self
            .state
            .and_then(|state| Some(state.to_possible_value()?.get_name().to_owned()));
        let mut message = ListSagasRequest {
            kind: self.kind.unwrap_or_default(),
            state: state.unwrap_or_default(),
            older_than_ms: self.older_than.unwrap_or_default(),
            limit: self.limit,
            page: String::new(),
        };
        let mut sagas: Vec<SagaSummary> = Vec::new();
        let is_whole = loop {
            message.limit = self.limit - sagas.len() as u32;
            if message.limit == 0 {
                break false;
            }
            let page = client.list_sagas(message.clone()).await?;
            sagas.extend(page.sagas);
            if page.next_page.is_empty() {
                break true;
            }
            message.page = page.next_page;
        };
        if self.json {
            let listed: Vec<Value> = sagas.iter().map(summary_json).collect();
            print_json(&json!({"sagas": listed, "is_whole": is_whole}));
        } else if sagas.is_empty() {
            print_text("no such saga");
        } else {
            let more = if is_whole { "" } else { "\nand more: see --limit" };
            print_text(&format!("{}{more}", list_text(&sagas)));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl One {
    async fn show(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let shown = client.show_saga(ShowSagaRequest { saga: self.saga }).await?;
        if self.json {
            print_json(&shown_json(&shown));
        } else {
            print_text(&shown_text(&shown));
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn explain(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let explanation = client.explain_saga(ExplainSagaRequest { saga: self.saga }).await?;
        let saga = explanation.saga.unwrap_or_default();
        let search = SearchTracesRequest {
            saga: saga
                .saga
                .as_ref()
                .map(|summary| summary.key.clone())
                .unwrap_or_default(),
            limit: TRACES_MAX,
            ..SearchTracesRequest::default()
        };
        // They tell more, but it is explained without them too.
        let traces = client.search_traces(search).await.unwrap_or_default().traces;
        let mut text = explained(&saga, explanation.now_unix_ms);
        text.extend(traced(&traces));
        if self.json {
            let mut value = shown_json(&saga);
            value["now_unix_ms"] = json!(explanation.now_unix_ms);
            value["sentences"] = json!(text);
            value["traces"] = traces.iter().map(trace::summary_json).collect();
            print_json(&value);
        } else {
            print_text(&text.join("\n"));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Nudge {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let message = NudgeSagaRequest { saga: self.saga };
        let nudged = client.nudge_saga(&self.request.get(), message).await?;
        if self.json {
            print_json(&json!({"key": nudged.key, "state": nudged.state}));
        } else {
            print_text(&format!(
                "{} tries again what waited for it; it is {}",
                nudged.key, nudged.state
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A time as a number and a unit, in milliseconds.
fn parse_time(text: &str) -> Result<u64, String> {
    let wrong = || "write it as a number and s, m, h or d, for example 5m".to_owned();
    let unit_ms = match text.chars().last().ok_or_else(wrong)? {
        's' => 1_000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return Err(wrong()),
    };
    let count: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    count.checked_mul(unit_ms).ok_or_else(wrong)
}

fn summary_json(saga: &SagaSummary) -> Value {
    json!({
        "key": saga.key, "state": saga.state, "stage": saga.stage, "waiting": saga.waiting, "reason": saga.reason,
        "problems": saga.problems, "started_unix_ms": saga.started_unix_ms, "since_unix_ms": saga.since_unix_ms,
    })
}

fn list_text(sagas: &[SagaSummary]) -> String {
    let mut rows = table(&[
        "saga",
        "state",
        "stage",
        ">waits for",
        "started",
        "there since",
        ">problems",
        "reason",
    ]);
    for saga in sagas {
        rows.add_row([
            saga.key.clone(),
            saga.state.clone(),
            saga.stage.clone(),
            saga.waiting.to_string(),
            ago(saga.started_unix_ms, now_ms()),
            ago(saga.since_unix_ms, now_ms()),
            saga.problems.to_string(),
            saga.reason.clone(),
        ]);
    }
    render(&rows)
}

fn shown_json(shown: &ShowSagaResponse) -> Value {
    let stages = |stages: &[SagaStage]| -> Vec<Value> { stages.iter().map(stage_json).collect() };
    let mut value = shown.saga.as_ref().map_or_else(|| json!({}), summary_json);
    value["version"] = json!(shown.version);
    value["round"] = json!(shown.round);
    value["waiting"] = shown.waiting.iter().map(waiting_json).collect();
    value["next"] = json!(stages(&shown.next));
    value["undo"] = json!(stages(&shown.undo));
    value["can_turn_back"] = json!(shown.can_turn_back);
    value["stage_deadline_unix_ms"] = json!(shown.stage_deadline_unix_ms);
    value["overall_deadline_unix_ms"] = json!(shown.overall_deadline_unix_ms);
    value["overdue"] = json!(shown.overdue);
    let problems = shown
        .problems
        .iter()
        .map(|p| json!({"step": p.step, "reason": p.reason}));
    value["problems"] = problems.collect();
    value["saga_state"] = parsed(&shown.state_json);
    value
}

fn waiting_json(step: &SagaWaiting) -> Value {
    json!({
        "step": step.step, "undo": step.undo, "target": step.target, "attempt": step.attempt,
        "attempts_max": step.attempts_max, "again_unix_ms": step.again_unix_ms, "failure": step.failure,
        "links": step.links.iter().map(link_json).collect::<Vec<_>>(),
    })
}

fn link_json(link: &SagaLink) -> Value {
    let timers = link
        .timers
        .iter()
        .map(|timer| json!({"name": timer.name, "due_unix_ms": timer.due_unix_ms}));
    json!({
        "from": link.from, "to": link.to, "to_service": link.to_service, "attempts": link.attempts,
        "waits_for": link.waits_for, "trouble": link.trouble, "retry_after_ms": link.retry_after_ms,
        "timers": timers.collect::<Vec<_>>(),
    })
}

fn stage_json(stage: &SagaStage) -> Value {
    let steps = stage
        .steps
        .iter()
        .map(|step| json!({"step": step.step, "target": step.target}));
    json!({
        "stage": stage.stage, "steps": steps.collect::<Vec<_>>(),
        "is_point_of_no_return": stage.is_point_of_no_return,
    })
}

fn shown_text(shown: &ShowSagaResponse) -> String {
    let saga = shown.saga.clone().unwrap_or_default();
    let mut rows = table(&["", "step", "asked", "try", "failed with"]);
    let mut add = |what: &str, step: &str, target: &str, attempt: String, failure: &str| {
        rows.add_row([
            what.to_owned(),
            step.to_owned(),
            target.to_owned(),
            attempt,
            failure.to_owned(),
        ]);
    };
    for step in &shown.waiting {
        let what = if step.undo { "undoes" } else { "waits for" };
        add(what, &step.step, &step.target, step.attempt.to_string(), &step.failure);
    }
    for (what, stages) in [("next", &shown.next), ("undo", &shown.undo)] {
        for step in stages.iter().flat_map(|stage| &stage.steps) {
            add(what, &step.step, &step.target, String::new(), "");
        }
    }
    for problem in &shown.problems {
        add("problem", &problem.step, "", String::new(), &problem.reason);
    }
    let steps = match rows.row_count() {
        0 => "nothing is left to do".to_owned(),
        _ => render(&rows),
    };
    let state = parsed(&shown.state_json);
    let state = serde_json::to_string_pretty(&state).unwrap_or_else(|_| state.to_string());
    let reason = if saga.reason.is_empty() {
        String::new()
    } else {
        format!("  because {}", saga.reason)
    };
    format!(
        "{}  {} at {}  version {}  round {}  started {}{reason}\n\n{steps}\n\n{state}",
        saga.key,
        saga.state,
        saga.stage,
        shown.version,
        shown.round,
        ago(saga.started_unix_ms, now_ms())
    )
}

fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_a_number_and_a_unit() {
        assert_eq!(parse_time("90s"), Ok(90_000));
        assert_eq!(parse_time("2d"), Ok(172_800_000));
        for wrong in ["", "5", "m", "-5m", "5 weeks", "99999999999999999d", "5ä"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn scripts_find_the_agreed_shape() {
        let shown = ShowSagaResponse {
            saga: Some(SagaSummary {
                key: "checkout/42".to_owned(),
                state: "running".to_owned(),
                ..SagaSummary::default()
            }),
            waiting: vec![SagaWaiting {
                step: "authorise".to_owned(),
                links: vec![SagaLink {
                    to: "payment-provider".to_owned(),
                    ..SagaLink::default()
                }],
                ..SagaWaiting::default()
            }],
            state_json: r#"{"phase":"Running"}"#.to_owned(),
            ..ShowSagaResponse::default()
        };
        let value = shown_json(&shown);
        assert_eq!(value["state"], "running");
        assert_eq!(value["waiting"][0]["links"][0]["to"], "payment-provider");
        assert_eq!(value["saga_state"]["phase"], "Running");
        assert!(
            shown_text(&shown).contains("waits for  authorise"),
            "{}",
            shown_text(&shown)
        );
    }
}
