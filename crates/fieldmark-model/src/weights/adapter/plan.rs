//! Finds the parameter of the base that each tensor of an adapter changes, and refuses what does not fit: every tensor
//! is used, and every factor has its partner.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    change::{Change, Factors, Found},
    config::PeftConfig,
    folder::Adapter,
    key::{Key, PREFIX, Role},
    targets::{Kind, is_end},
};
use crate::{
    error::ModelError,
    model::Qwen25Vl,
    parameters::{NamedParameter, new_layout, published_layout},
    weights::checkpoint::Tensors,
};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";

/// What an adapter does to a model.
pub(super) struct Plan<'a> {
    /// By the published name of the parameter.
    pub(super) changes: BTreeMap<String, Change<'a>>,
    /// Whether a tied head must become a matrix of its own, because it no longer equals the embedding.
    pub(super) untie: bool,
}

/// The tensors of the adapter of one module.
struct Module<'a> {
    /// Name in the file, without the prefix.
    name: String,
    parts: BTreeMap<Role, Found<'a>>,
}

/// The parameters of the base by published name, with their shapes in checkpoints.
type Base = BTreeMap<String, NamedParameter>;

impl<'a> Plan<'a> {
    /// Plans the changes that the tensors of `adapter` make to `model`.
    ///
    /// # Errors
    /// Returns an error that names the first tensor or key that does not fit.
    pub(super) fn new(adapter: &Adapter, tensors: Tensors<'a>, model: &Qwen25Vl) -> Result<Self, ModelError> {
        let parameters = model.named_parameters().into_iter().filter(|parameter| !parameter.adapter);
        let mut base: Base = parameters.map(|parameter| (parameter.name.clone(), parameter)).collect();
        let tied = model.lm_head.is_none();
        if let (true, Some(embedding)) = (tied, base.get(EMBEDDING)) {
            let mut head = embedding.clone();
            head.name = HEAD.into();
            base.insert(HEAD.into(), head);
        }
        let mut planner = Planner { adapter, config: &adapter.config, base, changes: BTreeMap::new() };
        let mut modules: BTreeMap<String, Module<'a>> = BTreeMap::new();
        for (_, (name, path, view)) in tensors {
            let found = Found { name, path, view };
            match Key::of(&found.name) {
                Key::Whole(names) => planner.whole(&names, found)?,
                Key::Part(name, role) => {
                    let module = modules
                        .entry(published_layout(&name))
                        .or_insert_with(|| Module { name, parts: BTreeMap::new() });
                    insert(&mut module.parts, role, found)?;
                }
            }
        }
        for (published, module) in modules {
            planner.module(&published, module)?;
        }
        planner.check_complete(tied)?;
        let untie = tied && planner.settle_tied_head()?;
        Ok(Self { changes: planner.changes, untie })
    }
}

fn insert<'a, K: Ord>(map: &mut BTreeMap<K, Found<'a>>, key: K, found: Found<'a>) -> Result<(), ModelError> {
    match map.entry(key) {
        Entry::Vacant(place) => {
            place.insert(found);
            Ok(())
        }
        Entry::Occupied(other) => {
            let other = format!("`{}`", other.get().name);
            Err(ModelError::DuplicateTensor { path: found.path.into(), name: found.name, other })
        }
    }
}

struct Planner<'a, 'b> {
    adapter: &'b Adapter,
    config: &'b PeftConfig,
    base: Base,
    changes: BTreeMap<String, Change<'a>>,
}

impl<'a> Planner<'a, '_> {
    /// Adds a tensor that replaces a whole parameter.
    fn whole(&mut self, names: &[String], found: Found<'a>) -> Result<(), ModelError> {
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
    fn module(&mut self, published: &str, module: Module<'a>) -> Result<(), ModelError> {
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
        let plain = parameter.stored_shape.len() == 2 && ![EMBEDDING, HEAD].contains(&parameter.name.as_str());
        // With `ensure_weight_tying`, the head has the adapter of the embedding.
        if self.config.keeps_tie && parameter.name == HEAD {
            return Ok(());
        }
        let kind = if plain { Kind::Linear } else { Kind::Other };
        let names = self.names(name);
        if names.iter().any(|name| self.config.targets.have(name, kind)) {
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

    /// Refuses an adapter without tensors, and one whose configuration names whole modules or tokens that are not in its
    /// file.
    fn check_complete(&self, tied: bool) -> Result<(), ModelError> {
        if self.changes.is_empty() {
            let problem = "holds no tensors, so the model would stay as it is; DeepSpeed ZeRO-3 writes such a file if the \
                           parameters are not gathered: save the adapter again";
            return Err(ModelError::refused(self.adapter.weights_path(), problem));
        }
        let refuse = |key: &str, value: String, reason: String| {
            Err(ModelError::adapter_setting(self.adapter.config_path(), key, value, &reason))
        };
        for saved in &self.config.targets.saved {
            let missing = self.base.keys().filter(|name| !(tied && *name == HEAD)).find(|name| {
                let module = name.rsplit_once('.').map_or("", |(module, _)| module);
                // The module itself, or one around it.
                let ends = module.match_indices('.').map(|(end, _)| &module[..end]);
                let inside = ends.chain([module]).any(|module| new_layout(module).ends_with(saved.as_str()));
                inside && self.changes.get(*name).is_none_or(|change| change.whole.is_none())
            });
            if let Some(name) = missing {
                let reason = format!("names a module whose tensor `{PREFIX}{}` is not in the file", new_layout(name));
                return refuse("modules_to_save", saved.clone(), reason);
            }
        }
        if !self.config.tokens.is_empty() && self.changes.values().all(|change| change.tokens.is_none()) {
            let reason = "has no tensor in the file".into();
            return refuse("trainable_token_indices", format!("{:?}", self.config.tokens), reason);
        }
        Ok(())
    }

    /// For a tied head, returns whether it and the embedding are different after the changes. PEFT then has two
    /// matrices: an adapter of one does not change the other.
    fn settle_tied_head(&mut self) -> Result<bool, ModelError> {
        let saved = self.config.targets.saved.iter().any(|name| "model.language_model.embed_tokens".ends_with(name));
        let embedding = self.changes.get(EMBEDDING);
        let whole = embedding.and_then(|change| change.whole.as_ref());
        let Some(head) = self.changes.get(HEAD) else {
            // Without `modules_to_save`, the tensor is that of the base itself, which is the head too.
            let own = embedding.is_some_and(|change| change.factors.is_some()) || (whole.is_some() && saved);
            let untie = own && !self.config.keeps_tie;
            return match embedding.and_then(|change| change.tokens.as_ref()).filter(|_| untie) {
                Some((_, found)) => Err(found.refuse(BOTH)),
                None => Ok(untie),
            };
        };
        if let (Some(tokens), None) = (embedding.and_then(|change| change.tokens.as_ref()), &head.tokens) {
            return Err(tokens.1.refuse(BOTH));
        }
        let same = match (whole, &head.whole) {
            (Some(one), Some(other)) => one.values()? == other.values()?,
            _ => false,
        };
        let plain = [embedding, Some(head)]
            .into_iter()
            .flatten()
            .all(|change| change.factors.is_none() && change.magnitude.is_none() && change.tokens.is_none());
        if same && plain {
            self.changes.remove(HEAD);
            return Ok(false);
        }
        Ok(true)
    }
}

const ALONE: &str = "is not used: the layer has no pair of factors of its kind in the file";
const BOTH: &str = "replaces rows of an embedding whose tied head changes in another way, and that is not read; merge the \
                    adapter with PEFT (merge_and_unload, save_pretrained) and give the merged folder as the model";

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
