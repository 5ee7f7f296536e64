//! A stream of frames: each through the decoder of what its header says it is.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| klamm_net::zookeeper::fuzzing::fuzz_frames(bytes));
