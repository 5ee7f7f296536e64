//! A partition's folder of any bytes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| klamm_engine::fuzzing::recovery(bytes));
