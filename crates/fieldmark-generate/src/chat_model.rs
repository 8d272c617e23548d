//! A checkpoint that answers chats: processor, model and settings in one, for callers that want texts.

use std::path::Path;

use burn::tensor::Device;
use fieldmark_model::{Adapter, LoadOptions, Pretrained, Qwen25Vl};
use fieldmark_processor::{Processor, ProcessorError, SpecialTokens, TextStream};
use fieldmark_stream::StreamKey;

use crate::{
    chat::Chat, checkpoint::CheckpointGeneration, config::GenerationConfig, error::GenerateError, generator::Generator,
    request::Request, response::Response,
};

/// The length limit of a new [`ChatModel`].
const MAX_NEW_TOKENS: usize = 2048;

/// A model with its processor and generation settings, which may be changed between calls.
///
/// ```no_run
/// use burn::tensor::Device;
/// use fieldmark_generate::{Chat, ChatModel, Sampling};
///
/// let mut model = ChatModel::from_pretrained("checkpoint", &Device::default())?;
/// model.generation.sampling = Sampling::nucleus(0.7, 0.9);
/// model.seed = 1;
/// let chat = Chat::question("Name three field marks of a robin.", []);
/// model.generate_with(&[chat], |_, text| print!("{text}"))?;
/// # Ok::<(), fieldmark_generate::GenerateError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ChatModel {
    /// The model, which must not track gradients.
    pub model: Qwen25Vl,
    /// The checkpoint's processor.
    pub processor: Processor,
    /// How replies are decoded: greedy, at most 2048 tokens, unless changed.
    pub generation: GenerationConfig,
    /// The seed of the random streams of chats that have none: chat i of a call draws from (seed, "chat", i).
    pub seed: u64,
    /// What a reader should know about the checkpoint: which of two parts that contradict each other counts, or that the
    /// checkpoint of a run is used where the run's folder was given.
    pub notes: Vec<String>,
    device: Device,
}

/// The reply to one chat.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The text, without special tokens.
    pub text: String,
    /// The tokens, their log-probabilities and why the reply ended.
    pub response: Response,
}

impl ChatModel {
    /// Reads a checkpoint folder, or the finished checkpoint in the folder of a run: processor, end tokens
    /// (`generation_config.json`, else `config.json`) and weights. The weights are computed in the device's default float
    /// type.
    ///
    /// # Errors
    /// Returns an error that names the file if the folder or a file in it is missing or damaged, or if the files
    /// contradict each other.
    pub fn from_pretrained(folder: impl AsRef<Path>, device: &Device) -> Result<Self, GenerateError> {
        Self::from_pretrained_with(folder, LoadOptions::default(), device)
    }

    /// Like [`Self::from_pretrained`], with the float types of the weights.
    ///
    /// # Errors
    /// Returns the errors of [`Self::from_pretrained`], and [`GenerateError::Setting`] if the device does not compute
    /// in one of the types.
    pub fn from_pretrained_with(
        folder: impl AsRef<Path>,
        options: LoadOptions,
        device: &Device,
    ) -> Result<Self, GenerateError> {
        let device = device.clone().without_autodiff();
        let parts = options.parts;
        for dtype in [options.dtype, parts.vision, parts.projector, parts.decoder].into_iter().flatten() {
            if !device.supports_dtype(dtype.float_dtype()) {
                let reason = format!("is {dtype}, in which this device does not compute; choose another type");
                return Err(GenerateError::Setting { key: "dtype", reason });
            }
        }
        let opened = Pretrained::open(folder.as_ref())?;
        let (processor, remarks) = Processor::from_dir_with_remarks(&opened.folder)?;
        let generation = CheckpointGeneration::from_folder(&opened.folder)?;
        let of_generation = generation.contradictions(&processor.tokenizer);
        let model = opened.load(options, &device)?;
        let end = generation.end_tokens(&processor.tokenizer);
        let notes =
            [opened.notes, remarks.notes, opened.contradictions, remarks.contradictions, of_generation].concat();
        Ok(Self { notes, ..Self::new(model, processor, end, &device) })
    }

    /// Combines parts that are already loaded. Neither model nor device may track gradients: for a model in training,
    /// pass `model.valid()`.
    pub fn new(model: Qwen25Vl, processor: Processor, eos_token_ids: Vec<u32>, device: &Device) -> Self {
        let processor = processor.with_context(model.config().text.max_position_embeddings);
        let generation = GenerationConfig::greedy(MAX_NEW_TOKENS, eos_token_ids);
        Self { model, processor, generation, seed: 0, notes: Vec::new(), device: device.clone() }
    }

