//! The shape of a new model: a TOML file with the names of Qwen2.5-VL's `config.json` (reference: `Qwen2_5_VLConfig`).

use std::path::Path;

use fieldmark_model::{ModelError, Qwen25VlConfig, TextConfig, VisionConfig, VisionTokens};
use fieldmark_processor::{ChatTemplate, ImageProcessor, ImageProcessorConfig, PixelLimits, Processor, Tokenizer};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::error::RunError;

/// The shape of a new model. The default is the demo's model of 3.3 million parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// Most tokens of the tokenizer. The embedding has as many rows as there are tokens, rounded up to a multiple of 16.
    pub vocab_size: usize,
    /// ASCII texts that become one token each, wherever they stand: tags, names of classes.
    pub whole: Vec<String>,
    /// The output head is the input embedding, transposed.
    pub tie_word_embeddings: bool,
    /// Standard deviation of the weights.
    pub initializer_range: f64,
    /// The decoder.
    pub text: TextShape,
    /// The vision encoder.
    pub vision: VisionShape,
    /// Sizes of images.
    pub images: ImageShape,
}

/// The shape of the decoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextShape {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Inner width of the gated MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Rotary frequencies for time, height and width, which sum to half the head dimension. By default a quarter of them is
    /// for time, as in the published checkpoints.
    pub mrope_section: Option<[usize; 3]>,
    /// Longest sequence in tokens, images included.
    pub max_position_embeddings: usize,
}

/// The shape of the vision encoder. Patches have 14×14 pixels, and the projector joins 2×2 of them into one token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VisionShape {
    /// Number of blocks.
    pub depth: usize,
    /// Width of the encoder.
    pub hidden_size: usize,
    /// Inner width of the gated MLP.
    pub intermediate_size: usize,
    /// Attention heads; the head dimension must be a multiple of 4.
    pub num_heads: usize,
    /// Side of an attention window in pixels, at least 28.
    pub window_size: usize,
    /// Blocks, from 0, that attend over the whole image instead of a window.
    pub fullatt_block_indexes: Vec<usize>,
}

/// Sizes of images, in pixels (height × width) after resizing; 784 pixels are one token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageShape {
    /// Smaller images are enlarged to about this many pixels.
    pub min_pixels: usize,
    /// Larger images are reduced to about this many pixels.
    pub max_pixels: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            vocab_size: 512,
            whole: ["<think>", "</think>", "<answer>", "</answer>"].map(str::to_owned).to_vec(),
            tie_word_embeddings: true,
            initializer_range: 0.03,
            text: TextShape::default(),
            vision: VisionShape::default(),
            images: ImageShape::default(),
        }
    }
}

impl Default for TextShape {
    fn default() -> Self {
        Self {
            hidden_size: 192,
            intermediate_size: 384,
            num_hidden_layers: 4,
            num_attention_heads: 6,
            num_key_value_heads: 2,
            mrope_section: None,
            max_position_embeddings: 512,
        }
    }
}

impl Default for VisionShape {
    fn default() -> Self {
        Self {
            depth: 4,
            hidden_size: 160,
            intermediate_size: 432,
            num_heads: 5,
            window_size: 56,
            fullatt_block_indexes: vec![1, 3],
        }
    }
}

impl Default for ImageShape {
    fn default() -> Self {
        Self { min_pixels: 112 * 112, max_pixels: 112 * 112 }
    }
}

/// The largest value of a size, which keeps products of sizes within range.
const MOST: usize = 1 << 17;
/// Pixels of one token: 2×2 patches of 14×14 pixels.
const TOKEN_PIXELS: usize = 28 * 28;
/// Stand for the vision tokens while there is no tokenizer yet.
const PLACEHOLDERS: VisionTokens = VisionTokens { image: 0, video: 0, start: 0, end: 0 };

