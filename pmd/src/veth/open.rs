//! Opening a veth pair: made over two namespaces at once, or adopted from an earlier run.
//!
//! The host end is down until it is closed to the host's stack and marked, so there is no moment at which the
//! container could talk to the host round the switch. Between birth and mark (two messages) the pair is known
//! by its name and group: a crash in between leaves a pair that the next start takes for its own and makes
//! anew. Privileged; knows nothing about sockets or frames.

use crate::netdev::link::{Change, GROUP, VethEnd, mark};
use crate::netdev::{Device, Error, Link, Links, Netns, Settings, ingress};

/// What a `veth` port shall be.
#[derive(Debug, Clone)]
pub struct VethConfig {
    /// The port's name: part of the mark and, hashed, the host end's name.
    pub port: String,
    /// Namespace of the container's end by name or path; `None` leaves it in the daemon's own.
    pub netns: Option<String>,
    /// Name, addresses, MTU and so on of the container's end.
    pub settings: Settings,
}

/// An open pair, in plain values.
#[derive(Debug, Clone)]
pub struct OpenVeth {
    /// The port's name.
    pub port: String,
    /// Our end, up and closed to the host's stack, in the daemon's namespace.
    pub host: Device,
    /// The container's end.
    pub container: Device,
    /// It was there already, made by an earlier run.
    pub adopted: bool,
}

/// The name of a port's host end: the same for the same port and place, always; 15 bytes. The place counts, so
/// that two daemons with ports of the same name do not meet.
pub fn host_name(port: &str, netns: Option<&str>, ifname: &str) -> String {
    // FNV-1a, 64 bits, of which 52 are kept: short, and no two ports of a host will meet.
    let words = [port, netns.unwrap_or_default(), ifname].join("\0");
    let hash = words.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("vs{:013x}", hash >> 12)
}

/// Makes or adopts the pair that `config` describes and brings it up.
///
/// # Errors
/// [`Error::NamespaceMissing`]; [`Error::Foreign`] for a device of either name without the port's mark;
/// [`Error::Invalid`] settings; what the kernel refuses. After an error a pair that was not there before is gone
/// again.
pub fn open(config: &VethConfig) -> Result<OpenVeth, Error> {
    config.settings.check()?;
    let netns = Netns::open_or_own(config.netns.as_deref())?;
    let mut pair = Pair {
        name: host_name(&config.port, config.netns.as_deref(), &config.settings.ifname),
        config,
        near: Links::open(&Netns::own())?,
        far: Links::open(&netns)?,
        netns,
    };
    if let Some(ends) = pair.find()? {
        let (host, container) = pair.settle(ends)?;
        return Ok(pair.opened(&host, &container, true));
    }
    let ends = pair.create()?;
    match pair.settle(ends.clone()) {
        Ok((host, container)) => Ok(pair.opened(&host, &container, false)),
        Err(error) => {
            // The first error is the one to tell.
            let _ = pair.near.delete(&ends.0);
            let _ = ingress::reopen(&Netns::own(), &pair.name);
            Err(error)
        }
    }
}

/// Deletes the pair of `port` whose container end is `ifname` in `netns`; its chain goes after it, so that the
/// host end is never open. A pair that is gone is fine, and a device without the port's mark is left alone.
pub fn remove(port: &str, netns: Option<&str>, ifname: &str) -> Result<(), Error> {
    let (own, name) = (Netns::own(), host_name(port, netns, ifname));
    let mut links = Links::open(&own)?;
    match links.find(&name)? {
        Some(link) if !link.is_marked(port) => return Ok(()),
        Some(link) => links.delete(&link)?,
        None => {}
    }
    ingress::reopen(&own, &name)
}

/// A pair on its way to being open.
struct Pair<'a> {
    config: &'a VethConfig,
    /// The host end's name.
    name: String,
    netns: Netns,
    /// The host's links and the container's.
    near: Links,
    far: Links,
}

/// The host's end and the container's.
type Ends = (Link, Link);

