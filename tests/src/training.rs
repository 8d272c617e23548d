//! Helpers for the tests of the training loops: sources of given rows, parameters and gradients as numbers, and a
//! tokenizer with one word per id.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{DType, Device, Int, Tensor, TensorData, activation::log_softmax},
};
use fieldmark::{
    model::{Padding, Qwen25Vl},
    processor::{Sequence, SupervisedSequence, Tokenizer, collate, special},
    train::{
        TrainError,
        sft::{SftMetrics, SftSource},
        tapo::{TripletSource, rollout::TripletPrompt},
        trainer::{TrainEvent, UpdateTiming},
    },
};
use serde_json::{Map, Value, json};

use crate::prompts::{distance, values};

/// Vocabulary size of the fixture models.
pub const VOCABULARY: u32 = 320;

/// The parameters by name with their numbers, or with the numbers of their gradients.
pub type Named = Vec<(String, Vec<f32>)>;

/// A source of rows that are the same in every epoch.
pub struct Rows<T>(pub Vec<T>);

impl SftSource for Rows<SupervisedSequence> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample(&self, row: usize, _epoch: usize) -> Result<SupervisedSequence, TrainError> {
        Ok(self.0[row].clone())
    }
}

impl TripletSource for Rows<TripletPrompt> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn prompt(&self, row: usize, _epoch: usize) -> Result<TripletPrompt, TrainError> {
        Ok(self.0[row].clone())
    }
}

/// Turns a receiver of SFT updates into a receiver of all events.
pub fn updates(
    mut on_update: impl FnMut(&SftMetrics, &UpdateTiming),
) -> impl FnMut(TrainEvent<'_>) -> Result<(), TrainError> {
    move |event| {
        if let TrainEvent::SftUpdate(row, timing) = event {
            on_update(row, timing);
        }
        Ok(())
    }
}

/// Returns all parameters in a fixed order.
pub fn parameters(model: &Qwen25Vl) -> Named {
    visit(model, None)
}

/// Returns the number format of every parameter.
pub fn formats(model: &Qwen25Vl) -> Vec<(String, DType)> {
    let mut formats = Formats::default();
    model.visit(&mut formats);
    formats.found
}

#[derive(Default)]
struct Formats {
    path: Vec<String>,
    found: Vec<(String, DType)>,
}

impl ModuleVisitor for Formats {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push((self.path.join("."), param.val().dtype()));
    }
}

/// Returns the gradients in the order of [`parameters`], with zeros for a parameter without gradient.
pub fn gradients(model: &Qwen25Vl, grads: &GradientsParams) -> Named {
    visit(model, Some(grads))
}

fn visit(model: &Qwen25Vl, grads: Option<&GradientsParams>) -> Named {
    let mut numbers = Numbers { grads, path: Vec::new(), found: Vec::new() };
    model.visit(&mut numbers);
    numbers.found
}

struct Numbers<'a> {
    grads: Option<&'a GradientsParams>,
    path: Vec<String>,
    found: Named,
}

impl ModuleVisitor for Numbers<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.into());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let tensor = match self.grads {
            None => param.val().inner(),
            Some(grads) => grads.get::<D>(param.id).unwrap_or_else(|| param.val().inner().zeros_like()),
        };
        self.found.push((self.path.join("."), values(tensor)));
    }
}

/// Returns `before` minus `after`, parameter by parameter.
pub fn difference(before: &Named, after: &Named) -> Named {
    let minus = |i: usize| {
        let ((path, before), (other, after)) = (&before[i], &after[i]);
        assert_eq!(path, other);
        (path.clone(), before.iter().zip(after).map(|(before, after)| before - after).collect())
    };
    (0..before.len()).map(minus).collect()
}

/// Returns the largest difference between two entries, divided by the largest expected entry.
pub fn relative(found: &Named, expected: &Named) -> f32 {
    let flat = |named: &Named| named.iter().flat_map(|(_, values)| values).copied().collect::<Vec<_>>();
    let (found, expected) = (flat(found), flat(expected));
    distance(&found, &expected) / expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()))
}

/// Computes log π of `ids` after `prompt` with gradients, from all logits of this sequence alone. Result: `[ids]`.
pub fn plain_logps(model: &Qwen25Vl, prompt: &Sequence, ids: &[u32], temperature: f64, device: &Device) -> Tensor<1> {
    let logp = plain_distributions(model, prompt, ids, temperature, device);
    let targets: Vec<i64> = ids.iter().map(|&id| i64::from(id)).collect();
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [ids.len(), 1]), device);
    logp.gather(1, targets).squeeze_dim(1)
}

/// Computes the logarithms of the distributions that `ids` are drawn from after `prompt`: `[ids, vocabulary]`.
pub fn plain_distributions(
    model: &Qwen25Vl,
    prompt: &Sequence,
    ids: &[u32],
    temperature: f64,
    device: &Device,
) -> Tensor<2> {
    let sequence = prompt.with_response(ids);
    let inputs = collate(std::slice::from_ref(&sequence), Padding::Right, 0, None, model.config(), device).unwrap();
    let hidden = model.forward(&inputs);
    let [_, seq, width] = hidden.dims();
    let logp = log_softmax(model.logits(hidden.reshape([seq, width])) / temperature, 1);
    logp.narrow(0, seq - 1 - ids.len(), ids.len())
}

/// Makes a tokenizer whose id `i` is the word `t{i}`. The special tokens have the ids of the fixture models.
pub fn word_tokenizer() -> Tokenizer {
    let mut vocabulary: Map<String, Value> = (8..VOCABULARY).map(|id| (format!("t{id}"), json!(id))).collect();
    vocabulary.extend(special::ALL.iter().enumerate().map(|(id, token)| ((*token).into(), json!(id))));
    let special = |(id, token): (usize, &&str)| {
        json!({ "id": id, "content": token, "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false })
    };
    let json = json!({
        "version": "1.0",
        "added_tokens": special::ALL.iter().enumerate().map(special).collect::<Vec<_>>(),
        "pre_tokenizer": { "type": "WhitespaceSplit" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "t8" },
    });
    Tokenizer::from_bytes(json.to_string().as_bytes(), "words").unwrap()
}
