//! The programs that are on a device, and libxdp's dispatcher that lets several be there.
//!
//! The dispatcher keeps its state as pins in a bpffs: a directory `xdp/dispatch-IFINDEX-ID` with a link and a program
//! for each member. Interface indices of different namespaces may meet there; the dispatcher's id tells them apart.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::io;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use libxdp_sys as xdp;

use super::PROGRAM_NAME;
use super::error::{ProgramError, explain, from_rc};

/// libxdp and libbpf keep state in statics.
static LIBRARY: Mutex<()> = Mutex::new(());

// SAFETY: the signature is libbpf's (`libbpf_set_print` of <bpf/libbpf.h>), both types being pointers to
// functions; of the callback type only null is ever passed, so its arguments do not matter.
unsafe extern "C" {
    /// libbpf's own, which the bindings leave out; a null callback silences it.
    fn libbpf_set_print(callback: Option<unsafe extern "C" fn()>) -> Option<unsafe extern "C" fn()>;
}

/// Takes the libraries' lock and silences them: their words go into our errors, not to standard error.
pub(super) fn library() -> MutexGuard<'static, ()> {
    let guard = LIBRARY.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: under the lock; a null callback means "print nothing" to both.
    unsafe {
        libbpf_set_print(None);
        xdp::libxdp_set_print(None);
    }
    guard
}

/// A libxdp handle of a program.
pub(super) struct Program(pub(super) NonNull<xdp::xdp_program>);

impl Program {
    pub(super) fn from_pointer(pointer: *mut xdp::xdp_program) -> io::Result<Self> {
        // SAFETY: only looks at the value of the pointer.
        let error = unsafe { xdp::libxdp_get_error(pointer.cast()) };
        if error != 0 {
            return Err(from_rc(error as c_int));
        }
        NonNull::new(pointer).map(Program).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    pub(super) fn id(&self) -> u32 {
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
pub(super) struct Programs {
    /// By a dispatcher that others may join; else there is at most one program.
    pub(super) dispatched: bool,
    pub(super) list: Vec<(String, u32)>,
}

impl Programs {
    pub(super) fn on(ifindex: u32) -> io::Result<Self> {
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
pub(super) fn remove_stale(device: &str, ifindex: u32) -> Result<(), ProgramError> {
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

pub(super) fn refuse_occupied(device: &str, ifindex: u32, dispatcher: bool) -> Result<(), ProgramError> {
    let there = Programs::on(ifindex).map_err(|source| explain(device, "asking for XDP programs", source))?;
    if there.dispatched && dispatcher {
        return Ok(());
    }
    match there.list.into_iter().next() {
        None => Ok(()),
        Some((name, id)) => Err(ProgramError::Occupied { device: device.to_owned(), name, id }),
    }
}

pub(super) fn detach_program(device: &str, ifindex: u32, id: u32) -> Result<(), ProgramError> {
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

pub(super) fn has_bpffs() -> bool {
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