    /// Merges a LoRA adapter into the weights: a folder of PEFT with `adapter_config.json`, or of a run of Fieldmark.
    ///
    /// # Errors
    /// Returns an error that names the file, key or tensor if the adapter cannot be read exactly or does not fit the
    /// model.
    ///
    /// ```no_run
    /// # use burn::tensor::Device;
    /// use fieldmark_generate::ChatModel;
    ///
    /// let model = ChatModel::from_pretrained("base", &Device::default())?.with_adapter("adapter")?;
    /// # Ok::<(), fieldmark_generate::GenerateError>(())
    /// ```
    pub fn with_adapter(mut self, folder: impl AsRef<Path>) -> Result<Self, GenerateError> {
        self.model = self.model.with_merged_adapter(&Adapter::open(folder.as_ref())?)?;
        Ok(self)
    }

    /// Sets the pixel limits of photographs; `None` keeps the checkpoint's limit, moved as far as the other one needs.
    ///
    /// # Errors
    /// Returns [`GenerateError::Setting`] if no image can meet the limits.
    pub fn with_pixel_limits(
        mut self,
        min_pixels: Option<usize>,
        max_pixels: Option<usize>,
    ) -> Result<Self, GenerateError> {
        self.processor = self.processor.with_pixel_limits(min_pixels, max_pixels).map_err(|error| match error {
            ProcessorError::PixelLimit { key, value, reason } => {
                GenerateError::Setting { key, reason: format!("is {value}: {reason}") }
            }
            other => other.into(),
        })?;
        Ok(self)
    }

    /// Returns one reply per chat, in their order. `generation.max_batch` chats are decoded together.
    ///
    /// # Errors
    /// Returns an error that names the chat if its photographs and `<image>` places differ in number or it does not fit
    /// the model's context, and [`GenerateError::Setting`] if [`Self::generation`] is invalid.
    pub fn generate(&self, chats: &[Chat]) -> Result<Vec<Reply>, GenerateError> {
        self.generate_with(chats, |_, _| ())
    }

    /// Like [`Self::generate`], and calls `on_text` with the index of a chat and the next piece of its reply, as soon
    /// as the piece is complete (never half a character). Pieces of different chats alternate.
    ///
    /// # Errors
    /// Returns the errors of [`Self::generate`].
    pub fn generate_with(
        &self,
        chats: &[Chat],
        mut on_text: impl FnMut(usize, &str),
    ) -> Result<Vec<Reply>, GenerateError> {
        let tokenizer = &self.processor.tokenizer;
        let generator = Generator::new(&self.model, self.generation.clone(), tokenizer.pad(), &self.device)?;
        let key = StreamKey::new(self.seed).word("chat");
        let mut replies = Vec::with_capacity(chats.len());
        // In batches, because the patches of all photographs at once may not fit the memory.
        for batch in chats.chunks(self.generation.max_batch) {
            let first = replies.len();
            let mut requests = Vec::with_capacity(batch.len());
            for (index, chat) in (first..).zip(batch) {
                let prompt = chat.prompt(&format!("chat {index}"), &self.processor).map_err(|error| match error {
                    ProcessorError::TooLong { sample, tokens, limit: context, .. } => {
                        GenerateError::Context { sample, tokens, context }
                    }
                    other => other.into(),
                })?;
                let stream = chat.stream.clone().unwrap_or_else(|| key.number(index as u64).stream());
                requests.push(Request { prompt, streams: vec![stream] });
            }
            let mut streams = vec![TextStream::new(SpecialTokens::Skip); batch.len()];
            let mut failed: Result<(), ProcessorError> = Ok(());
            let mut show = |index: usize, piece: Result<String, ProcessorError>| match piece {
                Ok(text) if failed.is_ok() && !text.is_empty() => on_text(first + index, &text),
                Ok(_) => {}
                Err(error) if failed.is_ok() => failed = Err(error),
                Err(_) => {}
            };
            let responses = generator.generate_with(&requests, |token| {
                show(token.request, streams[token.request].push(tokenizer, token.id));
            })?;
            for (index, stream) in streams.into_iter().enumerate() {
                show(index, stream.finish(tokenizer));
            }
            failed?;
            for response in responses.into_iter().flatten() {
                let text = tokenizer.decode(response.text_ids(), SpecialTokens::Skip)?;
                replies.push(Reply { text, response });
            }
        }
        Ok(replies)
    }
}
