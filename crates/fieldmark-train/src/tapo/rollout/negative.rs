//! The negative image of a sample: a photograph of the most similar other class, or the anchor with random patches
//! blackened, which needs no third photograph.
//!
//! The patches are PAPO's augmentation, which the released TAPO code uses for rows without a negative: a grid of
//! 14-pixel cells over the decoded photograph, before any resize; each cell is black with probability 0.6.

use fieldmark_processor::{Photo, ProcessorError};
use fieldmark_stream::{RandomStream, StreamKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// Where the negative image of a sample comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NegativeImage {
    /// The negative photograph of the sample, of the most similar other class (paper).
    #[default]
    Triplet,
    /// The anchor photograph with black patches (settings: `patches`).
    Patches,
}

/// Black patches: divides a photograph into square cells and blackens each with a fixed probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BlackPatches {
    /// Side of a cell in pixels of the photograph. Cells at the right and bottom edges are cut off.
    pub patch: usize,
    /// Probability that a cell turns black, 0 to 1.
    pub probability: f64,
}

impl Default for BlackPatches {
    fn default() -> Self {
        Self { patch: 14, probability: 0.6 }
    }
}

impl BlackPatches {
    /// Checks both settings.
    ///
    /// # Errors
    /// Returns an error if `patch` is 0 or `probability` is outside 0..=1.
    pub fn validate(&self) -> Result<(), TrainError> {
        if self.patch == 0 {
            return Err(TrainError::Setting { key: "patches.patch", value: "0".into(), expected: "at least 1" });
        }
        if !(0.0..=1.0).contains(&self.probability) {
            let value = self.probability.to_string();
            return Err(TrainError::Setting {
                key: "patches.probability",
                value,
                expected: "at least 0 and at most 1",
            });
        }
        Ok(())
    }

    /// Makes the negative of a sample from its anchor, with the random stream (run, "negative", epoch, row). The result
    /// does not depend on earlier calls and differs in every epoch.
    ///
    /// # Errors
    /// Returns the errors of [`Self::apply`].
    pub fn negative(&self, anchor: &Photo, run: &StreamKey, epoch: usize, row: usize) -> Result<Photo, ProcessorError> {
        let key = run.word("negative").number(epoch as u64).number(row as u64);
        self.apply(anchor, &mut key.stream())
    }

    /// Blackens cells of the photograph. `stream` gives one number per cell, row by row.
    ///
    /// Reference: `random_patch_blackening`, which uses one global random generator without a seed.
    ///
    /// # Errors
    /// Passes on the errors of [`Photo::from_rgb`]. None are expected, because the result has the size of `photo`.
    pub fn apply(&self, photo: &Photo, stream: &mut RandomStream) -> Result<Photo, ProcessorError> {
        let (height, width, patch) = (photo.height(), photo.width(), self.patch.max(1));
        let mut rgb = photo.rgb().to_vec();
        for top in (0..height).step_by(patch) {
            for left in (0..width).step_by(patch) {
                if stream.uniform() >= self.probability {
                    continue;
                }
                for y in top..(top + patch).min(height) {
                    let row = y * width;
                    rgb[3 * (row + left)..3 * (row + (left + patch).min(width))].fill(0);
                }
            }
        }
        Photo::from_rgb(photo.name(), height, width, rgb)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn white(height: usize, width: usize) -> Photo {
        Photo::from_rgb("white", height, width, vec![255; height * width * 3]).unwrap()
    }

    fn stream(seed: u64) -> RandomStream {
        RandomStream::new(seed, &["negative"])
    }

    /// Whether the cell at (row, column) is black; fails if it is neither.
    fn is_black(photo: &Photo, cell: usize, row: usize, column: usize) -> bool {
        let (bottom, right) = (((row + 1) * cell).min(photo.height()), ((column + 1) * cell).min(photo.width()));
        let pixels: Vec<u8> = (row * cell..bottom)
            .flat_map(|y| (column * cell..right).map(move |x| (y, x)))
            .flat_map(|(y, x)| photo.rgb()[3 * (y * photo.width() + x)..][..3].to_vec())
            .collect();
        assert!(pixels.iter().all(|&p| p == pixels[0]), "cell {row}, {column} is cut through");
        pixels[0] == 0
    }

    #[test]
    fn whole_cells_turn_black_in_the_order_of_the_stream() {
        // 3 rows of cells, the last 2 pixels high, by 4 columns, the last 1 wide.
        let photo = BlackPatches::default().apply(&white(30, 43), &mut stream(7)).unwrap();
        assert_eq!((photo.height(), photo.width()), (30, 43));
        let mut expected = stream(7);
        for row in 0..3 {
            for column in 0..4 {
                assert_eq!(is_black(&photo, 14, row, column), expected.uniform() < 0.6, "{row}, {column}");
            }
        }
        assert_ne!(photo, BlackPatches::default().apply(&white(30, 43), &mut stream(8)).unwrap());
    }

    #[test]
    fn six_cells_in_ten_are_black() {
        let photo = BlackPatches { patch: 2, ..Default::default() }.apply(&white(200, 200), &mut stream(1)).unwrap();
        let black = photo.rgb().iter().filter(|&&p| p == 0).count() as f64 / 120_000.0;
        // A standard deviation of sqrt(0.24/10000) = 0.0049.
        assert!((black - 0.6).abs() < 0.02, "{black}");
        let all = |probability| BlackPatches { probability, ..Default::default() };
        assert_eq!(all(0.0).apply(&white(5, 9), &mut stream(1)).unwrap(), white(5, 9));
        assert!(all(1.0).apply(&white(5, 9), &mut stream(1)).unwrap().rgb().iter().all(|&p| p == 0));
    }

    #[test]
    fn every_row_of_every_epoch_has_its_own() {
        let (patches, photo) = (BlackPatches::default(), white(70, 70));
        let negative = |seed, epoch, row| patches.negative(&photo, &StreamKey::new(seed), epoch, row).unwrap();
        let mut all = Vec::new();
        for (seed, epoch, row) in [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0), (1, 1, 1)] {
            let found = negative(seed, epoch, row);
            assert_eq!(found, negative(seed, epoch, row));
            assert!(!all.contains(&found), "{seed} {epoch} {row}");
            all.push(found);
        }
        let mut stream = StreamKey::new(1).word("negative").number(1).number(0).stream();
        assert_eq!(all[2], patches.apply(&photo, &mut stream).unwrap());
    }

    #[test]
    fn senseless_settings_are_refused() {
        assert!(BlackPatches::default().validate().is_ok());
        for bad in [-0.1, 1.1, f64::NAN] {
            assert!(BlackPatches { probability: bad, ..Default::default() }.validate().is_err());
        }
        assert!(BlackPatches { patch: 0, ..Default::default() }.validate().is_err());
    }
}
