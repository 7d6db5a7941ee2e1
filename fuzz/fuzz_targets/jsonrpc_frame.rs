//! A JSON-RPC connection: the first byte says how the rest is split.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::{FrameError, Framer, Scratch, jsonrpc};

/// Small, so that the fuzzer reaches it.
const LIMIT: usize = 512;

fuzz_target!(|input: &[u8]| {
    let Some((size, stream)) = input.split_first() else { return };
    let split = run(stream, usize::from(*size).max(1));
    assert_eq!(split, run(stream, usize::MAX));
    let mut scratch = Scratch::new();
    for message in split.0 {
        assert!(message.len() <= LIMIT);
        if let Ok(request) = jsonrpc::request(&message, &mut scratch) {
            assert_eq!(request.param.is_some(), request.param_fault.is_empty());
            let mut answer = Vec::new();
            jsonrpc::write_error(&mut answer, request.id, request.method);
            let end = answer.len() - 1;
            assert_eq!(Framer::new(usize::MAX).scan(&answer), Ok(Some(0..end)));
        }
        let _ = jsonrpc::response(&message, &mut scratch);
    }
});

fn run(stream: &[u8], size: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let (mut framer, mut buffer, mut messages) = (Framer::new(LIMIT), Vec::new(), Vec::new());
    for part in stream.chunks(size) {
        buffer.extend_from_slice(part);
        loop {
            match framer.scan(&buffer) {
                Ok(Some(range)) => {
                    messages.push(buffer[range.clone()].to_vec());
                    buffer.drain(..range.end);
                    framer.reset();
                }
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}
