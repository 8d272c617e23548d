//! Strict accuracy beside inclusion, whatever the rewards are. If answers contain the truth ever more often, but are the
//! truth no more often, then the model learns to list names, not to name: the reward is hacked.

use std::{collections::VecDeque, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    reward::{Accuracy, Inclusion, Reward, RewardInput},
    tapo::rollout::{Group, Rollout},
};

/// Number of steps whose mean is compared: the first of the run with the last.
const WINDOW: usize = 4;
/// Smallest growth of inclusion beyond that of strict accuracy that is worth a word.
const GROWTH: f64 = 0.15;

/// Shares of responses, from 0 to 1; NaN without responses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracies {
    /// Share that the reward `accuracy` ([`Accuracy`]) calls right.
    pub strict: f64,
    /// Share that the reward `inclusion` ([`Inclusion`]) calls right.
    pub inclusion: f64,
}

impl Accuracies {
    /// Measures the responses of groups. `think` says whether a well-formed response has a think block.
    pub fn of(groups: &[Group], think: bool) -> Self {
        let responses = || groups.iter().flat_map(|group| group.rollouts.iter().map(move |rollout| (group, rollout)));
        let count = responses().count() as f64;
        let mean = |reward: &dyn Reward| {
            let score = |(group, rollout): (&Group, &Rollout)| {
                let input = RewardInput::new(&rollout.text, &group.prompt.truth).with_aliases(&group.prompt.aliases);
                reward.score(&input)
            };
            responses().map(score).sum::<f64>() / count
        };
        Self { strict: mean(&Accuracy { think }), inclusion: mean(&Inclusion) }
    }
}

/// The accuracies of one step's responses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    responses: usize,
    strict: f64,
    inclusion: f64,
}

/// Watches strict accuracy and inclusion over the steps of a run. Checkpoints store it, so that a resumed run says the
/// same as one that was not stopped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccuracyWatch {
    first: Vec<Step>,
    last: VecDeque<Step>,
    /// Growth that was told last.
    told: f64,
}

/// Inclusion has risen and strict accuracy has not kept up. It prints as one line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parted {
    /// Mean over the first steps of the run.
    pub before: Accuracies,
    /// Mean over the last steps.
    pub now: Accuracies,
}

impl Parted {
    /// How much more inclusion has grown than strict accuracy.
    pub fn growth(&self) -> f64 {
        (self.now.inclusion - self.before.inclusion) - (self.now.strict - self.before.strict)
    }
}

impl fmt::Display for Parted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [inclusion, strict] = [(self.before.inclusion, self.now.inclusion), (self.before.strict, self.now.strict)]
            .map(|(before, now)| format!("from {:.0} to {:.0} %", 100.0 * before, 100.0 * now));
        write!(
            f,
            "answers that contain the right name went {inclusion}, answers that are the right name {strict}: the model \
             may be learning to list names; read rollouts.jsonl, and reward `accuracy` instead of `inclusion`"
        )
    }
}

impl AccuracyWatch {
    /// Adds the accuracies of a step's responses. Returns what there is to say: the first time that the two have parted,
    /// and again whenever they have parted by as much again. A step without responses changes nothing.
    pub fn after(&mut self, responses: usize, found: Accuracies) -> Option<Parted> {
        let Accuracies { strict, inclusion } = found;
        if responses == 0 || !(strict.is_finite() && inclusion.is_finite()) {
            return None;
        }
        let step = Step { responses, strict, inclusion };
        if self.first.len() < WINDOW {
            self.first.push(step);
            return None;
        }
        self.last.push_back(step);
        if self.last.len() > WINDOW {
            self.last.pop_front();
        }
        let last: Vec<Step> = self.last.iter().copied().collect();
        let parted = parted(&self.first, &last).filter(|_| last.len() == WINDOW)?;
        (parted.growth() >= self.told + GROWTH).then(|| {
            self.told = parted.growth();
            parted
        })
    }
}

/// Compares two windows of steps. `None` unless inclusion has grown, at least twice as much as strict accuracy, and by
/// more than chance: two standard errors of the difference.
fn parted(first: &[Step], last: &[Step]) -> Option<Parted> {
    let ((before, early), (now, late)) = (mean(first), mean(last));
    let found = Parted { before, now };
    let (strict, inclusion) = (now.strict - before.strict, now.inclusion - before.inclusion);
    // A share has a variance of at most 1/4 for each response.
    let chance = 2.0 * (0.25 / early + 0.25 / late).sqrt();
    (inclusion > 0.0 && strict <= inclusion / 2.0 && found.growth() >= GROWTH.max(chance)).then_some(found)
}

