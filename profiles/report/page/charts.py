"""Charts as SVG that takes its colours and fonts from the page it stands in.

Nothing of a report's text goes into a chart: names stand in the page beside it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from phoneward.profiles.report.schema import Window
from phoneward.profiles.report.statistics import percentile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# drawn in these and then replaced by the page's own, which differ in light and dark
_COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--grid)",
    "#040404": "var(--measured)",
    "#050505": "var(--predicted)",
    "#060606": "var(--accent)",
}
INK, MUTED, GRID, MEASURED, PREDICTED, ACCENT = _COLOURS
_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.parse_math": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
}
# inches; one point is one pixel of a phone's page at 390 pixels
_SIZE = (4.75, 2.3)
_TALL = (4.75, 3.3)
_NUMBERED = re.compile(r' id="[A-Za-z0-9.]+_[0-9]+"')
_PROLOGUE = re.compile(r"^.*?(?=<svg)", re.DOTALL)
_METADATA = re.compile(r" <metadata>.*?</metadata>\n", re.DOTALL)
_STYLES = re.compile(r" <defs>\n  <style.*?</style>\n </defs>\n", re.DOTALL)
_FONTS = re.compile(r" font-family: [^;]*;")
_SIZES = re.compile(r' (?:width|height)="[0-9.]+pt"')


def distribution(samples_ns: Sequence[int], title: str, name: str) -> str:
    """Draw how often which duration occurs, with p50, p90 and p99 as lines."""
    from matplotlib.ticker import MaxNLocator

    def draw(axes: Axes) -> None:
        values = np.asarray(samples_ns, np.float64) / 1e6
        # one straggler would squeeze all the others into a single bar
        last = 1.25 * percentile(list(values), 99)
        shown = values[values <= last]
        bins = min(40, max(8, round(len(shown) ** 0.5 * 2)))
        axes.hist(shown, bins=bins, color=MEASURED, linewidth=0)
        axes.grid(axis="x", visible=False)
        # room for the labels above the bars
        top = 1.25 * axes.get_ylim()[1]
        for percent, height in ((50, 1.0), (90, 0.9), (99, 0.8)):
            value = percentile(list(values), percent)
            axes.axvline(value, ymax=height, color=INK, linewidth=1)
            axes.annotate(
                f"p{percent}",
                (value, top * height),
                xytext=(3, -1),
                textcoords="offset points",
                va="top",
                color=INK,
                fontsize=9.5,
            )
        axes.set_ylim(0, top)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel("ms")
        axes.set_ylabel("inferences")

    return _svg(draw, title, name)


def sustained(windows: Sequence[Window], title: str, name: str) -> str:
    """Draw p50 over the time of a sustained run, and the band from there to p99."""

    def draw(axes: Axes) -> None:
        scale, unit = (60e9, "minutes") if windows[-1].start_ns > 180e9 else (1e9, "seconds")
        at = [window.start_ns / scale for window in windows]
        p50, p90, p99 = (
            [getattr(window, key) / 1e6 for window in windows]
            for key in ("p50_ns", "p90_ns", "p99_ns")
        )
        axes.fill_between(at, p50, p99, color=MEASURED, alpha=0.18, linewidth=0)
        axes.fill_between(at, p50, p90, color=MEASURED, alpha=0.3, linewidth=0)
        marker = "o" if len(at) < 3 else ""
        axes.plot(at, p50, color=MEASURED, linewidth=2, marker=marker)
        axes.set_ylim(0, 1.15 * max(p99))
        axes.set_xlabel(f"{unit} since the start")
        axes.set_ylabel("ms")

    return _svg(draw, title, name)


def roofline(
    intensity: Sequence[float],
    rate: Sequence[float],
    share: Sequence[float],
    bandwidth: float | None,
    marks: tuple[str, str],
) -> str:
    """Draw achieved rates over intensity, and the roof of the memory where its rate is known.

    Args:
        intensity: MACs a byte of each group of kernels.
        rate: GMAC/s it reached.
        share: of the stage's time, 0 to 1: the area of its dot.
        bandwidth: GB/s of the memory; None if unknown.
        marks: provenance of the times, `measured` or `predicted`; and the chart's name.
    """
    provenance, name = marks

    from matplotlib.ticker import FuncFormatter

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        axes.set_yscale("log")
        colour = MEASURED if provenance == "measured" else PREDICTED
        face = colour if provenance == "measured" else "none"
        sizes = [14 + 500 * value for value in share]
        axes.scatter(intensity, rate, sizes, facecolors=face, edgecolors=colour, alpha=0.75)
        if bandwidth is not None:
            ends = np.array(axes.get_xlim())
            axes.plot(ends, ends * bandwidth, color=ACCENT, linewidth=1.5)
            axes.set_xlim(*ends)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        axes.set_xlabel("intensity, MACs a byte")
        axes.set_ylabel("GMAC/s")

    return _svg(draw, f"Roofline, {provenance}", name, _TALL)


def _svg(
    draw: Callable[[Axes], None], title: str, name: str, size: tuple[float, float] = _SIZE
) -> str:
    """Return what `draw` draws; `name` keeps its ids apart from those of other charts."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {**_STYLE, "svg.hashsalt": name}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        draw(axes)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = _METADATA.sub("", _PROLOGUE.sub("", drawn.getvalue()))
    text = _FONTS.sub("", _STYLES.sub("", text))
    text = _SIZES.sub("", _NUMBERED.sub("", text), count=2)
    text = re.sub(r'(id="|xlink:href="#|url\(#)(?=[a-z0-9])', rf"\1{name}-", text)
    for sentinel, variable in _COLOURS.items():
        text = text.replace(sentinel, variable)
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
