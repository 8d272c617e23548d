//! Finds out whether a sentence that contains a name denies it: "It isn't a Robin", "a Lemon rather than a Lime".
//!
//! A rule of words, not of grammar: it looks at a few words before and after the name, within the clause. A clause ends
//! at a mark such as `. , ; : ! ?`, at a bracket or dash, and at a word such as "but" or "sondern". All texts are in the
//! normal form, so that words are in lower case and have one kind of apostrophe.

use std::ops::Range;

use fieldmark_data::is_python_space;

/// Words that deny the name after them: English, then German, French, Spanish and Portuguese. Every word that ends in `n't`
/// does so too.
const DENYING: [&str; 33] = [
    "not",
    "no",
    "never",
    "neither",
    "nor",
    "without",
    "cannot",
    "unlike",
    "exclude",
    "excluded",
    "excluding",
    "excludes",
    "eliminate",
    "eliminated",
    "eliminates",
    "reject",
    "rejected",
    "rejects",
    "dismissed",
    "discarded",
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
    "não",
];

/// Two words that deny the name after them.
const DENYING_PAIRS: [[&str; 2]; 12] = [
    ["rather", "than"],
    ["instead", "of"],
    ["other", "than"],
    ["opposed", "to"],
    ["apart", "from"],
    ["different", "from"],
    ["far", "from"],
    ["rule", "out"],
    ["ruled", "out"],
    ["rules", "out"],
    ["ruling", "out"],
    ["statt", "einer"],
];

/// Words after a denying word, an article between them or not, with which it denies nothing: "not only a Lime", "without a
/// doubt a Lime".
const HARMLESS: [&str; 9] = ["only", "just", "merely", "simply", "sure", "certain", "doubt", "question", "less"];

/// Words that begin a clause in which an earlier denial no longer counts: English, German, French, Spanish and Portuguese,
/// Italian, Dutch.
const CLAUSE: [&str; 17] = [
    "but",
    "however",
    "so",
    "therefore",
    "thus",
    "hence",
    "leaving",
    "sondern",
    "aber",
    "mais",
    "sino",
    "pero",
    "mas",
    "ma",
    "bensì",
    "maar",
    "donc",
];

/// Number of words that may stand between a denying word and the name: "isn't really the common Lime". As many may stand
/// before an "or" among them: "not a Royal Gala or a Pink Lady".
const REACH: usize = 4;

/// What denies the name before it, with nothing between: "A Lime it is not".
const DENIED_AFTER: [&[&str]; 2] = [&["it", "is", "not"], &["it", "isn't"]];

/// Words between a name and what is said of it.
const LINKING: [&str; 30] = [
    "is",
    "was",
    "are",
    "were",
    "be",
    "been",
    "being",
    "can",
    "could",
    "may",
    "might",
    "must",
    "should",
    "would",
    "has",
    "have",
    "had",
    "does",
    "did",
    "do",
    "also",
    "thus",
    "therefore",
    "clearly",
    "definitely",
    "quite",
    "really",
    "the",
    "a",
    "an",
];

/// What is said of the name before it to reject it: "was eliminated", "is the wrong answer".
const REJECTING: [&str; 10] = [
    "excluded",
    "eliminated",
    "rejected",
    "dismissed",
    "discarded",
    "incorrect",
    "wrong",
    "impossible",
    "improbable",
    "unlikely",
];

/// What is denied of the name before it to reject it: "is not the correct answer", "doesn't fit".
const CONFIRMING: [&str; 16] = [
    "it",
    "correct",
    "right",
    "answer",
    "fit",
    "fitting",
    "match",
    "matching",
    "true",
    "possible",
    "likely",
    "plausible",
    "case",
    "option",
    "shown",
    "depicted",
];

/// Denials of scripts without blanks that stand before the name, with at most [`NEAR`] characters between. Chinese and Thai.
const NEAR_BEFORE: [&str; 18] = [
    "不是",
    "不可能是",
    "不太可能是",
    "不會是",
    "不会是",
    "不該是",
    "不该是",
    "并非",
    "並非",
    "而非",
    "绝非",
    "絕非",
    "不像",
    "没有",
    "沒有",
    "排除了",
    "排除",
    "ไม่ใช่",
];

/// Denials of scripts without blanks that stand right before the name: 非 is also the beginning of 非常, "very".
const RIGHT_BEFORE: [&str; 1] = ["非"];

/// Denials that stand right after the name. Japanese, Chinese and Korean.
const NEAR_AFTER: [&str; 21] = [
    "ではない",
    "じゃない",
    "でない",
    "ではありません",
    "じゃありません",
    "ではなく",
    "じゃなく",
    "とは違う",
    "とは違い",
    "とは異なる",
    "とは異なり",
    "とは言えない",
    "とは思えない",
    "には見えない",
    "被排除",
    "不符合",
    "不对",
    "이 아니",
    "가 아니",
    "은 아니",
    "는 아니",
];

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
        '-' => is_dash(&text[..at], &text[at + 1..]),
        '|' | '\u{2192}' | '\u{21d2}' => true,
        ';' | '!' | '?' | '(' | ')' | '[' | ']' | '\u{3001}' | '\u{3002}' => true,
        '\u{ff01}' | '\u{ff08}' | '\u{ff09}' | '\u{ff0c}' | '\u{ff1a}' | '\u{ff1b}' | '\u{ff1f}' => true,
        _ => false,
    }
}

