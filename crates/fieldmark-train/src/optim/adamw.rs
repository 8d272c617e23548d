//! AdamW, as in `torch.optim.AdamW`: `p <- p (1 - lr wd)`, then `p <- p - lr (m / bc1) / (sqrt(v / bc2) + eps)`. Burn's
//! AdamW computes the same (decoupled decay first, bias correction, eps outside the root). This file sets torch's
//! constants and excludes biases and norms from decay. Burn stores the betas in f32, so its steps differ from torch's
//! by rounding, less than 1e-5 of lr. In f32 a decay with lr wd < 3e-8 has no effect, as in torch. On the CPU
//! [`host_step`](super::host_step) makes the step, with the same bits as Burn's.

use burn::{
    module::{Module, ModuleVisitor, Param, ParamGroup, ParamId},
    optim::{AdamWConfig, ModuleOptimizer},
    tensor::Tensor,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    adamw_half::{HalfWeights, Moments, PreciseAdamW},
    host_step::Rates,
};
use crate::TrainError;

/// AdamW. `schedule` sets the learning rate, `max_grad_norm` the clipping.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWSettings {
    /// Decay rate of the first moment, the mean of the gradient.
    pub beta1: f32,
    /// Decay rate of the second moment, the mean of the squared gradient.
    pub beta2: f32,
    /// Added to the square root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay. Paper: 0.1 in SFT, 0.01 in TAPO.
    pub weight_decay: f32,
    /// Whether one-dimensional parameters (biases and norms) decay too, as in a plain torch optimiser.
    pub decay_all: bool,
    /// What to keep of the precision that 16-bit weights lose: `master`, `kahan` or `none`. f32 weights need nothing.
    pub half: HalfWeights,
    /// Type of the stored moments: `f32` or `bf16`.
    pub moments: Moments,
}

impl Default for AdamWSettings {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            decay_all: false,
            half: HalfWeights::default(),
            moments: Moments::default(),
        }
    }
}

impl AdamWSettings {
    /// Makes an optimiser for `module`. One-dimensional parameters form a group without decay.
    ///
    /// # Errors
    /// Returns an error if a beta is outside 0..1, eps is not positive, or the decay is negative.
    pub fn init<M: Module>(&self, module: &M) -> Result<ModuleOptimizer, TrainError> {
        self.validate()?;
        let optimizer = ModuleOptimizer::from(self.build(self.weight_decay));
        if self.decay_all {
            return Ok(optimizer);
        }
        let mut vectors = VectorIds::default();
        module.visit(&mut vectors);
        Ok(optimizer.with_group(ParamGroup::from_ids(vectors.0), self.build(0.0), None))
    }

    fn build(&self, weight_decay: f32) -> PreciseAdamW {
        let inner = AdamWConfig::new()
            .with_beta_1(self.beta1)
            .with_beta_2(self.beta2)
            .with_epsilon(self.eps)
            .with_weight_decay(weight_decay)
            .build();
        let rates = Rates { beta1: self.beta1, beta2: self.beta2, eps: self.eps, weight_decay };
        PreciseAdamW { inner, rates, half: self.half, moments: self.moments }
    }

    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        let unit = 0.0..1.0;
        let checks = [
            ("beta1", self.beta1, unit.contains(&self.beta1), "at least 0 and below 1"),
            ("beta2", self.beta2, unit.contains(&self.beta2), "at least 0 and below 1"),
            ("eps", self.eps, self.eps > 0.0, "above 0"),
            ("weight_decay", self.weight_decay, self.weight_decay >= 0.0, "at least 0"),
        ];
        for (key, value, ok, expected) in checks {
            if !ok {
                return Err(TrainError::Setting { key, value: value.to_string(), expected });
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct VectorIds(Vec<ParamId>);

impl ModuleVisitor for VectorIds {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if D == 1 {
            self.0.push(param.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::{
        nn::{Linear, LinearConfig},
        optim::GradientsParams,
        tensor::{Device, TensorData},
    };

    const LR: f64 = 1e-3;

    /// `torch.optim.AdamW` on one number, in f64.
    fn closed_form(mut p: f64, grads: &[f64], weight_decay: f64) -> f64 {
        let (mut m, mut v) = (0.0, 0.0);
        for (t, g) in grads.iter().enumerate() {
            let t = t as i32 + 1;
            p *= 1.0 - LR * weight_decay;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let denominator = v.sqrt() / (1.0 - 0.999f64.powi(t)).sqrt() + 1e-8;
            p -= LR / (1.0 - 0.9f64.powi(t)) * m / denominator;
        }
        p
    }

    fn stepped(settings: AdamWSettings, weight: f32, bias: f32, grads: &[f64]) -> [f32; 2] {
        let device = Device::default().autodiff();
        let mut linear: Linear = LinearConfig::new(1, 1).init(&device);
        linear.weight = linear.weight.map(|w| constant(w, weight));
        linear.bias = linear.bias.map(|b| b.map(|b| constant(b, bias)));
        let mut optimizer = settings.init(&linear).unwrap();
        for &g in grads {
            let mut params = GradientsParams::new();
            let plain = device.clone().inner();
            params.register(linear.weight.id, Tensor::<2>::full([1, 1], g, &plain));
            if let Some(bias) = &linear.bias {
                params.register(bias.id, Tensor::<1>::full([1], g, &plain));
            }
            linear = optimizer.step(LR, linear, params);
        }
        let bias = linear.bias.unwrap().val().into_scalar::<f32>();
        [linear.weight.val().into_scalar::<f32>(), bias]
    }

    fn constant<const D: usize>(like: Tensor<D>, value: f32) -> Tensor<D> {
        let data = TensorData::new(vec![value], like.shape());
        Tensor::from_data(data, &like.device()).require_grad()
    }

    #[test]
    fn twenty_steps_match_the_closed_form_and_biases_do_not_decay() {
        let grads: Vec<f64> = (0..20).map(|i| (1.7 * f64::from(i)).sin() * 10f64.powi(i % 5 - 3)).collect();
        let settings = AdamWSettings { weight_decay: 10.0, ..Default::default() };
        for n in [1, 2, 3, 20] {
            let [weight, bias] = stepped(settings, 0.5, 0.25, &grads[..n]);
            let expected = [closed_form(0.5, &grads[..n], 10.0), closed_form(0.25, &grads[..n], 0.0)];
            assert!((f64::from(weight) - expected[0]).abs() < 3e-7, "{n}: {weight} {expected:?}");
            assert!((f64::from(bias) - expected[1]).abs() < 3e-7, "{n}: {bias} {expected:?}");
        }
        let [_, bias] = stepped(AdamWSettings { decay_all: true, ..settings }, 0.5, 0.25, &grads);
        assert!((f64::from(bias) - closed_form(0.25, &grads, 10.0)).abs() < 3e-7);
    }

    #[test]
    fn eps_stands_outside_the_root() {
        let [weight, _] = stepped(AdamWSettings { weight_decay: 0.0, ..Default::default() }, 0.0, 0.0, &[1e-8]);
        assert!((f64::from(weight) + LR * 0.5).abs() < 1e-7, "{weight}");
    }

    #[test]
    fn settings_are_checked() {
        let linear = LinearConfig::new(1, 1).init(&Device::default());
        let refused = AdamWSettings { beta2: 1.0, ..Default::default() }.init(&linear);
        assert!(matches!(refused.err(), Some(TrainError::Setting { key: "beta2", .. })));
    }
}
