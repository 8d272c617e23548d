//! Decoded pixels of any kind to RGB bytes.
//!
//! Reference: Pillow's `convert("RGB")`, except that 16-bit grey keeps its high byte (Pillow saturates it).

use image::{DynamicImage, ImageBuffer, Pixel};

use super::decode_options::Alpha;

pub(super) fn to_rgb(image: DynamicImage, alpha: Alpha) -> Vec<u8> {
    let high = |value: u16| (value >> 8) as u8;
    match image {
        DynamicImage::ImageLuma8(grey) => flatten(&grey, alpha, |p| [p[0], p[0], p[0], 255]),
        DynamicImage::ImageLumaA8(grey) => flatten(&grey, alpha, |p| [p[0], p[0], p[0], p[1]]),
        DynamicImage::ImageRgb8(rgb) => rgb.into_raw(),
        DynamicImage::ImageRgba8(rgba) => flatten(&rgba, alpha, |p| p.0),
        DynamicImage::ImageLuma16(grey) => flatten(&grey, alpha, |p| [high(p[0]), high(p[0]), high(p[0]), 255]),
        DynamicImage::ImageLumaA16(grey) => flatten(&grey, alpha, |p| [high(p[0]), high(p[0]), high(p[0]), high(p[1])]),
        DynamicImage::ImageRgb16(rgb) => flatten(&rgb, alpha, |p| [high(p[0]), high(p[1]), high(p[2]), 255]),
        DynamicImage::ImageRgba16(rgba) => flatten(&rgba, alpha, |p| p.0.map(high)),
        other => flatten(&other.to_rgba8(), alpha, |p| p.0),
    }
}

fn flatten<P: Pixel>(image: &ImageBuffer<P, Vec<P::Subpixel>>, alpha: Alpha, rgba: impl Fn(&P) -> [u8; 4]) -> Vec<u8> {
    let pixels = image.pixels();
    let mut rgb = Vec::with_capacity(3 * pixels.len());
    for pixel in pixels {
        let [r, g, b, a] = rgba(pixel);
        rgb.extend_from_slice(&match alpha {
            Alpha::Drop => [r, g, b],
            Alpha::White => [r, g, b].map(|value| over_white(value, a)),
        });
    }
    rgb
}

/// `ImagingAlphaComposite` of Pillow over opaque white, with its seven extra bits and its division by 255.
fn over_white(value: u8, alpha: u8) -> u8 {
    let (value, alpha) = (u32::from(value), u32::from(alpha));
    let sum = value * alpha * 128 + 255 * (255 - alpha) * 128 + (0x80 << 7);
    ((((sum >> 8) + sum) >> 8) >> 7) as u8
}
