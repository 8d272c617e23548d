//! Draws on the device for the whole batch: only token ids, log-probabilities and one uniform number a row cross over.

use burn::tensor::{Bool, DType, Device, IndexingUpdateOp, Int, Tensor, TensorData};

use super::{Choice, RowState, Sampling};

/// The number of tokens whose weight is summed together. A draw finds its block first and its token then: running sums
/// over a whole vocabulary would be slow on most devices.
const BLOCK: usize = 512;

/// The steps of the search for the k-th largest logit. Each halves the range, so that logits which are closer than
/// 2⁻³² of the range count as equal.
const HALVINGS: usize = 32;

/// What the CPU needs to know of a draw, one number a row each.
struct Drawn {
    token_b1: Tensor<2, Int>,
    /// Log-probability over the whole vocabulary.
    logp_b1: Tensor<2>,
    /// 1 where the token is kept, else 0.
    kept_b1: Tensor<2>,
}

/// Draws with one set of settings; what stays the same from step to step is on the device already.
#[derive(Debug, Clone)]
pub(crate) struct DeviceSampler {
    sampling: Sampling,
    /// True for each banned token, `[1, vocab]`.
    banned_1v: Option<Tensor<2, Bool>>,
}

impl DeviceSampler {
    pub(super) fn new(sampling: Sampling, banned: &[u32], vocab: usize, device: &Device) -> Self {
        let mut is_banned = vec![false; vocab];
        banned.iter().filter(|&&id| (id as usize) < vocab).for_each(|&id| is_banned[id as usize] = true);
        let any = is_banned.contains(&true);
        let banned_1v = any.then(|| Tensor::from_data(TensorData::new(is_banned, [1, vocab]), device));
        Self { sampling, banned_1v }
    }

    /// Chooses a token for each row of `logits_bv`.
    pub(super) fn next(&self, logits_bv: Tensor<2>, rows: &mut [RowState<'_>]) -> Vec<Choice> {
        let raw_bv = logits_bv.cast(DType::F32);
        let edited_bv = self.edited(raw_bv.clone(), rows);
        let logps = LogProbs::new(raw_bv, self.sampling.logp_temperature());
        if self.sampling.temperature == 0.0 {
            let device = edited_bv.device();
            let token_b1 = edited_bv.argmax(1);
            let logp_b1 = logps.of(token_b1.clone());
            let kept_b1 = Tensor::ones([rows.len(), 1], (&device, DType::F32));
            return read(Drawn { token_b1, logp_b1, kept_b1 }).into_iter().map(|(choice, _)| choice).collect();
        }
        let mut weights = Weights::new(&self.sampling, edited_bv);
        let mut choices: Vec<Option<Choice>> = vec![None; rows.len()];
        while choices.iter().any(Option::is_none) {
            let uniforms = rows.iter_mut().zip(&choices).map(|(row, choice)| match choice {
                None => row.stream.uniform() as f32,
                Some(_) => 0.0,
            });
            let (token_b1, kept_b1) = weights.draw(&self.sampling, uniforms.collect());
            let logp_b1 = logps.of(token_b1.clone());
            for (choice, (drawn, kept)) in choices.iter_mut().zip(read(Drawn { token_b1, logp_b1, kept_b1 })) {
                if choice.is_none() && (kept || !drawn.logp.is_finite()) {
                    *choice = Some(drawn);
                }
            }
        }
        choices.into_iter().flatten().collect()
    }

    /// Returns the logits with penalties and bans.
    fn edited(&self, logits_bv: Tensor<2>, rows: &[RowState<'_>]) -> Tensor<2> {
        let dims = logits_bv.dims();
        let penalty = self.sampling.repetition_penalty;
        let logits_bv = if penalty == 1.0 { logits_bv } else { penalised(logits_bv, penalty, rows) };
        match &self.banned_1v {
            Some(banned_1v) => logits_bv.mask_fill(banned_1v.clone().expand(dims), f32::NEG_INFINITY),
            None => logits_bv,
        }
    }
}

/// Applies the repetition penalty to the tokens that each row has seen.
fn penalised(logits_bv: Tensor<2>, penalty: f64, rows: &[RowState<'_>]) -> Tensor<2> {
    let [batch, vocab] = logits_bv.dims();
    let device = logits_bv.device();
    let known = |row: &RowState<'_>| -> Vec<i64> {
        row.seen.iter().filter(|&&token| (token as usize) < vocab).map(|&token| i64::from(token)).collect()
    };
    let seen: Vec<Vec<i64>> = rows.iter().map(known).collect();
    let width = seen.iter().map(Vec::len).max().unwrap_or(0);
    if width == 0 {
        return logits_bv;
    }
    // Rows of one length: the rest of a row is token 0 with no change.
    let ids: Vec<i64> = seen.iter().flat_map(|ids| (0..width).map(|i| ids.get(i).copied().unwrap_or(0))).collect();
    let used: Vec<f32> =
        seen.iter().flat_map(|ids| (0..width).map(|i| if i < ids.len() { 1.0 } else { 0.0 })).collect();
    let ids_bs = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch, width]), &device);
    let used_bs = Tensor::<2>::from_data(TensorData::new(used, [batch, width]), (&device, DType::F32));
    let old_bs = logits_bv.clone().gather(1, ids_bs.clone());
    let is_negative_bs = old_bs.clone().lower_scalar(0);
    let new_bs = (old_bs.clone() / penalty).mask_where(is_negative_bs, old_bs.clone() * penalty);
    logits_bv.scatter(1, ids_bs, (new_bs - old_bs) * used_bs, IndexingUpdateOp::Add)
}

