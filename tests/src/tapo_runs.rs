//! TAPO on the fixture models: prompts with random images, rewards that look at words, and steps small enough to
//! compute again. With `descent`, the step of a parameter is its gradient, so the weights before and after show the
//! gradient.

use std::{collections::BTreeSet, sync::Mutex};

use burn::tensor::Device;
use fieldmark::{
    model::{Qwen25Vl, Qwen25VlConfig},
    stream::StreamKey,
    train::{
        TrainError, Trainer,
        optim::{AdamWSettings, LrSchedule, LrShape},
        reward::{Reward, RewardInput, RewardRegistry},
        tapo::{
            RolloutMetrics, TapoConfig, TapoMetrics, TapoTrainer, TripletSource,
            rollout::{Group, GroupFilter, TripletPrompt},
        },
        trainer::{Finding, TrainEvent},
    },
};

use crate::{
    prompts::{Part, sequence},
    training::{VOCABULARY, word_tokenizer},
};

/// The device of these runs.
pub fn device() -> Device {
    Device::flex().autodiff()
}

/// 1 if the response has one of the words of the truth, else 0.
pub struct Words;

impl Reward for Words {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let RewardInput { response, truth, .. } = input;
        let wanted: BTreeSet<&str> = truth.split(' ').collect();
        f64::from(u8::from(response.split(' ').any(|word| wanted.contains(word))))
    }
}

/// The share of the response's words that end in an even number. It differs between responses.
pub struct Even;

impl Reward for Even {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let words: Vec<&str> = input.response.split(' ').collect();
        words.iter().filter(|word| word.ends_with(['0', '2', '4', '6', '8'])).count() as f64 / words.len() as f64
    }
}

/// The number in the first word of the response, divided by the vocabulary size.
pub struct First;

impl Reward for First {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let word = input.response.split(' ').next().and_then(|word| word.strip_prefix('t'));
        word.and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0) / f64::from(VOCABULARY)
    }
}

/// A registry with other rewards under the default names.
pub fn registry() -> RewardRegistry {
    RewardRegistry::default().with("accuracy", Words).with("format", Even)
}

/// Returns the words of every `nth` token.
pub fn every(nth: usize) -> String {
    (8..VOCABULARY).step_by(nth).map(|id| format!("t{id}")).collect::<Vec<_>>().join(" ")
}

/// A source of prompts that records which ones were requested.
pub struct Source {
    /// One prompt per row.
    pub prompts: Vec<TripletPrompt>,
    /// Row and epoch of each call.
    pub asked: Mutex<Vec<(usize, usize)>>,
}

impl Source {
    /// Creates a source of `prompts`.
    pub fn new(prompts: Vec<TripletPrompt>) -> Self {
        Self { prompts, asked: Mutex::default() }
    }
}

impl TripletSource for Source {
    fn len(&self) -> usize {
        self.prompts.len()
    }

    fn prompt(&self, row: usize, epoch: usize) -> Result<TripletPrompt, TrainError> {
        self.asked.lock().unwrap().push((row, epoch));
        Ok(self.prompts[row].clone())
    }
}

/// Makes a question about three images. Its length depends on the row, and the image sizes on role and row.
pub fn prompt(config: &Qwen25VlConfig, row: u64, truth: &str) -> TripletPrompt {
    let text: Vec<u32> = (0..3 + row as u32).map(|i| 20 + 7 * i + 50 * row as u32).collect();
    let about = |h: usize, w: usize, image: u64| {
        let image = Part::Image { h, w, seed: 10 * row + image };
        sequence(&[Part::Text(text.clone()), image, Part::Text(vec![9, 11])], config)
    };
    let longer = 4 + 2 * (row as usize % 3);
    TripletPrompt {
        anchor: about(4, longer, 0),
        positive: Some(about(6, 4, 1)),
        negative: Some(about(2, 8, 2)),
        truth: truth.into(),
        aliases: Vec::new(),
    }
}

