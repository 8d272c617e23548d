//! A shared flag that stops training at the end of the current update (SFT) or rollout step (TAPO). While responses are
//! sampled or a validation set is scored, it stops at once, and the run that continues does that again.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A flag shared between a trainer and the code that may stop it, such as a signal handler. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Creates a flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the flag: training stops at the end of the current step.
    pub fn ask(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Returns the flag itself, for code that can only set an `AtomicBool`, such as a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }

    /// Returns true if the flag is set.
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
