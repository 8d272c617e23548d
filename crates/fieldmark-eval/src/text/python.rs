//! Python's `str.strip` and `str.split`, which the released scorer uses.

use fieldmark_data::is_python_space;

/// Python's `str.strip()`.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_python_space)
}

/// Python's `str.split()`.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_python_space).filter(|word| !word.is_empty())
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
}
