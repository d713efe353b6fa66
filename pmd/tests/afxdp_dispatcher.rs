//! Our XDP program beside another one, by libxdp's dispatcher, on a bpffs of this test's own.
//!
//! One test in a file of its own: the bpffs path is an environment variable of the whole process. Needs root.
#![allow(unsafe_code, clippy::unwrap_used)]

mod lab;

use std::ffi::CString;
use std::io;
use std::path::PathBuf;

use lab::{FAR, NEAR, ifindex, private_pair};
use pmd::afxdp::program::{Attachment, Company, ProgramError, SocketMap, Unclaimed, programs_on};

/// A bpffs that only this thread and its children see, and that goes with them.
struct PrivateBpffs(PathBuf);

impl PrivateBpffs {
    fn mount() -> Self {
        let place = std::env::temp_dir().join(format!("vswitch-test-bpffs-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let target = CString::new(place.to_str().unwrap()).unwrap();
        // SAFETY: strings live through the calls; the mount namespace is this thread's own.
        unsafe {
            assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "unshare: {}", io::Error::last_os_error());
            let private = libc::MS_REC | libc::MS_PRIVATE;
            let none = std::ptr::null();
            assert_eq!(libc::mount(none, c"/".as_ptr(), none, private, none.cast()), 0);
            let rc = libc::mount(c"bpf".as_ptr(), target.as_ptr(), c"bpf".as_ptr(), 0, none.cast());
            assert_eq!(rc, 0, "mount: {}", io::Error::last_os_error());
            std::env::set_var("LIBXDP_BPFFS", &place);
        }
        PrivateBpffs(place)
    }

    /// Names of the dispatchers' directories.
    fn dispatchers(&self) -> Vec<String> {
        let Ok(directories) = std::fs::read_dir(self.0.join("xdp")) else { return Vec::new() };
        directories.map(|d| d.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for PrivateBpffs {
    fn drop(&mut self) {
        let target = CString::new(self.0.to_str().unwrap()).unwrap();
        // SAFETY: the string lives through the call.
        unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) };
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn attach(device: &str, company: Company) -> Attachment {
    let sockets = SocketMap::new(device, 1).unwrap();
    Attachment::new(device, ifindex(device), &sockets, Unclaimed::Pass, company, true).unwrap()
}

/// Attaches the example program that libxdp brings, as another tool would.
fn attach_foreign(device: &str) {
    use libxdp_sys as xdp;
    // SAFETY: strings and results live as long as they are used; errors are checked.
    unsafe {
        let name = c"xdp-dispatcher.o";
        let program = {
            let mut options: xdp::xdp_program_opts = std::mem::zeroed();
            options.sz = size_of::<xdp::xdp_program_opts>();
            options.find_filename = name.as_ptr();
            options.prog_name = c"xdp_pass".as_ptr();
            xdp::xdp_program__create(&mut options)
        };
        assert_eq!(xdp::libxdp_get_error(program.cast()), 0);
        let rc = xdp::xdp_program__attach(
            program,
            ifindex(device) as i32,
            xdp::xdp_attach_mode_XDP_MODE_NATIVE,
            0,
        );
        assert_eq!(rc, 0, "attach: {}", io::Error::from_raw_os_error(-rc));
        xdp::xdp_program__close(program);
    }
}

fn programs(device: &str) -> Vec<String> {
    let mut names = programs_on(ifindex(device)).unwrap();
    names.sort();
    names
}

#[test]
fn programs_share_a_device_or_are_left_alone() {
    let bpffs = PrivateBpffs::mount();
    private_pair(1500);
    let ours = attach(NEAR, Company::Beside);
    assert_eq!(programs(NEAR), ["vswitch_xsk"]);
    let shared = ours.is_shared();
    drop(ours);
    assert_eq!(programs(NEAR), Vec::<String>::new());
    assert_eq!(bpffs.dispatchers(), Vec::<String>::new());
    attach_foreign(NEAR);
    if shared {
        beside_the_other_program(&bpffs);
    } else {
        // A kernel that refuses extension programs: there is no dispatcher, and the other program keeps the device.
        let sockets = SocketMap::new(NEAR, 1).unwrap();
        let error = Attachment::new(NEAR, ifindex(NEAR), &sockets, Unclaimed::Pass, Company::Beside, true)
            .unwrap_err();
        assert!(matches!(&error, ProgramError::Occupied { name, .. } if name == "xdp_pass"), "{error}");
        assert_eq!(programs(NEAR), ["xdp_pass"]);
    }
}

fn beside_the_other_program(bpffs: &PrivateBpffs) {
    let ours = attach(NEAR, Company::Beside);
    assert_eq!(programs(NEAR), ["vswitch_xsk", "xdp_pass"]);
    ours.detach().unwrap();
    assert_eq!(programs(NEAR), ["xdp_pass"]);

    // A predecessor that was killed left its program: the next start takes its place.
    std::mem::forget(attach(NEAR, Company::Beside));
    let ours = attach(NEAR, Company::Beside);
    assert_eq!(programs(NEAR), ["vswitch_xsk", "xdp_pass"]);

    // Detaching finds the device also from another namespace.
    std::thread::spawn(move || {
        // SAFETY: no pointers; this thread only.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0);
        ours.detach().unwrap();
    })
    .join()
    .unwrap();
    assert_eq!(programs(NEAR), ["xdp_pass"]);

    // The device goes while the program is on it: of ours no pins stay.
    let ours = attach(FAR, Company::Beside);
    let index = ifindex(FAR);
    lab::ip(&["link", "del", NEAR]);
    ours.detach().unwrap();
    let pins = format!("dispatch-{index}-");
    assert!(bpffs.dispatchers().iter().all(|name| !name.starts_with(&pins)), "{:?}", bpffs.dispatchers());
}
