//! What stands in a certificate.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

/// What people want to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Certificate {
    /// Whose it is, for example `CN=node-1, O=Example`.
    pub(crate) subject: String,
    /// Who signed it.
    pub(crate) issuer: String,
    /// The names and addresses that it is for.
    pub(crate) names: Vec<String>,
    /// It counts from here, in seconds since 1970,
    pub(crate) from_s: i64,
    /// to here.
    pub(crate) until_s: i64,
}

impl Certificate {
    /// Reads it; nothing if it is no certificate.
    pub(super) fn read(der: &[u8]) -> Option<Self> {
        let (_, read) = X509Certificate::from_der(der).ok()?;
        let validity = read.validity();
        Some(Self {
            subject: read.subject().to_string(),
            issuer: read.issuer().to_string(),
            names: alternatives(&read)
                .filter_map(|name| shown(name).or_else(|| address(name)))
                .collect(),
            from_s: validity.not_before.timestamp(),
            until_s: validity.not_after.timestamp(),
        })
    }
}

/// The names that somebody goes by: the common name, then those for hosts, mail and services.
pub(super) fn names(der: &[u8]) -> Vec<String> {
    let Ok((_, read)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let common = read
        .subject()
        .iter_common_name()
        .filter_map(|name| Some(name.as_str().ok()?.to_owned()));
    let mut names: Vec<String> = common.chain(alternatives(&read).filter_map(shown)).collect();
    names.dedup();
    names
}

fn alternatives<'a>(read: &'a X509Certificate<'_>) -> impl Iterator<Item = &'a GeneralName<'a>> {
    read.extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        })
        .flatten()
}

fn shown(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) | GeneralName::RFC822Name(name) | GeneralName::URI(name) => Some((*name).to_owned()),
        _ => None,
    }
}

fn address(name: &GeneralName<'_>) -> Option<String> {
    let GeneralName::IPAddress(bytes) = name else {
        return None;
    };
    let address = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(*bytes).ok()?)),
        _ => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(*bytes).ok()?)),
    };
    Some(address.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};

    use super::*;

    #[test]
    fn subject_names_and_times_are_read() {
        let mut params = CertificateParams::new(["node-1.example".to_owned(), "10.0.0.1".to_owned()]).expect("names");
        params.distinguished_name.push(DnType::CommonName, "node-1");
        params
            .subject_alt_names
            .push(SanType::Rfc822Name("ann@example.org".try_into().expect("ASCII")));
        params.not_before = date_time_ymd(1970, 1, 2);
        params.not_after = date_time_ymd(1970, 1, 3);
        let key = KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");

        let read = Certificate::read(made.der()).expect("a certificate");
        assert!(read.subject.contains("CN=node-1"), "{}", read.subject);
        assert_eq!(read.subject, read.issuer);
        assert_eq!(read.names, ["node-1.example", "10.0.0.1", "ann@example.org"]);
        assert_eq!((read.from_s, read.until_s), (86_400, 172_800));
        // An address is nobody's name.
        assert_eq!(names(made.der()), ["node-1", "node-1.example", "ann@example.org"]);
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        for nonsense in [&b""[..], b"\x30", b"\x30\x82\xff\xff", b"hello"] {
            assert_eq!(Certificate::read(nonsense), None);
            assert!(names(nonsense).is_empty());
        }
    }
}
