"""The main job on a TAP device: the machine's own ping, curl, iperf and tcpdump, in network
namespaces, so that nothing of the machine's network is touched.

    near                                              far
    netfront-sim --tap tap0 ── routing ── veth ────── veth
    ping, curl, iperf, hping3                         ping, curl, iperf

In `near` Linux takes a blank checksum's word for it. The veth has no offloads: what goes on to
`far` is cut and summed by Linux from what our frontend left to it, and verified there.
"""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import zlib
from pathlib import Path

import tools
from runner import StepError

CLIENT, CLIENT_V6 = "10.55.0.2", "fd55::2"
NEAR_END, FAR_END = "10.56.0.1", "10.56.0.2"
# Transferred each way, each time.
BYTES = 50_000_000
# How long the client may take until it answers, and until it has left.
START = 20
END = 10


def check(context):
    lacking = what_lacks()
    if lacking:
        # Where everything has to run, nothing is left out.
        if os.environ.get("CI"):
            raise StepError(lacking)
        context.skip(lacking)
        return
    tools.cargo(context)
    tools.network(context)
    if not context.command("cargo", "build", "--release", "-p", "xen-sim"):
        return
    with tempfile.TemporaryDirectory() as folder, Network(context) as network:
        lab = Lab(context, network, Path(folder))
        lab.everything("--mtu 1500")
        lab.everything("--mtu 9000", pings=(8972,), fragments=(9000, 20000))
        lab.a_device_that_exists()
        lab.a_capture_of_tcpdump()
        lab.what_is_agreed_is_told()
        lab.it_ends_under_a_flood()
        lab.what_cannot_be_used_is_refused()


def what_lacks():
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun: the kernel lacks its driver tun (modprobe tun)"
    if os.getuid() != 0:
        return "network namespaces and TAP devices need root"
    return None


class Network:
    """Two namespaces and the veth between them."""

    def __init__(self, context):
        self.context = context
        self.near, self.far = (f"netfront-{end}-{os.getpid()}" for end in ("near", "far"))

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self):
        for name in (self.near, self.far):
            self.ip("netns", "add", name)
            self.ip("-n", name, "link", "set", "lo", "up")
        self.ip("-n", self.near, "link", "add", "veth0", "type", "veth",
                "peer", "name", "veth0", "netns", self.far)  # fmt: skip
        for name, address in ((self.near, NEAR_END), (self.far, FAR_END)):
            self.ip("-n", name, "addr", "add", f"{address}/24", "dev", "veth0")
            self.ip("-n", name, "link", "set", "veth0", "up")
            self.context.setup("ip", "netns", "exec", name, "ethtool", "-K", "veth0",
                               "tx", "off", "tso", "off", "gso", "off", "gro", "off")  # fmt: skip
        self.ip("-n", self.far, "route", "add", "default", "via", NEAR_END)
        self.run(self.near, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")

    def __exit__(self, *_):
        for name in (self.near, self.far):
            # All that is in there goes with it; one that was not made is no matter.
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)

    def ip(self, *words):
        self.context.setup("ip", *words)

    def run(self, name, *words):
        """Output of a command in a namespace; the step fails without it."""
        return self.context.output_of("ip", "netns", "exec", name, *words)

    def wrong_checksums(self):
        """What both have received with a wrong checksum."""
        wrong = {}
        for name in (self.near, self.far):
            lines = self.run(name, "cat", "/proc/net/snmp").splitlines()
            for names, values in zip(lines[::2], lines[1::2]):
                counters = dict(zip(names.split()[1:], values.split()[1:]))
                if counters.get("InCsumErrors", "0") != "0":
                    wrong[f"{name} {names.split()[0]}"] = counters["InCsumErrors"]
        return wrong


