//! Finds out whether an answer that contains a name denies it.
//!
//! A rule of words, not of grammar: it looks at a few words before and after the name, within its clause.
//!
//! | Answer | Names | Denies |
//! | --- | --- | --- |
//! | It isn't a Robin | | Robin |
//! | a Lemon rather than a Lime | | Lime |
//! | not a Lemon—it's a Lime | | Lemon |
//! | without a doubt a Lime | | |
//! | Lime is not the correct answer | | Lime |
//!
//! A clause ends at `. , ; : ! ? |`, at an arrow, a bracket and a dash (not a hyphen), and before a word such as "but" or
//! "sondern". A denial reaches the first known name after it, and those that "or" joins to it. The phrases are in
//! `phrases.rs`.

use std::ops::Range;

use fieldmark_data::{normal_form, occurrences};

use super::phrases::{
    AFTER, ASKING, BEFORE, CLAUSE, HARMLESS, JOINING, NEAR_AFTER, NEAR_BEFORE, NEAR_CLAUSE, NEAR_HARMLESS, OR, SUBJECT,
    found, starts_with, words,
};

/// Number of words that may stand between a denial and the name: "isn't really the common Lime". As many may stand
/// before an "or" among them: "not a Royal Gala or a Pink Lady".
const REACH: usize = 4;

/// Dashes that part clauses without blanks around them. The normal form writes them as hyphens, which join words.
const DASHES: [char; 3] = ['\u{2014}', '\u{2015}', '\u{fe58}'];

/// An answer, in which names are looked for.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The normal form.
    text: String,
    /// The same, with `;` for each dash that parts clauses. The bytes have the same places.
    clauses: String,
}

impl Answer {
    pub(crate) fn new(answer: &str) -> Self {
        let (text, clauses) = (normal_form(answer), normal_form(&answer.replace(DASHES, ";")));
        let clauses = if clauses.len() == text.len() { clauses } else { text.clone() };
        Self { text, clauses }
    }

    /// Where a name stands, whether it is denied or not.
    pub(crate) fn places(&self, name: &str) -> Vec<Range<usize>> {
        occurrences(&self.text, &normal_form(name))
    }

    /// Whether the clause of the name at `place` denies it. `names` are the places of all known names.
    pub(crate) fn denies(&self, place: &Range<usize>, names: &[Range<usize>]) -> bool {
        self.denies_before(place, names) || denied_after(&self.clauses[place.end..]).is_some()
    }

    fn denies_before(&self, place: &Range<usize>, names: &[Range<usize>]) -> bool {
        let before = &self.clauses[..place.start];
        let start = clause_start(before);
        let earlier = names.iter().filter(|name| name.end <= place.start && name.start >= start);
        let Some(earlier) = earlier.max_by_key(|name| name.end) else { return denied_before(&before[start..]) };
        let between = &before[earlier.end..];
        if is_joined(between) {
            return self.denies_before(earlier, names);
        }
        // What denies the earlier name denies no other.
        denied_before(&between[denied_after(between).unwrap_or(0)..])
    }
}

/// Whether only "or" or "and", and an article, stand between two names.
fn is_joined(between: &str) -> bool {
    let words = words(between);
    let joins = words.iter().all(|word| starts_with(&[word], &JOINING).is_some());
    joins && (words.first().is_some_and(|word| starts_with(&[word], &JOINING[..1]).is_some()) || between.trim() == "/")
}

/// Whether a clause ends with the character `c` at byte `at`. A full stop inside a number or a word does not end one.
fn is_end(text: &str, at: usize, c: char) -> bool {
    let after = &text[at + c.len_utf8()..];
    match c {
        '.' | ',' | ':' => !after.starts_with(char::is_alphanumeric),
        '-' => after.starts_with('-') || (after.starts_with(' ') && text[..at].ends_with(' ')),
        ';' | '!' | '?' | '|' | '>' | '(' | ')' | '[' | ']' | '\u{3001}' | '\u{3002}' => true,
        '\u{ff01}' | '\u{ff08}' | '\u{ff09}' | '\u{ff0c}' | '\u{ff1a}' | '\u{ff1b}' | '\u{ff1f}' | '\u{ff5c}' => true,
        '\u{2026}' | '\u{2190}'..='\u{21ff}' => true,
        _ => false,
    }
}