/// Brings the three numbers of each row over in one copy. Ids are whole numbers below 2²⁴, which f32 holds exactly.
fn read(drawn: Drawn) -> Vec<(Choice, bool)> {
    let token_b1 = drawn.token_b1.float().cast(DType::F32);
    let numbers = Tensor::cat(vec![token_b1, drawn.logp_b1, drawn.kept_b1], 1).into_data();
    let numbers: Vec<f32> = numbers.iter::<f32>().collect();
    let row = |row: &[f32]| (Choice { token: row[0] as u32, logp: f64::from(row[1]) }, row[2] > 0.0);
    numbers.chunks(3).map(row).collect()
}

/// Log-probabilities over the whole vocabulary.
struct LogProbs {
    raw_bv: Tensor<2>,
    /// The value that is taken from a logit: temperature × ln Σ exp(logit / temperature). NaN where a logit is not finite.
    norm_b1: Tensor<2>,
    temperature: f64,
}

impl LogProbs {
    fn new(raw_bv: Tensor<2>, temperature: f64) -> Self {
        let max_b1 = raw_bv.clone().max_dim(1);
        let sum_b1 = ((raw_bv.clone() - max_b1.clone()) / temperature).exp().sum_dim(1);
        // 0 for finite logits, NaN otherwise: a minus infinity would not show in the sum.
        let poison_b1 = (raw_bv.clone() * 0.0).sum_dim(1);
        Self { raw_bv, norm_b1: max_b1 + sum_b1.log() * temperature + poison_b1, temperature }
    }

    fn of(&self, token_b1: Tensor<2, Int>) -> Tensor<2> {
        (self.raw_bv.clone().gather(1, token_b1) - self.norm_b1.clone()) / self.temperature
    }
}

/// The weights of the tokens that can still be drawn, relative to the most likely token; others have 0.
struct Weights {
    logits_bv: Tensor<2>,
    weights_bv: Tensor<2>,
    /// Token ids, `[1, vocab]`.
    ids_1v: Tensor<2, Int>,
    /// The weight of all tokens that top-k keeps.
    total_b1: Tensor<2>,
}

impl Weights {
    fn new(sampling: &Sampling, logits_bv: Tensor<2>) -> Self {
        let [_, vocab] = logits_bv.dims();
        let max_b1 = logits_bv.clone().max_dim(1);
        let mut weights_bv = ((logits_bv.clone() - max_b1) / sampling.temperature).exp();
        if sampling.top_k > 0 && sampling.top_k < vocab {
            let below_bv = logits_bv.clone().lower(kth_largest(logits_bv.clone(), sampling.top_k));
            weights_bv = weights_bv.mask_fill(below_bv, 0);
        }
        let ids_1v = Tensor::<1, Int>::arange(0..vocab as i64, &logits_bv.device()).reshape([1, vocab]);
        let total_b1 = weights_bv.clone().sum_dim(1);
        Self { logits_bv, weights_bv, ids_1v, total_b1 }
    }

