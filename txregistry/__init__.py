"""txregistry: a container registry on Twisted and Klein, for the V1 protocol and the OCI distribution API."""
