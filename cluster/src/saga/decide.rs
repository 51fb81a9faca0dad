//! What a saga decides: where an outcome takes it in its table.

use super::{
    Command, Event, Heard, Known, Next, Phase, Rejection, Saga, StateOf, Step, Verdict, Work,
    message::{Alarm, StepToken, Token},
    state,
    table::{self, Stage, point, position},
};
use crate::{
    codec,
    entity::{Context, Decision, Effect},
    journal::keys::fnv,
};

/// The timer of what is tried again.
const RETRY: &str = "saga-retry";
/// The timer of the stage's deadline.
const STAGE: &str = "saga-stage";
/// The timer of the saga's deadline.
const OVERALL: &str = "saga-overall";

type CommandOf<S> = Command<<S as Saga>::Input, <S as Saga>::Fact, <S as Saga>::Signal>;
type EventOf<S> = Event<<S as Saga>::Input, <S as Saga>::Fact>;

/// All commands.
pub(super) fn decide<S: Saga>(
    state: &StateOf<S>,
    command: CommandOf<S>,
    context: &Context,
) -> Result<Decision<S>, Rejection> {
    let saga = Deciding::<S> {
        state,
        id: &context.key.id,
        now_ms: context.now_ms,
    };
    match command {
        Command::Start(input) => saga.start(input),
        Command::Nudge => saga.nudge(),
        _ if state.input.is_none() => Ok(saga.nothing()),
        Command::Signal(signal) => Ok(saga.hear(signal)),
        Command::Answered(of, verdict) => Ok(saga.answered(of, verdict)),
        Command::Due(alarm) => Ok(saga.due(&alarm)),
    }
}

/// One saga and what it decides on.
struct Deciding<'a, S: Saga> {
    state: &'a StateOf<S>,
    id: &'a str,
    now_ms: u64,
}

