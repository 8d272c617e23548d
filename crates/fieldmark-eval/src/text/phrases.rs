//! The phrases that deny a name, one table for each kind, and how a table is written.
//!
//! A phrase is words with blanks between; `a|b` is one of two words, and `a?` a word that may be missing. Short forms are
//! written out before they are compared: "isn't" is "is not", "can't" and "cannot" are "can not", "it's" is "it is".

/// Phrases that deny the name after them: "not a Lime", "a Lemon rather than a Lime".
pub(super) const BEFORE: [&str; 23] = [
    "not|no|never|neither|nor|without|unlike|non|hardly|scarcely|barely|unlikely|improbable",
    "exclude|excludes|excluded|excluding|except|reject|rejects|rejected|rejecting",
    "eliminate|eliminates|eliminated|eliminating|dismiss|dismisses|dismissed|discard|discarded",
    "rule|rules|ruled|ruling out",
    "rather|other than",
    "instead of",
    "as? opposed to",
    "apart|different|far|aside from",
    "anything|everything but",
    "nothing like",
    // German
    "nicht|kein|keine|keinen|keinem|keiner|keineswegs|niemals|weder|statt|anstatt",
    "anstelle von",
    // French
    "pas|jamais|ni|sauf",
    "plutôt que",
    "au lieu de|du|d'un|d'une",
    "autre que",
    // Spanish, Portuguese and Italian
    "no|nunca|não|nem|né|excepto|salvo",
    "en vez|lugar de",
    "em vez|lugar de",
    "invece|piuttosto di|che",
    // Dutch, Swedish, Danish and Norwegian
    "niet|geen|inte|ikke",
    // Russian
    "не|ни|вместо",
    "это? вовсе|совсем не",
];

/// Phrases with a denying word that deny nothing: "not only a Lime", "without a doubt a Lime", "Lemon is excluded, …".
pub(super) const HARMLESS: [&str; 13] = [
    "not|no|never|nothing|without only|just|merely|simply|sure|certain|doubt|question|less|hesitation",
    "not|no|without a|any|the? slightest|single? doubt|question|hesitation",
    "none|nothing|no|not other than",
    "not unlike|unlikely|improbable|impossible|uncommon",
    "not be? rule|ruled|exclude|excluded|reject|rejected|eliminate|eliminated|dismiss|dismissed|discard|discarded out?",
    "is|was|are|were|be|been|being ruled|excluded|rejected|eliminated|dismissed|discarded out?",
    "with everything|all? else excluded|eliminated",
    "nicht|kein nur|zweifel",
    "niemand|nichts anderes",
    "pas seulement|que|de doute?",
    "no|não|non solo|sólo|solamente|só|apenas|soltanto|solamente",
    "no|não hay|cabe|há duda|dúvida",
    "не только",
];

/// Phrases right after a name that deny it: "Lime is not the correct answer", "Lime was ruled out", "Lime does not fit".
pub(super) const AFTER: [&str; 15] = [
    "is|was|would|could|can|does not be|seem|look? the|a? correct|right|true|it|answer|match|fit|likely|possible|plausible",
    "is|was|seems|looks wrong|incorrect|impossible|unlikely|improbable|implausible|excluded|rejected|eliminated|dismissed",
    "is|was|has|have|can|could|should|must be|been? ruled|excluded|rejected|eliminated|dismissed|discarded",
    "does|do|did|would|will|could|can not fit|match|apply|work|suit|qualify|agree|correspond",
    "it|this|that is|was not",
    "excluded|aside",
    // German
    "ist|war es? nicht",
    "ist|war falsch|ausgeschlossen|unmöglich",
    "scheidet aus",
    "passt nicht",
    // French
    "n'est pas la|le? bonne|correct|correcte|possible|réponse",
    "est exclu|exclue|faux|fausse|incorrect|incorrecte|impossible",
    "ne correspond|convient pas",
    // Spanish, Portuguese and Italian
    "no|não|non es|é|è la|a? respuesta|resposta|risposta|correcto|correcta|correto|correta|corretto|corretta|posible",
    "queda|está|es descartado|descartada|incorrecto|incorrecta|imposible",
];

/// Words that begin a new clause, which a denial before them does not reach: "not a Lemon but a Lime".
pub(super) const CLAUSE: [&str; 7] = [
    "but|however|instead|rather|although|though|whereas|because|therefore|thus|hence",
    "sondern|aber|vielmehr",
    "mais|cependant",
    "sino|pero",
    "mas|ma|bensì|però",
    "maar|utan|men",
    "а|но",
];

/// Words that join names, so that a denial of the first is one of the others: "not a Lime or a Lemon".
pub(super) const JOINING: [&str; 2] =
    ["or|nor|and|oder|noch|und|ou|ni|et|o|y|e|или|и", "a|an|the|any|ein|eine|einen|un|une|una|uma"];

/// Words of [`JOINING`] over which a denial reaches further, also if the names between are not known.
pub(super) const OR: [&str; 1] = ["or|nor|oder|ou|или"];

