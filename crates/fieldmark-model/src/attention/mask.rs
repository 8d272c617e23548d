//! Which keys a query may see.

use std::ops::Range;

use burn::tensor::{Bool, Device, Tensor, TensorData};

/// Which keys each query must not see, for one batch.
#[derive(Debug, Clone)]
pub struct AttentionMask {
    /// `true` hides a key; `[batch or 1, 1, queries, keys]`. `None` hides nothing.
    hide: Option<Tensor<4, Bool>>,
    /// Keys before the first query, where no query sees a key behind itself.
    past: Option<usize>,
}

impl AttentionMask {
    /// Every query sees every key.
    pub fn none() -> Self {
        Self { hide: None, past: None }
    }

    /// Causal mask for `queries` new tokens after `past` cached ones, with the keys outside `rows[b]` hidden in row b.
    /// One mask for all rows where no row is padded.
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

    /// Whether a query sees no key behind itself.
    pub(super) fn is_causal(&self) -> bool {
        self.past.is_some()
    }

    /// The mask of the queries in `queries` alone, and how many of `keys` keys they see at most.
    pub(super) fn of_queries(&self, queries: Range<usize>, keys: usize) -> (Self, usize) {
        let seen = self.past.map_or(keys, |past| keys.min(past + queries.end));
        let hide = self.hide.clone().map(|hide| hide.narrow(2, queries.start, queries.len()).narrow(3, 0, seen));
        (Self { hide, past: self.past.map(|past| past + queries.start) }, seen)
    }

    /// Repeats the query axis for `group` heads that share their keys.
    pub(super) fn grouped(&self, group: usize) -> Option<Tensor<4, Bool>> {
        self.hide.clone().map(|mask| if group == 1 { mask } else { mask.repeat_dim(2, group) })
    }
}
