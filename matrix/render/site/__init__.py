"""The site: static pages that answer one question each, and the same as data for programs."""
