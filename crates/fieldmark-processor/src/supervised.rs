//! Encodes a conversation for SFT: its ids, and a mask of the ids that the model learns.
//!
//! Reference: LLaMA-Factory's template `qwen2_vl`. Turns are encoded one by one, so that an answer has the same ids as
//! after a prompt for generation. Targets are the answer and `<|im_end|>`; the released code adds the next newline.

use crate::{
    error::ProcessorError,
    expand::expand_images,
    image::PatchedImage,
    processor::Processor,
    sequence::Sequence,
    text::{
        chat::{ChatOptions, Message, Role},
        special::{IM_END, IMAGE_PAD},
    },
};

/// The last target of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetEnd {
    /// `<|im_end|>`.
    #[default]
    ImEnd,
    /// The newline after `<|im_end|>`, as in the released code.
    Newline,
}

/// A sequence with the mask of its targets.
#[derive(Debug, Clone, PartialEq)]
pub struct SupervisedSequence {
    /// The whole conversation.
    pub sequence: Sequence,
    /// One value for each id: true if the id is a target.
    pub target_mask: Vec<bool>,
}

impl Processor {
    /// Encodes a conversation whose assistant turns are targets. `images` are in the order of their placeholders;
    /// errors name `sample`.
    ///
    /// # Errors
    /// Returns the errors of [`Processor::encode`], and [`ProcessorError::Template`] if the template does not put an
    /// answer directly after its prompt.
    pub fn encode_supervised(
        &self,
        sample: &str,
        messages: &[Message],
        images: Vec<PatchedImage>,
        end: TargetEnd,
        max_tokens: Option<usize>,
    ) -> Result<SupervisedSequence, ProcessorError> {
        self.encode_learned(sample, messages, |_| true, images, end, max_tokens)
    }

    /// Like [`Self::encode_supervised`], but only those assistant turns are targets whose place among the messages, from
    /// 0, `learned` accepts.
    ///
    /// # Errors
    /// Returns the errors of [`Self::encode_supervised`].
    pub fn encode_learned(
        &self,
        sample: &str,
        messages: &[Message],
        learned: impl Fn(usize) -> bool,
        images: Vec<PatchedImage>,
        end: TargetEnd,
        max_tokens: Option<usize>,
    ) -> Result<SupervisedSequence, ProcessorError> {
        let mut target_mask = Vec::new();
        let mut sequence = Sequence { name: sample.into(), ids: Vec::new(), images };
        let grids = sequence.grids();
        let segments = self.segments(messages, learned)?;
        let placeholders = segments.iter().map(|segment| segment.text.matches(IMAGE_PAD).count());
        let total: usize = placeholders.clone().sum();
        if total != grids.len() {
            return Err(ProcessorError::Placeholders {
                sample: sample.into(),
                placeholders: total,
                images: grids.len(),
            });
        }
        // The tokenizer's end token may differ: for a base model it is `<|endoftext|>`, which ends no turn.
        let im_end = self.tokenizer.id(IM_END);
        let mut rest = grids.as_slice();
        for (segment, count) in segments.iter().zip(placeholders) {
            let (here, later) = rest.split_at(count);
            rest = later;
            let text = expand_images(sample, &segment.text, here, self.images.config().merge_size)?;
            let ids = self.tokenizer.encode(&text)?;
            let stop = ids.iter().rposition(|&id| Some(id) == im_end).map_or(ids.len(), |at| at + 1);
            target_mask.extend((0..ids.len()).map(|i| segment.target && (i < stop || end == TargetEnd::Newline)));
            sequence.ids.extend(ids);
        }
        sequence.check_length(self.limit(max_tokens), self.tokenizer.vision_tokens().image)?;
        Ok(SupervisedSequence { sequence, target_mask })
    }

    /// The rendered conversation, cut before and after each answer.
    fn segments(&self, messages: &[Message], learned: impl Fn(usize) -> bool) -> Result<Vec<Segment>, ProcessorError> {
        let render = |count: usize, add_generation_prompt| {
            self.template.render(&messages[..count], ChatOptions { add_generation_prompt, add_vision_id: false })
        };
        let mut done = String::new();
        let mut segments = Vec::new();
        let mut extend_to = |text: String, target: bool, turn: usize| {
            let Some(new) = text.strip_prefix(done.as_str()) else {
                return Err(ProcessorError::Template(format!(
                    "turn {turn} changes the text of earlier turns, so that its answer cannot be told from the prompt; \
                     use a template that appends each turn"
                )));
            };
            if !new.is_empty() {
                segments.push(Segment { text: new.into(), target });
            }
            done = text;
            Ok(())
        };
        for (turn, message) in messages.iter().enumerate() {
            if message.role == Role::Assistant {
                extend_to(render(turn, true)?, false, turn)?;
                extend_to(render(turn + 1, false)?, learned(turn), turn)?;
            }
        }
        extend_to(render(messages.len(), false)?, false, messages.len())?;
        Ok(segments)
    }
}

struct Segment {
    text: String,
    target: bool,
}
