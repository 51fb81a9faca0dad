//! A saga explained in plain sentences. Pure.

use proto::{
    saga::v1::{SagaLink, SagaStage, SagaStep, SagaSummary, SagaWaiting, ShowSagaResponse},
    telemetry::v1::TraceSummary,
};

/// Steps that are named one by one; of more, the number is said.
const NAMED_MAX: usize = 6;

/// Where it can be seen what was done for a saga, and when; nothing if no trace of it is kept.
pub(super) fn traced(traces: &[TraceSummary]) -> Option<String> {
    let each: Vec<String> = (traces.iter())
        .map(|trace| match trace.errors {
            0 => trace.trace_id.clone(),
            errors => format!("{} with {errors} failures", trace.trace_id),
        })
        .collect();
    let newest = &traces.first()?.trace_id;
    let named = each.join(", ");
    Some(match traces.len() {
        1 => format!("Its trace is {named}: `playhouse trace show {newest}`."),
        _ => format!("Its traces, the newest first, are {named}: `playhouse trace show {newest}`."),
    })
}

/// What a saga waits for, since when, what comes next, what undo would do, and its deadlines; a sentence or a few each.
pub(super) fn explained(saga: &ShowSagaResponse, now_ms: u64) -> Vec<String> {
    let summary = saga.saga.clone().unwrap_or_default();
    let mut text = vec![standing(&summary, saga.round, now_ms)];
    if !summary.reason.is_empty() {
        text.push(format!("It turned back because of {}.", summary.reason));
    }
    text.extend(saga.waiting.iter().take(NAMED_MAX).map(|step| waiting(step, now_ms)));
    if let Some(more) = saga.waiting.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        text.push(format!("It waits for {more} more steps of this stage."));
    }
    if summary.state == "stuck" {
        let key = &summary.key;
        text.push(format!(
            "It needs help: what is tried for ever has failed too often. Mend the cause; `playhouse saga nudge {key}` tries it \
             at once."
        ));
    }
    if !saga.next.is_empty() {
        text.push(format!("After that comes {}.", stages(&saga.next)));
    }
    text.extend(undo(saga, &summary));
    text.extend(deadlines(saga, now_ms));
    if !saga.overdue.is_empty() {
        let overdue = listed(saga.overdue.iter().cloned());
        text.push(format!(
            "The answer of {overdue} may still come; it is undone once more then."
        ));
    }
    for problem in &saga.problems {
        text.push(format!("{} could not be done: {}.", problem.step, problem.reason));
    }
    text
}

fn standing(saga: &SagaSummary, round: u32, now_ms: u64) -> String {
    let started = ago(saga.started_unix_ms, now_ms);
    let since = ago(saga.since_unix_ms, now_ms);
    let key = &saga.key;
    match saga.state.as_str() {
        "completed" => format!("{key} is completed since {since}. It was started {started}."),
        "undone" => format!("{key} is undone since {since}. It was started {started}."),
        state => {
            let round = if round > 1 {
                format!(" This is round {round}.")
            } else {
                String::new()
            };
            format!(
                "{key} is {state}, at {} since {since}. It was started {started}.{round}",
                saga.stage
            )
        }
    }
}

fn waiting(step: &SagaWaiting, now_ms: u64) -> String {
    let what = if step.undo { "the undo of " } else { "" };
    let (name, target) = (&step.step, &step.target);
    let tries = match step.attempts_max {
        0 if step.attempt > 1 => format!(" It is tried until it is done; this is try {}.", step.attempt),
        max if max > 1 => format!(" This is try {} of {max}.", step.attempt),
        _ => String::new(),
    };
    let failure = if step.failure.is_empty() {
        String::new()
    } else {
        format!(" The try before failed: {}.", step.failure)
    };
    let how = if step.again_unix_ms > 0 {
        format!(
            "It waits to ask {target} again for {what}{name}, {}.",
            ahead(step.again_unix_ms, now_ms)
        )
    } else {
        format!("It waits for {what}{name}, asked of {target}.")
    };
    let links: Vec<String> = step
        .links
        .iter()
        .map(|link| format!(" {}", follow(link, now_ms)))
        .collect();
    format!("{how}{tries}{failure}{}", links.concat().trim_end())
}

