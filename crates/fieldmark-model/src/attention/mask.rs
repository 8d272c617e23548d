//! The mask of attention: which keys each query may see.

use std::ops::Range;

use burn::tensor::{Bool, Device, Tensor, TensorData};

/// Which keys are hidden from each query of a batch.
#[derive(Debug, Clone)]
pub struct AttentionMask {
    /// `[batch or 1, 1, queries, keys]`; `true` hides a key. `None` hides nothing.
    hide: Option<Tensor<4, Bool>>,
    /// For a causal mask, the number of keys before the first query.
    past: Option<usize>,
}

impl AttentionMask {
    /// Returns the mask that lets every query see every key.
    pub fn none() -> Self {
        Self { hide: None, past: None }
    }

    /// Returns the causal mask for `queries` new tokens after `past` cached tokens. In row b, keys outside `rows[b]`
    /// are hidden too. If no row is padded, all rows share one mask.
    pub fn causal(queries: usize, past: usize, rows: &[Range<usize>], device: &Device) -> Self {
        let keys = past + queries;
        let padded = rows.iter().any(|row| row.start != 0 || row.end < keys);
        if queries == 1 && !padded {
            return Self::none();
        }
        let whole = 0..keys;
        let rows = if padded { rows } else { std::slice::from_ref(&whole) };
        let mut hide = Vec::with_capacity(rows.len() * queries * keys);
        for row in rows {
            for query in 0..queries {
                hide.extend((0..keys).map(|key| key > past + query || !row.contains(&key)));
            }
        }
        let hide = Some(Tensor::from_data(TensorData::new(hide, [rows.len(), 1, queries, keys]), device));
        Self { hide, past: Some(past) }
    }

    /// Returns true if no query sees a later key.
    pub(super) fn is_causal(&self) -> bool {
        self.past.is_some()
    }

    /// Returns the mask for a range of queries, and how many of the `keys` keys these queries see at most.
    pub(super) fn of_queries(&self, queries: Range<usize>, keys: usize) -> (Self, usize) {
        let seen = self.past.map_or(keys, |past| keys.min(past + queries.end));
        let hide = self.hide.clone().map(|hide| hide.narrow(2, queries.start, queries.len()).narrow(3, 0, seen));
        (Self { hide, past: self.past.map(|past| past + queries.start) }, seen)
    }

    /// Returns the mask with the query axis repeated for each of the `group` heads that share a key head.
    pub(super) fn grouped(&self, group: usize) -> Option<Tensor<4, Bool>> {
        self.hide.clone().map(|mask| if group == 1 { mask } else { mask.repeat_dim(2, group) })
    }
}
