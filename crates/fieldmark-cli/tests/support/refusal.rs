//! How the command refuses what it is given: exit code 2 and one line on standard error. A test asserts what that line names
//! (files, rows, keys, flags, values) and not the sentence around it.

use std::{fmt::Debug, process::Output};

/// The line `error: …` of a command that was refused.
#[must_use = "assert what the line names"]
#[derive(Debug)]
pub struct Refusal {
    command: String,
    line: String,
    /// The other lines on standard error.
    others: Vec<String>,
}

impl Refusal {
    /// Asserts exit code 2, one error line, and nothing beside it but progress.
    #[track_caller]
    pub fn of(command: impl Debug, output: &Output) -> Self {
        let refusal = Self::after_work(command, output);
        assert!(refusal.others.iter().all(|line| is_progress(line)), "{refusal:?}");
        refusal
    }

    /// Asserts exit code 2 and one error line at the end of a command that had begun to work and said so.
    #[track_caller]
    pub fn after_work(command: impl Debug, output: &Output) -> Self {
        let command = format!("{command:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command}: {text}");
        let (errors, others): (Vec<_>, Vec<_>) =
            text.lines().map(str::to_owned).partition(|line| line.starts_with("error: "));
        let Ok([line]) = <[String; 1]>::try_from(errors) else { panic!("{command}: not one error line: {text}") };
        assert!(text.ends_with(&format!("{line}\n")), "{command}: the error is not the last line: {text}");
        Self { command, line, others }
    }

    /// Asserts that the line names a file, a row, a flag, a number or anything else: as a whole, so that `row 2` is not found
    /// in `row 21`.
    #[track_caller]
    pub fn names(&self, what: &str) -> &Self {
        assert!(mentions(&self.line, what), "{} does not name {what:?}: {}", self.command, self.line);
        self
    }

    /// Asserts that the line names a key of a recipe or of a file: as a whole, so that `sft` is not found in `sft.epochs`.
    #[track_caller]
    pub fn names_key(&self, key: &str) -> &Self {
        assert!(mentions_key(&self.line, key), "{} does not name the key `{key}`: {}", self.command, self.line);
        self
    }

    /// Asserts that the line proposes a flag, key or value to use instead.
    #[track_caller]
    pub fn suggests(&self, what: &str) -> &Self {
        assert!(mentions(&self.line, what), "{} does not suggest {what:?}: {}", self.command, self.line);
        self
    }

    /// Asserts that the line does not name what belongs to another fault.
    #[track_caller]
    pub fn leaves_out(&self, what: &str) -> &Self {
        assert!(!mentions(&self.line, what), "{} names {what:?}: {}", self.command, self.line);
        self
    }

    /// Asserts that no work was begun: standard error is the error line alone.
    #[track_caller]
    pub fn at_once(&self) -> &Self {
        assert!(self.others.is_empty(), "{self:?}");
        self
    }
}

/// Whether `text` has `wanted` with no letter, digit or underscore directly before or behind it.
pub fn mentions(text: &str, wanted: &str) -> bool {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let (first, last) = (wanted.chars().next(), wanted.chars().next_back());
    text.match_indices(wanted).any(|(at, _)| {
        let (before, behind) = (text[..at].chars().next_back(), text[at + wanted.len()..].chars().next());
        !(is_word(first) && is_word(before) || is_word(last) && is_word(behind))
    })
}

/// Whether `text` has the dotted key `wanted`, and not only as a part of a longer one.
pub fn mentions_key(text: &str, wanted: &str) -> bool {
    let mut keys = text.split(|c: char| !(c.is_alphanumeric() || "._".contains(c)));
    keys.any(|key| key.trim_matches('.') == wanted)
}

/// Whether a line has the count of a progress line: `3/11`.
fn is_progress(line: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mut words = line.split_whitespace();
    words.any(|word| word.split_once('/').is_some_and(|(done, total)| is_number(done) && is_number(total)))
}
