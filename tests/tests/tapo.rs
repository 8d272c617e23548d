//! TAPO steps on the fixture models: what is sampled, kept and carried, which model and image each log-probability comes
//! from, and that an update is the gradient of the loss written down plainly. A parameter's step is its gradient here
//! (`descent`), so that the weights before and after show it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use burn::{
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData},
};
use fieldmark::{
    generate::{FinishReason, GenerationConfig, Generator, Request, StreamKey},
    model::{GridThw, Qwen25Vl, Qwen25VlConfig, TrainableParts},
    processor::Sequence,
    train::{
        AdamWSettings, BatchSize, Estimator, Group, GroupFilter, GroupVerdict, LossAverage, LossNorm, LrSchedule,
        LrShape, Reward, RewardInput, RewardRegistry, Role, Rollout, RolloutGroup, RolloutMetrics, TapoConfig,
        TapoEvent, TapoInputs, TapoLossConfig, TapoMetrics, TapoParts, TapoTrainer, TermSchedule, TrainError,
        TripletPrompt, TripletSource, UpdateImage, group_advantages, tapo_loss,
    },
};
use fieldmark_tests::{
    prompts::{MODELS, Part, distance, load, sequence, values},
    training::{Named, VOCABULARY, difference, gradients, parameters, plain_logps, relative, word_tokenizer},
};

fn device() -> Device {
    Device::flex().autodiff()
}

/// 1 where the response has one of the truth's words.
struct Words;

impl Reward for Words {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let RewardInput { response, truth, .. } = input;
        let wanted: BTreeSet<&str> = truth.split(' ').collect();
        f64::from(u8::from(response.split(' ').any(|word| wanted.contains(word))))
    }
}

/// The share of the response's words that are `t` with an even number: differs between responses.
struct Even;

impl Reward for Even {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let words: Vec<&str> = input.response.split(' ').collect();
        words.iter().filter(|word| word.ends_with(['0', '2', '4', '6', '8'])).count() as f64 / words.len() as f64
    }
}

/// The number of the response's first word.
struct First;

impl Reward for First {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let word = input.response.split(' ').next().and_then(|word| word.strip_prefix('t'));
        word.and_then(|number| number.parse::<f64>().ok()).unwrap_or(0.0) / f64::from(VOCABULARY)
    }
}

/// The released weights over other rewards.
fn registry() -> RewardRegistry {
    RewardRegistry::default().with("accuracy", Words).with("format", Even)
}

/// The words of every `nth` token.
fn every(nth: usize) -> String {
    (8..VOCABULARY).step_by(nth).map(|id| format!("t{id}")).collect::<Vec<_>>().join(" ")
}

/// Prompts on random images, and which were asked for.
struct Source {
    prompts: Vec<TripletPrompt>,
    asked: Mutex<Vec<(usize, usize)>>,
}

