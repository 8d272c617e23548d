//! How fast a run is and what it takes: tokens a second, model FLOPs utilisation, peak memory.
//!
//! MFU is the share of a device's peak that goes into the products a training step needs ([`fieldmark_model::Flops`]);
//! what is computed twice to save memory does not raise it.

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// Speed of one step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// Tokens of all sequences, padding not counted, per second.
    pub tokens_per_second: f64,
    /// Share of the device's peak, 0..=1; `None` where the peak is not known.
    pub mfu: Option<f64>,
}

impl Throughput {
    /// Of a step that took `seconds` for `tokens` tokens and `flops` operations, on a device with a peak of `peak_tflops`
    /// 10¹² operations a second.
    ///
    /// ```
    /// use fieldmark_train::Throughput;
    /// let speed = Throughput::new(3000, 8e12, 2.0, Some(10.0));
    /// assert_eq!((speed.tokens_per_second, speed.mfu), (1500.0, Some(0.4)));
    /// ```
    pub fn new(tokens: usize, flops: f64, seconds: f64, peak_tflops: Option<f64>) -> Self {
        let seconds = seconds.max(f64::MIN_POSITIVE);
        let mfu = peak_tflops.map(|peak| flops / seconds / (peak * 1e12));
        Self { tokens_per_second: tokens as f64 / seconds, mfu }
    }
}

/// Most memory used so far, in bytes. A GPU's: what Burn's allocator has reserved there, which it keeps for reuse. A CPU's:
/// the largest resident set of the process, where the system tells it (`VmHWM` of Linux).
pub fn peak_memory(device: &Device) -> Option<u64> {
    device.memory_pool_usage().map(|usage| usage.bytes_reserved).or_else(peak_resident)
}

fn peak_resident() -> Option<u64> {
    parse_peak(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read_in_kibibytes() {
        let status = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t   1234 kB\nVmRSS:\t 7 kB\n";
        assert_eq!(parse_peak(status), Some(1_263_616));
        for damaged in ["", "VmHWM:\n", "VmHWM: x kB", "VmHWM: 12 MB"] {
            assert_eq!(parse_peak(damaged), None, "{damaged}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_grows_with_what_is_touched_and_does_not_fall() {
        let device = Device::default();
        let before = peak_memory(&device).unwrap();
        let filled = vec![1_u8; before as usize];
        assert!(std::hint::black_box(&filled).iter().all(|byte| *byte == 1));
        let during = peak_memory(&device).unwrap();
        assert!(during > before, "{before} {during}");
        drop(filled);
        // The system counts pages in batches: the last digits may fall.
        assert!(peak_memory(&device).unwrap() > before + (during - before) / 2);
    }

    #[test]
    fn without_a_known_peak_there_is_no_utilisation() {
        let speed = Throughput::new(10, 1e12, 0.5, None);
        assert_eq!((speed.tokens_per_second, speed.mfu), (20.0, None));
    }
}
