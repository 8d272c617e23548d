//! Photographs to patches: resize within the pixel limits, normalise, cut.
//!
//! Reference: `Qwen2VLImageProcessor` of transformers, Pillow back end (`pixel_values`, `image_grid_thw`). Rows have
//! the order (height/2, width/2, 2, 2), so that the patches of one token are neighbours; columns (colour, frame, y, x).

use std::sync::Arc;

use fieldmark_model::GridThw;

use super::{
    config::ImageProcessorConfig,
    decode_options::MANY_PIXELS,
    photo::Photo,
    resize::bicubic,
    sizes::{PixelLimits, PreResize, Size, SizeRule, smart_resize},
};
use crate::error::ProcessorError;

/// An image whose sides are multiples of the merged patch size, ready to be cut. Only
/// [`ImageProcessor::resize`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResizedPhoto {
    size: Size,
    rgb: Vec<u8>,
}

impl ResizedPhoto {
    /// Height and width in pixels.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The pixels, `[height, width, 3]`.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

/// The patches of one image. Clones share them.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchedImage {
    /// Normalised patches, `[grid.patches(), patch_len]`, row by row.
    pub pixel_values: Arc<[f32]>,
    /// Size in patches: frames, height, width.
    pub grid: GridThw,
}

/// Turns photographs into patches. Its pixel limits may differ from the checkpoint's.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    config: ImageProcessorConfig,
    before: Option<PreResize>,
    rule: SizeRule,
    /// Normalised value of each byte in each channel.
    normalised: Box<[[f32; 3]; 256]>,
}

impl ImageProcessor {
    /// Creates an image processor with the settings of a checkpoint.
    pub fn new(config: ImageProcessorConfig) -> Self {
        let mut normalised = Box::new([[0f32; 3]; 256]);
        for (byte, channels) in normalised.iter_mut().enumerate() {
            // Rescaled in f64 and stored as f32, then normalised in f32: the reference's order of rounding.
            let value = (byte as f64 * config.rescale_factor) as f32;
            for (channel, out) in channels.iter_mut().enumerate() {
                *out = (value - config.image_mean[channel] as f32) / config.image_std[channel] as f32;
            }
        }
        Self { config, before: None, rule: SizeRule::default(), normalised }
    }

    /// Sets the pixel limits.
    pub fn with_limits(mut self, limits: PixelLimits) -> Self {
        self.config.limits = limits;
        self
    }

    /// Sets the resize of a training data loader, which comes before the processor's own.
    pub fn with_pre_resize(mut self, before: Option<PreResize>) -> Self {
        self.before = before;
        self
    }

    /// Sets the version of `smart_resize`.
    pub fn with_rule(mut self, rule: SizeRule) -> Self {
        self.rule = rule;
        self
    }

    /// The settings in use.
    pub fn config(&self) -> &ImageProcessorConfig {
        &self.config
    }

    /// The grid of an image of `size` pixels, computed without its pixels.
    ///
    /// # Errors
    /// Returns the errors of [`ImageProcessor::resize`], which name `name`.
    pub fn grid(&self, name: &str, size: Size) -> Result<GridThw, ProcessorError> {
        let target = *self.sizes(name, size)?.last().unwrap_or(&size);
        Ok(GridThw::image(target.height / self.config.patch_size, target.width / self.config.patch_size))
    }

    /// [`ImageProcessor::grid`] of a photograph.
    pub(crate) fn grid_of(&self, photo: &Photo) -> Result<GridThw, ProcessorError> {
        self.grid(photo.name(), Size::new(photo.height(), photo.width()))
    }

    /// Resizes an image so that its sides are multiples of the merged patch size.
    ///
    /// # Errors
    /// Returns [`ProcessorError::Size`] if the shape is too extreme or one of the resizes would leave no pixel.
    pub fn resize(&self, photo: &Photo) -> Result<ResizedPhoto, ProcessorError> {
        let mut size = Size::new(photo.height(), photo.width());
        let mut rgb = std::borrow::Cow::Borrowed(photo.rgb());
        for next in self.sizes(photo.name(), size)? {
            if next != size {
                rgb = bicubic(&rgb, size, next).into();
                size = next;
            }
        }
        Ok(ResizedPhoto { size, rgb: rgb.into_owned() })
    }

    /// Normalises an image and cuts it into patches.
    pub fn patches(&self, photo: &ResizedPhoto) -> PatchedImage {
        let ImageProcessorConfig { patch_size: patch, merge_size: merge, temporal_patch_size: frames, .. } =
            self.config;
        let Size { height, width } = photo.size;
        let (rows, columns) = (height / patch, width / patch);
        let mut pixel_values = Vec::with_capacity(rows * columns * self.config.patch_len());
        for (block_y, block_x) in pairs(rows / merge, columns / merge) {
            for (y, x) in pairs(merge, merge) {
                let corner = ((block_y * merge + y) * width + block_x * merge + x) * patch;
                for channel in 0..3 {
                    for _ in 0..frames {
                        for (dy, dx) in pairs(patch, patch) {
                            let byte = photo.rgb[(corner + dy * width + dx) * 3 + channel];
                            pixel_values.push(self.normalised[usize::from(byte)][channel]);
                        }
                    }
                }
            }
        }
        PatchedImage { pixel_values: pixel_values.into(), grid: GridThw::image(rows, columns) }
    }

    /// [`ImageProcessor::resize`], then [`ImageProcessor::patches`].
    ///
    /// # Errors
    /// Returns the errors of [`ImageProcessor::resize`].
    pub fn process(&self, photo: &Photo) -> Result<PatchedImage, ProcessorError> {
        Ok(self.patches(&self.resize(photo)?))
    }

    /// The sizes that the image goes through. The sides of the last are multiples of the merged patch size. On the way to
    /// a small last size, none is enlarged beyond what may be decoded.
    fn sizes(&self, name: &str, size: Size) -> Result<Vec<Size>, ProcessorError> {
        let mut sizes = self.before.map(|before| before.steps(size)).unwrap_or_default();
        let before = *sizes.last().unwrap_or(&size);
        sizes.push(smart_resize(name, before, self.config.factor(), self.config.limits, self.rule)?);
        let pixels = |size: &Size| size.height.saturating_mul(size.width);
        let most = pixels(&size).max(MAX_STEP_PIXELS).max(sizes.last().map_or(0, pixels));
        let impossible = |step: &&Size| step.height == 0 || step.width == 0 || pixels(step) > most;
        match sizes.iter().find(impossible) {
            Some(step) => Err(ProcessorError::Size {
                name: name.into(),
                height: size.height,
                width: size.width,
                reason: format!("it would become {}×{}", step.height, step.width),
            }),
            None => Ok(sizes),
        }
    }
}

/// Pixels of an image between two resizes: as many as are decoded by default.
const MAX_STEP_PIXELS: usize = 2 * MANY_PIXELS as usize;

fn pairs(outer: usize, inner: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..outer).flat_map(move |a| (0..inner).map(move |b| (a, b)))
}
