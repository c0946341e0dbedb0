"""Framing of streamed answers: bytes in, events out, whatever the pieces they arrive in.

Lines end with \\n, \\r\\n or \\r and nowhere else; text is decoded line by line, so that no piece can tear a character
apart. Bytes that are not UTF-8 become U+FFFD.
"""

from __future__ import annotations

from ..errors import ResponseTooLarge

_FIELDS = (b"data", b"event", b"id", b"retry")  # the last line may be cut inside such a name
LIMIT = 16 * 2**20  # bytes of one event; a generated picture in one event has a few million


class EventDecoder:
    """Server-sent events, as (name of the event, data).

    `seen` counts the events, `stray` is the first line that belongs to no event: what a server says that does not
    stream at all.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.seen = 0
        self.stray = ""
        self._limit = limit
        self._parts: list[bytes] = []  # of a line that is not complete yet
        self._line = 0  # bytes in them
        self._size = 0  # bytes of the event under way, its line ends among them
        self._after_cr = False  # a \n that comes next belongs to the \r before it
        self._first = True
        self._name = ""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[tuple[str, str]]:
        """The events that this piece completes. Raises `ResponseTooLarge`."""
        if self._after_cr and piece:
            self._after_cr = False
            if piece[:1] == b"\n":
                piece = piece[1:]
        if b"\r" in piece:
            self._after_cr = piece.endswith(b"\r")
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = piece.split(b"\n")
        rest = lines.pop()
        events: list[tuple[str, str]] = []
        if lines:
            if self._parts:
                lines[0] = b"".join(self._parts) + lines[0]
                self._parts = []
                self._line = 0
            if self._first:
                self._first = False
                lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
            self._read(lines, events)
        if rest:
            self._parts.append(rest)
            self._line += len(rest)
            self._grow(0)
        return events

    def finish(self) -> list[tuple[str, str]]:
        """The last event, if no empty line closed it."""
        return self.feed(b"\n\n") if self._parts or self._data else []

    def _read(self, lines: list[bytes], events: list[tuple[str, str]]) -> None:
        data = self._data
        for line in lines:
            if line[:5] == b"data:":
                value = line[6:] if line[5:6] == b" " else line[5:]
                data.append(value)
                self._grow(len(value) + 1)
            elif line:
                self._field(line)
            elif data:
                whole = data[0] if len(data) == 1 else b"\n".join(data)
                events.append((self._name, whole.decode("utf-8", "replace")))
                data.clear()
                self._size = 0
                self._name = ""
                self.seen += 1
            else:
                self._name = ""

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"event":
            self._name = value.strip().decode("utf-8", "replace")
        elif name == b"data":
            self._data.append(b"")
            self._grow(1)
        elif not self.stray and not any(known.startswith(name) for known in _FIELDS):
            self.stray = line[:200].decode("utf-8", "replace")

    def _grow(self, count: int) -> None:
        self._size += count
        if self._size + self._line > self._limit:
            raise ResponseTooLarge(f"one event of the answer has more than {self._limit:,} bytes")


class LineDecoder(EventDecoder):
    """JSON lines: every line that is not empty is the data of an event without a name."""

    def _read(self, lines: list[bytes], events: list[tuple[str, str]]) -> None:
        for line in lines:
            if len(line) > self._limit:
                self._grow(len(line))
            if text := line.strip():
                events.append(("", line.decode("utf-8", "replace")))
                if text[:1] == b"{":
                    self.seen += 1
                elif not self.stray:
                    self.stray = line[:200].decode("utf-8", "replace")
