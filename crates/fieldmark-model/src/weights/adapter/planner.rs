//! Finds the parameter of the base that each tensor of an adapter changes, and refuses what does not fit: every tensor
//! is used, and every factor has its partner.

use std::collections::BTreeMap;

use super::{
    change::{Change, Factors, Found},
    config::PeftConfig,
    folder::Adapter,
    key::Role,
    targets::{Kind, is_end},
};
use crate::{
    error::ModelError,
    parameters::{NamedParameter, new_layout, published_layout},
};

pub(super) const EMBEDDING: &str = "model.embed_tokens.weight";
pub(super) const HEAD: &str = "lm_head.weight";

/// The tensors of the adapter of one module.
pub(super) struct Module<'a> {
    /// Name in the file, without the prefix.
    pub(super) name: String,
    pub(super) parts: BTreeMap<Role, Found<'a>>,
}

/// The parameters of the base by published name, with their shapes in checkpoints.
pub(super) type Base = BTreeMap<String, NamedParameter>;

/// Collects the changes of an adapter's tensors to the parameters of a model.
pub(super) struct Planner<'a, 'b> {
    pub(super) adapter: &'b Adapter,
    pub(super) config: &'b PeftConfig,
    pub(super) base: Base,
    pub(super) changes: BTreeMap<String, Change<'a>>,
}

