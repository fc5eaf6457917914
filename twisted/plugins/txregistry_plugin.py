"""Makes `registry` known to `twistd`; every `twistd` command loads this, so it imports nothing of ours."""

from twisted.application.service import ServiceMaker

serviceMaker = ServiceMaker(
    "txregistry",
    "txregistry.tap",
    "A container registry (OCI distribution and Docker V1).",
    "registry",
)
