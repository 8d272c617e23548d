//! Rollouts as policy optimisation samples them: groups of responses to prompts, at two sizes.

use burn::tensor::Device;
use fieldmark::{
    generate::{GenerationConfig, Generator, Request, Sampling},
    model::{Qwen25Vl, Qwen25VlConfig, TextConfig, VisionConfig, VisionTokens},
    processor::Sequence,
    stream::{RandomStream, StreamKey},
    train::params::initialise,
};

use crate::{image, sequence};

/// Responses to a prompt.
pub(crate) const GROUP: u64 = 10;

/// "3B's vocabulary": 151,936 tokens, and few and narrow blocks, so that what a token costs is head and sampler.
pub fn vocabulary_config(width: usize) -> Qwen25VlConfig {
    let text = TextConfig::new(151_936, width, 768, 2, width / 64, 2, [8, 12, 12]).with_max_position_embeddings(4096);
    let vision = VisionConfig::new(2, 256, 768, 4, width, 112, vec![1]);
    Qwen25VlConfig::new(text, vision, VisionTokens::new(151_655, 151_656, 151_652, 151_653), true)
}

/// A model of [`vocabulary_config`] of this width with random weights.
pub fn vocabulary_model(width: usize, device: &Device) -> Qwen25Vl {
    initialise(vocabulary_config(width).init(device), 0.02, &StreamKey::new(0))
}

/// Samples ten responses of 65 tokens to one prompt with an image.
pub fn group(model: &Qwen25Vl, device: &Device) {
    let tokens = sample(model, &[sequence("rollouts", &image("image"))], settings(65, Vec::new(), 1.0), device);
    assert_eq!(tokens, 650);
}

/// Samples ten responses of 64 tokens to each of eight prompts of 64 tokens without an image, top-p 0.99.
pub fn vocabulary(model: &Qwen25Vl, device: &Device) {
    let text = |i: usize| {
        let mut stream = RandomStream::new(0, &["bench", "vocabulary", &i.to_string()]);
        let ids = (0..64).map(|_| stream.below(150_000) as u32).collect();
        Sequence { name: format!("prompt {i}"), ids, images: Vec::new() }
    };
    let prompts: Vec<Sequence> = (0..8).map(text).collect();
    assert_eq!(sample(model, &prompts, settings(64, Vec::new(), 0.99), device), 80 * 64);
}

/// Samples ten responses to each of eight prompts of 512 tokens with an image. One token in a hundred ends a response, so
/// lengths are geometric with mean 100; the longest are cut at 256. Returns the number of new tokens.
pub fn geometric(model: &Qwen25Vl, device: &Device) -> usize {
    let prompts: Vec<Sequence> =
        (0..8).map(|i| sequence(&format!("prompt {i}"), &image(&format!("image {i}")))).collect();
    sample(model, &prompts, settings(256, (0..32_000).step_by(100).collect(), 1.0), device)
}

pub(crate) fn settings(max_new_tokens: usize, eos_token_ids: Vec<u32>, top_p: f64) -> GenerationConfig {
    let greedy = GenerationConfig::greedy(max_new_tokens, eos_token_ids);
    GenerationConfig { sampling: Sampling::nucleus(1.0, top_p), max_batch: 40, ..greedy }
}

/// Samples a group of responses to each prompt; returns the number of new tokens.
pub(crate) fn sample(model: &Qwen25Vl, prompts: &[Sequence], settings: GenerationConfig, device: &Device) -> usize {
    let key = StreamKey::new(0);
    let request = |(i, prompt): (usize, &Sequence)| Request {
        prompt: prompt.clone(),
        streams: (0..GROUP).map(|j| key.number(i as u64).number(j).stream()).collect(),
    };
    let requests: Vec<Request> = prompts.iter().enumerate().map(request).collect();
    let generator = Generator::new(model, settings, 0, device).expect("the settings are valid");
    let responses = generator.generate(&requests).expect("the prompts fit");
    responses.iter().flatten().map(|response| response.ids.len()).sum()
}
