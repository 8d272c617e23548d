//! The colours that field marks have, with the word for each.

use serde::{Deserialize, Serialize};

/// The colour of a mark. The first six are the plainest; a world takes as many as its number of species needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Colour {
    Red,
    Yellow,
    Green,
    Blue,
    White,
    Black,
    Orange,
    Purple,
    Brown,
    Grey,
    Pink,
    Teal,
}

impl Colour {
    /// All colours, the plainest first.
    pub const ALL: [Self; 12] = [
        Self::Red,
        Self::Yellow,
        Self::Green,
        Self::Blue,
        Self::White,
        Self::Black,
        Self::Orange,
        Self::Purple,
        Self::Brown,
        Self::Grey,
        Self::Pink,
        Self::Teal,
    ];

    /// The word in texts.
    pub fn word(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Yellow => "yellow",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::White => "white",
            Self::Black => "black",
            Self::Orange => "orange",
            Self::Purple => "purple",
            Self::Brown => "brown",
            Self::Grey => "grey",
            Self::Pink => "pink",
            Self::Teal => "teal",
        }
    }

    /// Red, green and blue in white light.
    pub fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [205, 40, 40],
            Self::Yellow => [240, 225, 60],
            Self::Green => [50, 155, 60],
            Self::Blue => [45, 85, 200],
            Self::White => [242, 242, 242],
            Self::Black => [25, 25, 30],
            Self::Orange => [240, 130, 20],
            Self::Purple => [125, 45, 165],
            Self::Brown => [115, 70, 30],
            Self::Grey => [135, 135, 140],
            Self::Pink => [245, 150, 190],
            Self::Teal => [30, 160, 165],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Colours of parts vary by up to 14 levels in each channel, and a picture's light by more.
    #[test]
    fn any_two_colours_are_far_apart() {
        for (index, one) in Colour::ALL.into_iter().enumerate() {
            for other in &Colour::ALL[index + 1..] {
                let squares = one.rgb().into_iter().zip(other.rgb()).map(|(a, b)| f64::from(a.abs_diff(b)).powi(2));
                let distance = squares.sum::<f64>().sqrt();
                assert!(distance > 70.0, "{one:?} and {other:?}: {distance:.0}");
            }
        }
    }
}
