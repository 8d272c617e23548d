//! A conversation whose next turn a [`crate::ChatModel`] writes.

use fieldmark_processor::{
    Content, ContentPart, Message, Photo, ProcessOptions, Processor, ProcessorError, Role, Sequence,
};
use fieldmark_stream::RandomStream;

/// Messages and the photographs in them.
#[derive(Debug, Clone)]
pub struct Chat {
    /// The turns so far. Without a system message, the chat template adds its own.
    pub messages: Vec<Message>,
    /// The photographs, in the order of their places in the messages.
    pub photos: Vec<Photo>,
    /// The name of the chat in errors; `None` uses its index in the call ("chat 0").
    pub name: Option<String>,
    /// The random stream for sampling; `None` derives one from the model's seed and the index of the chat in the call.
    pub stream: Option<RandomStream>,
}

impl Chat {
    /// Creates a chat from messages; each image in them takes the next photograph.
    pub fn new(messages: impl Into<Vec<Message>>, photos: impl Into<Vec<Photo>>) -> Self {
        Self { messages: messages.into(), photos: photos.into(), name: None, stream: None }
    }

    /// Creates a chat of one question. The photographs stand where the question says `<image>`; if it does not say so
    /// anywhere, all photographs come before it.
    ///
    /// ```
    /// use fieldmark_generate::Chat;
    /// use fieldmark_processor::{Message, Photo};
    ///
    /// let photo = Photo::from_rgb("red.png", 28, 28, [255, 0, 0].repeat(28 * 28))?;
    /// let chat = Chat::question("Which bird is this?", [photo]);
    /// assert_eq!(chat.messages, [Message::user("<image>Which bird is this?")]);
    /// # Ok::<(), fieldmark_processor::ProcessorError>(())
    /// ```
    pub fn question(text: &str, photos: impl Into<Vec<Photo>>) -> Self {
        let photos = photos.into();
        let mut content = Content::from_tagged(text);
        if content.images() == 0 {
            let mut parts = vec![ContentPart::Image; photos.len()];
            parts.push(ContentPart::Text { text: text.into() });
            content = Content::Parts(parts);
        }
        Self::new([Message { role: Role::User, content }], photos)
    }

    /// Puts a system message first, in place of the chat template's own.
    pub fn with_system(mut self, text: impl Into<String>) -> Self {
        self.messages.insert(0, Message::system(text));
        self
    }

    /// Sets the name in errors.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the random stream for sampling.
    pub fn with_stream(mut self, stream: RandomStream) -> Self {
        self.stream = Some(stream);
        self
    }

    /// Returns the chat as a prompt that ends where the assistant's turn begins. Calling this before the weights are
    /// loaded finds mistakes early. `name` stands for a chat without a name.
    ///
    /// # Errors
    /// Returns the errors of [`Processor::process`]; those about this chat name it.
    pub fn prompt(&self, name: &str, processor: &Processor) -> Result<Sequence, ProcessorError> {
        let name = self.name.as_deref().unwrap_or(name);
        processor.process(name, &self.messages, &self.photos, ProcessOptions::prompt())
    }
}
