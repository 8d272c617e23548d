//! Random resized crop and horizontal flip, drawn as by torchvision's `RandomResizedCrop` and `RandomHorizontalFlip`.

use fieldmark_stream::RandomStream;
use image::RgbImage;
use image::imageops::{self, FilterType};

/// Crops a random area of random shape, resizes it to a fixed size, and sometimes mirrors it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomResizedCrop {
    /// Width of the result in pixels, at least 1.
    pub width: u32,
    /// Height of the result in pixels, at least 1.
    pub height: u32,
    /// Smallest and largest share of the image's area; torchvision's default is 0.08 to 1.
    pub scale: (f64, f64),
    /// Smallest and largest ratio of width to height, drawn uniformly in its logarithm; torchvision's default is 3/4 to
    /// 4/3.
    pub ratio: (f64, f64),
    /// The probability of mirroring left and right.
    pub flip_probability: f64,
}

/// A rectangle inside an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Crop {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

impl RandomResizedCrop {
    /// Crops at least half of the area, so that a photographed object stays recognisable, and resizes to
    /// `width`×`height`.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height, scale: (0.5, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0), flip_probability: 0.5 }
    }

    /// Augments `image` with the next numbers of `stream`. An image without pixels is returned unchanged.
    pub fn apply(&self, image: &RgbImage, stream: &mut RandomStream) -> RgbImage {
        if image.width() == 0 || image.height() == 0 {
            return image.clone();
        }
        let Crop { x, y, width, height } = self.crop(image.width(), image.height(), stream);
        let part = imageops::crop_imm(image, x, y, width, height).to_image();
        let mut resized = imageops::resize(&part, self.width.max(1), self.height.max(1), FilterType::Triangle);
        if stream.uniform() < self.flip_probability {
            imageops::flip_horizontal_in_place(&mut resized);
        }
        resized
    }

    /// The first of ten draws of area and shape that fits, otherwise the largest centred crop of an allowed shape.
    fn crop(&self, image_width: u32, image_height: u32, stream: &mut RandomStream) -> Crop {
        let (full_width, full_height) = (f64::from(image_width), f64::from(image_height));
        for _ in 0..10 {
            let area = full_width * full_height * stream.uniform_in(self.scale.0, self.scale.1);
            let ratio = stream.uniform_in(self.ratio.0.ln(), self.ratio.1.ln()).exp();
            let width = (area * ratio).sqrt().round_ties_even() as u32;
            let height = (area / ratio).sqrt().round_ties_even() as u32;
            if (1..=image_width).contains(&width) && (1..=image_height).contains(&height) {
                return Crop {
                    x: stream.below((image_width - width + 1) as usize) as u32,
                    y: stream.below((image_height - height + 1) as usize) as u32,
                    width,
                    height,
                };
            }
        }
        let ratio = full_width / full_height;
        let (width, height) = if ratio < self.ratio.0 {
            (full_width, full_width / self.ratio.0)
        } else if ratio > self.ratio.1 {
            (full_height * self.ratio.1, full_height)
        } else {
            (full_width, full_height)
        };
        let width = (width.round_ties_even() as u32).clamp(1, image_width);
        let height = (height.round_ties_even() as u32).clamp(1, image_height);
        Crop { x: (image_width - width) / 2, y: (image_height - height) / 2, width, height }
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn stream(seed: u64) -> RandomStream {
        RandomStream::new(seed, &["augment"])
    }

    #[test]
    fn crops_keep_area_shape_and_borders() {
        let augment = RandomResizedCrop { scale: (0.2, 0.6), ..RandomResizedCrop::new(32, 32) };
        let (mut smallest, mut largest) = (f64::MAX, 0f64);
        let mut reached = [false; 4];
        let mut stream = stream(0);
        for _ in 0..3000 {
            let crop = augment.crop(300, 200, &mut stream);
            assert!(crop.x + crop.width <= 300 && crop.y + crop.height <= 200, "{crop:?}");
            let area = f64::from(crop.width * crop.height) / 60_000.0;
            let ratio = f64::from(crop.width) / f64::from(crop.height);
            assert!((0.19..0.61).contains(&area) && (0.74..1.35).contains(&ratio), "{crop:?}");
            (smallest, largest) = (smallest.min(area), largest.max(area));
            reached[0] |= crop.x == 0;
            reached[1] |= crop.y == 0;
            reached[2] |= crop.x + crop.width == 300;
            reached[3] |= crop.y + crop.height == 200;
        }
        assert!(smallest < 0.21 && largest > 0.55, "{smallest} {largest}");
        assert_eq!(reached, [true; 4]);
    }

    #[test]
    fn an_impossible_shape_gets_the_centre() {
        let augment = RandomResizedCrop { scale: (1.0, 1.0), ..RandomResizedCrop::new(8, 8) };
        let wide = augment.crop(400, 30, &mut stream(0));
        assert_eq!(wide, Crop { x: 180, y: 0, width: 40, height: 30 });
        let tall = augment.crop(30, 400, &mut stream(0));
        assert_eq!(tall, Crop { x: 0, y: 180, width: 30, height: 40 });
    }

    #[test]
    fn the_whole_image_is_only_resized_or_mirrored() {
        let mut image = RgbImage::from_pixel(40, 40, Rgb([10, 20, 30]));
        for y in 0..40 {
            image.put_pixel(0, y, Rgb([200, 0, 0]));
        }
        let whole = |flip_probability| RandomResizedCrop {
            scale: (1.0, 1.0),
            ratio: (1.0, 1.0),
            flip_probability,
            ..RandomResizedCrop::new(40, 40)
        };
        assert_eq!(whole(0.0).apply(&image, &mut stream(1)), image);
        assert_eq!(whole(1.0).apply(&image, &mut stream(1)), imageops::flip_horizontal(&image));
        let mut stream = stream(2);
        let mirrored = (0..400).filter(|_| whole(0.5).apply(&image, &mut stream) != image).count();
        assert!((150..250).contains(&mirrored), "{mirrored}");
        let small = RandomResizedCrop::new(5, 7).apply(&image, &mut stream);
        assert_eq!(small.dimensions(), (5, 7));
        assert_eq!(RandomResizedCrop::new(5, 7).apply(&RgbImage::new(0, 3), &mut stream).dimensions(), (0, 3));
    }
}
