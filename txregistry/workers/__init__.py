"""Several processes for one registry: `parent.py` keeps them running, `worker.py` is what each of them runs."""
