//! Who is at the other end: the peer of the connection, or whom the proxies that we trust say they serve.
//!
//! Anybody can send a header, and each proxy adds to its end. So only entries that a trusted proxy has written are read: as
//! many from the right as there are trusted hops.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use axum::extract::{FromRequestParts, Request};
use http::{Extensions, HeaderMap, HeaderName, header, request::Parts};
use serde::{Deserialize, Serialize};

/// The address of the connection's other end. In the extensions of a request that came through a socket.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The address of the client. In the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The header in which our proxies say whom they serve. The other one is the client's own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedBy {
    /// `X-Forwarded-For: client, proxy`.
    XForwardedFor,
    /// `Forwarded: for=client, for=proxy` (RFC 7239).
    Forwarded,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl ClientAddress {
    /// A request that came through no socket, as in a slice test, comes from nowhere.
    pub fn of(request: &Request, trusted_hops: u8, by: ForwardedBy) -> Self {
        let peer = request.extensions().get::<Peer>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
        let headers = request.headers();
        let address = match by {
            _ if trusted_hops == 0 => peer,
            ForwardedBy::XForwardedFor => nth_hop(
                peer,
                trusted_hops,
                entries(headers, &X_FORWARDED_FOR),
                plain,
            ),
            ForwardedBy::Forwarded => nth_hop(
                peer,
                trusted_hops,
                entries(headers, &header::FORWARDED),
                for_of,
            ),
        };
        Self(address.to_canonical())
    }

    /// The one that the edge found; a request without the edge comes from nowhere.
    pub fn in_extensions(extensions: &Extensions) -> Self {
        let found = extensions.get().copied();
        found.unwrap_or(Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }

    /// What one client has to itself: an address, or of IPv6 the network that a connection is given (RFC 6177).
    pub fn network(self) -> IpAddr {
        const PREFIX: u128 = u128::MAX << 64;
        match self.0 {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & PREFIX).into(),
            v4 @ IpAddr::V4(_) => v4,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::in_extensions(&parts.extensions))
    }
}

/// Whether a request has either header, which proxies write, and whoever wants to be taken for one.
pub fn says_that_it_forwards(headers: &HeaderMap) -> bool {
    headers.contains_key(&X_FORWARDED_FOR) || headers.contains_key(header::FORWARDED)
}

/// All entries, rightmost first. Several headers are one list (RFC 9110 section 5.3).
fn entries<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    let lines = lines.into_iter().rev();
    // A line that is no text still is somebody's entry.
    lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(','))
}

/// The farthest address that a trusted hop has written. One that wrote none, or wrote what is no address, is as far as we see.
fn nth_hop<'a>(
    peer: IpAddr,
    trusted_hops: u8,
    entries: impl Iterator<Item = &'a str>,
    read: fn(&str) -> Option<IpAddr>,
) -> IpAddr {
    let written = entries.take(usize::from(trusted_hops));
    written.map_while(read).last().unwrap_or(peer)
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.
fn plain(entry: &str) -> Option<IpAddr> {
    let entry = entry.trim();
    let bare = entry
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(entry).parse();
    let address = address.or_else(|_| entry.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.ok()
}

/// The `for` of `for="[2001:db8::1]:80";proto=https`.
fn for_of(entry: &str) -> Option<IpAddr> {
    let mut pairs = entry
        .split(';')
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, node) = pairs.find(|(name, _)| name.eq_ignore_ascii_case("for"))?;
    plain(node.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::HeaderValue;

    use super::*;

    const PEER: &str = "10.0.0.1";

    fn client(trusted_hops: u8, by: ForwardedBy, lines: &[(&'static str, &'static str)]) -> String {
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Peer(PEER.parse().unwrap()));
        for (name, value) in lines {
            request
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        ClientAddress::of(&request, trusted_hops, by).0.to_string()
    }

    fn x_forwarded_for(trusted_hops: u8, value: &'static str) -> String {
        client(
            trusted_hops,
            ForwardedBy::XForwardedFor,
            &[("x-forwarded-for", value)],
        )
    }

    #[test]
    fn without_trusted_hops_no_header_counts() {
        let spoofed = [("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1")];

        assert_eq!(client(0, ForwardedBy::XForwardedFor, &spoofed), PEER);
        assert_eq!(client(0, ForwardedBy::Forwarded, &spoofed), PEER);
    }

    #[test]
    fn only_what_trusted_hops_have_written_counts() {
        assert_eq!(x_forwarded_for(1, "192.0.2.7"), "192.0.2.7");
        assert_eq!(x_forwarded_for(1, "6.6.6.6, 192.0.2.7"), "192.0.2.7");
        assert_eq!(
            x_forwarded_for(2, "6.6.6.6,192.0.2.7, 172.16.0.1"),
            "192.0.2.7"
        );
        assert_eq!(x_forwarded_for(2, "192.0.2.7"), "192.0.2.7");
        assert_eq!(x_forwarded_for(1, "6.6.6.6, unknown"), PEER);
        assert_eq!(x_forwarded_for(2, "6.6.6.6, , 172.16.0.1"), "172.16.0.1");
        assert_eq!(x_forwarded_for(1, ""), PEER);
    }

    #[test]
    fn several_headers_are_one_list_in_their_order() {
        let lines = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "192.0.2.7, 172.16.0.1"),
        ];

        assert_eq!(client(1, ForwardedBy::XForwardedFor, &lines), "172.16.0.1");
        assert_eq!(client(2, ForwardedBy::XForwardedFor, &lines), "192.0.2.7");
    }

    #[test]
    fn the_header_that_the_proxies_do_not_write_is_the_clients_own_words() {
        let lines = [
            ("x-forwarded-for", "192.0.2.7"),
            ("forwarded", "for=6.6.6.6"),
        ];

        assert_eq!(client(1, ForwardedBy::XForwardedFor, &lines), "192.0.2.7");
        assert_eq!(client(1, ForwardedBy::Forwarded, &lines[..1]), PEER);
    }

    #[test]
    fn every_form_of_an_address_is_read() {
        for (entry, address) in [
            ("192.0.2.7:4711", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:4711", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
        ] {
            assert_eq!(x_forwarded_for(1, entry), address, "{entry}");
        }
        for (entry, address) in [
            ("for=192.0.2.7", "192.0.2.7"),
            ("for=6.6.6.6, proto=https;For=\"192.0.2.7:80\"", "192.0.2.7"),
            ("for=\"[2001:db8::7]:4711\";by=10.0.0.9", "2001:db8::7"),
            ("for=_hidden", PEER),
        ] {
            let lines = [("forwarded", entry)];
            assert_eq!(
                client(1, ForwardedBy::Forwarded, &lines),
                address,
                "{entry}"
            );
        }
    }

    #[test]
    fn who_has_a_network_of_addresses_is_one_client() {
        let network = |address: &str| ClientAddress(address.parse().unwrap()).network();

        assert_eq!(network("2001:db8:0:1::7"), network("2001:db8:0:1:ffff::8"));
        assert_ne!(network("2001:db8:0:1::7"), network("2001:db8:0:2::7"));
        assert_ne!(network("192.0.2.7"), network("192.0.2.8"));
    }
}