class Lab:
    def __init__(self, context, network, folder):
        self.context = context
        self.network = network
        self.folder = folder
        self.ends = (network.near, network.far)
        self.program = str(tools.target_dir() / "release/netfront-sim")
        self.file = folder / "up"
        self.file.write_bytes(os.urandom(1 << 20) * (BYTES >> 20) + os.urandom(BYTES % (1 << 20)))
        self.crc = zlib.crc32(self.file.read_bytes())

    def everything(self, options, pings=(56, 1472), fragments=(1473, 9000, 65507)):
        """All that can be asked of the servers, with these options."""
        with Client(self, options) as client:
            for size in pings:
                self.ping(options, size, "-M", "do")
            for size in fragments:
                self.ping(options, size)
            self.ping_v6(options)
            for name in self.ends:
                self.curl(options, name)
            sent = sum(self.iperf(options, name) for name in self.ends)
        report = client.report
        count = self.context.check
        count(f"{options}: nothing is lost", report["drops"] == 0, json.dumps(report))
        count(f"{options}: bytes of HTTP",
              report["http_downloaded_bytes"] == report["http_uploaded_bytes"] == 2 * BYTES,
              json.dumps(report))  # fmt: skip
        # The last moment of a test may be counted by one end only.
        count(f"{options}: bytes of iperf", report["discarded_bytes"] >= sent, f"{sent}: {report}")
        for field in ("from_linux_gso", "to_linux_gso", "from_linux_blank", "to_linux_blank"):
            count(f"{options}: {field}", report[field] > 0, json.dumps(report))
        wrong = self.network.wrong_checksums()
        count(f"{options}: every checksum is right", not wrong, str(wrong))

    def ping(self, options, size, *more):
        for name in self.ends:
            output = self.try_run(name, "ping", "-c", "5", "-i", "0.05", "-W", "2",
                                  "-s", size, *more, CLIENT)  # fmt: skip
            # ping compares what comes back.
            fine = " 5 received" in output and "wrong data" not in output
            # A veth of 1500 bytes is between it and `far`.
            if name == self.network.near or size <= 1472 or "-M" not in more:
                self.context.check(f"{options}: ping -s {size} in {name}", fine, output)

    def ping_v6(self, options):
        # Until the address is known to be nobody else's, Linux does not use it.
        output = self.try_run(self.network.near, "ping", "-6", "-c", "10", "-i", "0.3", "-W", "2",
                              "-s", "1000", CLIENT_V6)  # fmt: skip
        received = re.search(r"(\d+) received", output)
        fine = received and int(received[1]) >= 5
        self.context.check(f"{options}: ping -6", fine, output)

    def curl(self, options, name):
        down = self.folder / "down"
        curl = ("curl", "--silent", "--show-error", "--fail", "--max-time", "60",
                "--connect-timeout", "5")  # fmt: skip
        self.try_run(name, *curl, "-o", down, f"http://{CLIENT}/{BYTES}")
        up = self.try_run(name, *curl, "-T", self.file, f"http://{CLIENT}/up")
        sums = self.try_run(name, *curl, f"http://{CLIENT}/sums").splitlines()
        crc = zlib.crc32(down.read_bytes()) if down.exists() else 0
        expected = f"down {BYTES} {crc:08x}"
        self.context.check(f"{options}: curl down in {name}", expected in sums[-2:],
                           f"{expected} is not in {sums}")  # fmt: skip
        expected = f"{BYTES} {self.crc:08x}"
        self.context.check(f"{options}: curl up in {name}", up.strip() == expected,
                           f"{up!r} is not {expected}")  # fmt: skip
        down.unlink(missing_ok=True)

    def iperf(self, options, name):
        """Bytes that iperf says it has sent in two seconds."""
        # Without an answer it waits for ever, and heeds nothing less.
        limit = ("timeout", "-s", "KILL", "20")
        output = self.try_run(name, *limit, "iperf", "-c", CLIENT, "-t", "2", "-y", "C")
        fields = output.strip().split(",")
        sent = int(fields[7]) if len(fields) > 8 and fields[7].isdigit() else 0
        self.context.check(f"{options}: iperf in {name}", sent > 1_000_000, output)
        return sent

    def a_device_that_exists(self):
        """Made beforehand, as a user without rights would have it made, with an MTU of its own."""
        near = self.network.near
        self.network.ip("-n", near, "tuntap", "add", "tap0", "mode", "tap")
        self.network.ip("-n", near, "addr", "add", "10.55.0.77/24", "dev", "tap0")
        self.network.ip("-n", near, "link", "set", "tap0", "up")
        with Client(self, "--mtu 1500"):
            output = self.try_run(near, "ping", "-c", "3", "-i", "0.05", "-W", "2", CLIENT)
            fine = " 3 received" in output and "10.55.0.77" in self.network.run(near, "ip", "addr")
            self.context.check("a device that exists is used as it is", fine, output)
        self.network.ip("-n", near, "link", "del", "tap0")

    def a_capture_of_tcpdump(self):
        file = self.folder / "tcpdump.pcap"
        with Client(self, "--mtu 1500"):
            tcpdump = subprocess.Popen(
                ["ip", "netns", "exec", self.network.near, "tcpdump", "-Z", "root", "-i", "tap0",
                 "-U", "-w", file], stderr=subprocess.PIPE, text=True)  # fmt: skip
            try:
                tcpdump.stderr.readline()  # it listens
                url = f"http://{CLIENT}/3000000"
                self.try_run(self.network.near, "curl", "--silent", "-o", "/dev/null", url)
                self.try_run(self.network.near, "ping", "-c", "2", "-s", "9000", CLIENT)
                time.sleep(0.5)
            finally:
                tcpdump.send_signal(signal.SIGINT)
                tcpdump.communicate(timeout=10)
        output = self.context.output_of(self.program, "--replay", str(file), "--json")
        report = json.loads(output)
        fine = report["ok"] and report["uploaded_bytes"] == report["downloaded_bytes"] > 3_000_000
        self.context.check("a capture of tcpdump is replayed", fine, output)
        longest = report["replayed_longest"]
        self.context.check("it has packets larger than the MTU", longest > 1514, output)

    def what_is_agreed_is_told(self):
        with Client(self, "--mtu 9000 --no-sg --queues 3 --split") as client:
            pass
        report = client.report
        # Without scatter-gather a packet has to fit into a page.
        fine = (
            report["mtu"] < 4096 and report["queues"] == 3 and report["split_event_channels"]
            and not report["scatter_gather"] and not report["gso"]
        )  # fmt: skip
        self.context.check("the report tells what was agreed on", fine, json.dumps(report))

    def it_ends_under_a_flood(self):
        capture = self.folder / "flood.pcap"
        delete = ("ip", "-n", self.network.near, "link", "del", "tap0")
        for name, options, end, status in (
            ("Ctrl-C", "", lambda client: client.signal(signal.SIGINT), 0),
            ("SIGTERM", "", lambda client: client.signal(signal.SIGTERM), 0),
            ("--seconds", "--seconds 5", None, 0),
            ("a deleted device", "", lambda _: self.context.setup(*delete), 1),
        ):
            client = Client(self, f"--mtu 1500 {options} --pcap {capture}")
            client.start()
            with Flood(self):
                time.sleep(1)
                if end:
                    end(client)
                seconds = client.wait(END + (5 if options else 0))
            said = f"{seconds} s, status {client.process.returncode}: {client.said()}"
            fine = seconds is not None and client.process.returncode == status
            self.context.check(f"{name} ends it under a flood", fine, said)
            if not fine:
                continue
            report = json.loads(client.output)
            flooded = report["from_linux_packets"] > 1000
            self.context.check(f"{name}: there was a flood", flooded, client.output)
            whole = packets_of(capture) == report["captured_packets"]
            self.context.check(f"{name}: the capture is whole", whole, client.output)
            told = "was deleted" in client.said()
            self.context.check(f"{name}: its cause is told", told == bool(status), client.said())
        client = Client(self, "--mtu 1500")
        client.start()
        self.context.setup(*delete)
        fine = client.wait(END) is not None and "was deleted" in client.said()
        self.context.check("a deleted device ends it at rest", fine, client.said())

    def what_cannot_be_used_is_refused(self):
        near = self.network.near
        for name, mode in (("tun0", "tun"), ("tap1", "tap"), ("many0", "tap")):
            more = ["multi_queue"] if name == "many0" else []
            self.network.ip("-n", near, "tuntap", "add", name, "mode", mode, *more)
        # Where anybody may run it.
        program = shutil.copy(self.program, self.folder)
        self.folder.chmod(0o755)
        nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
        with Client(self, "--mtu 1500"):
            for name, user, cause in (
                ("veth0", (), "no TAP device"),
                ("tun0", (), "a TUN device"),
                ("many0", (), "several queues"),
                ("tap0", (), "another program uses"),
                ("tap1", nobody, "no right to use"),
                ("tap2", nobody, "no right to make"),
            ):
                said = self.try_run(near, *user, program, "--tap", name, "--seconds", "1")
                fine = f"error: --tap {name}: " in said and cause in said
                self.context.check(f"--tap {name}: {cause}", fine, said)

    def try_run(self, name, *words):
        """Output of a command in a namespace that may fail."""
        words = ("ip", "netns", "exec", name, *map(str, words))
        return self.context.status_and_output(*words)[1]


