//! The `tapo` reference fixture: values and gradients of the loss, computed by torch in f64.
#![allow(missing_docs)]

use burn::tensor::{Device, Int, Tensor, TensorData};
use fieldmark_train::{
    gradient::{BatchSize, LossNorm, Normaliser, token_logprobs},
    tapo::{
        LossAverage, TapoInputs, TapoLoss, TapoLossConfig, TapoParts,
        policy::{k3, policy_loss},
        tapo_loss,
    },
};
use safetensors::SafeTensors;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/tapo");

struct Fixture {
    bytes: Vec<u8>,
}

impl Fixture {
    fn load() -> Self {
        Self { bytes: std::fs::read(format!("{FOLDER}/expected.safetensors")).unwrap() }
    }

    fn data(&self, name: &str) -> TensorData {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let shape = view.shape().to_vec();
        match view.dtype() {
            safetensors::Dtype::F32 => {
                let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
                TensorData::new(values.collect::<Vec<_>>(), shape)
            }
            safetensors::Dtype::I64 => {
                let values = view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()));
                TensorData::new(values.collect::<Vec<_>>(), shape)
            }
            other => panic!("{name} is {other:?}"),
        }
    }

    fn floats<const D: usize>(&self, name: &str) -> Tensor<D> {
        Tensor::from_data(self.data(name), &Device::default().autodiff())
    }

    fn close<const D: usize>(&self, found: Tensor<D>, name: &str, absolute: f64, relative: f64) {
        let expected = self.data(name);
        let found = found.into_data();
        assert_eq!(found.shape(), expected.shape(), "{name}");
        for (i, (f, e)) in found.iter::<f64>().zip(expected.iter::<f64>()).enumerate() {
            assert!((f - e).abs() <= absolute + relative * e.abs(), "{name}[{i}]: {f} for {e}");
        }
    }
}

/// The fixture's inputs: logits as leaves, and everything made from them.
struct Leaves {
    logits: Tensor<3>,
    neg_logits: Tensor<3>,
    inputs: TapoInputs,
    sizes: Vec<usize>,
}

fn logp(fixture: &Fixture, logits_btv: Tensor<3>) -> Tensor<2> {
    let [b, t, v] = logits_btv.dims();
    let targets = Tensor::<2, Int>::from_data(fixture.data("tokens"), &logits_btv.device());
    let temperature: f64 = fixture.floats::<1>("temperature").into_scalar();
    token_logprobs(logits_btv.reshape([b * t, v]), targets.reshape([b * t]), temperature).reshape([b, t])
}

fn leaves(fixture: &Fixture) -> Leaves {
    let logits = fixture.floats::<3>("logits").require_grad();
    let neg_logits = fixture.floats::<3>("neg_logits").require_grad();
    let mask: Tensor<2> = fixture.floats("mask");
    let sizes = mask.clone().sum_dim(1).into_data().iter::<f32>().map(|n| n as usize).collect();
    let inputs = TapoInputs {
        logp_bt: logp(fixture, logits.clone()),
        old_logp_bt: fixture.floats("old_logp"),
        sampler_logp_bt: None,
        neg_logp_bt: Some(logp(fixture, neg_logits.clone())),
        ref_logp_bt: None,
        advantages_bt: fixture.floats("advantages"),
        mask_bt: mask,
        policy_tokens: None,
    };
    Leaves { logits, neg_logits, inputs, sizes }
}

fn config() -> TapoLossConfig {
    let text = std::fs::read_to_string(format!("{FOLDER}/hyperparameters.json")).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    value.as_object_mut().unwrap().remove("temperature");
    let config: TapoLossConfig = serde_json::from_value(value).unwrap();
    assert_eq!(config, TapoLossConfig::default());
    config
}

fn size(sizes: &[usize]) -> BatchSize {
    BatchSize { tokens: sizes.iter().sum(), sequences: sizes.len() }
}

fn whole(sizes: &[usize]) -> Normaliser {
    LossNorm::Batch.normaliser(size(sizes), size(sizes), 1)
}

