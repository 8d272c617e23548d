//! The command on a pseudo terminal, and what is to be seen on its screen.

use std::{
    io::{Read, Write},
    process::Child,
    sync::{Arc, Mutex},
    thread::{JoinHandle, sleep, spawn},
    time::{Duration, Instant},
};

use pty_process::{
    Size,
    blocking::{Command, Pty, open},
};
use rustix::termios::tcgetattr;

use super::Place;

const ROWS: u16 = 60;
const COLUMNS: u16 = 120;

/// A command that runs on a terminal of its own.
pub struct Terminal {
    child: Child,
    pty: Arc<Pty>,
    modes: String,
    output: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

/// How it ended.
pub struct Ended {
    pub code: Option<i32>,
    /// All that it wrote.
    pub output: Vec<u8>,
    /// What was then on the screen.
    pub screen: vt100::Screen,
    /// Whether the terminal takes keys as it did before.
    pub same_modes: bool,
}

impl Terminal {
    /// Starts the command in a place, with variables of its environment.
    pub fn start(place: &Place, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let (pty, pts) = open().unwrap();
        pty.resize(Size::new(ROWS, COLUMNS)).unwrap();
        let pty = Arc::new(pty);
        let modes = modes(&pty);
        let child = Command::new(env!("CARGO_BIN_EXE_fieldmark"))
            .args(args)
            .current_dir(place.path(""))
            .env_remove("CI")
            .env_remove("RUST_BACKTRACE")
            .env("TERM", "xterm-256color")
            .envs(variables.iter().copied())
            .spawn(pts)
            .unwrap();
        let output: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (from, into) = (Arc::clone(&pty), Arc::clone(&output));
        let reader = spawn(move || {
            let mut buffer = [0; 4096];
            // The read fails once nobody has the other side open.
            while let Ok(read @ 1..) = (&*from).read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..read]);
            }
        });
        Self { child, pty, modes, output, reader }
    }

    /// Presses keys.
    pub fn press(&self, keys: &str) {
        (&*self.pty).write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen holds all of `texts`.
    pub fn wait_for(&mut self, texts: &[&str]) -> vt100::Screen {
        let start = Instant::now();
        loop {
            let screen = screen(&self.output.lock().unwrap());
            if texts.iter().all(|text| screen.contents().contains(text)) {
                return screen;
            }
            let late = start.elapsed() > Duration::from_secs(60);
            let ended = self.child.try_wait().unwrap();
            assert!(!late && ended.is_none(), "{ended:?} without {texts:?}:\n{}", screen.contents());
            sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ended {
        let start = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            if start.elapsed() > Duration::from_secs(60) {
                self.child.kill().unwrap();
                panic!("hangs:\n{}", screen(&self.output.lock().unwrap()).contents());
            }
            sleep(Duration::from_millis(5));
        }
        let code = self.child.wait().unwrap().code();
        let same_modes = modes(&self.pty) == self.modes;
        self.reader.join().unwrap();
        let output = std::mem::take(&mut *self.output.lock().unwrap());
        Ended { code, screen: screen(&output), output, same_modes }
    }
}

/// Starts the command in a place on a terminal that is closed as soon as `is_due`. Returns its exit code.
pub fn closed(place: &Place, args: &[&str], is_due: impl Fn() -> bool) -> Option<i32> {
    let (mut pty, pts) = open().unwrap();
    pty.resize(Size::new(ROWS, COLUMNS)).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_fieldmark"))
        .args(args)
        .current_dir(place.path(""))
        .env_remove("CI")
        .env("TERM", "xterm-256color")
        .spawn(pts)
        .unwrap();
    let (mut buffer, start) = ([0; 4096], Instant::now());
    while !is_due() {
        assert!(start.elapsed() < Duration::from_secs(60), "no update");
        let _ = pty.read(&mut buffer);
    }
    drop(pty);
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(90) {
            child.kill().unwrap();
            return None;
        }
        sleep(Duration::from_millis(5));
    }
    child.wait().unwrap().code()
}

impl Ended {
    /// Asserts that the terminal is as it was found.
    pub fn gave_the_terminal_back(&self) -> &Self {
        let text = self.screen.contents();
        assert!(self.same_modes && !self.screen.alternate_screen() && !self.screen.hide_cursor(), "{text}");
        assert_eq!(self.screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None, "{text}");
        self
    }

    /// Whether the other screen was ever on.
    pub fn drew(&self) -> bool {
        self.output.windows(8).any(|bytes| bytes == b"\x1b[?1049h")
    }

    /// Asserts that all of `texts` are on the screen, in this order.
    pub fn says(&self, texts: &[&str]) -> &Self {
        let all = self.screen.contents();
        let mut rest = all.as_str();
        for text in texts {
            let at = rest.find(text).unwrap_or_else(|| panic!("no {text:?} in what follows in\n{all}"));
            rest = &rest[at + text.len()..];
        }
        self
    }
}

fn screen(output: &[u8]) -> vt100::Screen {
    let mut parser = vt100::Parser::new(ROWS.try_into().unwrap(), COLUMNS.try_into().unwrap(), 0);
    parser.process(output);
    parser.screen().clone()
}

fn modes(pty: &Pty) -> String {
    format!("{:?}", tcgetattr(pty).unwrap())
}
