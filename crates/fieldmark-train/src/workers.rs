//! Micro-batches side by side: on a CPU most of a training step outside matrix products runs on one thread, so two
//! micro-batches on two threads use two cores.
//!
//! Each worker has its own leaves of the same parameters (`Module::fork`), so that the tapes stay apart; parameter ids are
//! the same, so gradients add up. Results come in the order of the items, whatever finishes first.

use burn::{module::Module, tensor::Device};
use fieldmark_model::Qwen25Vl;

use crate::TrainError;

/// `work` on every item; worker w of n takes items w, w + n, w + 2n and so on.
pub(crate) fn on_replicas<T: Sync, R: Send>(
    model: &Qwen25Vl,
    items: &[T],
    workers: usize,
    device: &Device,
    work: impl Fn(&Qwen25Vl, &T) -> Result<R, TrainError> + Sync,
) -> Result<Vec<R>, TrainError> {
    let workers = workers.clamp(1, items.len().max(1));
    if workers == 1 {
        return items.iter().map(|item| work(model, item)).collect();
    }
    let work = &work;
    let mut shares: Vec<Vec<Result<R, TrainError>>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..workers)
            .map(|worker| {
                let replica = model.clone().fork(device);
                scope.spawn(move || {
                    items.iter().skip(worker).step_by(workers).map(|item| work(&replica, item)).collect()
                })
            })
            .collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, Vec<_>>| match handle.join() {
            Ok(share) => share,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        handles.into_iter().map(join).collect()
    });
    shares.iter_mut().for_each(|share| share.reverse());
    (0..items.len()).filter_map(|item| shares[item % workers].pop()).collect()
}
