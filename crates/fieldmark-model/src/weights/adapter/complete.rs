//! Refuses an adapter whose file lacks what its configuration names: layers, whole modules, tokens.
//!
//! PEFT adapts every layer that it chooses and saves them all, so a file without some of them is cut.

use super::{
    key::PREFIX,
    planner::{HEAD, Planner, kind},
    targets::{Kind, Targets},
};
use crate::{
    error::ModelError,
    parameters::{new_layout, published_layout},
};

impl Planner<'_, '_> {
    /// Refuses an adapter without tensors, and one whose configuration names whole modules or tokens that are not in its
    /// file.
    pub(super) fn check_complete(&self, tied: bool) -> Result<(), ModelError> {
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

    /// Refuses an adapter without factors for a layer that its configuration chooses. PEFT would leave that layer as it is
    /// and only warn of missing keys. `newer` says which names of layers the file has.
    pub(super) fn check_layers(&self, newer: bool) -> Result<(), ModelError> {
        let matrices = self.base.values().filter(|parameter| parameter.stored_shape.len() > 1);
        // With `ensure_weight_tying`, the head has the adapter of the embedding.
        let own = matrices.filter(|parameter| !(self.config.keeps_tie && parameter.name == HEAD));
        let layers: Vec<Layer> = own
            .filter_map(|parameter| {
                let name = parameter.name.strip_suffix(".weight")?.to_owned();
                let adapted = self.changes.get(&parameter.name).is_some_and(|change| change.factors.is_some());
                Some(Layer { name, kind: kind(parameter), adapted })
            })
            .collect();
        let layouts: [fn(&str) -> String; 2] =
            if newer { [new_layout, str::to_owned] } else { [str::to_owned, new_layout] };
        let missing = left_out(&self.config.targets, &layers, &layouts);
        let Some(first) = missing.first() else { return Ok(()) };
        let part = if published_layout(first) == "model.embed_tokens" { "lora_embedding_A" } else { "lora_A.weight" };
        let problem = format!(
            "{} tensors are missing, first `{PREFIX}{first}.{part}`: {} of the layers that adapter_config.json chooses \
             ({}) have no factors; copy or save the whole adapter again, or name only its own layers in target_modules",
            2 * missing.len(),
            missing.len(),
            self.config.targets.keys()
        );
        Err(ModelError::refused(self.adapter.weights_path(), problem))
    }
}

/// A layer of the base that may have an adapter.
struct Layer {
    /// The published name.
    name: String,
    kind: Kind,
    /// Whether the file has factors for it.
    adapted: bool,
}

/// Returns the names of the chosen layers without factors. `layouts` are the forms of names that the base may have had
/// when PEFT chose among its layers, the likeliest first.
///
/// A regular expression may choose other layers under another form. Only a form under which every layer with factors is
/// chosen may be the right one, and of several the one with the fewest layers left out counts.
fn left_out(targets: &Targets, layers: &[Layer], layouts: &[fn(&str) -> String]) -> Vec<String> {
    if targets.names.is_none() {
        return Vec::new();
    }
    let under = |layout: &fn(&str) -> String| {
        let named = layers.iter().map(|layer| (layer, layout(&layer.name)));
        let (chosen, others): (Vec<_>, Vec<_>) = named.partition(|(layer, name)| targets.have(name, layer.kind));
        let fits = others.iter().all(|(layer, _)| !layer.adapted);
        fits.then(|| chosen.into_iter().filter(|(layer, _)| !layer.adapted).map(|(_, name)| name).collect::<Vec<_>>())
    };
    layouts.iter().filter_map(under).min_by_key(Vec::len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{super::targets::Names, *};
    use crate::parameters::new_layout;

    const LAYOUTS: [fn(&str) -> String; 2] = [str::to_owned, new_layout];

    fn layers(adapted: &[usize]) -> Vec<Layer> {
        let names = ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "visual.merger.mlp.0"];
        let linear = names.into_iter().enumerate();
        let linear =
            linear.map(|(at, name)| Layer { name: name.into(), kind: Kind::Linear, adapted: adapted.contains(&at) });
        linear.chain([Layer { name: "lm_head".into(), kind: Kind::Other, adapted: false }]).collect()
    }

    fn missing(names: Option<Names>, adapted: &[usize]) -> Vec<String> {
        left_out(&Targets { names, ..Targets::default() }, &layers(adapted), &LAYOUTS)
    }

    #[test]
    fn every_chosen_layer_has_factors() {
        let list = |names: &[&str]| Some(Names::List(names.iter().map(|name| (*name).to_owned()).collect()));
        assert_eq!(missing(list(&["q_proj"]), &[0, 1]), [""; 0]);
        assert_eq!(missing(list(&["q_proj"]), &[0]), ["model.layers.1.self_attn.q_proj"]);
        assert_eq!(missing(list(&["q_proj", "lm_head"]), &[0, 1]), ["lm_head"]);
        assert_eq!(missing(Some(Names::AllLinear), &[0, 1]), ["visual.merger.mlp.0"]);
        assert_eq!(missing(None, &[0]), [""; 0]);
    }

    #[test]
    fn an_expression_counts_under_the_form_of_names_that_it_was_made_for() {
        let regex = |text: &str| Some(Names::Pattern(super::super::targets::Pattern::whole(text).unwrap()));
        // Under the published names it would choose the projector too.
        assert_eq!(missing(regex(r"(?!model\.visual).*(proj|mlp\.0)"), &[0, 1]), [""; 0]);
        let newer = missing(regex(r"model\.language_model\.layers\..*"), &[1]);
        assert_eq!(newer, ["model.language_model.layers.0.self_attn.q_proj"]);
    }
}
