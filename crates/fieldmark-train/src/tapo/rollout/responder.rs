//! Samples and scores responses to prompts, on the workers of all devices.

use burn::tensor::Device;
use fieldmark_generate::GenerationConfig;
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::Tokenizer;
use fieldmark_stream::StreamKey;

use crate::{
    TrainError,
    parallel::{Replicas, on_replicas},
    reward::WeightedRewards,
    tapo::{
        advantage::Estimator,
        rollout::{Group, RolloutCounts, TripletPrompt, rollout_groups},
    },
};

/// The parts besides a model that turn prompts into scored responses: tokenizer, end tokens and rewards.
pub(in crate::tapo) struct Responder<'a> {
    pub(in crate::tapo) tokenizer: &'a Tokenizer,
    pub(in crate::tapo) eos: Vec<u32>,
    pub(in crate::tapo) rewards: WeightedRewards,
}

/// Which responses to sample, and with which random streams.
pub(in crate::tapo) struct Wanted<'a> {
    pub(in crate::tapo) counts: RolloutCounts,
    pub(in crate::tapo) estimator: Estimator,
    pub(in crate::tapo) generation: &'a GenerationConfig,
    pub(in crate::tapo) key: &'a StreamKey,
}

impl Responder<'_> {
    /// Samples a group of responses to each prompt and calls `finish` on each group, on the device that sampled it.
    /// Returns the results of `finish` in the order of the prompts. `model` and `replicas` must not track gradients.
    pub(in crate::tapo) fn respond<R: Send>(
        &self,
        model: &Qwen25Vl,
        prompts: &[TripletPrompt],
        wanted: &Wanted<'_>,
        replicas: &Replicas,
        finish: impl Fn(&Qwen25Vl, Group, &Device) -> Result<R, TrainError> + Sync,
    ) -> Result<Vec<R>, TrainError> {
        let found =
            on_replicas(model, &shares(prompts, replicas.len()), replicas, |model, &(first, prompts), device| {
                let Wanted { counts, estimator, generation, key } = *wanted;
                let groups = rollout_groups(
                    model,
                    prompts,
                    first,
                    counts,
                    estimator,
                    generation,
                    &self.rewards,
                    self.tokenizer,
                    key,
                    device,
                )?;
                groups.into_iter().map(|group| finish(model, group, device)).collect::<Result<Vec<R>, _>>()
            })?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// Splits the prompts into one share per worker, each with the number of its first prompt.
fn shares(prompts: &[TripletPrompt], workers: usize) -> Vec<(usize, &[TripletPrompt])> {
    let share = prompts.len().div_ceil(workers).max(1);
    prompts.chunks(share).enumerate().map(|(i, prompts)| (i * share, prompts)).collect()
}
