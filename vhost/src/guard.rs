//! Mappings of somebody else's file, which he may cut short at any moment.
//!
//! To touch a page that its file does not have any more (it was truncated, there is no huge page left, the memory is
//! broken) is a SIGBUS, which ends the process: one guest would end the switch of all. So every foreign file is
//! mapped here. One handler, installed with the first mapping, looks the address up among all of them and lays
//! anonymous memory over the whole of the one that holds it. The access that was interrupted goes on and finds
//! zeros, which is nothing that a guest could not have written; the mapping is marked as lost, its alarm is rung,
//! and the control thread that hears it ends the session. It costs nothing until it happens.
//!
//! **What the handler may do.** It runs in the middle of anything on the thread that touched the page, on its own
//! stack (a full stack is another signal), so it takes no lock and allocates nothing: it reads atomics of a fixed
//! table, maps, and writes to an eventfd of ours. The mapping that it looks for cannot go away under it, since
//! whoever touches a mapping holds it. All others may come and go while it looks: each place of the table has a
//! version, which is odd while the place is changed, and what changed is not the one.
//!
//! What is no mapping of ours meets the action that there was before, and that is the end, with a core. So does what
//! the kernel has no anonymous memory for, which it never says of memory that nobody has written to yet, unless the
//! host was told to promise no more than it has (`vm.overcommit_memory = 2`).
//!
//! A system call that is given such a page does not raise the signal but fails with EFAULT; that is up to who calls.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use vm_memory::{FileOffset, MmapRegion};

use crate::ring::Alarm;

/// Most mappings at a time, of all ports together.
pub const MAPPINGS: usize = 16_384;

/// What the handler has to know of a mapping. All zero if the place is free.
struct Place {
    /// Odd while the rest is changed.
    version: AtomicU32,
    start: AtomicUsize,
    bytes: AtomicUsize,
    lost: AtomicBool,
    /// Lives as long as the place is taken.
    alarm: AtomicPtr<Alarm>,
}

/// A copy of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    start: usize,
    bytes: usize,
    alarm: *mut Alarm,
}

const FREE: Entry = Entry { start: 0, bytes: 0, alarm: ptr::null_mut() };

