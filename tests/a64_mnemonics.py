"""The class of an A64 instruction from how a disassembler writes it: an oracle for the decoder."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

OBJDUMP = "aarch64-linux-gnu-objdump"
MISSING = None if shutil.which(OBJDUMP) else f"{OBJDUMP} is not installed"

_LINE = re.compile(r"^ *[0-9a-f]+:\t([0-9a-f]{8}) \t(\S+)(?:\t([^/]*))?")

_BRANCH = re.compile(r"(b|bl|br|blr|ret|cbz|cbnz|tbz|tbnz|b\.\w+|bc\.\w+|(bra|blra|reta)[ab]?z?)")
_SYSTEM = re.compile(
    r"(svc|hvc|smc|brk|hlt|nop|hint|yield|wfe|wfi|sevl?|csdb|esb|psb|dgh|d[ms]b|isb|ssbb|pssbb|sb"
    r"|clrex|smst(art|op)|msr|mrs|sysl?|dc|ic|at|tlbi|bti|(pac|aut)i[ab](sp|z|1716)|xpaclri|wfet|wfit|tcommit"
    r"|tstart|ttest|tcancel|cfinv|[ax]aflag|dcps[123]|cfp|dvp|cpp)"
)
_OTHER = re.compile(
    r"(udf|\.inst|cpy\w+|set[gpme]\w*|stz?2?g|ldgm?|stgm|stzgm|stgp|st64bv?0?|ld64b|\(bad\))"
)
_ATOMIC = re.compile(r"(casp?|swp|(ld|st)(add|clr|eor|set|[su]max|[su]min))(a?l?)[bh]?")
_STRUCTURE = re.compile(r"(ld|st)[1-4]r?")
_FMLA = re.compile(r"fml[as]")
_LONG = re.compile(r"fml[as]l2?")
_DOT = re.compile(r"(s|u|us|su)dot")
_MMLA = re.compile(r"(s|u|us)mmla")
_BF16 = re.compile(r"bf(mmla|dot|mlal[bt])")
_MLA = re.compile(r"(ml[as]|mul|[su]ml[as]l2?|[su]mull2?|sqdml[as]l2?|sqdmull2?)")
_REGISTER = re.compile(r"[bhsdq]\d{1,2}")
_VECTOR = re.compile(r"\{?\s*v\d+\.")
# on scalars, yet of Advanced SIMD: these, and conversions that stay in its registers
_SIMD_ON_SCALARS = re.compile(
    r"fabd|fmulx|frecp\w|frsqrt\w|fcm(eq|g[et]|l[et])|fac(g[et]|l[et])|fcvtxn"
)
_CONVERSION = re.compile(r"[su]cvtf|fcvt[anmpz][su]")
_SCALABLE = re.compile(r"((cnt|inc|dec)[bhwd]|add(s?vl|s?pl)|rds?vl)")
# what binutils 2.40 does not know yet of SVE and SME, which have these parts of the encodings
_UNKNOWN, _SME, _SVE = ".inst", 0x80000000, 0x04000000


def disassemble(path: Path) -> dict[int, str]:
    """Every instruction of a library's code, once, and the class that its text tells."""
    command = [OBJDUMP, "-d", "--section=.text", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for match in map(_LINE.match, text.splitlines()):
        if match:
            word = int(match[1], 16)
            new = word & 0x9E000000 == _SME or word & 0x1E000000 == _SVE
            known = class_of(match[2], (match[3] or "").strip())
            found[word] = "scalable" if match[2] == _UNKNOWN and new else known
    return found


def class_of(mnemonic: str, operands: str) -> str:
    """Return the class's name in the plugin's words."""
    operands = re.sub(r"<.*", "", operands)
    first = operands.split(",")[0].strip()
    if re.search(r"\b[zp]\d+\b|\bza\b", operands) or _SCALABLE.fullmatch(mnemonic):
        return "scalable"
    for pattern, name in ((_BRANCH, "branch"), (_SYSTEM, "system"), (_OTHER, "other")):
        if pattern.fullmatch(mnemonic):
            return name
    if mnemonic in {"prfm", "prfum"}:
        return "prefetch"
    if _ATOMIC.fullmatch(mnemonic):
        return "atomic"
    side = "load" if mnemonic.startswith("ld") else "store"
    if _STRUCTURE.fullmatch(mnemonic):
        return f"vector_{side}"
    if re.fullmatch(r"(ld|st)(n?p|psw|u?r\w*|a\w*|x\w*|l\w*|tr\w*)", mnemonic):
        return f"vector_{side}" if _REGISTER.fullmatch(first) else side
    return _computes(mnemonic, operands, first)


def _computes(mnemonic: str, operands: str, first: str) -> str:
    if _VECTOR.match(first) or (_VECTOR.search(operands) and _REGISTER.match(first)):
        return _multiplies(mnemonic, first) if _VECTOR.search(operands) else "simd"
    registers = [text for text in operands.split(",") if _REGISTER.fullmatch(text.strip())]
    if _VECTOR.search(operands):
        return "float" if mnemonic == "fmov" else "simd"
    if not registers:
        return "integer"
    if _CONVERSION.fullmatch(mnemonic):
        return "simd" if operands.count(",") + 1 == len(registers) else "float"
    scalar = mnemonic.startswith(("f", "bfcvt")) and not _SIMD_ON_SCALARS.fullmatch(mnemonic)
    return "float" if scalar else "simd"


def _multiplies(mnemonic: str, first: str) -> str:
    if not _VECTOR.match(first):
        return "simd"  # a scalar times an element
    for pattern, name in ((_DOT, "sdot"), (_MMLA, "smmla"), (_BF16, "bf16"), (_MLA, "mla")):
        if pattern.fullmatch(mnemonic):
            return name
    if _LONG.fullmatch(mnemonic) or (_FMLA.fullmatch(mnemonic) and re.match(r"v\d+\.[48]h", first)):
        return "fmla_half"
    return "fmla" if _FMLA.fullmatch(mnemonic) else "simd"
