"""What the benchmark makes of its numbers; nothing is measured here."""

import json
import time

from twisted.trial.unittest import SynchronousTestCase

from bench.__main__ import chosen
from bench.connection import Address, Failed, Reply, location, with_digest
from bench.flame import draw, summary, tree, working
from bench.measures import MEASURES
from bench.peers import DISTRIBUTION_3, OLAREG, OURS, PEERS
from bench.processes import Cpu
from bench.server import WORTH_NOTING, Probe
from bench.table import (
    USER,
    Metric,
    Results,
    Row,
    Target,
    is_wide,
    lost,
    markdown,
    number,
    ratio,
    rows_of_json,
    to_json,
    verdict,
)

COST = Metric("µs", False, Target(0.5, "peer"), Target(0.25, "peer"))
RATE = Metric("1/s", True, Target(2, "peer"), Target(4, "peer"))
LABELS = {"ours": "Ours", "peer": "Peer"}


def row(metric: Metric, ours: "list[float]", peer: "list[float] | None" = None) -> Row:
    """A row of two servers."""
    values = {"ours": ours} if peer is None else {"ours": ours, "peer": peer}
    return Row("it", metric, values)


class VerdictTests(SynchronousTestCase):
    def test_lower_is_better(self):
        found = [verdict(row(COST, [ours], [100.0]), "ours") for ours in (25.0, 25.1, 50.0, 50.1)]
        self.assertEqual(found, ["goal", "floor", "floor", "**missed**"])

    def test_higher_is_better(self):
        found = [verdict(row(RATE, [ours], [100.0]), "ours") for ours in (400.0, 399.0, 200.0, 199.0)]
        self.assertEqual(found, ["goal", "floor", "floor", "**missed**"])

    def test_it_is_the_median_that_counts(self):
        self.assertEqual(verdict(row(COST, [1000.0, 10.0, 20.0], [100.0, 1.0, 101.0]), "ours"), "goal")

    def test_the_goal_may_be_about_another_server(self):
        both = Metric("µs", False, Target(0.5, "peer"), Target(1, "third"))
        measured = Row("it", both, {"ours": [9.0], "peer": [100.0], "third": [10.0]})
        self.assertEqual((verdict(measured, "ours"), ratio(measured, "ours")), ("goal", 0.09))
        measured.values["third"] = [8.0]
        self.assertEqual(verdict(measured, "ours"), "floor")

    def test_a_number_as_target(self):
        ready = Metric("s", False, Target(0.6), Target(0.35))
        found = [verdict(row(ready, [ours]), "ours") for ours in (0.3, 0.6, 0.7)]
        self.assertEqual(found, ["goal", "floor", "**missed**"])
        self.assertIsNone(ratio(row(ready, [0.3]), "ours"))

    def test_a_goal_without_a_floor(self):
        wish = Metric("ms", False, None, Target(0.5, "peer"))
        measured = [row(wish, [ours], [100.0]) for ours in (50.0, 51.0)]
        self.assertEqual([verdict(each, "ours") for each in measured], ["goal", ""])
        self.assertEqual([ratio(each, "ours") for each in measured], [0.5, 0.51])

    def test_without_the_other_server_there_is_none(self):
        self.assertEqual(verdict(row(COST, [1.0]), "ours"), "")
        self.assertIsNone(ratio(row(COST, [1.0]), "ours"))
        self.assertEqual(verdict(Row("it", COST, {"peer": [1.0]}), "ours"), "")


