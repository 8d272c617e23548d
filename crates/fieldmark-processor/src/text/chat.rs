//! Conversations, and chat templates that render them as text.
//!
//! Reference: the template published with Qwen2.5-VL and `apply_chat_template` of transformers. Messages serialise in the
//! form that transformers takes.

use std::collections::BTreeMap;

use minijinja::{Environment, Error, context, value::Serde};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    jinja::{environment, without_generation},
    special,
};
use crate::error::ProcessorError;

/// The template published with Qwen2.5-VL. Its default system text is "You are a helpful assistant.".
pub const QWEN2_5_VL_TEMPLATE: &str = concat!(
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}",
    "{% for message in messages %}",
    "{% if loop.first and message['role'] != 'system' %}",
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}",
    "<|im_start|>{{ message['role'] }}\n",
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n",
    "{% else %}{% for content in message['content'] %}",
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}",
    "{% set image_count.value = image_count.value + 1 %}",
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}",
    "<|vision_start|><|image_pad|><|vision_end|>",
    "{% elif content['type'] == 'video' or 'video' in content %}",
    "{% set video_count.value = video_count.value + 1 %}",
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}",
    "<|vision_start|><|video_pad|><|vision_end|>",
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}",
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}",
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
);

/// Marks the place of an image in the text of a data file (LLaMA-Factory, EasyR1).
pub const IMAGE_TAG: &str = "<image>";

/// Who speaks in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sets the task.
    System,
    /// Asks.
    User,
    /// Answers.
    Assistant,
    /// Reports the result of a tool.
    Tool,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ContentPart {
    /// The next of the images given with the conversation.
    Image,
    /// Text.
    Text {
        /// The text, used unchanged.
        text: String,
    },
}

/// The content of a message: text alone, or text and images in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Text alone.
    Text(String),
    /// Pieces in order.
    Parts(Vec<ContentPart>),
}

impl Content {
    /// Splits text at each [`IMAGE_TAG`], as the training data loaders do.
    pub fn from_tagged(text: &str) -> Self {
        let mut parts = Vec::new();
        for (i, piece) in text.split(IMAGE_TAG).enumerate() {
            if i > 0 {
                parts.push(ContentPart::Image);
            }
            if !piece.is_empty() {
                parts.push(ContentPart::Text { text: piece.into() });
            }
        }
        if parts.contains(&ContentPart::Image) { Self::Parts(parts) } else { Self::Text(text.into()) }
    }

    /// Number of images in the content.
    pub fn images(&self) -> usize {
        match self {
            Self::Text(_) => 0,
            Self::Parts(parts) => parts.iter().filter(|part| **part == ContentPart::Image).count(),
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Text and images.
    pub content: Content,
}

impl Message {
    /// Creates a system message.
    pub fn system(text: impl Into<String>) -> Self {
        Self { role: Role::System, content: Content::Text(text.into()) }
    }

    /// Creates a user message; each [`IMAGE_TAG`] in `text` stands for an image.
    pub fn user(text: &str) -> Self {
        Self { role: Role::User, content: Content::from_tagged(text) }
    }

    /// Creates a user message about one image, which comes before the text.
    pub fn user_with_image(text: impl Into<String>) -> Self {
        Self {
            role: Role::User,
            content: Content::Parts(vec![ContentPart::Image, ContentPart::Text { text: text.into() }]),
        }
    }

    /// Creates an assistant message.
    pub fn assistant(text: impl Into<String>) -> Self {
        Self { role: Role::Assistant, content: Content::Text(text.into()) }
    }
}

/// Options of a chat template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChatOptions {
    /// End with the opening of the assistant's turn, so that the model writes the answer.
    pub add_generation_prompt: bool,
    /// Number the images in the text ("Picture 1: ").
    pub add_vision_id: bool,
}

/// A compiled chat template.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
    variables: BTreeMap<String, Value>,
}

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Template`] with the line of the mistake.
    pub fn new(source: impl Into<String>) -> Result<Self, ProcessorError> {
        let source = source.into();
        let mut environment = environment().map_err(template_error)?;
        let ours = without_generation(&source).into_owned();
        environment.add_template_owned(NAME, ours).map_err(template_error)?;
        Ok(Self { source, environment, variables: BTreeMap::new() })
    }

    /// The template of Qwen2.5-VL.
    ///
    /// # Errors
    /// Returns the errors of [`ChatTemplate::new`], which do not occur for this template.
    pub fn qwen2_5_vl() -> Result<Self, ProcessorError> {
        Self::new(QWEN2_5_VL_TEMPLATE)
    }

    /// Adds variables that the template may use, such as `eos_token`. One that it uses and that is not there is empty.
    pub fn with_variables(mut self, variables: BTreeMap<String, Value>) -> Self {
        self.variables.extend(variables);
        self
    }

    /// The source of the template.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Returns true if the template has a place for images.
    pub(crate) fn shows_images(&self) -> bool {
        let shows = |messages: &[Message]| {
            self.render(messages, ChatOptions::default()).is_ok_and(|text| text.contains(special::IMAGE_PAD))
        };
        let asked = Message::user_with_image("?");
        // Some templates refuse a conversation that does not begin with the system's text.
        shows(std::slice::from_ref(&asked)) || shows(&[Message::system("?"), asked])
    }

    /// Renders a conversation as text, with one placeholder for each image.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Template`] if the template fails or refuses the conversation.
    pub fn render(&self, messages: &[Message], options: ChatOptions) -> Result<String, ProcessorError> {
        self.environment
            .get_template(NAME)
            .and_then(|template| {
                // The reference always passes `tools` and `documents`; here there are none.
                template.render(context! {
                    messages => Serde(messages),
                    tools => (),
                    documents => (),
                    add_generation_prompt => options.add_generation_prompt,
                    add_vision_id => options.add_vision_id,
                    ..minijinja::Value::from(Serde(&self.variables))
                })
            })
            .map_err(template_error)
    }
}

fn template_error(error: Error) -> ProcessorError {
    ProcessorError::Template(error.to_string())
}
