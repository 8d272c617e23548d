//! The state of a TAPO run between two updates, without weights and moments. Prompts are not saved: row and epoch name
//! them, and they are made again. Random streams have no state: step, chunk and place name them. The state is saved as
//! TOML, which unlike JSON keeps every bit, NaN and infinities included.

use std::borrow::{Borrow, BorrowMut};

use serde::{Deserialize, Serialize};

use super::{diagnose::Diagnosis, source::TripletSource};
use crate::{
    TrainError,
    tapo::rollout::{Group, Rollout},
    trainer::UpdaterState,
};

/// A group with the row and epoch that its prompt is made from, and its age.
#[derive(Debug, Clone)]
pub(crate) struct DrawnGroup {
    pub(crate) row: usize,
    pub(crate) epoch: usize,
    /// Number of updates made when the responses were sampled.
    pub(crate) sampled: usize,
    pub(crate) group: Group,
}

impl Borrow<Group> for DrawnGroup {
    fn borrow(&self) -> &Group {
        &self.group
    }
}

impl BorrowMut<Group> for DrawnGroup {
    fn borrow_mut(&mut self) -> &mut Group {
        &mut self.group
    }
}

/// A group without its prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedGroup {
    /// Row of the source that the prompt is made from.
    pub row: usize,
    /// Epoch that the prompt is made in.
    pub epoch: usize,
    /// Number of updates made when the responses were sampled.
    #[serde(default)]
    pub sampled: usize,
    /// The responses.
    pub rollouts: Vec<Rollout>,
}

impl SavedGroup {
    pub(crate) fn of(drawn: &DrawnGroup) -> Self {
        let &DrawnGroup { row, epoch, sampled, .. } = drawn;
        Self { row, epoch, sampled, rollouts: drawn.group.rollouts.clone() }
    }

    pub(crate) fn restore(&self, source: &impl TripletSource) -> Result<DrawnGroup, TrainError> {
        let &Self { row, epoch, sampled, .. } = self;
        let group = Group { prompt: source.prompt(row, epoch)?, rollouts: self.rollouts.clone() };
        Ok(DrawnGroup { row, epoch, sampled, group })
    }
}

/// A rollout step that has begun: its rollouts are drawn and some of its updates are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenStep {
    /// The groups that the step trains on.
    pub groups: Vec<SavedGroup>,
    /// Number of updates made.
    pub updates: usize,
    /// log π of each response on its negative image before the first update of the step. Empty unless
    /// `negative_grad = false`.
    pub negatives: Vec<Vec<f32>>,
    /// The tokens of each response whose policy loss counts. Empty unless `visual_tokens` is set.
    #[serde(default)]
    pub chosen: Vec<Vec<bool>>,
}

/// The state of a TAPO run between two updates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TapoState {
    /// Number of samples in the source.
    pub rows: usize,
    /// Number of rollout steps of the whole run.
    pub steps: usize,
    /// Number of rollout steps made.
    pub step: usize,
    /// Number of prompts drawn over all epochs: the position in the data.
    pub drawn: usize,
    /// Updates made and skipped so far.
    pub updates: UpdaterState,
    /// Groups that the last step did not need and the next one uses.
    pub surplus: Vec<SavedGroup>,
    /// The step that has begun, if one has.
    pub open: Option<OpenStep>,
    /// True if the validation set is still to be scored at this place of the run.
    #[serde(default)]
    pub unscored: bool,
    /// What the run has noticed about itself.
    #[serde(default)]
    pub diagnosis: Diagnosis,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{reward::RewardScore, tapo::rollout::ImageRole};
    use fieldmark_generate::{FinishReason, Response};

    #[test]
    fn a_state_in_toml_keeps_every_bit() {
        // Knuth's multiplicative generator: bit patterns of every exponent, NaN and infinities among them.
        let mut bits = 1_u64;
        let mut next = || {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            bits
        };
        let mut wide: Vec<f64> = (0..20_000).map(|_| f64::from_bits(next())).collect();
        let mut narrow: Vec<f32> = (0..20_000).map(|_| f32::from_bits((next() >> 32) as u32)).collect();
        wide.extend([f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.1 + 0.2, 5e-324]);
        narrow.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE, 1e-45]);
        let rollout = Rollout {
            role: ImageRole::Positive,
            response: Response { ids: vec![1, u32::MAX], logps: wide, finish: FinishReason::Length },
            text: "\"\\n\n\t\u{1F986}'''\"\"\"\r\u{0}".into(),
            reward: RewardScore {
                accuracy: 1.0,
                overall: f64::MIN_POSITIVE,
                parts: [("accuracy".to_owned(), 1.0), ("a.b \"c\"".to_owned(), 0.1 + 0.2)].into(),
            },
            advantage: -1.0 / 3.0,
            old_logp: narrow,
        };
        let state = TapoState {
            rows: 3,
            steps: 4,
            step: 2,
            drawn: 17,
            updates: UpdaterState { done: 5, skipped: 1, ..UpdaterState::default() },
            surplus: vec![SavedGroup {
                row: 1,
                epoch: 5,
                sampled: 4,
                rollouts: vec![rollout.clone(), rollout.clone()],
            }],
            open: Some(OpenStep {
                groups: Vec::new(),
                updates: 1,
                negatives: vec![vec![f32::NAN], Vec::new()],
                chosen: vec![vec![true, false], Vec::new()],
            }),
            unscored: true,
            diagnosis: Diagnosis::default(),
        };
        let back: TapoState = toml::from_str(&toml::to_string(&state).unwrap()).unwrap();
        let found = &back.surplus[0].rollouts[1];
        // A NaN is a NaN, whatever its payload.
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
        let wide = |rollout: &Rollout| rollout.response.logps.clone();
        let narrow = |rollout: &Rollout| rollout.old_logp.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        for (found, expected) in [(wide(found), wide(&rollout)), (narrow(found), narrow(&rollout))] {
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.into_iter().zip(expected) {
                assert!(same(found, expected), "{found} {expected}");
            }
        }
        let plain = |rollout: &Rollout| {
            let response = Response { logps: Vec::new(), ..rollout.response.clone() };
            Rollout { response, old_logp: Vec::new(), ..rollout.clone() }
        };
        assert_eq!(plain(found), plain(&rollout));
        let open = back.open.as_ref().unwrap();
        assert!(open.negatives[0][0].is_nan() && open.negatives[1].is_empty());
        assert_eq!(open.chosen, [vec![true, false], Vec::new()]);
        assert_eq!((back.step, back.drawn, back.updates), (2, 17, state.updates));
        assert!(back.unscored && back.surplus[0].sampled == 4);
    }
}
