//! Owns the door of libFuzzer to the target `metadata`, which says what it does and holds.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| millrace_ci::fuzz::metadata::metadata(data));
