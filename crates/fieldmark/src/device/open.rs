//! Devices by name: `flex`, `cuda:0`, `vulkan`, `wgpu`, `metal`, `rocm`, of those that were compiled in.
//!
//! A driver that is missing shows only when a device is first used, and then as a panic inside Burn. So a device is tried
//! with three numbers, in a thread of its own, before it is handed out.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use burn::tensor::{
    Device, Tensor,
    distributed::{ReduceOperation, all_reduce},
};
use fieldmark_train::Reduction;

/// How long a device may take to add three numbers. A first use compiles kernels.
const PATIENCE: Duration = Duration::from_secs(180);

/// A kind of device, each with the cargo feature of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU.
    Flex,
    /// NVIDIA cards through CUDA.
    Cuda,
    /// Any GPU through Vulkan, shaders as SPIR-V.
    Vulkan,
    /// Any GPU through WebGPU, shaders as WGSL.
    Wgpu,
    /// Apple GPUs.
    Metal,
    /// AMD cards through ROCm.
    Rocm,
}

impl DeviceKind {
    /// All kinds, compiled in or not.
    pub const ALL: [Self; 6] = [Self::Flex, Self::Cuda, Self::Vulkan, Self::Wgpu, Self::Metal, Self::Rocm];

    /// Its name, which is also that of the cargo feature.
    pub fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Cuda => "cuda",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
            Self::Metal => "metal",
            Self::Rocm => "rocm",
        }
    }

    /// Whether this build has it.
    pub fn is_compiled(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Rocm => cfg!(feature = "rocm"),
        }
    }

    /// The kinds that this build has.
    pub fn compiled() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| kind.is_compiled())
    }

    fn handle(self, index: Option<usize>) -> Option<Device> {
        #[cfg(any(feature = "vulkan", feature = "wgpu", feature = "metal"))]
        let adapter = index.map_or(burn::tensor::DeviceKind::DefaultDevice, burn::tensor::DeviceKind::DiscreteGpu);
        #[cfg(any(feature = "cuda", feature = "rocm"))]
        let number = index.unwrap_or(0);
        let _ = index;
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => Some(Device::flex()),
            #[cfg(feature = "cuda")]
            Self::Cuda => Some(Device::cuda(number)),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Some(Device::vulkan(adapter)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Some(Device::wgpu(adapter)),
            #[cfg(feature = "metal")]
            Self::Metal => Some(Device::metal(adapter)),
            #[cfg(feature = "rocm")]
            Self::Rocm => Some(Device::rocm(number)),
            #[allow(unreachable_patterns)]
            _ => None,
        }
    }
}

/// Why there is no such device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No device has this name.
    #[error("device `{name}` is unknown{suggestion}; this build has {available}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// ": did you mean ...?", or nothing.
        suggestion: String,
        /// What there is.
        available: String,
    },
    /// The device exists, but not in this build.
    #[error(
        "device `{name}` is not in this build, which has {available}; build with `cargo build --release --features {name}`"
    )]
    NotCompiled {
        /// The kind asked for.
        name: &'static str,
        /// What there is.
        available: String,
    },
    /// What stands after the colon is no index.
    #[error("device `{name}`: {reason}")]
    Index {
        /// What was asked for.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// The devices do not add up together.
    #[error(
        "devices `{names}` have no all-reduce: {reason}; check that NCCL is installed, or set `run.reduction` to \"gather\""
    )]
    AllReduce {
        /// What was asked for.
        names: String,
        /// What happened.
        reason: String,
    },
    /// The device is in this build but does not work on this machine.
    #[error("device `{name}` does not start: {reason}; check its driver, or use {others}")]
    Start {
        /// What was asked for.
        name: String,
        /// What happened.
        reason: String,
        /// The other devices of this build.
        others: String,
    },
}

/// A device that has been tried.
#[derive(Debug, Clone)]
pub struct OpenDevice {
    /// What it was asked for as ("cuda:0").
    pub name: String,
    /// Its kind.
    pub kind: DeviceKind,
    /// The device, without autodiff.
    pub device: Device,
}