#[test]
fn log_probs_ratios_and_token_losses() {
    let fixture = Fixture::load();
    let Leaves { inputs, .. } = leaves(&fixture);
    fixture.close(inputs.logp_bt.clone(), "logp", 1e-5, 0.0);
    let neg_logp_bt = inputs.neg_logp_bt.unwrap();
    fixture.close(neg_logp_bt.clone(), "neg_logp", 1e-5, 0.0);
    fixture.close(k3(inputs.logp_bt.clone(), neg_logp_bt), "token_kl", 1e-5, 1e-5);
    let log_ratio_bt = config().importance.log_ratio(inputs.logp_bt, inputs.old_logp_bt, inputs.mask_bt);
    let policy = policy_loss(log_ratio_bt, inputs.advantages_bt, &config().clip());
    // Ratios reach e^20, where f32 carries the error of a log-ratio of 20.
    fixture.close(policy.ratio_bt, "ratio", 1e-5, 5e-6);
    fixture.close(policy.loss_bt, "token_pg_loss", 1e-5, 5e-6);
}

#[test]
fn the_loss_its_parts_and_its_gradients() {
    let fixture = Fixture::load();
    for (mode, loss_average) in [("token", LossAverage::Token), ("seq", LossAverage::Sequence)] {
        for (variant, negative_grad) in [("detached", false), ("live", true)] {
            let Leaves { logits, neg_logits, inputs, sizes } = leaves(&fixture);
            let config = TapoLossConfig { loss_average, negative_grad, ..config() };
            let TapoLoss { total, parts } = tapo_loss(inputs, &config, &whole(&sizes));
            let name = format!("{mode}.{variant}");
            fixture.close(total.clone(), &format!("{name}.total"), 1e-5, 0.0);
            let one = |value: f64| Tensor::<1>::from_floats([value as f32], &Device::default());
            fixture.close(one(parts.loss), &format!("{name}.total"), 1e-5, 0.0);
            fixture.close(one(parts.pg_loss), &format!("{mode}.pg_loss"), 1e-5, 0.0);
            fixture.close(one(parts.kl_neg), &format!("{mode}.kl"), 1e-5, 1e-5);
            fixture.close(one(parts.entropy), "entropy", 1e-5, 0.0);
            fixture.close(one(parts.neg_entropy), "neg_entropy", 1e-5, 0.0);

            let grads = total.backward();
            fixture.close(logits.grad(&grads).unwrap(), &format!("{name}.grad_logits"), 1e-6, 0.0);
            match neg_logits.grad(&grads) {
                Some(grad) if negative_grad => {
                    fixture.close(grad, &format!("{name}.grad_neg_logits"), 1e-6, 0.0);
                }
                None if !negative_grad => {}
                other => panic!("{name}: gradient of the negative is there: {}", other.is_some()),
            }
        }
    }
}

#[test]
fn the_gradient_of_each_term() {
    let fixture = Fixture::load();
    let none = TapoLossConfig { gamma: 0.0, eta1: 0.0, eta2: 0.0, negative_grad: false, ..config() };
    for (mode, loss_average) in [("token", LossAverage::Token), ("seq", LossAverage::Sequence)] {
        let grad = |config: TapoLossConfig| {
            let Leaves { logits, inputs, sizes, .. } = leaves(&fixture);
            let grads = tapo_loss(inputs, &config, &whole(&sizes)).total.backward();
            logits.grad(&grads).unwrap()
        };
        let none = TapoLossConfig { loss_average, ..none };
        fixture.close(grad(none), &format!("{mode}.grad_pg_loss"), 1e-6, 0.0);
        let kl = grad(none) - grad(TapoLossConfig { gamma: 1.0, ..none });
        fixture.close(kl, &format!("{mode}.grad_kl"), 2e-6, 1e-6);
        let entropy = grad(TapoLossConfig { eta1: 1.0, ..none }) - grad(none);
        fixture.close(entropy, "grad_entropy", 1e-6, 0.0);
    }
}

