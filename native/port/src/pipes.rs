//! The two descriptors that the VM leaves to a port without standard input and output: packets
//! come in on 3 and go out on 4. 0, 1 and 2 are those of the node.

use std::fs::File;
use std::os::fd::{FromRawFd, RawFd};

const INPUT: RawFd = 3;
const OUTPUT: RawFd = 4;

/// As much as the VM's driver and this program may have between them without waking each other.
#[cfg(target_os = "linux")]
const PIPE_BYTES: libc::c_int = 256 * 1024;

/// The pipes, or nothing where there are none: the program was started by hand. To be called
/// once, first of all.
pub(crate) fn take() -> Option<(File, File)> {
    if !(is_pipe(INPUT) && is_pipe(OUTPUT)) {
        return None;
    }
    run_when_parent_dies();
    Some((own(INPUT), own(OUTPUT)))
}

fn is_pipe(fd: RawFd) -> bool {
    // SAFETY: `fstat` writes a `stat` to the place it is given and takes any descriptor.
    let kind = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &raw mut stat) == 0).then_some(stat.st_mode & libc::S_IFMT)
    };
    matches!(kind, Some(libc::S_IFIFO | libc::S_IFSOCK))
}

/// The descriptor as a file, closed in children, with a larger buffer where that can be had.
fn own(fd: RawFd) -> File {
    // SAFETY: these calls take any descriptor. It is open, as was just seen, and nothing else in
    // this process refers to it, since `main` calls this before everything else.
    unsafe {
        libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        #[cfg(target_os = "linux")]
        libc::fcntl(fd, libc::F_SETPIPE_SZ, PIPE_BYTES);
        File::from_raw_fd(fd)
    }
}

/// The VM's own child, which started this program, ends with the VM. The end of the input says the
/// same, but not to a program that has been stopped: this has it run again. SIGKILL would leave it no
/// time for its children.
fn run_when_parent_dies() {
    #[cfg(target_os = "linux")]
    // SAFETY: takes two numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGCONT);
    }
}
