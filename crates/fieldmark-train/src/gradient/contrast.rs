//! How the distributions of the same tokens differ between two images: their Jensen-Shannon divergence
//! `(KL(p || m) + KL(q || m)) / 2` with `m = (p + q) / 2`, and the entropy of each. Reference:
//! `compute_jsd_and_entropy_from_logits` of VEPO, which adds 1e-8 to m; here log m comes from log p and log q.

use std::f64::consts::LN_2;

use burn::tensor::{Tensor, activation::log_softmax};

use super::logprob::{ChunkedLogProbs, at_least_f32, scaled};

/// What two distributions of the same token have and have not in common. All in nats.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TokenContrast {
    /// Jensen-Shannon divergence, from 0 to ln 2.
    pub divergence: f64,
    /// Entropy of the first distribution.
    pub entropy: f64,
    /// Entropy of the second.
    pub other_entropy: f64,
}

impl ChunkedLogProbs {
    /// Compares the distributions that `head` makes of two states for each token, without a tape. Both are `[N, D]`.
    ///
    /// More tensors of the size of the logits are in memory than for log-probabilities, so chunks are a quarter as long.
    pub fn contrast(
        &self,
        hidden_nd: &Tensor<2>,
        other_nd: &Tensor<2>,
        head: impl Fn(Tensor<2>) -> Tensor<2>,
    ) -> Vec<TokenContrast> {
        let chunks = self.quarter().ranges(hidden_nd.dims()[0]).map(|range| {
            let logp = |states_nd: &Tensor<2>| {
                let logits_nv = head(states_nd.clone().inner().slice([range.clone()])).inner();
                log_softmax(scaled(at_least_f32(logits_nv), self.temperature()), 1)
            };
            contrast(logp(hidden_nd), logp(other_nd))
        });
        let [divergence, entropy, other_entropy] = chunks.fold([const { Vec::new() }; 3], |mut all, chunk| {
            all.iter_mut().zip(chunk).for_each(|(all, values_n)| all.extend(values_n.into_data().iter::<f64>()));
            all
        });
        let tokens = divergence.into_iter().zip(entropy).zip(other_entropy);
        tokens
            .map(|((divergence, entropy), other_entropy)| TokenContrast { divergence, entropy, other_entropy })
            .collect()
    }
}

/// Divergence, entropy and entropy of the other, each `[N]`, from log-probabilities `[N, V]`.
fn contrast(logp_nv: Tensor<2>, logq_nv: Tensor<2>) -> [Tensor<1>; 3] {
    let (p_nv, q_nv) = (logp_nv.clone().exp(), logq_nv.clone().exp());
    let sum = |values_nv: Tensor<2>| values_nv.sum_dim(1).squeeze_dim::<1>(1);
    // log m = max + log(1 + exp(-|difference|)) - log 2 is finite also where both probabilities are 0 in f32.
    let apart_nv = (logp_nv.clone() - logq_nv.clone()).abs();
    let logm_nv = logp_nv.clone().max_pair(logq_nv.clone()) + apart_nv.neg().exp().log1p() - LN_2;
    let divergence =
        sum(p_nv.clone() * (logp_nv.clone() - logm_nv.clone())) + sum(q_nv.clone() * (logq_nv.clone() - logm_nv));
    [(divergence / 2.0).clamp_min(0.0), sum(p_nv * logp_nv).neg(), sum(q_nv * logq_nv).neg()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    /// Rows of probabilities as states; the head is the logarithm.
    fn rows<const N: usize>(rows: [[f32; 3]; N]) -> Tensor<2> {
        Tensor::from_floats(rows, &Device::default())
    }

    #[test]
    fn two_distributions_by_hand() {
        let p = [[0.5, 0.25, 0.25], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0]];
        let q = [[0.25, 0.5, 0.25], [0.0, 1.0, 0.0], [0.2, 0.3, 0.5], [0.25, 0.25, 0.5]];
        let head = |states: Tensor<2>| (states + 1e-30).log();
        let entropy = |row: [f32; 3]| -> f64 {
            row.iter().filter(|p| **p > 0.0).map(|&p| -f64::from(p) * f64::from(p).ln()).sum()
        };
        // m = 0.375, 0.375, 0.25: half of 0.5 ln(4/3) + 0.25 ln(2/3), twice. Disjoint: ln 2. Equal: 0.
        // m = 0.625, 0.125, 0.25: half of ln(1.6) + 0.25 ln(0.4) + 0.25 ln 2 + 0.5 ln 2.
        let first = 0.5 * (4.0f64 / 3.0).ln() + 0.25 * (2.0f64 / 3.0).ln();
        let last = (1.6f64.ln() + 0.25 * 0.4f64.ln() + 0.75 * LN_2) / 2.0;
        let expected = [first, LN_2, 0.0, last];
        for chunk in [1, 4, 9] {
            let found = ChunkedLogProbs::new(chunk, 1.0).unwrap().contrast(&rows(p), &rows(q), head);
            assert_eq!(found.len(), 4);
            for (i, token) in found.iter().enumerate() {
                let pairs = [
                    (token.divergence, expected[i]),
                    (token.entropy, entropy(p[i])),
                    (token.other_entropy, entropy(q[i])),
                ];
                assert!(pairs.iter().all(|(found, expected)| (found - expected).abs() < 1e-6), "{i} {pairs:?}");
            }
        }
    }

    #[test]
    fn the_temperature_flattens_both() {
        // At temperature 2 probabilities go as their square roots: 16, 1, 1 as 4, 1, 1.
        let sharp = rows([[16.0 / 18.0, 1.0 / 18.0, 1.0 / 18.0]]);
        let found = ChunkedLogProbs::new(8, 2.0).unwrap().contrast(&sharp, &sharp, |states| states.log());
        let entropy = -(4.0 / 6.0 * (4.0f64 / 6.0).ln() + 2.0 / 6.0 * (1.0f64 / 6.0).ln());
        assert!((found[0].entropy - entropy).abs() < 1e-6 && found[0].divergence < 1e-7, "{found:?}");
    }
}