/// Denials of scripts without blanks before the name, and how many characters may stand between: "不是一只" and the
/// name. Chinese and Thai.
pub(super) const NEAR_BEFORE: [(&str, usize); 20] = [
    ("不是", 3),
    ("并非", 3),
    ("並非", 3),
    ("而非", 3),
    ("绝非", 3),
    ("絕非", 3),
    ("非", 0),
    ("不像", 3),
    ("没有", 3),
    ("沒有", 3),
    ("不可能是", 3),
    ("不可能", 3),
    ("不会是", 3),
    ("不會是", 3),
    ("不太可能是", 3),
    ("不太像", 3),
    ("不应是", 3),
    ("不應是", 3),
    ("排除", 3),
    ("ไม่ใช่", 3),
];

/// Longer phrases in which those deny nothing: "nothing but", "not only", "cannot be ruled out".
pub(super) const NEAR_HARMLESS: [&str; 11] =
    ["无非", "無非", "莫非", "除非", "不仅是", "不只是", "不单是", "不能排除", "无法排除", "無法排除", "排除后"];

/// Words of those scripts that begin a new clause: "而是" is "but".
pub(super) const NEAR_CLAUSE: [&str; 6] = ["而是", "但", "却是", "卻是", "就是", "แต่"];

/// Denials of scripts without blanks, and of Korean, right after the name and the particles of [`SUBJECT`]. Japanese:
/// "ではない", "とは違う". Chinese: "被排除".
pub(super) const NEAR_AFTER: [&str; 24] = [
    "ではない",
    "ではなく",
    "ではありません",
    "ではなさそう",
    "じゃない",
    "じゃなく",
    "じゃありません",
    "でない",
    "でなく",
    "とは違",
    "とはちが",
    "とは異な",
    "とは言え",
    "とは思え",
    "とは考えにく",
    "以外",
    "被排除",
    "可以排除",
    "不对",
    "不正确",
    "不正確",
    "아니",
    "아닙",
    "아닌",
];

/// What follows a denial of [`NEAR_AFTER`] in a question that affirms: "ではないか" is "is it not?".
pub(super) const ASKING: [&str; 4] = ["か", "でしょうか", "だろうか", "かと"];

/// The particles of a subject in Korean, which stand between the name and "아니다".
pub(super) const SUBJECT: [char; 5] = ['이', '가', '은', '는', '도'];

/// The words of a text without the marks around them, and with short forms written out.
pub(super) fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in
        text.split(fieldmark_data::is_python_space).map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()))
    {
        match written_out(word) {
            Some(pair) => words.extend(pair),
            None if word.is_empty() => {}
            None => words.push(word),
        }
    }
    words
}

fn written_out(word: &str) -> Option<[&str; 2]> {
    const NEGATED: [&str; 14] =
        ["is", "was", "are", "were", "does", "do", "did", "has", "have", "had", "would", "could", "should", "must"];
    if let Some(subject) = word.strip_suffix("'s") {
        return ["it", "that", "this", "there", "he", "she", "what"].contains(&subject).then_some([subject, "is"]);
    }
    let stem = match word {
        "cannot" | "can't" | "cant" => return Some(["can", "not"]),
        "won't" | "wont" => return Some(["will", "not"]),
        _ => word.strip_suffix("n't").or_else(|| word.strip_suffix("nt").filter(|stem| NEGATED.contains(stem)))?,
    };
    Some([stem, "not"])
}

/// The number of words at the start of `words` that are one of the phrases.
pub(super) fn starts_with(words: &[&str], phrases: &[&str]) -> Option<usize> {
    phrases.iter().filter_map(|phrase| matched(words, phrase)).max()
}

/// Where the phrases stand in `words`: the first word of each and the one after its last.
pub(super) fn found(words: &[&str], phrases: &[&str]) -> Vec<(usize, usize)> {
    let starts = 0..words.len();
    starts.filter_map(|start| Some((start, start + starts_with(&words[start..], phrases)?))).collect()
}

fn matched(words: &[&str], phrase: &str) -> Option<usize> {
    let mut at = 0;
    for part in phrase.split(' ') {
        let (choices, optional) = part.strip_suffix('?').map_or((part, false), |choices| (choices, true));
        match words.get(at) {
            Some(word) if choices.split('|').any(|choice| choice == *word) => at += 1,
            _ if optional => {}
            _ => return None,
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_may_leave_words_out_and_choose_between_others() {
        let phrases = ["is not the|a? right|correct", "far from"];
        for (text, length) in [
            ("is not right", Some(3)),
            ("isn't the correct answer", Some(4)),
            ("isnt a right", Some(4)),
            ("is not an answer", None),
            ("\"far\" from here", Some(2)),
            ("far", None),
        ] {
            assert_eq!(starts_with(&words(text), &phrases), length, "{text}");
        }
        assert_eq!(found(&words("it's far from far from"), &phrases), [(2, 4), (4, 6)]);
    }
}
