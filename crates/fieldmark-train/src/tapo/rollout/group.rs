//! Rollouts of TAPO: n₁ responses to the anchor image and n₂ responses to the positive image, scored, in one group.
//!
//! Fine-R1 (arXiv 2602.07605), section 4.3: responses are drawn from π_old(·|q,x) and π_old(·|q,x⁺), and the n₁ + n₂ of
//! a group share one mean and standard deviation. Each response has its own random stream (run, step, chunk, prompt,
//! role, index); the released code uses the same streams for every prompt of every step.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use burn::tensor::Device;
use fieldmark_generate::{FinishReason, GenerationConfig, Generator, Request, Response, Sampling};
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::{Sequence, SpecialTokens, Tokenizer};
use fieldmark_stream::StreamKey;
use serde::{Deserialize, Serialize};

use super::image_role::ImageRole;
use crate::{
    TrainError,
    reward::{RewardInput, RewardScore, WeightedRewards},
    tapo::advantage::{Estimator, GroupRewards},
    trainer::{Interrupt, Sampled},
};

/// How often progress is told while no response ends.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// One training sample: the same question about an anchor image, a positive image of the same class, and a negative
/// image of the most similar other class. Each is a whole prompt with its own image, so the three may differ in length.
#[derive(Debug, Clone)]
pub struct TripletPrompt {
    /// The question about the anchor.
    pub anchor: Sequence,
    /// The question about the positive. Not needed if no responses are sampled from it.
    pub positive: Option<Sequence>,
    /// The question about the negative. Not needed if the loss does not use it
    /// ([`TapoLossConfig::needs_negative`](crate::tapo::TapoLossConfig::needs_negative)).
    pub negative: Option<Sequence>,
    /// The right answer for anchor and positive.
    pub truth: String,
    /// Other names of the right answer, which are as right.
    pub aliases: Vec<String>,
}

impl TripletPrompt {
    /// Returns the question about the image of `role`.
    ///
    /// # Errors
    /// Returns an error if `role` is the positive and the sample has none.
    pub fn about(&self, role: ImageRole) -> Result<&Sequence, TrainError> {
        match role {
            ImageRole::Anchor => Ok(&self.anchor),
            ImageRole::Positive => self.positive.as_ref().ok_or_else(|| TrainError::Sample {
                row: self.anchor.name.clone(),
                reason: "has no positive image; set tapo.positive_rollouts = 0 to do without".into(),
            }),
        }
    }
}

/// One scored response. Checkpoints store it without loss of a bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Image that the response was sampled from.
    pub role: ImageRole,
    /// Token ids, the sampler's log-probabilities, and why the response ended.
    pub response: Response,
    /// Text without special tokens.
    pub text: String,
    /// Reward and its parts.
    pub reward: RewardScore,
    /// Advantage. If the estimator needs all groups of the step ([`Estimator::is_over_step`]), it is not final until they
    /// are known.
    pub advantage: f64,
    /// log π_old of each token given the update's image, from the policy that sampled the response. Empty until scored.
    #[serde(with = "super::widened")]
    pub old_logp: Vec<f32>,
}

/// All responses to one sample. They share a mean reward.
#[derive(Debug, Clone)]
pub struct Group {
    /// The sample.
    pub prompt: TripletPrompt,
    /// n₁ rollouts from the anchor, then n₂ from the positive.
    pub rollouts: Vec<Rollout>,
}

impl Group {
    /// Mean of the reward that the group filter looks at, usually in 0..=1. NaN for a group without rollouts.
    pub fn mean_accuracy(&self) -> f64 {
        self.rollouts.iter().map(|rollout| rollout.reward.accuracy).sum::<f64>() / self.rollouts.len() as f64
    }
}

/// Number of responses sampled from each image of a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RolloutCounts {
    /// n₁, from the anchor.
    pub anchor: usize,
    /// n₂, from the positive.
    pub positive: usize,
}