impl Source {
    fn new(prompts: Vec<TripletPrompt>) -> Self {
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

/// A question of its own length about three images, whose sizes in patches differ between roles and rows.
fn prompt(config: &Qwen25VlConfig, row: u64, truth: &str) -> TripletPrompt {
    let text: Vec<u32> = (0..3 + row as u32).map(|i| 20 + 7 * i + 50 * row as u32).collect();
    let about = |h: usize, w: usize, image: u64| {
        let image = Part::Image { h, w, seed: 10 * row + image };
        sequence(&[Part::Text(text.clone()), image, Part::Text(vec![9, 11])], config)
    };
    let longer = 4 + 2 * (row as usize % 3);
    TripletPrompt {
        anchor: about(4, longer, 0),
        positive: about(6, 4, 1),
        negative: Some(about(2, 8, 2)),
        truth: truth.into(),
    }
}

fn prompts(config: &Qwen25VlConfig, truths: &[&str]) -> Vec<TripletPrompt> {
    (0..).zip(truths).map(|(row, truth)| prompt(config, row, truth)).collect()
}

fn no_filter() -> GroupFilter {
    GroupFilter { enabled: false, ..GroupFilter::default() }
}

/// The rate at which `descent` takes a whole gradient off a parameter.
const FULL_RATE: f64 = 1e6;

/// With an ε far above any gradient, an AdamW step without memory is plain descent: p − p′ = gradient.
fn descent() -> TapoConfig {
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

/// Steps so small that the model stays a model, and so large that ratios leave the clips.
fn slow_descent() -> TapoConfig {
    TapoConfig { schedule: LrSchedule { lr: 0.05 * FULL_RATE, ..descent().schedule }, ..descent() }
}

/// What a run showed, and the model after it.
struct Run {
    /// Groups of each step in the order drawn.
    steps: Vec<Vec<Group>>,
    drawn: Vec<RolloutMetrics>,
    updates: Vec<TapoMetrics>,
    after: Qwen25Vl,
}

/// Every sixth token ends a response, so that lengths differ.
fn ends() -> Vec<u32> {
    (2..VOCABULARY).step_by(6).filter(|&id| id == 2 || id > 8).collect()
}

fn run_with(model: &Qwen25Vl, source: &Source, config: &TapoConfig, registry: &RewardRegistry, steps: usize) -> Run {
    let (tokenizer, streams) = (word_tokenizer(), StreamKey::new(5));
    let trainer =
        TapoTrainer::new(model, source, &tokenizer, ends(), config.clone(), registry, streams, &device()).unwrap();
    let (mut rollouts, mut drawn, mut updates) = (vec![Vec::new()], Vec::new(), Vec::new());
    let after = trainer.with_steps(steps).train(model.clone(), |event| {
        match event {
            TapoEvent::Rollouts(groups) => rollouts.last_mut().unwrap().extend(groups.to_vec()),
            TapoEvent::Drawn(metrics, _) => {
                drawn.push(metrics.clone());
                rollouts.push(Vec::new());
            }
            TapoEvent::Update(metrics, _) => updates.push(metrics.clone()),
        }
        Ok(())
    });
    rollouts.pop();
    Run { steps: rollouts, drawn, updates, after: after.unwrap() }
}

fn run(model: &Qwen25Vl, source: &Source, config: &TapoConfig, steps: usize) -> Run {
    run_with(model, source, config, &registry(), steps)
}

/// The image that a rollout is scored on.
fn scored_on<'a>(group: &'a Group, rollout: &Rollout, image: UpdateImage) -> &'a Sequence {
    match (image, rollout.role) {
        (UpdateImage::Own, Role::Positive) => &group.prompt.positive,
        _ => &group.prompt.anchor,
    }
}

/// Loss and gradients of one update over `groups`, every sequence alone, in one graph.
fn plainly(model: &Qwen25Vl, groups: &[&Group], config: &TapoConfig, reference: &Qwen25Vl) -> (TapoParts, Named) {
    let device = device();
    let all: Vec<(&Group, &Rollout)> =
        groups.iter().flat_map(|group| group.rollouts.iter().map(|rollout| (*group, rollout))).collect();
    let size = |part: &[(&Group, &Rollout)]| BatchSize {
        tokens: part.iter().map(|(_, rollout)| rollout.response.ids.len()).sum(),
        sequences: part.len(),
    };
    let width = all.iter().map(|(_, rollout)| rollout.response.ids.len()).max().unwrap();
    let row = |values: Tensor<1>| {
        let missing = width - values.dims()[0];
        if missing == 0 { values } else { Tensor::cat(vec![values, Tensor::zeros([missing], &device)], 0) }
    };
    let constant = |values: Vec<f32>| {
        let count = values.len();
        row(Tensor::from_data(TensorData::new(values, [count]), &device))
    };
    let cut = match config.loss_norm {
        LossNorm::Batch => all.len(),
        LossNorm::Micro => config.micro_batch,
    };
    let micros = all.chunks(cut).len();
    let mut parts = TapoParts::default();
    let mut losses = Vec::new();
    for part in all.chunks(cut) {
        let rows = |value: &dyn Fn(&Group, &Rollout) -> Tensor<1>| {
            Tensor::stack::<2>(part.iter().map(|(group, rollout)| value(group, rollout)).collect(), 0)
        };
        let logps = |model: &Qwen25Vl, prompt: &Sequence, rollout: &Rollout| {
            row(plain_logps(model, prompt, &rollout.response.ids, config.temperature, &device))
        };
        let on_image = |group: &Group, rollout: &Rollout| scored_on(group, rollout, config.update_image).clone();
        let inputs = TapoInputs {
            logp_bt: rows(&|group, rollout| logps(model, &on_image(group, rollout), rollout)),
            old_logp_bt: rows(&|_, rollout| constant(rollout.old_logp.clone())),
            neg_logp_bt: all
                .iter()
                .all(|(group, _)| group.prompt.negative.is_some())
                .then(|| rows(&|group, rollout| logps(model, group.prompt.negative.as_ref().unwrap(), rollout))),
            ref_logp_bt: (config.loss.kl_ref != 0.0)
                .then(|| rows(&|group, rollout| logps(reference, &on_image(group, rollout), rollout))),
            advantages_bt: rows(&|_, rollout| constant(vec![rollout.advantage as f32; width])),
            mask_bt: rows(&|_, rollout| constant(vec![1.0; rollout.response.ids.len()])),
        };
        let normaliser = config.loss_norm.normaliser(size(&all), size(part), micros);
        let normaliser = normaliser.with_token_budget(config.max_new_tokens);
        let found = tapo_loss(inputs, &config.loss, &normaliser);
        parts += found.parts;
        losses.push(found.total);
    }
    let loss = Tensor::cat(losses, 0).sum();
    (parts, gradients(model, &GradientsParams::from_grads(loss.backward(), model)))
}

fn step_of(before: &Qwen25Vl, after: &Qwen25Vl) -> Named {
    difference(&parameters(before), &parameters(after))
}

/// The update that led from `before` to `after` is the plain one over `groups`.
fn check(before: &Qwen25Vl, after: &Qwen25Vl, groups: &[&Group], update: &TapoMetrics, config: &TapoConfig) {
    check_against(before, after, groups, update, config, before);
}

fn check_against(
    before: &Qwen25Vl,
    after: &Qwen25Vl,
    groups: &[&Group],
    update: &TapoMetrics,
    config: &TapoConfig,
    reference: &Qwen25Vl,
) {
    let (parts, expected) = plainly(before, groups, config, reference);
    let tokens: usize = groups.iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.response.ids.len()).sum();
    assert_eq!(update.tokens, tokens);
    let found = update.parts;
    for (name, found, expected) in [
        ("loss", found.loss, parts.loss),
        ("pg_loss", found.pg_loss, parts.pg_loss),
        ("entropy", found.entropy, parts.entropy),
        ("kl_ref", found.kl_ref, parts.kl_ref),
        ("ratio", found.ratio, parts.ratio),
        ("clipped_high", found.clipped_high, parts.clipped_high),
        ("clipped_low", found.clipped_low, parts.clipped_low),
    ] {
        assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{name} {found}, plainly {expected}");
    }
    for (found, expected) in [(found.kl_neg, parts.kl_neg), (found.neg_entropy, parts.neg_entropy)] {
        let close = (found - expected).abs() < 1e-4 * expected.abs().max(1.0);
        assert!(if config.loss.needs_negative() { close } else { found.is_nan() }, "{found}, plainly {expected}");
    }
    let mut step = step_of(before, after);
    let rate = config.schedule.lr / FULL_RATE;
    step.iter_mut().flat_map(|(_, values)| values).for_each(|x| *x /= rate as f32);
    let error = relative(&step, &expected);
    assert!(error < 1e-4, "gradient differs by {error} of its largest entry");
    let norm = expected.iter().flat_map(|(_, values)| values).map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    assert!((update.grad_norm - norm).abs() < 1e-4 * norm);
}

