//! The normal form of a text: two texts that a reader takes for the same have the same one. White space is Python's
//! (`str.split`, `str.strip`).

use unicode_normalization::UnicodeNormalization;

const OPEN: &str = "<answer>";
const CLOSE: &str = "</answer>";

/// Returns true for Python's white space (`str.isspace`): Unicode white space and the separators U+001C to U+001F.
pub fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The text in Unicode's composed form (NFC), the only one that a model can write: its tokenizer composes every text.
///
/// ```
/// assert_eq!(fieldmark_data::nfc("Jalapen\u{303}o"), "Jalape\u{f1}o");
/// ```
pub fn nfc(text: &str) -> String {
    text.nfc().collect()
}

/// The text with one character for all that a reader takes for the same: in Unicode NFC, without characters that nobody
/// sees, and with one kind of apostrophe, double quote and hyphen. Case, blanks and tags stay.
///
/// ```
/// assert_eq!(fieldmark_data::plain_text("Cook\u{2019}s F\u{2011}16\u{200b}"), "Cook's F-16");
/// ```
pub fn plain_text(text: &str) -> String {
    text.chars().filter(|&c| !is_unseen(c)).nfc().map(plain_mark).nfc().collect()
}

/// The normal form of a text, in which answers, truths, options and aliases are compared. Two texts with the same
/// normal form are the same name.
///
/// - The characters of [`plain_text`]: "é" is one character however it was typed, there is one apostrophe, one double quote
///   and one hyphen, and a zero-width space, a soft hyphen or a byte order mark is gone.
/// - Lower case.
/// - One blank for each run of white space and `_`; none at the ends and around `<`, `>` and `/`.
/// - No tags around it: of `<answer>Lime</answer>` only "lime" stays, also if one of the tags is missing or a think
///   block comes first.
///
/// The normal form of a normal form is itself.
///
/// ```
/// use fieldmark_data::normal_form;
/// assert_eq!(normal_form(" Black_Footed  Albatross\n"), "black footed albatross");
/// assert_eq!(normal_form("F\u{2011}16A / B"), "f-16a/b");
/// assert_eq!(normal_form("<answer> Cook\u{2019}s Petrel </answer>"), "cook's petrel");
/// ```
pub fn normal_form(text: &str) -> String {
    // A removed tag or blank can bring together what is then a tag or one character. Every further pass only shortens.
    let mut form = pass(text);
    loop {
        let next = pass(&form);
        if next == form {
            return form;
        }
        form = next;
    }
}

fn pass(text: &str) -> String {
    nfc(without_tags(&prose_form(text)))
}

/// The form in which a name in its [`normal_form`] is found in a longer text: the same, except that tags stay, and with
/// them a think block.
pub(crate) fn prose_form(text: &str) -> String {
    tight(&nfc(&plain_text(text).replace('_', " ").to_lowercase()))
}

/// Characters without width that change no letter. The two joiners do change letters in some scripts, so they stay.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{fe0f}' | '\u{feff}')
}

/// One character for all that mean the same mark.
fn plain_mark(c: char) -> char {
    match c {
        '`'
        | '\u{b4}'
        | '\u{2b9}'..='\u{2bd}'
        | '\u{2c8}'
        | '\u{2018}'..='\u{201b}'
        | '\u{2032}'
        | '\u{2035}'
        | '\u{2039}'
        | '\u{203a}'
        | '\u{ff07}' => '\'',
        '\u{ab}' | '\u{bb}' | '\u{201c}'..='\u{201f}' | '\u{2033}' | '\u{2036}' | '\u{ff02}' => '"',
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{2043}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}' => '-',
        other => other,
    }
}

/// One blank for each run of white space; none at the ends and around `<`, `>` and `/`.
fn tight(text: &str) -> String {
    let words = text.split(is_python_space).filter(|word| !word.is_empty());
    let mut out = words.collect::<Vec<_>>().join(" ");
    for mark in ["<", ">", "/"] {
        out = out.replace(&format!(" {mark}"), mark).replace(&format!("{mark} "), mark);
    }
    out
}