impl Place {
    const fn new() -> Place {
        Place {
            version: AtomicU32::new(0),
            start: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
            alarm: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Changes what is there; one thread at a time.
    fn set(&self, entry: Entry) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        self.start.store(entry.start, Ordering::Relaxed);
        self.bytes.store(entry.bytes, Ordering::Relaxed);
        self.lost.store(false, Ordering::Relaxed);
        self.alarm.store(entry.alarm, Ordering::Relaxed);
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// What is there, unless it is being changed.
    fn get(&self) -> Option<Entry> {
        let version = self.version.load(Ordering::Acquire);
        let entry = Entry {
            start: self.start.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            alarm: self.alarm.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        (version.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == version).then_some(entry)
    }
}

static PLACES: [Place; MAPPINGS] = [const { Place::new() }; MAPPINGS];

/// How many places were ever taken.
static REACH: AtomicUsize = AtomicUsize::new(0);

/// Places that were taken and are free again. Whoever changes a place holds the lock; the handler does not.
static VACANT: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// Bytes of all mappings.
static BYTES: AtomicU64 = AtomicU64::new(0);

/// Most bytes of all mappings: half of a process's address space.
const MOST_BYTES: u64 = 64 << 40;

/// What happened on a SIGBUS before.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A file of the other side's, mapped to be read and written.
pub struct Mapping {
    mapping: MmapRegion,
    start: NonNull<u8>,
    place: usize,
    /// The place has its address.
    _alarm: Option<Arc<Alarm>>,
    _share: Share,
}

/// A share of [`MOST_BYTES`].
struct Share(u64);

impl Share {
    fn take(bytes: usize) -> io::Result<Share> {
        let share = Share(bytes as u64);
        if BYTES.fetch_add(share.0, Ordering::Relaxed) + share.0 > MOST_BYTES {
            let error = format!("{} TB are mapped already", MOST_BYTES >> 40);
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, error));
        }
        Ok(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

// SAFETY: the pointer is into a shared mapping that stays where it is as long as the value lives; what is done to the
// bytes behind it is up to the code that does it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` bytes from `offset` on, both in whole pages where those are huge. `alarm` is raised when they
    /// turn out to be lost.
    ///
    /// # Errors
    /// What the kernel said; [`MAPPINGS`] are there already.
    pub fn new(file: File, offset: u64, bytes: usize, alarm: Option<Arc<Alarm>>) -> io::Result<Mapping> {
        install()?;
        let share = Share::take(bytes)?;
        let mapping = MmapRegion::build(
            Some(FileOffset::new(file, offset)),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
        )
        .map_err(io::Error::other)?;
        let start = NonNull::new(mapping.as_ptr()).ok_or(io::ErrorKind::InvalidInput)?;
        let address = alarm.as_ref().map_or(ptr::null_mut(), |alarm| Arc::as_ptr(alarm).cast_mut());
        let entry = Entry { start: start.as_ptr() as usize, bytes, alarm: address };
        Ok(Mapping { place: register(entry)?, mapping, start, _alarm: alarm, _share: share })
    }

    /// Its first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Its bytes.
    pub fn bytes(&self) -> usize {
        self.mapping.size()
    }

    /// Whether a page of it was missing when it was touched. It is memory of ours since then.
    pub fn is_lost(&self) -> bool {
        PLACES[self.place].lost.load(Ordering::Acquire)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Before it is unmapped: the addresses may be somebody else's the moment after.
        let mut vacant = VACANT.lock().unwrap_or_else(PoisonError::into_inner);
        PLACES[self.place].set(FREE);
        vacant.push(self.place);
    }
}

fn register(entry: Entry) -> io::Result<usize> {
    let mut vacant = VACANT.lock().unwrap_or_else(PoisonError::into_inner);
    let place = match vacant.pop() {
        Some(place) => place,
        None if REACH.load(Ordering::Relaxed) < MAPPINGS => REACH.fetch_add(1, Ordering::Relaxed),
        None => {
            let error = format!("{MAPPINGS} memory regions are mapped already");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, error));
        }
    };
    PLACES[place].set(entry);
    Ok(place)
}

/// Installs the handler, once.
fn install() -> io::Result<()> {
    let _once = VACANT.lock().unwrap_or_else(PoisonError::into_inner);
    if BEFORE.get().is_some() {
        return Ok(());
    }
    // SAFETY: all zeros is a valid action.
    let (mut before, mut action): (libc::sigaction, libc::sigaction) = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handle as extern "C" fn(_, _, _) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
    // SAFETY: both actions live through the calls; the handler does what a handler may.
    let installed = unsafe {
        libc::sigaction(libc::SIGBUS, ptr::null(), &mut before) == 0
            && BEFORE.set(before).is_ok()
            && libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) == 0
    };
    if installed { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn handle(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands over a valid `info`, and the thread has an errno, which whoever was interrupted may
    // be about to look at.
    unsafe {
        let errno = *libc::__errno_location();
        // A positive code is the kernel's own, about an access of this thread.
        let of_kernel = (*info).si_code > 0;
        if !(of_kernel && mend((*info).si_addr() as usize)) {
            give_way(of_kernel);
        }
        *libc::__errno_location() = errno;
    }
}

/// Lays anonymous memory over the mapping that holds `address`. False if there is none.
fn mend(address: usize) -> bool {
    let places = &PLACES[..REACH.load(Ordering::Relaxed).min(MAPPINGS)];
    let holds = |entry: &Entry| address.wrapping_sub(entry.start) < entry.bytes;
    let found = places.iter().find_map(|place| place.get().filter(holds).map(|entry| (place, entry)));
    let Some((place, entry)) = found else { return false };
    if !blank(&entry) {
        return false;
    }
    place.lost.store(true, Ordering::Release);
    // SAFETY: the mapping is held by this thread, and holds its alarm.
    if let Some(alarm) = unsafe { entry.alarm.as_ref() } {
        alarm.raise();
    }
    true
}

fn blank(entry: &Entry) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let (start, protection) = (entry.start as *mut libc::c_void, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: the range is a mapping that the interrupted thread holds, so nothing else is there; all that is
    // known of its bytes is that anybody may change them.
    unsafe { libc::mmap(start, entry.bytes, protection, flags, -1, 0) != libc::MAP_FAILED }
}

/// Puts the action of before back: the access is repeated, and meets that.
fn give_way(of_kernel: bool) {
    // SAFETY: both are valid actions, and the calls are allowed in a handler.
    unsafe {
        if let Some(before) = BEFORE.get().filter(|_| of_kernel) {
            libc::sigaction(libc::SIGBUS, before, ptr::null_mut());
        } else {
            // Somebody sent it; nothing will repeat it.
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
            libc::raise(libc::SIGBUS);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use rustix::fs::MemfdFlags;

    use super::*;
    use crate::driver::memfd;

    const PAGE: usize = 4096;

    fn mapping(file: &File, offset: u64, bytes: usize) -> (Mapping, Arc<Alarm>) {
        let alarm = Arc::new(Alarm::new().unwrap());
        let mapping = Mapping::new(file.try_clone().unwrap(), offset, bytes, Some(alarm.clone()));
        (mapping.unwrap(), alarm)
    }

    fn read(mapping: &Mapping, at: usize) -> u8 {
        assert!(at < mapping.bytes());
        // SAFETY: within the mapping.
        unsafe { mapping.start().add(at).read_volatile() }
    }

    fn write(mapping: &Mapping, at: usize, value: u8) {
        assert!(at < mapping.bytes());
        // SAFETY: within the mapping.
        unsafe { mapping.start().add(at).write_volatile(value) }
    }

    #[test]
    fn a_file_that_is_cut_short_loses_its_mapping_and_no_other() {
        let (file, other) = (memfd(8 * PAGE as u64).unwrap(), memfd(PAGE as u64).unwrap());
        let (lower, low_alarm) = mapping(&file, 0, 4 * PAGE);
        let (upper, high_alarm) = mapping(&file, 4 * PAGE as u64, 4 * PAGE);
        let (innocent, _) = mapping(&other, 0, PAGE);
        for mapping in [&lower, &upper, &innocent] {
            write(mapping, PAGE - 1, 7);
        }
        file.set_len(5 * PAGE as u64).unwrap();
        // As long as nobody touches what is gone, nothing is.
        assert_eq!((read(&upper, PAGE - 1), upper.is_lost()), (7, false));
        assert_eq!((read(&upper, PAGE), upper.is_lost()), (0, true));
        assert!(high_alarm.take() && !low_alarm.take());
        // All of it is ours now, and stays so, whatever becomes of the file.
        write(&upper, 3 * PAGE, 9);
        file.set_len(8 * PAGE as u64).unwrap();
        assert_eq!((read(&upper, PAGE - 1), read(&upper, 3 * PAGE)), (0, 9));
        assert_eq!((read(&lower, PAGE - 1), lower.is_lost()), (7, false));
        assert_eq!((read(&innocent, PAGE - 1), innocent.is_lost()), (7, false));
        // A file that grew again before anybody looked is whole.
        file.set_len(0).unwrap();
        file.set_len(8 * PAGE as u64).unwrap();
        assert_eq!((read(&lower, PAGE - 1), lower.is_lost()), (0, false));
    }

    #[test]
    fn huge_pages_are_lost_like_others() {
        const HUGE: usize = 2 << 20;
        let flags = MemfdFlags::HUGETLB | MemfdFlags::CLOEXEC;
        let file = File::from(rustix::fs::memfd_create("guard", flags).unwrap());
        file.set_len(2 * HUGE as u64).unwrap();
        let mapping = Mapping::new(file.try_clone().unwrap(), HUGE as u64, HUGE, None).unwrap();
        file.set_len(0).unwrap();
        write(&mapping, HUGE - 1, 1);
        assert_eq!((read(&mapping, HUGE - 1), mapping.is_lost()), (1, true));
    }

    #[test]
    fn mappings_come_and_go_while_others_are_lost() {
        let end = Instant::now() + Duration::from_millis(500);
        let churn = || {
            let mut rounds = 0;
            while Instant::now() < end {
                let file = memfd(2 * PAGE as u64).unwrap();
                let (lost, alarm) = mapping(&file, 0, 2 * PAGE);
                file.set_len(0).unwrap();
                assert_eq!((read(&lost, PAGE), lost.is_lost(), alarm.take()), (0, true, true));
                rounds += 1;
            }
            rounds
        };
        let keep = || {
            while Instant::now() < end {
                let file = memfd(2 * PAGE as u64).unwrap();
                let (kept, _) = mapping(&file, 0, 2 * PAGE);
                write(&kept, PAGE, 5);
                std::thread::yield_now();
                assert_eq!((read(&kept, PAGE), kept.is_lost()), (5, false));
            }
        };
        let rounds: i32 = std::thread::scope(|scope| {
            let churning = [scope.spawn(churn), scope.spawn(churn)];
            scope.spawn(keep);
            churning.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert!(rounds > 100, "hardly a mapping was lost: {rounds}");
    }

    #[test]
    fn what_is_not_ours_ends_the_process_as_before() {
        const CHILD: &str = "VHOST_GUARD_CHILD";
        if let Ok(how) = std::env::var(CHILD) {
            let file = memfd(PAGE as u64).unwrap();
            let (ours, _) = mapping(&file, 0, PAGE);
            file.set_len(0).unwrap();
            assert_eq!((read(&ours, 0), ours.is_lost()), (0, true));
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: a plain call; no core is wanted of what follows.
            unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
            if how == "sent" {
                // SAFETY: a plain call.
                unsafe { libc::raise(libc::SIGBUS) };
            } else {
                let file = memfd(PAGE as u64).unwrap();
                let flags = (libc::PROT_READ, libc::MAP_SHARED);
                let foreign = FileOffset::new(file.try_clone().unwrap(), 0);
                let foreign = MmapRegion::<()>::build(Some(foreign), PAGE, flags.0, flags.1).unwrap();
                file.set_len(0).unwrap();
                // SAFETY: mapped, though nothing is behind it.
                unsafe { foreign.as_ptr().read_volatile() };
            }
            println!("it lives");
            return;
        }
        for how in ["sent", "touched"] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args([
                "--exact",
                "--nocapture",
                "guard::tests::what_is_not_ours_ends_the_process_as_before",
            ]);
            let output = child.env(CHILD, how).output().unwrap();
            assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{how}: {output:?}");
            assert!(!String::from_utf8_lossy(&output.stdout).contains("it lives"));
        }
    }
}
