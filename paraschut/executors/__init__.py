"""Executors: the only code that speaks scheduler."""
