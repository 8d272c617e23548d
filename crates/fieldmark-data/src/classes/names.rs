//! Names of classes in texts: which form of a name is compared, and which names a text has.

use std::ops::Range;

use crate::answer::{alike::prose_form, normal_form};

/// Two options that scoring cannot tell apart, if there are any.
pub fn alike_options(options: &[String]) -> Option<(&str, &str)> {
    let forms: Vec<String> = options.iter().map(|option| normal_form(option)).collect();
    let twin = |place: usize| forms[..place].iter().position(|form| *form == forms[place]);
    (0..options.len()).find_map(|place| Some((options[twin(place)?].as_str(), options[place].as_str())))
}

/// The names of `wanted` that a text has as whole phrases, outside any longer name of `all`. Names are in the form that
/// [`normal_form`] returns; the text may be any. "Border Collie" does not name "Collie" if both are in `all`.
pub(crate) fn named<'a>(text: &str, wanted: impl IntoIterator<Item = &'a str>, all: &[String]) -> Vec<&'a str> {
    let text = prose_form(text);
    let longer = |name: &str, place: &Range<usize>| {
        all.iter()
            .filter(|other| other.len() > name.len() && other.contains(name))
            .any(|other| phrases(&text, other).iter().any(|outer| outer.start <= place.start && place.end <= outer.end))
    };
    let is_named = |name: &str| phrases(&text, name).iter().any(|place| !longer(name, place));
    wanted.into_iter().filter(|name| is_named(name)).collect()
}

/// The places where a text has a phrase with no letter or digit directly before or after it. Scripts without blanks between
/// words bound nothing.
fn phrases(text: &str, phrase: &str) -> Vec<Range<usize>> {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() && !is_without_blanks(c));
    let places =
        text.match_indices(phrase).filter(|_| !phrase.is_empty()).map(|(start, _)| start..start + phrase.len());
    places
        .filter(|place| !is_word(text[..place.start].chars().next_back()) && !is_word(text[place.end..].chars().next()))
        .collect()
}

/// Whether a character is of a script that puts no blanks between words: Chinese, Japanese, Thai, Lao, Khmer, Burmese.
fn is_without_blanks(c: char) -> bool {
    matches!(c, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_as_a_whole_and_outside_longer_names() {
        let all = ["collie", "border collie", "lime"].map(str::to_owned);
        let found = |text: &str| named(text, ["collie", "lime"], &all);
        assert_eq!(found("It is a Border_Collie."), [""; 0]);
        assert_eq!(found("A Border Collie, or a collie?"), ["collie"]);
        assert_eq!(found("limes, sublime"), [""; 0]);
        assert_eq!(found("Lime/Collie"), ["collie", "lime"]);
    }

    #[test]
    fn options_are_alike_in_the_form_that_is_normal_form() {
        let alike = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            alike_options(&options).map(|(one, other)| (one.to_owned(), other.to_owned()))
        };
        assert_eq!(alike(&["Lime", "Key Lime", "Limes"]), None);
        assert_eq!(alike(&["Lime", "Key_Lime", " key  LIME"]), Some(("Key_Lime".into(), " key  LIME".into())));
        assert_eq!(alike(&["Lime", "Lime"]), Some(("Lime".into(), "Lime".into())));
    }
}
