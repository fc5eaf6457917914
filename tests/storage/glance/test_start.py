"""What the configuration asks for, and what is found to be wrong before anything is served."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.storage.glance.base import LAYER, GlanceCase
from tests.storage.glance.fake import KEYSTONE, URL, FakeGlance
from txregistry.errors import Unavailable
from txregistry.storage.factory import EngineError, open_driver, place_of, require
from txregistry.storage.glance.options import from_keys
from txregistry.storage.glance.store import InPlace, InUse, look_at_start
from txregistry.storage.memory import Contents, MemoryDriver
from txregistry.storage.openstack.keystone import KeystoneOptions
from txregistry.storage.openstack.tokens import Refused
from txregistry.testing.pools import ImmediatePool

PASSWORD = {"os_auth_url": KEYSTONE, "os_username": "u", "os_password": "p", "os_project_name": "x"}


class OptionsTests(SynchronousTestCase):
    def test_a_user(self) -> None:
        domains = {"os_user_domain_name": "D", "os_project_domain_id": "i"}
        options = from_keys({**PASSWORD, **domains, "os_region_name": "one", "os_cacert": "/c", "swift_user": "y"})
        expected = KeystoneOptions(
            auth_url=KEYSTONE, username="u", password="p", project_name="x", user_domain_name="D", project_domain_id="i"
        )
        self.assertEqual((options.keystone, options.region, options.cacert), (expected, "one", "/c"))
        self.assertEqual((options.missing, options.url), ((), None))

    def test_an_application_credential(self) -> None:
        given = {"os_application_credential_id": "i", "os_application_credential_secret": "s"}
        options = from_keys({"os_auth_url": KEYSTONE, **given})
        assert options.keystone is not None
        self.assertEqual(options.keystone.application_credential_id, "i")

    def test_what_is_missing(self) -> None:
        for name in PASSWORD:
            self.assertEqual(from_keys({**PASSWORD, name: None}).missing, (name,))
        self.assertEqual(len(from_keys({}).missing), 4)
        half = {"os_auth_url": KEYSTONE, "os_application_credential_id": "i"}
        self.assertEqual(from_keys(half).missing, ("os_application_credential_secret",))
        self.assertEqual(from_keys({"os_glance_url": URL, "os_username": "u"}).missing[0], "os_auth_url")

    def test_a_glance_that_asks_nobody(self) -> None:
        options = from_keys({"os_glance_url": URL})
        self.assertEqual((options.url, options.keystone, options.missing), (URL, None, ()))

    def test_the_secret_is_not_shown(self) -> None:
        self.assertNotIn("Sesam", repr(from_keys({**PASSWORD, "os_password": "Sesam"})))


class LookTests(GlanceCase):
    def look(self, fake: FakeGlance | None = None, **changed: Any) -> None:
        alternate = MemoryDriver(self.clock, contents=self.contents)
        look_at_start(from_keys({**PASSWORD, **changed}), fake or self.fake, alternate)

    def line(self, kind: type[BaseException], **changed: Any) -> str:
        error: Any = self.assertRaises(kind, self.look, **changed)
        self.assertNotIn("\n", error.reason)
        return str(error.reason)

    def test_all_is_well(self) -> None:
        self.look()
        self.look()
        self.assertEqual(len(self.fake.images), 1)

    def test_keys_that_are_missing(self) -> None:
        self.assertIn("os_password and os_project_name", self.line(Refused, os_password=None, os_project_name=None))

    def test_no_answer(self) -> None:
        self.fake.out = True
        self.assertIn("refused", self.line(Unavailable))

    def test_no_answer_where_it_served_before(self) -> None:
        self.do(self.node().adoption.scan())
        self.fake.out = True
        self.look()

    def test_no_such_region(self) -> None:
        self.assertIn("region Nowhere", self.line(Refused, os_region_name="Nowhere"))

    def test_something_else_that_answers(self) -> None:
        self.do(self.node().adoption.scan())
        self.assertIn("does not answer as Glance does", self.line(Refused, os_glance_url=f"{URL}/elsewhere"))

    def test_a_token_that_glance_does_not_take(self) -> None:
        self.do(self.node().adoption.scan())

        def expire(method: str, target: str) -> None:
            self.fake.expire()

        self.fake.before = expire
        self.assertIn("401", self.line(Refused))

    def test_another_store(self) -> None:
        self.look()
        self.contents = Contents()
        self.assertIn("storage_alternate", self.line(InUse))

    def test_it_is_done_by_prepare(self) -> None:
        driver = self.node()
        driver._look = self.look
        self.fake.out = True
        self.assertRaises(Unavailable, driver.prepare)
        self.fake.out = False
        driver.prepare()
        self.push(driver, LAYER, b"x")
        self.do(driver.close())


class FactoryTests(SynchronousTestCase):
    def test_it_opens_its_alternate(self) -> None:
        clock = Clock()
        keys = {"storage_alternate": "local", "os_glance_url": "http://127.0.0.1:1"}
        driver = open_driver("glance", self.mktemp(), ImmediatePool(), clock, keys)  # type: ignore[arg-type]  # as in commands
        self.assertIn("refused", self.assertRaises(Unavailable, driver.prepare).reason)
        keys = {"storage_alternate": "local"}
        driver = open_driver("glance", self.mktemp(), ImmediatePool(), clock, keys)  # type: ignore[arg-type]
        self.assertIn("os_auth_url", self.assertRaises(Unavailable, driver.prepare).reason)

    def test_the_alternate_is_required_too(self) -> None:
        require("glance", "local")
        self.assertRaises(EngineError, require, "glance", "nothing")

    def test_where_it_is(self) -> None:
        self.assertEqual(
            place_of("glance", "/srv", {"os_glance_url": URL}, "local"), f"{URL}, with /srv (local) as its alternate"
        )
        keys = {"os_auth_url": KEYSTONE, "swift_container": "c", "boto_bucket": None}
        self.assertEqual(
            place_of("glance", "x", keys, "swift"),
            f"what {KEYSTONE} has in its catalog, with container c, keys below x (swift) as its alternate",
        )
        self.assertEqual(place_of("s3", None, {"boto_bucket": "b"}), "bucket b")
        self.assertEqual(place_of("local", "/srv", {}), "/srv")
        self.assertEqual(place_of("elliptics", None, {"elliptics_groups": (1, 2)}), "groups 1, 2")

    def test_in_place(self) -> None:
        pool = InPlace(lambda: 7.0)
        self.assertEqual(self.successResultOf(pool.run(int, "3")), 3)
        self.failureResultOf(pool.run_small(int, "x"), ValueError)
        self.assertEqual(pool.seconds(), 7.0)
