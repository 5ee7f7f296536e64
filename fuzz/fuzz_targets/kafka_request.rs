//! A frame of any bytes: header, guard, and the decoder of its API and version.
#![no_main]

use klamm_net::kafka::fuzzing::{fuzz_produce, fuzz_request};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzz_request(bytes);
    fuzz_produce(bytes);
});
