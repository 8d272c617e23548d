//! Random sequences of text and images for property tests, and the fixture models that read them.

use std::{ops::Range, path::PathBuf, sync::Arc};

use burn::tensor::{Device, Tensor};
use fieldmark::{
    model::{GridThw, LoadOptions, Qwen25Vl, Qwen25VlConfig},
    processor::{PatchedImage, Sequence},
    stream::RandomStream,
};
use proptest::{
    prelude::*,
    test_runner::{Config, RngSeed},
};

/// Folders of the fixture models: one with a tied head and two key heads, one with an untied head and one key head.
pub const MODELS: [&str; 2] = ["qwen2_5_vl_tiny", "qwen2_5_vl_tiny_untied"];

/// Largest difference between two logits or hidden values that are the same number computed in another order.
pub const TOLERANCE: f32 = 5e-4;

/// Returns the path of a folder in `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Loads a fixture model onto `device`.
pub fn load(name: &str, device: &Device) -> Qwen25Vl {
    Qwen25Vl::from_pretrained(&fixture(name), LoadOptions::default(), device).unwrap()
}

/// Settings of property tests: the same few cases in every run, so that a failing test fails again. `PROPTEST_CASES`
/// and `PROPTEST_RNG_SEED` select more cases or others.
pub fn cases(few: u32) -> Config {
    let config = Config { failure_persistence: None, max_shrink_iters: 40, ..Config::default() };
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { few };
    let rng_seed = if config.rng_seed == RngSeed::Random { RngSeed::Fixed(7) } else { config.rng_seed };
    Config { cases, rng_seed, ..config }
}

/// A piece of a sequence.
#[derive(Debug, Clone)]
pub enum Part {
    /// Token ids without vision tokens.
    Text(Vec<u32>),
    /// An image with random pixel values.
    Image {
        /// Number of rows of patches.
        h: usize,
        /// Number of columns of patches.
        w: usize,
        /// Seed of the pixel values.
        seed: u64,
    },
}

/// Draws text ids for the fixture models. Vision tokens and end tokens have smaller ids.
pub fn text(len: Range<usize>) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(8u32..320, len)
}

/// Draws text with `images` images of 2 to 12 patches per side.
pub fn parts(images: Range<usize>) -> impl Strategy<Value = Vec<Part>> {
    let image =
        (1usize..=6, 1usize..=6, any::<u64>()).prop_map(|(h, w, seed)| Part::Image { h: 2 * h, w: 2 * w, seed });
    let rest = prop::collection::vec((image, text(0..6)), images);
    (text(1..12), rest).prop_map(|(first, rest)| {
        let rest = rest.into_iter().flat_map(|(image, text)| [image, Part::Text(text)]);
        std::iter::once(Part::Text(first)).chain(rest).collect()
    })
}

/// Builds the sequence of `parts` for a model of `config`.
pub fn sequence(parts: &[Part], config: &Qwen25VlConfig) -> Sequence {
    let tokens = config.vision_tokens;
    let mut sequence = Sequence { name: "random".into(), ids: Vec::new(), images: Vec::new() };
    for part in parts {
        match part {
            Part::Text(ids) => sequence.ids.extend(ids),
            Part::Image { h, w, seed } => {
                let grid = GridThw::image(*h, *w);
                let count = grid.tokens(config.vision.spatial_merge_size);
                sequence.ids.push(tokens.start);
                sequence.ids.extend(std::iter::repeat_n(tokens.image, count));
                sequence.ids.push(tokens.end);
                let mut stream = RandomStream::new(*seed, &["pixels"]);
                let pixel_values: Arc<[f32]> = (0..grid.patches() * config.vision.patch_len())
                    .map(|_| stream.uniform_in(-2.0, 2.0) as f32)
                    .collect();
                sequence.images.push(PatchedImage { pixel_values, grid });
            }
        }
    }
    sequence
}

/// Builds the sequences of several lists of parts.
pub fn sequences(parts: &[Vec<Part>], config: &Qwen25VlConfig) -> Vec<Sequence> {
    parts.iter().map(|parts| sequence(parts, config)).collect()
}

/// Returns the numbers of a tensor, row by row.
pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

/// Returns the largest absolute difference between two lists, or NaN if any difference is NaN.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let worst = |worst: f32, (a, b): (&f32, &f32)| {
        let difference = (a - b).abs();
        if difference.is_nan() || worst.is_nan() { f32::NAN } else { worst.max(difference) }
    };
    a.iter().zip(b).fold(0.0, worst)
}
