"""What a bench has measured, and the table of ratios made of it.

dom0 says values, one a line: round, image, name, value. A row of the table makes one value
of those of an image's round, and a ratio of ours by Linux's for every round:

    round 1   echo  tcp_in.bytes, tcp_in.cpu, ...  ->  bytes per CPU second  ┐
              linux tcp_in.bytes, tcp_in.cpu, ...  ->  bytes per CPU second  ┴ ours / Linux
    round 2   ...                                                              ours / Linux
                                                                      median, least to most

There are ratios only: times under emulation say nothing about another machine.
"""

import math
import statistics
from dataclasses import dataclass
from typing import Callable

# What ours is compared with.
LINUX = "linux"
# A ratio beyond is no measurement but an error.
LARGEST_RATIO = 1e4


@dataclass
class Row:
    name: str
    # Of the values of an image's round.
    value: Callable
    # "≥ 2": what the ratio is wanted to be; "" if neither more nor less is better.
    aim: str
    # Of one round only: that it is there once is enough.
    once: bool = False

    def reached(self, ratio):
        sign, _, limit = self.aim.partition(" ")
        return not sign or (ratio >= float(limit) if sign == "≥" else ratio <= float(limit))


def per(name, what, of):
    """What a transfer has taken of one thing for each of another."""
    return lambda values: values[f"{name}.{what}"] / values[f"{name}.{of}"]


def one(name):
    return lambda values: values[name]


def events(name, way):
    """Events per packet on the vif, both directions taken together."""
    return lambda values: values[f"{name}.events_to_{way}"] / (
        values[f"{name}.in_packets"] + values[f"{name}.out_packets"]
    )


ROWS = [
    Row("TCP in, bytes per second", per("tcp_in", "bytes", "seconds"), "≥ 1"),
    Row("TCP out, bytes per second", per("tcp_out", "bytes", "seconds"), "≥ 1"),
    Row("TCP in, bytes per guest CPU second", per("tcp_in", "bytes", "cpu"), "≥ 2"),
    Row("TCP out, bytes per guest CPU second", per("tcp_out", "bytes", "cpu"), "≥ 2"),
    Row("UDP echo of 64 bytes, datagrams per second", per("udp", "packets", "seconds"), "≥ 1"),
    Row("UDP echo, guest CPU per datagram", per("udp", "cpu", "packets"), "≤ 1"),
    Row("ping, round trip", one("ping.median"), "≤ 1"),
    Row("TCP in, bytes per packet", per("tcp_in", "in_bytes", "in_packets"), ""),
    Row("TCP out, bytes per packet", per("tcp_out", "out_bytes", "out_packets"), ""),
    Row("TCP in, events to the guest per packet", events("tcp_in", "guest"), "≤ 1"),
    Row("TCP in, events to netback per packet", events("tcp_in", "dom0"), "≤ 1"),
    Row("TCP out, events to the guest per packet", events("tcp_out", "guest"), "≤ 1"),
    Row("TCP out, events to netback per packet", events("tcp_out", "dom0"), "≤ 1"),
    Row("UDP echo, events to the guest per packet", events("udp", "guest"), "≤ 1"),
    Row("UDP echo, events to netback per packet", events("udp", "dom0"), "≤ 1"),
    Row("first ping after `xl unpause`", one("boot.seconds"), "≤ 0.1"),
]
# Of a backend domain that a Linux guest is served by: "in" is to that guest, "out" from it.
BACKEND_ROWS = [
    Row("TCP to the client, bytes per second", per("tcp_in", "bytes", "seconds"), "≥ 1"),
    Row("TCP from the client, bytes per second", per("tcp_out", "bytes", "seconds"), "≥ 1"),
    Row("TCP to the client, bytes per backend CPU second", per("tcp_in", "bytes", "cpu"), "≥ 1"),
    Row("TCP from the client, bytes per backend CPU second", per("tcp_out", "bytes", "cpu"), "≥ 2"),
    Row("UDP echo of 64 bytes, datagrams per second", per("udp", "packets", "seconds"), "≥ 1"),
    Row("UDP echo, backend CPU per datagram", per("udp", "cpu", "packets"), "≤ 1"),
    Row("ping, round trip", one("ping.median"), "≤ 1"),
    Row("TCP to the client, bytes per packet", per("tcp_in", "in_bytes", "in_packets"), ""),
    Row("TCP from the client, bytes per packet", per("tcp_out", "out_bytes", "out_packets"), ""),
]
MEMORY = Row("least memory", one("memory.least"), "≤ 1", once=True)
SIZE = Row("size of the image", one("image.bytes"), "≤ 1", once=True)


class Values:
    """values[round][image][name]; what belongs to no round is in round 0. `ours` is the image
    that Linux is compared with."""

    def __init__(self, ours):
        self.images = (ours, LINUX)
        self.rounds = {}

    def add(self, number, image, name, value):
        self.rounds.setdefault(number, {}).setdefault(image, {})[name] = value

    def ratios(self, row):
        """Ours by Linux's, of every round that has both."""
        found = []
        for images in self.rounds.values():
            try:
                ours, linux = (row.value(images[image]) for image in self.images)
                found.append(ours / linux)
            except (KeyError, ZeroDivisionError):
                continue
        return found

    def is_sound(self, row, rounds):
        """Whether each round has a ratio for it, and one that can be."""
        ratios = self.ratios(row)
        return len(ratios) == (1 if row.once else rounds) and all(
            math.isfinite(ratio) and 1 / LARGEST_RATIO < ratio < LARGEST_RATIO for ratio in ratios
        )

    def all_crossed(self, number, image):
        """Whether what was moved was no more than what crossed the vif."""
        values = self.rounds.get(number, {}).get(image, {})
        return all(
            0 < values.get(f"{name}.bytes", 0) <= values.get(f"{name}.{way}_bytes", 0)
            for name, way in (("tcp_in", "in"), ("tcp_out", "out"))
        )


def table(values, rows):
    lines = ["| ours / Linux | median | least to most | aim | |", "|---|---|---|---|---|"]
    for row in rows:
        ratios = values.ratios(row)
        if not ratios:
            lines.append(f"| {row.name} | missing | | {row.aim} | |")
            continue
        median = statistics.median(ratios)
        spread = f"{short(min(ratios))} to {short(max(ratios))}" if len(ratios) > 1 else ""
        verdict = "behind" if not row.reached(median) else "reached" if row.aim else ""
        lines.append(f"| {row.name} | {short(median)} | {spread} | {row.aim} | {verdict} |")
    return "\n".join(lines)


def short(ratio):
    """Two digits behind the point, or as many as leave two that count."""
    return f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"
