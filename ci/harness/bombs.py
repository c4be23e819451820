"""Compressed records that inflate out of all proportion: one valid record whose value is a long run of zeros.

It knows codecs and no broker. The streams are written by hand where that makes them denser than any compressor would, and
so that no library is needed. A bomb's compressed size is below `max.message.bytes` as it is by default.
"""

import functools
import struct
import zlib

import wire

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
NAMES = {GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}
# What each becomes. Snappy cannot do better than 21 to 1, lz4 255, gzip 1,030; zstd knows no such bound.
INFLATED_BYTES = {GZIP: 768 << 20, SNAPPY: 16 << 20, LZ4: 192 << 20, ZSTD: 8 << 30}
ZSTD_BLOCK_BYTES = 128 << 10
LZ4_BLOCK_BYTES = 4 << 20
GZIP_MEMBER_BYTES = 16 << 20


def head(zeros):
    """The beginning of a keyed record that ends with `zeros` zeros: its value, and that it has no headers."""
    value_bytes = zeros - 1
    inner = b"\0" + wire.zigzag(0) + wire.zigzag(0) + wire.zigzag(1) + b"k" + wire.zigzag(value_bytes)
    return wire.zigzag(len(inner) + zeros) + inner


@functools.cache
def body(codec, zeros=None):
    zeros = zeros or INFLATED_BYTES[codec]
    return {GZIP: gzip, SNAPPY: snappy, LZ4: lz4, ZSTD: zstd}[codec](head(zeros), zeros)


@functools.cache
def batch(codec, zeros=None):
    return wire.batch(body(codec, zeros), codec=codec)


def disguised(codec, timestamp_ms, newest_ms):
    """One whose header promises a later record than there is: whoever looks for that goes through all of it."""
    return wire.batch(body(codec), codec=codec, timestamp_ms=timestamp_ms, newest_ms=newest_ms)


def gzip(start, zeros):
    def member(data):
        squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
        return squeeze.compress(data) + squeeze.flush()

    whole, rest = divmod(zeros, GZIP_MEMBER_BYTES)
    # Members one behind the other are one stream.
    return member(start) + member(bytes(GZIP_MEMBER_BYTES)) * whole + member(bytes(rest))


def zstd(start, zeros):
    def block(kind, size, data, last=False):
        return struct.pack("<I", size << 3 | kind << 1 | last)[:3] + data

    raw, run = 0, 1
    whole, rest = divmod(zeros, ZSTD_BLOCK_BYTES)
    # No content size, no checksum, a window of 128 KiB.
    out = bytes.fromhex("28b52ffd") + bytes([0, 7 << 3]) + block(raw, len(start), start)
    return out + block(run, ZSTD_BLOCK_BYTES, b"\0") * whole + block(run, rest, b"\0", last=True)


def lz4(start, zeros):
    def literals(data):
        """A last sequence: literals only."""
        extra = len(data) - 15
        token = bytes([min(15, len(data)) << 4])
        return token + (bytes([255]) * (extra // 255) + bytes([extra % 255]) if extra >= 0 else b"") + data

    def run(size):
        """One zero, a match of it, and five literals, which every block ends with."""
        match = size - 1 - 5 - 4 - 15
        return b"\x1f\0" + struct.pack("<H", 1) + bytes([255]) * (match // 255) + bytes([match % 255]) + literals(bytes(5))

    def block(data):
        return struct.pack("<I", len(data)) + data

    whole, rest = divmod(zeros, LZ4_BLOCK_BYTES)
    tail = block(run(rest)) if rest > 64 else block(literals(bytes(rest))) if rest else b""
    # Version 1, independent blocks of up to 4 MiB, no checksums; then the checksum of these two bytes.
    out = bytes.fromhex("04224d18607073") + block(literals(start)) + block(run(LZ4_BLOCK_BYTES)) * whole + tail
    return out + bytes(4)


def snappy(start, zeros):
    def varint(n):
        out = bytearray()
        while n >= 0x80:
            out.append(n & 0x7F | 0x80)
            n >>= 7
        return bytes(out) + bytes([n])

    def literal(data):
        # Up to 60 bytes have their length in the tag.
        return bytes([len(data) - 1 << 2]) + data

    def copy(size):
        """Copies `size` of the zeros before."""
        return bytes([size - 1 << 2 | 2]) + struct.pack("<H", 1)

    whole, rest = divmod(zeros - 1, 64)
    out = varint(len(start) + zeros) + literal(start) + literal(b"\0") + copy(64) * whole
    return out + (copy(rest) if rest else b"")
