//! A conversation with its answers as targets: ids, and which of them are learnt.
//!
//! Reference: LLaMA-Factory's template `qwen2_vl`: turns are encoded one by one, so that an answer has the ids that it
//! would have after a generated prompt; targets are the answer and `<|im_end|>`, in the released code also the newline.

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

/// Where the targets of an answer end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetEnd {
    /// With `<|im_end|>`.
    #[default]
    ImEnd,
    /// With the newline after it, as released.
    Newline,
}

/// A sequence and the mask of its targets.
#[derive(Debug, Clone, PartialEq)]
pub struct SupervisedSequence {
    /// The whole conversation.
    pub sequence: Sequence,
    /// For each token whether it is a target; as long as the ids.
    pub target_mask: Vec<bool>,
}

impl Processor {
    /// A conversation whose assistant turns are targets, with its images in order; `sample` names it in errors.
    ///
    /// # Errors
    /// Those of [`Processor::encode`]; [`ProcessorError::Template`] if the template does not put an answer straight
    /// after the prompt that asks for it.
    pub fn encode_supervised(
        &self,
        sample: &str,
        messages: &[Message],
        images: Vec<PatchedImage>,
        end: TargetEnd,
        max_tokens: Option<usize>,
    ) -> Result<SupervisedSequence, ProcessorError> {
        let mut target_mask = Vec::new();
        let mut sequence = Sequence { name: sample.into(), ids: Vec::new(), images };
        let grids = sequence.grids();
        let segments = self.segments(messages)?;
        let placeholders = segments.iter().map(|segment| segment.text.matches(IMAGE_PAD).count());
        let total: usize = placeholders.clone().sum();
        if total != grids.len() {
            return Err(ProcessorError::Placeholders {
                sample: sample.into(),
                placeholders: total,
                images: grids.len(),
            });
        }
        // Not the tokenizer's end token: a base model's is `<|endoftext|>`, which no turn of the template has.
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
        sequence.check_length(max_tokens.unwrap_or(usize::MAX), self.tokenizer.vision_tokens().image)?;
        Ok(SupervisedSequence { sequence, target_mask })
    }

    /// The rendered conversation, cut before and after each answer.
    fn segments(&self, messages: &[Message]) -> Result<Vec<Segment>, ProcessorError> {
        let render = |count: usize, add_generation_prompt| {
            self.template.render(&messages[..count], ChatOptions { add_generation_prompt, add_vision_id: false })
        };
        let mut done = String::new();
        let mut segments = Vec::new();
        let mut extend_to = |text: String, target: bool, turn: usize| {
            let Some(new) = text.strip_prefix(done.as_str()) else {
                return Err(ProcessorError::Template(format!(
                    "turn {turn} changes the text of the turns before it, so its answer cannot be told from the prompt"
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
                extend_to(render(turn + 1, false)?, true, turn)?;
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
