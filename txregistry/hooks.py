"""The operator's plug-in, found by the dotted name that the key `hooks` gives."""

from __future__ import annotations

from twisted.python.reflect import namedAny
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from txregistry.interfaces import IHooks
from txregistry.startup import StartFailed


def load_hooks(name: str) -> IHooks:
    """What is of this name, a provider of IHooks, or an instance of it, a class of such.

    StartFailed, with the reason, if it cannot be imported or does not keep what it promises.
    """
    try:
        found = namedAny(name)
        if isinstance(found, type):
            found = found()
        if not IHooks.providedBy(found):
            raise StartFailed(_line(name, "it does not provide txregistry.interfaces.IHooks"))
        verifyObject(IHooks, found)
    except StartFailed:
        raise
    except Invalid as error:
        raise StartFailed(_line(name, str(error))) from None
    except Exception as error:
        # Whatever the code of the operator raises.
        raise StartFailed(_line(name, f"{type(error).__name__}: {error}")) from None
    return found


def _line(name: str, reason: str) -> str:
    return f"hooks: {name} cannot be used: {' '.join(reason.split())}"
