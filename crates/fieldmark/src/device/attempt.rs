//! Work that may panic or hang inside a backend, run in a thread whose panic becomes an error.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

/// How long an attempt may take. On first use a device compiles kernels.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs `work` in a thread, turns a panic into an error and silences its message.
///
/// # Errors
/// Returns the panic's message, or says that `work` took longer than three minutes.
pub fn attempt<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    // The process has one panic hook: two attempts at once would restore each other's.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (send, receive) = mpsc::channel();
    let before = panic::take_hook();
    // Backends also panic in threads they start, whose messages would be printed above the error.
    panic::set_hook(Box::new(|_| ()));
    let spawned = thread::Builder::new().name("device".into()).spawn(move || {
        let outcome = panic::catch_unwind(AssertUnwindSafe(work));
        // After a timeout nobody receives.
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
        Err(mpsc::RecvTimeoutError::Disconnected) => Err("the thread ended without an answer".into()),
    }
}

/// A panic's message on one line, cut after 300 characters.
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
    fn a_panic_of_the_backend_is_an_error_of_one_line() {
        assert_eq!(attempt(|| 6), Ok(6));
        let error = attempt(|| -> u8 { panic!("\n=== Error ===\n driver missing\n") });
        assert_eq!(error, Err("Error driver missing".into()));
        let nested = attempt(|| thread::spawn(|| panic!("inside")).join().map_err(|_| ()).unwrap_or(1));
        assert_eq!(nested, Ok(1));
    }
}
