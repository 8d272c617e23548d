//! Number of floating-point operations that the sequences of a micro-batch need in a forward pass.

use std::{collections::HashSet, sync::Arc};

use fieldmark_model::{AdapterSizes, Flops, Qwen25VlConfig};
use fieldmark_processor::Sequence;

/// Counts the operations for `sequences` in a network with `adapters`. Each sequence attends causally to itself;
/// padding is not counted. An image that several sequences share is encoded once. The head computes logits for
/// `targets` positions.
pub(crate) fn pass_flops<'a>(
    config: &Qwen25VlConfig,
    adapters: AdapterSizes,
    sequences: impl IntoIterator<Item = &'a Sequence>,
    targets: usize,
) -> Flops {
    let mut seen = HashSet::new();
    let mut total = config.head_flops(targets);
    for sequence in sequences {
        total += config.decoder_flops(0, sequence.ids.len()) + adapters.decoder_flops(sequence.ids.len());
        for image in &sequence.images {
            // Collation decides the same way: the same patches in memory are the same image.
            if seen.insert((Arc::as_ptr(&image.pixel_values), image.grid)) {
                let tokens = image.grid.tokens(config.vision.spatial_merge_size);
                total += config.image_flops(image.grid) + adapters.image_flops(image.grid, tokens);
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use fieldmark_model::{GridThw, TextConfig, VisionConfig, VisionTokens};
    use fieldmark_processor::PatchedImage;

    #[test]
    fn an_image_that_sequences_share_is_counted_once() {
        let text = TextConfig::new(50, 16, 24, 3, 4, 2, [1, 1, 0]);
        let config = Qwen25VlConfig::new(
            text,
            VisionConfig::new(3, 8, 12, 2, 16, 56, vec![1]),
            VisionTokens::new(1, 2, 3, 4),
            true,
        );
        let image = |grid: GridThw| PatchedImage { pixel_values: vec![0.0; 8].into(), grid };
        let sequence = |len, images: &[&PatchedImage]| Sequence {
            name: String::new(),
            ids: vec![9; len],
            images: images.iter().map(|image| (*image).clone()).collect(),
        };
        let (one, other) = (image(GridThw::image(4, 4)), image(GridThw::image(4, 8)));
        let sequences = [sequence(5, &[&one]), sequence(7, &[&other, &one])];
        let adapters = AdapterSizes { vision: 3, projector: 20, decoder: 100 };
        let expected = config.decoder_flops(0, 5)
            + config.decoder_flops(0, 7)
            + config.image_flops(one.grid)
            + config.image_flops(other.grid)
            + config.head_flops(3);
        let none = AdapterSizes::default();
        assert_eq!(pass_flops(&config, none, &sequences, 3), expected);
        // 16 and 32 patches of 4 and 8 tokens; 12 tokens of text.
        let beside = |found: Flops| [found.vision, found.projector, found.decoder].map(|part| part.adapters);
        assert_eq!(beside(pass_flops(&config, adapters, &sequences, 3)), [288.0, 480.0, 2400.0]);
        // Equal pixels in another place are another image.
        let apart = [sequence(5, &[&one]), sequence(7, &[&image(one.grid)])];
        let twice = config.image_flops(one.grid) + config.image_flops(one.grid);
        assert_eq!(pass_flops(&config, none, &apart, 0).vision, twice.vision);
    }
}
