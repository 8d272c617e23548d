//! Sums the gradients of several devices on the first one, with Burn's all-reduce or by moving them there.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::{
        Device, Tensor,
        distributed::{ReduceOperation, all_reduce},
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the gradients of several devices are summed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// The backend's collective operations (`all_reduce`). In Burn 0.22 only CUDA has them, through NCCL; other
    /// backends panic.
    AllReduce,
    /// Each device's sum is moved to the first device and added there, in the order of the devices. Works on any
    /// device.
    #[default]
    Gather,
}

/// Adds up `sums`, one per entry of `devices`, on the first device. If a device has no gradient for a parameter, it
/// counts as zeros.
///
/// # Panics
/// Panics if `reduction` is [`Reduction::AllReduce`] and a device has no all-reduce.
pub(crate) fn reduce<M: Module + Sync>(
    model: &M,
    sums: Vec<GradientsParams>,
    devices: &[Device],
    reduction: Reduction,
) -> GradientsParams {
    let devices: Vec<Device> = devices.iter().map(|device| device.clone().without_autodiff()).collect();
    match reduction {
        Reduction::Gather => gather(model, sums, &devices[0]),
        Reduction::AllReduce => collect(model, sums, &devices, &Backend),
    }
}

fn gather<M: Module>(model: &M, sums: Vec<GradientsParams>, main: &Device) -> GradientsParams {
    let mut gathered = GradientsParams::new();
    for sum in sums {
        let mut sum = sum.to_device(main, model);
        model.visit(&mut Merge { into: &mut gathered, from: &mut sum });
    }
    gathered
}

struct Merge<'a> {
    into: &'a mut GradientsParams,
    from: &'a mut GradientsParams,
}

impl ModuleVisitor for Merge<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.from.remove::<D>(param.id) else { return };
        let sum = match self.into.remove::<D>(param.id) {
            Some(sum) => sum + grad,
            None => grad,
        };
        self.into.register(param.id, sum);
    }
}

/// The collective operation of a device. Tests bring their own, because the CPU has none.
trait Collective: Sync {
    /// Starts the sum of `grad` over all `devices`. The returned function waits for the result.
    fn sum<const D: usize>(&self, grad: Tensor<D>, devices: &[Device]) -> impl FnOnce() -> Tensor<D> + 'static;
}

/// The backend's own operation.
struct Backend;

impl Collective for Backend {
    fn sum<const D: usize>(&self, grad: Tensor<D>, devices: &[Device]) -> impl FnOnce() -> Tensor<D> + 'static {
        let under_way = all_reduce(grad, ReduceOperation::Sum, devices.to_vec());
        move || under_way.resolve()
    }
}

/// Runs one thread per device, because a collective operation may wait for the other devices to reach it.
fn collect<M: Module + Sync>(
    model: &M,
    mut sums: Vec<GradientsParams>,
    devices: &[Device],
    collective: &impl Collective,
) -> GradientsParams {
    model.visit(&mut Complete { sums: &mut sums, devices });
    let reduced: Vec<GradientsParams> = std::thread::scope(|scope| {
        let start = |sum| scope.spawn(move || reduce_one(model, sum, devices, collective));
        let handles: Vec<_> = sums.into_iter().map(start).collect();
        let join = |handle: std::thread::ScopedJoinHandle<'_, _>| match handle.join() {
            Ok(reduced) => reduced,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        handles.into_iter().map(join).collect()
    });
    reduced.into_iter().next().unwrap_or_default()
}

/// One device's part in the reduction. It starts the operations of all parameters before it waits for the first.
fn reduce_one<M: Module>(
    model: &M,
    sum: GradientsParams,
    devices: &[Device],
    collective: &impl Collective,
) -> GradientsParams {
    let mut pass = AllReduce { sum, devices, collective, pending: Vec::new() };
    model.visit(&mut pass);
    let mut reduced = GradientsParams::new();
    pass.pending.into_iter().for_each(|resolve| resolve(&mut reduced));
    reduced
}

/// Gives a device zeros for parameters that only other devices have a gradient of. Without them the collective
/// operation would wait for ever.
struct Complete<'a> {
    sums: &'a mut [GradientsParams],
    devices: &'a [Device],
}

impl ModuleVisitor for Complete<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let found = self.sums.iter().find_map(|sum| sum.get::<D>(param.id));
        let Some((shape, dtype)) = found.map(|grad| (grad.shape(), grad.dtype())) else { return };
        for (sum, device) in self.sums.iter_mut().zip(self.devices) {
            if sum.get::<D>(param.id).is_none() {
                sum.register(param.id, Tensor::<D>::zeros(shape.clone(), (device, dtype)));
            }
        }
    }
}