/// Makes a prompt for each of `truths`.
pub fn prompts(config: &Qwen25VlConfig, truths: &[&str]) -> Vec<TripletPrompt> {
    (0..).zip(truths).map(|(row, truth)| prompt(config, row, truth)).collect()
}

/// A filter that keeps every group.
pub fn no_filter() -> GroupFilter {
    GroupFilter { enabled: false, ..GroupFilter::default() }
}

/// The learning rate at which `descent` subtracts the whole gradient from a parameter.
pub const FULL_RATE: f64 = 1e6;

/// Settings with which AdamW is plain gradient descent, p − p′ = gradient: no moments, and an ε far above any gradient.
pub fn descent() -> TapoConfig {
    TapoConfig {
        epochs: 1,
        prompts_per_step: 2,
        chunk: 2,
        max_tries: 3,
        anchor_rollouts: 2,
        positive_rollouts: 2,
        temperature: 0.9,
        top_p: 0.95,
        max_new_tokens: 5,
        generation_batch: 8,
        filter: no_filter(),
        batch: 64,
        micro_batch: 3,
        schedule: LrSchedule { lr: FULL_RATE, shape: LrShape::Constant, warmup: 0, released: false },
        adamw: AdamWSettings { beta1: 0.0, beta2: 0.0, eps: 1e6, weight_decay: 0.0, ..AdamWSettings::default() },
        max_grad_norm: f64::INFINITY,
        ..TapoConfig::default()
    }
}

/// Like [`descent`], with steps small enough to keep the model intact and large enough for ratios to be clipped.
pub fn slow_descent() -> TapoConfig {
    TapoConfig { schedule: LrSchedule { lr: 0.05 * FULL_RATE, ..descent().schedule }, ..descent() }
}

/// The events of a run, and the model after it.
pub struct Run {
    /// Groups of each step, in the order drawn.
    pub steps: Vec<Vec<Group>>,
    /// Metrics of each step's rollouts.
    pub drawn: Vec<RolloutMetrics>,
    /// Metrics of each update.
    pub updates: Vec<TapoMetrics>,
    /// What the run said about itself.
    pub findings: Vec<Finding>,
    /// The model at the end.
    pub after: Qwen25Vl,
}

/// The tokens that end a response: every sixth one, so that lengths differ.
pub fn ends() -> Vec<u32> {
    (2..VOCABULARY).step_by(6).filter(|&id| id == 2 || id > 8).collect()
}

/// Makes `steps` steps from `model`, with the rewards of `registry`.
pub fn run_with(
    model: &Qwen25Vl,
    source: &Source,
    config: &TapoConfig,
    registry: &RewardRegistry,
    steps: usize,
) -> Run {
    let (tokenizer, streams) = (word_tokenizer(), StreamKey::new(5));
    let trainer =
        TapoTrainer::new(model, source, &tokenizer, ends(), config.clone(), registry, streams, &device()).unwrap();
    let (mut rollouts, mut drawn, mut updates) = (vec![Vec::new()], Vec::new(), Vec::new());
    let mut findings = Vec::new();
    let after = trainer.with_steps(steps).train(model.clone(), |event| {
        match event {
            TrainEvent::Rollouts(groups, _) => rollouts.last_mut().unwrap().extend(groups.to_vec()),
            TrainEvent::Drawn(metrics, _) => {
                drawn.push(metrics.clone());
                rollouts.push(Vec::new());
            }
            TrainEvent::TapoUpdate(metrics, _) => updates.push(metrics.clone()),
            TrainEvent::Finding(found) => findings.push(found.clone()),
            _ => {}
        }
        Ok(())
    });
    rollouts.pop();
    Run { steps: rollouts, drawn, updates, findings, after: after.unwrap() }
}

/// Makes `steps` steps from `model`.
pub fn run(model: &Qwen25Vl, source: &Source, config: &TapoConfig, steps: usize) -> Run {
    run_with(model, source, config, &registry(), steps)
}