fn all(groups: &[Group]) -> Vec<&Group> {
    groups.iter().collect()
}

#[test]
fn a_group_is_n1_anchor_then_n2_positive_rollouts_with_their_rewards_and_advantages() {
    let model = load(MODELS[0], &device());
    let half = every(7);
    let source = Source::new(prompts(model.config(), &[&half, &half, &half]));
    let config = TapoConfig { anchor_rollouts: 3, chunk: 3, prompts_per_step: 3, ..descent() };
    let run = run(&model, &source, &config, 1);
    assert_eq!(run.steps[0].len(), 3);
    let mut differ = 0;
    for group in &run.steps[0] {
        let roles: Vec<Role> = group.rollouts.iter().map(|rollout| rollout.role).collect();
        assert_eq!(roles, [Role::Anchor, Role::Anchor, Role::Anchor, Role::Positive, Role::Positive]);
        let ids: BTreeSet<&[u32]> = group.rollouts.iter().map(|rollout| rollout.response.ids.as_slice()).collect();
        assert!(ids.len() > 2, "every response has a stream of its own");
        for rollout in &group.rollouts {
            let text: Vec<String> = rollout.response.text_ids().iter().map(|id| format!("t{id}")).collect();
            assert_eq!(rollout.text, text.join(" "));
            let input = RewardInput::new(&rollout.text, &half);
            let expected = 0.9 * Words.score(&input) + 0.1 * Even.score(&input);
            assert!((rollout.reward.overall - expected).abs() < 1e-12);
            assert_eq!(rollout.reward.accuracy, Words.score(&input));
            assert_eq!(rollout.reward.parts["format"], Even.score(&input));
        }
        let rewards: Vec<f64> = group.rollouts.iter().map(|rollout| rollout.reward.overall).collect();
        let mean = rewards.iter().sum::<f64>() / 5.0;
        let deviation = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 4.0).sqrt();
        differ += usize::from(deviation > 0.1);
        for (rollout, reward) in group.rollouts.iter().zip(&rewards) {
            let expected = if deviation == 0.0 { 0.0 } else { (reward - mean) / (deviation + 1e-6) };
            assert!((rollout.advantage - expected).abs() < 1e-9);
        }
        assert_eq!(group_advantages(&rewards).unwrap()[0], group.rollouts[0].advantage);
    }
    assert!(differ > 0, "some group must have right and wrong answers");
    let rollouts = || run.steps[0].iter().flat_map(|group| &group.rollouts);
    assert!(rollouts().map(|rollout| rollout.response.ids.len()).collect::<BTreeSet<_>>().len() > 2);
    assert!(rollouts().any(|rollout| rollout.response.finish == FinishReason::Stop));
}