/// The inside of the only answer block that ends a text; otherwise the text without answer tags at its ends.
fn without_tags(text: &str) -> &str {
    if let Some((_, rest)) = text.split_once(OPEN)
        && let Some(inside) = rest.strip_suffix(CLOSE)
        && !inside.contains(OPEN)
        && !inside.contains(CLOSE)
    {
        return inside;
    }
    let start = text.strip_prefix(OPEN).or_else(|| text.strip_prefix(CLOSE)).unwrap_or(text);
    start.strip_suffix(CLOSE).or_else(|| start.strip_suffix(OPEN)).unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_form_of_each_text() {
        for (text, form) in [
            ("Lime\n", "lime"),
            ("\u{feff}\u{3000}Lime\u{200b}", "lime"),
            ("Jalapen\u{303}o", "jalape\u{f1}o"),
            ("JALAPEN\u{303}O", "jalape\u{f1}o"),
            ("Cook\u{2019}s \u{2018}Petrel\u{2019}", "cook's 'petrel'"),
            ("\u{201c}Lime\u{201d} \u{ab}x\u{bb}", "\"lime\" \"x\""),
            ("F\u{2013}16\u{2212}A\u{2010}B\u{2011}C\u{2014}D-E", "f-16-a-b-c-d-e"),
            ("soft\u{ad}hyphen", "softhyphen"),
            ("42 / 72", "42/72"),
            ("a < b", "a<b"),
            ("a\u{1d}b", "a b"),
            ("Black_Footed  Albatross", "black footed albatross"),
            ("_", ""),
            ("<answer>Lime</answer>", "lime"),
            (" < Answer >\nLime </ answer > ", "lime"),
            ("<answer>Lime", "lime"),
            ("Lime</answer>", "lime"),
            ("<answer><answer>Lime</answer></answer>", "lime"),
            ("<think>green</think>\n<answer>Lime</answer>", "lime"),
            ("<answer></answer>", ""),
            ("the <answer> tag", "the<answer>tag"),
            ("\u{212a}elvin", "kelvin"),
            ("\u{9752}\u{67e0}", "\u{9752}\u{67e0}"),
        ] {
            assert_eq!(normal_form(text), form, "{text:?}");
        }
        for (a, b) in [("ab", "a b"), ("a-b", "a b"), ("e", "\u{e9}"), ("cooks", "cook's")] {
            assert_ne!(normal_form(a), normal_form(b));
        }
    }

    /// Texts made of the pieces that the normal form changes, and of any character.
    fn texts() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "<",
            ">",
            "/",
            " ",
            "_",
            "answer",
            "<answer>",
            "</answer>",
            "<think>",
            "</think>",
            "\u{338}",
            "\u{301}",
            "\u{316}",
            "\u{130}",
            "\u{3a3}",
            "\u{1fef}",
            "\u{2019}",
            "\u{2011}",
            "\u{200b}",
            "\u{1c}",
            "Lime",
            "e",
            "\u{1100}",
            "\u{1161}",
            "\u{e40}",
            "\u{2126}",
            "J",
            "\u{30c}",
        ]);
        let piece = prop_oneof![3 => pieces.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)];
        prop::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn a_normal_form_is_its_own(text in texts()) {
            let form = normal_form(&text);
            prop_assert_eq!(normal_form(&form), form);
        }

        #[test]
        fn what_a_reader_does_not_see_makes_no_difference(text in texts()) {
            let form = normal_form(&text);
            let decomposed: String = text.chars().filter(|&c| !is_unseen(c)).nfd().collect();
            prop_assert_eq!(normal_form(&decomposed), form.as_str());
            prop_assert_eq!(normal_form(&format!(" \u{feff}{text}\n")), form);
        }
    }
}
