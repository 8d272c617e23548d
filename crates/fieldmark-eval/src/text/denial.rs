//! Finds out whether a sentence that contains a name denies it: "It isn't a Robin", "a Lemon rather than a Lime".
//!
//! A rule of words, not of grammar: it looks at a few words before and after the name, within the clause. A clause ends
//! at `. , ; : ! ?`, at a bracket and at "but". All texts are in the normal form, so that words are in lower case and
//! have one kind of apostrophe.

use std::ops::Range;

use fieldmark_data::is_python_space;

/// Words that deny the name after them: English, then German, French, Spanish and Portuguese. Every word that ends in `n't`
/// does so too.
const DENYING: [&str; 24] = [
    "not",
    "no",
    "never",
    "neither",
    "nor",
    "without",
    "cannot",
    "unlike",
    "excluding",
    "excludes",
    "except",
    "non",
    "isnt",
    "hardly",
    "scarcely",
    "unlikely",
    "nicht",
    "kein",
    "keine",
    "keinen",
    "pas",
    "nunca",
    "jamais",
    "não",
];

/// Two words that deny the name after them.
const DENYING_PAIRS: [[&str; 2]; 10] = [
    ["rather", "than"],
    ["instead", "of"],
    ["other", "than"],
    ["opposed", "to"],
    ["apart", "from"],
    ["different", "from"],
    ["far", "from"],
    ["ruled", "out"],
    ["rules", "out"],
    ["ruling", "out"],
];

/// Words after a denying word with which it denies nothing: "not only a Lime", "no doubt a Lime".
const HARMLESS: [&str; 9] = ["only", "just", "merely", "simply", "sure", "certain", "doubt", "question", "less"];

/// Number of words that may stand between a denying word and the name: "isn't really the common Lime". As many may stand
/// before an "or" among them: "not a Royal Gala or a Pink Lady".
const REACH: usize = 4;

/// What denies the name before it.
const DENIED_AFTER: [&[&str]; 15] = [
    &["is", "not", "it"],
    &["is", "not", "correct"],
    &["is", "not", "right"],
    &["is", "not", "the", "answer"],
    &["isn't", "it"],
    &["isn't", "correct"],
    &["isn't", "right"],
    &["it", "is", "not"],
    &["it", "isn't"],
    &["is", "wrong"],
    &["is", "incorrect"],
    &["is", "ruled", "out"],
    &["can", "be", "ruled", "out"],
    &["can", "be", "excluded"],
    &["is", "excluded"],
];

/// Denials of scripts without blanks that stand right before the name, with at most [`NEAR`] characters between.
/// Chinese and Thai.
const NEAR_BEFORE: [&str; 7] = ["不是", "并非", "而非", "绝非", "不像", "没有", "ไม่ใช่"];

/// Denials of scripts without blanks that stand right after the name. Japanese.
const NEAR_AFTER: [&str; 7] =
    ["ではない", "じゃない", "でない", "ではありません", "じゃありません", "ではなく", "じゃなく"];

/// "不是一只" and the name.
const NEAR: usize = 3;

/// Whether the clause of the name at `range` of `text` denies it.
pub(crate) fn is_denied(text: &str, range: &Range<usize>) -> bool {
    let (before, after) = (clause_before(&text[..range.start]), clause_after(&text[range.end..]));
    denied_before(before) || denied_after(after) || denied_near(before, after)
}

/// Whether the text may be cut after this character, at byte `at`. A full stop inside a number or a word does not end a clause.
fn is_end(text: &str, at: usize, c: char) -> bool {
    match c {
        '.' | ',' | ':' => !text[at + 1..].starts_with(char::is_alphanumeric),
        ';' | '!' | '?' | '(' | ')' | '[' | ']' | '\u{3001}' | '\u{3002}' => true,
        '\u{ff01}' | '\u{ff08}' | '\u{ff09}' | '\u{ff0c}' | '\u{ff1a}' | '\u{ff1b}' | '\u{ff1f}' => true,
        _ => false,
    }
}

fn clause_before(text: &str) -> &str {
    let mut from = 0;
    for (at, c) in text.char_indices() {
        if is_end(text, at, c) {
            from = at + c.len_utf8();
        }
    }
    let clause = &text[from..];
    clause.rsplit_once(" but ").map_or(clause, |(_, clause)| clause)
}

fn clause_after(text: &str) -> &str {
    let end = text.char_indices().find(|&(at, c)| is_end(text, at, c)).map_or(text.len(), |(at, _)| at);
    let clause = &text[..end];
    clause.split_once(" but ").map_or(clause, |(clause, _)| clause)
}

/// The words of a text without the marks around them.
fn words(text: &str) -> Vec<&str> {
    let marks = |c: char| !c.is_alphanumeric();
    let words = text.split(is_python_space).map(|word| word.trim_matches(marks));
    words.filter(|word| !word.is_empty()).collect()
}

