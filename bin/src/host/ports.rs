//! Owns binding of listening sockets and finding out who holds a port already.
//! Does not know what is served on them.
//! Invariant: sockets are bound without SO_REUSEPORT, so that a second broker is refused.

use crate::failure::Failure;
use crate::units::HostPort;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// The kernel closes the sockets of a killed process's io_uring a moment after the process is gone:
/// a port without an owner that can be seen is waited for.
const DYING_OWNER_MAX: Duration = Duration::from_secs(5);
const DYING_OWNER_POLL: Duration = Duration::from_millis(20);

/// Binds and listens. `flag` is the setting that named the address, for the advice.
pub fn bind(wanted: &HostPort, flag: &str) -> Result<TcpListener, Failure> {
    let address = wanted.resolve().map_err(|error| {
        Failure::new(format!("cannot listen on {wanted}: {error}"))
            .todo(format!("Check the host given to --{flag}."))
    })?;
    // The standard library sets SO_REUSEADDR (restart at once after a stop) and never SO_REUSEPORT.
    let given_up = Instant::now() + DYING_OWNER_MAX;
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                let dying =
                    error.kind() == io::ErrorKind::AddrInUse && owner(address.port()).is_none();
                if !dying || Instant::now() >= given_up {
                    return Err(refused(wanted, address, flag, &error));
                }
                std::thread::sleep(DYING_OWNER_POLL);
            }
        }
    }
}

fn refused(wanted: &HostPort, address: SocketAddr, flag: &str, error: &io::Error) -> Failure {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            let who = match owner(port) {
                Some(owner) => format!("the port is used by {owner}"),
                None => format!("the port is used by another process (`ss -ltnp 'sport = :{port}'` tells which)"),
            };
            Failure::new(format!("cannot listen on {wanted}: {who}"))
                .todo(format!("Stop it, or choose another address: --{flag} {}", HostPort::new(&wanted.host, 0)))
        }
        io::ErrorKind::PermissionDenied => Failure::new(format!("cannot listen on {wanted}: {error}"))
            .todo(format!("Ports below 1024 need privileges: choose a higher one with --{flag}.")),
        io::ErrorKind::AddrNotAvailable => Failure::new(format!("cannot listen on {wanted}: {error}"))
            .todo(format!("The address is not one of this machine's: choose one that `ip addr` shows, with --{flag}.")),
        _ => Failure::new(format!("cannot listen on {wanted}: {error}")).todo(format!("Choose another --{flag}.")),
    }
}

/// Name and process id of whoever listens on the port, where this user may see it.
fn owner(port: u16) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| {
            let text = std::fs::read_to_string(table).ok()?;
            listener_inode(&text, port)
        })?;
    let wanted = format!("socket:[{inode}]");
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            if std::fs::read_link(descriptor.path())
                .is_ok_and(|to| to.as_os_str() == wanted.as_str())
            {
                // Its name is an extra: its number is what one needs to find it.
                return Some(match std::fs::read_to_string(process.path().join("comm")) {
                    Ok(name) => format!("{} (process {pid})", name.trim()),
                    Err(_) => format!("process {pid}"),
                });
            }
        }
    }
    None
}

/// Inode of the listening socket on `port` in the text of /proc/net/tcp.
fn listener_inode(table: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit_once(':')?.1;
        if fields.get(3) != Some(&LISTEN) || u16::from_str_radix(local, 16).ok()? != port {
            return None;
        }
        fields.get(9)?.parse().ok()
    })
}

/// Name of this machine for the outside, where it has one.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty() && name != "(none)").then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_used_port_is_refused_and_its_owner_named() {
        let first = bind(&HostPort::new("127.0.0.1", 0), "listen").unwrap();
        let taken = HostPort::new("127.0.0.1", first.local_addr().unwrap().port());
        let message = bind(&taken, "listen").unwrap_err().to_string();
        assert!(
            message.contains(&format!("process {}", std::process::id())),
            "{message}"
        );
        assert!(message.contains("--listen"), "{message}");
    }

    #[test]
    fn listening_sockets_are_found_in_the_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x\n\
             1: 0100007F:2385 0100007F:2384 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x\n";
        assert_eq!(listener_inode(table, 9092), Some(4711));
        assert_eq!(listener_inode(table, 9093), None);
    }
}
