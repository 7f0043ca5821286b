//! How much memory a process takes. `None` where the system does not say.

use std::fmt::Display;

/// Bytes of memory of its own that this process has: the model, which is mapped, is not among
/// them.
pub fn taken() -> Option<u64> {
    field("self", "RssAnon:")
}

/// The same of another process.
pub fn taken_by(process: u32) -> Option<u64> {
    field(process, "RssAnon:")
}

/// The most bytes that this process has had resident, the mapped weights that it touched among
/// them.
pub fn peak() -> Option<u64> {
    field("self", "VmHWM:")
}

fn field(process: impl Display, name: &str) -> Option<u64> {
    parse(
        &std::fs::read_to_string(format!("/proc/{process}/status")).ok()?,
        name,
    )
}

fn parse(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_kibibytes() {
        let status = "VmHWM:\t    1234 kB\nRssAnon:\t      12 kB\n";
        assert_eq!(parse(status, "RssAnon:"), Some(12 * 1024));
        assert_eq!(parse(status, "VmHWM:"), Some(1234 * 1024));
        assert_eq!(parse(status, "VmSwap:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_says_so() {
        let before = taken().unwrap();
        // Other tests may give some back meanwhile.
        let filled = std::hint::black_box(vec![1_u8; 256 << 20]);
        assert!(taken().unwrap() >= before + (128 << 20));
        assert!(taken_by(std::process::id()).unwrap() >= before + (128 << 20));
        assert!(peak().unwrap() > filled.len() as u64);
    }
}
