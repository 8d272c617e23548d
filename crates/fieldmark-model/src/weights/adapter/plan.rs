//! Plans what an adapter does to a model: every tensor changes a parameter of the base, and what belongs together is there.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    change::{Change, Found},
    folder::Adapter,
    key::Key,
    planner::{Base, EMBEDDING, HEAD, Module, Planner},
};
use crate::{error::ModelError, model::Qwen25Vl, parameters::published_layout, weights::checkpoint::Tensors};

/// What an adapter does to a model.
pub(super) struct Plan<'a> {
    /// By the published name of the parameter.
    pub(super) changes: BTreeMap<String, Change<'a>>,
    /// Whether a tied head must become a matrix of its own, because it no longer equals the embedding.
    pub(super) untie: bool,
}

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
        let newer = modules.iter().any(|(published, module)| module.name != *published);
        for (published, module) in modules {
            planner.module(&published, module)?;
        }
        planner.check_complete(tied)?;
        planner.check_layers(newer)?;
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

impl Planner<'_, '_> {
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

const BOTH: &str = "replaces rows of an embedding whose tied head changes in another way, and that is not read; merge the \
                    adapter with PEFT (merge_and_unload, save_pretrained) and give the merged folder as the model";
