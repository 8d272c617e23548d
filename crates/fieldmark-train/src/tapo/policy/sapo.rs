//! SAPO (arXiv 2511.20347): `L = -A (4 / tau) sigmoid(tau (rho - 1))`, with one temperature `tau` for `A > 0` and another
//! for all other tokens. Its gradient is that of `-A rho` times `4 p (1 - p)`, with `p = sigmoid(tau (rho - 1))`: 1 at
//! `rho = 1`, and smoothly towards 0 on both sides. References: `loss_type="sapo"` in TRL and in ms-swift. As in
//! `policy_loss.rs`, the logarithm of the ratio is clamped to ±20.

use burn::tensor::{Tensor, activation::sigmoid};

use super::policy_loss::{MAX_LOG_RATIO, PolicyLoss};
use crate::TrainError;

/// Temperatures of the gate. The defaults are the paper's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SapoConfig {
    /// For positive advantages. Default: 1.
    pub tau_pos: f64,
    /// For all others. Default: 1.05. The paper keeps it above `tau_pos`: a negative advantage raises the probability of
    /// many other tokens, and is therefore held back more.
    pub tau_neg: f64,
}

impl Default for SapoConfig {
    fn default() -> Self {
        Self { tau_pos: 1.0, tau_neg: 1.05 }
    }
}

impl SapoConfig {
    /// Checks the temperatures.
    ///
    /// # Errors
    /// Returns an error if one is not a positive number.
    pub fn validate(&self) -> Result<(), TrainError> {
        for (key, tau) in [("sapo_tau_pos", self.tau_pos), ("sapo_tau_neg", self.tau_neg)] {
            if !(tau > 0.0 && tau.is_finite()) {
                return Err(TrainError::Setting { key, value: tau.to_string(), expected: "a positive number" });
            }
        }
        Ok(())
    }
}

/// SAPO's policy loss of each token. The arguments are those of [`policy_loss`](super::policy_loss()).
pub fn sapo_loss(log_ratio_bt: Tensor<2>, advantages_bt: Tensor<2>, gate: &SapoConfig) -> PolicyLoss {
    let ratio_bt = log_ratio_bt.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp();
    let positive_bt = advantages_bt.clone().greater_elem(0.0);
    let tau_bt = advantages_bt.full_like(gate.tau_neg).mask_fill(positive_bt.clone(), gate.tau_pos);
    let gate_bt = sigmoid(tau_bt.clone() * (ratio_bt.clone() - 1.0));
    let loss_bt = (gate_bt.clone() * advantages_bt.clone() / tau_bt) * -4.0;

    let (gate_const_bt, ratio_const_bt) = (gate_bt.detach(), ratio_bt.clone().detach());
    let left_bt = gate_const_bt.clone() * (gate_const_bt.neg() + 1.0) * 4.0;
    let held_bt = left_bt.lower_elem(0.5).bool_and(advantages_bt.clone().not_equal_elem(0.0));
    let high_bt = held_bt.clone().bool_and(ratio_const_bt.clone().greater_elem(1.0));
    PolicyLoss {
        loss_bt,
        ratio_bt,
        clipped_high_bt: high_bt.clone().bool_and(positive_bt).float(),
        clipped_low_bt: held_bt.bool_and(ratio_const_bt.lower_elem(1.0)).float(),
        clipped_dual_bt: high_bt.bool_and(advantages_bt.lower_elem(0.0)).float(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Loss, gradient and the marks high, low, dual of one token of this ratio and advantage, with `pi_old = 1`.
    fn token(gate: &SapoConfig, ratio: f32, advantage: f32) -> [f64; 5] {
        let device = Device::default().autodiff();
        let logp = Tensor::<2>::from_floats([[ratio.ln()]], &device).require_grad();
        let out = sapo_loss(logp.clone(), Tensor::from_floats([[advantage]], &device), gate);
        let grads = out.loss_bt.clone().sum().backward();
        let grad = logp.grad(&grads).unwrap();
        let values = [out.loss_bt, grad, out.clipped_high_bt, out.clipped_low_bt, out.clipped_dual_bt];
        values.map(|value| f64::from(value.into_scalar::<f32>()))
    }

    /// A gate of `sigmoid(ln 3) = 3/4` leaves `4 * 3/4 * 1/4 = 3/4` of the gradient; of `sigmoid(ln 9) = 9/10`,
    /// `36/100`. So does a gate of 1/4, and of 1/10.
    #[test]
    fn the_gate_by_hand() {
        let (three, nine) = (3f64.ln(), 9f64.ln());
        let gate = SapoConfig { tau_pos: 2.0, tau_neg: 4.0 };
        // (ratio - 1) times the temperature, the gate, and what it leaves.
        for (z, open, left) in [(0.0, 0.5, 1.0), (three, 0.75, 0.75), (-three, 0.25, 0.75), (nine, 0.9, 0.36)] {
            for (advantage, tau) in [(3.0, 2.0), (-3.0, 4.0)] {
                let ratio = 1.0 + z / tau;
                let found = token(&gate, ratio as f32, advantage as f32);
                let (high, dual) = (f64::from(left < 0.5 && advantage > 0.0), f64::from(left < 0.5 && advantage < 0.0));
                let expected = [-advantage * 4.0 / tau * open, -advantage * left * ratio, high, 0.0, dual];
                for (f, e) in found.iter().zip(expected) {
                    assert!((f - e).abs() < 1e-5, "z {z}, A {advantage}: {found:?}, by hand {expected:?}");
                }
            }
        }
        // Low ratios are held back with either sign: 4 (0.45 - 1) = -ln 9.025.
        for advantage in [2.0, -2.0] {
            let found = token(&SapoConfig { tau_pos: 4.0, tau_neg: 4.0 }, 0.45, advantage);
            assert_eq!(found[2..], [0.0, 1.0, 0.0], "{found:?}");
        }
    }

    #[test]
    fn at_the_sampling_policy_it_is_the_plain_gradient_and_far_from_it_none() {
        let gate = SapoConfig::default();
        for advantage in [2.0, -2.0] {
            assert!((token(&gate, 1.0, advantage)[1] + f64::from(advantage)).abs() < 1e-5);
            for ratio in [1e30, 1e-30] {
                let found = token(&gate, ratio, advantage);
                assert!(found[0].is_finite() && found[1].abs() < 1e-5, "{ratio} {found:?}");
            }
        }
        assert_eq!(token(&gate, 5.0, 0.0), [0.0; 5].map(|zero: f64| zero));
    }
}