class TableTests(SynchronousTestCase):
    def results(self) -> Results:
        results = Results()
        for cost, user in ((20.0, 15.0), (30.0, 20.0), (25.0, 16.0)):
            results.add("GET", [COST, RATE], "ours", {"µs": cost, "µs" + USER: user, "1/s": 400.0, "other": 1.0})
        results.add("GET", [COST, RATE], "peer", {"µs": 100.0, "1/s": 100.0})
        return results

    def test_the_whole(self):
        self.assertEqual(
            markdown(self.results().rows, LABELS, ["ours"]).splitlines(),
            [
                "| measure | unit | Ours | Peer | floor | goal | result |",
                "|---|---|---:|---:|---|---|---|",
                "| GET | µs | 25.0~ (16.0+9.00) | 100 | ≤ 50.0 (0.50 x Peer) | ≤ 25.0 (0.25 x Peer) | goal (x0.25) |",
                "| GET | 1/s | 400 | 100 | ≥ 200 (2.00 x Peer) | ≥ 400 (4.00 x Peer) | goal (x4.00) |",
            ],
        )

    def test_who_is_judged(self):
        measured = Row("it", Metric("%", True, Target(25)), {"two": [30.0]})
        lines = markdown([measured], {"two": "Two"}, ["ours", "two"]).splitlines()
        self.assertEqual(lines[-1], "| it | % | 30.0 | ≥ 25.0 |  | floor |")

    def test_what_was_not_measured(self):
        results = Results()
        results.add("GET", [COST], "ours", {"µs": 1.0})
        self.assertEqual(markdown(results.rows, LABELS, ["ours"]).splitlines()[-1], "| GET | µs | 1.00 | - |  |  |  |")

    def test_numbers(self):
        self.assertEqual(
            [number(each) for each in (0.0, 0.049, 9.99, 10.0, 99.94, 100.0, 12345.6)],
            ["0.00", "0.05", "9.99", "10.0", "99.9", "100", "12346"],
        )

    def test_rounds_that_differ(self):
        self.assertEqual(
            [is_wide(each) for each in ([1.0], [1.0, 1.2], [1.0, 1.4], [0.0, 0.0])], [False, False, True, False]
        )

    def test_json_and_back(self):
        results = self.results()
        document = json.loads(json.dumps(to_json(results, ["about"])))
        self.assertEqual(rows_of_json(document), results.rows)


class LostTests(SynchronousTestCase):
    def test_more_than_a_fifth(self):
        then = [row(COST, [10.0], [100.0]), row(RATE, [400.0], [100.0])]
        self.assertEqual(lost(then, [row(COST, [12.0], [100.0]), row(RATE, [334.0], [100.0])], "ours"), [])
        found = lost(then, [row(COST, [13.0], [100.0]), row(RATE, [300.0], [100.0])], "ours")
        self.assertEqual(
            found,
            [
                "it, µs: worse by 30% (0.10 -> 0.13 as a ratio)",
                "it, 1/s: worse by 33% (4.00 -> 3.00 as a ratio)",
            ],
        )

    def test_a_slower_machine_is_no_loss(self):
        self.assertEqual(lost([row(COST, [10.0], [100.0])], [row(COST, [20.0], [200.0])], "ours"), [])

    def test_without_the_other_server_numbers_are_compared(self):
        found = lost([row(COST, [10.0], [100.0])], [row(COST, [20.0])], "ours")
        self.assertEqual(found, ["it, µs: worse by 100% (10.0 -> 20.0 absolute)"])

    def test_what_only_one_has(self):
        self.assertEqual(lost([], [row(COST, [10.0])], "ours"), [])
        self.assertEqual(lost([Row("it", COST, {"peer": [1.0]})], [row(COST, [10.0])], "ours"), [])

    def test_nothing_became_something(self):
        self.assertEqual(len(lost([row(COST, [0.0])], [row(COST, [1.0])], "ours")), 1)


class CpuTests(SynchronousTestCase):
    def test_the_exact_time_is_split_as_the_ticks_are(self):
        spent = Cpu(2.5, 2.0, 1.0).since(Cpu(0.5, 0.5, 0.5))
        self.assertEqual(spent, Cpu(2.0, 1.5, 0.5))

    def test_less_than_a_tick(self):
        self.assertEqual(Cpu(0.001, 0.0, 0.0).since(Cpu(0.0, 0.0, 0.0)), Cpu(0.001, 0.001, 0.0))


