"""The commands of `python -m matrix`, one module a verb.

Each module has `NAME`, `HELP`, `add_arguments(parser)` and `run(found) -> exit code`; what takes long to import is
imported by `run`. `cell` is no verb: it is what the nox session calls.
"""
