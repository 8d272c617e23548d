//! Names the main colours of a photograph. In the demo's reasoning, these words are measured and not looked up.

use fieldmark_processor::Photo;

/// Colour names. In a tie, the first one wins.
pub(super) const NAMES: [&str; 9] = ["red", "orange", "yellow", "green", "blue", "purple", "brown", "white", "black"];

/// Returns the two colours that cover most of the middle of a photograph, the larger area first.
pub(super) fn main_colours(photo: &Photo) -> [&'static str; 2] {
    let (height, width) = (photo.height(), photo.width());
    let mut counts = [0usize; NAMES.len()];
    for y in (height / 6..height - height / 6).step_by(4) {
        for x in (width / 6..width - width / 6).step_by(4) {
            let at = 3 * (y * width + x);
            counts[name_of(&photo.rgb()[at..at + 3])] += 1;
        }
    }
    let mut order: Vec<usize> = (0..NAMES.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(counts[i]));
    [NAMES[order[0]], NAMES[order[1]]]
}

/// Returns the index in [`NAMES`] of a pixel's colour, from its hue, saturation and value.
fn name_of(rgb: &[u8]) -> usize {
    let [r, g, b] = [rgb[0], rgb[1], rgb[2]].map(|byte| f32::from(byte) / 255.0);
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let saturation = if max > 0.0 { (max - min) / max } else { 0.0 };
    if max < 0.2 {
        return 8;
    }
    if saturation < 0.2 {
        return if max > 0.6 { 7 } else { 8 };
    }
    let hue = 60.0
        * if max == r {
            ((g - b) / (max - min)).rem_euclid(6.0)
        } else if max == g {
            (b - r) / (max - min) + 2.0
        } else {
            (r - g) / (max - min) + 4.0
        };
    match hue {
        h if !(16.0..330.0).contains(&h) => 0,
        h if h < 42.0 => {
            if max < 0.6 {
                6
            } else {
                1
            }
        }
        h if h < 68.0 => 2,
        h if h < 165.0 => 3,
        h if h < 260.0 => 4,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_patches_have_their_names() {
        for (rgb, name) in [
            ([220, 30, 30], "red"),
            ([240, 140, 20], "orange"),
            ([240, 220, 40], "yellow"),
            ([60, 170, 50], "green"),
            ([110, 60, 20], "brown"),
            ([240, 240, 235], "white"),
            ([12, 12, 14], "black"),
            ([120, 40, 160], "purple"),
        ] {
            assert_eq!(NAMES[name_of(&rgb)], name, "{rgb:?}");
        }
    }

    #[test]
    fn the_larger_area_comes_first() {
        let mut rgb = [[60u8, 170, 50]; 60 * 60].concat();
        rgb[..3 * 60 * 22].chunks_mut(3).for_each(|pixel| pixel.copy_from_slice(&[220, 30, 30]));
        let photo = Photo::from_rgb("half", 60, 60, rgb).unwrap();
        assert_eq!(main_colours(&photo), ["green", "red"]);
    }
}
