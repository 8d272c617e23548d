//! Samples and scores responses to prompts, on the workers of all devices.

use burn::tensor::Device;
use fieldmark_generate::{GenerateError, GenerationConfig};
use fieldmark_model::Qwen25Vl;
use fieldmark_processor::Tokenizer;
use fieldmark_stream::StreamKey;

use crate::{
    TrainError,
    parallel::{Replicas, on_replicas_telling},
    reward::WeightedRewards,
    tapo::{
        advantage::Estimator,
        rollout::{Group, RolloutCounts, TripletPrompt, rollout_groups},
    },
    trainer::{Interrupt, Sampled},
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
    /// Ends the sampling early.
    pub(in crate::tapo) stop: &'a Interrupt,
}

impl Wanted<'_> {
    /// Number of responses that are sampled to `prompts` prompts, greedy ones included.
    pub(in crate::tapo) fn responses(&self, prompts: usize) -> usize {
        let RolloutCounts { anchor, positive } = self.counts;
        let greedy = if self.estimator.wants_greedy() { anchor.min(1) + positive.min(1) } else { 0 };
        prompts * (anchor + positive + greedy)
    }
}

impl Responder<'_> {
    /// Samples a group of responses to each prompt and calls `finish` on each group, on the device that sampled it.
    /// Returns the results of `finish` in the order of the prompts. `hear` receives what was decoded since its last call.
    /// `model` and `replicas` must not track gradients.
    pub(in crate::tapo) fn respond<R: Send>(
        &self,
        model: &Qwen25Vl,
        prompts: &[TripletPrompt],
        wanted: &Wanted<'_>,
        replicas: &Replicas,
        finish: impl Fn(&Qwen25Vl, Group, &Device) -> Result<R, TrainError> + Sync,
        hear: &mut dyn FnMut(Sampled),
    ) -> Result<Vec<R>, TrainError> {
        let shares = shares(prompts, replicas.len());
        let work = |model: &Qwen25Vl, &(first, prompts): &_, device: &Device, tell: &mut dyn FnMut(Sampled)| {
            let Wanted { counts, estimator, generation, key, stop } = *wanted;
            let (rewards, tokenizer) = (&self.rewards, self.tokenizer);
            let watch = (stop, tell);
            let groups = rollout_groups(
                model, prompts, first, counts, estimator, generation, rewards, tokenizer, key, device, watch,
            )?;
            let finish =
                |group| if stop.asked() { Err(GenerateError::Stopped.into()) } else { finish(model, group, device) };
            groups.into_iter().map(finish).collect::<Result<Vec<R>, _>>()
        };
        let found = on_replicas_telling(model, &shares, replicas, work, hear)?;
        Ok(found.into_iter().flatten().collect())
    }
}

/// Splits the prompts into one share per worker, each with the number of its first prompt.
fn shares(prompts: &[TripletPrompt], workers: usize) -> Vec<(usize, &[TripletPrompt])> {
    let share = prompts.len().div_ceil(workers).max(1);
    prompts.chunks(share).enumerate().map(|(i, prompts)| (i * share, prompts)).collect()
}
