//! The image's command line.
//!
//! ```text
//! ip=10.0.0.2/24 ip=fd00::2/64 gw=10.0.0.1 queues=2 gso=0 vif1.ip=10.0.1.2/24 log=debug
//! ```
//!
//! `ip` and `gw` may come several times, and mean vif 0 unless `vifN.` stands in front of them; the
//! others are for all vifs. `ip=dhcp` has the vif's IPv4 address and gateway leased, so there is none
//! of the command line beside it; those of IPv6 may be. What is wrong is told, and changes nothing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use packet_views::features::Features;
use smoltcp::wire::{IpAddress, IpCidr};
use xen_guest::options::{BadOption, set_flags};
use xen_netfront::netfront;
use xen_netfront::xenbus::MAX_QUEUES;

use super::addresses::is_one_machine;

/// The most addresses of a vif (smoltcp's `iface-max-addr-count-8`).
const ADDRESSES: usize = 8;

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The vifs to serve, by number.
    pub vifs: BTreeMap<u32, VifOptions>,
    /// `queues=`, `split=`, `sg=`, `gso=`, `csum=`: what to ask of every backend.
    pub driver: netfront::Config,
}

/// What it says about one vif.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VifOptions {
    /// `ip=`: our addresses, each with the length of its network's prefix.
    pub addresses: Vec<IpCidr>,
    /// `ip=dhcp`: one more, of IPv4, is leased, with its gateway. There is no other of IPv4 then.
    pub dhcp: bool,
    /// `gw=`: default gateways, at most one for IPv4 and one for IPv6.
    pub gateways: Vec<IpAddress>,
}

impl VifOptions {
    /// Whether it has an address, or will.
    pub fn is_served(&self) -> bool {
        self.dhcp || !self.addresses.is_empty()
    }

    /// An error if there is no room for one more address.
    fn check_room(&self) -> Result<(), &'static str> {
        let count = self.addresses.len() + usize::from(self.dhcp);
        if count < ADDRESSES { Ok(()) } else { Err("at most 8 addresses for a vif") }
    }
}

impl Options {
    /// Reads a command line. Each bad word goes to `complain` and changes nothing.
    pub fn parse<'a>(line: &'a str, mut complain: impl FnMut(BadOption<'a>)) -> Options {
        let mut options = Options { vifs: BTreeMap::new(), driver: netfront::Config::default() };
        for word in line.split_ascii_whitespace() {
            if let Err(expected) = options.take(word) {
                complain(BadOption { word, expected });
            }
        }
        options
    }

