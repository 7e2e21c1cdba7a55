"""The host side of kvconform: which cells exist, how one runs, what the results mean.

It reads the records that cells leave, and imports nothing that runs in one: no kvconform, no torch, no transformers.
"""
