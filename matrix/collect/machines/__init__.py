"""Cells on more than one machine, through Dask: one task a torch minor, the nox session in it, judged where it began.

`dask.distributed` is needed only for this; `connect` imports it and says what to install.
"""