def packets_of(capture):
    """How many packets a pcap file has; None if the last is not whole."""
    content = capture.read_bytes()
    position, packets = 24, 0
    while position + 16 <= len(content):
        (kept,) = struct.unpack_from("<I", content, position + 8)
        position += 16 + kept
        packets += 1
    return packets if position == len(content) else None


class Flood:
    """All that Linux can send to the client, and what it answers, without a pause."""

    def __init__(self, lab):
        self.lab = lab
        self.processes = []

    def __enter__(self):
        download = f"while :; do curl -s -m 20 -o /dev/null http://{CLIENT}/1000000000; done"
        for words in (
            ("ping", "-f", "-s", "1400", CLIENT),
            ("hping3", "--udp", "-p", "9", "--flood", "-d", "1000", CLIENT),
            ("sh", "-c", download),
        ):
            self.processes.append(subprocess.Popen(
                ["ip", "netns", "exec", self.lab.network.near, *words], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            ))  # fmt: skip

    def __exit__(self, *_):
        for process in self.processes:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Client:
    """The program on tap0 in `near`, from the first ping that it answers on."""

    def __init__(self, lab, options):
        self.lab = lab
        self.options = options
        self.output = self.report = None

    def start(self):
        lab = self.lab
        words = ["ip", "netns", "exec", lab.network.near, lab.program, "--tap", "tap0", "--json"]
        self.errors = (lab.folder / "errors").open("w+")
        self.process = subprocess.Popen(
            [*words, *self.options.split()], stdout=subprocess.PIPE, stderr=self.errors, text=True,
        )  # fmt: skip
        end = time.monotonic() + START
        while " 1 received" not in lab.try_run(
            lab.network.near, "ping", "-c", "1", "-W", "1", CLIENT
        ):
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise StepError(f"netfront-sim --tap {self.options}: no answer; {self.said()}")
            time.sleep(0.1)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, limit):
        """How many seconds it takes to end; None, and it is killed, if that is too long."""
        started = time.monotonic()
        try:
            self.output, _ = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.output, _ = self.process.communicate()
            return None
        return round(time.monotonic() - started, 1)

    def said(self):
        return Path(self.errors.name).read_text()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.signal(signal.SIGINT)
        if self.wait(END) is None:
            raise StepError(f"netfront-sim --tap {self.options} does not end")
        if self.process.returncode != 0:
            raise StepError(f"netfront-sim --tap {self.options} failed: {self.output}{self.said()}")
        self.report = json.loads(self.output)
        self.lab.context.check(f"{self.options}: ok", self.report["ok"], self.output)
