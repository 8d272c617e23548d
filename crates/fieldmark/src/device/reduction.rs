//! How several devices add up their gradients, tried before a run relies on it.

use std::{panic, thread};

use burn::tensor::{
    Device, Tensor,
    distributed::{ReduceOperation, all_reduce},
};
use fieldmark_train::parallel::Reduction;

use super::{attempt::attempt, error::DeviceError, kind::DeviceKind, open::OpenDevice};

/// The reduction that `devices` use: `asked` for several CUDA cards, after a trial; gathering for all others.
///
/// # Errors
/// Returns an error if the cards fail the trial.
pub fn reduction(devices: &[OpenDevice], asked: Reduction) -> Result<Reduction, DeviceError> {
    let cards = devices.len() > 1 && devices.iter().all(|open| open.kind == DeviceKind::Cuda);
    if !cards || asked == Reduction::Gather {
        return Ok(Reduction::Gather);
    }
    let handles: Vec<Device> = devices.iter().map(|open| open.device.clone()).collect();
    let want = (1 + handles.len()) as f32 * handles.len() as f32 / 2.0;
    let reason = match attempt(move || sum_over(&handles)) {
        Ok(sums) if sums.iter().all(|sum| *sum == want) => return Ok(Reduction::AllReduce),
        Ok(sums) => format!("their sum of {want} came out as {sums:?}"),
        Err(reason) => reason,
    };
    let names: Vec<&str> = devices.iter().map(|open| open.name.as_str()).collect();
    Err(DeviceError::AllReduce { names: names.join(","), reason })
}

/// What each device gets for the sum of 1 on the first device, 2 on the second and so on.
fn sum_over(devices: &[Device]) -> Vec<f32> {
    thread::scope(|scope| {
        let start = |(i, device): (usize, &Device)| {
            let own = Tensor::<1>::full([1], i as f32 + 1.0, device);
            let all = devices.to_vec();
            scope.spawn(move || all_reduce(own, ReduceOperation::Sum, all).resolve().into_scalar::<f32>())
        };
        let handles: Vec<_> = devices.iter().enumerate().map(start).collect();
        let join = |handle: thread::ScopedJoinHandle<'_, f32>| match handle.join() {
            Ok(sum) => sum,
            Err(cause) => panic::resume_unwind(cause),
        };
        handles.into_iter().map(join).collect()
    })
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::device::open::open;

    #[test]
    fn only_several_cards_reduce_together() {
        let cpu = open("flex").unwrap();
        for devices in [vec![cpu.clone()], vec![cpu.clone(), cpu]] {
            assert_eq!(reduction(&devices, Reduction::AllReduce).unwrap(), Reduction::Gather);
        }
    }
}
