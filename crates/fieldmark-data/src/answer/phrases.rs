//! Where a text contains a phrase between the bounds of words, in any script.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// Returns the ranges where `text` contains `phrase` between the bounds of words.
///
/// Between two letters or digits of a script with blanks there is no bound: "collies" does not contain "collie". In
/// scripts that are written without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese) there is one between any two
/// characters, so that a name counts where it is contained; only a run of katakana is one word. Korean has blanks, but
/// writes particles at the end of a word: "라임입니다" (it is a lime) contains "라임". The bounds are those of Unicode's
/// annex 29, for each pair of neighbours alone.
pub fn occurrences(text: &str, phrase: &str) -> Vec<Range<usize>> {
    if phrase.is_empty() {
        return Vec::new();
    }
    let starts = text.char_indices().map(|(start, _)| start).filter(|&start| text[start..].starts_with(phrase));
    let ranges = starts.map(|start| start..start + phrase.len());
    ranges.filter(|range| is_bound(text, range.start) && ends(text, range.end)).collect()
}

/// What Korean writes at the end of a name: particles, the forms of "to be", and "such as".
const PARTICLES: [&str; 46] = [
    "은",
    "는",
    "이",
    "가",
    "을",
    "를",
    "의",
    "에",
    "에서",
    "와",
    "과",
    "랑",
    "이랑",
    "도",
    "만",
    "로",
    "으로",
    "처럼",
    "보다",
    "이나",
    "나",
    "라고",
    "이라고",
    "라는",
    "이라는",
    "라서",
    "이라서",
    "다",
    "이다",
    "이야",
    "야",
    "예요",
    "이에요",
    "에요",
    "네요",
    "이네요",
    "입니다",
    "이고",
    "이며",
    "인",
    "인데",
    "일",
    "이죠",
    "이지만",
    "이었습니다",
    "였습니다",
];

/// Whether a name may end at this place: at a bound, or before a Korean particle that ends the word.
fn ends(text: &str, at: usize) -> bool {
    let end = text[at..].find(|c: char| !c.is_alphanumeric()).map_or(text.len(), |length| at + length);
    is_bound(text, at) || PARTICLES.contains(&&text[at..end])
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
            // Korean: a lime with particles, in Hangul and Latin; a longer word that begins in the same way.
            ("라임은 라임을 라임입니다. 라임", "라임", &[0, 10, 20, 37]),
            ("이것은 lime이다", "lime", &[10]),
            ("라임나무 라임스톤", "라임", &[]),
            // Greek and Cyrillic have blanks.
            ("\u{43b}\u{438}\u{43f}\u{430} \u{43b}\u{438}\u{43f}", "\u{43b}\u{438}\u{43f}", &[9]),
        ] {
            let found = occurrences(text, phrase);
            assert!(found.iter().all(|range| &text[range.clone()] == phrase));
            let starts: Vec<usize> = found.iter().map(|range| range.start).collect();
            assert_eq!(starts, expected, "{text}");
        }
    }
}
