//! A contact sheet: look-alikes side by side, in several pictures each.

use fieldmark_stream::StreamKey;
use image::{RgbImage, imageops::replace};
use rayon::prelude::*;

use crate::{
    category::Category,
    scene,
    species::{Group, World},
};

/// Pictures of each species on a sheet.
const PICTURES: u32 = 4;
/// Pairs of each category on a sheet.
const PAIRS: usize = 5;
/// White space between pictures, in pixels.
const GAP: u32 = 2;

/// Draws a sheet. Each row has one pair of look-alikes of each category: `PICTURES` of the one, then as many of the other.
pub fn contact_sheet(world: &World, side: u32, seed: u64) -> RgbImage {
    let side = side.clamp(1, scene::LARGEST_SIDE);
    let key = StreamKey::new(seed).word("sheet");
    let pairs =
        Category::ALL.map(|category| world.of(Group::Seen, Some(category)).step_by(2).take(PAIRS).collect::<Vec<_>>());
    let rows = pairs.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let across = Category::ALL.len() as u32 * 2 * PICTURES;
    let mut cells = Vec::new();
    for (place, indices) in pairs.iter().enumerate() {
        for (row, &first) in indices.iter().enumerate() {
            for (half, index) in [first, world.look_alike(first)].into_iter().enumerate() {
                for picture in 0..PICTURES {
                    let column = (place as u32 * 2 + half as u32) * PICTURES + picture;
                    cells.push((row as u32, column, index, picture));
                }
            }
        }
    }
    let drawn: Vec<_> = cells
        .par_iter()
        .map(|&(row, column, index, picture)| {
            let species = &world.species()[index];
            let mut stream = key.number(index as u64).number(u64::from(picture)).stream();
            (row, column, scene::draw(species.category, &species.marks, side, &mut stream))
        })
        .collect();
    let step = side + GAP;
    let mut sheet = RgbImage::from_pixel(across * step, rows * step, image::Rgb([255; 3]));
    for (row, column, picture) in drawn {
        replace(&mut sheet, &picture, i64::from(column * step), i64::from(row * step));
    }
    sheet
}
