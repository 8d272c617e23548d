//! Which layers an adapter's configuration names, and the values that it gives to single layers. Names are matched as
//! PEFT matches them (`check_target_module_exists`, `get_pattern_key`): a list by the ends of names, a text as a regular
//! expression.

use fancy_regex::Regex;

/// A regular expression in Python's syntax, which has look-around.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Compiles an expression that must match a whole name, like `re.fullmatch`.
    pub(super) fn whole(text: &str) -> Result<Self, String> {
        Regex::new(&format!("^(?:{text})$")).map(Self).map_err(|error| error.to_string())
    }

    /// Compiles an expression that must match a whole name, or its end after a dot.
    fn end(text: &str) -> Result<Self, String> {
        Self::whole(&format!(r"(?:.*\.)?(?:{text})"))
    }

    /// An expression that takes too many steps on a name does not match it.
    fn matches(&self, name: &str) -> bool {
        self.0.is_match(name).unwrap_or(false)
    }
}

/// A choice of layers.
#[derive(Debug, Clone)]
pub(super) enum Names {
    /// Layers whose whole name matches.
    Pattern(Pattern),
    /// Layers with one of these names, or whose name ends in one of them after a dot.
    List(Vec<String>),
    /// `all-linear`: every linear layer except the head.
    AllLinear,
}

impl Names {
    fn have(&self, module: &str, kind: Kind) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.matches(module),
            Self::List(list) => list.iter().any(|name| is_end(module, name)),
            Self::AllLinear => kind == Kind::Linear,
        }
    }
}

/// What a layer is, as far as `all-linear` asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A linear layer of the encoder, the projector or the decoder.
    Linear,
    /// The head, an embedding or a convolution.
    Other,
}

/// The layers that have an adapter.
#[derive(Debug, Clone, Default)]
pub(super) struct Targets {
    /// `target_modules`; `None` if PEFT takes the default of the architecture.
    pub(super) names: Option<Names>,
    /// `exclude_modules`.
    pub(super) excluded: Option<Names>,
    /// `modules_to_save`: modules that are stored whole and have no adapter.
    pub(super) saved: Vec<String>,
    /// `layers_to_transform`: indexes of blocks. Empty means all.
    pub(super) blocks: Vec<usize>,
    /// `layers_pattern`: names of the lists that `blocks` counts in. Empty means any.
    pub(super) lists: Vec<String>,
}

impl Targets {
    /// Returns true if the layer has an adapter by these rules.
    pub(super) fn have(&self, module: &str, kind: Kind) -> bool {
        if self.excluded.as_ref().is_some_and(|names| names.have(module, kind)) {
            return false;
        }
        if self.saved.iter().any(|name| is_inside(module, name)) {
            return false;
        }
        let Some(names) = &self.names else { return true };
        let counted = matches!(names, Names::List(_)) && !self.blocks.is_empty();
        names.have(module, kind) && (!counted || self.block(module).is_some_and(|block| self.blocks.contains(&block)))
    }

    /// The keys that decide, for an error.
    pub(super) fn keys(&self) -> &'static str {
        match (&self.excluded, self.saved.is_empty(), self.blocks.is_empty()) {
            (None, true, true) => "target_modules",
            (None, true, false) => "target_modules, layers_to_transform",
            _ => "target_modules, exclude_modules, modules_to_save, layers_to_transform",
        }
    }

    /// The index in a layer's name that `layers_to_transform` means: the first one that has at least two names before it
    /// and one after it.
    fn block(&self, module: &str) -> Option<usize> {
        let parts: Vec<&str> = module.split('.').collect();
        (2..parts.len().saturating_sub(1)).find_map(|i| {
            let listed = self.lists.is_empty() || self.lists.iter().any(|name| name == parts[i - 1]);
            parts[i].parse().ok().filter(|_| listed)
        })
    }
}

/// Values of single layers by pattern. The first pattern that matches counts.
#[derive(Debug, Clone)]
pub(super) struct Patterns<T>(Vec<(Pattern, T)>);

impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy> Patterns<T> {
    /// Adds the value of the layers whose name matches `text`, or ends in it after a dot.
    pub(super) fn push(&mut self, text: &str, value: T) -> Result<(), String> {
        self.0.push((Pattern::end(text)?, value));
        Ok(())
    }

    /// Returns the value of a layer, tried under each of its names.
    pub(super) fn get(&self, names: &[&str]) -> Option<T> {
        let find = |name: &&str| self.0.iter().find(|(pattern, _)| pattern.matches(name)).map(|(_, value)| *value);
        names.iter().find_map(find)
    }
}

