//! Metrics of the machine: processor, memory, network, and the disk that the data lies on.

use std::path::{Path, PathBuf};

use metrics::{Unit, describe_counter, describe_gauge};

const CPUS: &str = "folkmoot_host_cpus";
const CPU_BUSY: &str = "folkmoot_host_cpu_busy_ratio";
const MEMORY_TOTAL: &str = "folkmoot_host_memory_total_bytes";
const MEMORY_AVAILABLE: &str = "folkmoot_host_memory_available_bytes";
const RECEIVED: &str = "folkmoot_host_network_received_bytes_total";
const SENT: &str = "folkmoot_host_network_sent_bytes_total";
const DISK_TOTAL: &str = "folkmoot_host_disk_total_bytes";
const DISK_FREE: &str = "folkmoot_host_disk_free_bytes";

/// Reads the machine's figures. What the system does not tell is left out.
#[derive(Debug)]
pub(super) struct Host {
    data: PathBuf,
    #[cfg(target_os = "linux")]
    last: Option<(u64, u64)>,
}

impl Host {
    pub(super) fn new(data: &Path) -> Self {
        describe_gauge!(CPUS, Unit::Count, "processors of the machine");
        describe_gauge!(CPU_BUSY, "share of the machine's processor time that was used, over the last seconds");
        describe_gauge!(MEMORY_TOTAL, Unit::Bytes, "memory of the machine");
        describe_gauge!(MEMORY_AVAILABLE, Unit::Bytes, "memory of the machine that programs could still have");
        describe_counter!(RECEIVED, Unit::Bytes, "received by the machine's network interfaces, loopback left out");
        describe_counter!(SENT, Unit::Bytes, "sent by the machine's network interfaces, loopback left out");
        describe_gauge!(DISK_TOTAL, Unit::Bytes, "size of the file system that the data directory is on");
        describe_gauge!(DISK_FREE, Unit::Bytes, "free space of the file system that the data directory is on");
        Self {
            data: data.to_owned(),
            #[cfg(target_os = "linux")]
            last: None,
        }
    }

    /// Brings the metrics up to date. Reads a few files of the system: some hundred microseconds.
    pub(super) fn collect(&mut self) {
        self.disk();
        #[cfg(target_os = "linux")]
        self.machine();
    }

    fn disk(&self) {
        #[cfg(unix)]
        if let Ok(disk) = rustix::fs::statvfs(&self.data) {
            gauge(DISK_TOTAL, disk.f_blocks.saturating_mul(disk.f_frsize));
            gauge(DISK_FREE, disk.f_bavail.saturating_mul(disk.f_frsize));
        }
    }

    #[cfg(target_os = "linux")]
    fn machine(&mut self) {
        use procfs::{Current as _, CurrentSI as _};

        if let Ok(stat) = procfs::KernelStats::current() {
            let cpu = stat.total;
            let idle = cpu.idle + cpu.iowait.unwrap_or_default();
            // Time of guests is counted in that of users already.
            let rest = [cpu.irq, cpu.softirq, cpu.steal].into_iter().flatten().sum::<u64>();
            let all = cpu.user + cpu.nice + cpu.system + idle + rest;
            gauge(CPUS, stat.cpu_time.len() as u64);
            if let Some((last_idle, last_all)) = self.last.replace((idle, all))
                && all > last_all
            {
                let (idle, all) = (idle.saturating_sub(last_idle), all - last_all);
                metrics::gauge!(CPU_BUSY).set((1.0 - to_f64(idle) / to_f64(all)).clamp(0.0, 1.0));
            }
        }
        if let Ok(memory) = procfs::Meminfo::current() {
            gauge(MEMORY_TOTAL, memory.mem_total);
            if let Some(available) = memory.mem_available {
                gauge(MEMORY_AVAILABLE, available);
            }
        }
        if let Ok(devices) = procfs::net::dev_status() {
            let devices = || devices.values().filter(|device| device.name != "lo");
            metrics::counter!(RECEIVED).absolute(devices().map(|device| device.recv_bytes).sum());
            metrics::counter!(SENT).absolute(devices().map(|device| device.sent_bytes).sum());
        }
    }
}

fn gauge(name: &'static str, value: u64) {
    metrics::gauge!(name).set(to_f64(value));
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats; bytes beyond 2^53 need not be exact")]
const fn to_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    /// What the kernel's table says that all interfaces but loopback received and sent.
    #[cfg(target_os = "linux")]
    fn devices() -> (f64, f64) {
        let table = std::fs::read_to_string("/proc/net/dev").unwrap();
        let columns = table.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
        columns.fold((0.0, 0.0), |(received, sent), (_, rest)| {
            let column = |at| rest.split_whitespace().nth(at).unwrap().parse::<f64>().unwrap();
            (received + column(0), sent + column(8))
        })
    }

    #[test]
    fn the_machine_tells_its_figures() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let mut host = Host::new(Path::new("."));
            host.collect();
            // The processors' time is counted in hundredths of a second, so a busy share takes a while to have.
            let begun = std::time::Instant::now();
            while !handle.render().contains(&format!("\n{CPU_BUSY} ")) {
                assert!(begun.elapsed() < std::time::Duration::from_secs(20) || !cfg!(target_os = "linux"));
                if cfg!(not(target_os = "linux")) {
                    break;
                }
                std::thread::yield_now();
                host.collect();
            }
        });
        let text = handle.render();
        let figure = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        };
        #[cfg(unix)]
        assert!(figure(DISK_TOTAL) >= figure(DISK_FREE) && figure(DISK_FREE) > Some(0.0), "{text}");
        #[cfg(target_os = "linux")]
        {
            // Within a container with less than the machine there may be fewer for this process.
            let cpus = std::thread::available_parallelism().unwrap().get();
            assert!(figure(CPUS) >= Some(to_f64(cpus as u64)), "{text}");
            assert!(figure(MEMORY_TOTAL) > figure(MEMORY_AVAILABLE), "{text}");
            assert!(figure(MEMORY_AVAILABLE) > Some(0.0), "{text}");
            assert!((0.0..=1.0).contains(&figure(CPU_BUSY).unwrap()), "{text}");
            let (received, sent) = devices();
            assert!(figure(RECEIVED) <= Some(received) && figure(SENT) <= Some(sent), "{text}");
            assert_eq!(
                (figure(RECEIVED) > Some(0.0), figure(SENT) > Some(0.0)),
                (received > 0.0, sent > 0.0),
                "{text}"
            );
        }
    }
}