impl<'a> Planner<'a, '_> {
    /// Adds a tensor that replaces a whole parameter.
    pub(super) fn whole(&mut self, names: &[String], found: Found<'a>) -> Result<(), ModelError> {
        let names = names.iter().map(|name| published_layout(name));
        let Some(parameter) = names.into_iter().find_map(|name| self.base.get(&name)) else {
            return Err(found.refuse(
                "has no place in this model; the adapter belongs to another model, or is of a kind that is not read",
            ));
        };
        found.check_shape(&parameter.stored_shape, "the base model")?;
        let change = self.changes.entry(parameter.name.clone()).or_default();
        match &change.whole {
            None => {
                change.whole = Some(found);
                Ok(())
            }
            Some(other) => {
                let other = format!("`{}`", other.name);
                Err(ModelError::DuplicateTensor { path: found.path.into(), name: found.name, other })
            }
        }
    }

    /// Adds the adapter of one module.
    pub(super) fn module(&mut self, published: &str, module: Module<'a>) -> Result<(), ModelError> {
        let Module { name, mut parts } = module;
        let weight = format!("{published}.weight");
        let parameter = self.base.get(&weight).filter(|parameter| parameter.stored_shape.len() > 1);
        let Some(parameter) = parameter.cloned() else {
            return Err(first(&parts, "has no place in this model: the layer does not exist"));
        };
        if let Some(found) = parts.remove(&Role::Tokens) {
            self.tokens(&name, &weight, found)?;
        }
        let embedding = weight == EMBEDDING;
        let roles = if embedding { (Role::EmbeddingA, Role::EmbeddingB) } else { (Role::A, Role::B) };
        let (a, b) = match (parts.remove(&roles.0), parts.remove(&roles.1)) {
            (Some(a), Some(b)) => (a, b),
            (None, None) => return if parts.is_empty() { Ok(()) } else { Err(first(&parts, ALONE)) },
            (Some(a), None) => return Err(a.refuse(format!("has no partner `{}`", partner(&a.name)))),
            (None, Some(b)) => return Err(b.refuse(format!("has no partner `{}`", partner(&b.name)))),
        };
        self.check_target(&name, &parameter, &a)?;
        let factors = self.factors(&name, &parameter, a, b)?;
        let out = if embedding { parameter.stored_shape[1] } else { parameter.stored_shape[0] };
        let magnitude = self.magnitude(&mut parts, &factors, out)?;
        let bias = match parts.remove(&Role::Bias) {
            Some(found) if self.config.lora_bias => Some((found, factors.scale)),
            Some(found) => return Err(found.refuse("is not used, because `lora_bias` is off")),
            None if self.config.lora_bias && !embedding => {
                return Err(factors.b.refuse("has no bias beside it, but `lora_bias` is on"));
            }
            None => None,
        };
        if !parts.is_empty() {
            return Err(first(&parts, ALONE));
        }
        let change = self.changes.entry(weight).or_default();
        (change.factors, change.magnitude) = (Some(factors), magnitude);
        let Some((found, scale)) = bias else { return Ok(()) };
        let name = format!("{published}.bias");
        let Some(parameter) = self.base.get(&name) else {
            return Err(found.refuse("cannot be added, because this layer of the base has no bias"));
        };
        found.check_shape(&parameter.stored_shape, "the base model")?;
        self.changes.entry(name).or_default().bias = Some((found, scale));
        Ok(())
    }

    /// PEFT makes no adapter for a layer that the configuration does not name, and then drops its tensors.
    fn check_target(&self, name: &str, parameter: &NamedParameter, a: &Found<'a>) -> Result<(), ModelError> {
        // With `ensure_weight_tying`, the head has the adapter of the embedding.
        if self.config.keeps_tie && parameter.name == HEAD {
            return Ok(());
        }
        let names = self.names(name);
        if names.iter().any(|name| self.config.targets.have(name, kind(parameter))) {
            return Ok(());
        }
        Err(a.refuse(format!(
            "is of a layer that adapter_config.json does not choose ({}): PEFT would leave it out. Both files must be \
             of one adapter",
            self.config.targets.keys()
        )))
    }

    /// The names of a module under which patterns find it: as in the file, then in the other layouts.
    fn names(&self, name: &str) -> [String; 3] {
        let published = published_layout(name);
        [name.to_owned(), new_layout(&published), published]
    }

    fn factors(
        &self,
        name: &str,
        parameter: &NamedParameter,
        a: Found<'a>,
        b: Found<'a>,
    ) -> Result<Factors<'a>, ModelError> {
        let names = self.names(name);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let rank = self.config.ranks.get(&names).unwrap_or(self.config.rank);
        let alpha = self.config.alphas.get(&names).unwrap_or(self.config.alpha);
        let shape = &parameter.stored_shape;
        let (from, to) = if parameter.name == EMBEDDING {
            (vec![shape[0]], vec![shape[1], rank])
        } else {
            // The second matrix of a convolution has a kernel of one.
            (shape[1..].to_vec(), [vec![shape[0], rank], vec![1; shape.len() - 2]].concat())
        };
        let why = format!("rank {rank} of this layer in adapter_config.json and in the base model");
        a.check_shape(&[vec![rank], from].concat(), &why)?;
        b.check_shape(&to, &why)?;
        Ok(Factors { a, b, rank, scale: self.config.scale(rank, alpha) })
    }

    fn magnitude(
        &self,
        parts: &mut BTreeMap<Role, Found<'a>>,
        factors: &Factors<'a>,
        out: usize,
    ) -> Result<Option<Found<'a>>, ModelError> {
        match (parts.remove(&Role::Magnitude), self.config.dora) {
            (None, false) => Ok(None),
            (Some(found), true) => {
                let shape = found.view.shape();
                // That of a convolution has axes of one around it.
                if shape.iter().product::<usize>() != out || !shape.contains(&out) {
                    found.check_shape(&[out], "the base model")?;
                }
                Ok(Some(found))
            }
            (Some(found), false) => Err(found.refuse("is not used, because `use_dora` is off")),
            (None, true) => Err(factors.a.refuse("has no `lora_magnitude_vector` beside it, but `use_dora` is on")),
        }
    }

    fn tokens(&mut self, name: &str, weight: &str, found: Found<'a>) -> Result<(), ModelError> {
        let of = |end: &Option<String>| match end {
            Some(end) => is_end(name, end) || is_end(end, name),
            None => weight == EMBEDDING,
        };
        let Some((_, indices)) = self.config.tokens.iter().find(|(end, _)| of(end)) else {
            return Err(found.refuse("is not used, because `trainable_token_indices` does not name its module"));
        };
        let Some(parameter) = self.base.get(weight).filter(|_| [EMBEDDING, HEAD].contains(&weight)) else {
            return Err(found.refuse("has no place in this model: only an embedding has rows of tokens"));
        };
        let [vocab, width] = [0, 1].map(|axis| parameter.stored_shape[axis]);
        found.check_shape(&[indices.len(), width], "`trainable_token_indices` with the base model")?;
        if let Some(index) = indices.iter().find(|&&index| index >= vocab) {
            return Err(found.refuse(format!("is of token {index}, but the base model has {vocab} tokens")));
        }
        self.changes.entry(weight.to_owned()).or_default().tokens = Some((indices.clone(), found));
        Ok(())
    }
}

const ALONE: &str = "is not used: the layer has no pair of factors of its kind in the file";

/// What the layer of a matrix is, as far as `all-linear` asks.
pub(super) fn kind(parameter: &NamedParameter) -> Kind {
    let linear = parameter.stored_shape.len() == 2 && ![EMBEDDING, HEAD].contains(&parameter.name.as_str());
    if linear { Kind::Linear } else { Kind::Other }
}

/// Returns an error about the first of the tensors.
fn first(parts: &BTreeMap<Role, Found<'_>>, reason: &str) -> ModelError {
    match parts.values().next() {
        Some(found) => found.refuse(reason),
        None => ModelError::Lora { reason: reason.into() },
    }
}

/// Returns the name of the other factor.
fn partner(name: &str) -> String {
    let (one, other) =
        if name.contains("lora_A.") || name.contains("lora_embedding_A") { ("A", "B") } else { ("B", "A") };
    let swap = |name: &str, stem: &str| name.replace(&format!("{stem}{one}"), &format!("{stem}{other}"));
    swap(&swap(name, "lora_embedding_"), "lora_")
}