/// Where the clause begins that a text ends in.
fn clause_start(text: &str) -> usize {
    let ends = text.char_indices().filter(|&(at, c)| is_end(text, at, c)).map(|(at, c)| at + c.len_utf8());
    let near = NEAR_CLAUSE.iter().filter_map(|word| text.rfind(word).map(|at| at + word.len()));
    ends.chain(near).max().unwrap_or(0)
}

/// The clause that a text begins with.
fn clause_end(text: &str) -> &str {
    let end = text.char_indices().find(|&(at, c)| is_end(text, at, c)).map(|(at, _)| at);
    let near = NEAR_CLAUSE.iter().filter_map(|word| text.find(word));
    &text[..near.chain(end).min().unwrap_or(text.len())]
}

/// Whether a clause denies the name after it.
fn denied_before(clause: &str) -> bool {
    let words = words(clause);
    let (denials, harmless) = (found(&words, &BEFORE), found(&words, &HARMLESS));
    let inside = |at: usize, ranges: &[(usize, usize)]| ranges.iter().any(|&(from, to)| (from..to).contains(&at));
    // "anything but" denies, so that its "but" begins no clause.
    let clauses = found(&words, &CLAUSE).into_iter().filter(|&(at, _)| !inside(at, &denials));
    let start = clauses.map(|(_, end)| end).max().unwrap_or(0);
    let far = reach(&words[start..]) + start;
    let denies =
        |&(from, to): &(usize, usize)| from >= start && to > far && !(from..to).any(|at| inside(at, &harmless));
    denials.iter().any(denies) || denied_near(clause)
}

/// The first word that a name after `words` is in the reach of.
fn reach(words: &[&str]) -> usize {
    let mut far = words.len().saturating_sub(REACH + 1);
    while let Some(or) = (far..words.len()).find(|&at| starts_with(&words[at..], &OR).is_some()) {
        let further = or.saturating_sub(REACH + 1);
        if further >= far {
            break;
        }
        far = further;
    }
    far
}

/// Whether a text in a script without blanks denies the name right after it.
fn denied_near(clause: &str) -> bool {
    let is_harmless = |at: usize| {
        NEAR_HARMLESS
            .iter()
            .any(|phrase| clause.match_indices(phrase).any(|(from, _)| (from..from + phrase.len()).contains(&at)))
    };
    NEAR_BEFORE.iter().any(|(denial, most)| {
        clause.rfind(denial).is_some_and(|at| {
            let between = &clause[at + denial.len()..];
            between.chars().count() <= *most && !between.contains('是') && !is_harmless(at)
        })
    })
}

/// The end of the phrase at the start of a text that denies the name before it.
fn denied_after(text: &str) -> Option<usize> {
    let clause = clause_end(text);
    let rest = clause.trim_start_matches(SUBJECT).trim_start();
    let near = NEAR_AFTER.iter().find_map(|denial| rest.strip_prefix(denial));
    if let Some(rest) = near.filter(|rest| !ASKING.iter().any(|asking| rest.starts_with(asking))) {
        return Some(clause.len() - rest.len());
    }
    // A clause word right after the name belongs to what follows: "Lime rather than Lemon".
    let words = words(clause);
    starts_with(&words, &AFTER).map(|count| end_of_words(clause, count))
}

