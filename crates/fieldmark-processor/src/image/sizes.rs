//! The size to which an image is resized before it is cut into patches.
//!
//! Reference: `smart_resize` of transformers' Qwen2-VL image processor (today's, and that of 4.51.3, which Fine-R1 was
//! trained with), and the area rules of the training data loaders (EasyR1 `process_image`, LLaMA-Factory `mm_plugin`).

use crate::error::ProcessorError;

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
}

impl Size {
    /// A size in pixels. The height comes first.
    pub fn new(height: usize, width: usize) -> Self {
        Self { height, width }
    }

    fn area(self) -> f64 {
        self.height as f64 * self.width as f64
    }

    fn scaled(self, by: impl Fn(f64) -> f64) -> Self {
        Self { height: by(self.height as f64) as usize, width: by(self.width as f64) as usize }
    }

    fn longer_over_shorter(self) -> f64 {
        self.height.max(self.width) as f64 / self.height.min(self.width) as f64
    }
}

/// Smallest and largest number of pixels (height × width) of a resized image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PixelLimits {
    /// Smaller images are enlarged to about this many pixels.
    pub min_pixels: usize,
    /// Larger images are reduced to about this many pixels.
    pub max_pixels: usize,
}

impl PixelLimits {
    /// Limits in the published Qwen2.5-VL checkpoints: 56² to 28² · 16384.
    pub const CHECKPOINT: Self = Self { min_pixels: 3_136, max_pixels: 12_845_056 };
    /// Limits of the TAPO data loader: 448² to about 1002².
    pub const TAPO: Self = Self { min_pixels: 200_704, max_pixels: 1_003_520 };
    /// Limits of the SFT data loader: 32² to 768².
    pub const SFT: Self = Self { min_pixels: 1_024, max_pixels: 589_824 };

    /// Checks that an image can meet the limits.
    ///
    /// # Errors
    /// Returns [`ProcessorError::PixelLimit`] if `max_pixels` is 0, or less than `min_pixels`.
    pub fn check(self) -> Result<(), ProcessorError> {
        let Self { min_pixels, max_pixels } = self;
        let refuse = |key, value, reason| Err(ProcessorError::PixelLimit { key, value, reason });
        if max_pixels == 0 {
            return refuse("max_pixels", 0, "must be at least the number of pixels of one patch".into());
        }
        if min_pixels > max_pixels {
            return refuse("min_pixels", min_pixels, format!("must be at most max_pixels, which is {max_pixels}"));
        }
        Ok(())
    }
}

/// Which version of the reference's `smart_resize` to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SizeRule {
    /// Today's version: accepts any side, and no side becomes smaller than the factor.
    #[default]
    Current,
    /// The version of transformers 4.51.3: refuses sides below the factor, and shrinking may bring a side to 0.
    Training,
}

/// A resize that a training data loader applies before the processor's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PreResize {
    /// EasyR1's rule for TAPO: scales both sides by √(limit / area) if the area is outside the limits; cuts off
    /// fractions.
    Area(PixelLimits),
    /// LLaMA-Factory's rule for SFT: the area rule, then raises short sides to 28 and cuts a side that is more than 200
    /// times the other to 180 times.
    AreaThenSides(PixelLimits),
}

/// Rounds the sides (half to even) to multiples of `factor`, within `limits` and close to the shape of `size`.
/// With [`SizeRule::Training`] a side of the result may be 0, as in the reference.
///
/// # Errors
/// Returns [`ProcessorError::Size`], which names `name`, if `size` is empty, if one side is more than 200 times the
/// other, or (with [`SizeRule::Training`]) if a side is below `factor`.
pub fn smart_resize(
    name: &str,
    size: Size,
    factor: usize,
    limits: PixelLimits,
    rule: SizeRule,
) -> Result<Size, ProcessorError> {
    let refuse = |reason: String| {
        Err(ProcessorError::Size { name: name.into(), height: size.height, width: size.width, reason })
    };
    if size.height == 0 || size.width == 0 || factor == 0 {
        return refuse("a side is 0".into());
    }
    if rule == SizeRule::Training && size.height.min(size.width) < factor {
        return refuse(format!("both sides must be at least {factor}"));
    }
    if size.longer_over_shorter() > 200.0 {
        return refuse(format!("absolute aspect ratio must be smaller than 200, got {:?}", size.longer_over_shorter()));
    }
    let step = factor as f64;
    let rounded = size.scaled(|side| (side / step).round_ties_even() * step);
    if rounded.area() > limits.max_pixels as f64 {
        let beta = (size.area() / limits.max_pixels as f64).sqrt();
        let shrunk = size.scaled(|side| (side / beta / step).floor() * step);
        let least = if rule == SizeRule::Current { factor } else { 0 };
        return Ok(Size::new(shrunk.height.max(least), shrunk.width.max(least)));
    }
    if rounded.area() < limits.min_pixels as f64 {
        let beta = (limits.min_pixels as f64 / size.area()).sqrt();
        return Ok(size.scaled(|side| (side * beta / step).ceil() * step));
    }
    Ok(rounded)
}

/// The size after the area rule of the training data loaders.
pub fn area_resize(size: Size, limits: PixelLimits) -> Size {
    area_steps(size, limits).last().copied().unwrap_or(size)
}

fn area_steps(size: Size, limits: PixelLimits) -> Vec<Size> {
    let mut steps = Vec::new();
    let mut at = size;
    let mut scale_to = |pixels: usize, needed: fn(f64, f64) -> bool| {
        if needed(at.area(), pixels as f64) {
            let factor = (pixels as f64 / at.area()).sqrt();
            at = at.scaled(|side| side * factor);
            steps.push(at);
        }
    };
    scale_to(limits.max_pixels, |area, most| area > most);
    scale_to(limits.min_pixels, |area, least| area < least);
    steps
}

impl PreResize {
    /// The sizes that an image of `size` goes through, one resize each; empty if the image keeps its size. A side of an
    /// extreme shape may reach 0, to which no image can be resized.
    pub fn steps(self, size: Size) -> Vec<Size> {
        let (Self::Area(limits) | Self::AreaThenSides(limits)) = self;
        let mut steps = area_steps(size, limits);
        if let Self::AreaThenSides(_) = self {
            let at = steps.last().copied().unwrap_or(size);
            let sides = Size::new(at.height.max(28), at.width.max(28));
            let shape = match sides {
                Size { height, width } if width > height.saturating_mul(200) => Size::new(height, 180 * height),
                Size { height, width } if height > width.saturating_mul(200) => Size::new(180 * width, width),
                other => other,
            };
            for (before, after) in [(at, sides), (sides, shape)] {
                if before != after {
                    steps.push(after);
                }
            }
        }
        steps
    }
}
