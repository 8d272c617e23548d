//! A little blur, as of a lens that is not quite in focus. `image::imageops::fast_blur` would take half of the
//! time of a picture.

use image::{RgbImage, imageops::fast_blur};

/// Channels of a pixel.
const CHANNELS: usize = 3;

/// Blurs by `sigma` pixels. Up to one pixel, by two passes of a kernel of three pixels in each direction, each with half of
/// the variance; more by boxes.
pub(super) fn soften(picture: RgbImage, sigma: f32) -> RgbImage {
    if sigma > 1.0 {
        return fast_blur(&picture, sigma);
    }
    // A kernel [w, 1 - 2w, w] has the variance 2w.
    let weight = (sigma * sigma / 4.0 * 256.0).round() as u16;
    let (width, height) = picture.dimensions();
    let mut from = picture.into_raw();
    let mut to = vec![0; from.len()];
    for _ in 0..2 {
        blur(&from, &mut to, CHANNELS, width as usize * CHANNELS, weight);
        blur(&to, &mut from, width as usize * CHANNELS, (width * height) as usize * CHANNELS, weight);
    }
    RgbImage::from_raw(width, height, from).unwrap_or_else(|| RgbImage::new(width, height))
}

/// Blurs along lines of `line` values, in which neighbours are `step` apart. At its ends a line goes on with its last value.
fn blur(from: &[u8], to: &mut [u8], step: usize, line: usize, weight: u16) {
    let mix = |one: u8, middle: u8, other: u8| {
        let sum = weight * (u16::from(one) + u16::from(other)) + (256 - 2 * weight) * u16::from(middle);
        ((sum + 128) >> 8) as u8
    };
    for (from, to) in from.chunks_exact(line).zip(to.chunks_exact_mut(line)) {
        if line <= step {
            to.copy_from_slice(from);
            continue;
        }
        let end = line - step;
        for at in 0..step {
            to[at] = mix(from[at], from[at], from[at + step]);
            to[end + at] = mix(from[end + at - step], from[end + at], from[end + at]);
        }
        let sides = from[..end - step].iter().zip(&from[2 * step..]);
        for ((to, &middle), (&one, &other)) in to[step..end].iter_mut().zip(&from[step..end]).zip(sides) {
            *to = mix(one, middle, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A single bright pixel becomes a spot of the same sum, whose variance in each direction is sigma squared.
    #[test]
    fn a_spot_has_the_variance_of_its_sigma() {
        for sigma in [0.4f32, 0.7, 1.0] {
            let mut picture = RgbImage::new(15, 15);
            picture.put_pixel(7, 7, image::Rgb([255; 3]));
            let blurred = soften(picture, sigma);
            let (mut sum, mut across, mut down) = (0.0, 0.0, 0.0);
            for (x, y, pixel) in blurred.enumerate_pixels() {
                let light = f64::from(pixel.0[1]);
                sum += light;
                across += light * (f64::from(x) - 7.0).powi(2);
                down += light * (f64::from(y) - 7.0).powi(2);
            }
            assert!((sum - 255.0).abs() < 20.0, "{sum}");
            let expected = f64::from(sigma * sigma);
            assert!(
                (across / sum - expected).abs() < 0.12 && (down / sum - expected).abs() < 0.12,
                "{sigma}: {}",
                across / sum
            );
        }
    }

    #[test]
    fn an_even_picture_stays_as_it_is() {
        for (width, height) in [(1, 1), (1, 5), (5, 1), (2, 2), (30, 20)] {
            let picture = RgbImage::from_pixel(width, height, image::Rgb([10, 200, 255]));
            assert_eq!(soften(picture.clone(), 0.9), picture);
        }
    }
}
