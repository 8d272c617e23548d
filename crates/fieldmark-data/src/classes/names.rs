//! Names of classes in texts: which form of a name is compared, and which names a text has.

use std::ops::Range;

use crate::answer::{alike::prose_form, normal_form, occurrences};

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
        all.iter().filter(|other| other.len() > name.len() && other.contains(name)).any(|other| {
            occurrences(&text, other).iter().any(|outer| outer.start <= place.start && place.end <= outer.end)
        })
    };
    let is_named = |name: &str| occurrences(&text, name).iter().any(|place| !longer(name, place));
    wanted.into_iter().filter(|name| is_named(name)).collect()
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
    fn options_are_alike_in_the_normal_form() {
        let alike = |options: &[&str]| {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            alike_options(&options).map(|(one, other)| (one.to_owned(), other.to_owned()))
        };
        assert_eq!(alike(&["Lime", "Key Lime", "Limes"]), None);
        assert_eq!(alike(&["Lime", "Key_Lime", " key  LIME"]), Some(("Key_Lime".into(), " key  LIME".into())));
        assert_eq!(alike(&["Lime", "Lime"]), Some(("Lime".into(), "Lime".into())));
    }
}
