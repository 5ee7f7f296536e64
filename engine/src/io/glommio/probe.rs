//! Whether this machine can run the executors; asked before the first one starts.

/// Err where io_uring is not to be had.
pub fn io_uring() -> std::io::Result<()> {
    let mut params = [0u8; 120];
    // SAFETY: io_uring_setup reads and writes one io_uring_params, which is 120 bytes
    // and may be all zero.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the call returned a new descriptor that is ours alone.
    drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as i32) });
    Ok(())
}
