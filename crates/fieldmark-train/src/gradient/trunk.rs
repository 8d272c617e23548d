//! The network up to the head, with one autodiff tape per block instead of one tape for everything.
//!
//! The backward pass goes through the blocks from last to first and starts each with the gradient that the block behind
//! it left. With `recompute`, only the input of each block is kept, and the block runs again in the backward pass (Chen
//! et al. 2016, arXiv 1604.06174). Attention never has a tape.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{Gradients, Tensor},
};
use fieldmark_model::{
    AttentionBlock, AttentionLayout, ImageInputs, ModelInputs, Qwen25Vl,
    rotary::Rotary,
    text::TextPlan,
    vision::{VisionEncoder, VisionPlan},
};

use super::{
    seed::{seed, seeded},
    sum::GradientSum,
};

/// How a training pass trades time for memory. The gradients are the same up to rounding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrunkSettings {
    /// Whether to keep only the input of each block and run the block again in the backward pass.
    pub recompute: bool,
    /// Number of queries whose scores are computed at a time in the backward pass of attention. 0 means all.
    pub query_chunk: usize,
}

/// What a forward pass keeps for the backward pass.
pub(crate) struct TrunkTape {
    settings: TrunkSettings,
    inputs: ModelInputs,
    /// Embeddings of the images, `[n, d]`.
    features: Option<Tensor<2>>,
    vision: Option<VisionTape>,
    plan: TextPlan,
    decoder: StackTape,
}

struct VisionTape {
    images: ImageInputs,
    plan: VisionPlan,
    stack: StackTape,
}

/// What is kept of a stack of blocks, and the output of the last one.
struct StackTape {
    blocks: Vec<Kept>,
    output: Tensor<3>,
}

enum Kept {
    /// No parameter in the block or before it is trained.
    Nothing,
    /// The block's input.
    Input(Box<Tensor<3>>),
    /// The block's tapes.
    Tapes(Box<BlockTape>),
}

/// A block cut at its attention: one tape before attention and one behind it.
struct BlockTape {
    /// Leaf: the input of the projections.
    input: Tensor<3>,
    qkv: [Tensor<4>; 3],
    /// Leaf: the result of attention.
    attended: Tensor<4>,
    /// Leaf: the input of the residual sum.
    residual: Tensor<3>,
    output: Tensor<3>,
}

impl TrunkTape {
    /// Returns the hidden states after the final norm, `[batch, sequence, width]`, without a tape, and the data for the
    /// backward pass. `model` must be on an autodiff device.
    pub fn forward(model: &Qwen25Vl, inputs: ModelInputs, settings: TrunkSettings) -> (Tensor<3>, Self) {
        let (plain, inputs, learns) = (model.valid(), without_tape(inputs), Learns::of(model));
        let (mut vision, mut features) = (None, None);
        if let Some(images) = &inputs.images {
            if learns.encoder || learns.projector {
                let (tape, found) = VisionTape::forward(model, &plain, images.clone(), learns, settings);
                (vision, features) = (Some(tape), Some(found));
            } else {
                features = Some(plain.encode_images(images));
            }
        }
        let x_btd = plain.embed_with(&inputs, features.clone());
        let (decoder, device) = (plain.decoder(), x_btd.device());
        let plan = decoder.plan(inputs.position_ids.clone(), inputs.layout(0), x_btd.dtype(), &device);
        let keep = (learns.decoder || vision.is_some()).then_some(settings);
        let blocks = model.decoder().blocks().iter().zip(decoder.blocks());
        let stack = StackTape::forward(blocks, x_btd, &plan.rotary, |_| &plan.layout, keep);
        let hidden_btd = decoder.final_norm(stack.output.clone());
        (hidden_btd, Self { settings, inputs, features, vision, plan, decoder: stack })
    }

