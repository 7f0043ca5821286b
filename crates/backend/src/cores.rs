//! The cores that this process may use, and how many threads of them to use.

use std::{fs, num::NonZero, path::Path, thread};

/// Tasks that a parallel region has for every thread, at least.
const TASKS: f64 = 8.0;

/// A core's capacity where nothing says how fast it is: Linux's for the fastest.
const FULL: u32 = 1024;

/// The cores that this process may use, by what Linux says of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Of each core, fastest first; Linux gives the fastest of a machine 1024.
    capacities: Vec<u32>,
    /// Cores' worth of time that the process gets.
    quota: usize,
}

impl Cores {
    /// The cores of this machine, without those that this process must not use. Where nothing is
    /// said of their speeds they are taken for equal.
    pub fn detect() -> Self {
        let quota = thread::available_parallelism().map_or(1, NonZero::get);
        Self::of(Path::new("/"), quota)
    }

    /// [`Self::detect`] with `sys` and `proc` below `root`.
    fn of(root: &Path, quota: usize) -> Self {
        let status = fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
        let allowed = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let allowed = allowed.and_then(numbers);
        let capacity = |cpu: &usize| {
            let file = format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity");
            let capacity = fs::read_to_string(root.join(file)).ok()?;
            capacity
                .trim()
                .parse()
                .ok()
                .filter(|capacity| *capacity > 0)
        };
        // One that is not known makes the others worth nothing.
        let capacities: Option<Vec<u32>> =
            allowed.and_then(|allowed| allowed.iter().map(capacity).collect());
        let mut capacities = capacities.unwrap_or_else(|| vec![FULL; quota]);
        capacities.sort_by(|a, b| b.cmp(a));
        Self { capacities, quota }
    }

    /// How many threads finish soonest.
    ///
    /// With the `n` fastest cores, whose capacities are `c`, work that is shared out in `8 n` tasks
    /// takes `1 / sum(c)`, and at worst one task more on the slowest, `1 / (8 n min(c))`. So slow
    /// cores help down to about a quarter of the fast ones' speed.
    pub fn threads(&self) -> usize {
        let mut sum = 0.0;
        let mut best = (f64::INFINITY, 1);
        for (i, capacity) in self.capacities.iter().take(self.quota).enumerate() {
            let (n, capacity) = (i + 1, f64::from(*capacity));
            sum += capacity;
            let time = 1.0 / sum + 1.0 / (TASKS * n as f64 * capacity);
            if time <= best.0 {
                best = (time, n);
            }
        }
        best.1
    }

    /// Capacities, fastest first, and how many cores have each.
    pub fn kinds(&self) -> Vec<(u32, usize)> {
        let kinds = self.capacities.chunk_by(|a, b| a == b);
        kinds.map(|kind| (kind[0], kind.len())).collect()
    }
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
            // Ten of each: the slower ones save a third of the time.
            (&[(1024, 10), (718, 10)], 20, 20),
            (&[(1024, 4), (446, 4)], 8, 8),
            (&[(1024, 10), (200, 10)], 20, 10),
            (&[(1024, 2), (768, 2), (100, 4)], 8, 4),
            // A container's share of the time, and a process without any.
            (&[(1024, 10), (718, 10)], 4, 4),
            (&[], 1, 1),
        ] {
            assert_eq!(
                cores(capacities, quota).threads(),
                threads,
                "{capacities:?}"
            );
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
        assert_eq!(found(3), cores(&[(FULL, 3)], 3), "nothing is said");
        write("proc/self/status", "Name:\tx\nCpus_allowed_list:\t0-2,5\n");
        assert_eq!(
            found(4),
            cores(&[(FULL, 4)], 4),
            "nothing is said of speeds"
        );
        for (cpu, capacity) in [(0, "512\n"), (1, "1024\n"), (2, "512\n"), (3, "1024\n")] {
            write(
                &format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity"),
                capacity,
            );
        }
        assert_eq!(found(4), cores(&[(FULL, 4)], 4), "one is not known");
        write("sys/devices/system/cpu/cpu5/cpu_capacity", "1024\n");
        assert_eq!(found(4), cores(&[(1024, 2), (512, 2)], 4));
        assert_eq!(found(4).kinds(), [(1024, 2), (512, 2)]);
        assert_eq!(found(4).threads(), 4);
        assert_eq!(found(3).threads(), 3, "the fastest of them");
    }

    #[test]
    fn lists_are_read() {
        assert_eq!(numbers("\t0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(numbers("7"), Some(vec![7]));
        assert_eq!(numbers(""), None);
    }
}
