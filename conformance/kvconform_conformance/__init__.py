"""The conformance suite: checks put to subjects, in the environment at hand (``python -m kvconform check``)."""
