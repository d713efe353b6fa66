//! The thread of a port: it finds the other end, follows its messages, and starts again when it is gone.
//!
//! It blocks, and nobody waits for it: not the workers, which find a ring in their seat or none, and not the other
//! ports. Whoever ends the port shuts the connection down under it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use vhost_protocol::vhost_user::{BackendReqHandler, Error};

use super::message;
use super::open::{self, Listening, Mode, OpenVhostUser};
use super::reason::Reason;
use super::session::Session;
use crate::event::signal;
use crate::ring::Alarm;

/// How often a client tries to connect.
const RETRY: Duration = Duration::from_millis(50);

/// How long a front end that broke the rules has to wait, doubled each time up to the second figure: a few sessions a
/// second cost nobody else anything.
const PENALTY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(200));

/// How long one has to stay without breaking them for that to be forgotten.
const GOOD: Duration = Duration::from_secs(3);

/// How long the next front end that breaks the rules has to wait. To leave and come again is not enough to be forgiven.
struct Penalty(Duration);

impl Penalty {
    fn new() -> Penalty {
        Penalty(PENALTY.0)
    }

    /// A front end has stayed for so long and is gone.
    fn forgive(&mut self, stay: Duration) {
        if stay > GOOD {
            self.0 = PENALTY.0;
        }
    }

    /// One has stayed for so long and then broken the rules. Gives how long the next one waits.
    fn rise(&mut self, stay: Duration) -> Duration {
        self.forgive(stay);
        let now = self.0;
        self.0 = (2 * now).min(PENALTY.1);
        now
    }
}

/// What the thread and its owner share.
struct Control {
    stopping: AtomicBool,
    wake: OwnedFd,
    /// Where connections come from, to be closed to new ones by whoever ends the port.
    listener: Option<UnixListener>,
    /// The connection, to be cut off by whoever ends the port.
    connection: Mutex<Option<UnixStream>>,
}

