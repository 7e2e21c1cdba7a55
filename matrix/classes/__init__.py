"""What the cache classes of each transformers release have: attributes, parameters, operators.

`reading` takes it from the source of one release, `table` merges the releases into the file that travels with the
library. `kvconform explain` and the site look errors up in it: most errors that people post about caches come from code
that was written for the classes of another release.
"""
