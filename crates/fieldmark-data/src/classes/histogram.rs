//! Root colour histograms: the square roots of the shares of 12×4×4 HSV bins in a 48×48 thumbnail (Hellinger features).
//! Their nearest neighbours are the baseline for a trained model; their class means tell which classes look alike.

use image::RgbImage;
use image::imageops::{self, FilterType};

const THUMBNAIL: u32 = 48;
const HUE_BINS: usize = 12;
const SATURATION_BINS: usize = 4;
const VALUE_BINS: usize = 4;

/// The number of values of a histogram: 12·4·4.
pub const BINS: usize = HUE_BINS * SATURATION_BINS * VALUE_BINS;

/// A root histogram: 192 values of at least 0 whose squares add up to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct ColourHistogram {
    /// The values in the order (hue, saturation, brightness); brightness changes fastest.
    pub values: Vec<f32>,
}

impl ColourHistogram {
    /// The histogram of an image of any size. It is all zeros if the image has no pixels.
    pub fn of(image: &RgbImage) -> Self {
        if image.width() == 0 || image.height() == 0 {
            return Self { values: vec![0.0; BINS] };
        }
        let small = imageops::resize(image, THUMBNAIL, THUMBNAIL, FilterType::Triangle);
        let mut counts = [0u32; BINS];
        for pixel in small.pixels() {
            counts[bin(pixel.0)] += 1;
        }
        let pixels = (THUMBNAIL * THUMBNAIL) as f32;
        Self { values: counts.iter().map(|&count| (count as f32 / pixels).sqrt()).collect() }
    }

    /// The squared Euclidean distance: 0 for equal histograms, 2 for histograms without a common bin.
    pub fn distance(&self, other: &Self) -> f32 {
        let pairs = self.values.iter().zip(&other.values);
        pairs.map(|(a, b)| (a - b) * (a - b)).sum()
    }
}

fn bin([red, green, blue]: [u8; 3]) -> usize {
    let (r, g, b) = (f32::from(red), f32::from(green), f32::from(blue));
    let value = r.max(g).max(b);
    let range = value - r.min(g).min(b);
    let hue = if range == 0.0 {
        0.0
    } else if value == r {
        ((g - b) / range).rem_euclid(6.0)
    } else if value == g {
        (b - r) / range + 2.0
    } else {
        (r - g) / range + 4.0
    };
    let saturation = if value == 0.0 { 0.0 } else { range / value };
    let index = |share: f32, bins: usize| ((share * bins as f32) as usize).min(bins - 1);
    (index(hue / 6.0, HUE_BINS) * SATURATION_BINS + index(saturation, SATURATION_BINS)) * VALUE_BINS
        + index(value / 255.0, VALUE_BINS)
}

/// A classifier that returns the class of the nearest training histogram.
#[derive(Clone, Debug, Default)]
pub struct NearestNeighbour {
    examples: Vec<(String, ColourHistogram)>,
}

impl NearestNeighbour {
    /// Creates a classifier from training examples: class and histogram.
    pub fn new(examples: Vec<(String, ColourHistogram)>) -> Self {
        Self { examples }
    }

    /// The class of the nearest example whose class `allowed` accepts, or `None` if there is no such example. Of
    /// equally near examples, the first wins. Allow all classes for the open world, a row's options for the closed
    /// world.
    pub fn classify(&self, histogram: &ColourHistogram, allowed: impl Fn(&str) -> bool) -> Option<&str> {
        let candidates = self.examples.iter().filter(|(class, _)| allowed(class));
        candidates
            .min_by(|(_, a), (_, b)| histogram.distance(a).total_cmp(&histogram.distance(b)))
            .map(|(class, _)| class.as_str())
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn plain(colour: [u8; 3]) -> RgbImage {
        RgbImage::from_pixel(100, 60, Rgb(colour))
    }

    #[test]
    fn colours_fall_into_their_bins() {
        let at = |hue: usize, saturation: usize, value: usize| (hue * 4 + saturation) * 4 + value;
        for (colour, expected) in [
            ([255, 0, 0], at(0, 3, 3)),
            ([255, 255, 0], at(2, 3, 3)),
            ([0, 255, 0], at(4, 3, 3)),
            ([0, 255, 255], at(6, 3, 3)),
            ([0, 0, 255], at(8, 3, 3)),
            ([255, 0, 255], at(10, 3, 3)),
            ([255, 0, 1], at(11, 3, 3)),
            ([0, 0, 0], at(0, 0, 0)),
            ([255, 255, 255], at(0, 0, 3)),
            ([100, 90, 90], at(0, 0, 1)),
        ] {
            let histogram = ColourHistogram::of(&plain(colour));
            assert_eq!(histogram.values[expected], 1.0, "{colour:?}");
            assert_eq!(histogram.values.iter().sum::<f32>(), 1.0);
        }
        assert_eq!(ColourHistogram::of(&RgbImage::new(0, 0)).values, [0.0; BINS]);
    }

    #[test]
    fn distances_are_those_of_root_shares() {
        // Of the thumbnail's own size, so that resizing mixes no colours.
        let mut half = RgbImage::from_pixel(48, 48, Rgb([255, 0, 0]));
        for pixel in half.pixels_mut().take(48 * 24) {
            *pixel = Rgb([0, 0, 255]);
        }
        let [red, blue, half] = [&plain([255, 0, 0]), &plain([0, 0, 255]), &half].map(ColourHistogram::of);
        assert_eq!(red.distance(&red), 0.0);
        assert_eq!(red.distance(&blue), 2.0);
        // Between (1, 0) and (√½, √½): 2 − √2.
        let expected = 2.0 - 2.0f32.sqrt();
        assert!((red.distance(&half) - expected).abs() < 1e-5);
        let squares: f32 = half.values.iter().map(|value| value * value).sum();
        assert!((squares - 1.0).abs() < 1e-5);
    }

    #[test]
    fn the_nearest_allowed_class_wins() {
        let [red, orange, blue] =
            [[255, 0, 0], [255, 140, 0], [0, 0, 255]].map(|colour| ColourHistogram::of(&plain(colour)));
        let nearest = NearestNeighbour::new(vec![
            ("Tomato".into(), red.clone()),
            ("Orange".into(), orange),
            ("Plum".into(), blue),
        ]);
        assert_eq!(nearest.classify(&red, |_| true), Some("Tomato"));
        assert_eq!(nearest.classify(&red, |class| class == "Plum"), Some("Plum"));
        assert_eq!(nearest.classify(&red, |class| class != "Tomato"), Some("Orange"));
        assert_eq!(nearest.classify(&red, |_| false), None);
    }
}
