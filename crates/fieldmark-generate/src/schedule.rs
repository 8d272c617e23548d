//! The schedule: which responses join the batch next. They join in order, as soon as there is room.

use std::ops::Range;

use crate::request::Request;

/// The responses of one request that join the batch together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptShare {
    /// Index of the request.
    pub(crate) request: usize,
    /// Indices of the responses within the request.
    pub(crate) responses: Range<usize>,
}

/// The responses that wait for room.
#[derive(Debug)]
pub(crate) struct Queue {
    /// The number of responses to each request.
    counts: Vec<usize>,
    /// The next response: its request and its index within it.
    next: (usize, usize),
}

impl Queue {
    pub(crate) fn new(requests: &[Request]) -> Self {
        Self { counts: requests.iter().map(|request| request.streams.len()).collect(), next: (0, 0) }
    }

    /// Takes the next `room` responses, or all that are left.
    pub(crate) fn take(&mut self, mut room: usize) -> Vec<PromptShare> {
        let mut shares = Vec::new();
        while room > 0
            && let Some(&count) = self.counts.get(self.next.0)
        {
            let (request, first) = self.next;
            let taken = room.min(count - first);
            if taken > 0 {
                shares.push(PromptShare { request, responses: first..first + taken });
            }
            room -= taken;
            self.next = if first + taken == count { (request + 1, 0) } else { (request, first + taken) };
        }
        shares
    }

    /// Returns true if responses to `request` are still waiting though some have been taken.
    pub(crate) fn has_more_of(&self, request: usize) -> bool {
        self.next.0 == request && self.next.1 > 0
    }
}

#[cfg(test)]
mod tests {
    use fieldmark_processor::Sequence;
    use fieldmark_stream::RandomStream;

    use super::*;

    fn request(responses: usize) -> Request {
        let prompt = Sequence { name: "prompt".into(), ids: vec![1], images: Vec::new() };
        Request { prompt, streams: vec![RandomStream::new(0, &[]); responses] }
    }

    #[test]
    fn responses_join_in_order_and_fill_the_room() {
        let mut queue = Queue::new(&[2, 0, 4, 1].map(request));
        let mut take = |room| -> Vec<(usize, Range<usize>)> {
            queue.take(room).into_iter().map(|share| (share.request, share.responses)).collect()
        };
        assert_eq!(take(3), [(0, 0..2), (2, 0..1)]);
        assert_eq!(take(0), []);
        assert_eq!(take(2), [(2, 1..3)]);
        assert_eq!(take(9), [(2, 3..4), (3, 0..1)]);
        assert_eq!(take(9), []);
    }

    #[test]
    fn a_request_that_was_split_is_told_from_one_that_was_not() {
        let mut queue = Queue::new(&[2, 3].map(request));
        queue.take(2);
        assert!(!queue.has_more_of(0) && !queue.has_more_of(1));
        queue.take(1);
        assert!(queue.has_more_of(1));
        queue.take(2);
        assert!(!queue.has_more_of(1));
    }
}
