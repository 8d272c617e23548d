//! The same experiment over several seeds: mean and standard deviation, and Student's paired t-test between two of them.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Mean and standard deviation over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanOverSeeds {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of the sample (divisor n − 1); `None` for one seed.
    pub deviation: Option<f64>,
    /// Number of seeds.
    pub seeds: usize,
}

impl MeanOverSeeds {
    /// The mean of `values`, one a seed; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        Some(Self { mean, deviation, seeds: values.len() })
    }
}

/// Student's paired t-test: whether two experiments differ in the mean, over seeds that both of them have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PairedTest {
    /// The mean of second − first.
    pub difference: f64,
    /// The two-sided probability that experiments without a difference in the mean differ at least this much.
    pub p_value: f64,
    /// Number of pairs.
    pub pairs: usize,
}

impl PairedTest {
    /// Tests `(first, second)` pairs, one a seed; `None` for fewer than two pairs, which say nothing about chance.
    pub fn of(pairs: &[(f64, f64)]) -> Option<Self> {
        let differences: Vec<f64> = pairs.iter().map(|(first, second)| second - first).collect();
        let MeanOverSeeds { mean, deviation, seeds } = MeanOverSeeds::of(&differences)?;
        let error = deviation? / (seeds as f64).sqrt();
        let p_value = match (mean == 0.0, error == 0.0) {
            (true, _) => 1.0,
            (false, true) => 0.0,
            (false, false) => {
                let student = StudentsT::new(0.0, 1.0, seeds as f64 - 1.0).ok()?;
                2.0 * student.cdf(-(mean / error).abs())
            }
        };
        Some(Self { difference: mean, p_value, pairs: seeds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_are_those_of_a_sample() {
        let found = MeanOverSeeds::of(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert_eq!((found.mean, found.seeds), (3.0, 5));
        assert!((found.deviation.unwrap() - 2.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(MeanOverSeeds::of(&[0.5]).unwrap().deviation, None);
        assert_eq!(MeanOverSeeds::of(&[]), None);
    }

    #[test]
    fn the_test_has_the_tails_of_students_distribution() {
        // With two degrees of freedom the distribution is closed: P(|T| > t) = 1 - t / sqrt(t^2 + 2).
        let pairs = [(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)];
        let t = 2.0 / (1.0 / 3f64.sqrt());
        let found = PairedTest::of(&pairs).unwrap();
        assert_eq!((found.difference, found.pairs), (2.0, 3));
        assert!((found.p_value - (1.0 - t / (t * t + 2.0).sqrt())).abs() < 1e-9, "{}", found.p_value);
        // With one degree of freedom it is Cauchy's: P(|T| > 1) = 1/2. The differences 0 and 1 have t = 1.
        let found = PairedTest::of(&[(0.0, 0.0), (0.0, 1.0)]).unwrap();
        assert!((found.p_value - 0.5).abs() < 1e-9);
    }

    #[test]
    fn pairs_without_spread_or_difference_are_clear() {
        let p = |pairs: &[(f64, f64)]| PairedTest::of(pairs).map(|found| found.p_value);
        assert_eq!(p(&[(0.1, 0.1), (0.2, 0.2)]), Some(1.0));
        assert_eq!(p(&[(1.0, 2.0), (3.0, 4.0)]), Some(0.0));
        assert_eq!(p(&[(1.0, 2.0)]), None);
    }
}
