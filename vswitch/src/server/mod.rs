//! The control socket: requests come in as lines of JSON and go to a [`Backend`].
//!
//! One blocking thread accepts, and each connection has one. All is bounded: connections, the length and
//! depth of a message, the time for a message to come and for an answer to be taken, so that a client that
//! is slow, silent or hostile costs itself a connection and nobody else anything. A backend that panics
//! costs the client an error.
//!
//! [`Listener::bind`] takes the place on the file system (`socket`); [`Listener::serve`] begins to answer.
//! Who may connect is decided in `peer`, what a connection may do to us in `connection`. Knows the
//! messages of [`control::api`] and nothing of the switch.

mod backend;
mod connection;
mod peer;
mod socket;

pub use backend::Backend;
pub use socket::{Listener, SocketError};

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::api::{ApiError, ErrorCode};

/// Connections at a time.
pub const CONNECTIONS: usize = 64;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From one request to the end of the next one.
    pub request: Duration,
    /// For the client to take an answer.
    pub answer: Duration,
    /// For requests that are being carried out when the server stops.
    pub stop: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            request: Duration::from_secs(300),
            answer: Duration::from_secs(30),
            stop: Duration::from_secs(5),
        }
    }
}

/// Where the server says what an administrator should know: a client that was turned away, a backend that
/// panicked.
pub type Log = fn(fmt::Arguments<'_>);

/// What the threads share.
struct Shared {
    backend: Arc<dyn Backend>,
    place: socket::Place,
    patience: Patience,
    log: Log,
    stopping: AtomicBool,
    connections: Mutex<Connections>,
    /// Rung when a connection ends.
    ended: Condvar,
}

#[derive(Default)]
struct Connections {
    next: u64,
    /// Handles to cut them off with.
    open: HashMap<u64, UnixStream>,
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A server that answers.
pub struct Server {
    shared: Arc<Shared>,
    listener: Arc<UnixListener>,
    acceptor: Option<JoinHandle<()>>,
}

impl Listener {
    /// Begins to answer; clients that connected since [`Listener::bind`] are first.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn serve(self, backend: Arc<dyn Backend>, patience: Patience, log: Log) -> io::Result<Server> {
        let (listener, place) = self.into_parts();
        let listener = Arc::new(listener);
        let shared = Arc::new(Shared {
            backend,
            place,
            patience,
            log,
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
            ended: Condvar::new(),
        });
        let (theirs, socket) = (shared.clone(), listener.clone());
        let acceptor =
            std::thread::Builder::new().name("api".to_owned()).spawn(move || accept(&theirs, &socket))?;
        Ok(Server { shared, listener, acceptor: Some(acceptor) })
    }
}

impl Server {
    /// Stops answering and gives the socket's place back. Requests that are being carried out are
    /// waited for, as long as the patience lasts; then the connections are cut.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.place.vacate();
        // Wakes `accept`, which then sees that it is over.
        let _ = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
        if acceptor.join().is_err() {
            (self.shared.log)(format_args!("the thread that accepts API clients panicked"));
        }
        let deadline = Instant::now() + self.shared.patience.stop;
        let mut connections = self.shared.connections();
        // Nobody is heard any more; answers still go out.
        connections.open.values().for_each(|stream| drop(stream.shutdown(Shutdown::Read)));
        while !connections.open.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                connections.open.values().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
                return;
            }
            let wait = self.shared.ended.wait_timeout(connections, left);
            connections = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// The accepting thread.
fn accept(shared: &Arc<Shared>, listener: &UnixListener) {
    /// What is missing (descriptors, memory) is not there a moment later either.
    const PAUSE: Duration = Duration::from_millis(100);
    let mut complained = false;
    loop {
        let stream = listener.accept();
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        match stream {
            Ok((stream, _)) => {
                complained = false;
                admit(shared, stream);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    (shared.log)(format_args!("accept on the API socket: {error}"));
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Gives a client a thread, or turns it away with the reason.
fn admit(shared: &Arc<Shared>, stream: UnixStream) {
    if let Err(error) = peer::check(&stream, shared.place.group()) {
        (shared.log)(format_args!("an API client was turned away: {error}"));
        return connection::turn_away(&stream, error.into());
    }
    let handle = match stream.try_clone() {
        Ok(handle) => handle,
        Err(error) => return connection::turn_away(&stream, busy(format!("dup: {error}"))),
    };
    let mut connections = shared.connections();
    if connections.open.len() >= CONNECTIONS {
        drop(connections);
        return connection::turn_away(&stream, busy(format!("{CONNECTIONS} clients are connected")));
    }
    let number = connections.next;
    connections.next += 1;
    connections.open.insert(number, handle);
    drop(connections);
    let ended = Ended { shared: shared.clone(), number };
    let work = move || connection::run(&ended.shared, stream);
    // Dropped with its closure, a connection without a thread ends like any other.
    if let Err(error) = std::thread::Builder::new().name("api-client".to_owned()).spawn(work) {
        (shared.log)(format_args!("no thread for an API client: {error}"));
    }
}

fn busy(cause: String) -> ApiError {
    ApiError::new(ErrorCode::Busy, "the switch takes no more API clients now")
        .cause(cause)
        .fix("close connections that are not used, and try again")
}

/// Strikes a connection off the list when its thread ends, however it ends.
struct Ended {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.shared.connections().open.remove(&self.number);
        self.shared.ended.notify_all();
    }
}

#[cfg(test)]
mod tests;
