//! The lessons of a world as samples of SFT. Pictures are drawn when they are needed.

use fieldmark_processor::{Message, Photo, Processor, SupervisedSequence, TargetEnd};
use fieldmark_train::{TrainError, sft::SftSource};
use fieldmark_world::{Knowledge, SIDE};

/// All lessons, with the processor of the model that learns them.
pub(super) struct LessonSource<'a> {
    pub(super) knowledge: Knowledge<'a>,
    pub(super) processor: &'a Processor,
}

impl LessonSource<'_> {
    fn encode(&self, row: usize, name: &str) -> Result<SupervisedSequence, fieldmark_processor::ProcessorError> {
        let lesson = self.knowledge.lesson(row);
        let (images, place) = match &lesson.picture {
            Some(subject) => {
                let side = SIDE as usize;
                let photo = Photo::from_rgb(name, side, side, subject.draw(SIDE).into_raw())?;
                (vec![self.processor.images.process(&photo)?], "<image>")
            }
            None => (Vec::new(), ""),
        };
        let messages = [Message::user(&format!("{place}{}", lesson.question)), Message::assistant(lesson.answer)];
        self.processor.encode_supervised(name, &messages, images, TargetEnd::ImEnd, None)
    }
}

impl SftSource for LessonSource<'_> {
    fn len(&self) -> usize {
        self.knowledge.len()
    }

    fn sample(&self, row: usize, _epoch: usize) -> Result<SupervisedSequence, TrainError> {
        let name = format!("lesson {row}");
        self.encode(row, &name).map_err(|error| TrainError::Sample { row: name, reason: error.to_string() })
    }
}
