//! Micro-batches and rollouts side by side: several devices, and several workers on each. On a CPU most of a training step
//! outside matrix products runs on one thread, so two micro-batches on two threads use two cores.
//!
//! Each worker has its own leaves of the same parameters (`Module::fork`); gradients move to the first device and are added
//! in the order of the items, whatever finishes first: any number of workers or equal devices gives the same bits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use burn::{module::Module, optim::GradientsParams, tensor::Device};
use fieldmark_model::Qwen25Vl;

use crate::{GradientSum, TrainError};

/// The devices that a training step is spread over, each as often as it has workers. The first holds the model and the
/// optimiser's state.
///
/// Burn's `DistributedContext` would reduce each parameter inside every backward pass; here a micro-batch has a pass for
/// each block and an update many micro-batches, so their sum is reduced, once a micro-batch and parameter.
#[derive(Debug, Clone)]
pub struct Replicas {
    devices: Vec<Device>,
}

impl Replicas {
    /// `workers` (at least 1) on `device`.
    pub fn new(workers: usize, device: &Device) -> Self {
        Self { devices: vec![device.clone(); workers.max(1)] }
    }

    /// The same with as many workers on each of `others` too. Devices take turns.
    #[must_use]
    pub fn with_devices(self, others: &[Device]) -> Self {
        let main = &self.devices[0];
        let each = std::iter::once(main).chain(others);
        Self { devices: self.devices.iter().flat_map(|_| each.clone().cloned()).collect() }
    }

    /// The same without gradients.
    pub(crate) fn without_autodiff(&self) -> Self {
        Self { devices: self.devices.iter().map(|device| device.clone().without_autodiff()).collect() }
    }

    /// Workers on all devices together.
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// Never: there is at least one worker.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// The device of the model.
    pub fn main(&self) -> &Device {
        &self.devices[0]
    }
}

/// [`on_replicas`] for work that adds gradients; returns the results and the sum. With one worker gradients go straight
/// into the sum; each further worker holds those of one item until its turn comes.
pub(crate) fn sum_on_replicas<T: Sync, R: Send>(
    model: &Qwen25Vl,
    items: &[T],
    replicas: &Replicas,
    work: impl Fn(&Qwen25Vl, &T, &Device, &mut GradientSum) -> Result<R, TrainError> + Sync,
) -> Result<(Vec<R>, GradientsParams), TrainError> {
    let mut sum = GradientSum::new();
    let main = replicas.main();
    if replicas.len().min(items.len()) <= 1 {
        let found = items.iter().map(|item| work(model, item, main, &mut sum)).collect::<Result<_, _>>()?;
        return Ok((found, sum.into_grads()));
    }
    let numbered: Vec<(usize, &T)> = items.iter().enumerate().collect();
    let turns = Turns { state: Mutex::new((0, sum)), changed: Condvar::new() };
    let found = on_replicas(model, &numbered, replicas, |replica, (i, item), device| {
        let turn = Turn { turns: &turns, item: *i };
        let mut own = GradientSum::new();
        let found = work(replica, item, device, &mut own);
        let mut grads = own.into_grads();
        if device != main {
            grads = grads.to_device(&main.clone().without_autodiff(), replica);
        }
        turn.take(|sum| sum.add(replica, grads));
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
    replicas: &Replicas,
    work: impl Fn(&Qwen25Vl, &T, &Device) -> Result<R, TrainError> + Sync,
) -> Result<Vec<R>, TrainError> {
    let workers = replicas.len().clamp(1, items.len().max(1));
    if workers == 1 {
        return items.iter().map(|item| work(model, item, replicas.main())).collect();
    }
    let work = &work;
    let mut shares: Vec<Vec<Result<R, TrainError>>> = std::thread::scope(|scope| {
        let handles: Vec<_> = replicas.devices[..workers]
            .iter()
            .enumerate()
            .map(|(worker, device)| {
                let replica = model.clone().fork(device);
                scope.spawn(move || {
                    items.iter().skip(worker).step_by(workers).map(|item| work(&replica, item, device)).collect()
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
