"""Packets to pictures through PyAV (FFmpeg), strict about damage that decoders would conceal."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phoneward.errors import VideoError
from phoneward.runtime.frames import ASSUMED_RATE

# bytes of a packet and before its sync byte: plain, with time codes, with error correction
_TS_PACKETS = ((188, 0), (192, 4), (204, 0))
_TS_SYNC, _TS_LOOKED_AT = 0x47, 4


@dataclass
class Decoder:
    """Demuxes and decodes one stream, and notices where it is cut or damaged.

    Attributes:
        av: the module PyAV.
        source: names the video in errors.
        container: an open input container of PyAV.
        stream: one of its video streams, whose decoder explodes over errors.
        live: leave damaged pictures out instead of ending at them.
    """

    av: Any
    source: Path | str
    container: Any
    stream: Any
    live: bool
    packets: int = 0
    end: dict[int, float] = field(default_factory=dict)  # seconds, by stream
    last: Any = None  # the picture that was handed out last
    gap: float = 0.0  # the longest time between two of them, in seconds

    def pictures(self) -> Iterator[Any]:
        """Yield PyAV's frames in order of display.

        Raises:
            VideoError: after the last one before which nothing is missing, if there were more.
        """
        damage = yield from self._from_packets()
        try:
            for picture in self._decode(None):
                if damage and not self._follows(picture, damage.dts):
                    break
                yield self._seen(picture)
        except _Damage as error:
            damage = damage or error
        if damage:
            raise VideoError(self.source, f"{damage.reason}; {self._extent()}") from damage

    def _from_packets(self) -> Generator[Any, None, _Damage | None]:
        began, dts = False, None
        try:
            for packet in self._packets():
                self.packets += 1
                dts = packet.dts
                began = began or packet.is_keyframe
                if began:  # what comes before cannot be decoded, as in a broadcast joined late
                    yield from map(self._seen, self._decode(packet))
        except _Damage as damage:
            return damage
        except self.av.FFmpegError as error:  # of the container
            return _Damage(f"damaged ({_reason(error)})", None if dts is None else dts + 1)
        shortfall = None if self.live else self._shortfall()
        return _Damage(shortfall, None if dts is None else dts + 1) if shortfall else None

    def _packets(self) -> Iterator[Any]:
        """Demux the stream's packets, of a cut MPEG-TS file all but the last.

        That one is cut somewhere, and some decoders show what they have of it.
        """
        held, cut = None, self._is_cut_inside_a_packet()
        # all streams: the container states the end of the longest
        for packet in self.container.demux():
            self._note_end(packet)
            if packet.stream_index != self.stream.index or packet.size == 0:
                continue
            if held is not None:
                yield held
            held = packet if cut else None
            if not cut:
                yield packet

    def _decode(self, packet: Any) -> Iterator[Any]:
        dts = packet.dts if packet is not None else None
        pictures: list[Any] = []
        try:
            # in MPEG-TS the mark is that of a counter, which starts anew where files were joined
            if packet is not None and packet.is_corrupt and not self._has_form("mpegts"):
                raise _Damage("cut inside a frame", dts)
            pictures = self.stream.codec_context.decode(packet)
            if any(picture.is_corrupt for picture in pictures):
                raise _Damage("damaged (a frame was concealed)", dts)
        except self.av.EOFError:
            pass
        except self.av.FFmpegError as error:
            if not self.live:
                raise _Damage(f"damaged ({_reason(error)})", dts) from error
        except _Damage:
            if not self.live:
                raise
            pictures = []
        yield from pictures

    def _seen(self, picture: Any) -> Any:
        if self.last is not None and None not in (self.last.pts, picture.pts):
            gap = float((picture.pts - self.last.pts) * self.stream.time_base)
            self.gap = max(self.gap, gap)
        self.last = picture
        return picture

    def time(self, picture: Any, index: int) -> float:
        """When picture number `index` is shown, in seconds by the stream's clock."""
        if picture.pts is not None:
            return float(picture.pts * self.stream.time_base)
        # bare streams, as .h264 files, have no times; frames of one rate are what they can hold
        return index / float(self.stream.guessed_rate or ASSUMED_RATE)

    def _follows(self, picture: Any, dts: int | None) -> bool:
        """Tell whether nothing lost can lie before a picture that was waiting for its turn."""
        if picture.pts is None or (dts is not None and picture.pts < dts):
            return True
        if self.last is None or self.last.pts is None or not self.last.duration:
            return False
        gap = picture.pts - self.last.pts
        return bool(gap < 1.5 * self.last.duration)

    def _note_end(self, packet: Any) -> None:
        if packet.pts is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self.end[packet.stream_index] = max(end, self.end.get(packet.stream_index, end))

    def _has_form(self, name: str) -> bool:
        return name in self.container.format.name

    def _shortfall(self) -> str | None:
        """Say what the container states and did not hold; None: it held everything."""
        stated = self.stream.frames
        if self._has_form("matroska") and self._is_short():
            return "cut short: a longer duration is stated"
        # an edit list leaves frames out on purpose, and then shortens the stated duration too
        if stated > self.packets and (not self._has_form("mov") or self._is_short()):
            return f"cut short: {stated} frames are stated"
        return "cut inside a packet" if self._is_cut_inside_a_packet() else None

    def _is_cut_inside_a_packet(self) -> bool:
        if not (self._has_form("mpegts") and isinstance(self.source, Path)):
            return False
        with self.source.open("rb") as stream:
            head = stream.read(2048)
        units = (unit for unit, before in _TS_PACKETS if _is_ts(head[before::unit]))
        # junk before the first packet leaves the size of a packet unknown
        unit = next(units, None)
        return unit is not None and self.source.stat().st_size % unit != 0

    def _is_short(self) -> bool:
        """Tell whether the last packet ends before the stated duration."""
        stream = self.stream
        ended, step = self.end.get(stream.index, 0.0), 1 / float(stream.average_rate or 30)
        if self.last is not None and self.last.duration:
            step = float(self.last.duration * stream.time_base)
        # where the rate varies, how long the last frame is shown is a guess of the demuxer's
        slack = step / 2 if self.gap < 1.25 * step else 1.5 * self.gap
        if stream.duration is not None:
            stated = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
            return bool(ended < stated - slack)
        if tag := duration_tag(stream.metadata):
            return bool(ended < tag - slack)
        if self.container.duration is None:
            return False
        # of all streams, and rounded by some writers
        stated = self.container.duration / self.av.time_base
        return bool(max(self.end.values(), default=0.0) < stated - max(2 * slack, 0.1))

    def _extent(self) -> str:
        if self.last is None:
            return "no frame is whole"
        if self.last.pts is None:
            return "what is whole was read"
        since = float(self.last.pts * self.stream.time_base) - float(
            (self.stream.start_time or 0) * self.stream.time_base
        )
        return f"what is whole reaches to {since:.3f} s"


class _Damage(Exception):
    """Where decoding ends too early; `dts`, if known, precedes every frame that is lost."""

    def __init__(self, reason: str, dts: int | None) -> None:
        self.reason, self.dts = reason, dts
        super().__init__(reason)


def _is_ts(firsts: bytes) -> bool:
    """Whether these are the first bytes of packets."""
    return len(firsts) > 0 and set(firsts[:_TS_LOOKED_AT]) == {_TS_SYNC}


def _reason(error: Any) -> str:
    return str(error.strerror or error).rstrip(".")


def duration_tag(metadata: dict[str, str]) -> float | None:
    """Return Matroska's tag of a single stream's duration, in seconds."""
    for name, value in metadata.items():
        match = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)\s*", value)
        if name.upper().startswith("DURATION") and match:
            return int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3])
    return None
