//! `playhouse timers`: what is due next, and what is overdue, over all shards.

use std::process::ExitCode;

use clap::Args;
use proto::cluster::v1::{ListTimersRequest, TimerView};
use serde_json::{Value, json};

use super::{
    client::Target,
    failure::Failure,
    output::{print_json, print_text, render, table},
};

/// List timers, the most urgent first.
#[derive(Debug, Args)]
pub(crate) struct Timers {
    /// At most so many.
    #[arg(long, default_value_t = 20)]
    limit: u32,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

impl Timers {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let listed = client.list_timers(ListTimersRequest { limit: self.limit }).await?;
        if self.json {
            let timers: Vec<Value> = listed.timers.iter().map(timer_json).collect();
            print_json(&json!({"timers": timers, "unavailable_shards": listed.unavailable_shards}));
        } else if listed.timers.is_empty() {
            print_text("no timer is set");
        } else {
            print_text(&timers_table(&listed.timers));
        }
        if listed.unavailable_shards.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let shards: Vec<String> = listed.unavailable_shards.iter().map(u32::to_string).collect();
        Err(Failure::no(format!(
            "not all timers are listed: the leaders of these shards could not be asked: {}",
            shards.join(" ")
        )))
    }
}

/// A timer, for scripts.
pub(crate) fn timer_json(timer: &TimerView) -> Value {
    json!({
        "entity": timer.entity, "name": timer.name, "due_unix_ms": timer.due_unix_ms, "every_ms": timer.every_ms,
        "set_by_record": timer.set_by_record, "trace_id": timer.trace_id, "overdue_ms": timer.overdue_ms,
    })
}

/// Timers, for people.
pub(crate) fn timers_table(timers: &[TimerView]) -> String {
    let mut rows = table(&[
        "entity",
        "timer",
        ">due unix ms",
        ">overdue",
        "every",
        ">set by record",
        "trace",
    ]);
    for timer in timers {
        let or_dash = |text: String, is_there: bool| if is_there { text } else { "-".to_owned() };
        rows.add_row([
            timer.entity.clone(),
            timer.name.clone(),
            timer.due_unix_ms.to_string(),
            or_dash(format!("{} ms", timer.overdue_ms), timer.overdue_ms > 0),
            or_dash(format!("{} ms", timer.every_ms), timer.every_ms > 0),
            timer.set_by_record.to_string(),
            or_dash(timer.trace_id.clone(), !timer.trace_id.is_empty()),
        ]);
    }
    render(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_what_is_late() {
        let late = TimerView {
            entity: "stock/tea".to_owned(),
            name: "expiry".to_owned(),
            due_unix_ms: 1_000,
            overdue_ms: 20,
            ..Default::default()
        };
        let text = timers_table(std::slice::from_ref(&late));
        assert!(text.contains("stock/tea") && text.contains("20 ms"), "{text}");
        assert_eq!(timer_json(&late)["name"], "expiry");
    }
}
