//! Opening devices by name: `flex`, `cuda:0`, `vulkan`, `wgpu`, `metal`, `rocm`.
//!
//! A missing driver shows only on first use, as a panic inside Burn. So every device computes with three numbers in a thread
//! of its own before it is handed out.

use burn::tensor::{Device, Tensor};

use super::{
    attempt::attempt,
    error::DeviceError,
    kind::{DeviceKind, list},
};
use crate::nearest::nearest;

/// A device that has been tried and works.
#[derive(Debug, Clone)]
pub struct OpenDevice {
    /// The name given, such as "cuda:0".
    pub name: String,
    /// The kind of device.
    pub kind: DeviceKind,
    /// Burn's device, without autodiff.
    pub device: Device,
}

/// Opens a device by name and tries it.
///
/// # Errors
/// Returns an error if the name is unknown, the device is not compiled in, or it does not start.
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
    // CUDA has no instruction for `exp` and `log`: a kernel with them also needs a file of the toolkit.
    let sum = attempt(move || Tensor::<1>::from_floats([1.0, 2.0, 3.0], &tried).exp().log().sum().into_scalar::<f32>());
    let start = |reason: String| DeviceError::Start {
        name: name.into(),
        reason,
        needs: kind.needs(),
        others: list(DeviceKind::compiled().filter(|other| *other != kind)),
    };
    match sum {
        Ok(sum) if (sum - 6.0).abs() < 1e-2 => Ok(OpenDevice { name: name.into(), kind, device }),
        Ok(wrong) => Err(start(format!("the logarithms of exp(1), exp(2) and exp(3) add up to {wrong}"))),
        Err(reason) => Err(start(reason)),
    }
}

/// Opens the devices of a list such as `cuda:0,cuda:1`, for a stage that spreads its work over them.
///
/// # Errors
/// Returns the first error of [`open`], or an error if a device is listed twice.
pub fn open_all(names: &str) -> Result<Vec<OpenDevice>, DeviceError> {
    let mut opened: Vec<OpenDevice> = Vec::new();
    for name in names.split(',').map(str::trim) {
        if let Some(known) = opened.iter().find(|known| known.name == name) {
            return Err(DeviceError::Index { name: known.name.clone(), reason: "is listed twice".into() });
        }
        opened.push(open(name)?);
    }
    Ok(opened)
}

fn parse(name: &str) -> Result<(DeviceKind, Option<usize>), DeviceError> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, Some(index)),
        None => (name, None),
    };
    if name.contains(',') {
        let reason = "only sft and tapo run on several devices; name one device";
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
        (_, Some(Err(_))) => refuse("the part after the colon must be the number of a card, as in `cuda:0`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kinds_and_numbers() {
        assert_eq!(parse("flex").unwrap(), (DeviceKind::Flex, None));
        assert_eq!(parse("cuda:3").unwrap(), (DeviceKind::Cuda, Some(3)));
        for (name, expected) in [("cude", "did you mean `cuda`?"), ("tpu-pod", ""), ("", "")] {
            let Err(DeviceError::Unknown { name: found, suggestion, .. }) = parse(name) else { panic!("{name}") };
            assert_eq!((found.as_str(), suggestion.trim_start_matches(": ")), (name, expected));
        }
        for name in ["cuda:x", "cuda:-1", "flex:0", "cuda:0,cuda:1"] {
            let Err(DeviceError::Index { name: found, .. }) = parse(name) else { panic!("{name}") };
            assert_eq!(found, name);
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn a_list_is_opened_in_its_order_and_names_nothing_twice() {
        assert_eq!(open_all("flex").unwrap().len(), 1);
        assert!(matches!(open_all("flex, flex"), Err(DeviceError::Index { name, .. }) if name == "flex"));
        assert!(matches!(open_all("flex,cude"), Err(DeviceError::Unknown { name, .. }) if name == "cude"));
    }

    #[test]
    fn a_device_that_does_not_start_says_what_it_needs() {
        for kind in DeviceKind::ALL {
            let others = list(std::iter::empty());
            let error =
                DeviceError::Start { name: kind.name().into(), reason: "silence".into(), needs: kind.needs(), others };
            let text = error.to_string();
            assert!(text.contains(kind.name()) && text.contains(kind.needs()), "{text}");
            assert_eq!(text.contains("libdevice.10.bc"), kind == DeviceKind::Cuda, "{text}");
        }
    }

    #[test]
    fn what_is_not_compiled_says_which_feature_to_add() {
        for kind in DeviceKind::ALL.into_iter().filter(|kind| !kind.is_compiled()) {
            let error = open(kind.name()).unwrap_err().to_string();
            assert!(error.contains(&format!("--features {}", kind.name())), "{error}");
        }
    }
}
