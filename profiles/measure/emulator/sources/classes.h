/* A64 instructions by class, from their encoding (Arm ARM DDI 0487, section C4.1).
 *
 * Each instruction has exactly one class. The classes that multiply and accumulate are kept apart
 * by the number of products an instruction makes, so that a count can be held against a model's
 * multiply-accumulates.
 */
#ifndef PHONEWARD_CLASSES_H
#define PHONEWARD_CLASSES_H

#include <stdint.h>

enum class_of_insn {
    FMLA,         /* vector, single precision (or double): 4 products in 128 bits */
    FMLA_HALF,    /* vector, half precision: 8; with fmlal, which widens: 4 */
    BF16,         /* bfmmla, bfdot, bfmlal */
    DOT,          /* sdot, udot, usdot, sudot: 16 */
    MMLA,         /* smmla, ummla, usmmla: 32 */
    MLA,          /* integer vector multiply, long or not, with or without accumulation */
    SIMD,         /* what else Advanced SIMD computes or moves, cryptography included */
    FLOAT,        /* scalar floating point */
    VECTOR_LOAD,  /* to SIMD and floating-point registers of any width */
    VECTOR_STORE,
    LOAD,
    STORE,
    ATOMIC,       /* read-modify-write in one instruction; exclusives are loads and stores */
    PREFETCH,
    INTEGER,      /* on general registers, addresses included */
    BRANCH,
    SYSTEM,       /* system registers, barriers, hints, exceptions */
    SCALABLE,     /* SVE and SME, of which no kind is told apart */
    OTHER,        /* unallocated, memory tags and memory copies */
    CLASSES
};

static const char *const class_names[CLASSES] = {
    "fmla", "fmla_half", "bf16", "sdot", "smmla", "mla", "simd", "float", "vector_load",
    "vector_store", "load", "store", "atomic", "prefetch", "integer", "branch", "system",
    "scalable", "other",
};

static inline uint32_t bits(uint32_t insn, int high, int low)
{
    return insn >> low & ((1u << (high - low + 1)) - 1);
}

static inline enum class_of_insn direction(int vector, int is_load)
{
    if (vector) {
        return is_load ? VECTOR_LOAD : VECTOR_STORE;
    }
    return is_load ? LOAD : STORE;
}

/* Exclusive, ordered, compare-and-swap; vector structures. */
static inline enum class_of_insn exclusive_or_structure(uint32_t insn, int vector)
{
    int size = bits(insn, 31, 30), o2 = bits(insn, 23, 23), o1 = bits(insn, 21, 21);
    if (vector) {
        return bits(insn, 31, 31) ? OTHER : direction(1, bits(insn, 22, 22));
    }
    if (bits(insn, 24, 24)) {
        return OTHER;
    }
    if (o1 && (o2 || size < 2)) {
        return ATOMIC; /* cas; casp */
    }
    return direction(0, bits(insn, 22, 22));
}

/* One register: immediate or register offset, atomics, pointer authentication. */
static inline enum class_of_insn one_register(uint32_t insn, int vector)
{
    int size = bits(insn, 31, 30), opc = bits(insn, 23, 22);
    if (!bits(insn, 24, 24) && bits(insn, 21, 21) && bits(insn, 11, 10) != 2) {
        if (vector) {
            return OTHER;
        }
        if (bits(insn, 10, 10)) {
            return LOAD; /* ldraa, ldrab */
        }
        return bits(insn, 15, 12) == 0xc ? LOAD : ATOMIC; /* ldapr; ldadd, swp, ... */
    }
    if (vector) {
        return direction(1, opc & 1);
    }
    if (size == 3 && opc == 2) {
        return PREFETCH;
    }
    return direction(0, opc != 0);
}

static inline enum class_of_insn load_or_store(uint32_t insn)
{
    int vector = bits(insn, 26, 26), opc = bits(insn, 31, 30);
    switch (bits(insn, 29, 28)) {
    case 0:
        return exclusive_or_structure(insn, vector);
    case 1:
        if (!bits(insn, 24, 24)) { /* literal */
            return !vector && opc == 3 ? PREFETCH : direction(vector, 1);
        }
        if (vector || bits(insn, 21, 21) || bits(insn, 11, 10)) {
            return OTHER; /* memory tags, memory copies */
        }
        return direction(0, bits(insn, 23, 22) != 0); /* ldapur, stlur */
    case 2:
        return direction(vector, bits(insn, 22, 22)); /* pairs */
    default:
        return one_register(insn, vector);
    }
}

