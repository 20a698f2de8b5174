"""A trace of slices and counters as Perfetto's TrackEvent protobuf, or as Chrome's JSON.

Fields are numbered as in Perfetto's trace_packet.proto, track_event.proto, track_descriptor.proto,
debug_annotation.proto and interned_data.proto. All slices of a batch have rows of one width: a
column of numbers takes as many varint bytes as its largest, the smaller ones padded by
continuation bytes, which every protobuf reader accepts. That is what lets arrays write the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from accsim.base.errors import InputError, one_of

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Part = bytes | npt.NDArray[np.uint8]  # the same in every row, or (rows, width)

PROTOBUF_SUFFIXES = (".pftrace", ".perfetto-trace")
SUFFIXES = (".json", *PROTOBUF_SUFFIXES)

_PID = 1
_SEQUENCE = 1
_BEGIN, _END, _COUNTER = 1, 2, 4  # TrackEvent.Type
_CLEARED, _NEEDED = 1, 2  # TracePacket.SequenceFlags on incremental state


@dataclass(frozen=True, eq=False)
class Slices:
    """Slices of one thread in time order: they may touch, never overlap.

    ``names[which[i]]`` is the name of slice i; ``numbers`` (≥ 0) and ``texts`` are its arguments.
    """

    thread: str
    names: tuple[str, ...]
    which: Ints
    start_ns: Ints
    end_ns: Ints
    numbers: dict[str, Ints] = field(default_factory=dict)
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.start_ns)


@dataclass(frozen=True, eq=False)
class Counter:
    """A quantity that holds ``values[i]`` from ``start_ns[i]`` to the next sample."""

    name: str
    unit: str
    start_ns: Ints
    values: Floats


@dataclass(frozen=True, eq=False)
class Trace:
    """One process: its threads in the order they are shown, their slices, and its counters."""

    process: str
    threads: tuple[str, ...]
    slices: Sequence[Slices]
    counters: Sequence[Counter]


def check_path(path: str | Path) -> Path:
    """Return ``path``, if its ending says how to write it; InputError otherwise."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(
            f"a timeline's file name must end in one of {one_of(SUFFIXES)}; got '{path.name}'"
        )
    return path


def write_trace(trace: Trace, path: str | Path) -> int:
    """Write a trace in the format its file name asks for; return the bytes written.

    Raises:
        InputError: another ending than ``SUFFIXES``, or a path that cannot be written.
    """
    path = check_path(path)
    data = to_protobuf(trace) if path.suffix in PROTOBUF_SUFFIXES else to_json(trace)
    try:
        return path.write_bytes(data)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"cannot write the timeline: {reason}", file=path) from None


def to_protobuf(trace: Trace) -> bytes:
    """Return the trace as a perfetto.protos.Trace message; equal traces give equal bytes."""
    words = _Interned()
    threads = {name: _PID + 1 + i for i, name in enumerate(trace.threads)}
    events = [_slice_rows(batch, threads[batch.thread], words) for batch in trace.slices]
    uuid = _PID + 1 + len(threads)
    tracks = [_process(trace.process), *(_thread(name, at) for name, at in threads.items())]
    for at, counter in enumerate(trace.counters, uuid):
        tracks.append(_counter_track(counter, at))
        events.append(_counter_rows(counter, at))
    return b"".join([words.packet(), *tracks, *events])


# --- protobuf -------------------------------------------------------------------------------------


class _Interned:
    """Strings written once and referred to by number: event names, argument names and texts."""

    def __init__(self) -> None:
        self._known: dict[int, dict[str, int]] = {2: {}, 3: {}, 29: {}}  # by InternedData field

    def names(self, words: Iterable[str]) -> Ints:
        return self._numbers(2, words)

    def argument(self, word: str) -> bytes:
        return _varint(int(self._numbers(3, [word])[0]))

    def texts(self, words: Iterable[str]) -> Ints:
        return self._numbers(29, words)

    def _numbers(self, kind: int, words: Iterable[str]) -> Ints:
        known = self._known[kind]
        return np.array([known.setdefault(word, len(known) + 1) for word in words], dtype=np.int64)

    def packet(self) -> bytes:
        entries = [
            _field(kind, _field(1, number) + _field(2, word))
            for kind, known in self._known.items()
            for word, number in known.items()
        ]
        return _packet(_field(12, b"".join(entries)) + _field(13, _CLEARED | _NEEDED))


def _process(name: str) -> bytes:
    process = _field(1, _PID) + _field(6, name)
    return _packet(_field(60, _field(1, _PID) + _field(3, process)))


def _thread(name: str, uuid: int) -> bytes:
    thread = _field(1, _PID) + _field(2, uuid) + _field(5, name)
    return _packet(_field(60, _field(1, uuid) + _field(4, thread)))


def _counter_track(counter: Counter, uuid: int) -> bytes:
    inside = _field(1, uuid) + _field(2, counter.name) + _field(5, _PID)
    return _packet(_field(60, inside + _field(8, _field(6, counter.unit))))


def _packet(content: bytes) -> bytes:
    return _field(1, content + _field(10, _SEQUENCE))


