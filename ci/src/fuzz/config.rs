//! Owns the target of the configuration file. Does not know flags or variables.
//! Invariant: a value that was read prints as a text that means the same; nothing that is refused takes effect.

use millrace::config::parse_file;
use millrace::host::Machine;
use millrace::units::{ByteSize, HostPort};
use std::fmt::Display;
use std::str::FromStr;

pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(settings) = parse_file(text) else {
        return;
    };
    let addresses = [&settings.advertise, &settings.admin_listen];
    let addresses = addresses.into_iter().flatten();
    addresses.chain(&settings.listen).for_each(same);
    settings.memory.iter().for_each(same);
    settings.cpus.iter().for_each(same);
    let machine = Machine {
        cpus: vec![0, 1, 4],
        parallelism: 2,
        memory_bytes: 8 << 30,
    };
    match settings.with_defaults(&machine) {
        Ok(config) => {
            assert!(config.shards > 0 && !config.cpus.is_empty());
            assert!(!config.listen.is_empty() && config.node_id >= 0);
            let last_port = usize::from(config.listen[0].port) + config.shards;
            assert!(
                !config.advertise_cores
                    || last_port <= usize::from(u16::MAX)
                    || config.listen[0].port == 0
            );
            same::<HostPort>(&config.admin_listen);
            same(&ByteSize(config.memory_bytes));
        }
        Err(failure) => assert!(!failure.to_string().is_empty()),
    }
}

fn same<T: Display + FromStr + PartialEq>(value: &T) {
    let text = value.to_string();
    // Text that does not parse is None, and fails below with the text itself.
    let again = text.parse::<T>().ok();
    assert!(
        again.as_ref() == Some(value),
        "`{text}` means something else"
    );
}
