"""The log keeps what `loglevel` asks for, whoever observes it."""

import os
from pathlib import Path
from typing import Any, cast

from twisted.logger import ILogObserver, Logger, LogLevel, LogPublisher, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txregistry.logs import LEVELS, AccessLog, keep_from


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


class AccessLogTests(SynchronousTestCase):
    def setUp(self):
        self.path = self.mktemp()

    def log(self, path: str) -> AccessLog:
        log = AccessLog(path)
        self.addCleanup(log.close)
        return log

    def test_lines_are_there_at_once_and_appended(self):
        for line in ("one\n", "two\n"):
            self.log(self.path).write(line)
        self.assertEqual(Path(self.path).read_text(), "one\ntwo\n")

    def test_it_may_be_truncated_meanwhile(self):
        log = self.log(self.path)
        log.write("one\n")
        os.truncate(self.path, 0)
        log.write("two\n")
        self.assertEqual(Path(self.path).read_text(), "two\n")

    def test_it_is_not_for_everybody(self):
        self.log(self.path).open()
        self.assertEqual(Path(self.path).stat().st_mode & 0o007, 0)

    def test_a_path_that_cannot_be_opened(self):
        self.assertRaises(OSError, self.log("/no/such/folder/log").open)

    def test_a_failure_is_told_once_and_harms_no_request(self):
        log = self.log("/dev/full")
        with capturedLogs() as events:
            log.write("one\n")
            log.write("two\n")
        self.assertEqual(
            [formatEvent(event) for event in events],
            ["cannot write the access log /dev/full: [Errno 28] No space left on device"],
        )

    def test_a_daemon_has_no_standard_output(self):
        log = AccessLog("-", daemon=True)
        log.open()
        with capturedLogs() as events:
            log.write("{one}\n")
            log.write("two\nthree\n")
        self.assertEqual([formatEvent(event) for event in events], ["{one}", "two", "three"])