/// Returns true if `module` is `name` or ends in it after a dot.
pub(super) fn is_end(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Returns true if `name` is a part of the dotted path `module`.
fn is_inside(module: &str, name: &str) -> bool {
    format!(".{module}.").contains(&format!(".{name}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q: &str = "model.language_model.layers.11.self_attn.q_proj";
    const QKV: &str = "model.visual.blocks.3.attn.qkv";
    const UP: &str = "model.visual.blocks.3.mlp.up_proj";
    const MERGER: &str = "model.visual.merger.mlp.0";

    fn list(names: &[&str]) -> Option<Names> {
        Some(Names::List(names.iter().map(|name| (*name).to_owned()).collect()))
    }

    fn regex(text: &str) -> Option<Names> {
        Some(Names::Pattern(Pattern::whole(text).unwrap()))
    }

    fn which(targets: &Targets) -> [bool; 4] {
        [Q, QKV, UP, MERGER].map(|module| targets.have(module, Kind::Linear))
    }

    #[test]
    fn lists_match_ends_and_texts_match_whole_names() {
        let names = |names| Targets { names, ..Targets::default() };
        assert_eq!(which(&names(list(&["q_proj", "mlp.0"]))), [true, false, false, true]);
        assert_eq!(which(&names(list(&["proj"]))), [false; 4]);
        assert_eq!(which(&names(list(&[Q]))), [true, false, false, false]);
        assert_eq!(which(&names(regex("q_proj"))), [false; 4]);
        assert_eq!(which(&names(regex(r".*\.(q|up)_proj"))), [true, false, true, false]);
        // Two branches: each must match the whole name.
        assert_eq!(which(&names(regex(r"model\.visual|.*qkv"))), [false, true, false, false]);
        // As LLaMA-Factory writes it.
        assert_eq!(which(&names(regex("^(?!.*visual).*(?:q_proj|up_proj).*"))), [true, false, false, false]);
        // As ms-swift writes it.
        let swift = r"^(model\.language_model(?=\.).*\.(q_proj|v_proj))$";
        assert_eq!(which(&names(regex(swift))), [true, false, false, false]);
        assert_eq!(which(&names(Some(Names::AllLinear))), [true; 4]);
        assert!(!names(Some(Names::AllLinear)).have("lm_head", Kind::Other));
        assert_eq!(which(&names(None)), [true; 4]);
    }

    #[test]
    fn what_is_excluded_or_saved_whole_has_no_adapter() {
        let all = Targets { names: Some(Names::AllLinear), ..Targets::default() };
        assert_eq!(which(&Targets { excluded: list(&["qkv"]), ..all.clone() }), [true, false, true, true]);
        assert_eq!(which(&Targets { excluded: regex(".*visual.*"), ..all.clone() }), [true, false, false, false]);
        assert_eq!(which(&Targets { saved: vec!["merger".into()], ..all }), [true, true, true, false]);
    }

    #[test]
    fn blocks_are_counted_by_the_first_index_of_a_name() {
        let only = |names, blocks: &[usize], lists: &[&str]| Targets {
            names,
            blocks: blocks.to_vec(),
            lists: lists.iter().map(|name| (*name).to_owned()).collect(),
            ..Targets::default()
        };
        let every = || list(&["q_proj", "qkv", "up_proj", "mlp.0"]);
        assert_eq!(which(&only(every(), &[11], &[])), [true, false, false, false]);
        assert_eq!(which(&only(every(), &[3, 11], &[])), [true, true, true, false]);
        assert_eq!(which(&only(every(), &[3, 11], &["blocks"])), [false, true, true, false]);
        // PEFT counts only where `target_modules` is a list.
        assert_eq!(which(&only(regex(".*"), &[1], &[])), [true; 4]);
    }

    #[test]
    fn the_first_pattern_that_matches_counts() {
        let mut ranks = Patterns::default();
        for (text, rank) in [("layers.1.self_attn.q_proj", 2), ("^model.*q_proj", 4), ("proj", 8), ("qkv", 16)] {
            ranks.push(text, rank).unwrap();
        }
        assert_eq!(ranks.get(&["model.layers.1.self_attn.q_proj"]), Some(2));
        assert_eq!(ranks.get(&["model.layers.11.self_attn.q_proj"]), Some(4));
        assert_eq!(ranks.get(&["visual.blocks.0.attn.proj"]), Some(8));
        assert_eq!(ranks.get(&["visual.blocks.0.mlp.up_proj"]), None);
        assert_eq!(ranks.get(&["a", QKV]), Some(16));
        assert!(Pattern::whole("(").is_err());
    }
}
