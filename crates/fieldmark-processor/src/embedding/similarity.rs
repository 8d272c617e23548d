//! How alike two texts are by their vectors: the cosine, and the relative similarity of Fine-R1 (arXiv 2602.07605,
//! equation 5).

/// Cosine of the angle between two vectors of equal length; NaN if one of them is zero or not finite.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Vectors whose cosine is this close to 1 count as the same text: f32 vectors of one text may differ this much.
const SAME: f64 = 1e-6;

/// How far an answer is on the way from the truth's super-category (0) to the truth (1), from their vectors:
/// max(0, (cos(answer, truth) − cos(super, truth)) / (1 − cos(super, truth))).
///
/// If the truth is its own super-category, the truth scores 1 and every other answer 0. The result is NaN if a
/// [`cosine`] is.
pub fn relative_similarity(answer: &[f32], truth: &[f32], super_category: &[f32]) -> f64 {
    let (reached, known) = (cosine(answer, truth), cosine(super_category, truth));
    let way = 1.0 - known;
    let value = if way > SAME {
        (reached - known) / way
    } else if reached.is_nan() || known.is_nan() {
        f64::NAN
    } else {
        f64::from(u8::from(1.0 - reached <= SAME))
    };
    // `max` would hide NaN.
    if value < 0.0 { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The unit vector at an angle whose cosine with [1, 0] is this.
    fn at(cosine: f64) -> [f32; 2] {
        [cosine as f32, (1.0 - cosine * cosine).sqrt() as f32]
    }

    #[test]
    fn it_is_the_share_of_the_way_from_the_super_category_to_the_truth() {
        let truth = [2.0, 0.0];
        for (answer, known, expected) in [
            (at(0.8), 0.6, 0.5),
            (at(0.7), 0.6, 0.25),
            (at(0.6), 0.6, 0.0),
            (at(1.0), 0.6, 1.0),
            (at(0.2), 0.6, 0.0),
            (at(0.0), -0.5, 1.0 / 3.0),
        ] {
            let found = relative_similarity(&answer, &truth, &at(known));
            assert!((found - expected).abs() < 1e-6, "{answer:?} {known}: {found}");
        }
    }

    #[test]
    fn a_truth_that_is_its_super_category_is_all_or_nothing() {
        let truth = [0.3, 0.7];
        assert_eq!(relative_similarity(&truth, &truth, &truth), 1.0);
        assert_eq!(relative_similarity(&[0.6, 1.4], &truth, &[0.3, 0.700_000_1]), 1.0);
        assert_eq!(relative_similarity(&[0.7, 0.3], &truth, &truth), 0.0);
        assert!(relative_similarity(&[0.0, 0.0], &truth, &truth).is_nan());
        assert!(relative_similarity(&truth, &truth, &[f32::NAN, 0.0]).is_nan());
        assert!(relative_similarity(&[f32::NAN, 0.0], &truth, &[1.0, 0.0]).is_nan());
    }
}
