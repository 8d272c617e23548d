//! The field marks of a species: a colour for each part.

use serde::{Deserialize, Serialize};

use crate::{
    category::{Category, PARTS},
    colour::Colour,
};
use fieldmark_stream::RandomStream;

/// A colour for each part of a category, in the order of [`Category::parts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Marks(pub [Colour; PARTS]);

impl Marks {
    /// Draws a colour for each part from the first `colours` ones.
    pub fn random(colours: usize, stream: &mut RandomStream) -> Self {
        Self(std::array::from_fn(|_| Colour::ALL[stream.below(colours.clamp(1, Colour::ALL.len()))]))
    }

    /// These marks with another colour of the first `colours` ones on one part.
    #[must_use]
    pub fn with_other(mut self, part: usize, colours: usize, stream: &mut RandomStream) -> Self {
        let others: Vec<Colour> =
            Colour::ALL[..colours].iter().copied().filter(|&colour| colour != self.0[part]).collect();
        if let Some(&colour) = stream.choose(&others) {
            self.0[part] = colour;
        }
        self
    }

    /// The parts on which two sets of marks differ, by their index.
    pub fn differences(&self, other: &Self) -> Vec<usize> {
        (0..PARTS).filter(|&part| self.0[part] != other.0[part]).collect()
    }

    /// The marks of the named parts in words: "red head, blue tail".
    pub fn words(&self, category: Category, parts: &[usize]) -> String {
        let names = category.parts();
        let word = |&part: &usize| format!("{} {}", self.0[part].word(), names[part]);
        parts.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    /// All marks in words.
    pub fn all_words(&self, category: Category) -> String {
        self.words(category, &[0, 1, 2, 3, 4])
    }
}

/// Draws `count` of the parts, in order.
pub fn some_parts(count: usize, stream: &mut RandomStream) -> Vec<usize> {
    let mut parts: Vec<usize> = (0..PARTS).collect();
    stream.shuffle(&mut parts);
    parts.truncate(count);
    parts.sort_unstable();
    parts
}
