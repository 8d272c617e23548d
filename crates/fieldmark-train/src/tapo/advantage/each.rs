//! Each reward alone, then their sum: `A_i = sum over k of w_k (r_ik - mean(r_k)) / (std(r_k) + 1e-6)`, with mean and
//! unbiased standard deviation over the group; a constant reward adds exactly 0. Multi-reward normalisation of
//! ReFine-RFT (arXiv 2601.06993), and the first half of GDPO (arXiv 2601.05242), whose second half normalises once more
//! over the step. References: `mrpo_trainer.py` of ReFine-RFT, `gdpo` in verl-GDPO, `normalize_then_sum` in TRL, which
//! add 1e-4 or 1e-6.

use super::grpo::group_advantages;
use crate::TrainError;

/// Advantages of one group of `responses`. `each` holds weight and values of every reward. A reward of weight 0 is only
/// measured.
///
/// # Errors
/// Returns an error if a reward is NaN or infinite.
pub(super) fn each_advantages(responses: usize, each: &[(f64, Vec<f64>)]) -> Result<Vec<f64>, TrainError> {
    let mut sum = vec![0.0; responses];
    for (weight, values) in each.iter().filter(|(weight, _)| *weight != 0.0) {
        let alone = group_advantages(values)?;
        sum.iter_mut().zip(alone).for_each(|(sum, advantage)| *sum += weight * advantage);
    }
    Ok(sum)
}

/// GDPO's second half: the advantages of all responses of a step, minus their mean and divided by their standard
/// deviation.
///
/// # Errors
/// Returns an error if an advantage is NaN or infinite.
pub(in crate::tapo) fn gdpo_over_step(advantages: &[f64]) -> Result<Vec<f64>, TrainError> {
    group_advantages(advantages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tapo::advantage::rewards::tests::close;

    #[test]
    fn two_rewards_by_hand() {
        // Accuracy 1, 0, 0, 0: mean 1/4, squares 9/16 + 3/16 = 3/4, variance 1/4, deviation 1/2. Format 1, 1, 0, 0: mean
        // 1/2, variance 1/3. With weights of 0.9 and 0.1, and a third reward that is only measured.
        let (accuracy, format) = (vec![1.0, 0.0, 0.0, 0.0], vec![1.0, 1.0, 0.0, 0.0]);
        let each = vec![(0.9, accuracy), (0.1, format), (0.0, vec![f64::NAN; 4])];
        let (a, f) = (0.9 / (0.5 + 1e-6), 0.1 * 0.5 / ((1.0f64 / 3.0).sqrt() + 1e-6));
        let expected = [0.75 * a + f, -0.25 * a + f, -0.25 * a - f, -0.25 * a - f];
        close(&each_advantages(4, &each).unwrap(), &expected);
        close(&expected, &[1.436_599_690_4, -0.363_396_709_6, -0.536_601_490_4, -0.536_601_490_4]);
    }

    #[test]
    fn a_constant_reward_adds_nothing_and_a_rare_one_counts_in_full() {
        // A format that one response of four misses weighs as much as an accuracy that one of four has.
        let (hit, miss) = (vec![1.0, 0.0, 0.0, 0.0], vec![0.1, 0.1, 0.1, 0.0]);
        let alone = each_advantages(4, &[(1.0, hit.clone())]).unwrap();
        assert_eq!(each_advantages(4, &[(1.0, hit.clone()), (5.0, vec![0.1 + 0.2; 4])]).unwrap(), alone);
        let both = each_advantages(4, &[(1.0, hit), (1.0, miss)]).unwrap();
        assert!((both[0] - 2.0).abs() < 1e-4 && (both[3] + 2.0).abs() < 1e-4 && both[1].abs() < 1e-4, "{both:?}");
        assert_eq!(each_advantages(3, &[]).unwrap(), [0.0; 3]);
    }

    #[test]
    fn over_a_step_the_deviation_is_one() {
        // Mean 0; squares 4 + 4 + 1 + 1 = 10, variance 10/3.
        let scale = (10.0f64 / 3.0).sqrt() + 1e-6;
        close(&gdpo_over_step(&[2.0, -2.0, 1.0, -1.0]).unwrap(), &[2.0, -2.0, 1.0, -1.0].map(|a| a / scale));
        assert_eq!(gdpo_over_step(&[0.0; 4]).unwrap(), [0.0; 4]);
    }
}
