//! `[data]` of a recipe: which files the stages read, and how images are decoded and sized.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fieldmark_data::{ImageRoots, PromptTemplate};
use fieldmark_processor::{Alpha, DecodeOptions, ExifOrientation, PixelLimits, PreResize};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The data of all stages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataSection {
    /// Folder that image paths are relative to; without it, the folder of the file that names them.
    pub images: Option<PathBuf>,
    /// Image paths that begin with one of these folders lie in the folder given instead.
    pub prefixes: BTreeMap<String, PathBuf>,
    /// What to do with the orientation that a camera noted.
    pub exif: Exif,
    /// What to do with transparency.
    pub alpha: AlphaRule,
    /// Make every sample once before training, so that a damaged image or a sample that is too long ends the run in its
    /// first minutes and not in its last.
    pub check: bool,
    /// A folder of labelled photographs (`labels.csv`) from which triplets and evaluation questions are made where no
    /// file of them is given.
    pub labels: Option<PathBuf>,
    /// Classes of that folder, drawn by `seed`, that training never sees.
    pub unseen: usize,
    /// The question asked about photographs of that folder.
    pub question: String,
    /// What SFT reads.
    pub sft: SftData,
    /// What TAPO reads.
    pub tapo: TapoData,
}

impl Default for DataSection {
    fn default() -> Self {
        Self {
            images: None,
            prefixes: BTreeMap::new(),
            exif: Exif::Honour,
            alpha: AlphaRule::Drop,
            check: true,
            labels: None,
            unseen: 0,
            question: "What is in this photograph?".into(),
            sft: SftData::default(),
            tapo: TapoData::default(),
        }
    }
}

impl DataSection {
    /// How photographs are decoded.
    pub fn decode(&self) -> DecodeOptions {
        DecodeOptions {
            exif: match self.exif {
                Exif::Honour => ExifOrientation::Honour,
                Exif::Ignore => ExifOrientation::Ignore,
            },
            alpha: match self.alpha {
                AlphaRule::Drop => Alpha::Drop,
                AlphaRule::White => Alpha::White,
            },
            ..DecodeOptions::default()
        }
    }

    /// Where the images that `file` names lie.
    pub fn roots(&self, file: &Path) -> ImageRoots {
        let roots = self.images.as_ref().map_or_else(|| ImageRoots::beside(file), ImageRoots::new);
        self.prefixes.iter().fold(roots, |roots, (prefix, folder)| roots.with_prefix(prefix, folder))
    }
}

/// What to do with the orientation that a camera noted in a photograph.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Exif {
    /// Turn the picture upright.
    #[default]
    Honour,
    /// Leave the pixels as stored, as the reference does.
    Ignore,
}

/// What to do with transparency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlphaRule {
    /// Keep the colours as stored, as in training.
    #[default]
    Drop,
    /// Composite onto white, as recent reference processors do.
    White,
}

/// The sizes to which a stage brings its images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSizes {
    /// Smaller images are enlarged to about this many pixels.
    pub min_pixels: usize,
    /// Larger images are reduced to about this many pixels.
    pub max_pixels: usize,
    /// Whether a training loader's own resize comes before the processor's; the limits are then those of the first, and
    /// the second has the checkpoint's.
    pub resize: ResizeRule,
}

/// The resize of a training data loader before the processor's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResizeRule {
    /// None: the processor's resize alone.
    Once,
    /// By area, as EasyR1 does for TAPO.
    Area,
    /// By area, then sides of at least 28 and no extreme shape, as LLaMA-Factory does for SFT.
    AreaThenSides,
}

impl ImageSizes {
    /// The two resizes: the one before, and the processor's own limits (`None`: the checkpoint's).
    pub fn steps(&self) -> (Option<PreResize>, Option<PixelLimits>) {
        let limits = PixelLimits { min_pixels: self.min_pixels, max_pixels: self.max_pixels };
        match self.resize {
            ResizeRule::Once => (None, Some(limits)),
            ResizeRule::Area => (Some(PreResize::Area(limits)), None),
            ResizeRule::AreaThenSides => (Some(PreResize::AreaThenSides(limits)), None),
        }
    }
}

/// What SFT reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SftData {
    /// Conversations, ShareGPT-style JSON as LLaMA-Factory reads it.
    pub file: Option<PathBuf>,
    /// Conversations whose loss is measured and from which nothing is learned, in a file of the same form.
    pub validation: Option<PathBuf>,
    /// The same with so many rows of `data.sft.file`, drawn by `seed`, that training then does not see.
    pub validation_rows: usize,
    /// Longest conversation in tokens, images included. A longer one is refused, never cut.
    pub max_tokens: usize,
    /// Whether the newline after an answer's end token is in the loss, as released.
    pub newline_in_loss: bool,
    /// Sizes of the images.
    pub sizes: ImageSizes,
}

impl Default for SftData {
    fn default() -> Self {
        let PixelLimits { min_pixels, max_pixels } = PixelLimits::SFT;
        let sizes = ImageSizes { min_pixels, max_pixels, resize: ResizeRule::AreaThenSides };
        Self { file: None, validation: None, validation_rows: 0, max_tokens: 4096, newline_in_loss: false, sizes }
    }
}

/// What TAPO reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TapoData {
    /// Triplets: rows with problem, answer, anchor, positive and negative. Without it, they are made from `data.labels`.
    pub file: Option<PathBuf>,
    /// Rows whose questions are answered greedily and from which nothing is learned, in a file of the same form. Their anchors
    /// alone are looked at.
    pub validation: Option<PathBuf>,
    /// The same with so many rows of the triplets, drawn by `seed`, that training then does not see.
    pub validation_rows: usize,
    /// The wording of the prompt.
    pub prompt: PromptTemplate,
    /// Longest prompt in tokens, its image included. A longer one is refused.
    pub max_tokens: usize,
    /// Whether a class with a single photograph may use it as its own positive; else such a class is an error.
    pub reuse_anchor: bool,
    /// Sizes of the images.
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
