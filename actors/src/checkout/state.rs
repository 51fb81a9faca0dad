//! Where a checkout stands.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Event, Stage, Step};
use crate::{
    ids::{CustomerId, Sku},
    money::Money,
};

/// How a checkout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// Everything is done.
    Completed,
    /// Everything that was done is undone, or the order has taken its undoing over.
    Undone,
}

/// Where a checkout stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Who ordered; nobody for a guest.
    pub customer: Option<CustomerId>,
    /// What is ordered, each product once. Empty before the start.
    pub lines: BTreeMap<Sku, u64>,
    /// What it costs.
    pub total: Money,
    /// What it is paid with; forgotten at the end.
    pub card: String,
    /// The stage it is in; none before the start.
    pub stage: Option<Stage>,
    /// Whether it is on its way back.
    pub undoing: bool,
    /// The steps whose outcome it waits for.
    pub waiting: BTreeSet<Step>,
    /// The steps that are done, or may be, and are not undone; none once everything is completed.
    pub done: BTreeSet<Step>,
    /// Why it turned back.
    pub reason: Option<String>,
    /// Why the money could not be taken.
    pub unpaid: Option<String>,
    /// What must not fail and did. Empty unless a promise of the platform was broken.
    pub problems: Vec<String>,
    /// Whether it has ended.
    pub ended: bool,
    /// How it ended.
    pub end: Option<End>,
}

impl State {
    /// The steps of a stage that are to be undone.
    pub(super) fn to_undo(&self, stage: Stage) -> impl Iterator<Item = &Step> {
        self.done.iter().filter(move |step| step.stage == stage)
    }

    pub(super) fn evolve(&mut self, event: &Event) {
        match event {
            Event::Started {
                customer,
                lines,
                total,
                card,
            } => {
                self.customer.clone_from(customer);
                self.lines.clone_from(lines);
                self.total = *total;
                self.card.clone_from(card);
                self.stage = Some(Stage::Place);
                self.done.extend(Stage::Place.steps(self));
            }
            Event::StageBegan { stage } => {
                self.stage = Some(*stage);
                self.waiting = stage.steps(self).into_iter().collect();
            }
            Event::StepDone { step } => {
                self.waiting.remove(step);
                self.done.insert(step.clone());
            }
            Event::StepRefused { step, reason, unclear } => {
                self.waiting.remove(step);
                if *unclear {
                    self.done.insert(step.clone());
                }
                // Of several refusals in one stage, the first that came in is the reason.
                self.reason.get_or_insert_with(|| reason.clone());
            }
            Event::Lapsed { reason } => {
                self.reason.get_or_insert_with(|| reason.clone());
            }
            Event::UndoBegan { stage } => {
                self.undoing = true;
                self.stage = Some(*stage);
                self.waiting = self.to_undo(*stage).cloned().collect();
            }
            Event::StepUndone { step } => {
                self.waiting.remove(step);
                self.done.remove(step);
            }
            Event::ProblemFound { step, reason } => {
                self.waiting.remove(step);
                self.problems.push(format!("{step}: {reason}"));
                if step.stage == Stage::Capture {
                    self.unpaid = Some(reason.clone());
                }
            }
            Event::Completed => {
                self.done.clear();
                self.end(End::Completed);
            }
            Event::Undone => self.end(End::Undone),
        }
    }

    fn end(&mut self, end: End) {
        self.ended = true;
        self.end = Some(end);
        self.card.clear();
    }
}
