"""Who is given up for being slow, and who is not, by a clock."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txregistry.web.pace import Pace

WINDOW, RATE = 60.0, 10.0


class Client:
    """Somebody who moves bytes, or does not."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.moved = 0
        self.given_up = 0
        self.pace = Pace(self.clock, WINDOW, RATE, lambda: self.moved, self.give_up)

    def give_up(self) -> None:
        self.given_up += 1

    def run(self, seconds: int, rate: int) -> None:
        """Let some time pass, while so many bytes a second are moved."""
        for _ in range(seconds):
            self.moved += rate
            self.clock.advance(1)


class PaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client()
        self.clock, self.pace = self.client.clock, self.client.pace

    def test_nothing_moves(self) -> None:
        self.pace.wait()
        self.clock.advance(WINDOW - 1)
        self.assertEqual(self.client.given_up, 0)
        self.clock.advance(1)
        self.assertEqual(self.client.given_up, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_slow(self) -> None:
        self.pace.wait()
        self.client.run(int(WINDOW), int(RATE) - 1)
        self.assertEqual(self.client.given_up, 1)

    def test_fast_enough(self) -> None:
        self.pace.wait()
        self.client.run(1000, int(RATE))
        self.assertEqual(self.client.given_up, 0)

    def test_in_bursts(self) -> None:
        """A client that pauses for less than the window is as good as one that is always as fast."""
        self.pace.wait()
        for _ in range(20):
            self.client.run(1, int(RATE * WINDOW))
            self.client.run(int(WINDOW) - 1, 0)
        self.assertEqual(self.client.given_up, 0)

    def test_stops_after_having_been_fast(self) -> None:
        """What was moved in former windows buys nothing."""
        self.pace.wait()
        self.client.run(600, 1 << 20)
        self.client.run(2 * int(WINDOW), 0)
        self.assertEqual(self.client.given_up, 1)

    def test_time_of_others(self) -> None:
        """Only the time counts for which the client is waited for."""
        for _ in range(int(WINDOW) - 1):
            self.pace.wait()
            self.clock.advance(1)
            self.pace.rest()
            self.clock.advance(100)
        self.assertEqual(self.client.given_up, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.pace.wait()
        self.clock.advance(1)
        self.assertEqual(self.client.given_up, 1)

    def test_a_byte_now_and_then(self) -> None:
        seconds = 0
        while not self.client.given_up:
            self.pace.wait()
            self.client.run(1, 1)
            self.pace.rest()
            self.clock.advance(0.5)
            seconds += 1
        self.assertEqual(seconds, WINDOW)

    def test_end(self) -> None:
        self.pace.wait()
        self.pace.end()
        self.pace.rest()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.pace.end()
        self.assertEqual(self.client.given_up, 0)

    def test_waiting_twice(self) -> None:
        self.pace.wait()
        self.clock.advance(WINDOW / 2)
        self.pace.wait()
        self.clock.advance(WINDOW / 2)
        self.assertEqual(self.client.given_up, 1)


class AnyClientTests(SynchronousTestCase):
    @settings(deadline=None, derandomize=True, max_examples=50)
    @given(st.lists(st.tuples(st.integers(1, 90), st.integers(0, 30), st.booleans()), max_size=30))
    def test_bounds(self, stretches: "list[tuple[int, int, bool]]") -> None:
        """Nobody is given up who was as fast as he must be all the time, and nobody lasts who never was."""
        client = Client()
        slow = fast = True
        waited = 0
        for seconds, rate, waiting in stretches:
            if client.given_up:
                break
            if waiting:
                client.pace.wait()
                waited += seconds
            else:
                client.pace.rest()
            slow &= rate == 0
            fast &= rate >= RATE
            client.run(seconds, rate)
        if fast:
            self.assertEqual(client.given_up, 0)
        if slow and waited >= WINDOW:
            client.pace.wait()
            client.clock.advance(1)
            self.assertGreaterEqual(client.given_up, 1)
