//! Our XDP program on a device: load, attach, detach; and the map from queues to sockets that it reads.
//!
//! Called by `open.rs`, in the network namespace of the device. Knows nothing of rings or frames.
//!
//! There are two ways to attach.
//! - *Beside others*, by libxdp's dispatcher, which calls several programs one after the other. It needs a bpffs
//!   (mounted at `/sys/fs/bpf`) to keep its state in, and outlives us there: after `kill -9` the program stays,
//!   harmless (its map is empty, so every frame goes on to the kernel), until the next start on the device removes
//!   it. That is safe because a program of our name belongs to whoever holds the sockets of the device, and the
//!   caller has bound them before it comes here.
//! - *Alone*, by a BPF link: the kernel detaches the program when the link's descriptor is closed, however the
//!   process ends. For devices that we made, and for hosts without bpffs.
//!
//! Neither ever replaces a program of somebody else.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libxdp_sys as xdp;
use thiserror::Error;

/// Name of our program, as the kernel and `ip link` show it.
pub const PROGRAM_NAME: &CStr = c"vswitch_xsk";

/// Runs after programs of the default priority (50): a firewall sees frames before we take them away.
const RUN_PRIORITY: u32 = 90;

/// From `linux/if_link.h`: attach in the generic path, or in the driver.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

#[repr(C, align(8))]
struct Aligned<T: ?Sized>(T);

/// The compiled program; aligned, since an ELF reader casts it.
static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/redirect.bpf.o")));

/// libxdp and libbpf keep state in statics.
static LIBRARY: Mutex<()> = Mutex::new(());

unsafe extern "C" {
    /// libbpf's own, which the bindings leave out; a null callback silences it.
    fn libbpf_set_print(callback: Option<unsafe extern "C" fn()>) -> Option<unsafe extern "C" fn()>;
}

/// What becomes of a frame that no socket takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unclaimed {
    /// The host's kernel gets it.
    Pass,
    /// It is dropped: the device is closed to the host's own stack.
    Drop,
}

/// Whether other XDP programs may run on the device too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// By the dispatcher where a bpffs is there, so that others can join; else alone.
    Beside,
    /// The device is ours.
    Alone,
}

/// How the device runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the kernel's generic receive path: any device, slower.
    Generic,
}

