//! Peak memory of the run so far, as the device or the operating system reports it.

use burn::tensor::Device;

/// Returns the peak memory so far, in bytes. On a GPU it is what Burn's allocator has reserved, including memory kept
/// for reuse. On a CPU it is the largest resident set of the process (`VmHWM` on Linux). `None` if it is not known.
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
}
