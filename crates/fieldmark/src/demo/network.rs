//! The shape of the demo's model: the default shape, with the names of the classes as tokens.

use super::produce::SIDE;
use crate::init::{ImageShape, Shape};

/// Tokens besides the names: bytes, special tokens, tags, and the few words of the demo's texts.
const WORDS: usize = 400;

/// The shape of a model that knows `names`. Images have `SIDE` × `SIDE` pixels.
pub(super) fn shape(names: Vec<String>) -> Shape {
    let shape = Shape::default();
    let vocab_size = shape.vocab_size.max(WORDS + names.len());
    let whole = names.into_iter().chain(shape.whole).collect();
    let pixels = SIDE * SIDE;
    Shape { vocab_size, whole, images: ImageShape { min_pixels: pixels, max_pixels: pixels }, ..Shape::default() }
}