impl Shape {
    /// Reads and checks a shape. Keys that the file does not set keep their defaults.
    ///
    /// # Errors
    /// Returns an error that names the file, and the key if there is one, if the file cannot be read, is not TOML, has an
    /// unknown key or a value of the wrong type, or describes no model.
    pub fn read(path: &Path) -> Result<Self, RunError> {
        let text = std::fs::read_to_string(path).map_err(RunError::io(path))?;
        Self::from_text(&text).map_err(|error| Self::in_file(path, error))
    }

    /// Reads and checks a shape from the text of such a file.
    ///
    /// # Errors
    /// Returns [`RunError::Setting`] if the text is not TOML, has an unknown key or a value of the wrong type, or describes
    /// no model.
    pub fn from_text(text: &str) -> Result<Self, RunError> {
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            setting("shape", "", format!("line {line} is not valid TOML: {}", error.message()))
        })?;
        let shape = Self::from_table(table)?;
        shape.check()?;
        Ok(shape)
    }

    /// Adds the file that a shape was read from to an error about one of its settings.
    pub fn in_file(path: &Path, error: RunError) -> RunError {
        match error {
            RunError::Setting { .. } => RunError::path(path, error.to_string()),
            other => other,
        }
    }

    /// Each key is tried alone first, so that an error names it.
    fn from_table(table: Table) -> Result<Self, RunError> {
        for (name, value) in &table {
            match value {
                Value::Table(section) if SECTIONS.contains(&name.as_str()) => {
                    for (key, value) in section {
                        let alone = Table::from_iter([(key.clone(), value.clone())]);
                        try_alone(&format!("{name}.{key}"), value, Table::from_iter([(name.clone(), alone.into())]))?;
                    }
                }
                _ => try_alone(name, value, Table::from_iter([(name.clone(), value.clone())]))?,
            }
        }
        Self::deserialize(Value::Table(table)).map_err(|error| setting("shape", "", error.message()))
    }

    /// Checks that the settings describe a model.
    ///
    /// # Errors
    /// Returns [`RunError::Setting`] with the first key that is wrong.
    pub fn check(&self) -> Result<(), RunError> {
        let (text, vision) = (&self.text, &self.vision);
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("text.hidden_size", text.hidden_size),
            ("text.intermediate_size", text.intermediate_size),
            ("text.num_hidden_layers", text.num_hidden_layers),
            ("text.num_attention_heads", text.num_attention_heads),
            ("text.num_key_value_heads", text.num_key_value_heads),
            ("text.max_position_embeddings", text.max_position_embeddings),
            ("vision.depth", vision.depth),
            ("vision.hidden_size", vision.hidden_size),
            ("vision.intermediate_size", vision.intermediate_size),
            ("vision.num_heads", vision.num_heads),
            ("vision.window_size", vision.window_size),
        ];
        if let Some((key, value)) = sizes.into_iter().find(|(_, value)| !(1..=MOST).contains(value)) {
            return Err(setting(key, value, format!("must be between 1 and {MOST}")));
        }
        if let Some(sections) = text.mrope_section.filter(|sections| sections.iter().any(|&size| size > MOST)) {
            return Err(setting("text.mrope_section", format!("{sections:?}"), "is larger than any head dimension"));
        }
        if !(self.initializer_range.is_finite() && self.initializer_range > 0.0) {
            return Err(setting("initializer_range", self.initializer_range, "must be a positive number"));
        }
        // The byte-level decoder takes the letters of an added token for bytes, which only ASCII survives.
        if let Some(text) = self.whole.iter().find(|text| text.is_empty() || !text.is_ascii()) {
            return Err(setting("whole", format!("{text:?}"), "cannot be one token; only ASCII texts can"));
        }
        self.network(self.vocab_size, PLACEHOLDERS).validate().map_err(|error| self.own_key(error))?;
        let limits = self.images;
        if limits.max_pixels < TOKEN_PIXELS {
            let problem = format!("must be at least {TOKEN_PIXELS}, the pixels of one token");
            return Err(setting("images.max_pixels", limits.max_pixels, problem));
        }
        if limits.min_pixels > limits.max_pixels {
            let problem = format!("must be at most max_pixels, which is {}", limits.max_pixels);
            return Err(setting("images.min_pixels", limits.min_pixels, problem));
        }
        let (tokens, context) = (limits.max_pixels / TOKEN_PIXELS, text.max_position_embeddings);
        if tokens >= context {
            let problem = format!(
                "allows images of {tokens} tokens, but a sequence has at most {context}; lower it, or raise \
                 text.max_position_embeddings"
            );
            return Err(setting("images.max_pixels", limits.max_pixels, problem));
        }
        Ok(())
    }

    /// The number of parameters of a model with a full vocabulary, computed without making one.
    pub fn parameters(&self) -> u64 {
        self.network(self.vocab_size, PLACEHOLDERS).parameter_counts().total()
    }

    /// The configuration of the model under a tokenizer.
    pub fn config(&self, tokenizer: &Tokenizer) -> Qwen25VlConfig {
        let rows = tokenizer.vocab_size().next_multiple_of(16);
        self.network(rows, tokenizer.vision_tokens()).with_eos_token_ids(vec![tokenizer.eos()])
    }

    /// The processor with a tokenizer, the image sizes and the published chat template.
    ///
    /// # Errors
    /// Returns an error if the chat template does not compile, which does not happen.
    pub fn processor(&self, tokenizer: Tokenizer) -> Result<Processor, RunError> {
        let ImageShape { min_pixels, max_pixels } = self.images;
        let images = ImageProcessor::new(ImageProcessorConfig::default());
        let images = images.with_limits(PixelLimits { min_pixels, max_pixels });
        Ok(Processor::new(tokenizer, images, ChatTemplate::qwen2_5_vl()?))
    }

    fn network(&self, rows: usize, tokens: VisionTokens) -> Qwen25VlConfig {
        let (text, vision) = (&self.text, &self.vision);
        let decoder = TextConfig::new(
            rows,
            text.hidden_size,
            text.intermediate_size,
            text.num_hidden_layers,
            text.num_attention_heads,
            text.num_key_value_heads,
            text.mrope_section.unwrap_or_else(|| sections(text.hidden_size / text.num_attention_heads / 2)),
        )
        .with_max_position_embeddings(text.max_position_embeddings);
        let encoder = VisionConfig::new(
            vision.depth,
            vision.hidden_size,
            vision.intermediate_size,
            vision.num_heads,
            text.hidden_size,
            vision.window_size,
            vision.fullatt_block_indexes.clone(),
        );
        Qwen25VlConfig::new(decoder, encoder, tokens, self.tie_word_embeddings)
    }

    /// An error about a key of `config.json`, with the key of the shape instead.
    fn own_key(&self, error: ModelError) -> RunError {
        let ModelError::Config { key, reason } = error else { return error.into() };
        let key = match key.strip_prefix("vision_config.") {
            Some(key) => format!("vision.{key}"),
            // Without sections of its own the head dimension is at fault.
            None if key.ends_with("mrope_section") && self.text.mrope_section.is_none() => {
                let (key, heads) = ("text.num_attention_heads", self.text.num_attention_heads);
                let dimension = self.text.hidden_size / heads;
                return setting(key, heads, format!("gives a head dimension of {dimension}, which must be even"));
            }
            None => format!("text.{}", key.rsplit('.').next().unwrap_or(&key)),
        };
        let table = Table::try_from(self).unwrap_or_default();
        let (section, name) = key.split_once('.').unwrap_or(("", &key));
        let value = table.get(section).and_then(|section| section.get(name)).map(Value::to_string);
        setting(&key, value.unwrap_or_default(), reason.replace("vision_config.", "vision."))
    }
}

