"""The plugin's decoder, against the assembler and the disassembler of binutils."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phoneward.profiles.measure.emulator.sandbox import open_sandbox, sources
from tests.a64_mnemonics import MISSING, disassemble
from tests.qemu_emulator import needs_emulator, own_cache

_ASSEMBLER = "aarch64-linux-gnu-as"
_OBJCOPY = "aarch64-linux-gnu-objcopy"
needs_binutils = pytest.mark.skipif(
    MISSING is not None or shutil.which("cc") is None, reason=MISSING or "cc is not installed"
)

# an example of everything that a class is made of
KNOWN = {
    "fmla": """
        fmla v0.4s, v1.4s, v2.4s; fmla v0.2s, v1.2s, v2.2s; fmls v0.2d, v1.2d, v2.2d
        fmla v0.4s, v1.4s, v2.s[3]; fmls v0.2d, v1.2d, v2.d[1]""",
    "fmla_half": """
        fmla v0.8h, v1.8h, v2.8h; fmls v0.4h, v1.4h, v2.4h; fmla v0.8h, v1.8h, v2.h[7]
        fmlal v0.4s, v1.4h, v2.4h; fmlsl2 v0.4s, v1.4h, v2.4h; fmlal v0.4s, v1.4h, v2.h[1]
        fmlal2 v0.4s, v1.4h, v2.h[1]; fmlsl v0.4s, v1.4h, v2.h[1]""",
    "bf16": """
        bfmmla v0.4s, v1.8h, v2.8h; bfdot v0.4s, v1.8h, v2.8h; bfdot v0.4s, v1.8h, v2.2h[1]
        bfmlalb v0.4s, v1.8h, v2.8h; bfmlalt v0.4s, v1.8h, v2.h[3]""",
    "sdot": """
        sdot v0.4s, v1.16b, v2.16b; udot v0.2s, v1.8b, v2.8b; usdot v0.4s, v1.16b, v2.16b
        sdot v0.4s, v1.16b, v2.4b[3]; udot v0.4s, v1.16b, v2.4b[0]
        usdot v0.4s, v1.16b, v2.4b[1]; sudot v0.4s, v1.16b, v2.4b[2]""",
    "smmla": """
        smmla v0.4s, v1.16b, v2.16b; ummla v0.4s, v1.16b, v2.16b; usmmla v0.4s, v1.16b, v2.16b""",
    "mla": """
        mla v0.8h, v1.8h, v2.8h; mls v0.4s, v1.4s, v2.s[1]; mul v0.16b, v1.16b, v2.16b
        smlal v0.4s, v1.4h, v2.4h; smlal2 v0.4s, v1.8h, v2.h[7]; umlsl v0.8h, v1.8b, v2.8b
        smull v0.8h, v1.8b, v2.8b; umull2 v0.4s, v1.8h, v2.h[1]; mul v0.8h, v1.8h, v2.h[2]
        sqdmlal v0.4s, v1.4h, v2.4h; sqdmull v0.4s, v1.4h, v2.h[1]""",
    "simd": """
        fadd v0.4s, v1.4s, v2.4s; fmul v0.4s, v1.4s, v2.s[1]; fmul v0.8h, v1.8h, v2.8h
        sqrdmulh v0.4s, v1.4s, v2.4s; sqdmulh v0.8h, v1.8h, v2.h[1]; add v0.4s, v1.4s, v2.4s
        dup v0.4s, w1; umov w0, v1.b[3]; movi v0.4s, #0; sshll v0.8h, v1.8b, #0
        tbl v0.16b, {v1.16b}, v2.16b; zip1 v0.8h, v1.8h, v2.8h; addv s0, v1.4s
        fcvtzs s0, s1; add d0, d1, d2; fcmla v0.4s, v1.4s, v2.4s, #90; saddlp v0.8h, v1.16b
        aese v0.16b, v1.16b; sha1h s0, s1; eor3 v0.16b, v1.16b, v2.16b, v3.16b
        pmull v0.8h, v1.8b, v2.8b; bfcvtn v0.4h, v1.4s; sqrdmlah v0.4s, v1.4s, v2.4s""",
    "float": """
        fadd s0, s1, s2; fmadd d0, d1, d2, d3; fcmp s0, s1; fcvt h0, s1; fmov x0, d1
        fcvtzs w0, s1; scvtf s0, w1; fmov s0, #1.0; fcsel d0, d1, d2, ne; frintn s0, s1""",
    "vector_load": """
        ldr q0, [x1]; ldr s0, [x1, #4]!; ldp q0, q1, [x2], #32; ldur d0, [x1, #-8]
        ld1 {v0.16b}, [x1]; ld4 {v0.4s-v3.4s}, [x1], #64; ld1r {v0.4s}, [x1]; ldr b0, [x1, x2]
        ld1 {v0.s}[1], [x1], x2; ldr q0, .; ldnp d0, d1, [x2]""",
    "vector_store": """
        str q0, [x1]; stp d0, d1, [x2]; st1 {v0.8h, v1.8h}, [x1], x2; stur q0, [x1, #-16]
        st1 {v0.b}[7], [x1]; str h0, [x1], #2; str q0, [x1, x2, lsl #4]""",
    "load": """
        ldr x0, [x1]; ldrb w0, [x1, #1]; ldrsw x0, [x1, x2]; ldp x0, x1, [sp], #16; ldxr x0, [x1]
        ldar w0, [x1]; ldapr x0, [x1]; ldursb w0, [x1, #-1]; ldpsw x0, x1, [x2]; ldr x0, .
        ldaxp x0, x1, [x2]; ldtr x0, [x1]; ldapur w0, [x1, #4]; ldrsw x0, .""",
    "store": """
        str x0, [x1]; strh w0, [x1, #2]!; stp x0, x1, [sp, #-16]!; stxr w2, x0, [x1]
        stlr w0, [x1]; sturb w0, [x1, #-1]; stlxp w3, x0, x1, [x2]; stlur x0, [x1, #8]""",
    "atomic": """
        ldadd x0, x1, [x2]; swpal w0, w1, [x2]; cas x0, x1, [x2]; casp x0, x1, x2, x3, [x4]
        ldsetb w0, w1, [x2]; stclr x0, [x1]; ldumaxh w0, w1, [x2]; casalb w0, w1, [x2]""",
    "prefetch": """
        prfm pldl1keep, [x0]; prfm pldl1strm, [x0, x1]; prfum pstl1keep, [x0, #-4]
        prfm pldl2keep, .""",
    "integer": """
        add x0, x1, x2; sub w0, w1, #4; madd x0, x1, x2, x3; adrp x0, .; adr x0, .; mov x0, #1
        lsl x0, x1, #3; csel x0, x1, x2, eq; clz x0, x1; crc32b w0, w1, w2; ubfx x0, x1, #3, #4
        udiv x0, x1, x2; smulh x0, x1, x2; ccmp x0, #1, #0, ne; extr x0, x1, x2, #8""",
    "branch": """
        b .; bl .; b.ne .; cbz x0, .; tbnz w0, #3, .; br x0; blr x1; ret; retaa; braa x0, x1""",
    "system": """
        svc #0; mrs x0, nzcv; msr fpcr, x0; dmb ish; isb; nop; yield; hint #34; dc zva, x0
        brk #1; clrex; paciasp""",
    "scalable": """
        fmla z0.s, p0/m, z1.s, z2.s; ld1w {z0.s}, p0/z, [x0]; cntw x0; sdot z0.s, z1.b, z2.b""",
    "other": "udf #0; stg x0, [x1]; ldg x0, [x1]",
}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin's decoder as a program: instructions on standard input, a class a line."""
    folder = tmp_path_factory.mktemp("decoder")
    code = folder / "decoder.c"
    code.write_text(
        '#include <stdio.h>\n#include "classes.h"\n'
        "int main(void) { uint32_t insn; while (fread(&insn, 4, 1, stdin) == 1) "
        "puts(class_names[classify(insn)]); }"
    )
    checks = ("-Wall", "-Wextra", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover")
    include = f"-I{sources()[0].parent}"
    program = folder / "decoder"
    subprocess.run(["cc", *checks, "-O1", include, str(code), "-o", str(program)], check=True)
    return program


def classes(decoder: Path, words: list[int]) -> list[str]:
    done = subprocess.run(
        [str(decoder)],
        input=np.array(words, dtype="<u4").tobytes(),
        capture_output=True,
        check=True,
    )
    return done.stdout.decode().split()


@needs_binutils
@pytest.mark.parametrize("name", KNOWN)
def test_examples_of_each_class(name: str, decoder: Path, tmp_path: Path) -> None:
    lines = [line.strip() for line in KNOWN[name].replace(";", "\n").split("\n") if line.strip()]
    code, binary = tmp_path / "code.o", tmp_path / "code"
    options = ["-march=armv8.6-a+sve+memtag+crypto+sha3+fp16fml+bf16+i8mm", "-o", str(code), "-"]
    text = "\n".join(lines) + "\n"
    subprocess.run([_ASSEMBLER, *options], input=text, text=True, check=True)
    command = [_OBJCOPY, "-O", "binary", "-j", ".text", str(code), str(binary)]
    subprocess.run(command, check=True)
    words = np.fromfile(binary, dtype="<u4").tolist()
    found = dict(zip(lines, classes(decoder, words), strict=True))
    assert found == dict.fromkeys(lines, name)


@needs_binutils
@needs_emulator
@pytest.mark.parametrize(
    "library",
    ["libexecutorch_backend_xnnpack.so", pytest.param("libLiteRt.so", marks=pytest.mark.matrix)],
)
def test_every_instruction_of_the_engines_kernels(
    library: str, decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHONEWARD_CACHE", str(tmp_path))
    own_cache(tmp_path)
    expected = disassemble(open_sandbox("qemu").runner("litert").with_name(library))
    found = dict(zip(expected, classes(decoder, list(expected)), strict=True))
    wrong = {hex(w): (k, found[w]) for w, k in expected.items() if found[w] != k}
    assert not wrong, dict(list(wrong.items())[:20])
    counts = Counter(found.values())
    assert len(expected) > 100_000
    assert all(counts[name] > 100 for name in ("fmla", "fmla_half", "sdot", "smmla", "mla"))


@needs_binutils
@given(words=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=1000))
def test_anything_at_all_has_a_class(decoder: Path, words: list[int]) -> None:
    found = classes(decoder, words)
    assert len(found) == len(words)
    assert set(found) <= set(KNOWN)
