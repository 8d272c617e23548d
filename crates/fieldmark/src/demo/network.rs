//! The demo's model: the architecture of Qwen2.5-VL at 3.6 million parameters, and its own small tokenizer.

use fieldmark_model::{Qwen25VlConfig, TextConfig, VisionConfig};
use fieldmark_processor::{
    ChatTemplate, ImageProcessor, ImageProcessorConfig, PixelLimits, Processor, Tokenizer, train_tokenizer,
};

use super::produce::SIDE;
use crate::error::RunError;

/// Enough for bytes, special tokens, class names and the few words of the demo's texts.
const VOCABULARY: usize = 512;

/// Trains the tokenizer on the demo's texts. Every name and tag is one token.
pub(super) fn tokenizer(corpus: &[String], names: &[String]) -> Result<Tokenizer, RunError> {
    let tags = ["<think>", "</think>", "<answer>", "</answer>"].map(str::to_owned);
    let whole: Vec<String> = names.iter().cloned().chain(tags).collect();
    Ok(train_tokenizer(corpus, &whole, VOCABULARY)?)
}

/// Makes a processor for images of `SIDE` × `SIDE` pixels.
pub(super) fn processor(tokenizer: Tokenizer) -> Result<Processor, RunError> {
    let pixels = SIDE * SIDE;
    let images = ImageProcessor::new(ImageProcessorConfig::default())
        .with_limits(PixelLimits { min_pixels: pixels, max_pixels: pixels });
    Ok(Processor::new(tokenizer, images, ChatTemplate::qwen2_5_vl()?))
}

/// The configuration: a decoder with 4 blocks of width 192, and a vision encoder with 4 blocks of width 160 and windows
/// of 2×2 tokens in every other block.
pub(super) fn config(tokenizer: &Tokenizer) -> Qwen25VlConfig {
    let (width, vision_width) = (192, 160);
    let vocabulary = tokenizer.vocab_size().next_multiple_of(16);
    let text = TextConfig::new(vocabulary, width, 384, 4, 6, 2, [4, 6, 6]).with_max_position_embeddings(512);
    let vision = VisionConfig::new(4, vision_width, 432, 5, width, 56, vec![1, 3]);
    Qwen25VlConfig::new(text, vision, tokenizer.vision_tokens(), true).with_eos_token_id(Some(tokenizer.eos()))
}
