//! Where the bytes of a socket call stand in the stream, from what TCP keeps.
//!
//! In: TCP's positions as they are after the call, and the call's bytes. Out: a [`Span`]. Invariant: the SYN and the FIN,
//! which take a sequence number each, are not bytes of the stream.

/// Where a socket call began and ended in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Sequence number after its last byte.
    pub end_seq: u32,
    /// Its bytes.
    pub bytes: u32,
    /// It begins with the first byte of the connection.
    pub at_start: bool,
}

/// A socket's positions in what its peer sent. `ended` must be read before the others: the end of the stream may come
/// while they are read.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// The peer's FIN is in (`SOCK_DONE` of `sock.__sk_common.skc_flags`, set by `tcp_fin` in net/ipv4/tcp_input.c and by nothing else).
    pub ended: bool,
    /// `tcp_sock.copied_seq`: first sequence number not yet read.
    pub copied: u32,
    /// `tcp_sock.rcv_nxt`: next sequence number expected.
    pub next: u32,
    /// `tcp_sock.bytes_received`: sequence numbers received in order, the SYN's not among them.
    pub received: u64,
}

/// A socket's positions in what it sends.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing {
    /// `tcp_sock.write_seq`: sequence number after what was handed over.
    pub written: u32,
    /// `tcp_sock.snd_una`: first sequence number that is not acknowledged.
    pub unacked: u32,
    /// `tcp_sock.bytes_acked`: sequence numbers acknowledged; of an active open the SYN's is among them.
    pub acked: u64,
}

impl Incoming {
    /// Of a call that has read `bytes`. The FIN is read with the last byte before it when it waits behind it
    /// (`tcp_recvmsg_locked` in net/ipv4/tcp.c).
    #[inline(always)]
    #[must_use]
    pub fn span(self, bytes: u32) -> Span {
        let end_is_read = self.ended && self.copied == self.next;
        let unread = self.next.wrapping_sub(self.copied) as u64;
        let read = self.received.wrapping_sub(unread).wrapping_sub(end_is_read as u64);
        Span { end_seq: self.copied.wrapping_sub(end_is_read as u32), bytes, at_start: read == bytes as u64 }
    }
}

impl Outgoing {
    /// Of a call that has handed over `bytes`.
    #[inline(always)]
    #[must_use]
    pub fn span(self, bytes: u32) -> Span {
        let handed_over = self.acked.wrapping_add(self.written.wrapping_sub(self.unacked) as u64);
        Span { end_seq: self.written, bytes, at_start: handed_over.wrapping_sub(bytes as u64) <= 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The peer's first sequence number after its SYN.
    const FIRST: u32 = u32::MAX - 5;

    /// `read` of the `sent` bytes are read, and the FIN is in, or is read too.
    fn incoming(sent: u32, read: u32, fin: Fin) -> Incoming {
        let (arrived, taken) = match fin {
            Fin::None => (0, 0),
            Fin::In => (1, 0),
            Fin::Read => (1, 1),
        };
        Incoming {
            ended: arrived == 1,
            copied: FIRST.wrapping_add(read + taken),
            next: FIRST.wrapping_add(sent + arrived),
            received: (sent + arrived).into(),
        }
    }

    #[derive(Clone, Copy)]
    enum Fin {
        None,
        In,
        Read,
    }

    #[test]
    fn the_end_of_the_stream_is_no_byte_of_it() {
        for (sent, fin) in [(40, Fin::None), (50, Fin::None), (40, Fin::In), (50, Fin::In), (40, Fin::Read)] {
            let expected = Span { end_seq: FIRST.wrapping_add(40), bytes: 30, at_start: false };
            assert_eq!(incoming(sent, 40, fin).span(30), expected);
            assert!(incoming(sent, 40, fin).span(40).at_start);
        }
    }

    #[test]
    fn the_syn_is_no_byte_of_the_stream() {
        for syn in [0, 1] {
            // 30 bytes were handed over, 20 of them and perhaps the SYN are acknowledged.
            let outgoing = Outgoing {
                written: FIRST.wrapping_add(30),
                unacked: FIRST.wrapping_add(20),
                acked: 20 + syn,
            };
            let expected = Span { end_seq: FIRST.wrapping_add(30), bytes: 30, at_start: true };
            assert_eq!(outgoing.span(30), expected);
            assert!(!outgoing.span(28).at_start);
        }
    }
}
