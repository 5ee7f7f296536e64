//! What a producer sends for a partition.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| klamm_engine::fuzzing::record_batch(bytes));
