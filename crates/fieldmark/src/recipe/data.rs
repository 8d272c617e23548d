//! `[data]`: the files that the stages read, and how images are decoded and resized.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fieldmark_data::{Aliases, DataError, ImageRoots, PromptTemplate};
use fieldmark_processor::{Alpha, DecodeOptions, ExifOrientation, PixelLimits, PreResize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Data of all stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataSection {
    /// Folder that image paths are relative to. Default: the folder of the file that contains the paths.
    pub images: Option<PathBuf>,
    /// Replaces the start of image paths: `"data/birds" = "photos"` looks for `data/birds/1.jpg` at `photos/1.jpg`.
    pub prefixes: BTreeMap<String, PathBuf>,
    /// What to do with the orientation that a photograph's file records (in EXIF or XMP).
    pub exif: ExifOrientation,
    /// What to do with transparent pixels.
    pub alpha: Alpha,
    /// Largest number of pixels (width × height) of an image file. One with more is an error, before it is decoded. The default
    /// is the number above which Pillow refuses an image.
    pub max_decoded_pixels: u64,
    /// Largest size of an image file in bytes. A larger one is an error.
    pub max_file_bytes: u64,
    /// Build every sample once before training. A damaged image or an overlong sample then ends the run in its first
    /// minutes, not in its last.
    pub check: bool,
    /// Folder of labelled photographs with a `labels.csv`. Triplets and evaluation questions are made from it if
    /// `data.tapo.file` or `eval.files` is not set.
    pub labels: Option<PathBuf>,
    /// Number of classes in `data.labels` that training never sees. Rows of `data.sft.file` and `data.tapo.file` that show
    /// or name one are refused.
    pub unseen: usize,
    /// Draws these classes. It is not `seed`, so that all stages and runs hold out the same ones.
    pub unseen_seed: u64,
    /// Instead of a number: names of the classes that training never sees.
    pub unseen_classes: Vec<String>,
    /// Question asked about the photographs of `data.labels`.
    pub question: String,
    /// File with other names of classes, TOML or JSON: `"Granny Smith" = ["Granny", "Grannysmith"]`. Rewards and
    /// evaluation take them for the name. Aliases in the data files (`aliases`) count as well.
    pub aliases: Option<PathBuf>,
    /// Data of SFT.
    pub sft: SftData,
    /// Data of TAPO.
    pub tapo: TapoData,
}

impl Default for DataSection {
    fn default() -> Self {
        let DecodeOptions { exif, alpha, max_file_bytes, max_decoded_pixels } = DecodeOptions::default();
        Self {
            images: None,
            prefixes: BTreeMap::new(),
            exif,
            alpha,
            max_decoded_pixels,
            max_file_bytes,
            check: true,
            labels: None,
            unseen: 0,
            unseen_seed: 42,
            unseen_classes: Vec::new(),
            question: "What is in this photograph?".into(),
            aliases: None,
            sft: SftData::default(),
            tapo: TapoData::default(),
        }
    }
}

impl DataSection {
    /// The settings for decoding photographs.
    pub fn decode(&self) -> DecodeOptions {
        let &Self { exif, alpha, max_file_bytes, max_decoded_pixels, .. } = self;
        DecodeOptions { exif, alpha, max_file_bytes, max_decoded_pixels }
    }

    /// Reads the file of aliases; without one, there are none.
    ///
    /// # Errors
    /// Returns the errors of [`Aliases::read`].
    pub fn read_aliases(&self) -> Result<Aliases, DataError> {
        let file = self.aliases_file();
        file.map_or_else(|| Ok(Aliases::default()), Aliases::read)
    }

    /// The file of aliases, if one is set.
    pub fn aliases_file(&self) -> Option<&Path> {
        self.aliases.as_deref().filter(|file| !file.as_os_str().is_empty())
    }

    /// The table of labels, if classes are held out.
    pub fn held_out_table(&self) -> Option<PathBuf> {
        let holds_out = self.unseen > 0 || !self.unseen_classes.is_empty();
        self.labels.as_ref().filter(|_| holds_out).map(|folder| folder.join("labels.csv"))
    }

    /// The folders to look for the images of `file` in.
    pub fn roots(&self, file: &Path) -> ImageRoots {
        let roots = self.images.as_ref().map_or_else(|| ImageRoots::beside(file), ImageRoots::new);
        self.prefixes.iter().fold(roots, |roots, (prefix, folder)| roots.with_prefix(prefix, folder))
    }
}

/// Image sizes of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSizes {
    /// Smaller images are enlarged to about this many pixels.
    pub min_pixels: usize,
    /// Larger images are reduced to about this many pixels.
    pub max_pixels: usize,
    /// The resize of the training data loader, before the processor's own. With one, the limits above apply to the
    /// loader, and the processor uses the limits of the checkpoint.
    pub resize: ResizeRule,
}

