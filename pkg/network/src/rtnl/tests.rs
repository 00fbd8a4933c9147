#![allow(clippy::unwrap_used)]
use std::net::IpAddr;

use super::*;
use crate::netns;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn what_is_created_is_listed() {
    netns::within_new(|| {
        let mut socket = RouteSocket::open().unwrap();
        let mac = Mac::of(1, ip("192.0.2.7"));
        let bridge = socket.create_bridge("b", mac, 1400).unwrap();
        assert_eq!((bridge.mac, bridge.mtu, bridge.up, &*bridge.kind), (Some(mac), 1400, true, "bridge"));
        assert!(socket.create_bridge("b", mac, 1400).unwrap_err().is_exists());
        for _ in 0..2 {
            socket.add_address(bridge.index, "192.0.2.7/24".parse().unwrap()).unwrap();
        }
        assert!(socket.addresses().unwrap().contains(&(bridge.index, "192.0.2.7/24".parse().unwrap())));

        let wanted = Vxlan { vni: 1, port: 8472, local: ip("192.0.2.7"), device: bridge.index };
        let tunnel = socket.create_vxlan("v", Mac::of(2, ip("192.0.2.7")), 1350, wanted).unwrap();
        assert_eq!(tunnel.vxlan(), Some(&wanted));

        let (gateway, mac) = (ip("10.42.1.0"), Mac::of(2, ip("192.0.2.8")));
        let route = Route {
            destination: "10.42.1.0/24".parse().unwrap(),
            gateway: Some(gateway),
            device: tunnel.index,
            onlink: true,
            source: None,
        };
        let neighbours = [Neighbour::Address { ip: gateway, mac }, Neighbour::Forward { mac, node: ip("192.0.2.8") }];
        for _ in 0..2 {
            socket.replace_route(&route).unwrap();
            neighbours.iter().for_each(|neighbour| socket.replace_neighbour(tunnel.index, *neighbour).unwrap());
        }
        assert!(socket.routes(tunnel.index).unwrap().contains(&route));
        assert_eq!(socket.neighbours(tunnel.index).unwrap(), neighbours);
        for _ in 0..2 {
            socket.delete_route(&route).unwrap();
            neighbours.iter().for_each(|neighbour| socket.delete_neighbour(tunnel.index, *neighbour).unwrap());
        }
        assert!(!socket.routes(tunnel.index).unwrap().contains(&route));
        assert_eq!(socket.neighbours(tunnel.index).unwrap(), []);
        assert!(socket.delete_link("v").unwrap());
        assert!(!socket.delete_link("v").unwrap());
        assert!(socket.link("v").unwrap_err().is_missing());
    })
    .unwrap();
}
