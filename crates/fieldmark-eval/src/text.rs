//! Text rules: Python's `str.strip` and `str.split`, which the released scorer uses, and the search for whole phrases.
//! The strict rules compare texts in the normal form that the rewards use too (`fieldmark_data::normal_form`).

use std::ops::Range;

use fieldmark_data::is_python_space;
pub(crate) use fieldmark_data::normal_form as normalise;

/// Python's `str.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_python_space)
}

/// Python's `str.split()`.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_python_space).filter(|word| !word.is_empty())
}

/// Returns the ranges where `text` contains `phrase` with no letter or digit directly before or after it.
pub(crate) fn occurrences(text: &str, phrase: &str) -> Vec<Range<usize>> {
    if phrase.is_empty() {
        return Vec::new();
    }
    let starts = text.char_indices().map(|(start, _)| start).filter(|&start| text[start..].starts_with(phrase));
    starts
        .map(|start| start..start + phrase.len())
        .filter(|range| {
            let before = text[..range.start].chars().next_back();
            let after = text[range.end..].chars().next();
            !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_pythons() {
        assert_eq!(strip("\u{1c}\u{a0} a b\u{1f}\n\u{3000}"), "a b");
        assert_eq!(strip("\u{200b}a"), "\u{200b}a");
        assert_eq!(words(" a\u{1d}b \t c").collect::<Vec<_>>(), ["a", "b", "c"]);
    }

    #[test]
    fn phrases_stand_alone() {
        for (text, phrase, expected) in [
            ("border collie, collie", "collie", &[7, 15][..]),
            ("primrose rose's rose1 éroseé", "rose", &[9]),
            ("x-x-x", "x-x", &[0, 2]),
            ("aa a", "", &[]),
        ] {
            let found = occurrences(text, phrase);
            assert!(found.iter().all(|range| &text[range.clone()] == phrase));
            let starts: Vec<usize> = found.iter().map(|range| range.start).collect();
            assert_eq!(starts, expected, "{text}");
        }
    }
}