/// The resize of the training data loader, before the processor's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResizeRule {
    /// None: only the processor resizes.
    Once,
    /// By area, as EasyR1 does for TAPO.
    Area,
    /// By area, then to sides of at least 28 pixels and no extreme aspect ratio, as LLaMA-Factory does for SFT.
    AreaThenSides,
}

impl ImageSizes {
    /// The resize of the loader, and the limits of the processor (`None`: those of the checkpoint).
    pub fn steps(&self) -> (Option<PreResize>, Option<PixelLimits>) {
        let limits = PixelLimits { min_pixels: self.min_pixels, max_pixels: self.max_pixels };
        match self.resize {
            ResizeRule::Once => (None, Some(limits)),
            ResizeRule::Area => (Some(PreResize::Area(limits)), None),
            ResizeRule::AreaThenSides => (Some(PreResize::AreaThenSides(limits)), None),
        }
    }
}

/// Data of SFT.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SftData {
    /// Conversations in JSON, as OpenAI, Qwen, TRL, LLaVA and LLaMA-Factory write them, or Alpaca's.
    pub file: Option<PathBuf>,
    /// Validation set: conversations in a file of the same form. Their loss is measured; nothing is learned from them.
    pub validation: Option<PathBuf>,
    /// Instead of a validation file: number of rows of `data.sft.file`, drawn by `seed`, that are only validated on.
    pub validation_rows: usize,
    /// Maximum length of a conversation in tokens, images included. A longer one is an error; it is never cut.
    pub max_tokens: usize,
    /// Include the newline after the end token of an answer in the loss, as the released code does.
    pub newline_in_loss: bool,
    /// Image sizes.
    pub sizes: ImageSizes,
}

impl Default for SftData {
    fn default() -> Self {
        let PixelLimits { min_pixels, max_pixels } = PixelLimits::SFT;
        let sizes = ImageSizes { min_pixels, max_pixels, resize: ResizeRule::AreaThenSides };
        Self { file: None, validation: None, validation_rows: 0, max_tokens: 4096, newline_in_loss: false, sizes }
    }
}

/// Data of TAPO.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TapoData {
    /// Triplets: rows with problem, answer, anchor, positive and negative. Default: made from `data.labels`.
    pub file: Option<PathBuf>,
    /// Validation set: rows in a file of the same form. Their questions are answered greedily, with the anchor as the
    /// only image; nothing is learned from them.
    pub validation: Option<PathBuf>,
    /// Instead of a validation file: number of triplets, drawn by `seed`, that are only validated on.
    pub validation_rows: usize,
    /// Wording of the prompt.
    pub prompt: PromptTemplate,
    /// Maximum length of a prompt in tokens, its image included. A longer one is an error.
    pub max_tokens: usize,
    /// Let a class with a single photograph use it as its own positive. Otherwise such a class is an error.
    pub reuse_anchor: bool,
    /// Image sizes.
    pub sizes: ImageSizes,
}

impl Default for TapoData {
    fn default() -> Self {
        let PixelLimits { min_pixels, max_pixels } = PixelLimits::TAPO;
        let sizes = ImageSizes { min_pixels, max_pixels, resize: ResizeRule::Area };
        Self {
            file: None,
            validation: None,
            validation_rows: 0,
            prompt: PromptTemplate::Rl,
            max_tokens: 4096,
            reuse_anchor: false,
            sizes,
        }
    }
}
