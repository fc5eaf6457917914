"""The Elliptics engine: the protocol, a blocking session, groups of replicas, and the driver over them."""
