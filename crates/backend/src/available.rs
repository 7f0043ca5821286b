//! What the system says about memory: the machine's, and what control groups and the process's own
//! limits leave of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The bytes that this process may still take without anything being swapped out or ended, where
/// the system says so: on Linux. It is the least of what the machine has and what the control
/// groups around the process and its own limits (`ulimit -v` and `-d`) leave.
pub fn available_memory() -> Option<u64> {
    available_by(&|path| fs::read_to_string(path).ok())
}

/// What the machine has, whatever is left of it to this process.
#[cfg(feature = "cuda")]
pub(crate) fn machine_memory() -> Option<u64> {
    meminfo(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// [`available_memory`] with another way to read files.
fn available_by(read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
    let file = |path: &str| read(Path::new(path));
    let machine = meminfo(&file("/proc/meminfo")?)?;
    let groups = match (file("/proc/self/cgroup"), file("/proc/self/mountinfo")) {
        (Some(groups), Some(mounts)) => control_groups(&groups, &mounts),
        _ => Vec::new(),
    };
    let rooms = groups.iter().flat_map(|group| group.rooms(read));
    let own = match (file("/proc/self/limits"), file("/proc/self/status")) {
        (Some(limits), Some(status)) => own_rooms(&limits, &status),
        _ => Vec::new(),
    };
    Some(rooms.chain(own).fold(machine, u64::min))
}

/// What the process's own limits leave, of /proc/self/limits and /proc/self/status.
fn own_rooms(limits: &str, status: &str) -> Vec<u64> {
    let room = |limit: &str, usage: &str| {
        let limit = limits.lines().find_map(|line| line.strip_prefix(limit))?;
        // Not a number: `unlimited`.
        let limit: u64 = limit.split_whitespace().next()?.parse().ok()?;
        let usage = status.lines().find_map(|line| line.strip_prefix(usage))?;
        Some(limit.saturating_sub(kilobytes(usage)?))
    };
    let rooms = [
        room("Max address space", "VmSize:"),
        room("Max data size", "VmData:"),
    ];
    rooms.into_iter().flatten().collect()
}

/// A number of kilobytes, in bytes.
fn kilobytes(text: &str) -> Option<u64> {
    let kilobytes: u64 = text.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// `MemAvailable` of /proc/meminfo: free memory, and what files in memory can give back.
fn meminfo(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    kilobytes(line)
}

/// The names of a control group's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Names {
    limit: &'static str,
    usage: &'static str,
    /// Lines of memory.stat: bytes of files in memory, which can be given back.
    files: [&'static str; 2],
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    files: ["total_inactive_file", "total_active_file"],
};
const V2: Names = Names {
    limit: "memory.max",
    usage: "memory.current",
    files: ["inactive_file", "active_file"],
};

/// A control group of this process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    names: Names,
    /// Its directory, and the one of the outermost group that can be seen.
    dir: PathBuf,
    top: PathBuf,
}

/// The groups that account for memory, of /proc/self/cgroup and /proc/self/mountinfo.
fn control_groups(groups: &str, mounts: &str) -> Vec<Group> {
    let mut found = Vec::new();
    for line in groups.lines() {
        // hierarchy:controllers:path
        let mut fields = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (names, mount) = if hierarchy == "0" && controllers.is_empty() {
            (V2, mount(mounts, "cgroup2", None))
        } else if controllers.split(',').any(|name| name == "memory") {
            (V1, mount(mounts, "cgroup", Some("memory")))
        } else {
            continue;
        };
        if let Some((root, top)) = mount {
            // In a container the path may be the host's, of which the mount shows the end.
            let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
            found.push(Group {
                names,
                dir: top.join(below),
                top: top.to_owned(),
            });
        }
    }
    found
}

/// Which directory of a file system of this `kind`, with this option, is mounted, and where.
fn mount<'a>(mounts: &'a str, kind: &str, option: Option<&str>) -> Option<(&'a str, &'a Path)> {
    mounts.lines().find_map(|line| {
        // id parent device root place options [fields] - kind source options
        let (place, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        if system.next()? != kind {
            return None;
        }
        let options = system.nth(1)?;
        if option.is_some_and(|wanted| !options.split(',').any(|option| option == wanted)) {
            return None;
        }
        let mut place = place.split(' ').skip(3);
        Some((place.next()?, Path::new(place.next()?)))
    })
}

impl Group {
    /// What it and the groups around it leave.
    fn rooms(&self, read: &dyn Fn(&Path) -> Option<String>) -> Vec<u64> {
        let outwards = self.dir.ancestors();
        let seen = outwards.take_while(|dir| dir.starts_with(&self.top));
        let room = |dir: &Path| {
            let file = |name: &str| read(&dir.join(name));
            let (limit, usage) = (file(self.names.limit)?, file(self.names.usage)?);
            let stat = file("memory.stat").unwrap_or_default();
            room(&limit, &usage, &stat, self.names.files)
        };
        seen.filter_map(room).collect()
    }
}

/// What a group leaves: its limit less what is in use and cannot be given back. `None` without a
/// limit.
fn room(limit: &str, usage: &str, stat: &str, files: [&str; 2]) -> Option<u64> {
    // Not a number: `max`. The first version says it with the largest number of pages.
    let limit: u64 = limit.trim().parse().ok()?;
    let usage: u64 = usage.trim().parse().ok()?;
    let line = |line: &str| {
        let (name, bytes) = line.split_once(' ')?;
        let bytes: u64 = bytes.trim().parse().ok()?;
        files.contains(&name).then_some(bytes)
    };
    let files: u64 = stat.lines().filter_map(line).sum();
    Some(limit.saturating_sub(usage.saturating_sub(files)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const MEMINFO: &str = "MemTotal:       16307924 kB\nMemFree:          312540 kB\n\
        MemAvailable:    9437184 kB\nBuffers:          201112 kB\nHugePages_Total:       0\n";
    /// systemd's layout of the second version.
    const MOUNTS_V2: &str = "24 30 0:22 / /proc rw,nosuid shared:13 - proc proc rw\n\
        35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    /// The first version, and the second without controllers beside it.
    const MOUNTS_V1: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
        34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        38 31 0:41 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    /// A container of the first version: the host's path, of which the mount shows the end.
    const MOUNTS_DOCKER: &str = "901 897 0:33 /docker/4f1c /sys/fs/cgroup/memory ro,nosuid \
        master:15 - cgroup cgroup rw,memory\n";

    const GB: u64 = 1 << 30;

    fn by(files: &[(&str, &str)]) -> Option<u64> {
        let files: BTreeMap<&Path, &str> = files.iter().map(|(p, t)| (Path::new(*p), *t)).collect();
        available_by(&|path| files.get(path).map(ToString::to_string))
    }

    #[test]
    fn a_machine_says_what_is_available() {
        assert_eq!(meminfo(MEMINFO), Some(9 * GB));
        assert_eq!(by(&[("/proc/meminfo", MEMINFO)]), Some(9 * GB));
        // Before Linux 3.14, and on other systems, nobody says it.
        for text in [
            "",
            "MemFree: 1 kB\n",
            "MemAvailable: many kB\n",
            "MemAvailable: 7\n",
        ] {
            assert_eq!(meminfo(text), None);
        }
        assert_eq!(by(&[]), None);
    }

    #[test]
    fn own_limits_count() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
            Max data size             unlimited            unlimited            bytes\n\
            Max address space         2147483648           unlimited            bytes\n";
        let status = "VmSize:\t 1048576 kB\nVmData:\t  1024 kB\n";
        let files = [
            ("/proc/meminfo", MEMINFO),
            ("/proc/self/limits", limits),
            ("/proc/self/status", status),
        ];
        assert_eq!(by(&files), Some(GB));
        let narrow = limits.replace("data size             unlimited", "data size 1048576");
        assert_eq!(own_rooms(&narrow, status), [GB, 0]);
        assert!(own_rooms("", status).is_empty());
        assert!(own_rooms(limits, "").is_empty());
    }

    #[test]
    fn groups_are_found_where_they_are_mounted() {
        let group = |names, dir: &str, top: &str| Group {
            names,
            dir: dir.into(),
            top: top.into(),
        };
        let top = "/sys/fs/cgroup";
        let user = "/sys/fs/cgroup/user.slice/user-1000.slice";
        assert_eq!(
            control_groups("0::/user.slice/user-1000.slice\n", MOUNTS_V2),
            [group(V2, user, top)]
        );
        assert_eq!(
            control_groups("0::/\n", MOUNTS_V2),
            [group(V2, top, top)],
            "a container's own root"
        );
        let memory = "/sys/fs/cgroup/memory";
        assert_eq!(
            control_groups("9:cpuset:/\n4:cpu,memory:/jobs/7\n0::/\n", MOUNTS_V1),
            [
                group(V1, "/sys/fs/cgroup/memory/jobs/7", memory),
                group(V2, "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified"),
            ]
        );
        assert_eq!(
            control_groups("4:memory:/docker/4f1c\n", MOUNTS_DOCKER),
            [group(V1, memory, memory)]
        );
        assert_eq!(
            control_groups("4:memory:/elsewhere\n", MOUNTS_DOCKER),
            [group(V1, memory, memory)]
        );
        for (groups, mounts) in [("", MOUNTS_V2), ("0::/a", ""), ("nonsense\n1:2", MOUNTS_V1)] {
            assert_eq!(control_groups(groups, mounts), []);
        }
    }

    #[test]
    fn a_group_leaves_its_limit_less_what_stays() {
        let stat = "anon 100\nfile 500\ninactive_file 300\nactive_file 50\n\
            total_inactive_file 7\ntotal_active_file 1\nworkingset 9 9\n";
        assert_eq!(room("1000\n", "600\n", stat, V2.files), Some(750));
        assert_eq!(room("1000\n", "600\n", stat, V1.files), Some(408));
        assert_eq!(room("1000\n", "600\n", "", V2.files), Some(400));
        assert_eq!(room("1000\n", "2000\n", stat, V2.files), Some(0), "over it");
        assert_eq!(room("1000\n", "100\n", stat, V2.files), Some(1000));
        assert_eq!(room("max\n", "600\n", stat, V2.files), None);
        assert_eq!(room("1000", "", stat, V2.files), None);
    }

    #[test]
    fn the_narrowest_group_counts() {
        let own = "/sys/fs/cgroup/user.slice/user-1000.slice";
        let own = |name: &str| format!("{own}/{name}");
        let (max, current, stat) = (own("memory.max"), own("memory.current"), own("memory.stat"));
        let (gb4, gb3, gb1) = ((4 * GB).to_string(), (3 * GB).to_string(), GB.to_string());
        let files = format!("anon 1\ninactive_file {gb1}\nactive_file {gb1}\n");
        let around = "/sys/fs/cgroup/user.slice";
        let around_max = format!("{around}/memory.max");
        let around_current = format!("{around}/memory.current");
        let mut all = vec![
            ("/proc/meminfo", MEMINFO),
            ("/proc/self/cgroup", "0::/user.slice/user-1000.slice\n"),
            ("/proc/self/mountinfo", MOUNTS_V2),
            (&max, "max\n"),
            (&current, &gb3),
            (&stat, &files),
        ];
        assert_eq!(by(&all), Some(9 * GB), "no limit");
        all[3] = (&max, &gb4);
        assert_eq!(
            by(&all),
            Some(3 * GB),
            "4 less 3, of which 2 can be given back"
        );
        // The group around it is narrower.
        all.extend([(&around_max[..], &gb4[..]), (&around_current, &gb3)]);
        assert_eq!(by(&all), Some(GB));
        // A file that is outside of the mount is nobody's limit.
        all.extend([("/sys/fs/memory.max", "5"), ("/sys/fs/memory.current", "0")]);
        assert_eq!(by(&all), Some(GB));
    }

    #[test]
    fn the_first_version_says_no_limit_with_a_large_number() {
        let files = |limit| {
            by(&[
                ("/proc/meminfo", MEMINFO),
                ("/proc/self/cgroup", "4:memory:/docker/4f1c\n"),
                ("/proc/self/mountinfo", MOUNTS_DOCKER),
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", limit),
                (
                    "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                    "1073741824\n",
                ),
                (
                    "/sys/fs/cgroup/memory/memory.stat",
                    "total_active_file 1073741824\n",
                ),
            ])
        };
        assert_eq!(files("9223372036854771712\n"), Some(9 * GB));
        assert_eq!(files("2147483648\n"), Some(2 * GB));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_machine_says_it() {
        let bytes = available_memory().unwrap();
        assert!((1 << 20..1 << 50).contains(&bytes), "{bytes}");
    }
}