#[test]
fn old_log_probabilities_are_those_of_the_sampling_policy_on_the_updates_image() {
    for name in MODELS {
        let model = load(name, &device());
        let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
        for update_image in [UpdateImage::Anchor, UpdateImage::Own] {
            for temperature in [1.0, 0.7] {
                let config = TapoConfig { update_image, temperature, ..descent() };
                let run = run(&model, &source, &config, 1);
                for group in &run.steps[0] {
                    for rollout in &group.rollouts {
                        let ids = &rollout.response.ids;
                        let on = |prompt: &Sequence| values(plain_logps(&model, prompt, ids, temperature, &device()));
                        let expected = on(scored_on(group, rollout, update_image));
                        assert!(distance(&rollout.old_logp, &expected) < 1e-4);

                        let sampler: Vec<f32> = rollout.response.logps.iter().map(|&logp| logp as f32).collect();
                        let apart = distance(&sampler, &rollout.old_logp);
                        if rollout.role == Role::Anchor || update_image == UpdateImage::Own {
                            assert!(apart < 1e-3, "{apart}");
                        } else {
                            assert!(apart > 1e-3, "sampled on another image: {apart}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn the_first_update_is_the_plain_gradient_at_ratio_one() {
    for name in MODELS {
        let model = load(name, &device());
        let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
        for update_image in [UpdateImage::Anchor, UpdateImage::Own] {
            let config = TapoConfig { update_image, ..descent() };
            let run = run(&model, &source, &config, 1);
            let update = &run.updates[0];
            assert!((update.parts.ratio - 1.0).abs() < 1e-5);
            let (mut sum, mut tokens) = (0.0, 0.0);
            for rollout in run.steps[0].iter().flat_map(|group| &group.rollouts) {
                sum -= rollout.advantage * rollout.response.ids.len() as f64;
                tokens += rollout.response.ids.len() as f64;
            }
            assert!((update.parts.pg_loss - sum / tokens).abs() < 1e-5);
            assert!(run.steps[0].iter().flat_map(|group| &group.rollouts).any(|rollout| rollout.advantage != 0.0));
            check(&model, &run.after, &all(&run.steps[0]), update, &config);
        }
    }
}

#[test]
fn every_averaging_and_every_term_is_the_plain_gradient() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let loss = TapoLossConfig { gamma: 0.3, eta1: 0.1, eta2: 0.2, ..TapoLossConfig::default() };
    for config in [
        TapoConfig { loss, ..descent() },
        TapoConfig { loss, loss_norm: LossNorm::Micro, ..descent() },
        TapoConfig { loss: TapoLossConfig { loss_average: LossAverage::Sequence, ..loss }, ..descent() },
        TapoConfig { loss: TapoLossConfig { loss_average: LossAverage::Constant, ..loss }, ..descent() },
        TapoConfig { loss: TapoLossConfig { negative_grad: false, ..loss }, ..descent() },
    ] {
        let run = run(&model, &source, &config, 1);
        check(&model, &run.after, &all(&run.steps[0]), &run.updates[0], &config);
    }
}

#[test]
fn micro_batches_chunks_and_workers_change_nothing() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let first = run(&model, &source, &descent(), 1);
    let expected = step_of(&model, &first.after);
    let responses = |run: &Run| -> Vec<Vec<u32>> {
        run.steps[0].iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.response.ids.clone()).collect()
    };
    for config in [
        TapoConfig { micro_batch: 1, ..descent() },
        TapoConfig { micro_batch: 8, ..descent() },
        TapoConfig { workers: 2, ..descent() },
        TapoConfig { workers: 3, micro_batch: 2, logit_chunk: 2, ..descent() },
        TapoConfig { chunk: 1, max_tries: 2, generation_batch: 3, ..descent() },
    ] {
        let found = run(&model, &source, &config, 1);
        // Streams are named by chunk and place in it.
        if config.chunk == 2 {
            assert_eq!(responses(&found), responses(&first));
            assert!(relative(&step_of(&model, &found.after), &expected) < 1e-5);
        }
        check(&model, &found.after, &all(&found.steps[0]), &found.updates[0], &config);
    }
}

#[test]
fn the_negative_images_gradient_counts_only_where_it_is_asked_for() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let step = |loss: TapoLossConfig| {
        let run = run(&model, &source, &TapoConfig { loss, ..descent() }, 1);
        (step_of(&model, &run.after), run.updates[0].parts)
    };
    let printed = TapoLossConfig::default();
    let released = TapoLossConfig { negative_grad: false, ..printed };
    let (with, parts) = step(printed);
    let (without, same) = step(released);
    assert!((parts.loss - same.loss).abs() < 1e-5 && parts.neg_entropy > 0.0);
    assert!(relative(&with, &without) > 1e-2);
    // As released the second entropy has no effect.
    assert!(step(TapoLossConfig { eta2: 5.0, ..released }).0 == without);
    assert!(relative(&step(TapoLossConfig { eta2: 5.0, ..printed }).0, &with) > 1e-1);
}

#[test]
fn all_from_the_anchor_or_all_from_the_positive() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    for (anchor_rollouts, positive_rollouts) in [(10, 0), (0, 10)] {
        let config = TapoConfig { anchor_rollouts, positive_rollouts, max_new_tokens: 3, ..descent() };
        let run = run(&model, &source, &config, 1);
        let role = if anchor_rollouts == 0 { Role::Positive } else { Role::Anchor };
        for group in &run.steps[0] {
            assert!(group.rollouts.len() == 10 && group.rollouts.iter().all(|rollout| rollout.role == role));
        }
        check(&model, &run.after, &all(&run.steps[0]), &run.updates[0], &config);
    }
}

#[test]
fn remax_takes_the_greedy_answer_about_the_rollouts_own_image_as_its_baseline() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &["", ""]));
    let first = RewardRegistry::default().with("accuracy", First);
    let rewards = [("accuracy".into(), 1.0)].into();
    let config = TapoConfig { estimator: Estimator::Remax, rewards, anchor_rollouts: 3, ..descent() };
    let found = run_with(&model, &source, &config, &first, 1);
    let plain = load(MODELS[0], &Device::flex());
    let generation = GenerationConfig::greedy(config.max_new_tokens, ends());
    let greedy = Generator::new(&plain, generation, 0, &Device::flex()).unwrap();
    let mut differ = 0;
    for group in &found.steps[0] {
        let baselines = [&group.prompt.anchor, &group.prompt.positive].map(|prompt| {
            let request = Request { prompt: prompt.clone(), streams: vec![StreamKey::new(0).stream()] };
            let response = greedy.generate(&[request]).unwrap()[0][0].clone();
            f64::from(response.text_ids().first().copied().unwrap_or(0)) / f64::from(VOCABULARY)
        });
        assert_eq!(group.rollouts.len(), 5, "the greedy responses are no rollouts");
        for rollout in &group.rollouts {
            let expected = rollout.reward.overall - baselines[rollout.role as usize];
            assert!((rollout.advantage - expected).abs() < 1e-12);
        }
        differ += usize::from(baselines[0] != baselines[1]);
    }
    assert!(differ > 0, "the two images must have baselines of their own");
    check(&model, &found.after, &all(&found.steps[0]), &found.updates[0], &config);
    // The greedy responses take nothing from the rollouts' streams.
    let grpo = TapoConfig { estimator: Estimator::Grpo, ..config };
    let grpo = run_with(&model, &source, &grpo, &first, 1);
    let ids = |run: &Run| -> Vec<Vec<u32>> {
        run.steps[0].iter().flat_map(|group| &group.rollouts).map(|rollout| rollout.response.ids.clone()).collect()
    };
    assert_eq!(ids(&found), ids(&grpo));
}

