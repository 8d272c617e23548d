//! The gap between the trainer's log-probabilities and those that the sampler recorded, for the same tokens, image and
//! weights. Different kernels and batches cause it.
//!
//! Both are log-probabilities of the full distribution at the sampling temperature, before top-p, penalties and banned
//! tokens. Positive rollouts that the update scores on the anchor are left out, because their images differ.

use serde::{Deserialize, Serialize};

use super::group::Group;
use crate::tapo::config::UpdateImage;

/// Gap between sampler and trainer over the scored rollouts of a step. NaN if there are no tokens to compare.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SamplerGap {
    /// Mean of |log π_sampler − log π_trainer| over the tokens, in nats.
    pub sampler_gap: f64,
    /// Largest |log π_sampler − log π_trainer|, in nats.
    pub sampler_gap_max: f64,
    /// Mean of π_trainer / π_sampler over the tokens. It is 1 if the two agree. Its expected value is 1 for any gap,
    /// provided that top-p cuts nothing off.
    pub sampler_ratio: f64,
}

impl SamplerGap {
    /// Computes the gap over all rollouts in `groups` whose old log-probabilities are for the image they were sampled
    /// from.
    pub fn of(groups: &[Group], update_image: UpdateImage) -> Self {
        let gaps: Vec<f64> = groups
            .iter()
            .flat_map(|group| &group.rollouts)
            .filter(|rollout| update_image.is_own_of(rollout.role))
            .flat_map(|rollout| rollout.old_logp.iter().zip(&rollout.response.logps))
            .map(|(&trainer, &sampler)| f64::from(trainer) - sampler)
            .collect();
        let count = gaps.len() as f64;
        Self {
            sampler_gap: gaps.iter().map(|gap| gap.abs()).sum::<f64>() / count,
            sampler_gap_max: gaps.iter().map(|gap| gap.abs()).fold(f64::NAN, f64::max),
            sampler_ratio: gaps.iter().map(|gap| gap.exp()).sum::<f64>() / count,
        }
    }
}

#[cfg(test)]
mod tests {
    use fieldmark_generate::{FinishReason, Response};

    use super::*;
    use crate::tapo::rollout::{
        group::{
            Rollout,
            tests::{group, rollout},
        },
        image_role::ImageRole,
    };

    fn scored(role: ImageRole, sampler: &[f64], trainer: &[f32]) -> Rollout {
        let response = Response { ids: vec![9; sampler.len()], logps: sampler.to_vec(), finish: FinishReason::Stop };
        Rollout { response, old_logp: trainer.to_vec(), ..rollout(role, 1.0) }
    }

    #[test]
    fn only_the_same_image_is_compared() {
        let anchor = scored(ImageRole::Anchor, &[-1.0, -2.0], &[-1.5, -2.0]);
        let positive = scored(ImageRole::Positive, &[-1.0], &[-0.75]);
        let unscored = scored(ImageRole::Anchor, &[-1.0, -1.0], &[]);
        let groups = [group(vec![anchor, positive]), group(vec![unscored])];
        // On the anchor alone: gaps -0.5 and 0.
        let SamplerGap { sampler_gap, sampler_gap_max, sampler_ratio } = SamplerGap::of(&groups, UpdateImage::Anchor);
        assert_eq!((sampler_gap, sampler_gap_max), (0.25, 0.5));
        assert!((sampler_ratio - ((-0.5f64).exp() + 1.0) / 2.0).abs() < 1e-12);
        // Each on its own: gaps -0.5, 0 and 0.25.
        let SamplerGap { sampler_gap, sampler_gap_max, sampler_ratio } = SamplerGap::of(&groups, UpdateImage::Own);
        assert_eq!((sampler_gap, sampler_gap_max), (0.25, 0.5));
        assert!((sampler_ratio - ((-0.5f64).exp() + 1.0 + 0.25f64.exp()) / 3.0).abs() < 1e-12);
        let none = SamplerGap::of(&groups[1..], UpdateImage::Own);
        assert!(none.sampler_gap.is_nan() && none.sampler_gap_max.is_nan() && none.sampler_ratio.is_nan());
    }
}
