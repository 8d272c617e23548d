//! The path of a parameter through the modules, and the published name that belongs to it.
//!
//! Fields have the reference's names, so path and published name only differ where our layers or Burn's do: `gamma` is
//! published as `weight`, `fc1` and `fc2` of the projector as `mlp.0` and `mlp.2`, `lora.a` as `lora_A.weight`.

/// The path of the parameter that a module visitor or mapper is at.
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

    /// Returns the parameter's name in published checkpoints.
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

    /// Returns the name in checkpoints of a module whose fields have the reference's names. Only Burn's norms differ
    /// from torch's.
    pub(crate) fn burn_as_torch(&self) -> String {
        let torch = |name: &String| match name.as_str() {
            "gamma" => "weight".to_owned(),
            "beta" => "bias".to_owned(),
            _ => name.clone(),
        };
        self.names.iter().map(torch).collect::<Vec<_>>().join(".")
    }

    /// Returns true for the matrix of a linear layer: `[in, out]` in the model, `[out, in]` in checkpoints.
    pub(crate) fn is_linear(&self) -> bool {
        let container = self.containers.last().map_or("", String::as_str);
        let layer = matches!(container, "Struct:Linear" | "Struct:Projection");
        self.is_lora() || (layer && self.names.last().is_some_and(|name| name == "weight"))
    }

    /// Returns true for a factor of an adapter.
    pub(crate) fn is_lora(&self) -> bool {
        self.containers.last().is_some_and(|container| container == "Struct:LoraPair")
    }
}
