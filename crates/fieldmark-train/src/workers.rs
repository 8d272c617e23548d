//! Micro-batches side by side: on a CPU most of a training step outside matrix products runs on one thread, so two
//! micro-batches on two threads use two cores.
//!
//! Each worker has its own leaves of the same parameters (`Module::fork`), so that the tapes stay apart; parameter ids are
//! the same, so gradients add up. Results come, and gradients are added, in the order of the items, whatever finishes
//! first: any number of workers gives the same bits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use burn::{module::Module, optim::GradientsParams, tensor::Device};
use fieldmark_model::Qwen25Vl;

use crate::{GradientSum, TrainError};

/// [`on_replicas`] for work that adds gradients; returns the results and the sum. With one worker gradients go straight
/// into the sum; each further worker holds those of one item until its turn comes.
pub(crate) fn sum_on_replicas<T: Sync, R: Send>(
    model: &Qwen25Vl,
    items: &[T],
    workers: usize,
    device: &Device,
    work: impl Fn(&Qwen25Vl, &T, &mut GradientSum) -> Result<R, TrainError> + Sync,
) -> Result<(Vec<R>, GradientsParams), TrainError> {
    let mut sum = GradientSum::new();
    if workers.min(items.len()) <= 1 {
        let found = items.iter().map(|item| work(model, item, &mut sum)).collect::<Result<_, _>>()?;
        return Ok((found, sum.into_grads()));
    }
    let numbered: Vec<(usize, &T)> = items.iter().enumerate().collect();
    let turns = Turns { state: Mutex::new((0, sum)), changed: Condvar::new() };
    let found = on_replicas(model, &numbered, workers, device, |replica, (i, item)| {
        let turn = Turn { turns: &turns, item: *i };
        let mut own = GradientSum::new();
        let found = work(replica, item, &mut own);
        turn.take(|sum| sum.add(replica, own.into_grads()));
        found
    })?;
    let (_, sum) = turns.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((found, sum.into_grads()))
}

/// Lets items act on a sum in their order.
struct Turns {
    state: Mutex<(usize, GradientSum)>,
    changed: Condvar,
}

/// The turn of one item. It passes when this is dropped, after a panic too, or the others would wait for ever.
struct Turn<'a> {
    turns: &'a Turns,
    item: usize,
}

impl Turn<'_> {
    fn take(self, act: impl FnOnce(&mut GradientSum)) {
        act(&mut self.wait().1);
    }

    fn wait(&self) -> MutexGuard<'_, (usize, GradientSum)> {
        let state = self.turns.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = self.turns.changed.wait_while(state, |(next, _)| *next < self.item);
        waiting.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.wait().0 += 1;
        self.turns.changed.notify_all();
    }
}

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
