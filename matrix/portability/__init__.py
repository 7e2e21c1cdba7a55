"""Programs that one release saves and another loads."""