/// Why the program could not be attached or detached.
#[derive(Debug, Error)]
pub enum ProgramError {
    /// Another program is there and does not share.
    #[error(
        "{device}: XDP program \"{name}\" (id {id}) is already attached and was left alone; detach it \
         (ip link set dev {device} xdp off), or load it through libxdp's dispatcher with a bpffs at /sys/fs/bpf, \
         which lets programs share a device"
    )]
    Occupied {
        /// The device.
        device: String,
        /// Name of the program there.
        name: String,
        /// Its id, as `bpftool prog` shows it.
        id: u32,
    },
    /// No right to load programs.
    #[error("{device}: {call}: {source}: needs CAP_BPF, CAP_NET_ADMIN (and CAP_SYS_ADMIN before Linux 5.8)")]
    NoPrivilege {
        /// The device.
        device: String,
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// The driver refuses XDP at this MTU.
    #[error(
        "{device}: {call}: {source}: the driver takes no XDP program at this MTU (or with these offloads, LRO for \
         one); lower the MTU (ip link set dev {device} mtu 1500)"
    )]
    MtuTooLarge {
        /// The device.
        device: String,
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// No such device.
    #[error("{device}: {call}: {source}: no such device in this namespace; it was removed or moved")]
    NoDevice {
        /// The device.
        device: String,
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// Anything else, by its call.
    #[error("{device}: {call}: {source}")]
    System {
        /// The device.
        device: String,
        /// The call.
        call: &'static str,
        /// Its error.
        source: io::Error,
    },
}

/// The map from rx queues to sockets that the program redirects by.
#[derive(Debug)]
pub struct SocketMap(OwnedFd);

impl SocketMap {
    /// Makes an empty map for `queues` queues.
    ///
    /// # Errors
    /// [`ProgramError::NoPrivilege`], [`ProgramError::System`].
    pub fn new(device: &str, queues: u32) -> Result<Self, ProgramError> {
        // SAFETY: the name lives through the call; a null options pointer means none.
        let fd = unsafe {
            xdp::bpf_map_create(
                xdp::bpf_map_type_BPF_MAP_TYPE_XSKMAP,
                c"xdp_sockets".as_ptr(),
                4,
                4,
                queues.max(1),
                std::ptr::null(),
            )
        };
        if fd < 0 {
            return Err(explain(device, "bpf(MAP_CREATE, XSKMAP)", from_rc(fd)));
        }
        // SAFETY: a descriptor that the kernel just made for us alone.
        Ok(SocketMap(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Sends the frames of `queue` to `socket`, a bound AF_XDP socket. The kernel forgets it when it is closed.
    ///
    /// # Errors
    /// [`ProgramError::System`]: the queue is beyond the map, the socket is no AF_XDP socket.
    pub fn insert(&self, device: &str, queue: u32, socket: BorrowedFd<'_>) -> Result<(), ProgramError> {
        let value = socket.as_raw_fd();
        // SAFETY: key and value are four bytes each, as the map was made, and live through the call.
        let rc = unsafe {
            xdp::bpf_map_update_elem(
                self.0.as_raw_fd(),
                (&raw const queue).cast(),
                (&raw const value).cast(),
                u64::from(xdp::BPF_ANY),
            )
        };
        if rc < 0 { Err(explain(device, "bpf(MAP_UPDATE_ELEM, XSKMAP)", from_rc(rc))) } else { Ok(()) }
    }

    /// The map's descriptor, to hand to another process.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The attached program; dropping it detaches.
#[derive(Debug)]
pub struct Attachment {
    device: String,
    how: How,
    mode: XdpMode,
}

#[derive(Debug)]
enum How {
    /// Ends with the descriptor.
    Link { _link: OwnedFd },
    /// Ends when we say so, in the device's namespace.
    Dispatcher { ifindex: u32, program: u32, netns: OwnedFd },
    /// Already detached.
    Gone,
}

impl Attachment {
    /// Loads the program with `sockets` as its map and attaches it to the device `ifindex` (called `device` in
    /// messages) of the calling thread's network namespace: native, or generic where the driver has no XDP and
    /// `generic` allows it. With [`Company::Beside`], first removes what a killed predecessor left: bind the
    /// device's sockets before, they are the claim to it.
    ///
    /// # Errors
    /// See [`ProgramError`]; the device is then as it was.
    pub fn new(
        device: &str,
        ifindex: u32,
        sockets: &SocketMap,
        unclaimed: Unclaimed,
        company: Company,
        generic: bool,
    ) -> Result<Self, ProgramError> {
        let _library = library();
        let dispatcher = company == Company::Beside && has_bpffs();
        if dispatcher {
            remove_stale(device, ifindex)?;
        }
        refuse_occupied(device, ifindex, dispatcher)?;
        let attempt = |mode| -> Result<Self, ProgramError> {
            let object = Object::open(device, sockets, unclaimed)?;
            let mut how = None;
            if dispatcher {
                how = object.attach_dispatcher(device, ifindex, mode)?;
            }
            let how = match how {
                Some(how) => how,
                None => Object::open(device, sockets, unclaimed)?.attach_link(device, ifindex, mode)?,
            };
            Ok(Attachment { device: device.to_owned(), how, mode })
        };
        match attempt(XdpMode::Native) {
            Err(ProgramError::System { source, .. })
                if generic && source.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                attempt(XdpMode::Generic)
            }
            other => other,
        }
    }

    /// How the device runs the program.
    pub fn mode(&self) -> XdpMode {
        self.mode
    }

    /// True when other programs may join on the device.
    pub fn is_shared(&self) -> bool {
        matches!(self.how, How::Dispatcher { .. })
    }

    /// Takes the program off the device. Fine when the device is gone already.
    ///
    /// # Errors
    /// [`ProgramError::System`]: the dispatcher could not be changed.
    pub fn detach(mut self) -> Result<(), ProgramError> {
        self.detach_now()
    }

    fn detach_now(&mut self) -> Result<(), ProgramError> {
        match std::mem::replace(&mut self.how, How::Gone) {
            How::Link { .. } | How::Gone => Ok(()),
            How::Dispatcher { ifindex, program, netns } => {
                let device = self.device.as_str();
                within(&netns, || {
                    let _library = library();
                    detach_program(device, ifindex, program)
                })
                .map_err(|source| explain(device, "setns", source))?
            }
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // Nobody is left to tell; the next start on the device removes what stayed.
        let _ = self.detach_now();
    }
}

/// An opened, not yet loaded BPF object holding our program.
struct Object(NonNull<xdp::bpf_object>);

impl Drop for Object {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, closed once.
        unsafe { xdp::bpf_object__close(self.0.as_ptr()) };
    }
}

impl Object {
    fn open(device: &str, sockets: &SocketMap, unclaimed: Unclaimed) -> Result<Self, ProgramError> {
        // SAFETY: a structure of integers and pointers, for which zero means "default".
        let mut options: xdp::bpf_object_open_opts = unsafe { std::mem::zeroed() };
        options.sz = size_of::<xdp::bpf_object_open_opts>();
        options.object_name = c"vswitch".as_ptr();
        // SAFETY: the bytes are static and the options live through the call.
        let object = unsafe {
            xdp::bpf_object__open_mem(OBJECT.0.as_ptr().cast::<c_void>(), OBJECT.0.len(), &options)
        };
        let object = NonNull::new(object)
            .map(Object)
            .ok_or_else(|| explain(device, "opening the BPF object", io::Error::last_os_error()))?;
        let verdict: u32 = match unclaimed {
            Unclaimed::Pass => xdp::xdp_action_XDP_PASS,
            Unclaimed::Drop => xdp::xdp_action_XDP_DROP,
        };
        let sockets_map = object.map(device, c"xdp_sockets")?;
        // SAFETY: a map of this open object; libbpf duplicates the descriptor.
        let rc = unsafe { xdp::bpf_map__reuse_fd(sockets_map, sockets.0.as_raw_fd()) };
        check(rc, device, "using the socket map")?;
        let constants = object.map(device, c".rodata")?;
        // SAFETY: a map of this object, not loaded yet; the value is copied and has the section's four bytes.
        let rc = unsafe {
            xdp::bpf_map__set_initial_value(constants, (&raw const verdict).cast(), size_of::<u32>())
        };
        check(rc, device, "setting the program's constants")?;
        Ok(object)
    }

    fn map(&self, device: &str, name: &CStr) -> Result<*mut xdp::bpf_map, ProgramError> {
        // SAFETY: an open object and a string that live through the call.
        let map = unsafe { xdp::bpf_object__find_map_by_name(self.0.as_ptr(), name.as_ptr()) };
        if map.is_null() {
            return Err(explain(device, "finding a map in the BPF object", io::Error::last_os_error()));
        }
        Ok(map)
    }

    fn attach_link(self, device: &str, ifindex: u32, mode: XdpMode) -> Result<How, ProgramError> {
        // SAFETY: an open object that was not loaded before.
        check(unsafe { xdp::bpf_object__load(self.0.as_ptr()) }, device, "bpf(PROG_LOAD)")?;
        // SAFETY: a loaded object and a static string; the program lives as long as the object.
        let program = unsafe {
            let program = xdp::bpf_object__find_program_by_name(self.0.as_ptr(), PROGRAM_NAME.as_ptr());
            xdp::bpf_program__fd(program)
        };
        check(program, device, "finding the program in the BPF object")?;
        // SAFETY: a structure of integers and pointers, for which zero means "default".
        let mut options: xdp::bpf_link_create_opts = unsafe { std::mem::zeroed() };
        options.sz = size_of::<xdp::bpf_link_create_opts>();
        options.flags = match mode {
            XdpMode::Native => XDP_FLAGS_DRV_MODE,
            XdpMode::Generic => XDP_FLAGS_SKB_MODE,
        };
        // SAFETY: a loaded program, and options that live through the call.
        let link = unsafe {
            xdp::bpf_link_create(program, ifindex as c_int, xdp::bpf_attach_type_BPF_XDP, &options)
        };
        check(link, device, "bpf(LINK_CREATE, XDP)")?;
        // SAFETY: a descriptor that the kernel just made for us alone.
        Ok(How::Link { _link: unsafe { OwnedFd::from_raw_fd(link) } })
    }

    /// None when this kernel cannot run the dispatcher.
    fn attach_dispatcher(
        self,
        device: &str,
        ifindex: u32,
        mode: XdpMode,
    ) -> Result<Option<How>, ProgramError> {
        // SAFETY: a structure of integers and pointers, for which zero means "unset".
        let mut options: xdp::xdp_program_opts = unsafe { std::mem::zeroed() };
        options.sz = size_of::<xdp::xdp_program_opts>();
        options.obj = self.0.as_ptr();
        options.prog_name = PROGRAM_NAME.as_ptr();
        // SAFETY: the object outlives the program, which is declared after it and dropped before it.
        let program = Program::from_pointer(unsafe { xdp::xdp_program__create(&mut options) })
            .map_err(|source| explain(device, "preparing the XDP program", source))?;
        // SAFETY: a live program that is not loaded yet.
        let rc = unsafe { xdp::xdp_program__set_run_prio(program.0.as_ptr(), RUN_PRIORITY) };
        check(rc, device, "setting the XDP program's priority")?;
        let raw_mode = match mode {
            XdpMode::Native => xdp::xdp_attach_mode_XDP_MODE_NATIVE,
            XdpMode::Generic => xdp::xdp_attach_mode_XDP_MODE_SKB,
        };
        // SAFETY: a live program.
        let rc = unsafe { xdp::xdp_program__attach(program.0.as_ptr(), ifindex as c_int, raw_mode, 0) };
        check(rc, device, "attaching beside other XDP programs")?;
        let id = program.id();
        if Programs::on(ifindex)
            .map_err(|source| explain(device, "asking for XDP programs", source))?
            .dispatched
        {
            let netns = current_netns().map_err(|source| explain(device, "opening the namespace", source))?;
            return Ok(Some(How::Dispatcher { ifindex, program: id, netns }));
        }
        // libxdp fell back to a plain attachment, which would outlive us: a link does that better.
        detach_program(device, ifindex, id)?;
        Ok(None)
    }
}

/// A libxdp handle of a program.
struct Program(NonNull<xdp::xdp_program>);

impl Program {
    fn from_pointer(pointer: *mut xdp::xdp_program) -> io::Result<Self> {
        // SAFETY: only looks at the value of the pointer.
        let error = unsafe { xdp::libxdp_get_error(pointer.cast()) };
        if error != 0 {
            return Err(from_rc(error as c_int));
        }
        NonNull::new(pointer).map(Program).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn id(&self) -> u32 {
        // SAFETY: a live program.
        unsafe { xdp::xdp_program__id(self.0.as_ptr()) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by libxdp for us, closed once.
        unsafe { xdp::xdp_program__close(self.0.as_ptr()) };
    }
}

/// Which programs are on a device: names and ids.
struct Programs {
    /// By a dispatcher that others may join; else there is at most one program.
    dispatched: bool,
    list: Vec<(String, u32)>,
}

impl Programs {
    fn on(ifindex: u32) -> io::Result<Self> {
        // SAFETY: plain values in; the result is checked before use.
        let pointer = unsafe { xdp::xdp_multiprog__get_from_ifindex(ifindex as c_int) };
        // SAFETY: only looks at the value of the pointer.
        let error = unsafe { xdp::libxdp_get_error(pointer.cast()) };
        if error == -i64::from(libc::ENOENT) || (error == 0 && pointer.is_null()) {
            return Ok(Programs { dispatched: false, list: Vec::new() });
        }
        if error != 0 {
            return Err(from_rc(error as c_int));
        }
        // SAFETY: a live handle, closed once below; the programs in it live as long as it does.
        unsafe {
            let dispatched = !xdp::xdp_multiprog__is_legacy(pointer);
            let mut list = Vec::new();
            let mut program = if dispatched {
                xdp::xdp_multiprog__next_prog(std::ptr::null(), pointer)
            } else {
                xdp::xdp_multiprog__main_prog(pointer)
            };
            while !program.is_null() {
                let name = CStr::from_ptr(xdp::xdp_program__name(program)).to_string_lossy().into_owned();
                list.push((name, xdp::xdp_program__id(program)));
                program = if dispatched {
                    xdp::xdp_multiprog__next_prog(program, pointer)
                } else {
                    std::ptr::null_mut()
                };
            }
            xdp::xdp_multiprog__close(pointer);
            Ok(Programs { dispatched, list })
        }
    }
}

/// Names of the XDP programs on a device of the calling thread's namespace, for reports and tests.
///
/// # Errors
/// That of the netlink or BPF call.
pub fn programs_on(ifindex: u32) -> io::Result<Vec<String>> {
    let _library = library();
    Ok(Programs::on(ifindex)?.list.into_iter().map(|(name, _)| name).collect())
}

/// Removes programs of our name from the device's dispatcher; the caller holds the device's sockets.
fn remove_stale(device: &str, ifindex: u32) -> Result<(), ProgramError> {
    let there = Programs::on(ifindex).map_err(|source| explain(device, "asking for XDP programs", source))?;
    if !there.dispatched {
        return Ok(());
    }
    for (name, id) in there.list {
        if name.as_bytes() == PROGRAM_NAME.to_bytes() {
            detach_program(device, ifindex, id)?;
        }
    }
    Ok(())
}

fn refuse_occupied(device: &str, ifindex: u32, dispatcher: bool) -> Result<(), ProgramError> {
    let there = Programs::on(ifindex).map_err(|source| explain(device, "asking for XDP programs", source))?;
    if there.dispatched && dispatcher {
        return Ok(());
    }
    match there.list.into_iter().next() {
        None => Ok(()),
        Some((name, id)) => Err(ProgramError::Occupied { device: device.to_owned(), name, id }),
    }
}

fn detach_program(device: &str, ifindex: u32, id: u32) -> Result<(), ProgramError> {
    let call = "detaching the XDP program";
    // SAFETY: plain values in; the result is checked before use.
    let program = match Program::from_pointer(unsafe { xdp::xdp_program__from_id(id) }) {
        Ok(program) => program,
        Err(source) if source.raw_os_error() == Some(libc::ENOENT) => return Ok(()),
        Err(source) => return Err(explain(device, call, source)),
    };
    // SAFETY: a live program.
    let rc = unsafe {
        xdp::xdp_program__detach(
            program.0.as_ptr(),
            ifindex as c_int,
            xdp::xdp_attach_mode_XDP_MODE_UNSPEC,
            0,
        )
    };
    match from_rc(rc).raw_os_error() {
        _ if rc >= 0 => Ok(()),
        // The device or the program went before us; what is left are the dispatcher's pins of that device.
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => {
            remove_pins(ifindex, id);
            Ok(())
        }
        _ => Err(explain(device, call, from_rc(rc))),
    }
}

/// Where the dispatcher keeps its state.
fn bpffs() -> std::path::PathBuf {
    std::env::var_os("LIBXDP_BPFFS").map_or_else(|| "/sys/fs/bpf".into(), Into::into)
}

fn has_bpffs() -> bool {
    use std::os::unix::ffi::OsStrExt;
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let Ok(path) = std::ffi::CString::new(bpffs().as_os_str().as_bytes()) else { return false };
    // SAFETY: a structure of integers, for which zero is a value.
    let mut status: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path and the result live through the call.
    let rc = unsafe { libc::statfs(path.as_ptr(), &mut status) };
    rc == 0 && status.f_type as i64 == BPF_FS_MAGIC
}

/// Removes the dispatcher's directory of a device that is gone, if our program `id` was pinned there: it would
/// keep the program in the kernel for ever. Best effort.
fn remove_pins(ifindex: u32, id: u32) {
    let prefix = format!("dispatch-{ifindex}-");
    let Ok(directories) = std::fs::read_dir(bpffs().join("xdp")) else { return };
    for directory in directories.flatten().filter(|d| d.file_name().to_string_lossy().starts_with(&prefix)) {
        let Ok(pins) = std::fs::read_dir(directory.path()) else { continue };
        let pins: Vec<_> = pins.flatten().map(|pin| pin.path()).collect();
        if pins.iter().any(|pin| pinned_program(pin) == Some(id)) {
            for pin in pins {
                let _ = std::fs::remove_file(pin);
            }
            let _ = std::fs::remove_dir(directory.path());
        }
    }
}

fn pinned_program(pin: &std::path::Path) -> Option<u32> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(pin.as_os_str().as_bytes()).ok()?;
    // SAFETY: the path lives through the call; the result is checked.
    let program = Program::from_pointer(unsafe { xdp::xdp_program__from_pin(path.as_ptr()) }).ok()?;
    Some(program.id())
}

pub(super) fn current_netns() -> io::Result<OwnedFd> {
    Ok(std::fs::File::open("/proc/thread-self/ns/net")?.into())
}

/// Runs `work` on a thread of its own inside the network namespace `netns`.
pub(super) fn within<T: Send>(netns: &OwnedFd, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let inside = scope.spawn(|| {
            // SAFETY: no pointers; changes the namespace of this short-lived thread only.
            if unsafe { libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(work())
        });
        inside.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

/// Takes the libraries' lock and silences them: their words go into our errors, not to standard error.
fn library() -> MutexGuard<'static, ()> {
    let guard = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: under the lock; a null callback means "print nothing" to both.
    unsafe {
        libbpf_set_print(None);
        xdp::libxdp_set_print(None);
    }
    guard
}

/// libbpf and libxdp return a negative errno.
fn from_rc(rc: c_int) -> io::Error {
    io::Error::from_raw_os_error(rc.saturating_neg())
}

fn check(rc: c_int, device: &str, call: &'static str) -> Result<(), ProgramError> {
    if rc < 0 { Err(explain(device, call, from_rc(rc))) } else { Ok(()) }
}

/// Turns an errno into the likely cause and the fix.
fn explain(device: &str, call: &'static str, source: io::Error) -> ProgramError {
    let device = device.to_owned();
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => ProgramError::NoPrivilege { device, call, source },
        Some(libc::ENODEV | libc::ENXIO) => ProgramError::NoDevice { device, call, source },
        Some(libc::ERANGE) => ProgramError::MtuTooLarge { device, call, source },
        Some(libc::EBUSY | libc::EEXIST) => {
            ProgramError::Occupied { device, name: "(attached meanwhile)".into(), id: 0 }
        }
        _ => ProgramError::System { device, call, source },
    }
}