/// The device that is used where none is named: `flex`, or the first that this build has.
pub fn default_name() -> &'static str {
    DeviceKind::compiled().next().map_or("flex", DeviceKind::name)
}

/// Opens a device by name and tries it.
///
/// # Errors
/// If the name is unknown, not compiled in, or the device does not start.
///
/// ```
/// # #[cfg(feature = "flex")] {
/// let open = fieldmark::device::open("flex")?;
/// assert_eq!(open.kind, fieldmark::device::DeviceKind::Flex);
/// # }
/// assert!(fieldmark::device::open("flx").unwrap_err().to_string().contains("did you mean `flex`?"));
/// # Ok::<(), fieldmark::device::DeviceError>(())
/// ```
pub fn open(name: &str) -> Result<OpenDevice, DeviceError> {
    let (kind, index) = parse(name)?;
    let not_compiled = || DeviceError::NotCompiled { name: kind.name(), available: list(DeviceKind::compiled()) };
    if !kind.is_compiled() {
        return Err(not_compiled());
    }
    let device = kind.handle(index).ok_or_else(not_compiled)?;
    let tried = device.clone();
    let sum = attempt(move || Tensor::<1>::from_floats([1.0, 2.0, 3.0], &tried).sum().into_scalar::<f32>());
    let start = |reason: String| DeviceError::Start {
        name: name.into(),
        reason,
        others: list(DeviceKind::compiled().filter(|other| *other != kind)),
    };
    match sum {
        Ok(6.0) => Ok(OpenDevice { name: name.into(), kind, device }),
        Ok(wrong) => Err(start(format!("1 + 2 + 3 gives {wrong} on it"))),
        Err(reason) => Err(start(reason)),
    }
}

/// Opens several devices, named with commas between them (`cuda:0,cuda:1`), for a stage that spreads its work.
///
/// # Errors
/// As [`open`], of the first that is wrong; and if two are the same.
pub fn open_all(names: &str) -> Result<Vec<OpenDevice>, DeviceError> {
    let mut opened: Vec<OpenDevice> = Vec::new();
    for name in names.split(',').map(str::trim) {
        if let Some(known) = opened.iter().find(|known| known.name == name) {
            return Err(DeviceError::Index { name: known.name.clone(), reason: "is named twice".into() });
        }
        opened.push(open(name)?);
    }
    Ok(opened)
}

/// `asked`, where these devices can: an all-reduce is for several CUDA cards, and is tried before it is promised.
///
/// # Errors
/// If the cards cannot add up three numbers.
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

/// Every device's all-reduced sum of 1 on the first, 2 on the second and so on.
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

fn parse(name: &str) -> Result<(DeviceKind, Option<usize>), DeviceError> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, Some(index)),
        None => (name, None),
    };
    if name.contains(',') {
        let reason = "only sft and tapo run on several devices; name one";
        return Err(DeviceError::Index { name: name.into(), reason: reason.into() });
    }
    let Some(kind) = DeviceKind::ALL.into_iter().find(|known| known.name() == kind) else {
        let nearest = nearest(kind, DeviceKind::ALL.map(DeviceKind::name));
        return Err(DeviceError::Unknown {
            name: name.into(),
            suggestion: nearest.map_or(String::new(), |near| format!(": did you mean `{near}`?")),
            available: list(DeviceKind::compiled()),
        });
    };
    let refuse = |reason: &str| Err(DeviceError::Index { name: name.into(), reason: reason.into() });
    match (kind, index.map(str::parse)) {
        (_, None) => Ok((kind, None)),
        (DeviceKind::Flex, Some(_)) => refuse("flex is the whole CPU and takes no number"),
        (_, Some(Ok(index))) => Ok((kind, Some(index))),
        (_, Some(Err(_))) => refuse("after the colon stands the number of the card, as in `cuda:0`"),
    }
}

fn list(kinds: impl Iterator<Item = DeviceKind>) -> String {
    let names: Vec<&str> = kinds.map(DeviceKind::name).collect();
    if names.is_empty() { "no other".into() } else { names.join(", ") }
}

