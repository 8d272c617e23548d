//! A TAPO update computed in the plainest way, to compare with the trainer's: every sequence alone, all in one graph.

use burn::{
    optim::GradientsParams,
    tensor::{Tensor, TensorData},
};
use fieldmark::{
    model::Qwen25Vl,
    processor::Sequence,
    train::{
        gradient::{BatchSize, LossNorm},
        tapo::{
            PolicyTokens, TapoConfig, TapoInputs, TapoMetrics, TapoParts, UpdateImage,
            policy::VisualTokens,
            rollout::{Group, ImageRole, Rollout},
            tapo_loss,
        },
    },
};

use crate::{
    tapo_runs::{FULL_RATE, device},
    training::{Named, difference, gradients, parameters, plain_distributions, plain_logps, relative},
};

/// Returns the prompt with the image that a rollout is scored on.
pub fn scored_on<'a>(group: &'a Group, rollout: &Rollout, image: UpdateImage) -> &'a Sequence {
    match (image, rollout.role) {
        (UpdateImage::Own, ImageRole::Positive) => group.prompt.positive.as_ref().unwrap(),
        _ => &group.prompt.anchor,
    }
}

/// Marks the tokens of a rollout whose policy loss counts (VEPO): `model` is the one before the step. The definitions are
/// written down once more, in f64, on whole distributions.
fn chosen(model: &Qwen25Vl, group: &Group, rollout: &Rollout, config: &TapoConfig) -> Vec<f32> {
    let Some(VisualTokens { share, alpha }) = config.loss.visual() else {
        return vec![1.0; rollout.response.ids.len()];
    };
    let rows = |prompt: &Sequence| -> Vec<Vec<f64>> {
        let logp = plain_distributions(model, prompt, &rollout.response.ids, config.temperature, &device());
        let vocabulary = logp.dims()[1];
        let values: Vec<f64> = logp.into_data().iter::<f64>().map(f64::exp).collect();
        values.chunks(vocabulary).map(<[f64]>::to_vec).collect()
    };
    let seen = rows(scored_on(group, rollout, config.update_image));
    let other = rows(group.prompt.negative.as_ref().unwrap());
    let kl = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum::<f64>();
    let entropy = |p: &[f64]| -p.iter().map(|p| p * p.ln()).sum::<f64>();
    let divergence = |p: &[f64], q: &[f64]| {
        let m: Vec<f64> = p.iter().zip(q).map(|(p, q)| (p + q) / 2.0).collect();
        (kl(p, &m) + kl(q, &m)) / 2.0
    };
    let scaled = |value: &dyn Fn(&[f64], &[f64]) -> f64| {
        let values: Vec<f64> = seen.iter().zip(&other).map(|(p, q)| value(p, q)).collect();
        let least = values.iter().copied().fold(f64::MAX, f64::min);
        let most = values.iter().copied().fold(f64::MIN, f64::max);
        values.into_iter().map(|value| (value - least) / (most - least).max(1e-8)).collect::<Vec<f64>>()
    };
    let (j, h) = (scaled(&divergence), scaled(&|p, _| entropy(p)));
    let d = scaled(&|p, q| (entropy(q) - entropy(p)).abs());
    let score = |t: usize| (1.0 - (1.0 - j[t]).powf(alpha) * (1.0 - d[t]).powf(1.0 - alpha)) * h[t];
    let better = |t: usize| (0..j.len()).filter(|&u| score(u) > score(t) || score(u) == score(t) && u < t).count();
    (0..j.len()).map(|t| if (better(t) as f64) < share * j.len() as f64 { 1.0 } else { 0.0 }).collect()
}

/// Computes loss and gradients of one update over `groups`: every sequence alone, all in one graph. `reference` is the
/// reference model, and the model before the step.
pub fn plainly(model: &Qwen25Vl, groups: &[&Group], config: &TapoConfig, reference: &Qwen25Vl) -> (TapoParts, Named) {
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
    let chosen_size = |part: &[(&Group, &Rollout)]| BatchSize {
        tokens: part.iter().flat_map(|(group, rollout)| chosen(reference, group, rollout, config)).sum::<f32>()
            as usize,
        sequences: part.len(),
    };
    let normaliser =
        |all, part| config.loss_norm.normaliser(all, part, micros).with_token_budget(config.max_new_tokens);
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
            sampler_logp_bt: config.loss.sampler_cap.is_some().then(|| {
                rows(&|_, rollout| match (config.update_image, rollout.role) {
                    (UpdateImage::Anchor, ImageRole::Positive) => constant(rollout.old_logp.clone()),
                    _ => constant(rollout.response.logps.iter().map(|&logp| logp as f32).collect()),
                })
            }),
            neg_logp_bt: all
                .iter()
                .all(|(group, _)| group.prompt.negative.is_some())
                .then(|| rows(&|group, rollout| logps(model, group.prompt.negative.as_ref().unwrap(), rollout))),
            ref_logp_bt: (config.loss.kl_ref != 0.0)
                .then(|| rows(&|group, rollout| logps(reference, &on_image(group, rollout), rollout))),
            advantages_bt: rows(&|_, rollout| constant(vec![rollout.advantage as f32; width])),
            mask_bt: rows(&|_, rollout| constant(vec![1.0; rollout.response.ids.len()])),
            policy_tokens: config.loss.visual().map(|_| PolicyTokens {
                mask_bt: rows(&|group, rollout| constant(chosen(reference, group, rollout, config))),
                normaliser: normaliser(chosen_size(&all), chosen_size(part)),
            }),
        };
        let normaliser = normaliser(size(&all), size(part));
        let found = tapo_loss(inputs, &config.loss, &normaliser);
        parts += found.parts;
        losses.push(found.total);
    }
    let loss = Tensor::cat(losses, 0).sum();
    (parts, gradients(model, &GradientsParams::from_grads(loss.backward(), model)))
}

/// Returns how much training subtracted from each parameter.
pub fn step_of(before: &Qwen25Vl, after: &Qwen25Vl) -> Named {
    difference(&parameters(before), &parameters(after))
}

/// Asserts that the update from `before` to `after` equals the plain update over `groups`.
pub fn check(before: &Qwen25Vl, after: &Qwen25Vl, groups: &[&Group], update: &TapoMetrics, config: &TapoConfig) {
    check_against(before, after, groups, update, config, before);
}

/// Like [`check`], with `reference` as the reference model.
pub fn check_against(
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
        ("clipped_dual", found.clipped_dual, parts.clipped_dual),
    ] {
        assert!((found - expected).abs() < 1e-4 * expected.abs().max(1.0), "{name} {found}, plainly {expected}");
    }
    let sampler = |parts: TapoParts| parts.sampler.map(|of| [of.sampler_weight, of.sampler_capped]);
    assert_eq!(found.sampler.is_some(), config.loss.sampler_cap.is_some());
    for (found, expected) in sampler(found).into_iter().flatten().zip(sampler(parts).into_iter().flatten()) {
        assert!((found - expected).abs() < 1e-5, "sampler {found}, plainly {expected}");
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

/// Returns references to all `groups`.
pub fn all(groups: &[Group]) -> Vec<&Group> {
    groups.iter().collect()
}