def _slice_rows(batch: Slices, uuid: int, words: _Interned) -> bytes:
    """Return begin and end of every slice, one behind the other."""
    arguments: list[Part] = []
    for name, values in batch.numbers.items():
        arguments += _nested(4, [_tag(1, 0) + words.argument(name), _tag(3, 0), _varints(values)])
    for name, texts in batch.texts.items():
        value = _varints(words.texts(texts))
        arguments += _nested(4, [_tag(1, 0) + words.argument(name), _tag(17, 0), value])
    named = _varints(words.names(batch.names)[batch.which])
    begin = [_field(9, _BEGIN) + _field(11, uuid) + _tag(10, 0), named, *arguments]
    end: list[Part] = [_field(9, _END) + _field(11, uuid)]
    rows = _event(batch.start_ns, begin, _field(13, _NEEDED)) + _event(batch.end_ns, end)
    return _joined(len(batch), rows)


def _counter_rows(counter: Counter, uuid: int) -> bytes:
    values = np.ascontiguousarray(counter.values, dtype="<f8").view(np.uint8).reshape(-1, 8)
    inside: list[Part] = [_field(9, _COUNTER) + _field(11, uuid) + _tag(44, 1), values]
    return _joined(len(values), _event(counter.start_ns, inside))


def _event(at_ns: Ints, content: list[Part], flags: bytes = b"") -> list[Part]:
    """Return the parts of TracePackets that hold one TrackEvent each."""
    head = _field(10, _SEQUENCE) + flags + _tag(8, 0)
    return _nested(1, [head, _varints(at_ns), *_nested(11, content)])


def _nested(number: int, parts: list[Part]) -> list[Part]:
    width = sum(len(x) if isinstance(x, bytes) else x.shape[1] for x in parts)
    return [_tag(number, 2) + _varint(width), *parts]


def _joined(count: int, parts: list[Part]) -> bytes:
    """Return the rows, each the parts one behind the other."""
    blocks = [
        np.broadcast_to(np.frombuffer(x, dtype=np.uint8), (count, len(x)))
        if isinstance(x, bytes)
        else x
        for x in parts
    ]
    return np.concatenate(blocks, axis=1).tobytes()


def _varints(values: Ints) -> npt.NDArray[np.uint8]:
    """Return the varints of numbers ≥ 0, all as wide as the largest: (numbers, width)."""
    width = max(1, -(-int(values.max(initial=0)).bit_length() // 7))
    digits = (values[:, None] >> (7 * np.arange(width))) & 0x7F
    digits[:, :-1] |= 0x80
    return digits.astype(np.uint8)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _tag(number, 0) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _tag(number, 2) + _varint(len(data)) + data


# --- Chrome's JSON --------------------------------------------------------------------------------


def to_json(trace: Trace) -> bytes:
    """Return the trace as Chrome's trace-event JSON: ``ts`` and ``dur`` in µs, three decimals."""
    threads = {name: _PID + 1 + i for i, name in enumerate(trace.threads)}
    lines = [_metadata("process_name", 0, name=trace.process)]
    for at, (name, tid) in enumerate(threads.items()):
        lines += [
            _metadata("thread_name", tid, name=name),
            _metadata("thread_sort_index", tid, sort_index=at),
        ]
    for batch in trace.slices:
        lines += _slice_lines(batch, threads[batch.thread])
    for counter in trace.counters:
        lines += _counter_lines(counter)
    body = ",\n".join(lines)
    return f'{{"displayTimeUnit": "ns", "traceEvents": [\n{body}\n]}}\n'.encode()


def _metadata(kind: str, tid: int, **args: str | int) -> str:
    return _json({"ph": "M", "name": kind, "pid": _PID, "tid": tid, "args": args})


def _slice_lines(batch: Slices, tid: int) -> Iterator[str]:
    names = [_json(name) for name in batch.names]
    keys = [_json(key) for key in (*batch.numbers, *batch.texts)]
    columns: list[Sequence[object]] = [values.tolist() for values in batch.numbers.values()]
    columns += [[_json(text) for text in texts] for texts in batch.texts.values()]
    shape = ", ".join(f"{key.replace('%', '%%')}: %s" for key in keys)
    rows = zip(*columns, strict=True) if columns else iter([()] * len(batch))
    lengths = (batch.end_ns - batch.start_ns).tolist()
    for which, start, length, row in zip(
        batch.which.tolist(), batch.start_ns.tolist(), lengths, rows, strict=True
    ):
        yield (
            f'{{"ph": "X", "pid": {_PID}, "tid": {tid}, "name": {names[which]}, '
            f'"ts": {_us(start)}, "dur": {_us(length)}, "args": {{{shape % row}}}}}'
        )


def _counter_lines(counter: Counter) -> Iterator[str]:
    name, unit = _json(counter.name), _json(counter.unit)  # shown one behind the other
    for start, value in zip(counter.start_ns.tolist(), counter.values.tolist(), strict=True):
        yield (
            f'{{"ph": "C", "pid": {_PID}, "name": {name}, "ts": {_us(start)}, '
            f'"args": {{{unit}: {value!r}}}}}'
        )


def _us(time_ns: int) -> str:
    return f"{time_ns // 1000}.{time_ns % 1000:03d}"


def _json(value: object) -> str:
    # Perfetto shows a thread called "\u2192" by these six letters: no escapes
    return json.dumps(value, ensure_ascii=False)