#[test]
fn reinforce_plus_plus_whitens_over_all_that_the_step_trains_on() {
    let model = load(MODELS[0], &device());
    let half = every(7);
    let source = Source::new(prompts(model.config(), &[&half, "nothing", &half, "nothing"]));
    let filter = GroupFilter::default();
    let config = TapoConfig {
        estimator: Estimator::ReinforcePlusPlus,
        filter: filter.clone(),
        prompts_per_step: 4,
        chunk: 4,
        max_tries: 2,
        ..descent()
    };
    let run = run(&model, &source, &config, 1);
    let keep = |group: &&Group| filter.verdict(group.mean_accuracy()) == GroupVerdict::Keep;
    let mut kept: Vec<Group> = run.steps[0].iter().filter(keep).cloned().collect();
    assert!(kept.len() > 1 && kept.len() < run.steps[0].len());
    // The reward at every token of every kept rollout; dropped groups do not count.
    let tokens: Vec<f64> = kept
        .iter()
        .flat_map(|group| &group.rollouts)
        .flat_map(|rollout| std::iter::repeat_n(rollout.reward.overall, rollout.response.ids.len()))
        .collect();
    let mean = tokens.iter().sum::<f64>() / tokens.len() as f64;
    let variance = tokens.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (tokens.len() as f64 - 1.0);
    for rollout in kept.iter_mut().flat_map(|group| &mut group.rollouts) {
        assert_eq!(rollout.advantage, 0.0);
        rollout.advantage = (rollout.reward.overall - mean) / (variance + 1e-8).sqrt();
    }
    check(&model, &run.after, &all(&kept), &run.updates[0], &config);
}

#[test]
fn sampler_and_trainer_are_compared_on_the_same_image_alone() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    for (update_image, anchor_rollouts) in
        [(UpdateImage::Anchor, 2), (UpdateImage::Own, 2), (UpdateImage::Own, 0), (UpdateImage::Anchor, 0)]
    {
        let run = run(&model, &source, &TapoConfig { update_image, anchor_rollouts, ..descent() }, 1);
        let sampler = run.drawn[0].sampler;
        if update_image == UpdateImage::Anchor && anchor_rollouts == 0 {
            assert!(sampler.sampler_gap.is_nan() && sampler.sampler_gap_max.is_nan() && sampler.sampler_ratio.is_nan());
        } else {
            // One policy, two ways through it: decoding with a cache against whole sequences.
            assert!(sampler.sampler_gap > 0.0 && sampler.sampler_gap <= sampler.sampler_gap_max, "{sampler:?}");
            assert!(sampler.sampler_gap_max < 1e-4 && (sampler.sampler_ratio - 1.0).abs() < 1e-4, "{sampler:?}");
        }
    }
}

#[test]
fn equal_rewards_teach_nothing() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &["nothing", "nothing"]));
    let loss = TapoLossConfig { gamma: 0.0, eta1: 0.0, eta2: 0.0, ..TapoLossConfig::default() };
    let config = TapoConfig { loss, ..descent() };
    let equal = registry().with("format", Words);
    let run = run_with(&model, &source, &config, &equal, 1);
    assert!(run.steps[0].iter().flat_map(|group| &group.rollouts).all(|rollout| rollout.advantage == 0.0));
    assert_eq!((run.updates[0].grad_norm, run.updates[0].parts.pg_loss), (0.0, 0.0));
    assert!(parameters(&run.after) == parameters(&model));
}

