"""Requirement P5, on the guest images as built, optimised or not: our own hypercall stubs, no page
that Xen writes code into, and nothing both writable and executable. And no register that the
kernel does not keep for whom it interrupts."""

import itertools
import re

from runner import StepError

STUBS, STUB_SIZE = 128, 32
# Every stub, as disassembled: see guest/src/hypercall/stubs.rs.
STUB = ["mov eax,NUMBER", "cmp FLAG,0x0", "jne SECOND", "vmcall", "ret", "vmmcall", "ret"]
PAGE = "HYPERCALL_PAGE"
HYPERCALLS = ("vmcall", "vmmcall", "syscall", "sysenter")
# Of the FPU and of SIMD. (What `objdump` makes of a constant is no operand.)
UNKEPT = re.compile(r"\b(?:[xyz]?mm\d+|st\(\d\)|k[0-7])(?!\w)")


def check(context):
    for name, options in itertools.product(("echo", "backend"), ([], ["--debug"])):
        printed = context.output_of("scripts/image", *options, name).splitlines()
        if not printed:
            raise StepError(f"scripts/image {' '.join(options)} {name} printed no path")
        elf = printed[-1]
        context.passed()
        p5_nothing_both_writable_and_executable(context, elf)
        code = disassembly(context, elf)
        p5_stubs_hold_only_the_hypercall(context, elf, code)
        no_register_is_used_that_is_not_kept(context, code)
        if not options:
            # Which number goes where is plain only in optimised code.
            p5_msr_writes_are_known(context, code)


def no_register_is_used_that_is_not_kept(context, code):
    """A dependency that chooses code by what the processor has would choose such."""
    used = [f"{address:x}: {words}" for address, words in code if UNKEPT.search(words)]
    context.check("FPU and SIMD are left alone", not used, "; ".join(used[:5]))


def p5_nothing_both_writable_and_executable(context, elf):
    headers = context.output_of("readelf", "-lW", elf)
    flags = re.findall(r"^ +LOAD +(?:0x[0-9a-f]+ +){5}(R?) ?(W?) ?(E?) ", headers, re.MULTILINE)
    context.check("the image has code and data apart", len(flags) >= 2, headers)
    both = [flag for flag in flags if "W" in flag and "E" in flag]
    context.check("a segment is writable and executable", not both, headers)


def disassembly(context, elf):
    """[(address, instruction)], comments and names of addresses left out."""
    text = context.output_of("objdump", "-d", "-M", "intel", "--no-show-raw-insn", elf)
    lines = re.findall(r"^ *([0-9a-f]+):\t([^#<\n]*)", text, re.MULTILINE)
    return [(int(address, 16), " ".join(words.split())) for address, words in lines]


def p5_stubs_hold_only_the_hypercall(context, elf, code):
    symbols = context.output_of("nm", elf)
    found = re.search(rf"^([0-9a-f]+) [Tt] {PAGE}$", symbols, re.MULTILINE)
    if not found:
        context.fail(f"{PAGE} is not in the code of the image")
        return
    page = int(found[1], 16)
    end = page + STUBS * STUB_SIZE
    context.check(f"{PAGE} is page-aligned", page % 4096 == 0, hex(page))
    stubs = [[] for _ in range(STUBS)]
    outside = []
    for address, words in code:
        if page <= address < end:
            stubs[(address - page) // STUB_SIZE].append((address, words))
        elif words.split()[:1] and words.split()[0] in HYPERCALLS:
            outside.append(f"{address:x}: {words}")
    wrong = [number for number, stub in enumerate(stubs) if not is_stub(number, stub)]
    context.check(
        "a stub holds something else than its hypercall", not wrong,
        f"{wrong}: {stubs[wrong[0]] if wrong else ''}",
    )  # fmt: skip
    context.check("a hypercall outside of the stubs", not outside, "; ".join(outside))


def is_stub(number, stub):
    words = [words for _, words in stub if "nop" not in words.split()]
    if len(words) != len(STUB):
        return False
    words[0] = words[0].replace(f"{number:#x}", "NUMBER")
    words[1] = re.sub(r"BYTE PTR \[rip\+0x[0-9a-f]+\]", "FLAG", words[1])
    words[2] = words[2].replace(f"{stub[5][0]:x}", "SECOND")
    return words == STUB


def p5_msr_writes_are_known(context, code):
    """The MSR by which Xen offers to write a page of stubs has a number from 0x40000000 on, told
    by CPUID. So every write of an MSR has to name, shortly before, a number that is another."""
    bad = []
    for index, (address, words) in enumerate(code):
        if words != "wrmsr":
            continue
        numbers = [
            int(found[1], 16)
            for _, before in code[max(index - 8, 0) : index]
            if (found := re.fullmatch(r"mov ecx,0x([0-9a-f]+)", before))
        ]
        if not numbers or 0x4000_0000 <= numbers[-1] < 0x5000_0000:
            bad.append(f"{address:x}")
    context.check("an MSR is written that may be Xen's", not bad, ", ".join(bad))