    /// Adds two things to `sum`: the gradients of `sum(hidden · grad)` with respect to all trainable parameters, and
    /// the gradients in `head`, which may be for the matrix that head and embedding share. `grad_btd` has no tape.
    pub fn backward(self, model: &Qwen25Vl, grad_btd: Tensor<3>, head: GradientsParams, sum: &mut GradientSum) {
        let learns = Learns::of(model);
        let mut ends = GradientSum::new();
        ends.add(model, head);
        if learns.decoder || self.vision.is_some() {
            let decoder = model.decoder();
            let last = leaf(self.decoder.output.clone());
            let mut grads = seeded(decoder.final_norm(last.clone()), grad_btd);
            sum.add_from(decoder, &mut grads);
            let grad_btd = take(&last, &mut grads);
            let TextPlan { rotary, layout } = &self.plan;
            let blocks = decoder.blocks();
            let grad_btd = self.decoder.backward(blocks, rotary, |_| layout, grad_btd, self.settings, sum);
            let features = self.features.map(|features| if self.vision.is_some() { leaf(features) } else { features });
            let embedded_btd = model.embed_with(&self.inputs, features.clone());
            if embedded_btd.is_tracked() {
                let mut grads = seeded(embedded_btd, grad_btd);
                ends.add_from(model, &mut grads);
                if let Some((vision, features)) = self.vision.zip(features) {
                    vision.backward(model.visual(), take(&features, &mut grads), learns, self.settings, sum);
                }
            }
        }
        sum.add(model, ends.into_grads());
    }
}

impl VisionTape {
    fn forward(
        model: &Qwen25Vl,
        plain: &Qwen25Vl,
        images: ImageInputs,
        learns: Learns,
        settings: TrunkSettings,
    ) -> (Self, Tensor<2>) {
        let (visual, plain) = (model.visual(), plain.visual());
        let plan = plain.plan(&images, &images.pixel_values.device());
        let x_bnd = plain.embed_patches(&images, &plan);
        let blocks = visual.blocks().iter().zip(plain.blocks());
        let keep = learns.encoder.then_some(settings);
        let stack = StackTape::forward(blocks, x_bnd, &plan.rotary, |i| plan.layout(i), keep);
        let features = plain.merge(stack.output.clone(), &plan);
        (Self { images, plan, stack }, features)
    }

    fn backward(
        self,
        visual: &VisionEncoder,
        grad_nd: Tensor<2>,
        learns: Learns,
        settings: TrunkSettings,
        sum: &mut GradientSum,
    ) {
        let Self { images, plan, stack } = self;
        let last = leaf(stack.output.clone());
        let mut grads = seeded(visual.merge(last.clone(), &plan), grad_nd);
        sum.add_from(visual, &mut grads);
        if !learns.encoder {
            return;
        }
        let grad_bnd = take(&last, &mut grads);
        let blocks = visual.blocks();
        let grad_bnd = stack.backward(blocks, &plan.rotary, |i| plan.layout(i), grad_bnd, settings, sum);
        let patches_bnd = visual.embed_patches(&images, &plan);
        if patches_bnd.is_tracked() {
            sum.add_from(visual, &mut seeded(patches_bnd, grad_bnd));
        }
    }
}

impl StackTape {
    /// `blocks` holds each block twice, with and without autodiff. `keep` is `None` if no gradient will be asked for.
    fn forward<'a, B: AttentionBlock + 'a>(
        blocks: impl Iterator<Item = (&'a B, &'a B)>,
        mut x_btd: Tensor<3>,
        rotary: &Rotary,
        layout: impl Fn(usize) -> &'a AttentionLayout,
        keep: Option<TrunkSettings>,
    ) -> Self {
        let mut kept = Vec::new();
        for (i, (block, plain)) in blocks.enumerate() {
            let (what, output) = match keep {
                None => (Kept::Nothing, plain.run(x_btd, rotary, layout(i))),
                Some(TrunkSettings { recompute: true, .. }) => {
                    (Kept::Input(Box::new(x_btd.clone())), plain.run(x_btd, rotary, layout(i)))
                }
                Some(_) => {
                    let tape = BlockTape::record(block, x_btd, rotary, layout(i));
                    let output = tape.output.clone().inner();
                    (Kept::Tapes(Box::new(tape)), output)
                }
            };
            kept.push(what);
            x_btd = output;
        }
        Self { blocks: kept, output: x_btd }
    }

