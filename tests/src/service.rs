//! A program that runs beside a test and says by a line of output when it is ready.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::wait::{SOON, wait_for};

/// A program in the background. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    child: Child,
    what: String,
    output: mpsc::Receiver<String>,
}

impl Service {
    /// Starts it and waits for the line of its output that contains `sign`.
    ///
    /// # Panics
    /// When it does not start, or ends, or is silent instead.
    pub fn start(command: &mut Command, sign: &str) -> Self {
        let what = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{what} does not start: {error}"));
        let (sender, output) = mpsc::channel();
        let pipe = child.stdout.take().expect("its output is a pipe");
        let ready = await_line(pipe, SOON, sign, sender);
        let service = Self { child, what, output };
        ready.unwrap_or_else(|failure| panic!("{} {failure}", service.what));
        service
    }

    /// Waits for its end and returns all that it printed after the sign.
    ///
    /// # Panics
    /// When it fails, or does not end in time.
    pub fn finish(mut self, deadline: Duration) -> String {
        let status = wait_for(&format!("{} ends", self.what), deadline, || {
            self.child.try_wait().expect("a child can be waited for")
        });
        assert!(status.success(), "{} ended with {status}", self.what);
        self.output.recv_timeout(deadline).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads lines until one contains `sign` and returns it, or says why there is none. The rest of the output is read
/// in the background, so that the program never blocks on a full pipe, and sent to `rest` when it ends.
pub(crate) fn await_line(
    pipe: impl Read + Send + 'static,
    deadline: Duration,
    sign: &str,
    rest: mpsc::Sender<String>,
) -> Result<String, String> {
    let (sender, receiver) = mpsc::channel();
    let sign = sign.to_owned();
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok_and(|count| count > 0) {
            if line.contains(&sign) {
                let _ = sender.send(line.trim_end().to_owned());
                break;
            }
            line.clear();
        }
        drop(sender);
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes);
        let _ = rest.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver.recv_timeout(deadline).map_err(|error| match error {
        RecvTimeoutError::Disconnected => "ended before it was ready".to_owned(),
        RecvTimeoutError::Timeout => format!("was not ready after {deadline:?}"),
    })
}
