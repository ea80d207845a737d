"""The main job, `cargo run --release`: what its JSON says, and how it takes nonsense."""

import json

SIDES = ("copies", "allocations", "hypercalls", "events", "grants", "clears")
FIELDS = [
    "ok", "bytes", "packets", "mbit_per_s", "linearised_bytes", "drops", "quarantined_pages",
    "reconnects", *(f"{end}_{what}_per_packet" for end in ("front", "back") for what in SIDES),
]  # fmt: skip
# What an honest run, once under way, does without.
ZERO = [
    "front_copies_per_packet", "front_allocations_per_packet", "front_hypercalls_per_packet",
    "back_copies_per_packet", "back_allocations_per_packet", "back_clears_per_packet",
]  # fmt: skip
RUN = ("cargo", "run", "--release", "--quiet", "--")


def check(context):
    # Built first, so that what the job prints is all there is.
    if not context.command("cargo", "build", "--release"):
        return
    honest = report(context)
    plain = report(context, "--no-gso")
    queues = report(context, "--queues", "4", "--split", "--domains", "2")
    hostile = report(context, "--hostile", "--queues", "2", "--trusted", "0")
    if honest:
        context.check("packets are large", honest["large_packets"] > 0, str(honest))
    if plain:
        # Segments that leave as one packet hide all headers but the first: those are cleared.
        context.check("pages are cleared for nobody", plain["front_clears_per_packet"] == 0)
    if queues:
        context.check("there are four queues", queues["queues"] == 4, str(queues))
    for run in filter(None, (honest, plain, queues)):
        context.check("data was moved", run["bytes"] > 0 and run["packets"] > 0)
        for field in ZERO:
            context.check(f"{field} is 0", run[field] == 0, str(run[field]))
        context.check("no reconnects without cause", run["reconnects"] == 0, str(run))
    if hostile:
        context.check(
            "a hostile backend made the device reconnect", hostile["reconnects"] > 0, str(hostile)
        )
    for nonsense in (["--no-such-option"], ["--bytes", "many"], ["--seconds"]):
        status, output = context.status_and_output(*RUN, *nonsense)
        named = nonsense[-1] in output
        context.check(
            f"nonsense is named, and exits 2: {' '.join(nonsense)}",
            status == 2 and named,
            f"exit status {status}, it said {output.strip()!r}",
        )


def report(context, *options):
    """The JSON object of a run, or None if there is no good one."""
    words = [*RUN, "--seconds", "2", "--json", *options]
    name = " ".join(words[4:])
    text = context.output_of(*words)
    try:
        found = json.loads(text)
    except ValueError as error:
        context.fail(f"{name}: stdout is not one JSON object: {error}")
        return None
    missing = [field for field in FIELDS if field not in found]
    context.check(f"{name}: all fields are there", not missing, f"missing {', '.join(missing)}")
    context.check(f"{name}: ok", found.get("ok") is True, text.strip())
    return None if missing else found
