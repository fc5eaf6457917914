"""A client's own token for Glance reaches what reads for its request, and nothing else."""

from __future__ import annotations

from typing import Any

from tests.web.v1.base import A as IMAGE
from tests.web.v1.base import V1TestCase
from txregistry.auth.factory import AccessOptions, make_guard
from txregistry.auth.glance import GlanceAccess
from txregistry.interfaces import request_access
from txregistry.testing.agent import Agent
from txregistry.testing.pools import ImmediatePool
from txregistry.web.app import make_resource

ENDPOINT = "https://glance.example:9292"


class RequestTests(V1TestCase):
    def test_each_request_has_its_own(self) -> None:
        self.push_image(IMAGE)
        driver: Any = self.memory.driver
        opened, seen = driver.open, []

        def look(path: str) -> Any:
            seen.append(request_access.get())
            return opened(path)

        driver.open = look
        guard = make_guard(
            AccessOptions(glance_endpoints=(ENDPOINT,)), None, driver, ImmediatePool(), self.memory.clock
        )
        self.memory.agent = Agent(make_resource(self.memory.registry, self.options, guard), self.memory.clock)
        path = f"/v1/images/{IMAGE}/layer"
        mine = {"X-Meta-Auth-Token": "t", "X-Meta-Glance-Endpoint": ENDPOINT}
        for given in (mine, {}, {"X-Meta-Auth-Token": "u"}):
            self.assertEqual(self.get(path, given).code, 200)
        self.assertEqual(seen, [GlanceAccess("t", ENDPOINT), None, GlanceAccess("u")])
        self.assertIsNone(request_access.get())