/// One link of the chain of those who wait.
fn follow(link: &SagaLink, now_ms: u64) -> String {
    let (from, to) = (&link.from, &link.to);
    let mut parts = Vec::new();
    if link.attempts > 0 {
        parts.push(format!(
            "{from} has asked {to} {} in vain: {}.",
            times(link.attempts),
            link.waits_for
        ));
    } else if link.to_service {
        parts.push(format!("{from} is asking {to}."));
    }
    if !link.trouble.is_empty() {
        let again = match link.retry_after_ms {
            0 => String::new(),
            ms => format!("; it is tried again in {}", span(ms)),
        };
        parts.push(format!("Of {to}: {}{again}.", link.trouble));
    }
    let timers = link
        .timers
        .iter()
        .map(|timer| format!("{} {}", timer.name, ahead(timer.due_unix_ms, now_ms)));
    let timers = listed(timers);
    if !timers.is_empty() {
        parts.push(format!("{to} waits no longer than its timers: {timers}."));
    }
    parts.join(" ")
}

fn undo(saga: &ShowSagaResponse, summary: &SagaSummary) -> Option<String> {
    let is_over = matches!(summary.state.as_str(), "completed" | "undone");
    if is_over {
        return None;
    }
    let stages = stages(&saga.undo);
    Some(
        match (saga.undo.is_empty(), saga.can_turn_back, summary.reason.is_empty()) {
            (false, true, true) => format!("If it turned back now, it would undo, in this order: {stages}."),
            (false, ..) => format!("Then it undoes, in this order: {stages}."),
            (true, true, true) => "If it turned back now, there would be nothing to undo.".to_owned(),
            (true, false, true) => {
                "It is past the point where it could turn back: nothing is undone any more.".to_owned()
            }
            (true, ..) => "After that there is nothing more to undo.".to_owned(),
        },
    )
}

fn deadlines(saga: &ShowSagaResponse, now_ms: u64) -> Vec<String> {
    let named = [
        ("The stage", saga.stage_deadline_unix_ms),
        ("The saga", saga.overall_deadline_unix_ms),
    ];
    let set = named.into_iter().filter(|(_, due_ms)| *due_ms > 0);
    set.map(|(what, due_ms)| {
        format!(
            "{what} is given up {} if it is not done by then.",
            ahead(due_ms, now_ms)
        )
    })
    .collect()
}

fn stages(stages: &[SagaStage]) -> String {
    let named = stages.iter().map(|stage| {
        let steps = match stage.steps.as_slice() {
            [] => format!("{} (steps not known yet)", stage.stage),
            steps => listed(steps.iter().map(step)),
        };
        let point = if stage.is_point_of_no_return {
            " — the point of no return"
        } else {
            ""
        };
        format!("{steps}{point}")
    });
    named.collect::<Vec<_>>().join(", then ")
}

fn step(step: &SagaStep) -> String {
    format!("{} ({})", step.step, step.target)
}

/// Names one by one, or the first of them and how many more there are.
fn listed(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let named = names[..names.len().min(NAMED_MAX)].join(" and ");
    match names.len().checked_sub(NAMED_MAX) {
        None | Some(0) => named,
        Some(more) => format!("{named} and {more} more"),
    }
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        count => format!("{count} times"),
    }
}

/// A time that has passed, as people say it.
pub(super) fn ago(unix_ms: u64, now_ms: u64) -> String {
    format!("{} ago", span(now_ms.saturating_sub(unix_ms)))
}

/// A time that is to come.
fn ahead(unix_ms: u64, now_ms: u64) -> String {
    match unix_ms.checked_sub(now_ms) {
        Some(ms) => format!("in {}", span(ms)),
        None => "now".to_owned(),
    }
}