#[test]
fn groups_of_all_right_or_all_wrong_are_dropped_and_counted() {
    let model = load(MODELS[0], &device());
    let (half, right) = (every(7), every(1));
    let source = Source::new(prompts(model.config(), &["nothing", &half, &right, &half, &half, "nothing"]));
    let config = TapoConfig {
        filter: GroupFilter::default(),
        prompts_per_step: 20,
        chunk: 3,
        max_tries: 4,
        anchor_rollouts: 3,
        positive_rollouts: 3,
        max_new_tokens: 4,
        workers: 2,
        ..descent()
    };
    let run = run(&model, &source, &config, 1);
    let groups = &run.steps[0];
    let counted =
        |verdict| groups.iter().filter(|group| config.filter.verdict(group.mean_accuracy()) == verdict).count();
    let [keep, right, wrong] = [GroupVerdict::Keep, GroupVerdict::AllRight, GroupVerdict::AllWrong].map(counted);
    let counts = run.drawn[0].groups;
    assert_eq!((counts.tries, counts.offered, counts.short), (4, 12, 20 - keep));
    assert_eq!((counts.kept, counts.all_right, counts.all_wrong), (keep, right, wrong));
    assert!(keep > 0 && right > 0 && wrong > 0, "{counts:?}");
    let right = |group: &&Group| {
        let right = group.rollouts.iter().filter(|rollout| rollout.reward.accuracy == 1.0).count();
        right > 0 && right < 6
    };
    let kept: Vec<&Group> = groups.iter().filter(right).collect();
    check(&model, &run.after, &kept, &run.updates[0], &config);

    // Every row once in each epoch, in another order.
    let asked = source.asked.lock().unwrap();
    let order = |epoch: usize| asked.iter().filter(|asked| asked.1 == epoch).map(|asked| asked.0).collect::<Vec<_>>();
    for epoch in 0..2 {
        let mut rows = order(epoch);
        rows.sort_unstable();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5]);
    }
    assert_ne!(order(0), order(1));
}

#[test]
fn a_step_in_which_nothing_survives_updates_nothing() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &["nothing"]));
    let config = TapoConfig { filter: GroupFilter::default(), max_tries: 2, ..descent() };
    let run = run(&model, &source, &config, 2);
    assert!(run.updates.is_empty() && parameters(&run.after) == parameters(&model));
    for drawn in &run.drawn {
        assert_eq!((drawn.groups.tries, drawn.groups.kept, drawn.groups.short), (2, 0, 2));
    }
    // The same prompt in two steps and two tries: other streams, other responses.
    let all: BTreeSet<Vec<Vec<u32>>> = run
        .steps
        .iter()
        .flatten()
        .map(|group| group.rollouts.iter().map(|rollout| rollout.response.ids.clone()).collect())
        .collect();
    assert_eq!(all.len(), 8);
}

#[test]
fn rewards_see_the_sample_and_the_lengths_and_the_filter_looks_at_its_key() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(1), &every(1)]));
    let seen: Arc<Mutex<Vec<(String, usize, usize)>>> = Arc::default();
    let note = seen.clone();
    let registry = registry().with("short", move |input: &RewardInput<'_>| {
        note.lock().unwrap().push((input.sample.into(), input.response_tokens, input.max_new_tokens));
        f64::from(u8::from(input.response_tokens < 5))
    });
    let config = TapoConfig {
        rewards: [("accuracy".into(), 0.5), ("short".into(), 0.0)].into(),
        filter: GroupFilter { key: "short".into(), ..GroupFilter::default() },
        chunk: 2,
        ..descent()
    };
    let run = run_with(&model, &source, &config, &registry, 1);
    let rollouts: Vec<(&Group, &Rollout)> =
        run.steps[0].iter().flat_map(|group| group.rollouts.iter().map(move |rollout| (group, rollout))).collect();
    let expected: Vec<(String, usize, usize)> = rollouts
        .iter()
        .map(|(group, rollout)| (group.prompt.anchor.name.clone(), rollout.response.ids.len(), 5))
        .collect();
    assert_eq!(*seen.lock().unwrap(), expected);
    for (_, rollout) in &rollouts {
        let (short, words) = (rollout.reward.parts["short"], rollout.reward.parts["accuracy"]);
        assert_eq!((rollout.reward.accuracy, rollout.reward.overall), (short, 0.5 * words));
        assert_eq!(words, 1.0, "the default key would drop every group");
    }
    let counts = run.drawn[0].groups;
    let mixed = |group: &&Group| (0.01..0.99).contains(&group.mean_accuracy());
    assert_eq!(counts.kept, run.steps[0].iter().filter(mixed).count());
    assert!(counts.kept > 0, "{counts:?}");
    let mean = |name: &str| {
        rollouts.iter().map(|(_, rollout)| rollout.reward.parts[name]).sum::<f64>() / rollouts.len() as f64
    };
    let names: Vec<&String> = run.drawn[0].rewards.keys().collect();
    assert_eq!(names, ["accuracy", "short"]);
    run.drawn[0].rewards.iter().for_each(|(name, &found)| assert!((found - mean(name)).abs() < 1e-12));
}

