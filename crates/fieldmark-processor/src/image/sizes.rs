//! To which size an image is brought before it is cut into patches.
//!
//! Reference: `smart_resize` of transformers' Qwen2-VL image processor (now, and as in 4.51.3 with which Fine-R1 was
//! trained), and the area rules of the training data loaders (EasyR1 `process_image`, LLaMA-Factory `mm_plugin`).

use crate::error::ProcessorError;

/// Height and width in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
}

impl Size {
    /// A size of `height` rows of `width` pixels.
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

/// Least and most pixels (height × width) of an image after resizing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PixelLimits {
    /// Smaller images are enlarged to about this.
    pub min_pixels: usize,
    /// Larger images are reduced to about this.
    pub max_pixels: usize,
}

impl PixelLimits {
    /// What the published Qwen2.5-VL checkpoints carry: 56² to 28² · 16384.
    pub const CHECKPOINT: Self = Self { min_pixels: 3_136, max_pixels: 12_845_056 };
    /// Area rule of the TAPO data loader: 448² to about 1002².
    pub const TAPO: Self = Self { min_pixels: 200_704, max_pixels: 1_003_520 };
    /// Area rule of the SFT data loader: 32² to 768².
    pub const SFT: Self = Self { min_pixels: 1_024, max_pixels: 589_824 };
}

/// Which version of the reference's `smart_resize` is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SizeRule {
    /// The present one: any side is taken and none becomes less than the factor.
    #[default]
    Current,
    /// As in transformers 4.51.3: sides below the factor are refused, and shrinking may bring a side to 0.
    Training,
}

/// A resize that a training data loader makes before the processor's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PreResize {
    /// As EasyR1 does for TAPO: both sides by the square root of the area's excess, cut to whole pixels.
    Area(PixelLimits),
    /// As LLaMA-Factory does for SFT: the area rule, then sides of at least 28 and no longer than 180 times the other.
    AreaThenSides(PixelLimits),
}

/// Sides rounded (half to even) to multiples of `factor`, within `limits` and near the shape of `size`.
/// `size` must not be empty. With [`SizeRule::Training`] a side of the result may be 0, as in the reference.
///
/// # Errors
/// [`ProcessorError::Size`] under `name`, where the reference raises: one side more than 200 times the other, or (in
/// training only) below `factor`.
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

/// Size after the area rule of the training data loaders.
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
    /// The sizes through which an image of `size` passes, one resize each; empty where it stays as it is. Extreme
    /// shapes may reach a side of 0, which no image can be resized to.
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
