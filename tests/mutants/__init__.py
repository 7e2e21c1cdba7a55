"""Planted subjects, each wrong in one way that a real registration was or could be: the suite must notice every one.

``python -m mutants`` runs the suite on all of them and says which checks noticed which.
"""
