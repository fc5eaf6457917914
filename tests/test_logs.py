"""The log keeps what `loglevel` asks for, whoever observes it."""

from typing import Any, cast

from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher
from twisted.trial.unittest import SynchronousTestCase

from txregistry.logs import LEVELS, keep_from


class KeepFromTests(SynchronousTestCase):
    def told(self, loglevel: str) -> list[str]:
        """The levels that reach an observer."""
        events: list[dict[str, Any]] = []
        publisher = LogPublisher(cast(ILogObserver, events.append))
        keep_from(loglevel, publisher)
        logger = Logger("test", observer=publisher)
        for level in LogLevel.iterconstants():
            logger.emit(level, "x")
        return [event["log_level"].name for event in events]

    def test_levels_from_the_one_asked_for_on(self):
        self.assertEqual(self.told("debug"), ["debug", "info", "warn", "error", "critical"])
        self.assertEqual(self.told("info"), ["info", "warn", "error", "critical"])
        self.assertEqual(self.told("warn"), ["warn", "error", "critical"])
        self.assertEqual(self.told("critical"), ["critical"])

    def test_names_are_pythons_in_any_case(self):
        self.assertEqual(self.told("WARNING"), self.told("warn"))
        self.assertEqual(self.told("Error"), ["error", "critical"])

    def test_unknown_level(self):
        self.assertRaises(KeyError, keep_from, "loud", LogPublisher())

    def test_every_level_of_twisted_has_a_name(self):
        self.assertEqual(set(LEVELS.values()), set(LogLevel.iterconstants()))

    def test_each_observer_is_filtered_once(self):
        first: list[object] = []
        second: list[object] = []
        publisher = LogPublisher(cast(ILogObserver, first.append), cast(ILogObserver, second.append))
        keep_from("error", publisher)
        logger = Logger("test", observer=publisher)
        logger.info("no")
        logger.error("yes")
        self.assertEqual((len(first), len(second)), (1, 1))
