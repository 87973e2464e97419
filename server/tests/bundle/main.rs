//! Bundles: made from files, read as they lie, handed out from the shelf.

#![expect(clippy::expect_used, reason = "a test fails where something is not as expected")]

mod create;
mod shelf;

/// A program: an ELF header for this `e_machine` (System V ABI), then anything.
fn elf(machine: u16, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0];
    bytes.extend(machine.to_le_bytes());
    bytes.extend(rest);
    bytes
}

const AMD64: u16 = 62;
const ARM64: u16 = 183;
