"""The caches, models, decode steps and prefills that checks are asked of."""
