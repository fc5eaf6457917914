"""Which connections end, and when."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txregistry.web.deadlines import TURN, Deadlines

SECONDS = 10.0


class Connection:
    """One that notes when it was ended, and then waits again if it is told to."""

    def __init__(self, clock: Clock, deadlines: Deadlines, *, again: bool = False) -> None:
        self.clock = clock
        self.deadlines = deadlines
        self.again = again
        self.timeOut: float | None = None
        self.ended: list[float] = []

    def begin(self) -> None:
        self.timeOut = SECONDS
        self.deadlines.begin(self)

    def timeoutConnection(self) -> None:
        self.ended.append(self.clock.seconds())
        if self.again:
            self.begin()


class DeadlinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock, SECONDS)

    def connection(self, *, again: bool = False) -> Connection:
        connection = Connection(self.clock, self.deadlines, again=again)
        connection.begin()
        return connection

    def test_ends_in_time(self) -> None:
        first = self.connection()
        self.clock.advance(4)
        second = self.connection()
        self.clock.advance(5.5)
        self.assertEqual((first.ended, second.ended), ([], []))
        self.clock.pump([0.5, 3.5, 0.5])
        self.assertEqual((first.ended, second.ended), ([10], [14]))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_something_happens(self) -> None:
        busy, quiet = self.connection(), self.connection()
        self.clock.advance(6)
        busy.begin()
        self.clock.pump([4, 5, 1])
        self.assertEqual((busy.ended, quiet.ended), ([16], [10]))

    def test_not_minded_any_more(self) -> None:
        """One that is at work, or has another timeout of its own, is left alone; until it waits again."""
        for other in (None, 3.0):
            connection = self.connection()
            connection.timeOut = other
            self.clock.advance(SECONDS)
            self.assertEqual(connection.ended, [])
            connection.begin()
            self.clock.advance(SECONDS)
            self.assertEqual(len(connection.ended), 1)

    def test_gone(self) -> None:
        gone, other = self.connection(), self.connection()
        self.deadlines.forget(gone)
        self.deadlines.forget(gone)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.deadlines.forget(other)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(SECONDS)
        self.assertEqual((gone.ended, other.ended), ([], []))

    def test_many_at_once(self) -> None:
        """They end in several turns, so that others have theirs in between."""
        connections: list[Connection] = []
        before: list[int] = []
        call_later = self.clock.callLater

        def record(*args):
            before.append(sum(len(each.ended) for each in connections))
            return call_later(*args)

        self.patch(self.clock, "callLater", record)
        connections += [self.connection() for _ in range(2 * TURN + 1)]
        self.clock.advance(SECONDS)
        self.assertEqual(sum(len(each.ended) for each in connections), 2 * TURN + 1)
        self.assertEqual(before, [0, 0, TURN])

    def test_one_timer(self) -> None:
        connections = [self.connection(again=True) for _ in range(5)]
        for _ in range(10):
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            self.clock.advance(SECONDS)
        self.assertEqual([len(each.ended) for each in connections], [10] * 5)

    @settings(deadline=None, derandomize=True, max_examples=50)
    @given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["begin", "work", "forget"]), st.integers(0, 7))))
    def test_as_if_each_had_its_timer(self, steps: "list[tuple[int, str, int]]") -> None:
        clock = Clock()
        deadlines = Deadlines(clock, SECONDS)
        connections = [Connection(clock, deadlines) for _ in range(5)]
        due: dict[int, float] = {}
        expected: dict[int, list[float]] = {number: [] for number in range(5)}
        for number, what, seconds in steps:
            connection = connections[number]
            due.pop(number, None)
            if what == "begin":
                connection.begin()
                due[number] = clock.seconds() + SECONDS
            elif what == "work":
                connection.timeOut = None
            else:
                connection.timeOut = None
                deadlines.forget(connection)
            for _ in range(seconds):
                clock.advance(1)
                for each in [each for each, when in due.items() if when <= clock.seconds()]:
                    expected[each].append(due.pop(each))
        self.assertEqual({number: each.ended for number, each in enumerate(connections)}, expected)
