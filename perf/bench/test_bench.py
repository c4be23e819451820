"""Shows that the comparison counts as it says: intervals, verdicts, figures that are missing, tables."""

import random
import unittest

import comparison as comparison_of
import figures
import starts
import stats
import targets
import text


def run(broker, number, mib=100.0, p99=1_000.0, rate=None, connections=16, cpu=1.0):
    """As much of a report as the figures need."""
    produced = {"mib_per_second": mib, "records_per_second": mib * 1024, "latency": {"p50_us": p99 / 2, "p99_us": p99}}
    producing = {"requests_per_second": rate, "connections": connections, "in_flight": 1}
    used = {"cpu_seconds_per_gib": cpu, "rss_peak_bytes": 1 << 28}
    return {
        "broker": broker,
        "round": number,
        "workload": {"producing": producing},
        "result": {"produced": produced, "consumed": None, "end_to_end": None, "broker": used},
        "failures": [],
        "ceiling": {"maximum": {"produced": {"mib_per_second": 2_000.0}}},
    }


LIMITS = {
    "disk": {"sequential_mib_per_second": 1_000.0, "small_durable_write": {"p50_us": 50.0, "p99_us": 80.0}},
    "loopback": {"mib_per_second": 2_000.0},
}


class Statistics(unittest.TestCase):
    def test_medians(self):
        self.assertEqual(stats.median([3, 1, 2]), 2)
        self.assertEqual(stats.median([4, 1, 2, 3]), 2.5)
        self.assertEqual(stats.spread([3, None, 1]), stats.Spread(2, 1, 3, 2))
        self.assertIsNone(stats.spread([None]))

    def test_the_interval_holds_the_truth_about_as_often_as_it_says(self):
        draw = random.Random(7)
        held = 0
        for seed in range(40):
            of = [400 * draw.lognormvariate(0, 0.1) for _ in range(9)]
            to = [100 * draw.lognormvariate(0, 0.1) for _ in range(9)]
            found = stats.ratio(of, to, seed)
            self.assertTrue(found.low <= found.ratio <= found.high)
            held += found.low <= 4 <= found.high
        self.assertGreaterEqual(held, 33)

    def test_what_disturbs_a_whole_round_does_not_widen_the_interval(self):
        machine = [1, 0.5, 0.8, 1, 0.6, 0.9, 0.7]
        found = stats.ratio([400 * m for m in machine], [100 * m for m in machine])
        # Medians of the same rounds: the machine's part is in both.
        self.assertAlmostEqual(found.ratio, 4)
        self.assertAlmostEqual(found.low, 4)
        self.assertAlmostEqual(found.high, 4)

    def test_rounds_without_a_figure_are_left_out(self):
        found = stats.ratio([4, None, 4], [1, 1, None])
        self.assertEqual((found.ratio, found.rounds, found.low), (4, 1, None))
        self.assertIsNone(stats.ratio([None], [1]))
        self.assertIsNone(stats.ratio([1], [0]))

    def test_verdicts(self):
        def check(low, high, rounds, sign, bound, want):
            self.assertEqual(stats.verdict(stats.Ratio((low + high) / 2, low, high, rounds), sign, bound), want)

        check(4.1, 5, 7, ">=", 4, "reached")
        check(3.9, 5, 7, ">=", 4, "undecided")
        check(3, 3.9, 7, ">=", 4, "missed")
        check(4.1, 5, 6, ">=", 4, "undecided")
        check(0.1, 0.2, 7, "<=", 0.25, "reached")
        check(0.3, 0.4, 7, "<=", 0.25, "missed")
        check(0.2, 0.3, 7, "<=", 0.25, "undecided")
        self.assertEqual(stats.verdict(None, ">=", 4), "unmeasured")


