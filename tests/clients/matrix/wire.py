"""The few Kafka requests that the runner sends by hand.

The clients judge the broker through their own libraries; this module looks at
what no library shows: the stored batches as they are on the wire, so that a
codec that was silently not used, or an idempotent producer that silently was
not one, is seen. It speaks only non-flexible versions:

    ApiVersions 0   is the broker ready
    CreateTopics 2  kcat has no admin command
    Fetch 11        the batches, undecoded (zstd needs 10)

A batch (record batch v2), with the fields that are read here:

    0 base offset | 8 length | 16 magic | 17 crc | 21 attributes | 23 last delta
    43 producer id | 57 record count | 61 records
"""

import socket
import struct
import time

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
CRC_COVERS_FROM = 21
BATCH_HEADER_BYTES = 61


class WireError(Exception):
    """What the broker answered, or did not; says which request it was."""


def _crc32c_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC32C = _crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


class _Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, fmt):
        value = struct.unpack_from(">" + fmt, self.data, self.at)[0]
        self.at += struct.calcsize(">" + fmt)
        return value

    def bytes(self, length):
        value = self.data[self.at : self.at + length]
        if len(value) != length:
            raise WireError("an answer ended too early")
        self.at += length
        return value

    def string(self):
        length = self.take("h")
        return None if length < 0 else self.bytes(length).decode()


def _string(text):
    return struct.pack(">h", len(text)) + text.encode()


class Connection:
    """One connection, one request at a time."""

    def __init__(self, port, timeout_s=10.0):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout_s)
        self.correlation = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def _receive(self, length):
        parts = []
        while length:
            part = self.sock.recv(min(length, 1 << 16))
            if not part:
                raise WireError("the broker closed the connection")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def call(self, api_key, version, body):
        self.correlation += 1
        frame = struct.pack(">hhi", api_key, version, self.correlation) + _string("klamm-matrix") + body
        self.sock.sendall(struct.pack(">i", len(frame)) + frame)
        answer = _Reader(self._receive(struct.unpack(">i", self._receive(4))[0]))
        if answer.take("i") != self.correlation:
            raise WireError(f"the answer to API {api_key} carries another correlation id")
        return answer

    def api_versions(self):
        answer = self.call(18, 0, b"")
        error = answer.take("h")
        if error:
            raise WireError(f"ApiVersions 0 answered error {error}")
        return {answer.take("h"): (answer.take("h"), answer.take("h")) for _ in range(answer.take("i"))}

    def create_topic(self, topic, partitions):
        body = struct.pack(">i", 1) + _string(topic) + struct.pack(">ihii", partitions, 1, 0, 0)
        answer = self.call(19, 2, body + struct.pack(">i?", 15_000, False))
        answer.take("i")
        if answer.take("i") != 1 or answer.string() != topic:
            raise WireError("CreateTopics 2 answered for another topic")
        error, message = answer.take("h"), answer.string()
        if error:
            raise WireError(f"CreateTopics 2 answered error {error}: {message}")

    def fetch(self, topic, partition, offset):
        """The high watermark and the raw batches from `offset` on."""
        body = struct.pack(">iiiibiii", -1, 500, 1, 8 << 20, 0, 0, -1, 1) + _string(topic)
        body += struct.pack(">iiiqqi", 1, partition, -1, offset, -1, 8 << 20)
        answer = self.call(1, 11, body + struct.pack(">i", 0) + _string(""))
        answer.take("i")
        error = answer.take("h")
        answer.take("i")
        if error:
            raise WireError(f"Fetch 11 of {topic}-{partition} answered error {error}")
        if answer.take("i") != 1 or answer.string() != topic or answer.take("i") != 1:
            raise WireError("Fetch 11 answered for another topic")
        answer.take("i")
        error, high_watermark, _, _ = (answer.take(t) for t in "hqqq")
        if error:
            raise WireError(f"Fetch 11 of {topic}-{partition} at {offset} answered error {error}")
        for _ in range(max(0, answer.take("i"))):
            answer.take("q"), answer.take("q")
        answer.take("i")
        return high_watermark, answer.bytes(max(0, answer.take("i")))


def wait_ready(port, alive, deadline_s):
    """Polls until ApiVersions is answered. `alive()` says why the broker can no
    longer come up, or None."""
    until = time.monotonic() + deadline_s
    last = "nothing tried"
    while time.monotonic() < until:
        dead = alive()
        if dead:
            raise WireError(dead)
        try:
            with Connection(port, 2.0) as connection:
                connection.api_versions()
                return
        except (OSError, WireError, struct.error) as error:
            last = str(error)
            time.sleep(0.02)
    raise WireError(f"no answer to ApiVersions on port {port} within {deadline_s} s: {last}")


class Stored:
    """What the batches of a topic say, summed up."""

    def __init__(self):
        self.records_by_codec = dict.fromkeys(CODECS, 0)
        self.records = 0
        self.batches = 0
        self.batches_idempotent = 0
        self.faults = []


def read_stored(port, topic, partitions):
    """Reads every batch of the topic; CRC, magic and gapless offsets are checked."""
    stored = Stored()
    with Connection(port) as connection:
        for partition in range(partitions):
            _read_partition(connection, topic, partition, stored)
    return stored


def _read_partition(connection, topic, partition, stored):
    offset, high_watermark = 0, None
    while high_watermark is None or offset < high_watermark:
        high_watermark, data = connection.fetch(topic, partition, offset)
        before, at = offset, 0
        while at + BATCH_HEADER_BYTES <= len(data):
            base, length = struct.unpack_from(">qi", data, at)
            end = at + 12 + length
            if end > len(data):
                break
            magic, crc, attributes, last_delta = struct.unpack_from(">bIhi", data, at + 16)
            producer_id = struct.unpack_from(">q", data, at + 43)[0]
            count = struct.unpack_from(">i", data, at + 57)[0]
            where = f"{topic}-{partition} batch at offset {base}"
            if magic != 2:
                stored.faults.append(f"{where}: magic {magic}, not 2")
            if base != offset:
                stored.faults.append(f"{where}: offset {offset} was expected next")
            if count != last_delta + 1:
                stored.faults.append(f"{where}: {count} records, but last offset delta {last_delta}")
            if crc32c(data[at + CRC_COVERS_FROM : end]) != crc:
                stored.faults.append(f"{where}: its CRC does not hold")
            stored.records_by_codec[CODECS[attributes & 7]] += count
            stored.records += count
            stored.batches += 1
            stored.batches_idempotent += producer_id >= 0
            offset, at = base + last_delta + 1, end
        if offset == before and offset < high_watermark:
            raise WireError(f"{topic}-{partition}: no whole batch at offset {offset} below the high watermark {high_watermark}")
