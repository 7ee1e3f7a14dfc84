//! A listening socket, from the first connection to the last.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::{TcpListener, TcpSocket};

/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: u32 = 4096;
/// How long a handshake that has begun may take to end: a slow round trip.
pub const LAST_HANDSHAKES: Duration = Duration::from_millis(100);

/// Listens on `address`, also while connections of a process before this one are still ending.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Makes the kernel drop further attempts to connect, so that the listener can be closed without resetting a client
/// that was just let in. A dropped attempt is repeated by the client's kernel after a second and then finds the next
/// process or nobody, both of which it can tell from a lost request.
///
/// The filter is classic BPF over the TCP header (Linux, `Documentation/networking/filter.rst`): drop if the flags, byte
/// 13, have SYN (RFC 9293 section 3.1).
#[cfg(target_os = "linux")]
pub fn refuse_handshakes(listener: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};

    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const DROP: u32 = 0;
    const KEEP: u32 = u32::MAX;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, DROP),
        SockFilter::new(RETURN, 0, 0, KEEP),
    ])
}

/// Other systems have no such filter; the last clients to connect may be reset.
#[cfg(not(target_os = "linux"))]
pub fn refuse_handshakes(_: &TcpListener) -> io::Result<()> {
    Ok(())
}