    /// Draws a token per row with one uniform number each. Returns the tokens, and 1 where the token is within top-p and
    /// min-p.
    ///
    /// Where it is not, all tokens up to it, in the order of their logits, get weight 0, so that the next draw is among
    /// the rest. The kept tokens are the last in that order, so each keeps its share of every draw.
    fn draw(&mut self, sampling: &Sampling, uniforms: Vec<f32>) -> (Tensor<2, Int>, Tensor<2>) {
        let token_b1 = token_at(self.weights_bv.clone(), uniforms);
        let weight_b1 = self.weights_bv.clone().gather(1, token_b1.clone());
        let value_b1 = self.logits_bv.clone().gather(1, token_b1.clone());
        let tied_bv = self.logits_bv.clone().equal(value_b1.clone());
        let later_bv = self.ids_1v.clone().expand(self.logits_bv.dims()).greater(token_b1.clone());
        let above_bv = self.logits_bv.clone().greater(value_b1).bool_or(tied_bv.bool_and(later_bv));
        let rest_bv = self.weights_bv.clone().mask_fill(above_bv.bool_not(), 0);
        let rest_b1 = rest_bv.clone().sum_dim(1);
        let within_b1 = (self.total_b1.clone() - rest_b1.clone())
            .greater(self.total_b1.clone() * (1.0 - sampling.top_p))
            .bool_and(weight_b1.greater_equal_scalar(sampling.min_p));
        self.weights_bv = rest_bv;
        (token_b1, within_b1.bool_or(rest_b1.lower_equal_scalar(0)).float().cast(DType::F32))
    }
}

/// Returns the token that holds the point `uniforms` × total of the line that the weights of a row make end to end.
fn token_at(weights_bv: Tensor<2>, uniforms: Vec<f32>) -> Tensor<2, Int> {
    let [batch, vocab] = weights_bv.dims();
    let device = weights_bv.device();
    let blocks = vocab.div_ceil(BLOCK);
    let missing = blocks * BLOCK - vocab;
    let weights_bv = if missing == 0 {
        weights_bv
    } else {
        Tensor::cat(vec![weights_bv, Tensor::zeros([batch, missing], (&device, DType::F32))], 1)
    };
    let weights_bnl: Tensor<3> = weights_bv.reshape([batch, blocks, BLOCK]);
    let sums_bn = weights_bnl.clone().sum_dim(2).reshape([batch, blocks]);
    let ends_bn = sums_bn.clone().cumsum(1);
    let uniform_b1 = Tensor::<2>::from_data(TensorData::new(uniforms, [batch, 1]), &device);
    let point_b1 = uniform_b1 * ends_bn.clone().narrow(1, blocks - 1, 1);
    let block_b1 = place(sums_bn.clone(), ends_bn.clone(), point_b1.clone());
    let start_b1 = (ends_bn - sums_bn).gather(1, block_b1.clone());
    let index = block_b1.clone().reshape([batch, 1, 1]).expand([batch, 1, BLOCK]);
    let block_bl = weights_bnl.gather(1, index).reshape([batch, BLOCK]);
    let place_b1 = place(block_bl.clone(), block_bl.cumsum(1), point_b1 - start_b1);
    block_b1 * BLOCK as i64 + place_b1
}

/// Returns the first place whose running sum is above the point. Rounding can put the point past the last place with any
/// weight, which then holds it.
fn place(weights_bn: Tensor<2>, ends_bn: Tensor<2>, point_b1: Tensor<2>) -> Tensor<2, Int> {
    let [batch, count] = weights_bn.dims();
    let device = weights_bn.device();
    let places_bn = Tensor::<1, Int>::arange(0..count as i64, &device).reshape([1, count]).expand([batch, count]);
    let last_b1 = places_bn.mask_fill(weights_bn.lower_equal_scalar(0), 0).max_dim(1);
    let before_b1 = ends_bn.lower_equal(point_b1.expand([batch, count])).int().sum_dim(1);
    before_b1.min_pair(last_b1)
}

/// Returns the logit of rank `count` from the top of each row, ties counted, by bisection.
fn kth_largest(logits_bv: Tensor<2>, count: usize) -> Tensor<2> {
    let mut high_b1 = logits_bv.clone().max_dim(1);
    if count == 1 {
        return high_b1;
    }
    // Banned tokens are minus infinity, between which and a number there is no middle.
    let banned_bv = logits_bv.clone().lower_scalar(f32::MIN);
    let finite_bv = logits_bv.clone().mask_where(banned_bv.clone(), high_b1.clone().expand(logits_bv.dims()));
    let mut low_b1 = finite_bv.min_dim(1);
    for _ in 0..HALVINGS {
        let middle_b1 = (low_b1.clone() + high_b1.clone()) / 2.0;
        let reached_b1 = logits_bv.clone().greater_equal(middle_b1.clone()).int().sum_dim(1);
        let enough_b1 = reached_b1.greater_equal_scalar(count as i64);
        low_b1 = low_b1.mask_where(enough_b1.clone(), middle_b1.clone());
        high_b1 = middle_b1.mask_where(enough_b1, high_b1);
    }
    low_b1
}