    /// Takes one word; what would be right, if it is not and the option is known.
    fn take(&mut self, word: &str) -> Result<(), Option<&'static str>> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let (vif, name) = match name.strip_prefix("vif").and_then(|rest| rest.split_once('.')) {
            Some((number, name @ ("ip" | "gw"))) => {
                (number.parse().map_err(|_| Some("vifN.ip= or vifN.gw=, N a number"))?, name)
            }
            Some(_) => return Err(None),
            None => (0, name),
        };
        let Features { scatter_gather, checksum_v4, checksum_v6, gso_v4, gso_v6, .. } =
            &mut self.driver.features;
        match name {
            "ip" => self.add_address(vif, value),
            "gw" => self.set_gateway(vif, value),
            "queues" => {
                let queues = value.parse().ok().filter(|count| (1..=MAX_QUEUES).contains(count));
                self.driver.queues = queues.ok_or("queues=N, N from 1 to 8")?;
                Ok(())
            }
            "split" => set_flags(value, [&mut self.driver.split_event_channels], "split=0|1"),
            "sg" => set_flags(value, [scatter_gather], "sg=0|1"),
            "gso" => set_flags(value, [gso_v4, gso_v6], "gso=0|1"),
            "csum" => set_flags(value, [checksum_v4, checksum_v6], "csum=0|1"),
            _ => return xen_guest::options::check(word),
        }
        .map_err(Some)
    }

    fn add_address(&mut self, vif: u32, text: &str) -> Result<(), &'static str> {
        const EXPECTED: &str = "ip=ADDR/LEN or ip=dhcp";
        if text == "dhcp" {
            return self.lease_address(vif);
        }
        let (address, len) = text.split_once('/').ok_or(EXPECTED)?;
        let address: IpAddr = address.parse().map_err(|_| EXPECTED)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let len = len.parse().ok().filter(|&len| len <= most).ok_or(EXPECTED)?;
        if !is_one_machine(address) {
            return Err("ip=ADDR/LEN with an address of one machine");
        }
        let vif = self.vifs.entry(vif).or_default();
        if vif.dhcp && address.is_ipv4() {
            return Err("for a vif with ip=dhcp, unless it is of IPv6");
        }
        vif.check_room()?;
        vif.addresses.push(IpCidr::new(address.into(), len));
        Ok(())
    }

    fn lease_address(&mut self, vif: u32) -> Result<(), &'static str> {
        let vif = self.vifs.entry(vif).or_default();
        if vif.dhcp {
            return Ok(());
        }
        if vif.addresses.iter().any(|cidr| matches!(cidr, IpCidr::Ipv4(_))) {
            return Err("for a vif that has an IPv4 address by ip=");
        }
        if vif.gateways.iter().any(|gateway| matches!(gateway, IpAddress::Ipv4(_))) {
            return Err("for a vif that has an IPv4 gateway by gw=");
        }
        vif.check_room()?;
        vif.dhcp = true;
        Ok(())
    }

    fn set_gateway(&mut self, vif: u32, text: &str) -> Result<(), &'static str> {
        let gateway: IpAddr = text.parse().map_err(|_| "gw=ADDR")?;
        if !is_one_machine(gateway) {
            return Err("gw=ADDR with an address of one machine");
        }
        let vif = self.vifs.entry(vif).or_default();
        if vif.dhcp && gateway.is_ipv4() {
            return Err("for a vif with ip=dhcp, unless it is of IPv6");
        }
        vif.gateways.retain(|other| matches!(other, IpAddress::Ipv4(_)) != gateway.is_ipv4());
        vif.gateways.push(gateway.into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::{String, ToString};

    fn parse(line: &str) -> (Options, Vec<String>) {
        let mut complaints = Vec::new();
        let options = Options::parse(line, |bad| complaints.push(bad.to_string()));
        (options, complaints)
    }

    fn cidr(text: &str, len: u8) -> IpCidr {
        IpCidr::new(text.parse::<IpAddr>().unwrap().into(), len)
    }

    #[test]
    fn good_options_are_taken() {
        let (options, complaints) = parse(
            " ip=10.0.9.2/24 ip=fd00::2/64  gw=10.0.9.1 gw=fd00::1 vif3.ip=10.1.0.2/16 \
             vif3.gw=10.1.0.1 log=debug queues=2 split=0 sg=1 gso=0 csum=0",
        );
        assert_eq!(complaints, [""; 0]);
        assert_eq!(options.vifs.keys().copied().collect::<Vec<_>>(), [0, 3]);
        assert_eq!(options.vifs[&0].addresses, [cidr("10.0.9.2", 24), cidr("fd00::2", 64)]);
        assert_eq!(options.vifs[&0].gateways.len(), 2);
        assert_eq!(options.vifs[&3].addresses, [cidr("10.1.0.2", 16)]);
        assert_eq!(options.driver.queues, 2);
        assert!(!options.driver.split_event_channels);
        let without_offloads = Features::NONE.with_scatter_gather(true);
        assert_eq!(options.driver.features, without_offloads);

        let (options, _) = parse("");
        assert!(options.vifs.is_empty());
        assert_eq!(options.driver, netfront::Config::default());
    }

    #[test]
    fn the_last_gateway_counts() {
        let (options, _) = parse("gw=10.0.0.1 gw=fd00::1 gw=10.0.0.9");
        let gateways = [IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 1), IpAddress::v4(10, 0, 0, 9)];
        assert_eq!(options.vifs[&0].gateways, gateways);
    }

    #[test]
    fn bad_options_are_named_and_change_nothing() {
        let (options, complaints) = parse(
            "ip=10.0.9.2/33 ip=224.0.0.1/4 ip=::/64 gw= log=loud queues=0 queues=two sg=yes \
             vif.ip=10.0.0.1/8 vif1.mtu=9 quiet",
        );
        assert_eq!(options, parse("").0);
        assert_eq!(
            complaints,
            [
                "option \"ip=10.0.9.2/33\" is not ip=ADDR/LEN or ip=dhcp, ignored",
                "option \"ip=224.0.0.1/4\" is not ip=ADDR/LEN with an address of one machine, \
                 ignored",
                "option \"ip=::/64\" is not ip=ADDR/LEN with an address of one machine, ignored",
                "option \"gw=\" is not gw=ADDR, ignored",
                "option \"log=loud\" is not log=off|error|warn|info|debug|trace, ignored",
                "option \"queues=0\" is not queues=N, N from 1 to 8, ignored",
                "option \"queues=two\" is not queues=N, N from 1 to 8, ignored",
                "option \"sg=yes\" is not sg=0|1, ignored",
                "option \"vif.ip=10.0.0.1/8\" is not vifN.ip= or vifN.gw=, N a number, ignored",
                "option \"vif1.mtu=9\" is unknown, ignored",
                "option \"quiet\" is unknown, ignored",
            ]
        );
    }

    #[test]
    fn an_ipv4_address_may_be_leased() {
        let (options, complaints) =
            parse("ip=dhcp ip=fd00::2/64 gw=fd00::1 ip=dhcp vif2.ip=dhcp vif3.gw=10.0.3.1");
        assert_eq!(complaints, [""; 0]);
        let [first, second, third] = [0, 2, 3].map(|number| &options.vifs[&number]);
        assert!(first.dhcp && first.addresses == [cidr("fd00::2", 64)]);
        assert_eq!(first.gateways, [IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 1)]);
        assert!(second.dhcp && second.addresses.is_empty() && second.is_served());
        assert!(!third.is_served());
    }

    #[test]
    fn beside_a_leased_address_there_is_none_of_ipv4() {
        // Whichever comes first counts.
        let (options, complaints) =
            parse("ip=dhcp ip=10.0.0.2/24 gw=10.0.0.1 vif1.gw=10.0.1.1 vif1.ip=dhcp");
        assert!(options.vifs[&0].dhcp && !options.vifs[&1].is_served());
        assert_eq!(options.vifs[&0], parse("ip=dhcp").0.vifs[&0]);
        assert_eq!(options.vifs[&1], parse("vif1.gw=10.0.1.1").0.vifs[&1]);
        assert_eq!(
            complaints,
            [
                "option \"ip=10.0.0.2/24\" is not for a vif with ip=dhcp, unless it is of IPv6, \
                 ignored",
                "option \"gw=10.0.0.1\" is not for a vif with ip=dhcp, unless it is of IPv6, ignored",
                "option \"vif1.ip=dhcp\" is not for a vif that has an IPv4 gateway by gw=, ignored",
            ]
        );
        let (options, complaints) = parse("ip=10.0.0.2/24 ip=dhcp ip=dhcp/24 ip=DHCP gw=dhcp");
        assert_eq!(options, parse("ip=10.0.0.2/24").0);
        assert_eq!(
            complaints,
            [
                "option \"ip=dhcp\" is not for a vif that has an IPv4 address by ip=, ignored",
                "option \"ip=dhcp/24\" is not ip=ADDR/LEN or ip=dhcp, ignored",
                "option \"ip=DHCP\" is not ip=ADDR/LEN or ip=dhcp, ignored",
                "option \"gw=dhcp\" is not gw=ADDR, ignored",
            ]
        );
        // It takes a place among the addresses, whether it comes last or first.
        let eight = "ip=fd00::2/64 ".repeat(8);
        assert_eq!(parse(&alloc::format!("{eight} ip=dhcp")).1.len(), 1);
        let (options, complaints) = parse(&alloc::format!("ip=dhcp {eight}"));
        assert_eq!((options.vifs[&0].addresses.len(), complaints.len()), (7, 1));
    }

    #[test]
    fn a_gateway_is_one_machine() {
        let (options, complaints) = parse("gw=0.0.0.0 gw=255.255.255.255 gw=224.0.0.1 gw=ff02::1");
        assert_eq!((options, complaints.len()), (parse("").0, 4));
        assert_eq!(
            complaints[0],
            "option \"gw=0.0.0.0\" is not gw=ADDR with an address of one machine, ignored"
        );
    }

    #[test]
    fn nothing_on_the_command_line_panics() {
        for line in [
            "=",
            "ip",
            "ip=/",
            "ip=1.2.3.4/",
            "ip=1.2.3.4/-1",
            "gw=::1",
            "log",
            "vif.",
            "vif9999999999.ip=1.2.3.4/8",
            "\u{fffd}=",
            "ip=\u{1f600}/9",
            "queues=4294967296",
        ] {
            parse(line);
        }
        let (options, complaints) = parse(&"ip=10.0.0.2/8 ".repeat(9));
        assert_eq!((options.vifs[&0].addresses.len(), complaints.len()), (8, 1));
    }
}
