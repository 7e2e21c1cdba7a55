"""The conformance suite: `python -m kvconform check` puts its checks to subjects, in the environment it runs in."""
