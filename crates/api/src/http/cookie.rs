//! Cookies of ours: one name and one set of attributes for all of them.

use std::fmt;

use http::{HeaderMap, HeaderValue, header};

/// A cookie for this host and no script.
#[derive(Clone, Copy, Debug)]
pub struct Cookie {
    name: &'static str,
    secure: bool,
}

impl Cookie {
    /// With `secure` it travels over https only, and the `__Host-` prefix keeps other hosts of the domain from setting it (RFC
    /// 6265bis, section 4.1.3.2).
    pub fn new(name: &'static str, secure: bool) -> Self {
        Self { name, secure }
    }

    /// The header that hands `value` to the client, `attributes` beginning with `;`. The value must need no quoting.
    pub fn set(self, value: impl fmt::Display, attributes: impl fmt::Display) -> HeaderValue {
        let (prefix, secure) = match self.secure {
            true => ("__Host-", "; Secure"),
            false => ("", ""),
        };
        let name = self.name;
        let cookie =
            format!("{prefix}{name}={value}; Path=/{secure}; HttpOnly; SameSite=Lax{attributes}");
        let mut header = HeaderValue::try_from(cookie).expect("a value is base64url");
        header.set_sensitive(true);
        header
    }

    /// What the client sent back.
    pub fn read(self, headers: &HeaderMap) -> Option<&str> {
        let cookies = headers
            .get_all(header::COOKIE)
            .into_iter()
            .filter_map(|value| value.to_str().ok());
        let mut pairs = cookies
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        pairs
            .find(|(name, _)| self.is(name))
            .map(|(_, value)| value)
    }

    fn is(self, name: &str) -> bool {
        match self.secure {
            true => name.strip_prefix("__Host-") == Some(self.name),
            false => name == self.name,
        }
    }
}
