//! Token ids with the patches of their images: what a conversation becomes before it is batched.

use fieldmark_model::GridThw;

use crate::{error::ProcessorError, image::PatchedImage};

/// One sample, ready to be batched. Clones share the patches.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// The name of the sample, for messages.
    pub name: String,
    /// Token ids; an image takes one id for each of its features.
    pub ids: Vec<u32>,
    /// The images, in the order of their tokens.
    pub images: Vec<PatchedImage>,
}

impl Sequence {
    /// Sizes of the images in patches, in order.
    pub fn grids(&self) -> Vec<GridThw> {
        self.images.iter().map(|image| image.grid).collect()
    }

    /// Returns a copy with a response appended.
    pub fn with_response(&self, ids: &[u32]) -> Self {
        let mut longer = self.clone();
        longer.ids.extend_from_slice(ids);
        longer
    }

    pub(crate) fn check_length(&self, limit: usize, image_token: u32) -> Result<(), ProcessorError> {
        self.check_length_after(None, limit, image_token)
    }

    /// Checks the length of a sequence together with the one that it continues.
    pub(crate) fn check_length_after(
        &self,
        before: Option<&Self>,
        limit: usize,
        image_token: u32,
    ) -> Result<(), ProcessorError> {
        let ids = || before.into_iter().chain([self]).flat_map(|sequence| &sequence.ids);
        let tokens = ids().count();
        if tokens <= limit {
            return Ok(());
        }
        let image_tokens = ids().filter(|&&id| id == image_token).count();
        Err(ProcessorError::TooLong { sample: self.name.clone(), tokens, image_tokens, limit })
    }
}