/// The end of the first blank-separated words of a text that make up `count` words, short forms written out.
fn end_of_words(text: &str, count: usize) -> usize {
    let ends = text.char_indices().filter(|(_, c)| *c == ' ').map(|(at, _)| at).chain([text.len()]);
    ends.into_iter().find(|&end| words(&text[..end]).len() >= count).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the answer denies every place of `name`, with `others` as further names.
    fn denied(answer: &str, name: &str, others: &[&str]) -> bool {
        let answer = Answer::new(answer);
        let places = answer.places(name);
        assert!(!places.is_empty(), "{name} in {answer:?}");
        let names: Vec<_> = others.iter().flat_map(|other| answer.places(other)).chain(places.clone()).collect();
        places.iter().all(|place| answer.denies(place, &names))
    }

    #[test]
    fn sentences_that_deny_and_sentences_that_do_not() {
        for (sentence, name, expected) in [
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
            assert_eq!(denied(sentence, name, &[]), expected, "{sentence}: {name}");
        }
    }

    #[test]
    fn a_denial_ends_with_its_clause_or_with_the_first_name() {
        for (answer, truth, other) in [
            ("not a Lemon\u{2014}it's a Lime", "Lime", "Lemon"),
            ("Not Lemon \u{2013} Lime", "Lime", "Lemon"),
            ("Not Lemon - Lime", "Lime", "Lemon"),
            ("not Lemon -- Lime", "Lime", "Lemon"),
            ("not Lemon | Lime", "Lime", "Lemon"),
            ("not Lemon \u{2192} Lime", "Lime", "Lemon"),
            ("not Lemon -> Lime", "Lime", "Lemon"),
            ("It's not a Lemon however it could be a Lime", "Lime", "Lemon"),
            ("not a Lemon instead a Lime", "Lime", "Lemon"),
            ("nicht Zitrone sondern Limette", "Limette", "Zitrone"),
            ("no es un limón sino una lima", "lima", "limón"),
            ("no un limón pero una lima", "lima", "limón"),
            ("pas un citron mais un citron vert", "citron vert", "citron"),
            ("это не лимон а лайм", "лайм", "лимон"),
            ("不是柠檬而是青柠", "青柠", "柠檬"),
            ("不是檸檬但可能是青檸", "青檸", "檸檬"),
            ("이것은 레몬이 아니라 라임입니다", "라임", "레몬"),
            ("これはレモンではなくライムです", "ライム", "レモン"),
        ] {
            // The other name need not be known.
            for others in [&[other][..], &[]] {
                assert!(!denied(answer, truth, others), "{answer}: {truth} {others:?}");
            }
            let longer = truth.contains(other);
            assert!(longer || denied(answer, other, &[truth]), "{answer}: {other}");
        }
        // Without a mark, the name that is known ends the denial.
        for (answer, truth, other) in [
            ("not a Lemon it's Lime", "Lime", "Lemon"),
            ("no Lemon Lime", "Lime", "Lemon"),
            ("Lemon was ruled out so Lime", "Lime", "Lemon"),
            ("Lemon is not the correct answer Lime is", "Lime", "Lemon"),
        ] {
            assert!(!denied(answer, truth, &[other]) && denied(answer, other, &[truth]), "{answer}");
        }
        assert!(denied("not a Lemon or a Lime", "Lime", &["Lemon"]));
        assert!(denied("neither Lemon nor Lime", "Lime", &["Lemon"]));
    }

    #[test]
    fn phrases_that_affirm() {
        for (answer, name) in [
            ("without a doubt a Lime", "Lime"),
            ("without any doubt, a Lime", "Lime"),
            ("Without question a Lime", "Lime"),
            ("none other than a Lime", "Lime"),
            ("nothing less than a Lime", "Lime"),
            ("nothing but a Lime", "Lime"),
            ("not unlike a Lime", "Lime"),
            ("I cannot rule out Lime", "Lime"),
            ("With Lemon excluded it is Lime", "Lime"),
            ("nicht nur eine Limette", "Limette"),
            ("no hay duda es una lima", "lima"),
            ("無非是青檸", "青檸"),
            ("非常像青柠", "青柠"),
            ("ライムではないでしょうか", "ライム"),
            ("ライムに違いない", "ライム"),
            ("Lime can not be ruled out", "Lime"),
            ("Lime is not ripe", "Lime"),
        ] {
            assert!(!denied(answer, name, &["Lemon"]), "{answer}");
        }
    }

    #[test]
    fn phrases_that_deny() {
        for (answer, name) in [
            ("Lime is not the correct answer", "Lime"),
            ("Lime isn't the right choice", "Lime"),
            ("Lime was ruled out", "Lime"),
            ("Lime has been excluded", "Lime"),
            ("I excluded Lime", "Lime"),
            ("I ruled out Lime", "Lime"),
            ("Lime does not fit", "Lime"),
            ("Lime doesn't match", "Lime"),
            ("anything but a Lime", "Lime"),
            ("Limette ist ausgeschlossen", "Limette"),
            ("la lima no es la respuesta", "lima"),
            ("不可能是青柠", "青柠"),
            ("並非青檸", "青檸"),
            ("并非青柠", "青柠"),
            ("非青柠", "青柠"),
            ("ライムとは違う", "ライム"),
            ("ライムとは違います", "ライム"),
            ("라임이 아닙니다", "라임"),
            ("이것은 lime이 아니다", "lime"),
        ] {
            assert!(denied(answer, name, &[]), "{answer}");
        }
    }
}