impl<S: Saga> Deciding<'_, S> {
    fn nothing(&self) -> Decision<S> {
        Decision::reply(self.state.phase)
    }

    /// Milliseconds after the start, as events carry them.
    fn ms(&self) -> u64 {
        self.now_ms.saturating_sub(self.state.started_ms)
    }

    fn work<'b>(&'b self, key: &'b str) -> Work<'b, S> {
        Work::new(self.state, self.id, key)
    }

    /// Where it stands in the table.
    fn at(&self) -> usize {
        position::<S>(&self.state.stage).unwrap_or_default()
    }

    fn start(&self, input: S::Input) -> Result<Decision<S>, Rejection> {
        if let Some(known) = &self.state.input {
            let mut input = input;
            if self.state.told {
                S::forget(&mut input);
            }
            if codec::encode(known) == codec::encode(&input) {
                return Ok(self.nothing());
            }
            return Err(Rejection::AlreadyStarted);
        }
        S::check(self.id, &input).map_err(Rejection::Invalid)?;
        Ok(self.take(Event::Started {
            input,
            at_ms: self.now_ms,
            next: None,
        }))
    }

    /// What waits to be tried again is tried now.
    fn nudge(&self) -> Result<Decision<S>, Rejection> {
        if self.state.input.is_none() {
            return Err(Rejection::NotStarted);
        }
        if self.state.first_retry_ms().is_none() {
            return Err(Rejection::NothingToRetry {
                phase: self.state.phase,
                waiting: self.state.waiting.len(),
            });
        }
        Ok(self.try_again(Event::Nudged, u64::MAX))
    }

    fn hear(&self, signal: S::Signal) -> Decision<S> {
        match S::hear(&self.work(""), signal) {
            Heard::Nothing => self.nothing(),
            Heard::TurnBack(reason) => self.turn_back(reason),
            Heard::Answer(step, verdict) => {
                let attempt = self.state.waiting.get(&step).map_or(1, |attempt| attempt.number);
                let round = self.state.round;
                let of = StepToken {
                    step,
                    undo: false,
                    round,
                    attempt,
                };
                self.answered(of, verdict)
            }
        }
    }

    /// Turns back because something that it rests on is gone, if it still can: once the point of no return is asked for, it may
    /// be passed at any moment.
    fn turn_back(&self, reason: String) -> Decision<S> {
        if !self.can_turn_back() || self.state.reason.is_some() {
            return self.nothing();
        }
        // An undo that overtook the step would do nothing, and the step would stay: most stages are waited for.
        let overdue = table::stage::<S>(&self.state.stage).undo_at_once;
        self.take(Event::TurnedBack {
            reason,
            overdue,
            next: None,
        })
    }

    fn can_turn_back(&self) -> bool {
        self.state.phase == Phase::Running && self.at() < point::<S>()
    }

    fn due(&self, alarm: &Alarm) -> Decision<S> {
        let late = |what: &str, ms: u64| Event::TurnedBack {
            reason: format!("deadline_exceeded: {what} took longer than {ms} ms"),
            overdue: true,
            next: None,
        };
        match alarm {
            Alarm::Retry => match self.state.first_retry_ms() {
                Some(first_ms) if first_ms <= self.now_ms => {
                    self.try_again(Event::Retried { by_ms: self.ms() }, self.now_ms)
                }
                _ => self.nothing(),
            },
            Alarm::Stage(name) if self.state.phase == Phase::Running && self.state.stage == *name => {
                match table::stage::<S>(name).deadline_ms {
                    Some(ms) => self.take(late(name, ms)),
                    None => self.nothing(),
                }
            }
            Alarm::Overall if self.can_turn_back() => match S::DEADLINE_MS {
                Some(ms) => self.take(late(S::NAME, ms)),
                None => self.nothing(),
            },
            Alarm::Stage(_) | Alarm::Overall => self.nothing(),
        }
    }

    /// Takes an outcome in. One that is not waited for is late or repeated; it changes something only if its step was given up
    /// as if it were done.
    fn answered(&self, of: StepToken, verdict: Verdict<S::Fact>) -> Decision<S> {
        let StepToken {
            step,
            undo,
            round,
            attempt,
        } = of;
        if round != self.state.round {
            return self.nothing();
        }
        let waiting = self.state.waiting.get(&step);
        let is_of_before = |verdict: &Verdict<_>| {
            matches!(verdict, Verdict::Failed(_)) && waiting.is_some_and(|waiting| waiting.number != attempt)
        };
        match (self.state.phase, undo) {
            (Phase::Running, false) | (Phase::Undoing, true) if waiting.is_some() => {
                if is_of_before(&verdict) {
                    self.nothing()
                } else if undo {
                    self.undo_answered(step, verdict)
                } else {
                    let verdict = S::consider(&self.work(step.key()), &step, verdict);
                    self.run_answered(step, verdict)
                }
            }
            (_, false) if self.state.overdue.contains(&step) => self.late(step, &verdict),
            _ => self.nothing(),
        }
    }

    /// The step was undone as if it had been done, but perhaps before it was.
    fn late(&self, step: Step, verdict: &Verdict<S::Fact>) -> Decision<S> {
        let has_undo = table::stage::<S>(step.stage()).undo.is_some();
        match verdict {
            Verdict::Done | Verdict::Learned(_) | Verdict::Partly(_) | Verdict::LeaveOut(_) | Verdict::Failed(_)
                if has_undo =>
            {
                self.take(Event::Late { step, next: None })
            }
            _ => self.nothing(),
        }
    }

    fn undo_answered(&self, step: Step, verdict: Verdict<S::Fact>) -> Decision<S> {
        match verdict {
            Verdict::Done | Verdict::Learned(_) | Verdict::Underway | Verdict::Partly(_) => {
                self.take(Event::Undone { step, next: None })
            }
            Verdict::Refused(reason)
            | Verdict::StartOver(reason)
            | Verdict::LeaveOut(reason)
            | Verdict::Failed(reason) => self.try_later(step, reason),
        }
    }

    fn run_answered(&self, step: Step, verdict: Verdict<S::Fact>) -> Decision<S> {
        let row = table::stage::<S>(step.stage());
        let (at, point) = (self.at(), point::<S>());
        let problem = |step, reason| Event::Problem {
            step,
            reason,
            next: None,
        };
        let refused = |step, reason, unclear, over| Event::Refused {
            step,
            reason,
            unclear,
            over,
            next: None,
        };
        match verdict {
            Verdict::Underway => self.nothing(),
            Verdict::Partly(fact) => self.take(Event::Partly { step, fact }),
            Verdict::Done => self.done(step, None),
            Verdict::Learned(fact) => self.done(step, Some(fact)),
            Verdict::Refused(reason) if at <= point => self.take(refused(step, reason, false, false)),
            Verdict::StartOver(reason) if at <= point => self.take(refused(step, reason, false, true)),
            Verdict::LeaveOut(reason) if at <= point => self.take(refused(step, reason, true, true)),
            Verdict::Refused(reason) | Verdict::StartOver(reason) | Verdict::LeaveOut(reason) if row.or_go_on => {
                self.take(problem(step, reason))
            }
            Verdict::Failed(reason) if !self.is_tried_for_ever(row) => {
                let tries = self.state.waiting.get(&step).map_or(0, |attempt| attempt.number);
                if tries < row.retry.attempts_max && !self.state.turns_back() {
                    self.try_later(step, reason)
                } else if at <= point {
                    self.take(refused(step, reason, true, false))
                } else {
                    self.take(problem(step, reason))
                }
            }
            Verdict::Refused(reason)
            | Verdict::StartOver(reason)
            | Verdict::LeaveOut(reason)
            | Verdict::Failed(reason) => self.try_later(step, reason),
        }
    }

    fn done(&self, step: Step, fact: Option<S::Fact>) -> Decision<S> {
        self.take(Event::Done { step, fact, next: None })
    }

    fn is_tried_for_ever(&self, row: &Stage<S>) -> bool {
        is_tried_for_ever(row, self.at())
    }

    /// Has a step, or its undo, tried again after a pause.
    fn try_later(&self, step: Step, reason: String) -> Decision<S> {
        let failures = self.state.waiting.get(&step).map_or(1, |attempt| attempt.number);
        let salt = fnv(format!("{}/{step}/{failures}", self.id).as_bytes());
        let pause_ms = table::stage::<S>(step.stage()).retry.pause_ms(failures, salt);
        let again_ms = self.ms().saturating_add(pause_ms);
        self.take(Event::Failed { step, reason, again_ms })
    }

    /// Records that what was due by then is tried again, and sends it.
    fn try_again(&self, event: EventOf<S>, by_ms: u64) -> Decision<S> {
        let is_due = |step: &Step| {
            let again_ms = self.state.waiting.get(step).and_then(|attempt| attempt.again_ms);
            again_ms.is_some_and(|again_ms| again_ms <= by_ms)
        };
        let mut after = self.state.clone();
        state::evolve::<S>(&mut after, &event);
        let effects = self.sent(&after, is_due);
        let timers = self.timers(&after);
        Decision::reply(after.phase)
            .event(event)
            .effects(effects)
            .effects(timers)
    }

    /// Records an event and goes on from there.
    fn take(&self, event: EventOf<S>) -> Decision<S> {
        // The other steps of the stage are waited for first; a stage of a thousand steps comes by here often.
        let leaves_one = match event {
            Event::Done { .. } | Event::Undone { .. } | Event::Problem { .. } => true,
            Event::Refused { .. } => self.state.first_retry_ms().is_none(),
            _ => false,
        };
        let stays = matches!(event, Event::Partly { .. });
        if stays || (leaves_one && self.state.waiting.len() > 1) {
            return self.nothing().event(event);
        }
        let mut after = self.state.clone();
        state::evolve::<S>(&mut after, &event);
        let next = self.advance(&after);
        let Some(there) = &next else {
            let timers = self.timers(&after);
            return self.nothing().event(event).effects(timers);
        };
        state::go::<S>(&mut after, there);
        let effects = self.sent(&after, |_| true);
        let timers = self.timers(&after);
        let notices = self.notices(&after);
        Decision::reply(after.phase)
            .event(event.leading_to(next))
            .effects(effects)
            .effects(timers)
            .effects(notices)
    }

    /// Where the saga goes from here; nowhere while it waits for something.
    fn advance(&self, after: &StateOf<S>) -> Option<Next> {
        if !after.waiting.is_empty() {
            return None;
        }
        let ms = self.now_ms.saturating_sub(after.started_ms);
        let at = position::<S>(&after.stage);
        match after.phase {
            Phase::Running if !after.turns_back() => {
                let below = at.map_or(0, |at| at + 1);
                let has_steps =
                    |stage: &&Stage<S>| stage.run.is_some() && !stage.steps(&Known { state: after }).is_empty();
                Some(match S::TABLE[below..].iter().find(has_steps) {
                    Some(stage) => Next::Run(stage.name.to_owned(), ms),
                    None => Next::Completed(ms),
                })
            }
            Phase::Running | Phase::Undoing | Phase::Undone => Some(Self::back(after, ms)),
            Phase::New | Phase::Completed => None,
        }
    }

    /// Back to the last stage of which something is to be undone. At the top it ends, or the next round begins.
    fn back(after: &StateOf<S>, ms: u64) -> Next {
        let starts_over = after.over && after.reason.is_none();
        let is_to_undo = |stage: &&Stage<S>| {
            stage.undo.is_some()
                && (stage.run.is_some() || !starts_over)
                && after.done.iter().any(|step| step.stage() == stage.name)
        };
        if let Some(stage) = S::TABLE.iter().rev().find(is_to_undo) {
            return Next::Undo(stage.name.to_owned(), ms);
        }
        let first = S::TABLE.iter().find(|stage| stage.run.is_some());
        match first {
            Some(first) if starts_over => Next::Again(first.name.to_owned(), ms),
            _ => Next::Undone(ms),
        }
    }

    /// The effects of the steps that are waited for, of those that are chosen.
    fn sent(&self, after: &StateOf<S>, is_chosen: impl Fn(&Step) -> bool) -> Vec<Effect<S>> {
        let chosen = after.waiting.iter().filter(|(step, _)| is_chosen(step));
        let undo = after.phase == Phase::Undoing;
        chosen
            .map(|(step, attempt)| {
                let token = Token::Step(StepToken {
                    step: step.clone(),
                    undo,
                    round: after.round,
                    attempt: attempt.number,
                });
                action_of::<S>(after, self.id, step).with_token(Some(token))
            })
            .collect()
    }

    /// Whoever is to know how it ended is told once.
    fn notices(&self, after: &StateOf<S>) -> Vec<Effect<S>> {
        match after.phase.end() {
            Some(end) if !self.state.told => {
                let notices = S::ended(&Work::new(after, self.id, ""), end);
                notices.into_iter().map(|notice| notice.with_token(None)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// What is different about the timers.
    fn timers(&self, after: &StateOf<S>) -> Vec<Effect<S>> {
        let before = self.state;
        let alarm = |name, due_ms, alarm| Effect::set_timer(name, due_ms, Token::Alarm(alarm));
        let mut effects = Vec::new();
        match (before.first_retry_ms(), after.first_retry_ms()) {
            (was, is) if was == is => {}
            (_, Some(due_ms)) => effects.push(alarm(RETRY, due_ms, Alarm::Retry)),
            (_, None) => effects.push(Effect::cancel_timer(RETRY)),
        }
        match (stage_deadline::<S>(before), stage_deadline::<S>(after)) {
            (was, is) if was == is => {}
            (_, Some(due_ms)) => effects.push(alarm(STAGE, due_ms, Alarm::Stage(after.stage.clone()))),
            (_, None) => effects.push(Effect::cancel_timer(STAGE)),
        }
        match (overall_deadline::<S>(before), overall_deadline::<S>(after)) {
            (was, is) if was == is => {}
            (_, Some(due_ms)) => effects.push(alarm(OVERALL, due_ms, Alarm::Overall)),
            (_, None) => effects.push(Effect::cancel_timer(OVERALL)),
        }
        effects
    }
}

/// Whether a step of the stage is tried until it is done: its outcome must be known, because there is no way back from it.
/// `at` is the stage's place in the table.
pub(super) fn is_tried_for_ever<S: Saga>(row: &Stage<S>, at: usize) -> bool {
    let point = point::<S>();
    (at > point && !row.or_go_on) || (at == point && row.undo.is_none() && !row.nothing_to_undo)
}

/// When the stage has had its time, in milliseconds since 1970.
pub(super) fn stage_deadline<S: Saga>(state: &StateOf<S>) -> Option<u64> {
    if state.phase != Phase::Running {
        return None;
    }
    let at = position::<S>(&state.stage)?;
    S::TABLE[at].deadline_ms.map(|ms| state.since_ms.saturating_add(ms))
}

/// When the saga has had its time, in milliseconds since 1970; none where it could not turn back any more.
pub(super) fn overall_deadline<S: Saga>(state: &StateOf<S>) -> Option<u64> {
    if state.phase != Phase::Running || position::<S>(&state.stage)? >= point::<S>() {
        return None;
    }
    S::DEADLINE_MS.map(|ms| state.started_ms.saturating_add(ms))
}

/// What does a step, or undoes it while the saga is on its way back.
pub(super) fn action_of<S: Saga>(state: &StateOf<S>, id: &str, step: &Step) -> super::Action {
    let row = table::stage::<S>(step.stage());
    let act = match state.phase {
        Phase::Undoing => row.undo,
        _ => row.run,
    };
    let act = act.expect("a stage is only begun where the table has an action for it");
    act(&Work::new(state, id, step.key()))
}