/// The mean over all responses of some steps, and their number.
fn mean(steps: &[Step]) -> (Accuracies, f64) {
    let responses = steps.iter().map(|step| step.responses as f64).sum::<f64>();
    let mean = |share: fn(&Step) -> f64| steps.iter().map(|step| step.responses as f64 * share(step)).sum::<f64>();
    let [strict, inclusion] = [mean(|step| step.strict), mean(|step| step.inclusion)].map(|sum| sum / responses);
    (Accuracies { strict, inclusion }, responses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::rollout::{ImageRole, tests::group, tests::rollout};

    #[test]
    fn both_accuracies_come_from_the_texts() {
        let said = |text: &str| Rollout { text: text.into(), ..rollout(ImageRole::Anchor, 0.0) };
        let mut first = group(vec![
            said("<think>x</think><answer>Lime</answer>"),
            said("<think>x</think><answer>Lime</answer><answer>Lemon</answer>"),
            said("<think>x</think><answer>Lemon, Lime or Fig</answer>"),
            said("<think>x</think><answer>Lemon</answer>"),
        ]);
        first.prompt.truth = "Lime".into();
        let mut second = group(vec![said("<think>x</think><answer>limette</answer>")]);
        (second.prompt.truth, second.prompt.aliases) = ("Lime".into(), vec!["Limette".into()]);
        let groups = [first, second];
        assert_eq!(Accuracies::of(&groups, true), Accuracies { strict: 2.0 / 5.0, inclusion: 4.0 / 5.0 });
        let alone = said("<answer>Lime</answer>");
        let mut alone = group(vec![alone.clone(), alone, said("<think>x</think><answer>Lime</answer>")]);
        alone.prompt.truth = "Lime".into();
        assert_eq!(Accuracies::of(&[alone], false), Accuracies { strict: 2.0 / 3.0, inclusion: 1.0 });
        let none = Accuracies::of(&[], true);
        assert!(none.strict.is_nan() && none.inclusion.is_nan());
    }

    /// The steps, from 1, at which a run with these accuracies is told something, with what is told.
    fn told(steps: impl IntoIterator<Item = (f64, f64)>, responses: usize, mut watch: AccuracyWatch) -> Vec<usize> {
        let steps = steps.into_iter().map(|(strict, inclusion)| Accuracies { strict, inclusion });
        let mut when = Vec::new();
        for (at, found) in steps.enumerate() {
            if watch.after(responses, found).is_some() {
                when.push(at + 1);
            }
            // What a checkpoint keeps is all that there is.
            watch = toml::from_str(&toml::to_string(&watch).unwrap()).unwrap();
        }
        when
    }

    #[test]
    fn it_speaks_when_inclusion_rises_alone() {
        let watch = AccuracyWatch::default;
        // Forty steps: inclusion from 22 to 77 %, strict accuracy from 10 to 13 %.
        let hacked = (0..40).map(|i| (0.10 + 0.03 * i as f64 / 39.0, 0.22 + 0.55 * i as f64 / 39.0));
        let when = told(hacked, 80, watch());
        assert_eq!(when.len(), 3, "{when:?}");
        assert!(when[0] > 2 * WINDOW && when[0] < 20, "{when:?}");
        // Both rise; both fall; both stay; strict accuracy rises more slowly, but it does.
        for (strict, inclusion) in [(0.6, 0.6), (-0.2, -0.1), (0.0, 0.0), (0.3, 0.5)] {
            let steps = (0..40).map(|i| (0.3 + strict * i as f64 / 39.0, 0.3 + inclusion * i as f64 / 39.0));
            assert!(told(steps, 80, watch()).is_empty(), "{strict} {inclusion}");
        }
        // With eight responses a window, a jump by 0.5 is what chance does; with 80 it is not.
        let jump = || (0..12).map(|i| (0.1, if i < 6 { 0.2 } else { 0.6 }));
        assert!(told(jump(), 2, watch()).is_empty());
        assert_eq!(told(jump(), 20, watch()).len(), 2);
        // Steps without rollouts change nothing.
        let pauses = (0..40).map(|_| (f64::NAN, f64::NAN));
        assert!(told(pauses, 0, watch()).is_empty());
    }

    #[test]
    fn the_line_has_both_changes() {
        let parted = Parted {
            before: Accuracies { strict: 0.1, inclusion: 0.22 },
            now: Accuracies { strict: 0.13, inclusion: 0.77 },
        };
        let line = parted.to_string();
        assert!(line.contains("from 22 to 77 %") && line.contains("from 10 to 13 %"), "{line}");
        assert!((parted.growth() - 0.52).abs() < 1e-12);
    }
}