fn span(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use proto::saga::v1::SagaTimer;

    use super::*;

    fn stage(name: &str, target: &str) -> SagaStage {
        SagaStage {
            stage: name.to_owned(),
            steps: vec![SagaStep {
                step: name.to_owned(),
                target: target.to_owned(),
            }],
            is_point_of_no_return: name == "confirm",
        }
    }

    fn checkout() -> ShowSagaResponse {
        let link = |from: &str, to: &str| SagaLink {
            from: from.to_owned(),
            to: to.to_owned(),
            ..SagaLink::default()
        };
        ShowSagaResponse {
            saga: Some(SagaSummary {
                key: "checkout/42".to_owned(),
                state: "running".to_owned(),
                stage: "authorise".to_owned(),
                started_unix_ms: 1_000,
                since_unix_ms: 2_000,
                ..SagaSummary::default()
            }),
            round: 1,
            waiting: vec![SagaWaiting {
                step: "authorise".to_owned(),
                target: "payment/42".to_owned(),
                attempt: 1,
                attempts_max: 1,
                links: vec![
                    SagaLink {
                        timers: vec![SagaTimer {
                            name: "deadline".to_owned(),
                            due_unix_ms: 612_000,
                        }],
                        ..link("checkout/42", "payment/42")
                    },
                    SagaLink {
                        to_service: true,
                        attempts: 3,
                        waits_for: "the breaker is open".to_owned(),
                        trouble: "its breaker is open after 5 failures in a row".to_owned(),
                        retry_after_ms: 40_000,
                        ..link("payment/42", "payment-provider")
                    },
                ],
                ..SagaWaiting::default()
            }],
            next: vec![stage("confirm", "order/42"), stage("capture", "payment/42")],
            undo: vec![stage("authorise", "payment/42"), stage("place", "order/42")],
            can_turn_back: true,
            overall_deadline_unix_ms: 72_000,
            ..ShowSagaResponse::default()
        }
    }

    #[test]
    fn its_traces_are_named_with_what_shows_them() {
        let trace = |id: &str, errors| TraceSummary {
            trace_id: id.to_owned(),
            errors,
            ..TraceSummary::default()
        };
        assert_eq!(traced(&[]), None);
        assert_eq!(
            traced(&[trace("aa", 0)]).as_deref(),
            Some("Its trace is aa: `playhouse trace show aa`.")
        );
        assert_eq!(
            traced(&[trace("bb", 2), trace("aa", 0)]).as_deref(),
            Some("Its traces, the newest first, are bb with 2 failures, aa: `playhouse trace show bb`.")
        );
    }

    #[test]
    fn a_saga_that_waits_is_explained() {
        assert_eq!(
            explained(&checkout(), 12_000),
            [
                "checkout/42 is running, at authorise since 10 s ago. It was started 11 s ago.",
                "It waits for authorise, asked of payment/42. payment/42 waits no longer than its timers: deadline in 10 min. \
                 payment/42 has asked payment-provider 3 times in vain: the breaker is open. Of payment-provider: its breaker \
                 is open after 5 failures in a row; it is tried again in 40 s.",
                "After that comes confirm (order/42) — the point of no return, then capture (payment/42).",
                "If it turned back now, it would undo, in this order: authorise (payment/42), then place (order/42).",
                "The saga is given up in 60 s if it is not done by then.",
            ]
        );
    }

    #[test]
    fn a_saga_that_needs_help_says_what_to_do() {
        let mut saga = checkout();
        let summary = saga.saga.as_mut().expect("there");
        "stuck".clone_into(&mut summary.state);
        "out_of_stock: tea".clone_into(&mut summary.reason);
        saga.can_turn_back = false;
        saga.next.clear();
        saga.waiting = vec![SagaWaiting {
            step: "authorise".to_owned(),
            target: "payment/42".to_owned(),
            undo: true,
            attempt: 7,
            again_unix_ms: 30_000,
            failure: "down".to_owned(),
            ..SagaWaiting::default()
        }];
        let text = explained(&saga, 12_000).join("\n");
        for part in [
            "It turned back because of out_of_stock: tea.",
            "again for the undo of authorise, in 18 s. It is tried until it is done; this is try 7. The try before failed: down.",
            "`playhouse saga nudge checkout/42`",
            "Then it undoes, in this order: authorise (payment/42), then place (order/42).",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn many_steps_are_counted() {
        assert_eq!(listed((0..3).map(|n| n.to_string())), "0 and 1 and 2");
        assert_eq!(
            listed((0..9).map(|n| n.to_string())),
            "0 and 1 and 2 and 3 and 4 and 5 and 3 more"
        );
    }
}