impl Pair<'_> {
    /// The pair that is there already, if it is ours and whole; what is ours and not whole is deleted.
    fn find(&mut self) -> Result<Option<Ends>, Error> {
        let Some(host) = self.near.find(&self.name)? else { return Ok(None) };
        let half_made = host.alias.is_empty() && host.group == GROUP && !host.up;
        if host.kind != "veth" || !(host.is_marked(&self.config.port) || half_made) {
            return Err(foreign(&self.near, &host));
        }
        let container = match host.peer {
            Some(index) if !half_made => self.far.find_index(index)?,
            _ => None,
        };
        // An index means something in its own namespace only; the configuration may name another one now.
        let known = |end: &Link| end.is_marked(&self.config.port) || end.name == self.config.settings.ifname;
        match container.filter(|end| end.kind == "veth" && end.peer == Some(host.index) && known(end)) {
            Some(container) => Ok(Some((host, container))),
            None => {
                self.near.delete(&host)?;
                Ok(None)
            }
        }
    }

    /// Makes the pair, both ends down.
    fn create(&mut self) -> Result<Ends, Error> {
        let settings = &self.config.settings;
        if let Some(link) = self.far.find(&settings.ifname)? {
            return Err(foreign(&self.far, &link));
        }
        let near = VethEnd { name: &self.name, mac: None, mtu: settings.mtu };
        let far = VethEnd { name: &settings.ifname, mac: settings.mac, mtu: settings.mtu };
        self.near.create_veth(near, far, &self.netns)?;
        Ok((self.near.get(&self.name)?, self.far.get(&settings.ifname)?))
    }

    /// Closes, marks and sets both ends, first time or again; the host's end comes up last.
    fn settle(&mut self, (host, container): Ends) -> Result<Ends, Error> {
        let own = Netns::own();
        let settings = &self.config.settings;
        ingress::close(&own, &[&self.name])?;
        ingress::harden(&own, &self.name)?;
        let mark = mark(&self.config.port);
        self.near.change(&host, &[Change::Alias(&mark), Change::Mtu(settings.mtu)])?;
        // Refused where the kernel has no IPv6; then there is nothing to forbid.
        let _ = self.near.change(&host, &[Change::NoIpv6Addresses]);
        if container.name != settings.ifname {
            // Two messages: before Linux 6.2 a device must be down already to get a name.
            self.far.change(&container, &[Change::Up(false)])?;
            self.far.change(&container, &[Change::Name(&settings.ifname)])?;
        }
        self.far.change(&container, &[Change::Alias(&mark)])?;
        let container = self.far.get(&settings.ifname)?;
        let container = settings.apply(&mut self.far, &container)?;
        self.near.change(&host, &[Change::Up(true)])?;
        Ok((self.near.get(&self.name)?, container))
    }

    fn opened(&self, host: &Link, container: &Link, adopted: bool) -> OpenVeth {
        OpenVeth {
            port: self.config.port.clone(),
            host: Device::new(host, None),
            container: Device::new(container, self.config.netns.as_deref()),
            adopted,
        }
    }
}

