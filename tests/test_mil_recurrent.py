"""Recurrent layers give what PyTorch's give, and what coremltools' own tests expect of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from phoneward.errors import EngineError
from phoneward.runtime.engines.mil.numerics import Numerics
from tests.mil_ops import run

relaxed = settings(max_examples=25, deadline=None, derandomize=True)
Arrays = NDArray[np.float32]
sizes = st.tuples(*(st.integers(1, 4) for _ in range(4)))

ACTIVATIONS: dict[str, Any] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "hard_sigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
    "tanh": np.tanh,
    "scaled_tanh": np.tanh,
}
names = st.sampled_from(sorted(ACTIVATIONS))
# others let a state grow beyond all bounds
gates = st.sampled_from(["sigmoid", "hard_sigmoid", "tanh"])


def normal(*shape: int) -> Arrays:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def close(results: list[Any], right: tuple[Any, ...], near: float = 1e-5) -> None:
    assert len(results) == len(right)
    for result, wanted in zip(results, right, strict=True):
        values = wanted.detach() if isinstance(wanted, Tensor) else wanted
        np.testing.assert_allclose(result, values, rtol=near, atol=near)


def ordered(parameter: Tensor, gates: str, order: str) -> Arrays:
    """A weight of PyTorch, its gates in another order."""
    parts = dict(zip(gates, parameter.detach().chunk(len(gates)), strict=True))
    return torch.cat([parts[gate] for gate in order]).numpy()


@relaxed
@given(
    size=sizes, kind=st.sampled_from(["tanh", "relu"]), reverse=st.booleans(), every=st.booleans()
)
def test_rnn(size: tuple[int, ...], kind: str, reverse: bool, every: bool) -> None:
    steps, batch, width, hidden = size
    torch.manual_seed(0)
    layer = torch.nn.RNN(width, hidden, nonlinearity=kind)
    x, h = normal(steps, batch, width), normal(batch, hidden)
    options = {
        "weight_ih": layer.weight_ih_l0.detach().numpy(),
        "weight_hh": layer.weight_hh_l0.detach().numpy(),
        "bias": (layer.bias_ih_l0 + layer.bias_hh_l0).detach().numpy(),
        "direction": "reverse" if reverse else "forward",
        "activation": kind,
        "output_sequence": every,
    }
    results = run(lambda x, h: mb.rnn(x=x, initial_h=h, **options), {"x": x, "h": h})
    inputs = torch.from_numpy(x).flip(0) if reverse else torch.from_numpy(x)
    states, last = layer(inputs, torch.from_numpy(h)[None])
    close(results, (states if every else states[-1:], last[0]))


@relaxed
@given(size=sizes, reverse=st.booleans(), every=st.booleans(), bias=st.booleans())
def test_lstm(size: tuple[int, ...], reverse: bool, every: bool, bias: bool) -> None:
    steps, batch, width, hidden = size
    torch.manual_seed(0)
    layer = torch.nn.LSTM(width, hidden, bias=bias)
    x, h, c = normal(steps, batch, width), normal(batch, hidden), normal(hidden, batch).T
    options: dict[str, Any] = {
        "weight_ih": ordered(layer.weight_ih_l0, "ifzo", "ifoz"),
        "weight_hh": ordered(layer.weight_hh_l0, "ifzo", "ifoz"),
        "direction": "reverse" if reverse else "forward",
        "output_sequence": every,
    }
    if bias:
        options["bias"] = ordered(layer.bias_ih_l0 + layer.bias_hh_l0, "ifzo", "ifoz")
    given = {"x": x, "h": h, "c": np.ascontiguousarray(c)}
    results = run(lambda x, h, c: mb.lstm(x=x, initial_h=h, initial_c=c, **options), given)
    inputs = torch.from_numpy(x).flip(0) if reverse else torch.from_numpy(x)
    start = (torch.from_numpy(h)[None], torch.from_numpy(given["c"])[None])
    states, (last, memory) = layer(inputs, start)
    close(results, (states if every else states[-1:], last[0], memory[0]))


@relaxed
@given(size=sizes, every=st.booleans())
def test_bidirectional_lstm(size: tuple[int, ...], every: bool) -> None:
    steps, batch, width, hidden = size
    torch.manual_seed(0)
    layer = torch.nn.LSTM(width, hidden, bidirectional=True)
    given = {"x": normal(steps, batch, width)}
    given |= {"h": normal(batch, 2 * hidden), "c": normal(batch, 2 * hidden) * 0.5}
    options: dict[str, Any] = {"direction": "bidirectional", "output_sequence": every}
    for suffix, theirs in (("", "l0"), ("_back", "l0_reverse")):
        for name in ("weight_ih", "weight_hh"):
            weight = getattr(layer, f"{name}_{theirs}")
            options[name + suffix] = ordered(weight, "ifzo", "ifoz")
        total = getattr(layer, f"bias_ih_{theirs}") + getattr(layer, f"bias_hh_{theirs}")
        options["bias" + suffix] = ordered(total, "ifzo", "ifoz")
    results = run(lambda x, h, c: mb.lstm(x=x, initial_h=h, initial_c=c, **options), given)
    start = [torch.stack(torch.from_numpy(given[name]).chunk(2, -1)) for name in "hc"]
    states, (last, memory) = layer(torch.from_numpy(given["x"]), tuple(start))
    ends = torch.cat(list(last), -1)
    close(results, (states if every else ends[None], ends, torch.cat(list(memory), -1)))


@relaxed
@given(size=sizes, kinds=st.tuples(names, names, names), clip=st.sampled_from([50.0, 0.2, 0.01]))
def test_lstm_with_peepholes(size: tuple[int, ...], kinds: tuple[str, ...], clip: float) -> None:
    steps, batch, width, hidden = size
    x, h, c = normal(steps, batch, width), normal(batch, hidden), np.zeros((batch, hidden))
    weights, states = normal(4 * hidden, width), normal(4 * hidden, hidden)
    bias, holes = normal(4 * hidden), normal(3 * hidden)
    options = {"weight_ih": weights, "weight_hh": states, "bias": bias, "peephole": holes}
    options |= {"clip": np.float32(clip), "recurrent_activation": kinds[0]}
    options |= {"cell_activation": kinds[1], "activation": kinds[2]}
    given = {"x": x, "h": h, "c": c.astype(np.float32)}
    results = run(lambda x, h, c: mb.lstm(x=x, initial_h=h, initial_c=c, **options), given)
    gate, cell, out = (ACTIVATIONS[kind] for kind in kinds)
    p_i, p_f, p_o = np.split(holes, 3)
    for now in x:
        i, f, o, z = np.split(now @ weights.T + h @ states.T + bias, 4, -1)
        c = np.clip(c * gate(f + c * p_f) + gate(i + c * p_i) * cell(z), -clip, clip)
        h = gate(o + c * p_o) * out(c)
    close(results, (h[None], h, c), near=1e-4)


@relaxed
@given(size=sizes, reverse=st.booleans(), every=st.booleans(), kinds=st.tuples(gates, names))
def test_gru(size: tuple[int, ...], reverse: bool, every: bool, kinds: tuple[str, str]) -> None:
    # the state is reset before the product, as coremltools' tests have it and not its docstring
    steps, batch, width, hidden = size
    x, h = normal(steps, batch, width), normal(batch, hidden)
    weights, states, bias = (
        normal(3 * hidden, width),
        normal(3 * hidden, hidden),
        normal(3 * hidden),
    )
    options: dict[str, Any] = {"weight_ih": weights, "weight_hh": states, "bias": bias}
    options |= {"recurrent_activation": kinds[0], "activation": kinds[1]}
    options |= {"direction": "reverse" if reverse else "forward", "output_sequence": every}
    results = run(lambda x, h: mb.gru(x=x, initial_h=h, **options), {"x": x, "h": h})
    gate, activate = (ACTIVATIONS[kind] for kind in kinds)
    w_r, w_o, w_z = np.split(weights, 3)
    s_r, s_o, s_z = np.split(states, 3)
    b_r, b_o, b_z = np.split(bias, 3)
    kept = []
    for now in x[::-1] if reverse else x:
        z = gate(now @ w_z.T + h @ s_z.T + b_z)
        r = gate(now @ w_r.T + h @ s_r.T + b_r)
        h = (1 - z) * activate(now @ w_o.T + (r * h) @ s_o.T + b_o) + z * h
        kept.append(h)
    close(results, (np.stack(kept) if every else h[None], h), near=1e-4)


@relaxed
@given(size=sizes)
def test_gru_that_resets_after_is_pytorchs(size: tuple[int, ...]) -> None:
    steps, batch, width, hidden = size
    torch.manual_seed(0)
    layer = torch.nn.GRU(width, hidden)
    x, h = normal(steps, batch, width), normal(batch, hidden)
    options = {
        "weight_ih": ordered(layer.weight_ih_l0, "rzn", "rnz"),
        "weight_hh": ordered(layer.weight_hh_l0, "rzn", "rnz"),
        "input_bias": ordered(layer.bias_ih_l0, "rzn", "rnz"),
        "bias": ordered(layer.bias_hh_l0, "rzn", "rnz"),
    }
    results = run(
        lambda x, h: mb.gru(x=x, initial_h=h, reset_after=True, output_sequence=True, **options),
        {"x": x, "h": h},
    )
    states, last = layer(torch.from_numpy(x), torch.from_numpy(h)[None])
    close(results, (states, last[0]))


@pytest.mark.parametrize("op", ["rnn", "gru", "lstm"])
def test_half_sums(op: str) -> None:
    number, wide = {"rnn": 1, "gru": 3, "lstm": 4}[op], 40
    x, h = normal(6, 2, wide).astype(np.float16), normal(2, 5).astype(np.float16)
    options = {"weight_ih": normal(number * 5, wide).astype(np.float16)}
    options["weight_hh"] = normal(number * 5, 5).astype(np.float16)
    given = {"x": x, "h": h} | ({"c": h} if op == "lstm" else {})
    starts = ("initial_h", "initial_c")
    body = lambda x, *start: getattr(mb, op)(  # noqa: E731
        x=x, **dict(zip(starts, start, strict=False)), **options
    )
    exact = run(body, given)
    rounded = run(body, given, numerics=Numerics.HALF_SUMS)
    assert len(exact) == (3 if op == "lstm" else 2)
    for result, right in zip(rounded, exact, strict=True):
        assert 0 < (result - right).abs().max() < 0.2


def test_an_unknown_activation_is_named() -> None:
    x, h, weights = normal(2, 1, 3), normal(1, 2), normal(2, 3)
    options = {"weight_ih": weights, "weight_hh": normal(2, 2), "activation": "softsign"}
    with pytest.raises(EngineError, match="no activation 'softsign'"):
        run(lambda x, h: mb.rnn(x=x, initial_h=h, **options), {"x": x, "h": h})
