//! Names and shapes of parameters here and in checkpoints.
//!
//! Fields are named as in the reference, so a path differs from the published name (`visual.*`, `model.*`,
//! `lm_head.weight`) only where Burn's layers or ours differ: `gamma` is `weight`, `fc1` and `fc2` of the projector are
//! `mlp.0` and `mlp.2`; `lora.a` is `lora_A.weight`. The newer layout is `model.visual.*`, `model.language_model.*`.

/// Collects the path of the parameter that a visitor or mapper stands at.
#[derive(Debug, Default)]
pub(crate) struct ParamPath {
    names: Vec<String>,
    containers: Vec<String>,
}

impl ParamPath {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.names.push(name.into());
        self.containers.push(container.into());
    }

    pub(crate) fn exit(&mut self) {
        self.names.pop();
        self.containers.pop();
    }

    /// The name in published checkpoints.
    pub(crate) fn published(&self) -> String {
        let mut names = self.names.clone();
        let mut lora = false;
        for name in &mut names {
            match name.as_str() {
                "gamma" => *name = "weight".into(),
                "lora" => lora = true,
                "a" if lora => *name = "lora_A.weight".into(),
                "b" if lora => *name = "lora_B.weight".into(),
                "fc1" => *name = "mlp.0".into(),
                "fc2" => *name = "mlp.2".into(),
                _ => {}
            }
        }
        names.retain(|name| name != "lora");
        names.join(".")
    }

    /// The name in checkpoints of a module whose fields are named as in the reference: only Burn's norms differ from torch's.
    pub(crate) fn burn_as_torch(&self) -> String {
        let torch = |name: &String| match name.as_str() {
            "gamma" => "weight".to_owned(),
            "beta" => "bias".to_owned(),
            _ => name.clone(),
        };
        self.names.iter().map(torch).collect::<Vec<_>>().join(".")
    }

    /// Whether the parameter is the matrix of a linear layer: `[in, out]` here, `[out, in]` in checkpoints.
    pub(crate) fn is_linear(&self) -> bool {
        let container = self.containers.last().map_or("", String::as_str);
        let layer = matches!(container, "Struct:Linear" | "Struct:Projection");
        self.is_lora() || (layer && self.names.last().is_some_and(|name| name == "weight"))
    }

    /// Whether the parameter is a factor of an adapter.
    pub(crate) fn is_lora(&self) -> bool {
        self.containers.last().is_some_and(|container| container == "Struct:LoraPair")
    }
}