fn foreign(links: &Links, link: &Link) -> Error {
    Error::Foreign { device: link.name.clone(), netns: links.place().to_owned(), what: link.describe() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netdev::testing::Sandbox;

    fn config(sandbox: &Sandbox, port: &str) -> VethConfig {
        let settings = Settings {
            mac: Some([2, 0, 0, 0, 0, 0x12]),
            addresses: vec!["10.1.0.12/24".parse().unwrap(), "fd00:1::12/64".parse().unwrap()],
            ..Settings::default()
        };
        VethConfig {
            port: format!("{port}-{}", sandbox.name(0)),
            netns: Some(sandbox.name(0).into()),
            settings,
        }
    }

    /// Removes a port's pair also when the test fails.
    struct Cleanup(VethConfig);

    impl Drop for Cleanup {
        fn drop(&mut self) {
            let _ = remove_pair(&self.0);
        }
    }

    fn remove_pair(config: &VethConfig) -> Result<(), Error> {
        remove(&config.port, config.netns.as_deref(), &config.settings.ifname)
    }

    fn name_of(config: &VethConfig) -> String {
        host_name(&config.port, config.netns.as_deref(), &config.settings.ifname)
    }

    fn host_link(config: &VethConfig) -> Option<Link> {
        Links::open(&Netns::own()).unwrap().find(&name_of(config)).unwrap()
    }

    #[test]
    fn names_fit_and_differ() {
        let name = |port, netns| host_name(port, netns, "eth0");
        assert_eq!(name("web1", None).len(), 15);
        assert_eq!(name("web1", Some("a")), name("web1", Some("a")));
        assert_ne!(name("web1", Some("a")), name("web2", Some("a")));
        assert_ne!(name("web1", Some("a")), name("web1", Some("b")));
    }

    #[test]
    fn a_pair_is_made_closed_and_set_and_adopted_as_it_is() {
        let sandbox = Sandbox::new(1);
        let mut config = config(&sandbox, "web1");
        let _cleanup = Cleanup(config.clone());
        let first = open(&config).unwrap();
        assert!(!first.adopted);
        assert_eq!((first.container.name.as_str(), first.container.mac), ("eth0", [2, 0, 0, 0, 0, 0x12]));
        let host = host_link(&config).unwrap();
        assert!(host.up && host.carrier && host.is_marked(&config.port), "{host:?}");
        let rules =
            std::process::Command::new("nft").args(["list", "ruleset", "netdev"]).output().unwrap().stdout;
        assert!(String::from_utf8_lossy(&rules).contains(&host.name));
        let own = Links::open(&Netns::own()).unwrap().addresses(&host).unwrap();
        assert!(own.is_empty(), "the host end has {own:?}");

        config.settings.mtu = 9000;
        let second = open(&config).unwrap();
        assert!(second.adopted && second.container.index == first.container.index);
        assert_eq!((second.host.mtu, second.container.mtu), (9000, 9000));
        remove_pair(&config).unwrap();
        remove_pair(&config).unwrap();
        assert!(host_link(&config).is_none());
        assert!(!sandbox.ip(0, &["link"]).contains("eth0"));
    }

    #[test]
    fn a_pair_that_a_crash_left_half_made_is_made_anew_and_a_strangers_is_refused() {
        let sandbox = Sandbox::new(1);
        let config = config(&sandbox, "half");
        let name = name_of(&config);
        let _cleanup = Cleanup(config.clone());
        let end = |name| VethEnd { name, mac: None, mtu: 1500 };
        let mut own = Links::open(&Netns::own()).unwrap();
        own.create_veth(end(&name), end("eth0"), sandbox.netns(0)).unwrap();
        assert!(!open(&config).unwrap().adopted);
        let host = host_link(&config).unwrap();
        own.change(&host, &[Change::Alias("somebody's")]).unwrap();
        let text = open(&config).unwrap_err().to_string();
        assert!(text.contains(&name) && text.contains("somebody's"), "{text}");
        remove_pair(&config).unwrap();
        assert!(host_link(&config).is_some(), "a stranger's device was removed");
        own.delete(&host).unwrap();

        sandbox.ip(0, &["link", "add", "eth0", "type", "veth"]);
        let text = open(&config).unwrap_err().to_string();
        assert!(text.contains("\"eth0\"") && text.contains("not ours"), "{text}");
        assert!(host_link(&config).is_none());
    }

    #[test]
    fn a_refused_setting_leaves_nothing() {
        let sandbox = Sandbox::new(1);
        let mut config = config(&sandbox, "bad");
        config.settings.gateways = vec!["172.16.0.1".parse().unwrap()];
        let text = open(&config).unwrap_err().to_string();
        assert!(text.contains("172.16.0.1"), "{text}");
        assert!(host_link(&config).is_none());
        let rules =
            std::process::Command::new("nft").args(["list", "ruleset", "netdev"]).output().unwrap().stdout;
        assert!(!String::from_utf8_lossy(&rules).contains(&name_of(&config)));
    }
}
