"""The configuration: a YAML file of flavors, or nothing at all, becomes one typed `Settings`."""

from txregistry.config.check import check
from txregistry.config.document import Snapshot, take
from txregistry.config.kinds import ConfigError
from txregistry.config.loader import Options, load, sample
from txregistry.config.settings import Cors, Mail, Redis, Settings, Storage

__all__ = [
    "ConfigError",
    "Cors",
    "Mail",
    "Options",
    "Redis",
    "Settings",
    "Snapshot",
    "Storage",
    "check",
    "load",
    "sample",
    "take",
]
