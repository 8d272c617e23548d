//! Where a text contains a phrase between the bounds of words, in any script.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// Returns the ranges where `text` contains `phrase` between the bounds of words.
///
/// Between two letters or digits of a script with blanks there is no bound: "collies" does not contain "collie". In
/// scripts that are written without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese) there is one between any two
/// characters, so that a name counts where it is contained; only a run of katakana is one word. The bounds are those of
/// Unicode's annex 29, for each pair of neighbours alone.
pub fn occurrences(text: &str, phrase: &str) -> Vec<Range<usize>> {
    if phrase.is_empty() {
        return Vec::new();
    }
    let starts = text.char_indices().map(|(start, _)| start).filter(|&start| text[start..].starts_with(phrase));
    let ranges = starts.map(|start| start..start + phrase.len());
    ranges.filter(|range| is_bound(text, range.start) && is_bound(text, range.end)).collect()
}

/// Whether a word may begin or end at this place.
fn is_bound(text: &str, at: usize) -> bool {
    let (before, after) = (text[..at].chars().next_back(), text[at..].chars().next());
    let (Some(before), Some(after)) = (before, after) else { return true };
    String::from_iter([before, after]).split_word_bounds().nth(1).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_stand_alone() {
        for (text, phrase, expected) in [
            ("border collie, collie", "collie", &[7, 15][..]),
            ("primrose rose's rose1 éroseé", "rose", &[9]),
            ("x-x-x", "x-x", &[0, 2]),
            ("aa a", "", &[]),
            ("cafe\u{301} cafe", "cafe", &[7]),
            ("3lime lime3 lime.3", "lime", &[12]),
            // Chinese: this is a lime, not a lemon.
            ("\u{8fd9}\u{662f}\u{9752}\u{67e0}\u{3002}", "\u{9752}\u{67e0}", &[6]),
            ("lime\u{9752}\u{67e0}7", "\u{9752}\u{67e0}", &[4]),
            ("\u{662f}lime\u{3002}", "lime", &[3]),
            // Japanese: "this is a Shiba dog" in kanji and hiragana; a sparrow in katakana, and a house sparrow.
            ("\u{3053}\u{308c}\u{306f}\u{67f4}\u{72ac}\u{3067}\u{3059}", "\u{67f4}\u{72ac}", &[9]),
            ("\u{30b9}\u{30ba}\u{30e1}\u{3067}\u{3059}", "\u{30b9}\u{30ba}\u{30e1}", &[0]),
            ("\u{30a4}\u{30a8}\u{30b9}\u{30ba}\u{30e1}", "\u{30b9}\u{30ba}\u{30e1}", &[]),
            // Thai: "it is a mango".
            (
                "\u{e21}\u{e31}\u{e19}\u{e04}\u{e37}\u{e2d}\u{e21}\u{e30}\u{e21}\u{e48}\u{e27}\u{e07}",
                "\u{e21}\u{e30}\u{e21}\u{e48}\u{e27}\u{e07}",
                &[18],
            ),
            // Greek, Cyrillic and Korean have blanks.
            ("\u{43b}\u{438}\u{43f}\u{430} \u{43b}\u{438}\u{43f}", "\u{43b}\u{438}\u{43f}", &[9]),
        ] {
            let found = occurrences(text, phrase);
            assert!(found.iter().all(|range| &text[range.clone()] == phrase));
            let starts: Vec<usize> = found.iter().map(|range| range.start).collect();
            assert_eq!(starts, expected, "{text}");
        }
    }
}
