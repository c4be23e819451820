"""Shows that the judges of hostile clients and of long runs see what they are there to see, and that the bombs are bombs."""

import os
import unittest
import zlib
from types import SimpleNamespace

import bombs
import flatness
import matching
import watch
import wire
from oracle import Plan


class Wire(unittest.TestCase):
    def test_checksum(self):
        self.assertEqual(wire.crc32c(b"123456789"), 0xE3069283)

    def test_a_batch_is_the_same_but_for_what_a_broker_fills_in(self):
        sent = wire.batch(wire.record(0, b"value"))
        stored = (77).to_bytes(8, "big") + sent[8:12] + (3).to_bytes(4, "big") + sent[16:]
        self.assertTrue(wire.same_batch(stored, sent))
        self.assertFalse(wire.same_batch(stored[:-1] + b"?", sent))
        self.assertFalse(wire.same_batch(stored[:-1], sent))

    def test_integers(self):
        self.assertEqual([wire.zigzag(n) for n in (0, -1, 1, 64, -65)], [b"\0", b"\1", b"\2", b"\x80\1", b"\x81\1"])


class Bombs(unittest.TestCase):
    def test_each_fits_a_batch_and_is_far_larger_inside(self):
        for codec, name in bombs.NAMES.items():
            size = len(bombs.batch(codec))
            self.assertLess(size, 1 << 20, name)
            self.assertGreater(bombs.INFLATED_BYTES[codec], 20 * size, name)

    def test_a_disguised_one_promises_a_later_record_than_it_has(self):
        batch = bombs.disguised(bombs.ZSTD, 1_000, 61_000)
        header = wire.BATCH_HEADER.unpack_from(batch)
        self.assertEqual(header[7:9], (1_000, 61_000))
        self.assertEqual(header[4], wire.crc32c(batch[21:]))

    def test_gzip_inflates_to_the_record(self):
        zeros = bombs.GZIP_MEMBER_BYTES + 1000
        out, rest = b"", bombs.body(bombs.GZIP, zeros)
        while rest:
            one = zlib.decompressobj(31)
            out += one.decompress(rest)
            rest = one.unused_data
        self.assertEqual(out, bombs.head(zeros) + bytes(zeros))


def samples(**series):
    """A hundred samples a second apart; what is not given is constant."""
    made = []
    for n in range(100):
        sample = {name: 1000.0 for name in (*flatness.BOUNDS, "acked_per_second", "probe_ms_p99", "probe_ms_max")}
        sample["seconds"] = float(n)
        sample.update({name: f(n) for name, f in series.items()})
        made.append(sample)
    return made


class Flatness(unittest.TestCase):
    def flat(self, **series):
        return {name for name, verdict in flatness.judge(samples(**series)).items() if verdict["flat"]}

    def test_what_stays_is_flat(self):
        self.assertEqual(self.flat(), set(flatness.BOUNDS))

    def test_the_warm_up_does_not_count(self):
        self.assertIn("resident_bytes", self.flat(resident_bytes=lambda n: min(n, 20) * 10 * flatness.MIB))

    def test_growth_is_seen(self):
        self.assertNotIn("resident_bytes", self.flat(resident_bytes=lambda n: (300 + n) * flatness.MIB))
        self.assertNotIn("stored_bytes", self.flat(stored_bytes=lambda n: (100 + n) * flatness.MIB))
        self.assertNotIn("descriptors", self.flat(descriptors=lambda n: 100 + n))
        self.assertNotIn("threads", self.flat(threads=lambda n: 10 + n // 10))

    def test_a_sawtooth_is_flat(self):
        self.assertIn("stored_bytes", self.flat(stored_bytes=lambda n: (200 + n % 10 * 8) * flatness.MIB))

    def test_the_table_is_short(self):
        self.assertEqual(len(flatness.table(samples())), 1 + flatness.ROWS)


class Watch(unittest.TestCase):
    def test_this_process(self):
        me = watch.Process(os.getpid())
        self.assertGreater(me.resident_bytes_peak(), watch.MIB)
        self.assertGreaterEqual(me.resident_bytes_peak(), me.resident_bytes() // 2)
        self.assertGreaterEqual(len(me.descriptors()), 3)
        with open(os.devnull) as _:
            more = len(me.descriptors())
        self.assertEqual(more, len(me.descriptors()) + 1)


class Matching(unittest.TestCase):
    def test_both_sides_may_come_first(self):
        matches = matching.Matches()
        matches.tell((0, 0), ("a", 0))
        matches.see((0, 0), ("a", 0))
        matches.see((0, 1), ("a", 1))
        matches.tell((0, 1), ("a", 1))
        self.assertEqual((matches.matched, matches.problems, matches.unmatched()), (2, [], {}))

    def test_a_loss_is_seen(self):
        matches = matching.Matches()
        matching.Acknowledged(matches, "a")[(0, 5)] = 7
        self.assertEqual(matches.unmatched(), {(0, 5): ("a", 7)})

    def test_another_record_is_seen(self):
        matches = matching.Matches()
        matches.tell((0, 0), ("a", 0))
        matches.see((0, 0), ("a", 4))
        self.assertEqual(len(matches.problems), 1)

    def order(self, *seen, idempotent=True):
        order = matching.Order("t", [Plan("a", "t", 2, idempotent, "none", 1)])
        for offset, number in seen:
            order.see(1, offset, ("a", number))
        return SimpleNamespace(problems=len(order.problems), twice=order.twice)

    def test_order(self):
        self.assertEqual(self.order((0, 1), (1, 3), (2, 5)).problems, 0)
        self.assertEqual(self.order((0, 1), (2, 3)).problems, 1, "a gap of offsets")
        self.assertEqual(self.order((0, 1), (1, 5)).problems, 1, "a record is missing")
        self.assertEqual(self.order((0, 3)).problems, 1, "the first is missing")
        self.assertEqual(self.order((0, 1), (1, 1)).problems, 1, "twice, though idempotent")
        twice = self.order((0, 1), (1, 1), idempotent=False)
        self.assertEqual((twice.problems, twice.twice), (0, 1))


if __name__ == "__main__":
    unittest.main()