fn denied_before(clause: &str) -> bool {
    if clause.ends_with("non-") {
        return true;
    }
    let words = words(clause);
    let mut far = words.len().saturating_sub(REACH + 1);
    while let Some(or) = (far..words.len()).find(|&place| words[place] == "or") {
        let further = or.saturating_sub(REACH + 1);
        if further >= far {
            break;
        }
        far = further;
    }
    let harmless = |next: usize| words.get(next).is_some_and(|word| HARMLESS.contains(word));
    (far..words.len()).any(|place| {
        let word = words[place];
        let alone = (DENYING.contains(&word) || word.ends_with("n't")) && !harmless(place + 1);
        let pair = words.get(place + 1).is_some_and(|next| DENYING_PAIRS.contains(&[word, next]));
        alone || pair
    })
}

fn denied_after(clause: &str) -> bool {
    let words = words(clause);
    DENIED_AFTER.iter().any(|denial| words.starts_with(denial))
}

fn denied_near(before: &str, after: &str) -> bool {
    let near = NEAR_BEFORE.iter().any(|denial| {
        let between = before.rfind(denial).map(|at| &before[at + denial.len()..]);
        between.is_some_and(|between| between.chars().count() <= NEAR && !between.contains('是'))
    });
    near || NEAR_AFTER.iter().any(|denial| after.starts_with(denial))
}

#[cfg(test)]
mod tests {
    use fieldmark_data::normal_form;

    use super::*;
    use crate::text::occurrences;

    #[test]
    fn sentences_that_deny_and_sentences_that_do_not() {
        for (sentence, name, denied) in [
            ("not a Lime", "Lime", true),
            ("It isn't a Robin.", "Robin", true),
            ("It isn\u{2019}t a Robin", "Robin", true),
            ("This is not really the common Lime", "Lime", true),
            ("a Lemon rather than a Lime", "Lime", true),
            ("a Lemon rather than a Lime", "Lemon", false),
            ("a Lemon instead of Lime", "Lime", true),
            ("no Lime", "Lime", true),
            ("neither Lime nor Lemon", "Lime", true),
            ("It is not a Royal Gala or a Pink Lady", "Pink Lady", true),
            ("not a Fig or a Royal Gala or a Pink Lady", "Pink Lady", true),
            ("a Royal Gala or a Pink Lady", "Pink Lady", false),
            ("It is unlikely to be a Lime", "Lime", true),
            ("The colour rules out Lime", "Lime", true),
            ("neither Lime nor Lemon", "Lemon", true),
            ("a non-Lime", "Lime", true),
            ("anything other than Lime", "Lime", true),
            ("It doesn't look like a Lime", "Lime", true),
            ("It cannot be a Lime", "Lime", true),
            ("not Lime but Lemon", "Lime", true),
            ("not Lime but Lemon", "Lemon", false),
            ("It is not a Lime, it is a Lemon", "Lemon", false),
            ("It is a Lemon, not a Lime", "Lemon", false),
            ("It is a Lemon, not a Lime", "Lime", true),
            ("Not only a Lime", "Lime", false),
            ("No doubt a Lime", "Lime", false),
            ("I'm not sure, Lime", "Lime", false),
            ("Lime is ruled out", "Lime", true),
            ("Lime can be ruled out.", "Lime", true),
            ("Lime is wrong", "Lime", true),
            ("A Lime it is not", "Lime", true),
            ("The Lime is not ripe", "Lime", false),
            ("a Lime without leaves", "Lime", false),
            ("Forget-me-not", "Forget-me-not", false),
            ("a forget-me-not flower, no rose", "forget-me-not", false),
            ("No. 4 is a Lime", "Lime", false),
            ("It is a Lime", "Lime", false),
            ("Lime", "Lime", false),
            ("Das ist keine Limette", "Limette", true),
            ("ce n'est pas un citron", "citron", true),
            ("这不是柠檬，是青柠", "柠檬", true),
            ("这不是柠檬，是青柠", "青柠", false),
            ("这不是一只金毛犬", "金毛犬", true),
            ("不是柠檬而是青柠", "青柠", false),
            ("これは柴犬ではない", "柴犬", true),
            ("これは柴犬です", "柴犬", false),
            ("ไม่ใช่มะม่วง", "มะม่วง", true),
            ("คือมะม่วง", "มะม่วง", false),
        ] {
            let text = normal_form(sentence);
            let found = occurrences(&text, &normal_form(name));
            assert_eq!(found.len(), 1, "{sentence}: {name}");
            assert_eq!(is_denied(&text, &found[0]), denied, "{sentence}: {name}");
        }
    }
}
