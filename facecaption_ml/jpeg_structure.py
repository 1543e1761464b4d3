"""The markers of a JPEG file (ITU-T T.81, annex B), read without decoding it.

Only the first picture counts: what cameras and phones append to it (a film, a preview, more pictures) is not looked at, nor
what lies in its metadata.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

_MARKER: Final = re.compile(rb"\xff([^\x00\xff])")
_MARKER_AFTER_SCAN: Final = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # 00 and restart markers belong to a scan's data
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_WITHOUT_SEGMENT: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_HUFFMAN_SEQUENTIAL: Final = frozenset({0xC0, 0xC1})
_HUFFMAN_PROGRESSIVE: Final = 0xC2


@dataclass
class JpegStructure:
    """What the markers of the first picture say.

    scans: how many there are. has_end: whether its end marker was reached. frame: the frame's marker (0xC0: baseline, 0xC2:
    progressive), 0 without one. bits_left: for each component the lowest bit not sent yet of its 64 coefficients,
    None for those of which nothing was sent.
    """

    scans: int = 0
    has_end: bool = False
    frame: int = 0
    bits_left: dict[int, list[int | None]] = field(default_factory=dict)

    @property
    def all_is_sent(self) -> bool:
        """Whether the scans, if their data are whole, hold every coefficient of every component to its last bit."""
        known = self.frame in _HUFFMAN_SEQUENTIAL or self.frame == _HUFFMAN_PROGRESSIVE
        return known and bool(self.bits_left) and all(bit == 0 for bits in self.bits_left.values() for bit in bits)

    def _begin_frame(self, marker: int, segment: bytes) -> None:
        self.frame = marker
        self.bits_left = {component: [None] * 64 for component in segment[6 : 6 + 3 * segment[5] : 3]}

    def _begin_scan(self, segment: bytes) -> None:
        self.scans += 1
        components = segment[1 : 1 + 2 * segment[0] : 2]
        first, last, bits = segment[1 + 2 * segment[0] :][:3]
        if self.frame != _HUFFMAN_PROGRESSIVE:
            first, last, bits = 0, 63, 0
        for component in components:
            self.bits_left[component][first : last + 1] = [bits & 15] * (last + 1 - first)


def read_structure(data: bytes, most_scans: int) -> JpegStructure:
    """The structure of the JPEG in ``data`` as far as its markers can be followed, up to ``most_scans`` + 1 scans.

    libjpeg's decoder takes the markers in the same order, so it meets no more scans than are counted.
    """
    structure, position, pattern = JpegStructure(), 2, _MARKER
    while structure.scans <= most_scans:
        found = pattern.search(data, position)
        if found is None or found[1][0] == _START:
            return structure
        marker, position, pattern = found[1][0], found.end(), _MARKER
        if marker == _END:
            structure.has_end = True
            return structure
        if marker in _WITHOUT_SEGMENT:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        segment, position = data[position + 2 : position + length], position + max(2, length)
        try:
            if marker == _SCAN:
                pattern = _MARKER_AFTER_SCAN
                structure._begin_scan(segment)
            elif marker in _FRAMES:
                structure._begin_frame(marker, segment)
        except (IndexError, KeyError, ValueError):  # a segment that is too short, or of a component there is not
            structure.bits_left = {}
    return structure
