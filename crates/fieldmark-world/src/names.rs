//! Invented names. A name says nothing about the marks, and none is part of another, so that no answer can mean two species.

use std::collections::HashSet;

use fieldmark_stream::RandomStream;

const SYLLABLES: [&str; 40] = [
    "ba", "do", "fe", "gi", "ka", "lu", "mo", "ni", "pa", "ro", "sa", "te", "vi", "wo", "ze", "tra", "plu", "gri",
    "sho", "ken", "bri", "cu", "dra", "eth", "fro", "gle", "hu", "ive", "jor", "kly", "lem", "mar", "nos", "oph",
    "pim", "qua", "rus", "stu", "tol", "vex",
];

/// Gives names of three syllables, each one once.
#[derive(Debug)]
pub(crate) struct Names {
    stream: RandomStream,
    /// The names, and every part of a name that is long enough to be one.
    taken: HashSet<String>,
    names: HashSet<String>,
}

/// The shortest name: three syllables of two letters.
const SHORTEST: usize = 6;

impl Names {
    pub(crate) fn new(stream: RandomStream) -> Self {
        Self { stream, taken: HashSet::new(), names: HashSet::new() }
    }

    /// The next name. There are 64,000 combinations of syllables, far more than species.
    pub(crate) fn next(&mut self) -> String {
        loop {
            let name: String = (0..3).map(|_| SYLLABLES[self.stream.below(SYLLABLES.len())]).collect();
            if self.taken.contains(&name) || pieces(&name).any(|piece| self.names.contains(piece)) {
                continue;
            }
            self.taken.extend(pieces(&name).map(str::to_owned));
            self.names.insert(name.clone());
            let mut letters = name.chars();
            let first = letters.next().map(|letter| letter.to_ascii_uppercase());
            return first.into_iter().chain(letters).collect();
        }
    }
}

/// Every part of a name that is long enough to be a name. Names are ASCII.
fn pieces(name: &str) -> impl Iterator<Item = &str> {
    let length = name.len();
    (0..length).flat_map(move |from| (from + SHORTEST..=length).map(move |to| &name[from..to]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_is_part_of_another() {
        let mut names = Names::new(RandomStream::new(3, &["names"]));
        let all: HashSet<String> = (0..10_000).map(|_| names.next().to_lowercase()).collect();
        assert_eq!(all.len(), 10_000);
        for name in &all {
            let inside = pieces(name).find(|piece| *piece != name.as_str() && all.contains(*piece));
            assert_eq!(inside, None, "{name}");
        }
    }
}