#[test]
fn surplus_groups_are_trained_on_next_with_the_log_probabilities_of_their_own_policy() {
    let model = load(MODELS[0], &device());
    let half = every(7);
    let source = Source::new(prompts(model.config(), &[&half, &half, &half]));
    let config = TapoConfig { chunk: 3, ..slow_descent() };
    let one = run(&model, &source, &config, 1);
    let two = run(&model, &source, &config, 2);
    assert_eq!(two.drawn.iter().map(|drawn| drawn.groups.carried_in).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(two.steps.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3]);
    assert_eq!(two.updates[0].parts, one.updates[0].parts);

    let old = &two.steps[0][2];
    for rollout in &old.rollouts {
        let on = |model: &Qwen25Vl| {
            values(plain_logps(model, &old.prompt.anchor, &rollout.response.ids, config.temperature, &device()))
        };
        assert!(distance(&rollout.old_logp, &on(&model)) < 1e-4);
        assert!(distance(&rollout.old_logp, &on(&one.after)) > 1e-2);
    }
    let update = &two.updates[1];
    assert!((update.parts.ratio - 1.0).abs() > 1e-3 && update.parts.clipped_high + update.parts.clipped_low > 0.0);
    check(&one.after, &two.after, &[old, &two.steps[1][0]], update, &config);
}

#[test]
fn a_step_of_several_updates_takes_sequences_in_order_and_keeps_its_old_policy() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    // The first four sequences are the first group.
    let config = TapoConfig { batch: 4, ..slow_descent() };
    let both = run(&model, &source, &config, 1);
    assert_eq!(both.updates.iter().map(|update| update.step).collect::<Vec<_>>(), [1, 2]);
    let alone = run(&model, &source, &TapoConfig { prompts_per_step: 1, ..config.clone() }, 1);
    check(&model, &alone.after, &[&both.steps[0][0]], &both.updates[0], &config);
    check(&alone.after, &both.after, &[&both.steps[0][1]], &both.updates[1], &config);
    assert!((both.updates[1].parts.ratio - 1.0).abs() > 1e-3);
}

#[test]
fn the_reference_model_is_the_one_that_training_starts_from() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let config = TapoConfig { loss: TapoLossConfig { kl_ref: 0.5, ..TapoLossConfig::default() }, ..slow_descent() };
    let one = run(&model, &source, &config, 1);
    let two = run(&model, &source, &config, 2);
    assert!(two.updates[0].parts.kl_ref.abs() < 1e-6 && two.updates[1].parts.kl_ref > 1e-3);
    check_against(&one.after, &two.after, &all(&two.steps[1]), &two.updates[1], &config, &model);
}

