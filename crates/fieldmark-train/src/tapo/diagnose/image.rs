//! Whether the model looks at the image: how much the log-probabilities of its responses change if the image is blanked.
//!
//! The blank image has the same grid and one colour, the mean of the encoder's training images, which is 0 after
//! normalisation. So prompt, positions and number of tokens stay the same.

use fieldmark_processor::{PatchedImage, Sequence};

/// A mean difference up to this, in nats, is what rounding leaves. Models that see have a hundred times as much.
const BLIND: f64 = 1e-4;

/// Returns the sequence with blank images.
pub(in crate::tapo) fn blanked(sequence: &Sequence) -> Sequence {
    let blank =
        |image: &PatchedImage| PatchedImage { pixel_values: vec![0.0; image.pixel_values.len()].into(), ..*image };
    Sequence { images: sequence.images.iter().map(blank).collect(), ..sequence.clone() }
}

/// Mean absolute difference over all tokens of two lists of log-probabilities, one row per response. `None` without
/// tokens, or if the difference is not finite.
pub(in crate::tapo) fn gap(seen: &[Vec<f32>], blank: &[Vec<f32>]) -> Option<f64> {
    let pairs = seen.iter().zip(blank).flat_map(|(seen, blank)| seen.iter().zip(blank));
    let gaps: Vec<f64> = pairs.map(|(&seen, &blank)| (f64::from(seen) - f64::from(blank)).abs()).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    mean.is_finite().then_some(mean)
}

pub(super) fn is_blind(gap: f64) -> bool {
    gap <= BLIND
}

#[cfg(test)]
mod tests {
    use fieldmark_model::GridThw;

    use super::*;

    #[test]
    fn a_blank_image_keeps_its_place() {
        let image = PatchedImage { pixel_values: vec![0.5; 8].into(), grid: GridThw::image(2, 2) };
        let sequence = Sequence { name: "row".into(), ids: vec![1, 7, 7, 2], images: vec![image.clone(), image] };
        let blank = blanked(&sequence);
        assert_eq!((&blank.name, &blank.ids, blank.grids()), (&sequence.name, &sequence.ids, sequence.grids()));
        assert!(blank.images.iter().all(|image| image.pixel_values[..] == [0.0; 8]));
    }

    #[test]
    fn the_gap_is_a_mean_over_tokens() {
        let found = gap(&[vec![-1.0, -2.0], vec![-0.5]], &[vec![-1.5, -2.0], vec![-0.25]]);
        assert_eq!(found, Some(0.25));
        assert_eq!(gap(&[vec![]], &[vec![]]), None);
        assert_eq!(gap(&[vec![f32::NAN]], &[vec![-1.0]]), None);
        assert!(is_blind(0.0) && is_blind(1e-5) && !is_blind(1e-3));
    }
}
