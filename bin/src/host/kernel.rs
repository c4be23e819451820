//! Owns the questions to the kernel: its version, whether io_uring may be used, and who gets huge pages.
//! Does not know what those are used for.
//! Invariant: probing leaves nothing behind, not even a descriptor.

use super::Finding;

/// The runtime's requirement: io_uring with fast poll and the registration calls it makes.
const KERNEL_MIN: (u32, u32) = (5, 8);

pub fn version() -> Finding {
    // Judged as an unknown version where it cannot be read.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    judge_version(release.trim())
}

fn judge_version(release: &str) -> Finding {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse::<u32>().unwrap_or(0));
    let have = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if have >= KERNEL_MIN {
        Finding::fine("kernel", release)
    } else if have == (0, 0) {
        Finding::warning(
            "kernel",
            "unknown",
            "Cannot read /proc/sys/kernel/osrelease; Linux 5.8 or newer is needed.",
        )
    } else {
        Finding::stops(
            "kernel",
            release,
            format!(
                "Linux {}.{} or newer is needed: boot a newer kernel.",
                KERNEL_MIN.0, KERNEL_MIN.1
            ),
        )
    }
}

/// Sets up a ring of one entry and closes it again.
pub fn io_uring() -> Finding {
    // struct io_uring_params is 120 bytes that must be zero; the kernel fills in what it offers.
    let mut params = [0u64; 15];
    // SAFETY: the kernel writes at most 120 bytes to `params`, which is exactly that large and aligned.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if fd >= 0 {
        // SAFETY: `fd` was just given to us by the kernel and nothing else holds it.
        unsafe { libc::close(fd as i32) };
        return Finding::fine("io_uring", "available");
    }
    let error = std::io::Error::last_os_error();
    // Kernels before 6.6 have no such switch.
    let disabled =
        std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    judge_io_uring_error(
        error.raw_os_error().unwrap_or(0),
        disabled.trim(),
        &error.to_string(),
    )
}

fn judge_io_uring_error(code: i32, disabled: &str, text: &str) -> Finding {
    let advice = match (code, disabled) {
        (libc::EPERM, "1" | "2") => format!(
            "The kernel forbids io_uring (kernel.io_uring_disabled = {disabled}): `sudo sysctl -w kernel.io_uring_disabled=0`."
        ),
        (libc::EPERM | libc::EACCES, _) => "A sandbox forbids io_uring: in Docker or Podman allow it with \
             `--security-opt seccomp=unconfined` (or a profile with io_uring_setup, io_uring_enter and \
             io_uring_register); under systemd check SystemCallFilter=."
            .to_string(),
        (libc::ENOSYS, _) => "This kernel has no io_uring, or a sandbox such as gVisor hides it: run on Linux 5.8 or \
             newer, built with CONFIG_IO_URING."
            .to_string(),
        (libc::ENOMEM, _) => "The memory lock limit is too low for io_uring: raise it (`ulimit -l 8192`, LimitMEMLOCK= \
             under systemd)."
            .to_string(),
        (libc::EMFILE | libc::ENFILE, _) => "No file descriptor is left: raise `ulimit -n`.".to_string(),
        _ => "io_uring_setup fails for an unexpected reason; `dmesg` may say more.".to_string(),
    };
    Finding::stops("io_uring", text, advice)
}

const HUGE_PAGES: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

/// Who gets huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HugePages {
    Everybody,
    WhoAsks,
    Nobody,
    Unknown,
}

impl HugePages {
    pub fn read() -> HugePages {
        // Such as `always [madvise] never`: the one in brackets holds. What cannot be read is unknown.
        let said = std::fs::read_to_string(HUGE_PAGES).unwrap_or_default();
        HugePages::parse(&said)
    }

    fn parse(said: &str) -> HugePages {
        match said.split(['[', ']']).nth(1) {
            Some("always") => HugePages::Everybody,
            Some("madvise") => HugePages::WhoAsks,
            Some("never") => HugePages::Nobody,
            _ => HugePages::Unknown,
        }
    }
}

pub fn huge_pages() -> Finding {
    match HugePages::read() {
        HugePages::Everybody => Finding::fine("huge pages", "always"),
        HugePages::WhoAsks => Finding::fine("huge pages", "for who asks"),
        HugePages::Nobody => Finding::warning(
            "huge pages",
            "never",
            format!("Large writes take more of the processor without them: `echo madvise | sudo tee {HUGE_PAGES}`."),
        ),
        HugePages::Unknown => Finding::fine("huge pages", "unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn kernel_versions_are_compared_as_numbers() {
        for (release, verdict) in [
            ("6.18.44-fc-v657", Verdict::Fine),
            ("5.10.0", Verdict::Fine),
            ("5.8", Verdict::Fine),
            ("5.4.0-150-generic", Verdict::Stops),
            ("4.19", Verdict::Stops),
            ("", Verdict::Warning),
        ] {
            assert_eq!(judge_version(release).verdict, verdict, "{release}");
        }
    }

    #[test]
    fn the_setting_for_huge_pages_is_the_one_in_brackets() {
        for (said, is) in [
            ("[always] madvise never\n", HugePages::Everybody),
            ("always [madvise] never\n", HugePages::WhoAsks),
            ("always madvise [never]\n", HugePages::Nobody),
            ("", HugePages::Unknown),
            ("always [within_size]", HugePages::Unknown),
        ] {
            assert_eq!(HugePages::parse(said), is, "{said}");
        }
    }

    #[test]
    fn the_advice_fits_the_reason() {
        assert!(judge_io_uring_error(libc::EPERM, "2", "x")
            .advice
            .contains("sysctl"));
        assert!(judge_io_uring_error(libc::EPERM, "0", "x")
            .advice
            .contains("seccomp"));
        assert!(judge_io_uring_error(libc::ENOSYS, "", "x")
            .advice
            .contains("CONFIG_IO_URING"));
    }
}