/// Whether a hyphen between these texts is a dash, which has the same normal form: it has blanks around it, or what follows
/// begins a sentence.
fn is_dash(before: &str, after: &str) -> bool {
    let word = after.split(|c: char| !(c.is_alphanumeric() || c == '\'')).next().unwrap_or_default();
    before.ends_with(' ') && after.starts_with(' ') || ["it", "it's", "this", "that's", "these"].contains(&word)
}

fn clause_before(text: &str) -> &str {
    let mut from = 0;
    for (at, c) in text.char_indices() {
        if is_end(text, at, c) {
            from = at + c.len_utf8();
        }
    }
    let clause = &text[from..];
    let breaks = CLAUSE.iter().filter_map(|word| Some(clause.rfind(&alone(word))? + 1 + word.len()));
    &clause[breaks.max().unwrap_or(0)..]
}

fn clause_after(text: &str) -> &str {
    let end = text.char_indices().find(|&(at, c)| is_end(text, at, c)).map_or(text.len(), |(at, _)| at);
    let clause = &text[..end];
    let breaks = CLAUSE.iter().filter_map(|word| Some(clause.find(&alone(word))? + 1));
    &clause[..breaks.min().unwrap_or(clause.len())]
}

/// A word with blanks around it.
fn alone(word: &str) -> String {
    format!(" {word} ")
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
    let harmless = |next: usize| {
        let next = next + usize::from(matches!(words.get(next), Some(&("a" | "any"))));
        words.get(next).is_some_and(|word| HARMLESS.contains(word))
    };
    (far..words.len()).any(|place| {
        let word = words[place];
        let alone = (DENYING.contains(&word) || word.ends_with("n't")) && !harmless(place + 1);
        let pair = words.get(place + 1).is_some_and(|next| DENYING_PAIRS.contains(&[word, next]));
        let none_other = word == "other" && place > 0 && words[place - 1] == "none";
        alone || pair && !none_other
    })
}

fn denied_after(clause: &str) -> bool {
    let words = words(clause);
    if DENIED_AFTER.iter().any(|denial| words.starts_with(denial)) {
        return true;
    }
    let mut said = words.iter().copied();
    let mut denied = false;
    let mut linked = false;
    loop {
        match said.next() {
            Some("not" | "never" | "cannot") => denied = true,
            Some(word) if word.ends_with("n't") => denied = true,
            Some(word) if LINKING.contains(&word) => linked = true,
            Some("ruled") => return !denied && said.next() == Some("out"),
            Some(word) if denied => return CONFIRMING.contains(&word),
            Some(word) => return linked && REJECTING.contains(&word),
            None => return false,
        }
    }
}

fn denied_near(before: &str, after: &str) -> bool {
    let near = NEAR_BEFORE.iter().any(|denial| {
        let between = before.rfind(denial).map(|at| &before[at + denial.len()..]);
        between.is_some_and(|between| between.chars().count() <= NEAR && !between.contains('是'))
    });
    let right_before = RIGHT_BEFORE.iter().any(|denial| before.ends_with(denial));
    near || right_before || NEAR_AFTER.iter().any(|denial| after.starts_with(denial))
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
            // A denial ends with its clause, and reaches no name behind it.
            ("It's not a Lemon\u{2014}it's a Lime", "Lime", false),
            ("It's not a Lemon\u{2014}it's a Lime", "Lemon", true),
            ("Not Lemon \u{2013} Lime", "Lime", false),
            ("Not Lemon - Lime", "Lime", false),
            ("not Lemon | Lime", "Lime", false),
            ("not Lemon \u{2192} Lime", "Lime", false),
            ("I rejected Lemon so Lime it is", "Lime", false),
            ("not a Lemon-Lime", "Lemon-Lime", true),
            ("nicht Zitrone sondern Limette", "Limette", false),
            ("nicht Zitrone sondern Limette", "Zitrone", true),
            ("no es un limón sino una lima", "lima", false),
            ("pas un citron mais une lime", "lime", false),
            ("pas un citron mais une lime", "citron", true),
            ("without a doubt a Lime", "Lime", false),
            ("without any doubt a Lime", "Lime", false),
            ("This is none other than a Lime", "Lime", false),
            // What is said of a name can reject it.
            ("Lime is not the correct answer", "Lime", true),
            ("Lime isn't the right answer", "Lime", true),
            ("Lime was ruled out", "Lime", true),
            ("Lime has been ruled out", "Lime", true),
            ("Lime cannot be ruled out", "Lime", false),
            ("Lime was not ruled out", "Lime", false),
            ("Lime can be eliminated", "Lime", true),
            ("I excluded Lime", "Lime", true),
            ("Lime does not fit", "Lime", true),
            ("Lime doesn't match", "Lime", true),
            ("Lime is the wrong answer", "Lime", true),
            ("Lime is the answer", "Lime", false),
            ("Lime is a fruit", "Lime", false),
            ("The Lime does not look ripe", "Lime", false),
            ("这不可能是青柠", "青柠", true),
            ("並非青柠", "青柠", true),
            ("非青柠", "青柠", true),
            ("非常像青柠", "青柠", false),
            ("ライムとは違う", "ライム", true),
            ("라임이 아니다", "라임", true),
            ("라임입니다", "라임", false),
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