/* Three registers of one shape, half precision, or with dot products and matrices. */
static inline enum class_of_insn three_registers(uint32_t insn)
{
    int u = bits(insn, 29, 29), size = bits(insn, 23, 22), op5 = bits(insn, 15, 11);
    if (bits(insn, 21, 21) && bits(insn, 10, 10)) { /* three same */
        switch (u << 5 | op5) {
        case 0x19: return FMLA;              /* fmla, fmls */
        case 0x1d: return FMLA_HALF;         /* fmlal, fmlsl */
        case 0x39: return FMLA_HALF;         /* fmlal2, fmlsl2 */
        case 0x12: case 0x32: case 0x13: return MLA; /* mla, mls, mul */
        default: return SIMD;
        }
    }
    if (bits(insn, 21, 21) && bits(insn, 11, 10) == 0) { /* three different: long */
        int op4 = op5 >> 1;
        return op4 == 8 || op4 == 10 || op4 == 12 || (!u && (op4 == 9 || op4 == 11 || op4 == 13))
                   ? MLA : SIMD;
    }
    if (!bits(insn, 21, 21) && bits(insn, 10, 10) && bits(insn, 15, 15)) { /* extra */
        switch (op5 & 15) {
        case 2: return size == 2 ? DOT : SIMD;
        case 3: return size == 2 && !u ? DOT : SIMD;
        case 4: case 5: return size == 2 ? MMLA : SIMD;
        case 13: return size == 1 && u ? BF16 : SIMD; /* bfmmla */
        case 15: return u && (size & 1) ? BF16 : SIMD; /* bfdot, bfmlal */
        default: return SIMD;
        }
    }
    /* half precision: fmla, fmls */
    return bits(insn, 22, 21) == 2 && bits(insn, 15, 10) == 3 && !u ? FMLA_HALF : SIMD;
}

/* A vector times an element of another. */
static inline enum class_of_insn by_element(uint32_t insn)
{
    int u = bits(insn, 29, 29), size = bits(insn, 23, 22);
    switch (u << 4 | bits(insn, 15, 12)) {
    case 0x01: case 0x05: return size >= 2 ? FMLA : FMLA_HALF; /* fmla, fmls */
    case 0x00: case 0x04: return size == 2 ? FMLA_HALF : SIMD; /* fmlal, fmlsl */
    case 0x18: case 0x1c: return size == 2 ? FMLA_HALF : SIMD; /* fmlal2, fmlsl2 */
    case 0x02: case 0x06: case 0x0a: case 0x08: /* smlal, smlsl, smull, mul */
    case 0x03: case 0x07: case 0x0b: /* sqdmlal, sqdmlsl, sqdmull */
    case 0x10: case 0x14: case 0x12: case 0x16: case 0x1a: /* mla, mls, umlal, umlsl, umull */
        return MLA;
    case 0x0e: case 0x1e: return DOT; /* sdot, udot */
    case 0x0f: return size & 1 ? BF16 : DOT; /* bfdot, bfmlal; usdot, sudot */
    default: return SIMD;
    }
}

static inline enum class_of_insn simd_or_float(uint32_t insn)
{
    if (bits(insn, 28, 28)) {
        return bits(insn, 30, 30) ? SIMD : FLOAT; /* Advanced SIMD on scalars; scalars */
    }
    if (bits(insn, 31, 31)) {
        return SIMD; /* three-register cryptography */
    }
    if (!bits(insn, 24, 24)) {
        return three_registers(insn);
    }
    return bits(insn, 10, 10) ? SIMD : by_element(insn);
}

static inline enum class_of_insn classify(uint32_t insn)
{
    switch (bits(insn, 28, 25)) {
    case 0x0: return bits(insn, 31, 31) ? SCALABLE : OTHER;
    case 0x2: return SCALABLE;
    case 0x8: case 0x9: return INTEGER;
    case 0xa: case 0xb:
        return bits(insn, 31, 29) == 6 && !bits(insn, 25, 25) ? SYSTEM : BRANCH;
    case 0x4: case 0x6: case 0xc: case 0xe: return load_or_store(insn);
    case 0x5: case 0xd: return INTEGER;
    case 0x7: case 0xf: return simd_or_float(insn);
    default: return OTHER;
    }
}

#endif
