//! Pictures of animals. Pose, place, light, background, leaves in front and blur vary from picture to picture; the colours
//! of the parts vary a little around those of the marks.

mod bird;
mod blur;
mod fish;
mod moth;
mod shapes;

use fieldmark_stream::RandomStream;
use image::RgbImage;
use tiny_skia::{Color, FillRule, Pixmap, Transform};

use crate::{category::Category, marks::Marks};
use shapes::{Canvas, Rgb, ellipse, paint};

/// The side of a picture in pixels, unless a world is written with another.
pub const SIDE: u32 = 112;
/// The largest side of a picture in pixels.
pub const LARGEST_SIDE: u32 = 4096;

/// The colours of backgrounds: sky, grass, sand, rock, dusk.
const GROUNDS: [Rgb; 5] = [[150, 190, 220], [120, 160, 110], [200, 190, 160], [170, 170, 170], [110, 90, 120]];

/// Draws an animal with these marks. `side` is the picture's side in pixels, from 1 to [`LARGEST_SIDE`]; values outside are
/// moved to the nearest of these.
pub fn draw(category: Category, marks: &Marks, side: u32, stream: &mut RandomStream) -> RgbImage {
    let side = side.clamp(1, LARGEST_SIDE);
    let Some(mut pixels) = Pixmap::new(side, side) else { return RgbImage::new(side, side) };
    let unit = side as f32 / 9.0;
    background(&mut pixels, stream);

    let colours = marks.0.map(|colour| shade(colour.rgb(), 14, stream));
    let place = pose(unit, stream);
    let mut canvas = Canvas { pixels: &mut pixels, place };
    match category {
        Category::Bird => bird::draw(&mut canvas, colours),
        Category::Moth => moth::draw(&mut canvas, colours),
        Category::Fish => fish::draw(&mut canvas, colours),
    }
    leaves(&mut pixels, stream);

    // Every pixel is opaque, so that its colours are not scaled by its opacity.
    let colours = pixels.data().as_chunks::<4>().0.iter().flat_map(|&[red, green, blue, _]| [red, green, blue]);
    let mut picture = RgbImage::from_raw(side, side, colours.collect()).unwrap_or_else(|| RgbImage::new(side, side));
    if stream.below(5) < 2 {
        let sigma = uniform(stream, 0.3, 1.0) * side as f32 / SIDE as f32;
        picture = blur::soften(picture, sigma);
    }
    light(&mut picture, stream);
    picture
}

/// Where the animal is: near the middle, turned a little, larger or smaller, and facing either way.
fn pose(unit: f32, stream: &mut RandomStream) -> Transform {
    let flip = if stream.below(2) == 0 { -1.0 } else { 1.0 };
    let size = unit * uniform(stream, 0.88, 1.06);
    let (wide, high) = (size * uniform(stream, 0.95, 1.05), size * uniform(stream, 0.95, 1.05));
    let turn = uniform(stream, -12.0, 12.0);
    let (x, y) = (uniform(stream, -0.45, 0.45), uniform(stream, -0.4, 0.4));
    Transform::from_scale(flip * wide, high).post_rotate(turn).post_translate(unit * (4.5 + x), unit * (4.5 + y))
}

fn background(pixels: &mut Pixmap, stream: &mut RandomStream) {
    let side = pixels.width() as f32;
    let ground = shade(GROUNDS[stream.below(GROUNDS.len())], 25, stream);
    pixels.fill(Color::from_rgba8(ground[0], ground[1], ground[2], 255));
    for _ in 0..=stream.below(4) {
        let (x, y, across) = (uniform(stream, 0.0, 1.0), uniform(stream, 0.0, 1.0), uniform(stream, 0.08, 0.2));
        blob(pixels, [x * side, y * side, across * side, 0.5 * across * side], shade(ground, 25, stream));
    }
}

/// Up to two leaves in front of the animal.
fn leaves(pixels: &mut Pixmap, stream: &mut RandomStream) {
    let side = pixels.width() as f32;
    for _ in 0..[0, 0, 1, 2][stream.below(4)] {
        let (x, y, up) = (uniform(stream, 0.15, 0.85), uniform(stream, 0.15, 0.85), uniform(stream, 0.02, 0.045));
        blob(pixels, [x * side, y * side, 2.0 * up * side, up * side], shade([70, 100, 60], 30, stream));
    }
}

/// Fills an ellipse: its middle and its radii, in pixels.
fn blob(pixels: &mut Pixmap, [x, y, across, up]: [f32; 4], colour: Rgb) {
    if let Some(path) = ellipse(x, y, across, up) {
        pixels.fill_path(&path, &paint(colour), FillRule::Winding, Transform::identity(), None);
    }
}

/// Brighter or darker, and a little warmer or colder.
fn light(picture: &mut RgbImage, stream: &mut RandomStream) {
    let exposure = uniform(stream, 0.7, 1.15);
    let tables: [[u8; 256]; 3] = std::array::from_fn(|_| {
        let factor = exposure * uniform(stream, 0.9, 1.08);
        std::array::from_fn(|value| (value as f32 * factor) as u8)
    });
    for pixel in picture.pixels_mut() {
        pixel.0 = std::array::from_fn(|channel| tables[channel][usize::from(pixel.0[channel])]);
    }
}

/// A colour up to `most` levels away from another in each channel.
fn shade(rgb: Rgb, most: usize, stream: &mut RandomStream) -> Rgb {
    rgb.map(|value| {
        let moved = i32::from(value) + stream.below(2 * most + 1) as i32 - most as i32;
        moved.clamp(0, 255) as u8
    })
}

fn uniform(stream: &mut RandomStream, low: f32, high: f32) -> f32 {
    stream.uniform_in(f64::from(low), f64::from(high)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::colour::Colour;

    fn picture(category: Category, marks: &Marks, seed: u64) -> RgbImage {
        draw(category, marks, SIDE, &mut RandomStream::new(seed, &["picture"]))
    }

    #[test]
    fn a_seed_always_draws_the_same_picture() {
        let marks = Marks([Colour::Red; 5]);
        for category in Category::ALL {
            assert_eq!(picture(category, &marks, 1), picture(category, &marks, 1));
            assert_ne!(picture(category, &marks, 1), picture(category, &marks, 2));
        }
    }

    /// Each part covers enough of every picture to be seen: it changes at least 1.2 % of the pixels a lot.
    #[test]
    fn each_mark_can_be_seen() {
        for category in Category::ALL {
            for part in 0..5 {
                for seed in 0..12 {
                    let mut marks = Marks([Colour::White; 5]);
                    let without = picture(category, &marks, seed);
                    marks.0[part] = Colour::Red;
                    let with = picture(category, &marks, seed);
                    let far = |a: &image::Rgb<u8>, b: &image::Rgb<u8>| a.0[1].abs_diff(b.0[1]) > 60;
                    let changed = without.pixels().zip(with.pixels()).filter(|(a, b)| far(a, b)).count();
                    let all = (SIDE * SIDE) as usize;
                    assert!(changed * 1000 >= 12 * all, "{} {part}: {changed} pixels", category.word());
                }
            }
        }
    }

    #[test]
    fn every_size_is_drawn() {
        for side in [0, 1, 7, 500] {
            let picture = draw(Category::Moth, &Marks([Colour::Blue; 5]), side, &mut RandomStream::new(0, &[]));
            assert_eq!(picture.width(), side.max(1));
        }
    }
}
