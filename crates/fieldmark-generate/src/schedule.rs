//! The schedule: which prompts are prefilled together, and when finished rows leave the batch.
//!
//! Batches are static: no new response joins a batch that is being decoded.

use std::ops::Range;

use crate::{request::Request, sequence::RunningSequence};

/// The responses of one request that are decoded in one batch; their prompt is prefilled once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptShare {
    /// Index of the request.
    pub(crate) request: usize,
    /// Indices of the responses within the request.
    pub(crate) responses: Range<usize>,
}

/// Splits all responses of `requests` into batches of at most `max_batch`, in order.
pub(crate) fn prefill_batches(requests: &[Request], max_batch: usize) -> Vec<Vec<PromptShare>> {
    let mut batches = Vec::new();
    let mut batch = Vec::new();
    let mut room = max_batch;
    for (i, request) in requests.iter().enumerate() {
        let mut first = 0;
        while first < request.streams.len() {
            let take = room.min(request.streams.len() - first);
            batch.push(PromptShare { request: i, responses: first..first + take });
            first += take;
            room -= take;
            if room == 0 {
                batches.push(std::mem::take(&mut batch));
                room = max_batch;
            }
        }
    }
    if !batch.is_empty() {
        batches.push(batch);
    }
    batches
}

/// Returns the rows that stay in the batch once at least half of it is finished; `None` before that, because copying
/// the cache costs more than a few idle rows.
pub(crate) fn rows_to_keep(running: &[RunningSequence]) -> Option<Vec<usize>> {
    let keep: Vec<usize> = (0..running.len()).filter(|&row| !running[row].is_finished()).collect();
    (2 * keep.len() <= running.len()).then_some(keep)
}

#[cfg(test)]
mod tests {
    use fieldmark_model::RopePosition;
    use fieldmark_processor::Sequence;
    use fieldmark_stream::RandomStream;

    use super::*;
    use crate::config::GenerationConfig;

    fn request(responses: usize) -> Request {
        let prompt = Sequence { name: "prompt".into(), ids: vec![1], images: Vec::new() };
        Request { prompt, streams: vec![RandomStream::new(0, &[]); responses] }
    }

    #[test]
    fn batches_are_full_and_keep_the_order() {
        let requests = [2, 0, 4, 1].map(request);
        let batches = prefill_batches(&requests, 3);
        let shares: Vec<Vec<(usize, Range<usize>)>> =
            batches.into_iter().map(|batch| batch.into_iter().map(|s| (s.request, s.responses)).collect()).collect();
        assert_eq!(shares, [vec![(0, 0..2), (2, 0..1)], vec![(2, 1..4)], vec![(3, 0..1)]]);
        assert!(prefill_batches(&[request(0)], 3).is_empty());
    }

    #[test]
    fn rows_leave_once_half_are_finished() {
        let request = request(1);
        // The end token is 1: a sequence is finished if its logits favour it.
        let config = GenerationConfig::greedy(9, vec![1]);
        let keep = |finished: &[bool]| {
            let running: Vec<RunningSequence> = finished
                .iter()
                .map(|&finished| {
                    let mut sequence = RunningSequence::new((0, &request), 0, RopePosition(1), 0..1, 9);
                    sequence.append(if finished { &[0.0, 1.0] } else { &[1.0, 0.0] }, &config);
                    sequence
                })
                .collect();
            rows_to_keep(&running)
        };
        assert_eq!(keep(&[false, true, false]), None);
        assert_eq!(keep(&[true, false, true, false]), Some(vec![1, 3]));
        assert_eq!(keep(&[true, true]), Some(vec![]));
    }
}
