//! Packet: echo requests and their replies (RFC 792, RFC 4443 §4), as bytes.
//!
//! Invariants: a reply is ours if it has our token; the identifier is not looked at, for the kernel sets its own on
//! unprivileged sockets.

/// Type, code, checksum, identifier, sequence number.
const HEAD: usize = 8;
/// Bytes of the token behind the head.
pub(crate) const TOKEN: usize = 8;
const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;

/// An echo request with `size` bytes behind its head, at least those of the token.
pub(super) fn request(is_v6: bool, sequence: u16, token: [u8; TOKEN], size: usize) -> Vec<u8> {
    let mut packet = vec![0; HEAD + size.max(TOKEN)];
    packet[0] = if is_v6 { REQUEST_V6 } else { REQUEST_V4 };
    packet[4..6].copy_from_slice(&token[..2]);
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    packet[HEAD..HEAD + TOKEN].copy_from_slice(&token);
    if !is_v6 {
        // The sum of IPv6, in which the addresses stand, too, is computed by the kernel.
        let sum = checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// Sequence number of a reply to one of our requests. Raw sockets of IPv4 give the header of IP before it.
pub(crate) fn reply(is_v6: bool, received: &[u8], token: [u8; TOKEN]) -> Option<u16> {
    let mut packet = received;
    if !is_v6 && packet.first().is_some_and(|first| first >> 4 == 4) {
        packet = packet.get(usize::from(packet[0] & 0x0f) * 4..)?;
    }
    let wanted = if is_v6 { REPLY_V6 } else { REPLY_V4 };
    if packet.get(..2)? != [wanted, 0] || packet.get(HEAD..HEAD + TOKEN)? != token {
        return None;
    }
    Some(u16::from_be_bytes([packet[6], packet[7]]))
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_and_its_reply_ours() {
        let token = *b"abcdefgh";
        let mut packet = request(false, 7, token, 56);
        assert_eq!((packet.len(), packet[0], checksum(&packet)), (64, 8, 0));
        assert_eq!(reply(false, &packet, token), None, "a request is no reply");
        packet[0] = 0;
        assert_eq!(reply(false, &packet, token), Some(7));
        assert_eq!(reply(false, &packet, *b"abcdefgx"), None);
        let with_ip = [&[0x45][..], &[0; 19], &packet].concat();
        assert_eq!(reply(false, &with_ip, token), Some(7));
        crate::tests::world::broken_forms(&with_ip, |bytes| _ = reply(false, bytes, token));
        let mut packet = request(true, 9, token, 0);
        packet[0] = 129;
        assert_eq!((packet.len(), reply(true, &packet, token)), (16, Some(9)));
        for bytes in [&[][..], &[0x45], &[0x4f; 10], &[0; 9]] {
            assert_eq!(reply(false, bytes, token), None);
        }
    }
}
