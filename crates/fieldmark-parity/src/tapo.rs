//! Compares the formulas of TAPO: advantages, rewards, sampling, and the loss with all its gradients.

use std::{collections::BTreeSet, path::Path};

use burn::tensor::{Device, Tensor};
use fieldmark_generate::Sampling;
use fieldmark_train::{
    gradient::{BatchSize, LossNorm, token_logprobs},
    reward::{RewardInput, RewardRegistry},
    tapo::{
        LossAverage, TapoConfig, TapoInputs, TapoLossConfig,
        advantage::group_advantages,
        policy::{k3, policy_loss},
        tapo_loss,
    },
};
use serde::Deserialize;

use super::{
    compare::{Report, Tolerance},
    error::{ParityError, in_file},
    fixture::{Fixture, values},
    json::json,
};

#[derive(Deserialize)]
struct AdvantageCase {
    rewards: Vec<f64>,
    advantages: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct RewardCase {
    response: String,
    ground_truth: String,
    accuracy: f64,
    format: f64,
    overall: f64,
}

#[derive(Deserialize)]
struct SamplingCase {
    temperature: f64,
    top_k: usize,
    top_p: f64,
}

#[derive(Deserialize)]
struct Hyperparameters {
    temperature: f64,
    clip_low: f64,
    clip_high: f64,
    clip_dual: f64,
    gamma: f64,
    eta1: f64,
    eta2: f64,
}

const LOSS: Tolerance = Tolerance::Absolute(1e-5);
const GRADIENT: Tolerance = Tolerance::Absolute(1e-6);
const KL: Tolerance = Tolerance::Mixed(1e-5, 1e-5);

pub(super) fn compare(folder: &Path, device: &Device) -> Result<Report, ParityError> {
    let mut fixture = Fixture::open(folder)?;
    let mut report = Report::default();
    advantages(folder, &mut report)?;
    rewards(folder, &mut report)?;
    sampling(folder, &mut fixture, &mut report)?;
    let settings: Hyperparameters = json(folder, "hyperparameters.json")?;
    check_shapes(&mut fixture)?;
    let device = device.clone().autodiff();
    for (mode, loss_average) in [("token", LossAverage::Token), ("seq", LossAverage::Sequence)] {
        let config = TapoLossConfig {
            clip_low: settings.clip_low,
            clip_high: settings.clip_high,
            clip_dual: settings.clip_dual,
            gamma: settings.gamma,
            eta1: settings.eta1,
            eta2: settings.eta2,
            loss_average,
            ..TapoLossConfig::default()
        };
        config.validate().map_err(|error| in_file(folder, "hyperparameters.json", "settings", error))?;
        loss(&mut fixture, &mut report, mode, config, settings.temperature, &device)?;
    }
    kl(&mut fixture, &mut report, &device)?;
    fixture.finish(&mut report);
    Ok(report)
}

/// Checks that the tensors of the loss fit together.
fn check_shapes(fixture: &mut Fixture) -> Result<(), ParityError> {
    let [b, t, v] = fixture.dims("logits")?;
    fixture.expect("neg_logits", [b, t, v])?;
    for name in ["tokens", "mask", "old_logp", "advantages"] {
        fixture.expect(name, [b, t])?;
    }
    fixture.indices("tokens", v)?;
    if !fixture.indices("mask", 2)?.contains(&1) {
        return Err(fixture.malformed("mask", "has no token in the loss"));
    }
    let [n] = fixture.dims("k3.logp")?;
    fixture.expect("k3.neg_logp", [n])
}

fn advantages(folder: &Path, report: &mut Report) -> Result<(), ParityError> {
    let cases: Vec<AdvantageCase> = json(folder, "advantages.json")?;
    for (i, case) in cases.iter().enumerate() {
        let equal = case.rewards.windows(2).all(|pair| pair[0] == pair[1]);
        // With a single reward or equal rewards, our advantages are 0. The reference divides rounding errors by 1e-6.
        let tolerance = if equal { Tolerance::Absolute(0.1) } else { LOSS };
        let expected = case.advantages.clone().unwrap_or_else(|| vec![0.0; case.rewards.len()]);
        let found = group_advantages(&case.rewards)
            .map_err(|error| in_file(folder, "advantages.json", &format!("case {i}"), error))?;
        report.compare(&format!("advantages.json {i}"), &found, &expected, tolerance);
    }
    Ok(())
}

fn rewards(folder: &Path, report: &mut Report) -> Result<(), ParityError> {
    let cases: Vec<RewardCase> = json(folder, "rewards.json")?;
    let weights = [("inclusion".into(), 0.9), ("format".into(), 0.1)].into();
    let config = TapoConfig { rewards: weights, ..TapoConfig::default() };
    let rewards = RewardRegistry::standard(&config).choose(&config);
    let rewards = rewards.map_err(|error| in_file(folder, "rewards.json", "released rewards", error))?;
    for (i, case) in cases.iter().enumerate() {
        let found = rewards.parts(&RewardInput::new(&case.response, &case.ground_truth));
        let part = |name: &str| found.parts.get(name).copied().unwrap_or(f64::NAN);
        report.compare(
            &format!("rewards.json {i}"),
            &[part("inclusion"), part("format"), found.overall],
            &[case.accuracy, case.format, case.overall],
            Tolerance::Absolute(1e-12),
        );
    }
    Ok(())
}

fn sampling(folder: &Path, fixture: &mut Fixture, report: &mut Report) -> Result<(), ParityError> {
    let cases: Vec<SamplingCase> = json(folder, "sampling.json")?;
    let [_, width] = fixture.dims("sampling.logits")?;
    let logits = &fixture.get("sampling.logits")?.values;
    let rows: Vec<Vec<f32>> = logits.chunks(width).map(|row| row.iter().map(|&x| x as f32).collect()).collect();
    // Minus infinity excludes a token, so it is allowed.
    let usable = |row: &Vec<f32>| row.iter().all(|&x| x < f32::INFINITY) && row.iter().any(|x| x.is_finite());
    if !rows.iter().all(usable) {
        return Err(fixture.malformed(
            "sampling.logits",
            "has a row that is not a distribution: NaN, plus infinity, or no finite logit",
        ));
    }
    for (i, case) in cases.iter().enumerate() {
        let sampling = Sampling { top_k: case.top_k, ..Sampling::nucleus(case.temperature, case.top_p) };
        sampling.validate().map_err(|error| in_file(folder, "sampling.json", &format!("case {i}"), error))?;
        let found: Vec<f64> = rows.iter().flat_map(|row| sampling.probabilities(row, &BTreeSet::new(), &[])).collect();
        fixture.check_values(report, &format!("sampling.probs.{i}"), &found, GRADIENT);
    }
    Ok(())
}

/// Inputs of the loss, and the logits whose gradients are compared.
struct Leaves {
    logits: Tensor<3>,
    neg_logits: Tensor<3>,
    inputs: TapoInputs,
    size: BatchSize,
}

fn leaves(fixture: &mut Fixture, temperature: f64, device: &Device) -> Result<Leaves, ParityError> {
    let logits: Tensor<3> = fixture.tensor("logits", device)?.require_grad();
    let neg_logits: Tensor<3> = fixture.tensor("neg_logits", device)?.require_grad();
    let tokens = fixture.int_tensor::<2>("tokens", device)?;
    let [b, t, v] = logits.dims();
    let logp = |logits: &Tensor<3>| {
        let targets = tokens.clone().reshape([b * t]);
        token_logprobs(logits.clone().reshape([b * t, v]), targets, temperature).reshape([b, t])
    };
    fixture.get("temperature")?;
    let mask_bt: Tensor<2> = fixture.tensor("mask", device)?;
    let tokens = fixture.get("mask")?.values.iter().sum::<f64>() as usize;
    Ok(Leaves {
        inputs: TapoInputs {
            logp_bt: logp(&logits),
            old_logp_bt: fixture.tensor("old_logp", device)?,
            sampler_logp_bt: None,
            neg_logp_bt: Some(logp(&neg_logits)),
            ref_logp_bt: None,
            advantages_bt: fixture.tensor("advantages", device)?,
            mask_bt,
            policy_tokens: None,
        },
        logits,
        neg_logits,
        size: BatchSize { tokens, sequences: b },
    })
}

fn loss(
    fixture: &mut Fixture,
    report: &mut Report,
    mode: &str,
    config: TapoLossConfig,
    temperature: f64,
    device: &Device,
) -> Result<(), ParityError> {
    for (variant, negative_grad) in [("detached", false), ("live", true)] {
        let Leaves { logits, neg_logits, inputs, size } = leaves(fixture, temperature, device)?;
        if (mode, variant) == ("token", "detached") {
            fixture.check(report, "logp", inputs.logp_bt.clone(), LOSS);
            if let Some(neg_logp_bt) = inputs.neg_logp_bt.clone() {
                fixture.check(report, "neg_logp", neg_logp_bt.clone(), LOSS);
                fixture.check(report, "token_kl", k3(inputs.logp_bt.clone(), neg_logp_bt), KL);
            }
            let (logp, old) = (inputs.logp_bt.clone(), inputs.old_logp_bt.clone());
            let log_ratio_bt = config.importance.log_ratio(logp, old, inputs.mask_bt.clone());
            let policy = policy_loss(log_ratio_bt, inputs.advantages_bt.clone(), &config.clip());
            // Ratios reach e^20. There, the rounding of a log-ratio of 20 is visible in f32.
            fixture.check(report, "ratio", policy.ratio_bt, KL);
            fixture.check(report, "token_pg_loss", policy.loss_bt, KL);
        }
        let normaliser = LossNorm::Batch.normaliser(size, size, 1);
        let found = tapo_loss(inputs, &TapoLossConfig { negative_grad, ..config }, &normaliser);
        let name = format!("{mode}.{variant}");
        fixture.check_values(report, &format!("{name}.total"), &[found.parts.loss], LOSS);
        if variant == "detached" {
            fixture.check_values(report, &format!("{mode}.pg_loss"), &[found.parts.pg_loss], LOSS);
            fixture.check_values(report, &format!("{mode}.kl"), &[found.parts.kl_neg], KL);
            if mode == "token" {
                fixture.check_values(report, "entropy", &[found.parts.entropy], LOSS);
                fixture.check_values(report, "neg_entropy", &[found.parts.neg_entropy], LOSS);
            }
        }
        let grads = found.total.backward();
        for (leaf, key) in [(&logits, "grad_logits"), (&neg_logits, "grad_neg_logits")] {
            if let Some(grad) = leaf.grad(&grads) {
                fixture.check(report, &format!("{name}.{key}"), grad, GRADIENT);
            }
        }
    }
    terms(fixture, report, mode, config, temperature, device)
}

/// Compares the gradient of each term: the gradient of the loss with the term minus the gradient without it.
fn terms(
    fixture: &mut Fixture,
    report: &mut Report,
    mode: &str,
    config: TapoLossConfig,
    temperature: f64,
    device: &Device,
) -> Result<(), ParityError> {
    let none = TapoLossConfig { gamma: 0.0, eta1: 0.0, eta2: 0.0, negative_grad: false, ..config };
    let mut gradient = |config: TapoLossConfig| -> Result<Vec<f64>, ParityError> {
        let Leaves { logits, inputs, size, .. } = leaves(fixture, temperature, device)?;
        let grads = tapo_loss(inputs, &config, &LossNorm::Batch.normaliser(size, size, 1)).total.backward();
        Ok(logits.grad(&grads).map(values).unwrap_or_default())
    };
    let policy = gradient(none)?;
    let kl = gradient(TapoLossConfig { gamma: -1.0, ..none })?;
    let entropy = gradient(TapoLossConfig { eta1: 1.0, ..none })?;
    let minus_policy = |with: &[f64]| -> Vec<f64> { with.iter().zip(&policy).map(|(a, b)| a - b).collect() };
    // The difference of two f32 gradients has the rounding errors of both gradients.
    let difference = Tolerance::Mixed(2e-6, 1e-6);
    fixture.check_values(report, &format!("{mode}.grad_pg_loss"), &policy, GRADIENT);
    fixture.check_values(report, &format!("{mode}.grad_kl"), &minus_policy(&kl), difference);
    if mode == "token" {
        fixture.check_values(report, "grad_entropy", &minus_policy(&entropy), difference);
    }
    Ok(())
}

fn kl(fixture: &mut Fixture, report: &mut Report, device: &Device) -> Result<(), ParityError> {
    let logp: Tensor<1> = fixture.tensor("k3.logp", device)?.require_grad();
    let negative: Tensor<1> = fixture.tensor("k3.neg_logp", device)?;
    let value = k3(logp.clone(), negative);
    fixture.check(report, "k3.value", value.clone(), KL);
    if let Some(grad) = logp.grad(&value.sum().backward()) {
        fixture.check(report, "k3.grad_logp", grad, KL);
    }
    Ok(())
}