class ProbeTests(SynchronousTestCase):
    """The clock stands still but for what a test lets pass."""

    def setUp(self):
        self.now, self.notes = 100.0, list[float]()
        self.patch(time, "perf_counter", lambda: self.now)
        self.probe = Probe(self, self.notes.append)

    register = modify = unregister = close = fileno = None

    def poll(self, _timeout: float, _most: int) -> "list[tuple[int, int]]":
        """The poller below: it waits for a second."""
        self.now += 1.0
        return [(3, 1)]

    def test_waiting_does_not_count(self):
        for _ in range(3):
            self.assertEqual(self.probe.poll(1.0, 1), [(3, 1)])
        self.assertEqual(self.notes, [])

    def test_turns(self):
        self.probe.poll(1.0, 1)
        for busy in (WORTH_NOTING / 2, 0.5, 0.25):
            self.now += busy
            self.probe.poll(1.0, 1)
        self.assertEqual(self.notes, [0.5, 0.25])


class FlameTests(SynchronousTestCase):
    LINES = (
        "main (a.py:1);loop (a.py:2);work (b.py:3) 6",
        "main (a.py:1);loop (a.py:2) 2",
        "thread (t.py:1);_worker (concurrent/futures/thread.py:81) 100",
    )

    def test_who_waits_is_left_out(self):
        self.assertEqual(sum(working(self.LINES).values()), 8)

    def test_the_tree(self):
        root = tree(working(self.LINES))
        main = root.callees["main (a.py:1)"]
        self.assertEqual((root.samples, main.samples), (8, 8))
        self.assertEqual(main.callees["loop (a.py:2)"].callees["work (b.py:3)"].samples, 6)

    def test_the_picture(self):
        text = draw(tree(working(["<module> (a.py:1);work (b.py:3) 3", "<module> (a.py:1) 1"])), "a & b")
        self.assertIn("a &amp; b", text)
        self.assertIn("<title>&lt;module&gt; (a.py:1): 100.0%</title>", text)
        self.assertIn("<title>work (b.py:3): 75.0%</title>", text)
        self.assertEqual(text.count("<rect"), 2)

    def test_nothing_to_draw(self):
        self.assertNotIn("<rect", draw(tree({}), "none"))

    def test_the_summary(self):
        self.assertEqual(
            summary(working(self.LINES), 1), ["itself   75.0%  work (b.py)", "in all  100.0%  main (a.py)"]
        )


class MeasureTests(SynchronousTestCase):
    def test_keys_are_different(self):
        keys = [measure.key for measure in MEASURES]
        self.assertEqual(len(keys), len(set(keys)))

    def test_all_servers_are_known(self):
        for measure in MEASURES:
            self.assertEqual(set(measure.peers) - set(PEERS), set(), measure.key)
            for metric in measure.metrics:
                for target in (metric.floor, metric.goal):
                    self.assertIn(target and target.of, (None, *measure.peers), measure.key)

    def test_the_hot_ones_have_their_floors(self):
        found = {measure.key: measure for measure in MEASURES}
        medians = {OURS: 1.0, DISTRIBUTION_3: 300.0, OLAREG: 30.0}
        for key in ("tag-256", "digest-256", "head-256", "small-256"):
            limits = [metric.floor and metric.floor.limit(medians) for metric in found[key].metrics]
            self.assertEqual(limits, [900.0, 60.0, 100.0])

    def test_chosen(self):
        self.assertEqual(chosen(None), list(MEASURES))
        self.assertEqual([each.key for each in chosen("head,put-4")], ["head-32", "head-256", "put-4"])
        self.assertRaises(SystemExit, chosen, "head,nothing")


class ClientTests(SynchronousTestCase):
    here = Address("127.0.0.1", 5000)

    def test_locations(self):
        for text, path in (
            ("/v2/a/blobs/uploads/1", "/v2/a/blobs/uploads/1"),
            ("http://127.0.0.1:5000/v2/x?_state=1", "/v2/x?_state=1"),
        ):
            self.assertEqual(location(self.here, Reply(202, {"location": text}, b"")), path)

    def test_a_location_elsewhere(self):
        for headers in ({}, {"location": "http://other:5000/v2/x"}):
            self.assertRaises(Failed, location, self.here, Reply(202, headers, b""))

    def test_the_end_of_an_upload(self):
        self.assertEqual(with_digest("/u", "sha256:0"), "/u?digest=sha256:0")
        self.assertEqual(with_digest("/u?_state=1", "sha256:0"), "/u?_state=1&digest=sha256:0")
