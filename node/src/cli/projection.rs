//! `playhouse projection`: read models, how far their copies are, what they answer, and building them anew.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use proto::projection::v1::{
    Generation, ListProjectionsRequest, ModelCopy, Projection as View, QueryRequest, RebuildRequest,
    ShowProjectionRequest,
};
use serde_json::{Value, json};

use super::{
    client::{Client, ReadArguments, Target},
    failure::Failure,
    output::{print_json, print_text, render, table},
};

/// How often a rebuild is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Look at read models, ask them, build them anew.
#[derive(Debug, Subcommand)]
pub(crate) enum Projection {
    /// List all projections, and how far their copies are.
    List(List),
    /// Show each copy of a projection.
    Show(Show),
    /// Ask a projection; one replica of each shard answers, and the parts are merged.
    Query(Query),
    /// Build a projection anew from the beginning of its events, while it goes on answering.
    Rebuild(Rebuild),
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Its name.
    name: String,
    /// One line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Query {
    /// Its name.
    name: String,
    /// The question, for example '{"top": {"by": "money", "currency": "GBP", "limit": 10}}'.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    json: String,
    #[command(flatten)]
    read: ReadArguments,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Rebuild {
    /// Its name.
    name: String,
    /// Wait until all copies that were told are built, and say how far they are.
    #[arg(long)]
    wait: bool,
    /// Wait so many seconds at most.
    #[arg(long, default_value_t = 3600, requires = "wait", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait_seconds: u64,
    #[command(flatten)]
    target: Target,
}

impl Projection {
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => {
                let client = list.target.connect().await?;
                let projections = client.list_projections(ListProjectionsRequest {}).await?.projections;
                if list.json {
                    let projections: Vec<Value> = projections.iter().map(view_json).collect();
                    print_json(&json!({"projections": projections}));
                } else {
                    print_text(&list_text(&projections));
                }
            }
            Self::Show(show) => {
                let client = show.target.connect().await?;
                let versions = versions(&client, &show.name).await?;
                if show.json {
                    print_json(&json!({"versions": versions.iter().map(view_json).collect::<Vec<_>>()}));
                } else {
                    print_text(&versions.iter().map(show_text).collect::<Vec<_>>().join("\n\n"));
                }
            }
            Self::Query(query) => {
                let client = query.target.connect().await?.reading(query.read);
                let message = QueryRequest {
                    name: query.name,
                    query_json: query.json,
                };
                let answered = client.query_projection(message).await?;
                let answer: Value = serde_json::from_str(&answered.answer_json)
                    .map_err(|error| Failure::no(format!("the answer is no JSON: {error}")))?;
                print_json(&json!({
                    "answer": answer, "version": answered.version, "staleness_us": answered.staleness_us,
                    "version_tokens": answered.version_tokens,
                }));
            }
            Self::Rebuild(rebuild) => return rebuild.run().await,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn versions(client: &Client, name: &str) -> Result<Vec<View>, Failure> {
    let name = name.to_owned();
    Ok(client.show_projection(ShowProjectionRequest { name }).await?.versions)
}

impl Rebuild {
    async fn run(self) -> Result<ExitCode, Failure> {
        let client = self.target.connect().await?;
        let name = self.name.clone();
        let begun = client.rebuild_projection(RebuildRequest { name }).await?;
        print_text(&format!(
            "{} version {}: {} copies are being built",
            self.name,
            begun.version,
            begun.building.len()
        ));
        for node in &begun.not_told {
            print_text(&format!(
                "node {} goes on with what it has: {}; say it again when it is back",
                node.node, node.reason
            ));
        }
        let waited_for: BTreeMap<(u32, u32), u64> = begun
            .building
            .iter()
            .map(|building| ((building.shard, building.node), building.generation))
            .collect();
        let until = Instant::now() + Duration::from_secs(self.wait_seconds);
        let mut said = String::new();
        while self.wait {
            let versions = versions(&client, &self.name).await?;
            let copies = versions.iter().filter(|view| view.version == begun.version);
            let copies: Vec<&ModelCopy> = copies.flat_map(|view| &view.copies).collect();
            let is_left = |copy: &&&ModelCopy| {
                let waited_for = waited_for.get(&(copy.shard, copy.node));
                waited_for.is_some_and(|number| copy.building.as_ref().is_some_and(|b| b.generation == *number))
            };
            let left: Vec<&&ModelCopy> = copies.iter().filter(is_left).collect();
            let text = progress(&left);
            if text != said {
                print_text(&text);
                said = text;
            }
            if left.is_empty() {
                if let Some(copy) = copies.iter().find(|copy| copy.same_as_before == Some(false)) {
                    return Err(Failure::no(format!(
                        "the copy of shard {} on node {} is not what it was before: what makes it is not pure, or it was damaged",
                        copy.shard, copy.node
                    )));
                }
                return Ok(ExitCode::SUCCESS);
            }
            if Instant::now() >= until {
                return Err(Failure::no("not all copies are built yet; the rebuild goes on"));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// How far the copies are that are still being built.
fn progress(left: &[&&ModelCopy]) -> String {
    let Some(furthest_behind) = left.iter().max_by_key(|copy| behind(copy)) else {
        return "all of them are built and answer".to_owned();
    };
    format!(
        "{} left; shard {} on node {} is the last, {} entries to go",
        left.len(),
        furthest_behind.shard,
        furthest_behind.node,
        behind(furthest_behind)
    )
}

fn behind(copy: &ModelCopy) -> u64 {
    let reached = copy.building.as_ref().map_or(0, |building| building.reached);
    copy.applied.saturating_sub(reached)
}

fn list_text(projections: &[View]) -> String {
    if projections.is_empty() {
        return "the cluster carries no projection".to_owned();
    }
    let mut rows = table(&[
        "projection",
        ">version",
        "fed by",
        ">copies",
        ">answering",
        ">building",
        ">most behind",
        ">stuck",
    ]);
    for view in projections {
        let count = |is: &dyn Fn(&ModelCopy) -> bool| view.copies.iter().filter(|copy| is(copy)).count().to_string();
        rows.add_row([
            view.name.clone(),
            version_text(view),
            view.kinds.join(", "),
            view.copies.len().to_string(),
            count(&|copy| copy.serving.is_some()),
            count(&|copy| copy.building.is_some()),
            view.copies.iter().map(|copy| copy.lag).max().unwrap_or(0).to_string(),
            count(&|copy| !copy.fault.is_empty()),
        ]);
    }
    render(&rows)
}

fn version_text(view: &View) -> String {
    let former = if view.is_former { " (former)" } else { "" };
    format!("{}{former}", view.version)
}

fn show_text(view: &View) -> String {
    let mut text = format!(
        "{} version {}, fed by {}\n",
        view.name,
        version_text(view),
        view.kinds.join(", ")
    );
    let mut rows = table(&[
        ">shard",
        ">node",
        ">reached",
        ">lag",
        ">events",
        ">rows",
        "digest",
        "being built",
        "last rebuild",
    ]);
    for copy in &view.copies {
        let serving = copy.serving.as_ref();
        let number =
            |of: &dyn Fn(&Generation) -> u64| serving.map_or("-".to_owned(), |serving| of(serving).to_string());
        rows.add_row([
            copy.shard.to_string(),
            copy.node.to_string(),
            number(&|serving| serving.reached),
            copy.lag.to_string(),
            number(&|serving| serving.events),
            number(&|serving| serving.rows),
            serving.map_or("-".to_owned(), |serving| serving.digest.clone()),
            copy.building.as_ref().map_or("-".to_owned(), |building| {
                format!("{} of {}", building.reached, copy.applied)
            }),
            match copy.same_as_before {
                None => "-",
                Some(true) => "same as before",
                Some(false) => "differed",
            }
            .to_owned(),
        ]);
    }
    text.push_str(&render(&rows));
    for copy in view.copies.iter().filter(|copy| !copy.fault.is_empty()) {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\nshard {} on node {} stands still: {}",
            copy.shard, copy.node, copy.fault
        );
    }
    text
}

fn generation_json(generation: Option<&Generation>) -> Value {
    generation.map_or(Value::Null, |generation| {
        json!({
            "generation": generation.generation, "reached": generation.reached,
            "last": {"index": generation.last_index, "place": generation.last_place},
            "events": generation.events, "rows": generation.rows, "bytes": generation.bytes,
            "digest": generation.digest,
        })
    })
}

fn view_json(view: &View) -> Value {
    json!({
        "name": view.name, "version": view.version, "former": view.is_former, "kinds": view.kinds,
        "copies": view.copies.iter().map(|copy| json!({
            "shard": copy.shard, "node": copy.node, "applied": copy.applied, "lag": copy.lag,
            "serving": generation_json(copy.serving.as_ref()), "building": generation_json(copy.building.as_ref()),
            "removing": copy.removing, "same_as_before": copy.same_as_before, "fault": copy.fault,
        })).collect::<Vec<_>>(),
    })
}
