"""Whatever is in a file or in the environment, nothing but settings or a ConfigError of one line comes out."""

from __future__ import annotations

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.config.helpers import ConfigCase
from txregistry.config import ConfigError, Settings, check
from txregistry.config.keys import Block
from txregistry.config.schema import IGNORED, KEYS

NAMES = [name for key in KEYS for name in (key.name, *key.aliases)] + list(IGNORED)
INNER = [key.name for outer in KEYS if isinstance(outer.kind, Block) for key in outer.kind.keys]

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.dates(),
    st.binary(max_size=4),
    st.text(max_size=8),
    st.sampled_from(
        [
            "local",
            "s3",
            "glance",
            "elliptics",
            "_env:A",
            "_env:B:x",
            "_env:",
            "REPLACEME",
            "-",
            "off",
            "tcp:1",
            "https:2",
            "10M",
            "7d",
            "1.2.3.4",
            "http://[",
            "h:1",
            "h:1:10",
            "true",
            "auto",
            "open",
            "~",
            "~/x",
        ]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(INNER), st.text(max_size=4), st.integers()), inner, max_size=3
        ),
    ),
    max_leaves=6,
)
FLAVORS = st.dictionaries(
    st.one_of(st.sampled_from(NAMES), st.sampled_from(NAMES), st.text(max_size=6)), VALUES, max_size=4
)


class FuzzTests(ConfigCase):
    def outcome(self, text: str | bytes, environ: dict[str, str]) -> None:
        try:
            found = self.load(text, environ=environ)
        except ConfigError as error:
            line = str(error)
            self.assertEqual(line.splitlines(), [line])
            self.assertLess(len(line), 1000)
        else:
            self.assertIsInstance(found, Settings)
            self.assertTrue(check(found).isascii())

    @settings(deadline=None, derandomize=True, max_examples=300)
    @given(common=FLAVORS, dev=FLAVORS, a=st.text(st.characters(exclude_characters="\0"), max_size=8))
    def test_mappings(self, common: object, dev: object, a: str) -> None:
        text = yaml.safe_dump({"common": common, "dev": dev}, allow_unicode=True)
        self.outcome(text.encode("utf-8", "surrogatepass"), {"A": a, "HOME": "/me"})

    @settings(deadline=None, derandomize=True, max_examples=200)
    @given(name=st.sampled_from(NAMES), value=VALUES)
    def test_one_key_beside_a_sound_store(self, name: str, value: object) -> None:
        flavor = {"storage_path": "/x", name: value}
        self.outcome(yaml.safe_dump({"dev": flavor}), {"A": "[1, {a: b}]"})

    @settings(deadline=None, derandomize=True, max_examples=200)
    @given(st.one_of(st.binary(max_size=40), st.text(alphabet="dev:{}[]&*!?-|>%'\"\n #,<1x", max_size=40)))
    def test_bytes(self, text: str | bytes) -> None:
        self.outcome(text, {})
        self.outcome(b"dev: " + (text if isinstance(text, bytes) else text.encode()), {})
