"""How fast the registry is, beside others on the same machine: `python -m bench`, explained in docs/performance.md."""