#[test]
fn micro_batches_add_up_to_the_whole_batch() {
    let fixture = Fixture::load();
    for loss_average in [LossAverage::Token, LossAverage::Sequence] {
        let config = TapoLossConfig { loss_average, ..config() };
        let (mut grad, mut neg_grad) = (None, None);
        let mut parts = TapoParts::default();
        for rows in [0..1, 1..4] {
            let Leaves { logits, neg_logits, inputs, sizes } = leaves(&fixture);
            let cut = |t: Tensor<2>| t.slice([rows.clone()]);
            let micro = TapoInputs {
                logp_bt: cut(inputs.logp_bt),
                old_logp_bt: cut(inputs.old_logp_bt),
                sampler_logp_bt: None,
                neg_logp_bt: inputs.neg_logp_bt.map(cut),
                ref_logp_bt: None,
                advantages_bt: cut(inputs.advantages_bt),
                mask_bt: cut(inputs.mask_bt),
                policy_tokens: None,
            };
            let normaliser = LossNorm::Batch.normaliser(size(&sizes), size(&sizes[rows]), 2);
            let loss = tapo_loss(micro, &config, &normaliser);
            parts += loss.parts;
            let grads = loss.total.backward();
            let add = |sum: Option<Tensor<3>>, new: Tensor<3>| Some(sum.map_or(new.clone(), |s| s + new));
            grad = add(grad, logits.grad(&grads).unwrap());
            neg_grad = add(neg_grad, neg_logits.grad(&grads).unwrap());
        }
        let mode = if loss_average == LossAverage::Token { "token" } else { "seq" };
        fixture.close(grad.unwrap(), &format!("{mode}.live.grad_logits"), 1e-6, 0.0);
        fixture.close(neg_grad.unwrap(), &format!("{mode}.live.grad_neg_logits"), 1e-6, 0.0);
        let loss = Tensor::<1>::from_floats([parts.loss as f32], &Device::default());
        fixture.close(loss, &format!("{mode}.live.total"), 1e-5, 0.0);
    }
}

#[test]
fn without_a_negative_its_terms_are_not_there() {
    let fixture = Fixture::load();
    let Leaves { logits, mut inputs, sizes, .. } = leaves(&fixture);
    inputs.neg_logp_bt = None;
    let none = TapoLossConfig { gamma: 0.0, eta2: 0.0, ..config() };
    assert!(!none.needs_negative() && config().needs_negative());
    assert!(
        TapoLossConfig { gamma: 0.1, ..none }.needs_negative() && TapoLossConfig { eta2: 0.1, ..none }.needs_negative()
    );
    let TapoLoss { total, parts } = tapo_loss(inputs, &none, &whole(&sizes));
    assert!(parts.kl_neg.is_nan() && parts.neg_entropy.is_nan());
    let grad = logits.grad(&total.backward()).unwrap();

    let Leaves { logits, inputs, sizes, .. } = leaves(&fixture);
    let with = tapo_loss(inputs, &none, &whole(&sizes));
    assert_eq!((parts.loss, parts.pg_loss, parts.entropy), (with.parts.loss, with.parts.pg_loss, with.parts.entropy));
    assert_eq!(grad.into_data(), logits.grad(&with.total.backward()).unwrap().into_data());
}

#[test]
fn k3_and_its_gradient_at_the_clamps() {
    let fixture = Fixture::load();
    let logp = fixture.floats::<1>("k3.logp").require_grad();
    let value = k3(logp.clone(), fixture.floats("k3.neg_logp"));
    fixture.close(value.clone(), "k3.value", 1e-5, 1e-5);
    let grads = value.sum().backward();
    fixture.close(logp.grad(&grads).unwrap(), "k3.grad_logp", 1e-5, 1e-6);
}

#[test]
fn a_reference_model_adds_its_divergence() {
    let fixture = Fixture::load();
    let Leaves { mut inputs, sizes, .. } = leaves(&fixture);
    inputs.ref_logp_bt = inputs.neg_logp_bt.clone();
    let config = TapoLossConfig { kl_ref: 0.5, ..config() };
    let with = tapo_loss(inputs, &config, &whole(&sizes)).parts;
    let without = tapo_loss(leaves(&fixture).inputs, &config, &whole(&sizes)).parts;
    assert!(with.kl_ref > 0.1 && without.kl_ref == 0.0);
    assert!((with.kl_ref - with.kl_neg).abs() < 1e-6);
    assert!((with.loss - without.loss - 0.5 * with.kl_ref).abs() < 1e-5);
}
