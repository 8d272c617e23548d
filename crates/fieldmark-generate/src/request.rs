//! What is asked of a [`crate::Generator`]: a prompt, and one random stream for each response wanted.

use fieldmark_processor::Sequence;
use fieldmark_stream::RandomStream;

/// A prompt and the random streams of its responses.
#[derive(Debug, Clone)]
pub struct Request {
    /// The prompt with its images.
    pub prompt: Sequence,
    /// One stream per response; the number of streams is the number of responses.
    pub streams: Vec<RandomStream>,
}
