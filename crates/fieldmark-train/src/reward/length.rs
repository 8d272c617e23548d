//! Soft penalty for over-long responses, equation 13 of DAPO (arXiv 2503.14476): 0 up to `max - cache` tokens, then
//! falling linearly to -1 at `max`.

use super::input::{Reward, RewardInput};

/// Penalty for responses close to the largest length allowed. The score is in -1..=0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthPenalty {
    /// Number of tokens before the limit over which the penalty grows. DAPO: 4096 of 20480.
    pub cache: usize,
}

impl Reward for LengthPenalty {
    fn score(&self, input: &RewardInput<'_>) -> f64 {
        let free = input.max_new_tokens.saturating_sub(self.cache);
        match input.response_tokens.checked_sub(free) {
            None | Some(0) => 0.0,
            Some(over) => -(over as f64 / self.cache as f64).min(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_falls_from_nothing_to_minus_one() {
        let at = |tokens, cache| {
            let input = RewardInput::new("", "").with_tokens(tokens, 100);
            LengthPenalty { cache }.score(&input)
        };
        // From 80 on: (80 - tokens)/20.
        let expected = [(1, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1.0)];
        for (tokens, expected) in expected {
            assert!((at(tokens, 20) - expected).abs() < 1e-12, "{tokens}: {}", at(tokens, 20));
        }
        assert_eq!([at(1, 100), at(50, 100), at(100, 100)], [-0.01, -0.5, -1.0]);
        assert_eq!(LengthPenalty { cache: 20 }.score(&RewardInput::new("", "")), 0.0);
    }
}