/// The known word most like `word`, if any is close.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|name| (strsim::damerau_levenshtein(word, name), name));
    scored
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, name)| *distance <= 1 + name.len() / 3)
        .map(|(_, name)| name)
}

/// Runs `work` in a thread where a panic is an error and prints nothing.
///
/// # Errors
/// The panic's message, or that nothing came back in time.
pub fn attempt<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    // The panic hook is the process's: two attempts at once would restore each other's.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (send, receive) = mpsc::channel();
    let before = panic::take_hook();
    // Backends panic in threads of their own as well, whose messages would stand above the error.
    panic::set_hook(Box::new(|_| ()));
    let spawned = thread::Builder::new().name("device".into()).spawn(move || {
        let outcome = panic::catch_unwind(AssertUnwindSafe(work));
        // The receiver is gone if the time is over.
        let _ = send.send(outcome.map_err(|cause| panic_message(cause.as_ref())));
    });
    let outcome = match spawned {
        Ok(_) => receive.recv_timeout(PATIENCE),
        Err(error) => Ok(Err(error.to_string())),
    };
    panic::set_hook(before);
    match outcome {
        Ok(outcome) => outcome,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("no answer within {} seconds", PATIENCE.as_secs())),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("its thread ended without an answer".into()),
    }
}

/// A panic's message in one line, cut where it goes on for long.
pub fn panic_message(cause: &(dyn std::any::Any + Send)) -> String {
    const LONGEST: usize = 300;
    let text = cause.downcast_ref::<&str>().copied().or_else(|| cause.downcast_ref::<String>().map(String::as_str));
    // Burn frames its messages with banners.
    let words = text.unwrap_or_default().split_whitespace().filter(|word| !word.chars().all(|c| c == '='));
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        _ if line.is_empty() => "unknown cause".into(),
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kinds_and_numbers() {
        assert_eq!(parse("flex").unwrap(), (DeviceKind::Flex, None));
        assert_eq!(parse("cuda:3").unwrap(), (DeviceKind::Cuda, Some(3)));
        for (name, says) in [
            ("cude", "did you mean `cuda`?"),
            ("tpu-pod", "is unknown; this build has"),
            ("cuda:x", "as in `cuda:0`"),
            ("cuda:-1", "as in `cuda:0`"),
            ("flex:0", "takes no number"),
            ("cuda:0,cuda:1", "only sft and tapo run on several devices"),
            ("", "is unknown"),
        ] {
            let error = parse(name).unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn a_list_is_opened_in_its_order_and_names_nothing_twice() {
        assert_eq!(open_all("flex").unwrap().len(), 1);
        assert!(open_all("flex, flex").unwrap_err().to_string().contains("device `flex`: is named twice"));
        assert!(open_all("flex,cude").unwrap_err().to_string().contains("did you mean `cuda`?"));
    }

    #[cfg(feature = "flex")]
    #[test]
    fn only_several_cards_reduce_together() {
        let cpu = open("flex").unwrap();
        for devices in [vec![cpu.clone()], vec![cpu.clone(), cpu]] {
            assert_eq!(reduction(&devices, Reduction::AllReduce).unwrap(), Reduction::Gather);
        }
    }

    #[test]
    fn what_is_not_compiled_says_which_feature_to_add() {
        for kind in DeviceKind::ALL.into_iter().filter(|kind| !kind.is_compiled()) {
            let error = open(kind.name()).unwrap_err().to_string();
            assert!(error.contains(&format!("--features {}", kind.name())), "{error}");
        }
    }

    #[test]
    fn a_panic_of_the_backend_is_an_error_of_one_line() {
        assert_eq!(attempt(|| 6), Ok(6));
        let error = attempt(|| -> u8 { panic!("\n=== Error ===\n driver missing\n") });
        assert_eq!(error, Err("Error driver missing".into()));
        let nested = attempt(|| thread::spawn(|| panic!("inside")).join().map_err(|_| ()).unwrap_or(1));
        assert_eq!(nested, Ok(1));
    }
}
