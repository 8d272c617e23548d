//! Ctrl-C, SIGTERM or the end of the terminal (SIGHUP) stops a run after its current step, or while it samples responses or
//! scores a validation set. A second Ctrl-C or SIGTERM stops the process at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use fieldmark::train::trainer::Interrupt;
use signal_hook::{
    SigId,
    consts::{SIGINT, SIGTERM},
    flag,
};

use crate::tell::tell;

/// The exit code after a signal: 128 + SIGINT.
pub const INTERRUPTED: i32 = 130;
/// The signals that stop a run, and the process if they come again.
const REPEATED: [i32; 2] = [SIGINT, SIGTERM];

// Only the dashboard takes over what the listener holds.
/// Listens to the signals for a run.
#[cfg_attr(not(all(unix, feature = "tui")), allow(dead_code))]
pub struct Listener {
    interrupt: Interrupt,
    boundary: &'static str,
    /// The handlers that stop the process at the second signal.
    second: Vec<SigId>,
    /// Whether the dashboard answers the first signal instead.
    quiet: Arc<AtomicBool>,
}

#[cfg_attr(not(all(unix, feature = "tui")), allow(dead_code))]
impl Listener {
    /// Starts to listen for a run that stops after the current `boundary` ("update") once `interrupt` is set.
    ///
    /// # Errors
    /// Returns an error if the system refuses the signal handlers.
    pub fn new(boundary: &'static str, interrupt: Interrupt) -> std::io::Result<Self> {
        let mut second = Vec::new();
        for signal in signals() {
            if stops_at_once(signal) {
                // In this order, the flag is still down at the first signal and up at the second.
                second.push(flag::register_conditional_shutdown(signal, INTERRUPTED, interrupt.flag())?);
            }
            flag::register(signal, interrupt.flag())?;
        }
        let quiet = Arc::new(AtomicBool::new(false));
        // A step may take long, and the user wants an answer, which a signal handler may not write.
        let (asked, silent) = (interrupt.clone(), Arc::clone(&quiet));
        thread::spawn(move || {
            while !asked.asked() {
                thread::sleep(Duration::from_millis(100));
            }
            if !silent.load(Ordering::SeqCst) {
                say_stopping(boundary);
            }
        });
        Ok(Self { interrupt, boundary, second, quiet })
    }

    /// The flag that stops the run.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The unit that the run finishes before it stops.
    pub fn boundary(&self) -> &'static str {
        self.boundary
    }

    /// Stops answering: from now on the caller answers the first signal and stops the process at the second.
    pub fn hand_over(&mut self) {
        self.quiet.store(true, Ordering::SeqCst);
        for id in self.second.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

/// The signals that stop a run. SIGHUP is one of them unless it is ignored: `nohup` means that the run goes on.
pub fn signals() -> Vec<i32> {
    let hang_up = hang_up().filter(|&signal| !is_ignored(signal));
    REPEATED.into_iter().chain(hang_up).collect()
}

/// Whether a signal stops the process at once if it is not the first. When a terminal is closed, both the system and the
/// shell may send SIGHUP.
pub fn stops_at_once(signal: i32) -> bool {
    REPEATED.contains(&signal)
}

/// Answers the first signal, on standard error.
pub fn say_stopping(boundary: &str) {
    tell(format_args!("stopping after this {boundary}; the run is saved first. Press Ctrl-C again to stop at once"));
}

#[cfg(unix)]
fn hang_up() -> Option<i32> {
    Some(signal_hook::consts::SIGHUP)
}

#[cfg(not(unix))]
fn hang_up() -> Option<i32> {
    None
}

#[cfg(unix)]
#[allow(unsafe_code)]
fn is_ignored(signal: i32) -> bool {
    let mut current = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, `sigaction` only writes the current one, for which all zeros is a valid value too.
    unsafe {
        libc::sigaction(signal, std::ptr::null(), current.as_mut_ptr()) == 0
            && current.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(not(unix))]
fn is_ignored(_signal: i32) -> bool {
    false
}
