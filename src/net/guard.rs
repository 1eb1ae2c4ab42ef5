//! Which addresses a connection may go to, whatever a name resolves to: the guard against names that lead, or are made
//! to lead (DNS rebinding), to the machine itself, to its private network, or to a cloud's metadata service, which hands
//! out credentials. Pure. Asked when a name has been resolved, and once more before a connection is opened.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How far a target may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guard {
    /// Public addresses only: the target is a public name.
    #[default]
    Public,
    /// Private and loopback addresses too: the target is itself such an address, has a name that only exists inside, or
    /// the operator has said so.
    Inside,
}

/// What kind of address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Public,
    /// Loopback or private; the text says which.
    Inside(&'static str),
    /// Nowhere that a provider could be.
    Never(&'static str),
}

use Class::{Inside, Never, Public};

const METADATA: Class = Never("a cloud's metadata address");
const LINK_LOCAL: Class = Never("a link-local address");
const MULTICAST: Class = Never("a multicast address");
const UNSPECIFIED: Class = Never("an unspecified address");
const LOOPBACK: Class = Inside("a loopback address");
const PRIVATE: Class = Inside("a private address");

impl Guard {
    /// Why no connection may go to `ip`, as words that follow "which is"; `None` when it may.
    pub fn refuses(self, ip: IpAddr) -> Option<&'static str> {
        match (class(ip), self) {
            (Public, _) | (Inside(_), Guard::Inside) => None,
            (Inside(what), Guard::Public) | (Never(what), _) => Some(what),
        }
    }

    /// What to tell of an address that is refused: who it is, why, and what to do if it is meant.
    pub fn told(self, ip: IpAddr) -> Option<String> {
        let what = self.refuses(ip)?;
        let way = match class(ip) {
            Inside(_) => "; if that is meant, write `allow_private = true` in its [[upstream]]",
            Public | Never(_) => "",
        };
        Some(format!("{ip}, which is {what} and is not connected to{way}"))
    }
}

fn class(ip: IpAddr) -> Class {
    match ip {
        IpAddr::V4(ip) => class_v4(ip),
        IpAddr::V6(ip) => class_v6(ip),
    }
}

/// The registry of RFC 6890, and where clouds keep their metadata services.
fn class_v4(ip: Ipv4Addr) -> Class {
    match ip.octets() {
        // AWS, Google, Azure and others; AWS's task roles; Alibaba; Oracle's old one; Azure's host agent.
        [169, 254, 169, 254]
        | [169, 254, 170, 2 | 23]
        | [100, 100, 100, 200]
        | [192, 0, 0, 192]
        | [168, 63, 129, 16] => METADATA,
        [0, ..] => UNSPECIFIED,
        [127, ..] => LOOPBACK,
        [169, 254, ..] => LINK_LOCAL,
        // RFC 1918; RFC 6598, carriers' and mesh networks' shared space; RFC 2544, test beds and fake-IP resolvers; RFC 6890.
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18..=19, ..] | [192, 0, 0, _] => {
            PRIVATE
        }
        [224..=239, ..] => MULTICAST,
        [255, 255, 255, 255] => Never("the broadcast address"),
        [240..=255, ..] => Never("a reserved address"),
        _ => Public,
    }
}

