//! The parts of Qwen2.5's tokenizer around its vocabulary: NFC, its rule for splitting, bytes as letters.
//!
//! Reference: the `tokenizer.json` published with Qwen2.5, and `Qwen2Converter` of transformers.

use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Result, SplitDelimiterBehavior,
    models::bpe::BPE,
    normalizers::NFC,
    pre_tokenizers::{
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
};

/// How Qwen2.5 cuts text into words before merging bytes: contractions, words, single digits, punctuation, blanks.
const SPLIT: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Returns a tokenizer that is Qwen2.5's with this vocabulary and these merges, without added tokens.
pub(super) fn around(vocabulary: BPE) -> Result<tokenizers::Tokenizer> {
    let bytes = || ByteLevel::new(false, false, false);
    let split = Split::new(SplitPattern::Regex(SPLIT.into()), SplitDelimiterBehavior::Isolated, false)?;
    let mut inner = tokenizers::Tokenizer::new(vocabulary);
    inner.with_normalizer(Some(NormalizerWrapper::NFC(NFC)))?;
    inner.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(vec![split.into(), bytes().into()]))));
    inner.with_post_processor(Some(PostProcessorWrapper::ByteLevel(bytes())));
    inner.with_decoder(Some(DecoderWrapper::ByteLevel(bytes())));
    Ok(inner)
}
