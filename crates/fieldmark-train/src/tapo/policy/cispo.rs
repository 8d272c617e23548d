//! CISPO (MiniMax-M1, arXiv 2506.13585): `L = -sg[min(rho, max)] A log pi`, where sg stops the gradient. No token loses its
//! gradient; only its weight is limited. As in the paper's experiments there is no lower bound. The default limit is the
//! 5 of ScaleRL (arXiv 2510.13786), which TRL recommends. References: `loss_type="cispo"` in TRL and in ms-swift.

use burn::tensor::Tensor;

use super::policy_loss::{MAX_LOG_RATIO, PolicyLoss};

/// Default of the largest weight.
pub const CISPO_MAX: f64 = 5.0;

/// CISPO's policy loss of each token.
///
/// * `logp_bt`: log π, which carries the gradient.
/// * `max`: the largest weight, at least 1; infinity means no limit.
///
/// The other arguments are those of [`policy_loss`](super::policy_loss()).
pub fn cispo_loss(logp_bt: Tensor<2>, log_ratio_bt: Tensor<2>, advantages_bt: Tensor<2>, max: f64) -> PolicyLoss {
    let ratio_bt = log_ratio_bt.detach().clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp();
    // Not every device compares with infinity, and no ratio reaches twice the largest one.
    let max = max.min(2.0 * MAX_LOG_RATIO.exp());
    let weight_bt = ratio_bt.clone().clamp_max(max);
    let over_bt = ratio_bt.clone().greater_elem(max);
    PolicyLoss {
        loss_bt: (weight_bt * advantages_bt.clone() * logp_bt).neg(),
        clipped_high_bt: over_bt.clone().bool_and(advantages_bt.clone().greater_elem(0.0)).float(),
        clipped_low_bt: ratio_bt.zeros_like(),
        clipped_dual_bt: over_bt.bool_and(advantages_bt.lower_elem(0.0)).float(),
        ratio_bt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Loss, gradient and the marks high, low, dual of one token with `log pi = -2`.
    fn token(max: f64, ratio: f32, advantage: f32) -> [f32; 5] {
        let device = Device::default().autodiff();
        let logp = Tensor::<2>::from_floats([[-2.0]], &device).require_grad();
        let old = Tensor::from_floats([[-2.0 - ratio.ln()]], &device);
        let advantages = Tensor::from_floats([[advantage]], &device);
        let out = cispo_loss(logp.clone(), logp.clone() - old, advantages, max);
        let grads = out.loss_bt.clone().sum().backward();
        let grad = logp.grad(&grads).unwrap();
        let values = [out.loss_bt, grad, out.clipped_high_bt, out.clipped_low_bt, out.clipped_dual_bt];
        values.map(|value| value.into_scalar::<f32>())
    }

    /// The loss is `2 w A` and its gradient `-w A`, with the weight `w = min(ratio, max)`.
    #[test]
    fn every_token_keeps_a_gradient_of_limited_weight() {
        for (max, ratio, advantage, expected) in [
            (5.0, 1.0, 3.0, [6.0, -3.0, 0.0, 0.0, 0.0]),
            (5.0, 0.5, 3.0, [3.0, -1.5, 0.0, 0.0, 0.0]),
            (5.0, 0.5, -3.0, [-3.0, 1.5, 0.0, 0.0, 0.0]),
            (5.0, 4.0, 3.0, [24.0, -12.0, 0.0, 0.0, 0.0]),
            (5.0, 6.0, 3.0, [30.0, -15.0, 1.0, 0.0, 0.0]),
            (5.0, 6.0, -3.0, [-30.0, 15.0, 0.0, 0.0, 1.0]),
            (5.0, 6.0, 0.0, [0.0, 0.0, 0.0, 0.0, 0.0]),
            (1.0, 1.5, 3.0, [6.0, -3.0, 1.0, 0.0, 0.0]),
            (f64::INFINITY, 6.0, 3.0, [36.0, -18.0, 0.0, 0.0, 0.0]),
        ] {
            let found = token(max, ratio, advantage);
            for (f, e) in found.iter().zip(expected) {
                assert!((f - e).abs() < 1e-4, "max {max}, ratio {ratio}, A {advantage}: {found:?}");
            }
        }
    }

    /// Where the clip stops a token (ratio above 1.28, `A > 0`), CISPO does not.
    #[test]
    fn a_token_that_the_clip_stops_still_learns() {
        let [_, gradient, high, ..] = token(CISPO_MAX, 2.0, 1.0);
        assert!((gradient + 2.0).abs() < 1e-5 && high == 0.0, "{gradient}");
    }
}
