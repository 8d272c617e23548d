//! Computes micro-batches and rollouts in parallel: on several devices, with several workers on each. On a CPU most of
//! a step outside matrix products runs on one thread, so two micro-batches on two threads use two cores. Each worker
//! has its own leaves of the same parameters (`Module::fork`). Each device adds its gradients in the order of its
//! items, whichever finishes first; then [`Reduction`] sums the devices. So any number of workers gives the same bits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use burn::{module::Module, optim::GradientsParams, tensor::Device};
use fieldmark_model::Qwen25Vl;

use super::reduction::{Reduction, reduce};
use crate::{TrainError, gradient::GradientSum};

/// The devices that a training step is spread over, and the workers on each. The first device holds the model and the
/// optimiser's state.
///
/// Burn's `DistributedContext` would reduce each parameter in every backward pass. Here a micro-batch has one pass per
/// block and an update has many micro-batches, so the sums are reduced once per update with the underlying
/// `all_reduce`.
#[derive(Debug, Clone)]
pub struct Replicas {
    devices: Vec<Device>,
    workers: usize,
    reduction: Reduction,
}

impl Replicas {
    /// Creates `workers` workers (at least 1) on `device`.
    pub fn new(workers: usize, device: &Device) -> Self {
        Self { devices: vec![device.clone()], workers: workers.max(1), reduction: Reduction::Gather }
    }

    /// Adds the devices `others`, with as many workers on each. Items go to the devices in turn; `reduction` sums their
    /// gradients.
    #[must_use]
    pub fn with_devices(mut self, others: &[Device], reduction: Reduction) -> Self {
        self.devices.extend_from_slice(others);
        Self { reduction, ..self }
    }

    /// Returns a copy whose devices do not track gradients.
    pub(crate) fn without_autodiff(&self) -> Self {
        Self { devices: self.devices.iter().map(|device| device.clone().without_autodiff()).collect(), ..self.clone() }
    }

    /// Number of workers on all devices together.
    pub fn len(&self) -> usize {
        self.devices.len() * self.workers
    }

    /// Always returns false, because there is at least one worker.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Returns the device that holds the model.
    pub fn main(&self) -> &Device {
        &self.devices[0]
    }

    /// Number of workers that `items` items keep busy, at least 1.
    fn active(&self, items: usize) -> usize {
        self.len().clamp(1, items.max(1))
    }

    /// Returns the index of the device of item `item` of `items`: worker w of n takes items w, w + n, w + 2n and so on,
    /// and the workers belong to the devices in turn.
    fn device_of(&self, item: usize, items: usize) -> usize {
        item % self.active(items) % self.devices.len()
    }
}

/// Like [`on_replicas`], for work that adds gradients; also returns their sum. One worker adds gradients directly to
/// the sum. Each of several workers on a device keeps the gradients of its item until it is that item's turn.
pub(crate) fn sum_on_replicas<T: Sync, R: Send>(
    model: &Qwen25Vl,
    items: &[T],
    replicas: &Replicas,
    work: impl Fn(&Qwen25Vl, &T, &Device, &mut GradientSum) -> Result<R, TrainError> + Sync,
) -> Result<(Vec<R>, GradientsParams), TrainError> {
    if replicas.active(items.len()) == 1 {
        let mut sum = GradientSum::new();
        let main = replicas.main();
        let found = items.iter().map(|item| work(model, item, main, &mut sum)).collect::<Result<_, _>>()?;
        return Ok((found, sum.into_grads()));
    }
    let mut sums: Vec<Turns> = replicas.devices.iter().map(|_| Turns::default()).collect();
    let mut placed = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let device = replicas.device_of(i, items.len());
        placed.push((device, sums[device].items, item));
        sums[device].items += 1;
    }
    let found = on_replicas(model, &placed, replicas, |replica, &(place, item, given), device| {
        let turn = Turn { turns: &sums[place], item };
        let mut own = GradientSum::new();
        let found = work(replica, given, device, &mut own);
        turn.take(|sum| sum.add(replica, own.into_grads()));
        found
    })?;
    let used = sums.into_iter().filter(|turns| turns.items > 0);
    let sums: Vec<GradientsParams> = used.map(Turns::into_grads).collect();
    let devices = &replicas.devices[..sums.len()];
    Ok((found, reduce(model, sums, devices, replicas.reduction)))
}

/// Lets the items of a device change its sum in their order.
#[derive(Default)]
struct Turns {
    items: usize,
    /// The item whose turn it is, and the sum.
    state: Mutex<(usize, GradientSum)>,
    changed: Condvar,
}

impl Turns {
    fn into_grads(self) -> GradientsParams {
        let (_, sum) = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        sum.into_grads()
    }
}

/// The turn of one item. It ends when this is dropped, even after a panic: otherwise the others would wait for ever.
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

/// Runs `work` on every item and returns the results in order. Worker w of n takes items w, w + n, w + 2n and so on.
pub(crate) fn on_replicas<T: Sync, R: Send>(
    model: &Qwen25Vl,
    items: &[T],
    replicas: &Replicas,
    work: impl Fn(&Qwen25Vl, &T, &Device) -> Result<R, TrainError> + Sync,
) -> Result<Vec<R>, TrainError> {
    on_replicas_telling(model, items, replicas, |model, item, device, _| work(model, item, device), &mut |()| ())
}

/// Like [`on_replicas`], for work that says how far it is: `hear` receives what the workers tell, on this thread, while
/// they work.
pub(crate) fn on_replicas_telling<T: Sync, R: Send, M: Send>(
    model: &Qwen25Vl,
    items: &[T],
    replicas: &Replicas,
    work: impl Fn(&Qwen25Vl, &T, &Device, &mut dyn FnMut(M)) -> Result<R, TrainError> + Sync,
    hear: &mut dyn FnMut(M),
) -> Result<Vec<R>, TrainError> {
    let workers = replicas.active(items.len());
    if workers == 1 {
        return items.iter().map(|item| work(model, item, replicas.main(), hear)).collect();
    }
    let work = &work;
    let mut shares: Vec<Vec<Result<R, TrainError>>> = std::thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let handles: Vec<_> = (0..workers)
            .map(|worker| {
                let device = &replicas.devices[worker % replicas.devices.len()];
                let (replica, tell) = (model.clone().fork(device), tell.clone());
                scope.spawn(move || {
                    // Nobody listens any more only if this thread's owner panicked.
                    let mut tell = |message| drop(tell.send(message));
                    let items = items.iter().skip(worker).step_by(workers);
                    items.map(|item| work(&replica, item, device, &mut tell)).collect()
                })
            })
            .collect();
        drop(tell);
        told.iter().for_each(hear);
        let join = |handle: std::thread::ScopedJoinHandle<'_, Vec<_>>| match handle.join() {
            Ok(share) => share,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        handles.into_iter().map(join).collect()
    });
    shares.iter_mut().for_each(|share| share.reverse());
    (0..items.len()).filter_map(|item| shares[item % workers].pop()).collect()
}
