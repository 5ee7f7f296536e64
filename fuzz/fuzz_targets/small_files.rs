//! The small files beside a log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| klamm_engine::fuzzing::small_files(bytes));
