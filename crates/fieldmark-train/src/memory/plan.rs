//! Plans the memory of training from sizes alone, before anything is loaded: memory that is always in use (weights, the
//! optimiser's state), and what each phase of a step adds at its worst. The peak is the former plus the largest phase.
//! Activations are counted per operation, from what Burn's tapes keep (`blocks.rs`); a test compares the sum with every
//! byte that real runs allocate. Other backends may copy where the CPU's does not, and may reserve more than they use.

use fieldmark_model::{AdapterCounts, Quantize, TrainableParts};

use super::{
    blocks::{BlockSizes, Tokens},
    workload::{RolloutShape, Workload},
};

/// One named amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPart {
    /// What the memory is used for.
    pub name: &'static str,
    /// Number of bytes.
    pub bytes: u64,
}

/// A phase of a step, and the memory that it needs in addition to what is always in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Name of the phase.
    pub name: &'static str,
    /// Memory by use.
    pub parts: Vec<MemoryPart>,
}

impl Phase {
    /// Sum of the parts, in bytes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }
}

/// Memory that a workload needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Memory that is always in use.
    pub standing: Vec<MemoryPart>,
    /// Phases of a step, one after another.
    pub phases: Vec<Phase>,
}

impl MemoryPlan {
    /// Memory that is always in use, in bytes.
    pub fn standing_bytes(&self) -> u64 {
        self.standing.iter().map(|part| part.bytes).sum()
    }

    /// Largest memory in use at a time, in bytes.
    pub fn peak(&self) -> u64 {
        self.standing_bytes() + self.phases.iter().map(Phase::bytes).max().unwrap_or(0)
    }
}

/// Bytes of an f32. Gradients, scores and logits are f32 for every type of weights.
const F32: f64 = 4.0;

impl Workload {
    /// Plans the memory of this workload.
    pub fn plan(&self) -> MemoryPlan {
        let learning = self.learning() as f64;
        let mut standing =
            vec![part("weights", self.weights()), part("moments of the optimiser", learning * self.moments)];
        if self.beside > 0.0 {
            standing.push(part("exact weights beside those of 16 bits", learning * self.beside));
        }
        if self.reference {
            standing.push(part("reference model", self.weights()));
        }
        let mut phases = vec![self.forward(), self.head(), self.backward(), self.ends(), self.step()];
        phases.extend(self.rollouts.as_ref().map(|rollouts| self.sampling(rollouts)));
        MemoryPlan { standing, phases }
    }

    /// Bytes of weights and adapters.
    fn weights(&self) -> f64 {
        let AdapterCounts { adapters, adapted } = self.config.adapter_counts(&self.lora, self.parts);
        let whole = (self.config.parameter_counts().total() - adapted + adapters) as f64 * self.number;
        whole + adapted as f64 * self.lora.weight_bytes(self.number)
    }

    /// Bytes of dequantised weights that the tapes keep: of all blocks, or of the one block that is run again.
    fn dense(&self) -> f64 {
        if self.lora.quantize == Quantize::None {
            return 0.0;
        }
        let bytes = |parts| self.config.adapter_counts(&self.lora, parts).adapted as f64 * self.number;
        if !self.trunk.recompute {
            return bytes(self.parts);
        }
        let none = TrainableParts { vision: false, projector: false, decoder: false };
        let vision = bytes(TrainableParts { vision: self.parts.vision, ..none });
        let decoder = bytes(TrainableParts { decoder: self.parts.decoder, ..none });
        let each = |sum: f64, blocks: usize| sum / blocks.max(1) as f64;
        each(vision, self.config.vision.depth).max(each(decoder, self.config.text.num_hidden_layers))
    }

    /// Number of trainable parameters.
    fn learning(&self) -> u64 {
        if self.lora.is_on() {
            return self.config.adapter_counts(&self.lora, self.parts).adapters;
        }
        let counts = self.config.parameter_counts();
        let of = |learns, count| if learns { count } else { 0 };
        of(self.parts.vision, counts.vision)
            + of(self.parts.projector, counts.projector)
            + of(self.parts.decoder, counts.decoder)
    }