fn class_v6(ip: Ipv6Addr) -> Class {
    let embedded = |high: u16, low: u16| class_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => UNSPECIFIED,
        [0, 0, 0, 0, 0, 0, 0, 1] => LOOPBACK,
        // An IPv4 address in IPv6's clothes: mapped and compatible (RFC 4291 section 2.5.5), translated (RFC 6052),
        // 6to4 (RFC 3056).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => embedded(high, low),
        // AWS; Google.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254 | 0x23] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => METADATA,
        // RFC 4193, RFC 8215, and RFC 3879's old site-local ones.
        [0xfc00..=0xfdff | 0xfec0..=0xfeff, ..] | [0x64, 0xff9b, 1, ..] => PRIVATE,
        [0xfe80..=0xfebf, ..] => LINK_LOCAL,
        [0xff00..=0xffff, ..] => MULTICAST,
        [0x100, 0, 0, 0, ..] => Never("a discard address"),
        _ => Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn public_addresses_are_open_to_all() {
        for text in [
            "1.1.1.1",
            "160.79.104.10",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2607:6bc0::10",
            "64:ff9b::1.1.1.1",
            "::ffff:1.1.1.1",
            "2002:101:101::1",
        ] {
            assert_eq!(Guard::Public.refuses(ip(text)), None, "{text}");
            assert_eq!(Guard::Inside.refuses(ip(text)), None, "{text}");
        }
    }

    #[test]
    fn inside_addresses_are_open_to_inside_targets_only() {
        for (text, what) in [
            ("127.0.0.1", "a loopback address"),
            ("127.255.255.254", "a loopback address"),
            ("::1", "a loopback address"),
            ("::ffff:127.0.0.1", "a loopback address"),
            ("::127.0.0.1", "a loopback address"),
            ("64:ff9b::127.0.0.1", "a loopback address"),
            ("10.0.0.1", "a private address"),
            ("172.16.0.1", "a private address"),
            ("172.31.255.255", "a private address"),
            ("192.168.1.1", "a private address"),
            ("100.64.0.1", "a private address"),
            ("100.127.255.255", "a private address"),
            ("198.18.0.1", "a private address"),
            ("192.0.0.8", "a private address"),
            ("fc00::1", "a private address"),
            ("fdff::1", "a private address"),
            ("fec0::1", "a private address"),
            ("64:ff9b:1::1", "a private address"),
            ("::ffff:10.1.2.3", "a private address"),
            ("::ffff:0:10.1.2.3", "a private address"),
            ("64:ff9b::10.1.2.3", "a private address"),
            ("2002:a01:203::1", "a private address"),
        ] {
            assert_eq!(Guard::Public.refuses(ip(text)), Some(what), "{text}");
            assert_eq!(Guard::Inside.refuses(ip(text)), None, "{text}");
        }
    }

    #[test]
    fn some_addresses_are_open_to_nobody() {
        for (text, what) in [
            ("169.254.169.254", "a cloud's metadata address"),
            ("169.254.170.2", "a cloud's metadata address"),
            ("100.100.100.200", "a cloud's metadata address"),
            ("192.0.0.192", "a cloud's metadata address"),
            ("168.63.129.16", "a cloud's metadata address"),
            ("fd00:ec2::254", "a cloud's metadata address"),
            ("fd00:ec2::23", "a cloud's metadata address"),
            ("fd20:ce::254", "a cloud's metadata address"),
            ("::ffff:169.254.169.254", "a cloud's metadata address"),
            ("::169.254.169.254", "a cloud's metadata address"),
            ("64:ff9b::169.254.169.254", "a cloud's metadata address"),
            ("2002:a9fe:a9fe::1", "a cloud's metadata address"),
            ("169.254.0.1", "a link-local address"),
            ("fe80::1", "a link-local address"),
            ("febf::1", "a link-local address"),
            ("0.0.0.0", "an unspecified address"),
            ("0.1.2.3", "an unspecified address"),
            ("::", "an unspecified address"),
            ("::ffff:0.0.0.0", "an unspecified address"),
            ("224.0.0.1", "a multicast address"),
            ("239.255.255.255", "a multicast address"),
            ("ff02::1", "a multicast address"),
            ("255.255.255.255", "the broadcast address"),
            ("240.0.0.1", "a reserved address"),
            ("100::1", "a discard address"),
        ] {
            assert_eq!(Guard::Public.refuses(ip(text)), Some(what), "{text}");
            assert_eq!(Guard::Inside.refuses(ip(text)), Some(what), "{text}");
        }
    }

    #[test]
    fn only_what_can_be_allowed_says_how() {
        let told = |text| Guard::Public.told(ip(text)).unwrap();
        assert!(told("10.0.0.1").contains("10.0.0.1, which is a private address"), "{}", told("10.0.0.1"));
        assert!(told("10.0.0.1").contains("allow_private = true"));
        assert!(!told("169.254.169.254").contains("allow_private"));
        assert_eq!(Guard::Public.told(ip("1.1.1.1")), None);
    }
}
