//! The first sample of a run as the model reads it, so that a wrong template is seen before the first step.

use fieldmark_processor::{Sequence, SpecialTokens, Tokenizer};

use super::{Observer, RunEvent};
use crate::error::RunError;

/// Shortest run of equal tokens that is shown as one token and its count.
const RUN: usize = 4;

/// Shows a sample.
pub(super) fn show(sample: &Sequence, tokenizer: &Tokenizer, observer: &mut dyn Observer) -> Result<(), RunError> {
    let text = rendered(&sample.ids, tokenizer)?;
    observer.event(RunEvent::Example { name: &sample.name, text: &text, tokens: sample.ids.len() })
}

fn rendered(ids: &[u32], tokenizer: &Tokenizer) -> Result<String, RunError> {
    let decode = |ids: &[u32]| tokenizer.decode(ids, SpecialTokens::Keep);
    let (mut text, mut plain) = (String::new(), Vec::new());
    for run in ids.chunk_by(|a, b| a == b) {
        // Pieces are decoded together, because a character may have several tokens.
        if run.len() < RUN {
            plain.extend_from_slice(run);
            continue;
        }
        text += &decode(&std::mem::take(&mut plain))?;
        text += &format!("{}×{}", decode(&run[..1])?, run.len());
    }
    Ok(text + &decode(&plain)?)
}

#[cfg(test)]
mod tests {
    use fieldmark_processor::train_tokenizer;

    use super::*;

    #[test]
    fn the_tokens_of_an_image_are_counted() {
        let tokenizer = train_tokenizer(["Which fruit?"], &[], 320).unwrap();
        let pads = "<|image_pad|>".repeat(12);
        let ids = tokenizer.encode(&format!("<|im_start|>Which {pads} früit?")).unwrap();
        assert_eq!(rendered(&ids, &tokenizer).unwrap(), "<|im_start|>Which <|image_pad|>×12 früit?");
    }
}
