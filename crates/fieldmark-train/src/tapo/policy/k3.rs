//! Unbiased low-variance estimate of `KL(pi || other)` for tokens sampled from pi ("k3", `low_var_kl`):
//! `k = clamp(exp(u) - u - 1, -10, 10)` with `u = clamp(log other - log pi, -20, 20)`. Deviation from the paper:
//! equation 3 prints the inverse ratio `pi / other`, whose expected value under pi is not a KL. This is the form of the
//! released code, and the estimator that the paper's text describes.

use burn::tensor::Tensor;

/// Estimate of `KL(pi || other)` per token. Any shape; differentiable with respect to both arguments.
///
/// `other` is the policy given the negative image, or a reference model. The gradient is 0 where a clamp is active.
/// Reference: `compute_kl(..., "low_var_kl")`.
pub fn k3<const D: usize>(logp: Tensor<D>, other_logp: Tensor<D>) -> Tensor<D> {
    let u = (other_logp - logp).clamp(-20.0, 20.0);
    (u.clone().exp() - u - 1.0).clamp(-10.0, 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, activation::softmax};

    #[test]
    fn its_mean_under_the_policy_is_the_kl() {
        let device = Device::default();
        let p = softmax(Tensor::<1>::from_floats([0.3, -1.0, 0.9, 0.0], &device), 0);
        let q = softmax(Tensor::<1>::from_floats([-0.4, 0.2, 0.5, 1.0], &device), 0);
        let kl = (p.clone() * (p.clone().log() - q.clone().log())).sum().into_scalar::<f32>();
        let estimate = (p.clone() * k3(p.log(), q.log())).sum().into_scalar::<f32>();
        assert!(kl > 0.1 && (kl - estimate).abs() < 1e-6, "{kl} {estimate}");
    }
}