/// Samples the responses to `prompts`, scores them and puts them into groups.
///
/// `key` names the step and the chunk; `first` is the number of the first prompt within the chunk. If `estimator` needs
/// them, greedy responses are generated too, and only their rewards are used. `tell` hears what was decoded since it was
/// last called. If `stop` is set, returns at once with [`GenerateError::Stopped`](fieldmark_generate::GenerateError).
///
/// # Errors
/// Returns an error if a prompt does not fit the model or a reward is not finite.
#[allow(clippy::too_many_arguments)]
pub(crate) fn rollout_groups(
    model: &Qwen25Vl,
    prompts: &[TripletPrompt],
    first: usize,
    counts: RolloutCounts,
    estimator: Estimator,
    generation: &GenerationConfig,
    rewards: &WeightedRewards,
    tokenizer: &Tokenizer,
    key: &StreamKey,
    device: &Device,
    (stop, tell): (&Interrupt, &mut dyn FnMut(Sampled)),
) -> Result<Vec<Group>, TrainError> {
    let roles = [(ImageRole::Anchor, counts.anchor), (ImageRole::Positive, counts.positive)];
    let roles = || roles.into_iter().filter(|(_, count)| *count > 0);
    let mut requests = Vec::with_capacity(2 * prompts.len());
    for (i, prompt) in prompts.iter().enumerate() {
        for (role, count) in roles() {
            let key = key.number((first + i) as u64).word(role.word());
            let streams = (0..count).map(|index| key.number(index as u64).stream()).collect();
            requests.push(Request { prompt: prompt.about(role)?.clone(), streams });
        }
    }
    let mut generate = |requests: &[Request], generation: GenerationConfig| -> Result<_, TrainError> {
        let generator = Generator::new(model, generation, tokenizer.pad(), device)?.with_stop(stop.flag());
        let (mut sampled, mut told) = (Sampled::default(), Instant::now());
        let responses = generator.generate_with(requests, |token| {
            sampled.tokens += 1;
            sampled.responses += usize::from(token.is_last);
            if token.is_last || told.elapsed() >= TELL_EVERY {
                tell(std::mem::take(&mut sampled));
                told = Instant::now();
            }
        })?;
        Ok(responses.into_iter())
    };
    let mut responses = generate(&requests, generation.clone())?;
    // One greedy response per prompt and image that has rollouts. Nothing is drawn from its stream.
    requests.iter_mut().for_each(|request| request.streams.truncate(1));
    let mut greedy = if estimator.wants_greedy() {
        generate(&requests, GenerationConfig { sampling: Sampling::greedy(), ..generation.clone() })?
    } else {
        Vec::new().into_iter()
    };
    let scored = |response: &Response, prompt: &TripletPrompt| -> Result<(String, RewardScore), TrainError> {
        let text = tokenizer.decode(response.text_ids(), SpecialTokens::Skip)?;
        let input = RewardInput::new(&text, &prompt.truth)
            .with_aliases(&prompt.aliases)
            .with_sample(&prompt.anchor.name)
            .with_tokens(response.ids.len(), generation.max_new_tokens);
        let reward = rewards.parts(&input);
        Ok((text, reward))
    };
    let mut groups = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        let mut rollouts = Vec::with_capacity(counts.anchor + counts.positive);
        let mut baselines = Vec::new();
        for (role, _) in roles() {
            let drawn = responses.next().unwrap_or_default();
            for baseline in greedy.next().unwrap_or_default() {
                let (_, reward) = scored(&baseline, prompt)?;
                baselines.extend(std::iter::repeat_n(reward.overall, drawn.len()));
            }
            for response in drawn {
                let (text, reward) = scored(&response, prompt)?;
                rollouts.push(Rollout { role, response, text, reward, advantage: 0.0, old_logp: Vec::new() });
            }
        }
        let of_group = GroupRewards {
            overall: rollouts.iter().map(|rollout| rollout.reward.overall).collect(),
            greedy: baselines,
            each: rewards.each(rollouts.iter().map(|rollout| &rollout.reward)),
        };
        for (rollout, advantage) in rollouts.iter_mut().zip(estimator.within_group(&of_group)?) {
            rollout.advantage = advantage;
        }
        groups.push(Group { prompt: prompt.clone(), rollouts });
    }
    Ok(groups)
}

/// Mean of `value` over the rollouts that `keep` selects, for metrics. NaN if there are none: a step that the surplus
/// of the last step filled draws nothing.
pub(crate) fn mean(groups: &[Group], keep: impl Fn(&Rollout) -> bool, value: impl Fn(&Rollout) -> f64) -> f64 {
    let (sum, count) = rollouts(groups)
        .filter(|rollout| keep(rollout))
        .fold((0.0, 0usize), |(sum, count), rollout| (sum + value(rollout), count + 1));
    sum / count as f64
}

/// Mean of each reward over all rollouts, unweighted.
pub(crate) fn mean_parts(groups: &[Group]) -> BTreeMap<String, f64> {
    let names: BTreeSet<&String> = rollouts(groups).flat_map(|rollout| rollout.reward.parts.keys()).collect();
    let part = |name: &String| mean(groups, |_| true, |rollout| rollout.reward.parts[name]);
    names.into_iter().map(|name| (name.clone(), part(name))).collect()
}

fn rollouts(groups: &[Group]) -> impl Iterator<Item = &Rollout> {
    groups.iter().flat_map(|group| &group.rollouts)
}

/// 1 if the response was cut at the length limit, else 0.
pub(crate) fn truncated(rollout: &Rollout) -> f64 {
    f64::from(u8::from(rollout.response.finish == FinishReason::Length))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn rollout(role: ImageRole, accuracy: f64) -> Rollout {
        Rollout {
            role,
            response: Response { ids: Vec::new(), logps: Vec::new(), finish: FinishReason::Stop },
            text: String::new(),
            reward: RewardScore { overall: accuracy, accuracy, ..RewardScore::default() },
            advantage: 0.0,
            old_logp: Vec::new(),
        }
    }

    pub(crate) fn group(rollouts: Vec<Rollout>) -> Group {
        let empty = Sequence { name: String::new(), ids: Vec::new(), images: Vec::new() };
        let prompt =
            TripletPrompt { anchor: empty, positive: None, negative: None, truth: String::new(), aliases: Vec::new() };
        Group { prompt, rollouts }
    }

    #[test]
    fn a_mean_over_nothing_is_not_a_number() {
        let groups = [group(vec![rollout(ImageRole::Anchor, 1.0), rollout(ImageRole::Anchor, 0.5)])];
        let accuracy = |role| mean(&groups, |rollout| rollout.role == role, |rollout| rollout.reward.accuracy);
        assert_eq!(accuracy(ImageRole::Anchor), 0.75);
        assert!(accuracy(ImageRole::Positive).is_nan());
        assert!(mean(&[], |_| true, |rollout| rollout.reward.accuracy).is_nan());
    }
}