    /// Adds the gradients of the blocks to `sum` and returns the gradient with respect to the input of the first block.
    fn backward<'a, B: AttentionBlock>(
        self,
        blocks: &[B],
        rotary: &Rotary,
        layout: impl Fn(usize) -> &'a AttentionLayout,
        mut grad_btd: Tensor<3>,
        settings: TrunkSettings,
        sum: &mut GradientSum,
    ) -> Tensor<3> {
        drop(self.output);
        for (i, (block, kept)) in blocks.iter().zip(self.blocks).enumerate().rev() {
            let tape = match kept {
                Kept::Nothing => return grad_btd,
                Kept::Input(x_btd) => BlockTape::record(block, *x_btd, rotary, layout(i)),
                Kept::Tapes(tape) => *tape,
            };
            grad_btd = tape.backward(block, layout(i), grad_btd, settings.query_chunk, sum);
        }
        grad_btd
    }
}

impl BlockTape {
    fn record(block: &impl AttentionBlock, x_btd: Tensor<3>, rotary: &Rotary, layout: &AttentionLayout) -> Self {
        let (input, residual) = (leaf(x_btd.clone()), leaf(x_btd));
        let qkv = block.project(input.clone(), rotary);
        let attended = leaf(layout.attend(qkv.clone().map(Tensor::inner)));
        let output = block.finish(residual.clone(), attended.clone());
        Self { input, qkv, attended, residual, output }
    }

    /// Adds the gradients of the block's parameters to `sum` and returns the gradient with respect to its input.
    fn backward(
        self,
        block: &impl AttentionBlock,
        layout: &AttentionLayout,
        grad_btd: Tensor<3>,
        query_chunk: usize,
        sum: &mut GradientSum,
    ) -> Tensor<3> {
        let Self { input, qkv, attended, residual, output } = self;
        let mut grads = seeded(output, grad_btd);
        sum.add_from(block, &mut grads);
        let (grad_out, through_residual) = (take(&attended, &mut grads), take(&residual, &mut grads));
        drop(grads);
        let plain = qkv.clone().map(Tensor::inner);
        let by_part = layout.backward(plain, attended.inner(), grad_out, query_chunk);
        let seeds = qkv.into_iter().zip(by_part).map(|(part, grad)| seed(part, |_| grad));
        let Some(seed) = seeds.reduce(|a, b| a + b) else { return through_residual };
        let mut grads = seed.backward();
        sum.add_from(block, &mut grads);
        through_residual + take(&input, &mut grads)
    }
}

/// Makes a constant the start of a tape.
fn leaf<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.autodiff().require_grad()
}

/// Takes the gradient of a leaf; zeros if the result does not depend on it.
fn take<const D: usize>(leaf: &Tensor<D>, grads: &mut Gradients) -> Tensor<D> {
    leaf.grad_remove(grads).unwrap_or_else(|| leaf.clone().inner().zeros_like())
}

fn without_tape(inputs: ModelInputs) -> ModelInputs {
    let images = inputs.images.map(|images| ImageInputs { pixel_values: images.pixel_values.inner(), ..images });
    ModelInputs { input_ids: inputs.input_ids.inner(), position_ids: inputs.position_ids.inner(), images, ..inputs }
}

/// Which parts of a model have a trainable parameter.
#[derive(Debug, Clone, Copy)]
struct Learns {
    encoder: bool,
    projector: bool,
    decoder: bool,
}

impl Learns {
    fn of(model: &Qwen25Vl) -> Self {
        let visual = model.visual();
        Self {
            encoder: learns(visual.patch_embed()) || visual.blocks().iter().any(learns),
            projector: learns(visual.merger()),
            decoder: learns(model.decoder()),
        }
    }
}

fn learns<M: Module>(module: &M) -> bool {
    let mut found = AnyTrainable(false);
    module.visit(&mut found);
    found.0
}

struct AnyTrainable(bool);

impl ModuleVisitor for AnyTrainable {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0 |= param.is_require_grad();
    }
}
