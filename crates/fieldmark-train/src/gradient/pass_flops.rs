//! Number of floating-point operations that the sequences of a micro-batch need in a forward pass.

use std::{collections::HashSet, sync::Arc};

use fieldmark_model::{AdapterSizes, Flops, Qwen25VlConfig};
use fieldmark_processor::Sequence;

/// Counts the operations for `sequences` in a network with `adapters`. Each attends causally to itself and to the number of
/// tokens beside it, those of the sequence that it continues; padding is not counted. An image that several sequences share
/// is encoded once. The head computes logits for `targets` positions.
pub(super) fn pass_flops<'a>(
    config: &Qwen25VlConfig,
    adapters: AdapterSizes,
    sequences: impl IntoIterator<Item = (&'a Sequence, usize)>,
    targets: usize,
) -> Flops {
    let mut seen = HashSet::new();
    let mut total = config.head_flops(targets);
    for (sequence, before) in sequences {
        total += config.decoder_flops(before, sequence.ids.len()) + adapters.decoder_flops(sequence.ids.len());
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
        let alone = |sequences: &[Sequence; 2], adapters, targets| {
            pass_flops(&config, adapters, sequences.iter().map(|sequence| (sequence, 0)), targets)
        };
        assert_eq!(alone(&sequences, none, 3), expected);
        // 16 and 32 patches of 4 and 8 tokens; 12 tokens of text.
        let beside = |found: Flops| [found.vision, found.projector, found.decoder].map(|part| part.adapters);
        assert_eq!(beside(alone(&sequences, adapters, 3)), [288.0, 480.0, 2400.0]);
        // Equal pixels in another place are another image.
        let apart = [sequence(5, &[&one]), sequence(7, &[&image(one.grid)])];
        let twice = config.image_flops(one.grid) + config.image_flops(one.grid);
        assert_eq!(alone(&apart, none, 0).vision, twice.vision);
        // A prompt of 5 tokens and what continues it are as one sequence.
        let response = sequence(3, &[]);
        let parts = pass_flops(&config, none, [(&sequences[0], 0), (&response, 5)], 0);
        assert_eq!(parts.decoder, config.decoder_flops(0, 8).decoder);
    }
}
