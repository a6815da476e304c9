//! What Linux says about the servers and the machine: processor time, memory, threads.
//!
//! KB here and in every figure is 1,024 bytes, as in /proc.

use std::fs;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Processor time, user and system, that these processes have used, threads that have ended
/// included.
pub fn cpu(processes: &[u32]) -> Duration {
    let ticks: u64 = processes
        .iter()
        .filter_map(|process| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
            // The name in parentheses may hold spaces: count the fields from behind it. utime and
            // stime are the 14th and 15th of the line, so the 12th and 13th from there.
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        })
        .sum();
    Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Memory of these processes in KB. Pages they share (nginx's workers do) count once.
pub fn memory(processes: &[u32]) -> f64 {
    processes.iter().filter_map(|process| field(&format!("/proc/{process}/smaps_rollup"), "Pss:")).sum()
}

pub fn threads(processes: &[u32]) -> f64 {
    processes.iter().filter_map(|process| field(&format!("/proc/{process}/status"), "Threads:")).sum()
}

/// A process and its children.
pub fn family(process: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    std::iter::once(process).chain(children.split_whitespace().filter_map(|child| child.parse().ok())).collect()
}

/// Memory that the machine could still give out, in KB, once that has come to rest: the memory of
/// processes and connections that have ended comes back with a delay, and what another server had
/// must not count for this one.
pub fn available_memory() -> f64 {
    shrink_slabs();
    const REST_KB: f64 = 512.0;
    let mut before = median_of_a_second();
    for _ in 0..15 {
        let now = median_of_a_second();
        if (now - before).abs() < REST_KB {
            return now;
        }
        before = now;
    }
    before
}

/// Lets the kernel give back what its pools keep of connections that have ended: the next server
/// would have them for nothing. Only root may; without, memory per connection is the rounds' median
/// of a lottery.
fn shrink_slabs() {
    for pool in fs::read_dir("/sys/kernel/slab").into_iter().flatten().flatten() {
        let _ = fs::write(pool.path().join("shrink"), "1");
    }
}

fn median_of_a_second() -> f64 {
    let mut readings: Vec<f64> = (0..10)
        .filter_map(|_| {
            thread::sleep(Duration::from_millis(100));
            field("/proc/meminfo", "MemAvailable:")
        })
        .collect();
    readings.sort_by(f64::total_cmp);
    readings.get(readings.len() / 2).copied().unwrap_or_default()
}

/// Processor time that the whole machine has used, and what its host took from it.
pub fn machine() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user, nice, system, (idle, iowait,) irq, softirq, steal
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|place| fields.get(*place)).sum();
    Duration::from_secs_f64(busy as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The machine in a few words.
pub fn description() -> String {
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let gigabytes = field("/proc/meminfo", "MemTotal:").unwrap_or_default() / 1024.0 / 1024.0;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']);
    format!("{cores} cores ({model}), {gigabytes:.0} GB, Linux {kernel}")
}

fn field(path: &str, name: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Lets this process, and the servers it starts, open this many files.
pub fn allow_open_files(wanted: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Anyone may go up to the upper limit; only root may lift it.
    let lifted = maximum.map(|maximum| maximum.max(wanted));
    setrlimit(Resource::Nofile, Rlimit { current: lifted, maximum: lifted })
        .map_err(|_| io::Error::other(format!("the bench needs {wanted} open files, and ulimit -Hn is lower")))
}

/// The first of these paths that exists.
pub fn first_of(paths: &'static [&'static str]) -> Option<&'static Path> {
    paths.iter().map(Path::new).find(|path| path.exists())
}
