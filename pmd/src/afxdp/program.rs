//! Our XDP program on a device: load, attach, detach; and the maps that it reads: from queues to sockets, and of what
//! is taken on a device that the host's kernel keeps.
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

mod dispatcher;
mod error;

use std::collections::BTreeSet;
use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use libxdp_sys as xdp;

use super::device::{current_netns, within};
use crate::port::Taken;
use dispatcher::{Program, Programs, detach_program, has_bpffs, library, refuse_occupied, remove_stale};
use error::{check, explain, from_rc};

pub use dispatcher::programs_on;
pub use error::ProgramError;

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

/// The map from rx queues to sockets that the program redirects by.
#[derive(Debug)]
pub struct SocketMap {
    map: OwnedFd,
    /// What is taken of a device that the host's kernel keeps.
    selection: Option<Selection>,
}

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
        Ok(SocketMap { map: unsafe { OwnedFd::from_raw_fd(fd) }, selection: None })
    }

    /// The same for a device that the host's kernel keeps: nothing is taken before it is [selected](Self::select).
    ///
    /// # Errors
    /// As [`SocketMap::new`].
    pub fn selective(device: &str, queues: u32) -> Result<Self, ProgramError> {
        let selection = Some(Selection::new(device)?);
        Ok(SocketMap { selection, ..Self::new(device, queues)? })
    }

    /// From now on exactly these frames are taken, if the map is [selective](Self::selective).
    ///
    /// # Errors
    /// [`ProgramError::System`]: more than there is room for.
    pub fn select(&mut self, device: &str, wanted: BTreeSet<Taken>) -> Result<(), ProgramError> {
        self.selection.as_mut().map_or(Ok(()), |selection| selection.set(device, wanted))
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
                self.map.as_raw_fd(),
                (&raw const queue).cast(),
                (&raw const value).cast(),
                u64::from(xdp::BPF_ANY),
            )
        };
        if rc < 0 { Err(explain(device, "bpf(MAP_UPDATE_ELEM, XSKMAP)", from_rc(rc))) } else { Ok(()) }
    }

    /// The map's descriptor, to hand to another process.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// What the program takes on a device that the host's kernel keeps; nothing at first. All else is the kernel's.
#[derive(Debug)]
struct Selection {
    map: OwnedFd,
    /// What is in the map.
    taken: BTreeSet<Taken>,
}

impl Selection {
    /// An empty one.
    fn new(device: &str) -> Result<Self, ProgramError> {
        // SAFETY: the name lives through the call; a null options pointer means none.
        let fd = unsafe {
            xdp::bpf_map_create(
                xdp::bpf_map_type_BPF_MAP_TYPE_HASH,
                c"taken".as_ptr(),
                KEY as u32,
                4,
                TAKEN_MAX,
                std::ptr::null(),
            )
        };
        if fd < 0 {
            return Err(explain(device, "bpf(MAP_CREATE, HASH)", from_rc(fd)));
        }
        // SAFETY: a descriptor that the kernel just made for us alone.
        Ok(Selection { map: unsafe { OwnedFd::from_raw_fd(fd) }, taken: BTreeSet::new() })
    }

    fn set(&mut self, device: &str, wanted: BTreeSet<Taken>) -> Result<(), ProgramError> {
        for gone in self.taken.difference(&wanted) {
            // SAFETY: a key of the size that the map was made with, which lives through the call.
            let rc = unsafe { xdp::bpf_map_delete_elem(self.map.as_raw_fd(), key(gone).as_ptr().cast()) };
            if rc < 0 {
                return Err(explain(device, "bpf(MAP_DELETE_ELEM, HASH)", from_rc(rc)));
            }
        }
        self.taken.retain(|taken| wanted.contains(taken));
        for new in wanted {
            if self.taken.contains(&new) {
                continue;
            }
            let value = 1u32;
            // SAFETY: key and value have the sizes that the map was made with, and live through the call.
            let rc = unsafe {
                xdp::bpf_map_update_elem(
                    self.map.as_raw_fd(),
                    key(&new).as_ptr().cast(),
                    (&raw const value).cast(),
                    u64::from(xdp::BPF_ANY),
                )
            };
            if rc < 0 {
                return Err(explain(device, "bpf(MAP_UPDATE_ELEM, HASH)", from_rc(rc)));
            }
            self.taken.insert(new);
        }
        Ok(())
    }
}

/// Bytes of `struct taken_key`.
const KEY: usize = 40;

/// Most of what is taken on one device, as the program's own map has it.
const TAKEN_MAX: u32 = 1024;

/// As `struct taken_key` of the program.
fn key(taken: &Taken) -> [u8; KEY] {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut key = [0; KEY];
    key[..16].copy_from_slice(&octets(taken.to));
    key[16..32].copy_from_slice(&taken.from.map_or([0; 16], octets));
    key[32..34].copy_from_slice(&taken.vlan.unwrap_or(0).to_be_bytes());
    key[34..36].copy_from_slice(&taken.port.to_be_bytes());
    key[36..].copy_from_slice(&u32::from(taken.protocol).to_ne_bytes());
    key
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
        let rc = unsafe { xdp::bpf_map__reuse_fd(sockets_map, sockets.map.as_raw_fd()) };
        check(rc, device, "using the socket map")?;
        if let Some(selection) = &sockets.selection {
            let taken = object.map(device, c"taken")?;
            // SAFETY: a map of this open object; libbpf duplicates the descriptor.
            let rc = unsafe { xdp::bpf_map__reuse_fd(taken, selection.map.as_raw_fd()) };
            check(rc, device, "using the map of what is taken")?;
        }
        let constants = object.map(device, c".rodata")?;
        let values = [verdict, sockets.selection.is_some().into()];
        // SAFETY: a map of this object, not loaded yet; the values are copied and have the section's eight bytes.
        let rc = unsafe {
            xdp::bpf_map__set_initial_value(constants, values.as_ptr().cast(), size_of_val(&values))
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