    /// The sum of gradients. If there are several workers, each has a sum too.
    fn gradients(&self) -> MemoryPart {
        let sums = if self.workers > 1 { self.workers + 1 } else { 1 };
        part("gradients", self.learning() as f64 * F32 * sums as f64)
    }

    /// Bytes of the embedding matrix in f32, or 0 if it is not trained.
    fn matrix(&self) -> f64 {
        if self.parts.decoder && !self.lora.is_on() {
            self.config.parameter_counts().embedding as f64 * F32
        } else {
            0.0
        }
    }

    fn each_worker(&self, name: &'static str, bytes: f64) -> MemoryPart {
        part(name, bytes * self.workers as f64)
    }

    fn text(&self) -> (BlockSizes, Tokens) {
        (BlockSizes::text(&self.config.text, self.number, self.fused), self.micro.text_tokens(self.packing))
    }

    fn vision(&self) -> (BlockSizes, Tokens) {
        (BlockSizes::vision(&self.config.vision, self.number, self.fused), self.micro.vision_tokens())
    }

    /// Bytes that the forward pass keeps for the backward pass: of the encoder and of the decoder.
    fn kept(&self) -> [f64; 2] {
        let (text, tokens) = self.text();
        let (encoder, patches) = self.vision();
        let stack =
            |sizes: &BlockSizes, tokens: &Tokens, blocks: usize, learns: bool| match (learns, self.trunk.recompute) {
                (false, _) => 0.0,
                (true, true) => blocks as f64 * sizes.input(tokens),
                (true, false) => blocks as f64 * sizes.tape(tokens),
            };
        let pixels = patches.count * self.config.vision.patch_len() as f64 * F32;
        let images = patches.count / self.config.vision.merge_unit() as f64 * self.config.vision.out_hidden_size as f64;
        let vision = stack(&encoder, &patches, self.config.vision.depth, self.parts.vision)
            + pixels
            + images * self.number
            + if self.parts.vision || self.parts.projector { encoder.input(&patches) } else { 0.0 };
        let before = self.parts.decoder || self.parts.vision || self.parts.projector;
        let decoder = stack(&text, &tokens, self.config.text.num_hidden_layers, before)
            + text.input(&tokens)
            + self.micro.targets as f64 * self.config.text.hidden_size as f64 * self.number
            + tokens.mask();
        [vision, decoder]
    }

    fn forward(&self) -> Phase {
        let [vision, decoder] = self.kept();
        let (text, tokens) = self.text();
        let (encoder, patches) = self.vision();
        let parts = vec![
            self.gradients(),
            self.each_worker("activations kept for the backward pass", vision + decoder),
            self.each_worker("one block's forward pass", text.forward(&tokens).max(encoder.forward(&patches))),
        ];
        Phase { name: "forward", parts }
    }

    fn head(&self) -> Phase {
        let [vision, decoder] = self.kept();
        let chunk = self.micro.targets.min(self.logit_chunk) as f64;
        let chunk = chunk * self.config.text.vocab_size as f64 * F32;
        // Either logits, their softmax and its gradient; or one of these, with the head's gradient of all chunks, of
        // one chunk, and their sum.
        // In one pass, the logits become their gradient, and a sum of gradients is in the memory of the first.
        let (alone, matrices) = if self.fused { (1.0, 2.0) } else { (3.0, 3.0) };
        let several = if self.micro.targets > self.logit_chunk { chunk + matrices * self.matrix() } else { 0.0 };
        let logits = several.max(alone * chunk);
        let parts = vec![
            self.gradients(),
            self.each_worker("activations kept for the backward pass", vision + decoder),
            self.each_worker("a chunk of logits and the head's gradient", logits),
        ];
        Phase { name: "head, forward and backward", parts }
    }

