//! System calls of a server while it is measured, counted by `perf stat`: `--calls`. Counting costs time, so figures of
//! such a run are for `PROFILE.md` alone.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

/// What any of the servers calls while it serves. All there are would take longer to set up for each new thread than
/// the thread lives.
const CALLS: &str = "accept accept4 bind clock_nanosleep clone3 close connect epoll_ctl epoll_pwait epoll_wait exit \
    fcntl fdatasync fsync futex getpeername getsockname getsockopt io_uring_enter ioctl madvise mmap mprotect munmap \
    poll ppoll read readv recvfrom recvmsg rseq rt_sigprocmask sched_getaffinity sched_yield sendfile64 sendmsg sendto \
    set_robust_list setsockopt shutdown sigaltstack write writev";

pub struct Calls {
    perf: Child,
    output: tempfile::NamedTempFile,
}

impl Calls {
    pub fn start(processes: &[u32]) -> io::Result<Self> {
        let output = tempfile::NamedTempFile::new()?;
        let events: Vec<String> = CALLS.split_whitespace().map(|call| format!("syscalls:sys_enter_{call}")).collect();
        let processes: Vec<String> = processes.iter().map(u32::to_string).collect();
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x", ",", "-e", &events.join(","), "-p", &processes.join(",")]);
        perf.arg("-o").arg(output.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let perf = perf.spawn()?;
        // It says nothing when it has begun.
        thread::sleep(Duration::from_millis(500));
        Ok(Self { perf, output })
    }

    /// "write 1.000, futex 0.013": of so many units each.
    pub fn stop(mut self, units: f64) -> io::Result<String> {
        if let Some(perf) = rustix::process::Pid::from_raw(self.perf.id() as i32) {
            rustix::process::kill_process(perf, rustix::process::Signal::INT)?;
        }
        let status = self.perf.wait()?;
        if status.code() == Some(129) {
            return Err(io::Error::other("perf stat knows not all of the calls"));
        }
        let text = fs::read_to_string(self.output.path())?;
        let mut counts: Vec<(f64, &str)> = text
            .lines()
            .filter_map(|line| {
                let count = line.split(',').next()?.parse::<f64>().ok()? / units;
                let call = line.split("sys_enter_").nth(1)?.split(',').next()?;
                (count >= 0.0005).then_some((count, call))
            })
            .collect();
        counts.sort_by(|one, other| other.0.total_cmp(&one.0));
        let texts: Vec<String> = counts.iter().map(|(count, call)| format!("{call} {count:.3}")).collect();
        Ok(texts.join(", "))
    }
}