#[test]
fn an_update_that_is_not_finite_is_skipped_and_counted() {
    let model = load(MODELS[0], &device());
    let mut prompts = prompts(model.config(), &[&every(9), &every(8)]);
    let image = &mut prompts[1].negative.as_mut().unwrap().images[0];
    image.pixel_values = image.pixel_values.iter().map(|_| f32::NAN).collect();
    // An update a group: the one with the poisoned image is left out, wherever it stands.
    let config = TapoConfig { batch: 4, ..slow_descent() };
    let run = run(&model, &Source::new(prompts), &config, 2);
    assert_eq!(run.updates.iter().map(|update| update.step).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let finite: Vec<bool> = run.updates.iter().map(|update| update.grad_norm.is_finite()).collect();
    assert!(finite[0] != finite[1] && finite[2] != finite[3], "{finite:?}");
    assert_eq!([run.updates[1].skipped, run.updates[3].skipped], [1, 2]);
    let after = parameters(&run.after);
    assert!(after != parameters(&model) && after.iter().flat_map(|(_, values)| values).all(|x| x.is_finite()));
}

/// Every pixel of every negative is not a number: whoever looks at one finds it in the loss.
fn poison_negatives(prompts: &mut [TripletPrompt]) {
    for image in prompts.iter_mut().flat_map(|prompt| &mut prompt.negative.as_mut().unwrap().images) {
        image.pixel_values = image.pixel_values.iter().map(|_| f32::NAN).collect();
    }
}

#[test]
fn a_negative_that_no_term_looks_at_is_not_encoded() {
    let model = load(MODELS[0], &device());
    let whole = prompts(model.config(), &[&every(9), &every(8)]);
    let (mut poisoned, mut without) = (whole.clone(), whole.clone());
    poison_negatives(&mut poisoned);
    without.iter_mut().for_each(|prompt| prompt.negative = None);
    for negative_grad in [true, false] {
        let loss = TapoLossConfig { gamma: 0.0, eta2: 0.0, negative_grad, ..TapoLossConfig::default() };
        let config = TapoConfig { loss, ..descent() };
        let found = run(&model, &Source::new(whole.clone()), &config, 1);
        // Against the loss with its terms computed and weighted by nothing.
        check(&model, &found.after, &all(&found.steps[0]), &found.updates[0], &config);
        for prompts in [&poisoned, &without] {
            let same = run(&model, &Source::new(prompts.clone()), &config, 1);
            assert!(parameters(&same.after) == parameters(&found.after));
        }
        // One term is enough to look at it.
        let loss = TapoLossConfig { eta2: 0.1, ..loss };
        let found = run(&model, &Source::new(poisoned.clone()), &TapoConfig { loss, ..descent() }, 1);
        assert_eq!(found.updates[0].skipped, 1);
        assert!(found.updates[0].parts.loss.is_nan());
        let (tokenizer, source) = (word_tokenizer(), Source::new(without.clone()));
        let config = TapoConfig { loss, ..descent() };
        let (streams, registry) = (StreamKey::new(5), registry());
        let mut trainer =
            TapoTrainer::new(&model, &source, &tokenizer, ends(), config, &registry, streams, &device()).unwrap();
        let error = trainer.train(model.clone(), |_| Ok(())).unwrap_err();
        assert!(matches!(&error, TrainError::Sample { reason, .. } if reason.contains("no negative")), "{error}");
    }
}

#[test]
fn terms_annealed_to_nothing_leave_the_negative_alone() {
    let model = load(MODELS[0], &device());
    let mut prompts = prompts(model.config(), &[&every(9), &every(8)]);
    poison_negatives(&mut prompts);
    let config = TapoConfig { terms: TermSchedule::Anneal, ..slow_descent() };
    let run = run(&model, &Source::new(prompts), &config, 4);
    let finite: Vec<bool> = run.updates.iter().map(|update| update.grad_norm.is_finite()).collect();
    assert_eq!(finite, [false, false, true, true]);
}

#[test]
fn annealing_scales_the_inter_class_term_and_both_entropies() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    let loss = TapoLossConfig { gamma: 0.1, eta1: 0.1, eta2: 0.2, ..TapoLossConfig::default() };
    let schedule = LrSchedule { lr: 0.0, ..descent().schedule };
    let config = TapoConfig { terms: TermSchedule::Anneal, loss, schedule, ..descent() };
    let run = run(&model, &source, &config, 5);
    for (update, factor) in run.updates.iter().zip([1.0, 0.5, 0.0, 0.0, 0.0]) {
        let TapoParts { loss, pg_loss, kl_neg, entropy, neg_entropy, .. } = update.parts;
        if factor == 0.0 {
            assert!(loss == pg_loss && kl_neg.is_nan() && neg_entropy.is_nan(), "{update:?}");
            continue;
        }
        let terms = -0.1 * kl_neg + 0.1 * entropy + 0.2 * neg_entropy;
        assert!(terms.abs() > 0.1 && (loss - pg_loss - factor * terms).abs() < 1e-4, "{update:?}");
    }
    assert!(run.updates.len() == 5 && parameters(&run.after) == parameters(&model));
}

#[test]
fn frozen_parts_stay() {
    let model = load(MODELS[0], &device());
    let source = Source::new(prompts(model.config(), &[&every(9), &every(8)]));
    for workers in [1, 2] {
        let train = TrainableParts { vision: false, projector: true, decoder: false };
        let run = run(&model, &source, &TapoConfig { train, workers, ..descent() }, 1);
        for (path, step) in step_of(&model, &run.after) {
            assert_eq!(step.iter().any(|&x| x != 0.0), path.starts_with("visual.merger"), "{path}");
        }
    }
}

#[test]
fn rewarded_words_are_said_more_often() {
    let model = load(MODELS[0], &device());
    let wanted = every(8);
    let source = Source::new(prompts(model.config(), &[&wanted, &wanted, &wanted, &wanted]));
    let config = TapoConfig {
        prompts_per_step: 4,
        chunk: 4,
        anchor_rollouts: 5,
        positive_rollouts: 5,
        temperature: 1.0,
        top_p: 0.99,
        micro_batch: 20,
        generation_batch: 40,
        schedule: LrSchedule { lr: 1e-3, ..descent().schedule },
        adamw: AdamWSettings::default(),
        max_grad_norm: 1.0,
        // The entropies push every sampled token up and end the search early at this size.
        loss: TapoLossConfig { eta1: 0.0, eta2: 0.0, ..TapoLossConfig::default() },
        ..descent()
    };
    let found = run(&model, &source, &config, 12);
    let rewards: Vec<f64> = found.drawn.iter().map(|drawn| drawn.reward).collect();
    assert!(rewards[9..].iter().all(|&reward| reward > rewards[0] + 0.5), "{rewards:?}");
    let again = run(&model, &source, &config, 2);
    assert_eq!(again.drawn.iter().map(|drawn| drawn.reward).collect::<Vec<_>>(), rewards[..2]);
}

#[test]
fn images_of_the_three_roles_differ_in_size_in_these_tests() {
    let config = load(MODELS[0], &Device::flex()).config().clone();
    let prompt = prompt(&config, 1, "");
    let negative = prompt.negative.unwrap();
    let grids = [&prompt.anchor, &prompt.positive, &negative].map(|sequence| sequence.grids());
    assert_eq!(grids, [[GridThw::image(4, 6)], [GridThw::image(6, 4)], [GridThw::image(2, 8)]]);
}
