//! Text rules: Python's `str.strip`, `str.split` and `str.lower` as the released scorer uses them, and the strict
//! normal form in which answer and truth are compared on equal terms.

use std::ops::Range;

/// What Python's `str.isspace` admits: Unicode white space and the four separators U+001C to U+001F.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_python_space)
}

/// Python's `str.split()`.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_python_space).filter(|word| !word.is_empty())
}

/// The strict normal form: lower case, `_` and runs of white space one blank, none around `<`, `>` and `/`, none outside.
pub(crate) fn normalise(text: &str) -> String {
    let lower = text.to_lowercase().replace('_', " ");
    let joined = words(&lower).collect::<Vec<_>>().join(" ");
    let mut out = joined;
    for mark in ["<", ">", "/"] {
        out = out.replace(&format!(" {mark}"), mark).replace(&format!("{mark} "), mark);
    }
    out
}

/// Where `phrase` stands in `text` as a whole: neither preceded nor followed by a letter or digit.
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
    fn both_sides_meet_in_the_normal_form() {
        for (a, b) in [
            ("42 / 72", "42/72"),
            ("F-16A /B", "f-16a/b"),
            ("Black_Footed  Albatross\n", " black footed albatross"),
            ("a < b", "A<B"),
        ] {
            assert_eq!(normalise(a), normalise(b));
        }
        assert_eq!(normalise("_"), "");
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
