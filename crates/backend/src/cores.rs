//! The cores that this process may use, and how many threads of them to use.

use std::{fs, num::NonZero, path::Path, thread};

/// Tasks that every thread finds in a parallel region, at least.
const TASKS: f64 = 2.0;

/// The cores that this process may use, by what Linux says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Of each core, fastest first; empty where nothing is said.
    capacities: Vec<u32>,
    /// Cores' worth of time that the process gets.
    quota: usize,
}

impl Cores {
    /// The cores of this machine, without those that this process must not use.
    pub fn detect() -> Self {
        let quota = thread::available_parallelism().map_or(1, NonZero::get);
        Self::of(Path::new("/"), quota)
    }

    /// [`Self::detect`] with `sys` and `proc` below `root`.
    fn of(root: &Path, quota: usize) -> Self {
        let mut capacities = capacities(root).unwrap_or_default();
        capacities.sort_by(|a, b| b.cmp(a));
        Self { capacities, quota }
    }

    /// How many threads finish soonest. The system chooses the cores that they run on.
    ///
    /// With the `n` fastest cores, whose capacities are `c`, work that is shared out in `2 n` tasks
    /// takes `1 / sum(c)`, and at worst one task more on the slowest, `1 / (2 n min(c))`. So slow
    /// cores help down to about a third of the fast ones' speed.
    pub fn threads(&self) -> usize {
        let mut sum = 0.0;
        let mut best = None;
        for (i, capacity) in self.capacities.iter().take(self.quota).enumerate() {
            let (n, capacity) = (i + 1, f64::from(*capacity));
            sum += capacity;
            let time = 1.0 / sum + 1.0 / (TASKS * n as f64 * capacity);
            if best.is_none_or(|(least, _)| time <= least) {
                best = Some((time, n));
            }
        }
        best.map_or(self.quota, |(_, n)| n)
    }

    /// Linux's capacities of the cores, fastest first, and how many cores have each: 1024 is a
    /// machine's fastest. Empty where nothing is said.
    pub fn kinds(&self) -> Vec<(u32, usize)> {
        let kinds = self.capacities.chunk_by(|a, b| a == b);
        kinds.map(|kind| (kind[0], kind.len())).collect()
    }
}

/// The capacities of the cores that are there and that the process may use, if all are known.
fn capacities(root: &Path) -> Option<Vec<u32>> {
    let cpus = root.join("sys/devices/system/cpu");
    let read = |path: &str| fs::read_to_string(cpus.join(path)).ok();
    let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
    let mut lines = status.lines();
    let allowed = lines.find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let (allowed, online) = (numbers(allowed)?, numbers(&read("online")?)?);
    let both = allowed.into_iter().filter(|cpu| online.contains(cpu));
    both.map(|cpu| {
        let capacity = read(&format!("cpu{cpu}/cpu_capacity"))?;
        capacity
            .trim()
            .parse()
            .ok()
            .filter(|capacity| *capacity > 0)
    })
    .collect()
}

/// The numbers of a list as `0-3,8`.
fn numbers(list: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(capacities: &[(u32, usize)], quota: usize) -> Cores {
        let all = capacities.iter();
        let capacities = all.flat_map(|(capacity, n)| vec![*capacity; *n]).collect();
        Cores { capacities, quota }
    }

    #[test]
    fn this_machine_has_cores() {
        let cores = Cores::detect();
        assert!((1..=cores.quota).contains(&cores.threads()), "{cores:?}");
    }

    #[test]
    fn slow_cores_are_used_where_they_help() {
        for (capacities, quota, threads) in [
            (&[(1024, 2)][..], 2, 2),
            (&[(1024, 10), (718, 10)], 20, 20),
            (&[(1024, 4), (446, 4)], 8, 8),
            (&[(1024, 10), (300, 10)], 20, 10),
            (&[(1024, 2), (768, 2), (100, 4)], 8, 4),
            // A container's share of the time.
            (&[(1024, 10), (718, 10)], 4, 4),
            // Nothing is said.
            (&[], 3, 3),
        ] {
            let found = cores(capacities, quota).threads();
            assert_eq!(found, threads, "{capacities:?}");
        }
    }

    #[test]
    fn cores_are_found_where_linux_has_them() {
        let root = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let found = |quota| Cores::of(root.path(), quota);
        assert_eq!(found(3), cores(&[], 3), "nothing is said");
        write(
            "proc/self/status",
            "Name:\tx\nCpus_allowed_list:\t0-2,5-6\n",
        );
        write("sys/devices/system/cpu/online", "0-5\n");
        assert_eq!(found(4), cores(&[], 4), "nothing is said of speeds");
        for (cpu, capacity) in [(0, 512), (1, 1024), (2, 512), (3, 1024)] {
            let file = format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity");
            write(&file, &format!("{capacity}\n"));
        }
        assert_eq!(found(4), cores(&[], 4), "one is not known");
        write("sys/devices/system/cpu/cpu5/cpu_capacity", "1024\n");
        assert_eq!(found(4), cores(&[(1024, 2), (512, 2)], 4));
        assert_eq!(found(4).kinds(), [(1024, 2), (512, 2)]);
        assert_eq!(found(4).threads(), 4);
        assert_eq!(found(3).threads(), 3, "a share of the time");
    }

    #[test]
    fn lists_are_read() {
        assert_eq!(numbers("\t0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(numbers("7"), Some(vec![7]));
        assert_eq!(numbers(""), None);
    }
}