/// Waits for one parameter's sum and stores it.
type Finish = Box<dyn FnOnce(&mut GradientsParams)>;

struct AllReduce<'a, C> {
    sum: GradientsParams,
    devices: &'a [Device],
    collective: &'a C,
    pending: Vec<Finish>,
}

impl<C: Collective> ModuleVisitor for AllReduce<'_, C> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.sum.remove::<D>(param.id) else { return };
        let (id, finish) = (param.id, self.collective.sum(grad, self.devices));
        self.pending.push(Box::new(move |reduced| reduced.register(id, finish())));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::{Arc, Condvar, Mutex},
        thread::{self, ThreadId},
        time::Duration,
    };

    use burn::nn::{Linear, LinearConfig};

    use super::*;

    /// Adds up the first tensors that each thread brings, then the second ones and so on.
    #[derive(Default)]
    struct InOneProcess(Arc<(Mutex<Brought>, Condvar)>);

    /// The tensors of each thread.
    type Brought = HashMap<ThreadId, Vec<Vec<f32>>>;

    impl Collective for InOneProcess {
        fn sum<const D: usize>(&self, grad: Tensor<D>, devices: &[Device]) -> impl FnOnce() -> Tensor<D> + 'static {
            let (brought, ranks, shape, device) = (self.0.clone(), devices.len(), grad.shape(), grad.device());
            let round = {
                let mut all = brought.0.lock().unwrap();
                let own = all.entry(thread::current().id()).or_default();
                own.push(grad.into_data().try_to_vec().unwrap());
                brought.1.notify_all();
                own.len() - 1
            };
            move || {
                let missing = |all: &mut Brought| all.values().filter(|own| own.len() > round).count() < ranks;
                let all = brought.0.lock().unwrap();
                let (all, late) = brought.1.wait_timeout_while(all, Duration::from_secs(5), missing).unwrap();
                assert!(!late.timed_out(), "a device never came to round {round}");
                let mut sum = vec![0.0; shape.num_elements()];
                for own in all.values() {
                    assert_eq!(own[round].len(), sum.len(), "round {round} is about different parameters");
                    sum.iter_mut().zip(&own[round]).for_each(|(sum, x)| *sum += x);
                }
                Tensor::<1>::from_floats(&sum[..], &device).reshape(shape)
            }
        }
    }

    fn grads(linear: &Linear, weight: Option<f32>, bias: Option<f32>) -> GradientsParams {
        let (mut grads, device) = (GradientsParams::new(), Device::flex());
        weight.into_iter().for_each(|x| grads.register(linear.weight.id, Tensor::<2>::full([2, 3], x, &device)));
        let id = linear.bias.as_ref().unwrap().id;
        bias.into_iter().for_each(|x| grads.register(id, Tensor::<1>::full([3], x, &device)));
        grads
    }

    /// All values of the weight's and the bias's gradient.
    fn values(linear: &Linear, grads: &GradientsParams) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
        let weight = grads.get::<2>(linear.weight.id).map(|grad| grad.into_data().try_to_vec().unwrap());
        let bias = grads.get::<1>(linear.bias.as_ref().unwrap().id);
        (weight, bias.map(|grad| grad.into_data().try_to_vec().unwrap()))
    }

    #[test]
    fn both_ways_add_up_what_any_device_has_a_gradient_of() {
        let linear: Linear = LinearConfig::new(2, 3).init(&Device::flex());
        let devices = [Device::flex(), Device::flex(), Device::flex()];
        let cases = [
            ([(Some(1.0), Some(4.0)), (Some(2.0), Some(8.0)), (Some(0.5), None)], (Some(3.5), Some(12.0))),
            ([(None, Some(4.0)), (Some(2.0), None), (None, None)], (Some(2.0), Some(4.0))),
            ([(None, Some(1.0)), (None, Some(2.0)), (None, None)], (None, Some(3.0))),
        ];
        for (sums, (weight, bias)) in cases {
            let sums = || sums.iter().map(|&(weight, bias)| grads(&linear, weight, bias)).collect();
            let expected = (weight.map(|x| vec![x; 6]), bias.map(|x| vec![x; 3]));
            let gathered = reduce(&linear, sums(), &devices, Reduction::Gather);
            assert_eq!(values(&linear, &gathered), expected);
            let collected = collect(&linear, sums(), &devices, &InOneProcess::default());
            assert_eq!(values(&linear, &collected), expected);
        }
    }
}