/// The sections of a shape, whose keys are tried one by one.
const SECTIONS: [&str; 3] = ["text", "vision", "images"];

fn try_alone(key: &str, value: &Value, alone: Table) -> Result<(), RunError> {
    let tried = Shape::deserialize(Value::Table(alone));
    tried.map(drop).map_err(|error| setting(key, value, error.message()))
}

fn setting(key: &str, value: impl ToString, problem: impl Into<String>) -> RunError {
    RunError::Setting { key: key.into(), value: value.to_string(), problem: problem.into() }
}

/// A quarter of `half` frequencies for time and the same number for height and width.
fn sections(half: usize) -> [usize; 3] {
    let time = half / 4 + (half - half / 4) % 2;
    [time, (half - time) / 2, (half - time) / 2]
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn read(text: &str) -> Result<Shape, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shape.toml");
        std::fs::write(&path, text).unwrap();
        Shape::read(&path).map_err(|error| {
            assert!(matches!(&error, RunError::Path { path: named, .. } if *named == path), "{error}");
            error.to_string()
        })
    }

    #[test]
    fn keys_that_are_not_set_keep_their_defaults() {
        assert_eq!(read("").unwrap(), Shape::default());
        let shape = read("tie_word_embeddings = false\n[text]\nnum_hidden_layers = 2\n").unwrap();
        assert!(!shape.tie_word_embeddings && shape.text.num_hidden_layers == 2);
        assert_eq!(shape.vision, VisionShape::default());
        assert_eq!(sections(64), [16, 24, 24]);
        assert_eq!([sections(16), sections(8), sections(9)], [[4, 6, 6], [2, 3, 3], [3, 3, 3]]);
    }

    #[test]
    fn the_example_is_a_shape() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../recipes/shapes/tiny.toml");
        assert_eq!(Shape::read(&path).unwrap(), Shape::default(), "recipes/shapes/tiny.toml shows the defaults");
    }

    #[test]
    fn wrong_shapes_are_refused_with_file_and_key() {
        for (text, named) in [
            ("layers = 4", &["`layers`"][..]),
            ("[text]\nlayers = 4", &["`text.layers`", "num_hidden_layers"]),
            ("[txt]\nlayers = 4", &["`txt`"]),
            ("text = 4", &["`text`"]),
            ("vocab_size = -1", &["`vocab_size` = -1"]),
            ("vocab_size = 0", &["`vocab_size` = 0"]),
            ("[text]\nhidden_size = \"wide\"", &["`text.hidden_size`", "wide"]),
            ("[text]\nhidden_size = 99999999999", &["`text.hidden_size` = 99999999999"]),
            ("[text]\nnum_attention_heads = 5", &["`text.num_attention_heads` = 5", "192"]),
            ("[text]\nnum_attention_heads = 0", &["`text.num_attention_heads` = 0"]),
            ("[text]\nhidden_size = 198", &["`text.num_attention_heads` = 6", "33"]),
            ("[text]\nnum_key_value_heads = 4", &["`text.num_key_value_heads` = 4", "6"]),
            ("[text]\nmrope_section = [4, 6, 5]", &["`text.mrope_section` = [4, 6, 5]", "15", "16"]),
            ("[text]\nmrope_section = [4, 6]", &["`text.mrope_section`"]),
            ("[vision]\nnum_heads = 3", &["`vision.num_heads` = 3", "160"]),
            ("[vision]\nnum_heads = 80", &["`vision.num_heads` = 80", "2", "4"]),
            ("[vision]\nwindow_size = 27", &["`vision.window_size` = 27"]),
            ("[vision]\nfullatt_block_indexes = [4]", &["`vision.fullatt_block_indexes` = [4]"]),
            ("[images]\nmax_pixels = 783", &["`images.max_pixels` = 783", "784"]),
            ("[images]\nmin_pixels = 20000", &["`images.min_pixels` = 20000", "12544"]),
            ("[images]\nmax_pixels = 500000", &["`images.max_pixels` = 500000", "text.max_position_embeddings"]),
            ("initializer_range = 0", &["`initializer_range` = 0"]),
            ("initializer_range = nan", &["`initializer_range` = NaN"]),
            ("whole = [\"\"]", &["`whole`"]),
            ("whole = [\"\u{e9}\"]", &["`whole`", "\u{e9}"]),
            ("\n[text", &["line 2"]),
        ] {
            let error = read(text).unwrap_err();
            for name in named {
                assert!(error.contains(name), "{text:?}: {name}: {error}");
            }
        }
    }
}
