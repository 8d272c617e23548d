//! Accuracies with 95 % confidence intervals: Wilson's score interval for one data set, the square-and-add rule
//! (Newcombe 1998, MOVER) for means over data sets. For a single data set, the rule gives Wilson's interval.

use serde::Serialize;

/// The 97.5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// The share of right answers, from 0 to 1, with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Accuracy {
    /// The share.
    pub value: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
    /// The number of questions; a question asked in several option orders counts once.
    pub questions: usize,
}

impl Accuracy {
    /// Returns the share `right / questions` with Wilson's interval; `None` without questions.
    ///
    /// `right` may have a fraction, because a question asked in several orders adds its mean.
    pub fn wilson(right: f64, questions: usize) -> Option<Self> {
        if questions == 0 {
            return None;
        }
        let n = questions as f64;
        let value = right / n;
        let centre = value + Z * Z / (2.0 * n);
        let half = Z * (value * (1.0 - value) / n + Z * Z / (4.0 * n * n)).max(0.0).sqrt();
        let scale = 1.0 + Z * Z / n;
        Some(Self {
            value,
            low: ((centre - half) / scale).clamp(0.0, value.min(1.0)),
            high: ((centre + half) / scale).clamp(value.max(0.0), 1.0),
            questions,
        })
    }

    /// Returns the unweighted mean of independent accuracies; `None` if `parts` is empty.
    pub fn mean(parts: &[Self]) -> Option<Self> {
        if parts.is_empty() {
            return None;
        }
        let n = parts.len() as f64;
        let value = parts.iter().map(|part| part.value).sum::<f64>() / n;
        let spread =
            |distance: fn(&Self) -> f64| parts.iter().map(|part| distance(part).powi(2)).sum::<f64>().sqrt() / n;
        Some(Self {
            value,
            low: (value - spread(|part| part.value - part.low)).max(0.0),
            high: (value + spread(|part| part.high - part.value)).min(1.0),
            questions: parts.iter().map(|part| part.questions).sum(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_solve_wilsons_equation() {
        for (right, questions) in [(77.0, 150), (0.0, 10), (10.0, 10), (1.0, 3), (110.25, 350)] {
            let found = Accuracy::wilson(right, questions).unwrap();
            let n = questions as f64;
            // The ends are the p at which (p̂ − p)² = z² p (1 − p) / n.
            for p in [found.low, found.high] {
                let difference = (found.value - p).powi(2) - Z * Z * p * (1.0 - p) / n;
                assert!(difference.abs() < 1e-12, "{right}/{questions}: {difference}");
            }
            assert!(found.low <= found.value && found.value <= found.high);
        }
        // Newcombe's printed example: 81 of 263 is 0.2553 to 0.3662.
        let printed = Accuracy::wilson(81.0, 263).unwrap();
        assert!((printed.low - 0.2553).abs() < 5e-5 && (printed.high - 0.3662).abs() < 5e-5);
        assert_eq!(Accuracy::wilson(0.0, 0), None);
    }

    #[test]
    fn means_add_the_squares() {
        let [a, b] = [(30.0, 50), (90.0, 100)].map(|(right, n)| Accuracy::wilson(right, n).unwrap());
        assert_eq!(Accuracy::mean(&[a]), Some(a));
        let mean = Accuracy::mean(&[a, b]).unwrap();
        assert!((mean.value - 0.75).abs() < 1e-12);
        let low = 0.75 - (((0.6 - a.low).powi(2) + (0.9 - b.low).powi(2)) / 4.0).sqrt();
        assert!((mean.low - low).abs() < 1e-12);
        assert_eq!(mean.questions, 150);
        assert_eq!(Accuracy::mean(&[]), None);
    }
}