impl Control {
    fn connection(&self) -> std::sync::MutexGuard<'_, Option<UnixStream>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}

/// A running thread; it ends when this is dropped.
pub(super) struct Service {
    control: Arc<Control>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts the thread.
    pub(super) fn start(open: OpenVhostUser, session: Session, alarm: Arc<Alarm>) -> io::Result<Service> {
        let listener = open.listening.as_ref().map(|listening| listening.socket.try_clone()).transpose()?;
        let control = Arc::new(Control {
            stopping: AtomicBool::new(false),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            listener,
            connection: Mutex::default(),
        });
        let work = Work {
            listening: open.listening,
            socket: open.settings.socket,
            mode: open.settings.mode,
            session: Arc::new(Mutex::new(session)),
            alarm,
            control: control.clone(),
        };
        let thread = std::thread::Builder::new().name("vhost-user".into()).spawn(move || work.run())?;
        Ok(Service { control, thread: Some(thread) })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.control.stopping.store(true, Ordering::Release);
        // The other end connects again at once. QEMU does not recover if it is cut off in the middle of its first
        // words, so it must find nobody rather than us.
        if let Some(listener) = &self.control.listener {
            let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
        }
        signal(self.control.wake.as_fd());
        if let Some(connection) = &*self.control.connection() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How a session ended.
enum End {
    /// The other end is gone; it may come back at once.
    Gone(String),
    /// It broke the rules.
    Fault(String),
}

struct Work {
    listening: Option<Listening>,
    socket: std::path::PathBuf,
    mode: Mode,
    session: Arc<Mutex<Session>>,
    alarm: Arc<Alarm>,
    control: Arc<Control>,
}

impl Work {
    fn run(self) {
        let mut penalty = Penalty::new();
        while let Some(connection) = self.connect() {
            let begun = Instant::now();
            match self.serve(connection) {
                End::Gone(reason) => {
                    self.lock().end(reason);
                    penalty.forgive(begun.elapsed());
                    if self.mode == Mode::Client {
                        // Somebody who accepts and closes at once is not asked without end.
                        self.pause(RETRY);
                    }
                }
                End::Fault(reason) => {
                    eprintln!("vswitchd: vhost-user {}: {reason}", self.socket.display());
                    self.lock().end(reason);
                    self.pause(penalty.rise(begun.elapsed()));
                }
            }
        }
        self.lock().end(Reason::Disconnected.because("the port is closed"));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the time, or the end.
    fn pause(&self, time: Duration) {
        let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(&self.control.wake, PollFlags::IN)], Some(&timeout));
    }

    /// The next connection. `None` if the port ends.
    fn connect(&self) -> Option<UnixStream> {
        while !self.control.is_stopping() {
            let attempt = match &self.listening {
                Some(Listening { socket, .. }) => {
                    let mut fds =
                        [PollFd::new(socket, PollFlags::IN), PollFd::new(&self.control.wake, PollFlags::IN)];
                    let _ = poll(&mut fds, None);
                    socket.accept().map(|(stream, _)| stream)
                }
                None => open::connect(&self.socket),
            };
            match attempt {
                Ok(stream) => return Some(stream),
                Err(error) => {
                    if self.mode == Mode::Client {
                        self.lock().waiting(&unreachable_reason(&self.socket, &error));
                    }
                    self.pause(RETRY);
                }
            }
        }
        None
    }

    /// Follows one front end until it goes.
    fn serve(&self, stream: UnixStream) -> End {
        let gone = |error: io::Error| End::Gone(Reason::Disconnected.because(error));
        let limited =
            stream.set_nonblocking(false).and_then(|()| stream.set_write_timeout(Some(message::STALL)));
        match limited.and_then(|()| stream.try_clone()) {
            Ok(clone) => *self.control.connection() = Some(clone),
            Err(error) => return gone(error),
        }
        self.alarm.take();
        self.lock().begin();
        let watched = match stream.try_clone() {
            Ok(watched) => watched,
            Err(error) => return gone(error),
        };
        let mut handler = BackendReqHandler::from_stream(stream, self.session.clone());
        let end = loop {
            if self.control.is_stopping() {
                break End::Gone(Reason::Disconnected.because("the port is closed"));
            }
            let mut fds = [
                PollFd::from_borrowed_fd(watched.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.alarm.fd(), PollFlags::IN),
                PollFd::new(&self.control.wake, PollFlags::IN),
            ];
            let _ = poll(&mut fds, None);
            let (message, alarmed) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if alarmed
                && self.alarm.take()
                && let Some(reason) = self.lock().broken()
            {
                break End::Fault(reason);
            }
            if !message {
                continue;
            }
            if let Err(error) = message::await_whole(&watched) {
                // Memory that went away meanwhile is what others would like to know.
                let broken = self.lock().broken();
                break End::Fault(broken.unwrap_or_else(|| Reason::BadMessage.because(error)));
            }
            if let Err(error) = follow(&self.session, &watched, &mut handler) {
                break ending(error);
            }
        };
        *self.control.connection() = None;
        end
    }
}

/// Follows one message.
pub(super) fn follow(
    session: &Mutex<Session>,
    stream: &UnixStream,
    handler: &mut BackendReqHandler<Mutex<Session>>,
) -> Result<(), Error> {
    let lock = || session.lock().unwrap_or_else(PoisonError::into_inner);
    let early = !lock().has_features();
    if let Some(message) = message::take(stream, early).map_err(Error::SocketBroken)? {
        let outcome = lock().follow(&message.body);
        // Also of one that has not said in this connection that answers are agreed on.
        if message.needs_reply {
            let is_done = matches!(outcome, Ok(true));
            message::reply(stream, &message, is_done).map_err(Error::SocketBroken)?;
        }
        return outcome.map(drop);
    }
    handler.handle_request()
}

fn unreachable_reason(socket: &Path, error: &io::Error) -> String {
    Reason::Disconnected.because(format_args!("connect to {}: {error}", socket.display()))
}

fn ending(error: Error) -> End {
    match error {
        Error::Disconnected | Error::SocketBroken(_) => {
            End::Gone(Reason::Disconnected.because("the other end closed the connection"))
        }
        // One of ours, with its word.
        Error::ReqHandlerError(error) => End::Fault(error.to_string()),
        error => End::Fault(Reason::BadMessage.because(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_breaks_the_rules_waits_longer_each_time_whatever_comes_in_between() {
        let (mut penalty, short) = (Penalty::new(), Duration::from_millis(50));
        let mut waits = Vec::new();
        for _ in 0..7 {
            waits.push(penalty.rise(short).as_millis());
            penalty.forgive(short);
        }
        assert_eq!(waits, [50, 100, 200, 200, 200, 200, 200]);
        penalty.forgive(Duration::from_secs(4));
        assert_eq!(penalty.rise(short), PENALTY.0);
        assert_eq!(penalty.rise(Duration::from_secs(4)), PENALTY.0);
    }
}
