//! Calls `plumecast_fuzz::push`: see README.md.
#![no_main]

libfuzzer_sys::fuzz_target!(
    init: {
        // Panics of readers that are not ours are caught, and are no findings; others end the run all the same.
        let _ = std::panic::take_hook();
    },
    |data: &[u8]| plumecast_fuzz::push(data)
);
