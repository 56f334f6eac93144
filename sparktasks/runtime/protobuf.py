"""The little of protobuf's wire format that reading and editing ONNX files takes, without loading a weight.

A message is a run of fields, each a key (number and kind of value) and a value. Values that are numbers are varints:
seven bits a byte, the lowest first, the highest bit telling that another byte follows. All others stand behind their
length, and may be messages themselves.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES = 10  # of 64 bits


class Field(NamedTuple):
    """A field of a message: its number, its value, and the bytes from ``start`` to ``end`` that hold key and value.

    The value is None where it is of a kind that ONNX's headers do not use.
    """

    number: int
    value: int | Message | None
    start: int
    end: int


class Message:
    """A slice of a protobuf message; iterating gives (field number, value), value being an int or a `Message`."""

    def __init__(self, data: mmap.mmap | bytes, start: int, end: int) -> None:
        self.data = data
        self.start = start
        self.end = end

    def __iter__(self) -> Iterator[tuple[int, int | Message]]:
        for field in self.fields():
            if field.value is not None:
                yield field.number, field.value

    def fields(self) -> Iterator[Field]:
        """Yield the fields in the order of the bytes; `EOFError` where they end too early."""
        at = self.start
        while at < self.end:
            start = at
            key, at = self._varint(at)
            number, wire = key >> 3, key & 7
            value: int | Message | None = None
            if wire == _VARINT:
                value, at = self._varint(at)
            elif wire == _BYTES:
                size, at = self._varint(at)
                value = Message(self.data, at, at + size)
                at += size
            else:
                # Groups, the kinds 3 and 4, are older than ONNX: a KeyError here means that this is no such file.
                at += _FIXED_SIZES[wire]
            # A file that was cut short ends within a value.
            if at > self.end:
                raise EOFError(f"byte {start} begins a field of {at - start} bytes, {self.end - start} are left")
            yield Field(number, value, start, at)

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            byte = self.data[at]
            value |= (byte & 0x7F) << shift
            at += 1
            if byte < 0x80:
                return value, at
        raise EOFError(f"byte {at - 1} goes on with a number of more than 64 bits")

    def text(self) -> str:
        """Return the message as a string."""
        return self.content().decode()

    def content(self) -> bytes:
        """Return the message's bytes."""
        return self.data[self.start : self.end]

    def has(self, part: bytes) -> bool:
        """Tell whether the message's bytes contain others."""
        return self.data.find(part, self.start, self.end) >= 0

    def messages(self, number: int) -> list[Message]:
        """Return the values of a field that are not numbers."""
        messages = []
        for field, value in self:
            if field == number and isinstance(value, Message):
                messages.append(value)
        return messages

    def within(self, number: int) -> Message:
        """Return the first message of a field; an empty one where there is none."""
        return next(iter(self.messages(number)), Message(self.data, self.end, self.end))

    def texts(self, number: int) -> list[str]:
        """Return the values of a field as strings."""
        return [message.text() for message in self.messages(number)]

    def first_text(self, number: int) -> str:
        """Return the first value of a field as a string; an empty one where the message lacks the field."""
        return next(iter(self.texts(number)), "")

    def ints(self, number: int) -> list[int]:
        """Return the numbers of a field, those that are packed into one value too."""
        numbers: list[int] = []
        for field, value in self:
            if field != number:
                continue
            if isinstance(value, int):
                numbers.append(value)
            else:
                numbers.extend(value._packed())
        return numbers

    def first_int(self, number: int, default: int = 0) -> int:
        """Return the first number of a field."""
        return next(iter(self.ints(number)), default)

    def _packed(self) -> list[int]:
        # Lists of numbers are written both ways: each as a field of its own, or all in the bytes of one.
        values = []
        at = self.start
        while at < self.end:
            value, at = self._varint(at)
            values.append(value)
        return values


def varint(value: int) -> bytes:
    """Write a number of no sign.

    >>> varint(300)
    b'\\xac\\x02'
    """
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def number_field(number: int, value: int) -> bytes:
    """Write a field whose value is a number."""
    return varint(number << 3 | _VARINT) + varint(value)


def bytes_field(number: int, content: bytes) -> bytes:
    """Write a field whose value is a string or a message."""
    return bytes_key(number, len(content)) + content


def bytes_key(number: int, size: int) -> bytes:
    """Write what stands before a string or a message of so many bytes."""
    return varint(number << 3 | _BYTES) + varint(size)
