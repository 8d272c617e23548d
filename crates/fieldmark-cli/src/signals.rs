//! Ctrl-C or SIGTERM asks a run to stop at its next boundary; a second one stops the process.

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

/// 128 + SIGINT.
pub const INTERRUPTED: i32 = 130;
/// The signals that stop a run.
pub const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];

/// Who listens to the signals.
pub struct Listener {
    interrupt: Interrupt,
    boundary: &'static str,
    /// What stops the process at the second signal.
    second: Vec<SigId>,
    /// Whether somebody else says that the run is about to stop.
    quiet: Arc<AtomicBool>,
}

impl Listener {
    /// Listens from now on, for a run that stops after each `boundary` once `interrupt` is set.
    ///
    /// # Errors
    /// If the system does not let signals be handled.
    pub fn new(boundary: &'static str, interrupt: Interrupt) -> std::io::Result<Self> {
        let mut second = Vec::new();
        for signal in SIGNALS {
            // In this order the first signal finds the flag down and the second finds it up.
            second.push(flag::register_conditional_shutdown(signal, INTERRUPTED, interrupt.flag())?);
            flag::register(signal, interrupt.flag())?;
        }
        let quiet = Arc::new(AtomicBool::new(false));
        // A step may take long, and who pressed the keys wants an answer: one that a handler may not write.
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

    /// What is asked to stop.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// What a run is in the middle of.
    pub fn boundary(&self) -> &'static str {
        self.boundary
    }

    /// Leaves it to the caller to answer the first signal and to stop the process at the second.
    pub fn hand_over(&mut self) {
        self.quiet.store(true, Ordering::SeqCst);
        for id in self.second.drain(..) {
            signal_hook::low_level::unregister(id);
        }
    }
}

/// What whoever pressed the keys is told.
pub fn say_stopping(boundary: &str) {
    eprintln!("stopping after this {boundary}, which is saved first; once more stops at once");
}