class Figures(unittest.TestCase):
    def scenario(self, **more):
        runs = [run(name, n, mib=mib + n, **more) for n in range(3) for name, mib in (("millrace", 800), ("kafka", 200))]
        return {"name": "max-throughput", "runs": runs}

    def rows(self, scenario):
        return {row["metric"]: row for row in figures.rows(scenario, LIMITS, 3, ["millrace", "kafka"])}

    def test_a_maximum_has_a_ratio_and_a_share_of_the_limit(self):
        row = self.rows(self.scenario())["mib_per_second"]
        self.assertEqual(row["brokers"]["millrace"]["median"], 801)
        self.assertEqual(row["brokers"]["kafka"]["low"], 200)
        self.assertAlmostEqual(row["ratios"][0]["ratio"], 801 / 201)
        # Of the lower of disk and loopback.
        self.assertAlmostEqual(row["share"]["millrace"], 0.801)

    def test_a_failed_run_is_shown_and_does_not_count(self):
        scenario = self.scenario()
        for one in scenario["runs"]:
            if one["broker"] == "kafka" and one["round"] < 2:
                one["failures"] = ["the load generator may be what was measured"]
        row = self.rows(scenario)["mib_per_second"]
        self.assertEqual((row["brokers"]["kafka"]["rounds"], row["ratios"][0]["rounds"]), (3, 1))
        self.assertTrue(row["brokers"]["kafka"]["failed"] and not row["brokers"]["millrace"]["failed"])
        self.assertAlmostEqual(row["ratios"][0]["ratio"], 802 / 202)
        lines = text.scenario_table([row], ["millrace", "kafka"])
        self.assertIn("(200 MiB/s to 202 MiB/s) * |", lines)

    def test_a_rate_that_was_set_is_no_maximum(self):
        rows = self.rows(self.scenario(rate=10.0))
        self.assertNotIn("mib_per_second", rows)
        self.assertIn("rate", rows)

    def test_the_limit_of_a_lone_record_is_one_durable_write(self):
        rows = self.rows(self.scenario(connections=1, p99=160.0))
        self.assertAlmostEqual(rows["lone_p99_us"]["share"]["millrace"], 0.5)
        for absent in ("publish_p99_us", "mib_per_second"):
            self.assertNotIn(absent, rows)

    def test_the_tail_costs_what_more_readers_add(self):
        def of(cpu, gib):
            return {"result": {"broker": {"cpu_seconds": cpu}, "consumed": {"bytes": gib * figures.GIB}}}

        self.assertAlmostEqual(figures.tail_cpu_per_gib(of(3, 1), of(7.5, 10)), 0.5)
        self.assertIsNone(figures.tail_cpu_per_gib(of(3, 1), of(4, 1)))
        self.assertIsNone(figures.tail_cpu_per_gib(of(3, 1), of(2, 10)))

    def test_every_target_names_a_figure_and_is_judged(self):
        scenario = {"name": "max-throughput", "runs": []}
        for n in range(7):
            scenario["runs"] += [run("millrace", n, mib=800 + n, cpu=0.4), run("kafka", n, mib=150 + n, cpu=2.2)]
        checked = targets.check([scenario], {("idle", "idle_cpu_percent"): {"millrace": [0.1] * 7}}, LIMITS, 7, {})
        found = {(one["work"], one["to"]): one["verdict"] for one in checked}
        self.assertEqual(found["max durable produce throughput, 1 KiB records, 16 partitions", "kafka"], "reached")
        self.assertEqual(found["max durable produce throughput, 1 KiB records, 16 partitions", "kafka-flush"], "unmeasured")
        self.assertEqual(found["durable produce, of the machine's own limit", "limit"], "reached")
        self.assertEqual(found["peak memory", "kafka"], "missed")
        self.assertEqual(found["idle CPU of the whole process, percent of a core", "itself"], "reached")
        extra = {"tail_cpu_seconds_per_gib", *starts.FIGURES}
        for target in targets.TARGETS:
            self.assertTrue(target.metric in figures.BY_KEY or target.metric in extra, target)
        self.assertRegex(text.targets_table(checked), r"peak memory .* NOT reached")

    def test_tables_are_whole(self):
        rows = figures.rows(self.scenario(), LIMITS, 3, ["millrace", "kafka"])
        lines = text.scenario_table(rows, ["millrace", "kafka"]).splitlines()
        self.assertEqual(len({line.count("|") for line in lines}), 1)
        self.assertEqual(len({len(line) for line in lines}), 1)


class StandingStill(unittest.TestCase):
    """Runs of a machine that stood still."""

    def of(self, *stalled):
        """What comes of runs of ten seconds, of which it stood still for so many."""
        comparison = object.__new__(comparison_of.Comparison)
        comparison.say = lambda text: None
        left = list(stalled)
        self.left = left

        def run_once(scenario, variant):
            one = run("millrace", 0)
            one["result"]["produced"]["seconds"] = 10.0
            one["result"] |= {"backfilled": None, "stalls": {"seconds": left.pop(0)}}
            return [(one, None)]

        comparison.run_once = run_once
        [(found, error)] = comparison.run_unstalled(None, None)
        self.assertIsNone(error)
        return found

    def test_a_run_without_is_made_once(self):
        found = self.of(0.1, 5.0)
        self.assertEqual((found["attempts"], found["failures"], self.left), (1, [], [5.0]))

    def test_a_run_with_one_is_made_again(self):
        found = self.of(0.2, 4.0, 0.0)
        self.assertEqual((found["attempts"], found["failures"]), (3, []))

    def test_the_last_one_does_not_count_if_it_has_one_too(self):
        found = self.of(0.2, 4.0, 0.5, 0.0)
        self.assertEqual((found["attempts"], self.left), (3, [0.0]))
        self.assertIn("stood still for 0.50 s", found["failures"][0])

    def test_where_nothing_was_looked_at_nothing_is_known(self):
        one = run("kafka", 0)
        one["result"] |= {"backfilled": None, "stalls": None}
        one["result"]["produced"]["seconds"] = 10.0
        self.assertEqual(comparison_of.stalled_seconds(one), 0)


if __name__ == "__main__":
    unittest.main()