    fn backward(&self) -> Phase {
        let [vision, decoder] = self.kept();
        let (text, tokens) = self.text();
        let mut most = (vision + decoder, self.block(&text, &tokens), self.matrix());
        if self.parts.vision {
            // The encoder's backward pass starts when the decoder's blocks are done and the embedding has its gradient.
            let (encoder, patches) = self.vision();
            let later = (vision, self.block(&encoder, &patches), 2.0 * self.matrix());
            if later.0 + later.1 + later.2 > most.0 + most.1 + most.2 {
                most = later;
            }
        }
        let (kept, block, ends) = most;
        let parts = vec![
            self.gradients(),
            self.each_worker("activations kept for the backward pass", kept),
            self.each_worker("one block's backward pass", block),
            self.each_worker("quantised weights made dense", self.dense()),
            self.each_worker("gradients of head and embedding", ends),
        ];
        Phase { name: "backward through the blocks", parts }
    }

    /// Bytes of the last block's backward pass, in addition to what is kept of all blocks.
    fn block(&self, sizes: &BlockSizes, tokens: &Tokens) -> f64 {
        let adapters = if self.lora.is_on() { sizes.adapters(tokens) } else { 0.0 };
        let (tape, finish) = (sizes.tape(tokens) - sizes.input(tokens), sizes.finish(tokens));
        let (mlp, attention) =
            (sizes.feed_forward_backward(tokens) + adapters, sizes.attention_backward(tokens, self.trunk.query_chunk));
        if self.trunk.recompute {
            let forward = tape - finish + sizes.masks(tokens);
            forward.max(tape + mlp).max(tape - finish + attention)
        } else {
            mlp.max(attention - finish)
        }
    }

    fn ends(&self) -> Phase {
        let [vision, _] = self.kept();
        let (text, tokens) = self.text();
        let parts = vec![
            self.gradients(),
            self.each_worker("activations kept for the backward pass", vision + text.input(&tokens)),
            self.each_worker("gradients of head and embedding", 3.0 * self.matrix()),
        ];
        Phase { name: "backward through the embedding", parts }
    }

    fn step(&self) -> Phase {
        let parts = vec![
            part("gradients", self.learning() as f64 * F32),
            // In one pass, a step is made in place.
            part("the largest parameter's step", if self.fused { 0.0 } else { 4.0 * self.matrix() }),
        ];
        Phase { name: "optimiser step", parts }
    }

    fn sampling(&self, rollouts: &RolloutShape) -> Phase {
        let text = &self.config.text;
        let (sizes, tokens) = (BlockSizes::text(text, self.number, self.fused), rollouts.prompt_tokens());
        let head = (text.num_key_value_heads * text.head_dim()) as f64;
        let layer = 2.0 * rollouts.responses as f64 * rollouts.capacity() as f64 * head * self.number;
        let prompts = 2.0 * (rollouts.prompts * rollouts.prompt) as f64 * head * self.number;
        // The logits; and on a device, their weights with what is left of them, and masks.
        let logits = 4.0 * rollouts.responses as f64 * text.vocab_size as f64 * F32;
        let read = sizes.forward(&tokens) + 2.0 * sizes.input(&tokens) + tokens.mask();
        let (encoder, patches) = (BlockSizes::vision(&self.config.vision, self.number, self.fused), rollouts.patches());
        let pixels = patches.count * self.config.vision.patch_len() as f64 * F32;
        let seen = encoder.forward(&patches) + encoder.input(&patches) + pixels;
        let workers = |name, bytes| self.each_worker(name, bytes);
        let parts = vec![
            // While the buffers of a layer grow, old and new exist together.
            workers("keys and values", layer * (text.num_hidden_layers as f64 + 0.5)),
            workers("keys and values of the prompts", prompts * text.num_hidden_layers as f64),
            workers("prompts or logits", (read + pixels).max(seen).max(logits)),
        ];
        Phase { name: "rollouts", parts }
    }
}

fn part(name: &'static str, bytes: f64) -> MemoryPart {
    MemoryPart { name, bytes: bytes.max(0.0).round() as u64 }
}
