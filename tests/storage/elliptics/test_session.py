"""Handshakes, timeouts and broken peers, over sockets."""

import socket
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.storage.elliptics.server import (
    CLOSE_AFTER,
    CLOSE_BEFORE,
    FIELDS,
    READ,
    SILENT,
    VERSIONS,
    Server,
    Store,
)
from txregistry.storage.elliptics import connection, wire
from txregistry.storage.elliptics import session as session_module
from txregistry.storage.elliptics.connection import Lost, Refused
from txregistry.storage.elliptics.session import Options, Session, Sessions
from txregistry.storage.elliptics.session import Routes as Routing


class SessionTests(SynchronousTestCase):
    def server(self, *args, **kwargs):
        server = Server(*args, **kwargs).start()
        self.addCleanup(server.stop)
        return server

    def session(self, *servers, **changes):
        options = Options(tuple(server.node for server in servers), **{"timeout": 5.0, **changes})
        session = Session(Routing(options))
        self.addCleanup(session.close)
        return session

    def raw_server(self, answer):
        """A server that sends these bytes to whoever connects and then waits."""
        listener = socket.create_server(("127.0.0.1", 0))
        opened = []

        def serve():
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                opened.append(client)
                client.recv(200)
                client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()

        def stop():
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for client in opened:
                client.close()
            thread.join(5)

        self.addCleanup(stop)
        return listener.getsockname()[1]

    # -- dialects -------------------------------------------------------------------------------------------------

    def test_no_silence_is_waited_for(self):
        """Each version is found out by what servers answer, not by how long they do not."""

        class NoSilence(AssertionError):
            pass

        self.patch(connection, "SILENCE", 60.0)
        self.patch(connection, "Silent", NoSilence)
        for name in VERSIONS:
            server = self.server(name)
            self.assertEqual(self.session(server).connection(1).dialect.name, name)
            self.assertLessEqual(server.connections, 5)

    def test_a_server_that_was_replaced_by_one_of_another_version(self):
        """What was remembered of it is tried first, and then the others."""
        self.patch(connection, "SILENCE", 0.2)
        server = self.server("2.24")
        session = self.session(server)
        session.write(1, "a", [b"hi"])
        for name in ("2.25", "2.26", "3.0", "2.25.6", "2.24"):
            server.stop()
            server.version, server.length = VERSIONS[name]
            server.at = FIELDS[server.length]
            server.start()
            session.begin()
            self.assertEqual(session.read(1, "a", 0, 9).data, b"hi", name)
            self.assertEqual(session.connection(1).dialect.name, name)

    def test_a_version_that_nobody_knows(self):
        self.patch(connection, "SILENCE", 0.2)
        server = self.server()
        server.version = (2, 99, 0, 0)
        self.assertIn("speaks none of", str(self.assertRaises(Lost, self.session(server).connection, 1)))

    def test_every_version_is_found_out(self):
        self.patch(connection, "SILENCE", 0.2)
        for name, (version, _) in VERSIONS.items():
            server = self.server(name)
            session = self.session(server)
            session.write(1, "a/b", [b"hi"])
            self.assertEqual(session.read(1, "a/b", 0, 9).data, b"hi", name)
            self.assertEqual(session.connection(1).peer.version, version)
            self.assertEqual(session.connection(1).dialect.name, name)
            tried = server.connections
            session.connection(1).close()
            session.read(1, "a/b", 0, 9)
            self.assertEqual(server.connections, tried + 1, "what worked is remembered")

    def test_a_configured_version_that_is_wrong(self):
        server = self.server("2.26")
        wrong = self.session(server, dialects=wire.DIALECTS[4:])
        self.assertRaises(Lost, wrong.read, 1, "a", 0, 1)
        silent = self.session(server, dialects=wire.DIALECTS[:1], timeout=0.2)
        self.assertRaises(Lost, silent.read, 1, "a", 0, 1)

    def test_indexes_by_version(self):
        for name in VERSIONS:
            session = self.session(self.server(name), dialects=tuple(d for d in wire.DIALECTS if d.name == name))
            if name == "3.0":
                self.assertFalse(session.has_indexes(1))
                self.assertEqual(self.assertRaises(Refused, session.set_indexes, 1, "a", [], b"").status, wire.ENOTSUP)
                continue
            self.assertTrue(session.has_indexes(1))
            self.assertEqual(session.find_indexes(1, ["docker", "x"]), [])
            for number in range(40):
                session.set_indexes(1, f"x/{number}", ["docker", "x"], b"x/%d" % number)
            session.set_indexes(1, "y/1", ["docker", "y"], b"y/1")
            session.set_indexes(1, "x/7", [], b"")
            found = sorted(session.find_indexes(1, ["docker", "x"]))
            self.assertEqual(found, sorted(b"x/%d" % number for number in range(40) if number != 7))
            self.assertEqual(session.find_indexes(1, ["docker", "y"]), [b"y/1"])

    # -- groups ---------------------------------------------------------------------------------------------------

    def test_a_group_is_only_asked_where_it_lives(self):
        """An old server carries out what is meant for a group that it does not know."""
        one, two = self.server(groups={1: Store()}), self.server(groups={2: Store()})
        session = self.session(one, two, dialects=wire.DIALECTS[:1])
        session.write(2, "a", [b"two"])
        self.assertEqual((len(one.groups[1].records), len(two.groups[2].records)), (0, 1))
        two.stop()
        session.begin()
        self.assertRaises(Lost, session.write, 2, "b", [b"two"])
        self.assertRaises(Lost, session.write, 77, "b", [b"two"])
        self.assertEqual(len(one.groups[1].records), 0)
        # The server itself would have taken it.
        client = session.connection(1)
        attributes = wire.pack_attributes(wire.Attributes(bytes(64), size=1))
        client.call(bytes(64), 77, wire.WRITE, [attributes, b"x"])
        self.assertEqual(len(one.groups[1].records), 1)

    def test_a_server_that_was_not_named(self):
        """Of one group a server is configured; it knows that of the other."""
        for version in ("2.24", "2.25.6", "2.26"):
            one, two = self.server(version, {1: Store()}), self.server(version, {2: Store()})
            one.neighbours.append(two)
            session = self.session(one)
            session.write(2, "a", [b"two"])
            self.assertEqual((len(one.groups[1].records), len(two.groups[2].records)), (0, 1))
            self.assertRaises(Lost, session.write, 3, "a", [b"x"])
            alone = self.session(one, discover=False)
            self.assertRaises(Lost, alone.write, 2, "a", [b"two"])
            two.stop()
            tried = one.connections
            for _ in range(3):
                session.begin()
                self.assertRaises(Lost, session.write, 2, "a", [b"two"])
            self.assertEqual(one.connections, tried, "it is not asked again each time")

    def test_a_server_that_does_not_tell_its_neighbours(self):
        """It is asked once, and not waited for as long as for an answer that matters."""
        self.patch(connection, "SILENCE", 0.1)
        self.patch(session_module, "QUIET", 0.0)
        for wish in (SILENT, -95):
            server = self.server()
            asked: list[int] = []
            server.hook = lambda command, group, body, asked=asked, wish=wish: asked.append(command) or wish
            session = self.session(server, dialects=wire.DIALECTS[:1])
            for _ in range(3):
                session.begin()
                self.assertRaises(Lost, session.read, 2, "a", 0, 9)
            self.assertEqual(asked, [wire.ROUTE_LIST])

    def test_an_unknown_group_of_2_26(self):
        session = self.session(self.server("2.26", {1: Store(), 2: Store()}), dialects=wire.DIALECTS[3:4])
        session.write(2, "a", [b"2"])
        client = session.connection(1)
        self.assertIsNot(client, session.connection(2), "one socket for each group")
        attributes = wire.pack_attributes(wire.Attributes(bytes(64), size=1))
        error = self.assertRaises(Refused, client.call, bytes(64), 77, wire.WRITE, [attributes, b"x"])
        self.assertEqual(error.status, wire.ENOTSUP)

    # -- what goes wrong ------------------------------------------------------------------------------------------

    def test_refused(self):
        server = self.server()
        server.stop()
        self.assertRaises(Lost, self.session(server).read, 1, "a", 0, 1)

    def test_a_timed_out_socket_is_never_used_again(self):
        server = self.server()
        session = self.session(server, timeout=0.2, dialects=wire.DIALECTS[:1])
        session.write(1, "a", [b"hi"])
        used = session.connection(1)
        server.hook = lambda command, group, body: SILENT
        self.assertRaises(Lost, session.read, 1, "a", 0, 9)
        self.assertTrue(used.closed)
        server.hook = None
        self.assertRaises(Lost, session.read, 1, "a", 0, 9)  # not within the same job
        session.begin()
        self.assertEqual(session.read(1, "a", 0, 9).data, b"hi")
        self.assertIsNot(session.connection(1), used)

    def test_an_answer_that_comes_late_is_nobodys(self):
        """The next request is not answered with it."""
        server = self.server()
        session = self.session(server, timeout=0.2, dialects=wire.DIALECTS[:1])
        session.write(1, "a", [b"one"])
        session.write(1, "b", [b"two"])
        slow = [0.4]
        server.hook = lambda command, group, body: time.sleep(slow.pop()) if slow else None
        self.assertRaises(Lost, session.read, 1, "a", 0, 9)
        session.begin()
        self.assertEqual(session.read(1, "b", 0, 9).data, b"two")

    def test_a_request_that_was_cut(self):
        """In the middle of what is appended: nothing was appended, and a new socket is had for what comes next."""
        server = self.server()
        session = self.session(server, dialects=wire.DIALECTS[:1])
        session.write(1, "a", [b"x" * 1000])
        server.cut_requests = 600
        self.assertRaises(Lost, session.write, 1, "a", [b"y" * 1000], wire.IO_APPEND | wire.IO_NOCSUM)
        server.cut_requests = None
        self.assertEqual(session.read(1, "a", 0, 2000).data, b"x" * 1000)

    def test_what_a_server_asks_is_passed_over(self):
        """A request among the answers, as servers send them to their neighbours."""
        server = self.server()
        session = self.session(server, dialects=wire.DIALECTS[:1])
        session.write(1, "a", [b"hi"])
        answer = server._read

        def asks(store, header, body):
            return wire.request(wire.DIALECTS[0], bytes(64), 1, 9, 77, [b"abc"]) + b"abc" + answer(store, header, body)

        server._read = asks
        self.assertEqual(session.read(1, "a", 0, 9).data, b"hi")

    def test_one_asks_whether_a_silent_server_is_back(self):
        """The others do not wait with it."""
        self.patch(session_module, "QUIET", 0.0)
        server = self.server()
        server.silent_to_all = True
        routes = Routing(Options((server.node,), timeout=0.1, dialects=wire.DIALECTS[:1]))
        self.assertRaises(Lost, routes.connect, 1)
        self.patch(session_module, "QUIET", 60.0)
        self.assertRaises(Lost, routes.connect, 1)
        tried = server.connections
        self.assertRaises(Lost, routes._open, server.node)
        self.assertEqual(server.connections, tried)

    def test_a_server_that_takes_connections_and_says_nothing_is_left_alone(self):
        server = self.server()
        server.silent_to_all = True
        session = self.session(server, timeout=0.1, dialects=wire.DIALECTS[:1])
        self.assertRaises(Lost, session.read, 1, "a", 0, 9)
        tried = server.connections
        session.begin()
        self.assertRaises(Lost, session.read, 1, "a", 0, 9)
        self.assertEqual(server.connections, tried)

    def test_cut(self):
        """Before it was done, after, and in the middle of the answer."""
        server = self.server()
        session = self.session(server, dialects=wire.DIALECTS[:1])
        session.write(1, "a", [b"x" * 1000])
        for wish in (CLOSE_BEFORE, CLOSE_AFTER):
            server.hook = lambda command, group, body, wish=wish: wish
            self.assertRaises(Lost, session.write, 1, "b", [b"b"])
            self.assertEqual(len(server.groups[1].records), 1 if wish == CLOSE_BEFORE else 2)
        server.hook = None
        for cut in (50, 104, 300, 900):
            server.cut_reads = cut
            self.assertRaises(Lost, session.read, 1, "a", 0, 2000)
        server.cut_reads = None
        self.assertEqual(session.read(1, "a", 0, 2000).data, b"x" * 1000)

    def test_a_server_that_was_killed_and_came_back(self):
        """An idle socket of a session that nobody uses is found dead before it is used."""
        server = self.server()
        sessions = Sessions(Options((server.node,), timeout=5.0, dialects=wire.DIALECTS[:1]))
        self.addCleanup(sessions.close)
        with sessions.lend() as session:
            session.write(1, "a", [b"hi"])
        server.stop()
        server.start()
        with sessions.lend() as again:
            self.assertIs(again, session)
            self.assertEqual(again.read(1, "a", 0, 9).data, b"hi")

    def test_two_jobs_have_two_sessions(self):
        sessions = Sessions(Options((self.server().node,)), most=1)
        with sessions.lend() as one, sessions.lend() as two:
            self.assertIsNot(one, two)
        with sessions.lend() as three:
            self.assertIn(three, (one, two))
        sessions.close()

    def test_an_answer_that_is_too_short_breaks_the_connection(self):
        """A prepared record of an old server: 160 bytes are announced where 208 stand."""
        server = self.server()
        server._read = lambda store, header, body: server.answer(header, 0, bytes(160))
        session = self.session(server, dialects=wire.DIALECTS[:1])
        used = session.connection(1)
        self.assertRaises(Lost, session.read, 1, "a", 0, 9)
        self.assertTrue(used.closed)

    def test_an_answer_that_is_too_long_is_not_read(self):
        server = self.server()
        server._read = lambda store, header, body: server.answer(header, 0, bytes(208 + 1000))
        session = self.session(server, dialects=wire.DIALECTS[:1])
        used = session.connection(1)
        self.assertRaises(Lost, session.read, 1, "a", 0, 9)
        self.assertTrue(used.closed)

    def test_peers_that_speak_something_else(self):
        for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n" + b" " * 100, b"\xff" * 104, bytes(104)):
            port = self.raw_server(answer)
            session = Session(Routing(Options((("127.0.0.1", port, 2),), timeout=0.3, dialects=wire.DIALECTS[:1])))
            self.assertRaises(Lost, session.read, 1, "a", 0, 1)

    def test_statuses(self):
        server = self.server()
        session = self.session(server, dialects=wire.DIALECTS[:1])
        self.assertEqual(self.assertRaises(Refused, session.read, 1, "a", 0, 9).status, wire.ENOENT)
        session.write(1, "a", [b"hi"])
        self.assertEqual(self.assertRaises(Refused, session.read, 1, "a", 2, 9).status, wire.E2BIG)
        server.hook = lambda command, group, body: -5 if command == READ else None
        self.assertEqual(self.assertRaises(Refused, session.read, 1, "a", 0, 9).status, wire.EIO)
        server.hook = None
        self.assertEqual(session.read(1, "a", 0, 9).data, b"hi")
