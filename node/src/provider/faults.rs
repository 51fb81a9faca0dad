//! The provider's bad days, switched over HTTP: outage, hanging, errors, latency.

use std::time::Duration;

use rand::RngExt as _;

use super::wire::Control;

/// How long a call hangs before it is answered after all.
const HANG_MS: u64 = 30_000;
/// The longest latency that can be set.
pub(super) const LATENCY_MS_MAX: u64 = 60_000;

/// How calls are treated now.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Faults {
    outage: bool,
    hang: bool,
    error_rate: f64,
    latency_ms: u64,
    decline_over_minor: Option<i64>,
}

/// What is to happen to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is taken and answered.
    Answered,
    /// It is not taken; the answer says so.
    Lost,
    /// It is taken, but the answer is an error: the caller cannot know.
    AnswerLost,
    /// It is not taken, and nothing is said for a long time.
    Hung,
}

impl Faults {
    /// A good day.
    pub(super) fn new(latency_ms: u64, decline_over_minor: Option<i64>) -> Self {
        Self {
            outage: false,
            hang: false,
            error_rate: 0.0,
            latency_ms: latency_ms.min(LATENCY_MS_MAX),
            decline_over_minor,
        }
    }

    /// Changes what is given; nothing of it if one part is wrong.
    pub(super) fn change(&mut self, control: &Control) -> Result<(), String> {
        let mut changed = self.clone();
        changed.outage = control.outage.unwrap_or(changed.outage);
        changed.hang = control.hang.unwrap_or(changed.hang);
        if let Some(rate) = control.error_rate {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("error_rate is {rate}; it goes from 0 to 1"));
            }
            changed.error_rate = rate;
        }
        if let Some(latency_ms) = control.latency_ms {
            if latency_ms > LATENCY_MS_MAX {
                return Err(format!(
                    "latency_ms is {latency_ms}; at most {LATENCY_MS_MAX} are allowed"
                ));
            }
            changed.latency_ms = latency_ms;
        }
        if let Some(limit) = control.decline_over_minor {
            changed.decline_over_minor = (limit > 0).then_some(limit);
        }
        *self = changed;
        Ok(())
    }

    /// All of it.
    pub(super) fn shown(&self) -> Control {
        Control {
            outage: Some(self.outage),
            hang: Some(self.hang),
            error_rate: Some(self.error_rate),
            latency_ms: Some(self.latency_ms),
            decline_over_minor: Some(self.decline_over_minor.unwrap_or(0)),
        }
    }

    /// Amounts above this are declined.
    pub(super) fn decline_over_minor(&self) -> Option<i64> {
        self.decline_over_minor
    }

    /// What is to happen to one call, and after how long.
    pub(super) fn draw(&self) -> (Fate, Duration) {
        let mut random = rand::rng();
        if self.hang {
            return (Fate::Hung, Duration::from_millis(HANG_MS));
        }
        // Half to one and a half times the average.
        let latency = Duration::from_millis(self.latency_ms).mul_f64(random.random_range(0.5..1.5));
        if self.outage {
            return (Fate::Lost, Duration::ZERO);
        }
        let fate = match random.random::<f64>() {
            drawn if drawn >= self.error_rate => Fate::Answered,
            _ if random.random() => Fate::AnswerLost,
            _ => Fate::Lost,
        };
        (fate, latency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_changes_and_the_rest_stays() {
        let mut faults = Faults::new(5, Some(100));
        let outage = Control {
            outage: Some(true),
            ..Control::default()
        };
        faults.change(&outage).expect("right");
        assert_eq!(faults.draw().0, Fate::Lost);
        assert_eq!(faults.shown().latency_ms, Some(5));
        assert_eq!(faults.decline_over_minor(), Some(100));
    }

    #[test]
    fn a_wrong_part_changes_nothing() {
        let mut faults = Faults::new(5, None);
        let wrong = Control {
            outage: Some(true),
            error_rate: Some(f64::NAN),
            ..Control::default()
        };
        assert!(faults.change(&wrong).expect_err("wrong").contains("error_rate"));
        assert_eq!(faults, Faults::new(5, None));
    }

    #[test]
    fn errors_come_at_their_rate_and_half_of_them_take_effect() {
        let mut faults = Faults::new(0, None);
        let half = Control {
            error_rate: Some(0.5),
            ..Control::default()
        };
        faults.change(&half).expect("right");
        let count = |wanted| (0..4000).filter(|_| faults.draw().0 == wanted).count();
        assert!((1700..2300).contains(&count(Fate::Answered)));
        assert!((800..1200).contains(&count(Fate::AnswerLost)));
    }
}
