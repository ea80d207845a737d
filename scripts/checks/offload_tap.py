#!/usr/bin/python3
"""Offloads against Linux's own: scapy makes large packets and blank checksums, a TAP device without
offloads has Linux cut and fill them, and our segments are to be the same bytes.

    scapy ── packet socket, virtio-net header ── Linux: GSO, checksum ── TAP ── here

The step records that and has `packet/tests/offload_linux.rs` compare it; what is in
`packet/tests/offload_linux.txt` was recorded so.

usage: unshare --net scripts/checks/offload_tap.py record > packet/tests/offload_linux.txt
"""

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

APT = str(Path(__file__).resolve().parent.parent / "lab/apt.sh")
DEVICE = "cut0"
# The one that Debian's scapy is for.
PYTHON = "/usr/bin/python3"
# linux/if_tun.h, linux/if_packet.h, linux/virtio_net.h
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
SOL_PACKET, PACKET_VNET_HDR = 263, 15
NEEDS_CSUM, GSO_NONE, GSO_TCPV4, GSO_TCPV6 = 1, 0, 1, 4


def check(context):
    import tap
    import tools
    from runner import StepError

    lacking = tap.what_lacks()
    if lacking:
        # Where everything has to run, nothing is left out.
        if os.environ.get("CI"):
            raise StepError(lacking)
        context.skip(lacking)
        return
    tools.cargo(context)
    context.setup(APT, "need", "scapy", "python3-scapy")
    context.setup(APT, "need", "unshare", "util-linux")
    with tempfile.TemporaryDirectory() as folder:
        recorded = Path(folder) / "recorded"
        recorded.write_text(context.output_of("unshare", "--net", PYTHON, __file__, "record"))
        context.cargo_tests(
            "cargo", "test", "-p", "packet-views", "--test", "offload_linux", env={"XEN_LINUX_OFFLOADS": str(recorded)}
        )


def folded(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def packets():
    """A name, a packet of scapy's, and the size of its segments, 0 for one to fill in."""
    from scapy.all import (
        IP, TCP, UDP, AH, Dot1AD, Dot1Q, Ether, IPOption_RR, IPv6, IPv6ExtHdrDestOpt,
        IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN, Raw, RouterAlert,
    )  # fmt: skip

    ethernet = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
    timestamp = [("NOP", None), ("NOP", None), ("Timestamp", (12345, 678))]
    tags = {
        "": ethernet,
        "tag-0 ": ethernet / Dot1Q(vlan=0, prio=5),
        "tag ": ethernet / Dot1Q(vlan=7),
        "tags ": ethernet / Dot1AD(vlan=5) / Dot1Q(vlan=7),
    }
    v4 = IP(src="10.0.0.1", dst="10.0.0.2", id=0xFFFE, ttl=9, tos=0x28)
    v6 = IPv6(src="fd00::1", dst="fd00::2", hlim=9, tc=0x28, fl=0x12345)
    options = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])
    networks = {
        "IPv4": v4,
        "IPv4 DF": v4.copy(),
        "IPv4 options": v4.copy(),
        "IPv6": v6,
        "IPv6 destination-options": v6 / options,
        "IPv6 hop-by-hop": v6 / IPv6ExtHdrHopByHop(options=[RouterAlert()]) / options,
        "IPv6 routing-done": v6 / IPv6ExtHdrRouting(addresses=["fd00::3"], segleft=0),
        "IPv6 routing": v6 / IPv6ExtHdrRouting(addresses=["fd00::3"], segleft=1),
    }
    networks["IPv4 DF"].flags = "DF"
    networks["IPv4 options"].options = [IPOption_RR(pointer=4, routers=["0.0.0.0"] * 3)]
    data = Raw(bytes((n * 7 + 3) % 256 for n in range(130)))
    for tag, link in tags.items():
        for network, ip in networks.items():
            if tag in ("tag ", "tag-0 ") and network not in ("IPv4", "IPv6"):
                continue
            tcp = TCP(sport=4000, dport=80, seq=0xFFFFFFC0, ack=9, window=77, options=timestamp)
            for flags, size in (("A", 50), ("PAFC", 50), ("UA", 60), ("PA", 0)):
                tcp.flags, tcp.urgptr = flags, 33 if "U" in flags else 0
                yield f"{tag}{network} TCP {flags}", link / ip / tcp / data, size
            if "options" not in network:
                yield f"{tag}{network} UDP", link / ip / UDP(sport=4000, dport=80) / data, 0
    # Scapy knows no sum behind it: it is the same as without.
    tcp.chksum = Ether(bytes(ethernet / v6 / tcp / data))[TCP].chksum
    authentication = AH(nh=6, payloadlen=4, spi=1, seq=2, icv=b"\1" * 12)
    yield "IPv6 authenticated TCP", ethernet / v6 / authentication / tcp / data, 0


def blank(packet):
    """The bytes of a packet with a blank checksum, where that begins to count and where it is."""
    from scapy.all import TCP, UDP

    layer, field = (packet[TCP], 16) if TCP in packet else (packet[UDP], 6)
    frame = bytearray(bytes(packet))
    start = len(frame) - len(bytes(layer))
    place = slice(start + field, start + field + 2)
    complete = struct.unpack("!H", frame[place])[0]
    frame[place] = b"\0\0"
    # What the sum lacks of the bytes is the pseudo-header's.
    pseudo = (~complete & 0xFFFF) + (~folded(bytes(frame[start:])) & 0xFFFF)
    frame[place] = struct.pack("!H", (pseudo & 0xFFFF) + (pseudo >> 16))
    return bytes(frame), start, field


def record():
    """In a network namespace of its own, prints a line for each packet: its name, what is to be cut
    and how, and what Linux made of it."""
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", DEVICE.encode(), IFF_TAP | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", DEVICE, "up", "mtu", "1500"], check=True)
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    sender.bind((DEVICE, 0))
    for name, packet, size in packets():
        frame, start, field = blank(packet)
        v4 = " IPv4" in f" {name}"
        gso = (GSO_TCPV4 if v4 else GSO_TCPV6) if size else GSO_NONE
        header = struct.pack("=BBHHHH", NEEDS_CSUM, gso, len(frame), size, start, field)
        sender.send(header + frame)
        made = []
        while select.select([device], [], [], 0.05)[0]:
            made.append(os.read(device, 65536).hex())
        kind = (4 if v4 else 6) if size else 0
        print("\t".join([name, str(kind), str(size), frame.hex(), *made]))


if __name__ == "__main__":
    if sys.argv[1:] != ["record"]:
        sys.exit(__doc__.strip())
    record()
